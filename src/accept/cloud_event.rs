//! CloudEvents 1.0 → events: `type` → `eventType`, `source` → `aggregateType`, `subject` → `aggregateId`,
//! `time` → `occurredAt`, `data` → `payload`; extensions, `dataschema` and a `datacontenttype` other than
//! JSON → `metadata`. In binary mode the attributes are headers and the data is the body.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytestring::ByteString;
use http::HeaderMap;

use super::envelope::{self, Parsed, Unreadable};
use super::fault::{Faults, shown};
use super::fields::{self, Draft};
use super::json::{MEMBERS_MAX, Object};

const HEADER_PREFIX: &str = "ce-";
/// Characters of an extension's name; the specification asks for 20 at most.
const EXTENSION_NAME_CHARS_MAX: usize = 64;

/// Whether these are the headers of a CloudEvent in binary mode: any of those that one must have is there.
pub(super) fn is_binary(headers: &HeaderMap) -> bool {
    let mut attributes = headers.keys().filter_map(|name| name.as_str().strip_prefix(HEADER_PREFIX));
    attributes.any(|name| matches!(name, "specversion" | "id" | "type" | "source"))
}

/// Reads one CloudEvent in structured mode.
pub(super) fn read_structured(
    body: &ByteString,
    object: Object<'_>,
    faults: &mut Faults,
) -> Result<Option<Draft>, Unreadable> {
    let mut attributes = Attributes::default();
    let mut payload = None;
    if object.cut {
        faults.add("", || format!("a CloudEvent has at most {MEMBERS_MAX} members"));
    }
    for (name, value) in object.members {
        match &*name {
            "data" => {
                if !object.checked {
                    envelope::checked("data", value)?;
                }
                if payload.replace(body.slice_ref(value)).is_some() {
                    faults.add("data", || "`data` is there more than once".to_owned());
                }
            }
            "data_base64" => faults.add("data_base64", || "binary data is not taken; send JSON in `data`".to_owned()),
            // The JSON format lets a producer write an attribute that is not set as null.
            _ if value == "null" => {}
            _ => {
                envelope::checked("CloudEvent attribute", value)?;
                attributes.set(name, value.to_owned(), faults);
            }
        }
    }
    attributes.into_draft(payload.unwrap_or_else(null), faults)
}

/// Reads a CloudEvent in binary mode: attributes from the headers, data from the body.
pub(super) fn parse_binary(headers: &HeaderMap, body: ByteString) -> Result<Parsed, Unreadable> {
    let mut faults = Faults::new();
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(HEADER_PREFIX) else { continue };
        if name == "datacontenttype" {
            faults.add(name, || "`ce-datacontenttype` has no place beside `content-type`".to_owned());
            continue;
        }
        match header_text(value.as_bytes()) {
            Some(text) => {
                attributes.set(name.to_owned().into(), serde_json::Value::from(text).to_string(), &mut faults)
            }
            None => faults.add(name, || format!("`ce-{}` is not percent-encoded UTF-8", shown(name))),
        }
    }
    // An event without data is a whole CloudEvent.
    let payload = if body.is_empty() { null() } else { body };
    envelope::checked("data", &payload)?;
    let trimmed = payload.slice_ref(payload.trim_ascii());
    let draft = attributes.into_draft(trimmed, &mut faults)?;
    Ok(Parsed { drafts: draft.into_iter().collect(), batch: false, faults })
}

const fn null() -> ByteString {
    ByteString::from_static("null")
}

/// A CloudEvent's attributes as JSON texts.
#[derive(Default)]
struct Attributes<'a> {
    id: Option<String>,
    source: Option<String>,
    kind: Option<String>,
    subject: Option<String>,
    time: Option<String>,
    specversion: Option<String>,
    others: Vec<(Cow<'a, str>, String)>,
}

impl<'a> Attributes<'a> {
    fn set(&mut self, name: Cow<'a, str>, value: String, faults: &mut Faults) {
        let slot = match &*name {
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "specversion" => &mut self.specversion,
            other => {
                let plain = other.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                if !plain || other.is_empty() || other.len() > EXTENSION_NAME_CHARS_MAX {
                    let shown = shown(other);
                    faults.add(other, || {
                        format!("a CloudEvent has no attribute `{shown}`: names are lower-case letters and digits")
                    });
                } else if value.starts_with(['{', '[']) || (is_number(&value) && value.contains(['.', 'e', 'E'])) {
                    faults.add(other, || format!("`{other}` must be a string, a boolean or an integer"));
                } else if self.others.iter().any(|(known, _)| *known == name) {
                    faults.add(other, || format!("`{other}` is there more than once"));
                } else {
                    self.others.push((name, value));
                }
                return;
            }
        };
        if slot.replace(value).is_some() {
            faults.add(&name, || format!("`{name}` is there more than once"));
        }
    }

    fn into_draft(self, payload: ByteString, faults: &mut Faults) -> Result<Option<Draft>, Unreadable> {
        let before = faults.count();
        let required =
            [("specversion", &self.specversion), ("id", &self.id), ("source", &self.source), ("type", &self.kind)];
        for (name, value) in required {
            if value.is_none() {
                faults.add(name, || format!("`{name}` is required"));
            }
        }
        let mut text = |name, value: &Option<String>, rule| {
            let text = envelope::text(name, value.as_deref(), rule, faults)?;
            Ok(text.map(|text| ByteString::from(text.into_owned())))
        };
        text("specversion", &self.specversion, |version| (version != "1.0").then_some("must be `1.0`"))?;
        let id = text("id", &self.id, fields::id_fault)?;
        let aggregate_type = text("source", &self.source, present_name_fault)?;
        let event_type = text("type", &self.kind, fields::event_type_fault)?;
        let aggregate_id = text("subject", &self.subject, present_name_fault)?;
        let occurred_at = text("time", &self.time, fields::time_fault)?;
        for name in ["datacontenttype", "dataschema"] {
            let value = self.others.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            text(name, &value, |_| None)?;
        }
        let (Some(event_type), Some(aggregate_type), true) = (event_type, aggregate_type, faults.count() == before)
        else {
            return Ok(None);
        };
        let metadata = metadata(&self.others);
        let aggregate_id = aggregate_id.unwrap_or_default();
        Ok(Some(Draft { id, event_type, aggregate_type, aggregate_id, occurred_at, payload, metadata }))
    }
}

/// What the envelope has no field for, as a JSON object. The names need no escapes and the values are JSON.
fn metadata(others: &[(Cow<'_, str>, String)]) -> ByteString {
    let mut json = String::from("{");
    for (name, value) in others {
        if name == "datacontenttype" && value == "\"application/json\"" {
            continue;
        }
        let comma = if json.len() > 1 { "," } else { "" };
        write!(json, "{comma}\"{name}\":{value}").expect("writing to a string does not fail");
    }
    json.push('}');
    json.into()
}

fn is_number(json: &str) -> bool {
    json.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

fn present_name_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() { Some("must not be empty") } else { fields::name_fault(text) }
}

/// A header's value as an attribute: quotes taken off, percent-encoded bytes decoded, as the HTTP binding says.
fn header_text(value: &[u8]) -> Option<String> {
    let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = quoted.unwrap_or(value);
    loop {
        match rest {
            [] => break,
            [b'\\', escaped, after @ ..] if quoted.is_some() => {
                bytes.push(*escaped);
                rest = after;
            }
            [b'%', high, low, after @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                rest = after;
            }
            [b'%', ..] => return None,
            [byte, after @ ..] => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::envelope::Array;

    fn structured(body: &str) -> Parsed {
        envelope::parse(&body.into(), Array::Refused, 10, read_structured).unwrap()
    }

    fn binary(headers: &[(&str, &str)], body: &str) -> Parsed {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
        parse_binary(&map, body.into()).unwrap()
    }

    fn pointers(parsed: &Parsed) -> Vec<&str> {
        parsed.faults.list().iter().map(|fault| fault.pointer.as_str()).collect()
    }

    #[test]
    fn a_structured_cloud_event_becomes_an_event() {
        let parsed = structured(
            r#"{"specversion":"1.0","id":"a.1","source":"/shop","type":"com.example.order.created","subject":"o-1",
                "time":"2025-01-15T10:30:00Z","datacontenttype":"application/json","dataschema":"urn:x","data":{"n": 1.0},
                "traceid":"t\u0041","count":7,"flag":true,"unset":null}"#,
        );
        assert_eq!(
            parsed.drafts,
            [Draft {
                id: Some("a.1".into()),
                event_type: "com.example.order.created".into(),
                aggregate_type: "/shop".into(),
                aggregate_id: "o-1".into(),
                occurred_at: Some("2025-01-15T10:30:00Z".into()),
                payload: r#"{"n": 1.0}"#.into(),
                metadata: r#"{"dataschema":"urn:x","traceid":"t\u0041","count":7,"flag":true}"#.into(),
            }]
        );
    }

    #[test]
    fn a_binary_cloud_event_becomes_the_same_event() {
        let parsed = binary(
            &[
                ("ce-specversion", "1.0"),
                ("ce-id", "a.1"),
                ("ce-source", "/shop"),
                ("ce-type", "order.created"),
                ("ce-subject", "%C3%A9%20\"b"),
                ("ce-note", "\"a \\\"b\\\"\""),
                ("x-other", "1"),
            ],
            " {\"n\": 1.0} ",
        );
        let draft = &parsed.drafts[0];
        assert_eq!((&*draft.aggregate_id, &*draft.payload), ("é \"b", r#"{"n": 1.0}"#));
        assert_eq!(&*draft.metadata, r#"{"note":"a \"b\""}"#);
    }

    #[test]
    fn a_cloud_event_may_have_no_data() {
        let whole = r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
        assert_eq!(&*structured(whole).drafts[0].payload, "null");
        let headers = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s"), ("ce-type", "t")];
        assert_eq!(&*binary(&headers, "").drafts[0].payload, "null");
    }

    #[test]
    fn every_fault_of_a_cloud_event_has_its_pointer() {
        for (body, expected) in [
            ("{}", vec!["/specversion", "/id", "/source", "/type"]),
            (r#"{"specversion":"0.3","id":"1","source":"s","type":"t"}"#, vec!["/specversion"]),
            (r#"{"specversion":1.0,"id":"1","source":"s","type":"t"}"#, vec!["/specversion"]),
            (r#"{"specversion":"1.0","id":"1","source":"","type":"t","time":"noon"}"#, vec!["/source", "/time"]),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"AA=="}"#, vec!["/data_base64"]),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t","id":"2"}"#, vec!["/id"]),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t","e":"1","e":"2"}"#, vec!["/e"]),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":1,"data":2}"#, vec!["/data"]),
            (
                r#"{"specversion":"1.0","id":"1","source":"s","type":"t","my_key":"1","x":{},"y":1.5}"#,
                vec!["/my_key", "/x", "/y"],
            ),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t","dataschema":7}"#, vec!["/dataschema"]),
        ] {
            assert_eq!(pointers(&structured(body)), expected, "{body}");
        }
        let headers =
            [("ce-id", "1"), ("ce-id", "2"), ("ce-source", "%f"), ("ce-type", "\u{e9}"), ("ce-datacontenttype", "a/b")];
        let parsed = binary(&headers, "1");
        let mut found = pointers(&parsed);
        found.sort_unstable();
        assert_eq!(found, ["/datacontenttype", "/id", "/source", "/source", "/specversion", "/type"]);
    }
}
