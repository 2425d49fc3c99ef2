//! The request of a delivery when no plugin made one: the envelope, the payload alone, or a CloudEvent. Pure.

use std::collections::BTreeMap;

use serde::ser::{Error as _, SerializeMap};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::delivery::Request;
use crate::endpoint::BodyFormat;
use crate::event::Event;

pub(super) const JSON: &str = "application/json";
const CLOUD_EVENT_JSON: &str = "application/cloudevents+json";

/// What is sent for `event`.
pub fn body_for(event: &Event, format: BodyFormat) -> Request {
    let (content_type, body) = match format {
        BodyFormat::Envelope => (JSON, event.envelope().into()),
        BodyFormat::Payload => (JSON, event.payload.as_bytes().clone()),
        BodyFormat::CloudEvents => {
            let mut body = Vec::with_capacity(event.payload.len() + event.metadata.len() + 256);
            serde_json::to_writer(&mut body, &CloudEvent(event))
                .expect("an event always serializes: its JSON was checked when it was accepted");
            (CLOUD_EVENT_JSON, body.into())
        }
    };
    Request { content_type: content_type.to_owned(), headers: Vec::new(), body }
}

/// A CloudEvent 1.0 in the JSON format. One that came in as a CloudEvent goes out with the same attributes.
struct CloudEvent<'a>(&'a Event);

/// Attributes that are written from the event's own fields; metadata does not replace them.
const OWN_ATTRIBUTES: [&str; 7] = ["data", "datacontenttype", "id", "source", "specversion", "subject", "time"];
/// The JSON format has integers of 32 bits, texts and booleans; a metadata value that is none of them is left out.
fn is_attribute_value(value: &str) -> bool {
    value.starts_with('"') || matches!(value, "true" | "false") || value.parse::<i32>().is_ok()
}

/// The specification's names: lower-case letters and digits.
fn is_extension_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && name != "type"
        && !OWN_ATTRIBUTES.contains(&name)
}

impl Serialize for CloudEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(event) = self;
        // A key that the metadata has twice is written once, with its last value, as most readers take it.
        let metadata: BTreeMap<String, &RawValue> = serde_json::from_str(&event.metadata).map_err(S::Error::custom)?;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("id", &event.id)?;
        if event.aggregate_type.is_empty() {
            map.serialize_entry("source", &format_args!("/sources/{}", event.source))?;
        } else {
            map.serialize_entry("source", &event.aggregate_type)?;
        }
        map.serialize_entry("type", &event.event_type)?;
        if !event.aggregate_id.is_empty() {
            map.serialize_entry("subject", &event.aggregate_id)?;
        }
        map.serialize_entry("time", &event.occurred_at)?;
        match metadata.get("datacontenttype") {
            Some(kept) if kept.get().starts_with('"') => map.serialize_entry("datacontenttype", kept)?,
            Some(_) | None => map.serialize_entry("datacontenttype", JSON)?,
        }
        for (name, value) in &metadata {
            if is_extension_name(name) && is_attribute_value(value.get()) {
                map.serialize_entry(name, value)?;
            }
        }
        let data: &RawValue = serde_json::from_str(&event.payload).map_err(S::Error::custom)?;
        map.serialize_entry("data", data)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    const PAYLOAD: &str = r#"{"b": 1.000, "a":12345678901234567890123}"#;

    fn text(event: &Event, format: BodyFormat) -> (String, String) {
        let request = body_for(event, format);
        (request.content_type, String::from_utf8(request.body.to_vec()).unwrap())
    }

    #[test]
    fn the_envelope_and_the_payload_are_json() {
        let event = sample("evt_1", "order.created", PAYLOAD);
        assert_eq!(text(&event, BodyFormat::Envelope), (JSON.to_owned(), String::from_utf8(event.envelope()).unwrap()));
        assert_eq!(text(&event, BodyFormat::Payload), (JSON.to_owned(), PAYLOAD.to_owned()));
    }

    #[test]
    fn a_cloud_event_has_the_attributes_and_the_payload_byte_for_byte() {
        let event = sample("evt_1", "order.created", PAYLOAD);
        let (content_type, body) = text(&event, BodyFormat::CloudEvents);
        assert_eq!(content_type, "application/cloudevents+json");
        assert_eq!(
            body,
            format!(
                r#"{{"specversion":"1.0","id":"evt_1","source":"/sources/app","type":"order.created","time":"2025-01-15T10:30:00Z","datacontenttype":"application/json","data":{PAYLOAD}}}"#
            )
        );
    }

    #[test]
    fn metadata_that_can_be_an_extension_is_one() {
        let mut event = sample("evt_1", "order.created", "1");
        event.aggregate_type = "https://shop.example/orders".into();
        event.aggregate_id = "order_1".into();
        event.metadata = concat!(
            r#"{"region":"eu","region":"us","attempts": 3,"vip":true,"dataschema":"https://s.example/1","#,
            r#""Upper":"x","with_dash":"x","id":"forged","data":"forged","type":"forged","specversion":"9","#,
            r#""list":[1],"object":{},"nothing":null,"fraction":1.5,"big":4294967296,"escape":"a\"b"}"#
        )
        .into();
        let (_, body) = text(&event, BodyFormat::CloudEvents);
        assert_eq!(
            body,
            concat!(
                r#"{"specversion":"1.0","id":"evt_1","source":"https://shop.example/orders","type":"order.created","#,
                r#""subject":"order_1","time":"2025-01-15T10:30:00Z","datacontenttype":"application/json","#,
                r#""attempts":3,"dataschema":"https://s.example/1","escape":"a\"b","region":"us","vip":true,"data":1}"#
            )
        );
    }

    #[test]
    fn a_content_type_kept_from_a_cloud_event_goes_out_again() {
        let mut event = sample("evt_1", "note.taken", r#""text""#);
        event.metadata = r#"{"datacontenttype":"text/plain"}"#.into();
        let (_, body) = text(&event, BodyFormat::CloudEvents);
        assert!(body.contains(r#""datacontenttype":"text/plain","data":"text"}"#), "{body}");
    }
}
