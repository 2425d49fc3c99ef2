//! Sends any event as a CloudEvent 1.0 in structured mode. Where `format = "cloudevents"` on an endpoint
//! gives every consumer the same, this says where the events come from, what their types are called, and
//! which of the metadata goes along. The payload stays byte for byte.

mod attribute; // What CloudEvents allow as the name and the value of an attribute.

use branchline_plugin::serde_json::value::RawValue;
use branchline_plugin::serde_json::{self, Value};
use branchline_plugin::{Body, Error, Event, Request, Verdict, plugin};
use serde::Deserialize;
use serde::ser::{Serialize, SerializeMap, Serializer};

use attribute::{Extensions, is_uri_reference};

plugin!(handle, check);

const CONTENT_TYPE: &str = "application/cloudevents+json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    source: String,
    #[serde(default)]
    type_prefix: String,
    /// Names of attributes, and where the metadata has their values, as JSON pointers.
    #[serde(default)]
    extensions: Extensions,
    /// Says what the payload is made like.
    dataschema: Option<String>,
}

fn check(config: &Config) -> Result<(), String> {
    if !is_uri_reference(&config.source) {
        return Err("`source` is a URI or a path, such as `/shop` or `https://shop.example.com`".to_owned());
    }
    if config.type_prefix.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err("`type_prefix` has no spaces, such as `com.example.`".to_owned());
    }
    if config.dataschema.as_ref().is_some_and(|schema| !is_uri_reference(schema) || !schema.contains(':')) {
        return Err("`dataschema` is a URI, such as `https://shop.example.com/order.json`".to_owned());
    }
    Ok(())
}

fn handle(event: Event<Box<RawValue>>, config: Config) -> Result<Verdict, Error> {
    let body = serde_json::to_string(&CloudEvent { event: &event, config: &config })
        .map_err(|_| Error::permanent("not-json", "the event cannot be said in JSON"))?;
    Ok(Verdict::Send(Request { headers: Vec::new(), content_type: CONTENT_TYPE.to_owned(), body: Body::Text(body) }))
}

struct CloudEvent<'event> {
    event: &'event Event<Box<RawValue>>,
    config: &'event Config,
}

impl Serialize for CloudEvent<'_> {
    fn serialize<Writer: Serializer>(&self, writer: Writer) -> Result<Writer::Ok, Writer::Error> {
        let Self { event, config } = self;
        let mut map = writer.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("id", &event.id)?;
        map.serialize_entry("source", &config.source)?;
        map.serialize_entry("type", &format_args!("{}{}", config.type_prefix, event.event_type))?;
        if !event.aggregate_id.is_empty() {
            map.serialize_entry("subject", &event.aggregate_id)?;
        }
        map.serialize_entry("time", &event.occurred_at)?;
        // An event that came in as a CloudEvent may say what its text is.
        let content_type = event.metadata.get("datacontenttype").and_then(Value::as_str);
        map.serialize_entry("datacontenttype", content_type.unwrap_or("application/json"))?;
        if let Some(schema) = &config.dataschema {
            map.serialize_entry("dataschema", schema)?;
        }
        for (name, value) in config.extensions.values(&event.metadata) {
            map.serialize_entry(name, &value)?;
        }
        map.serialize_entry("data", &event.payload)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_is_right() {
        branchline_plugin::testing::run_readme_verdict(env!("CARGO_MANIFEST_DIR"), handle, check);
    }

    #[test]
    fn every_fixture_holds() {
        branchline_plugin::testing::run_fixtures(env!("CARGO_MANIFEST_DIR"), handle, check);
    }

    #[test]
    fn the_payload_stays_byte_for_byte() {
        let payload = r#"{ "b":1.000,  "a" : 1e400, "b":"가" }"#;
        let event = Event {
            id: "evt_1".to_owned(),
            event_type: "order.created".to_owned(),
            aggregate_type: String::new(),
            aggregate_id: String::new(),
            occurred_at: "2025-01-15T10:30:00Z".to_owned(),
            payload: RawValue::from_string(payload.to_owned()).expect("it is JSON"),
            metadata: serde_json::Map::new(),
        };
        let config = serde_json::from_str(r#"{"source":"/shop"}"#).expect("a config");
        let Ok(Verdict::Send(request)) = handle(event, config) else { panic!("a request is wanted") };
        let Body::Text(body) = request.body else { panic!("text is wanted") };
        assert!(body.ends_with(&format!(r#","data":{payload}}}"#)), "{body}");
    }
}
