//! What happened, as accepted. An event is immutable: stages share it and change copies.

use std::fmt;

use bytestring::ByteString;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::json::push_text;

/// An accepted event. `payload` and `metadata` are the producer's bytes, checked to be JSON.
///
/// Its texts are mostly parts of one buffer, the request's body or the stored record, and so are their clones: whoever keeps
/// one for longer than the event takes it by [`apart`], or the whole buffer stays with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// The producer's id, or one made at acceptance (`evt_…`). 1 to 128 printable ASCII characters.
    pub id: ByteString,
    /// The name of the source it came in by.
    pub source: ByteString,
    /// Segments joined by dots, for example `order.completed`.
    pub event_type: ByteString,
    /// Empty when the producer gave none.
    pub aggregate_type: ByteString,
    /// Empty when the producer gave none.
    pub aggregate_id: ByteString,
    /// RFC 3339, as the producer wrote it, or the time of acceptance.
    pub occurred_at: ByteString,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// JSON text: any value.
    pub payload: ByteString,
    /// JSON text: an object.
    pub metadata: ByteString,
    /// The W3C trace context of the producer's request, or empty.
    pub traceparent: ByteString,
}

/// Without payload and metadata, which no log and no crash message may show.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, source, event_type, payload, metadata, .. } = self;
        let (payload, metadata) = (payload.len(), metadata.len());
        let mut shown = f.debug_struct("Event");
        shown.field("id", id).field("source", source).field("event_type", event_type);
        shown.field("payload_bytes", &payload).field("metadata_bytes", &metadata).finish_non_exhaustive()
    }
}

impl Event {
    /// What decides the event's partition: the aggregate, or the id where there is none.
    pub fn partition_key(&self) -> &str {
        if self.aggregate_id.is_empty() { &self.id } else { &self.aggregate_id }
    }

    /// The envelope as JSON bytes: the outer contract's keys, payload and metadata byte for byte.
    pub fn envelope(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + self.metadata.len() + 256);
        // By hand: a serializer takes JSON text only as a value that it has read once more, which costs more than all the rest.
        write_text(&mut out, b"{\"id\":", &self.id);
        write_text(&mut out, b",\"eventType\":", &self.event_type);
        if !self.aggregate_type.is_empty() {
            write_text(&mut out, b",\"aggregateType\":", &self.aggregate_type);
        }
        if !self.aggregate_id.is_empty() {
            write_text(&mut out, b",\"aggregateId\":", &self.aggregate_id);
        }
        out.extend_from_slice(b",\"payload\":");
        out.extend_from_slice(self.payload.as_bytes());
        write_text(&mut out, b",\"occurredAt\":", &self.occurred_at);
        out.extend_from_slice(b",\"metadata\":");
        out.extend_from_slice(self.metadata.as_bytes());
        out.push(b'}');
        out
    }
}

/// The same text in memory of its own.
pub fn apart(text: &ByteString) -> ByteString {
    ByteString::from(&**text)
}

/// A key as it stands, and a text as a JSON string.
fn write_text(out: &mut Vec<u8>, key: &[u8], text: &str) {
    out.extend_from_slice(key);
    push_text(out, text);
}

impl Serialize for Event {
    /// The envelope of the outer contract; absent aggregate fields are left out.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("eventType", &self.event_type)?;
        if !self.aggregate_type.is_empty() {
            map.serialize_entry("aggregateType", &self.aggregate_type)?;
        }
        if !self.aggregate_id.is_empty() {
            map.serialize_entry("aggregateId", &self.aggregate_id)?;
        }
        map.serialize_entry("payload", raw::<S>(&self.payload)?)?;
        map.serialize_entry("occurredAt", &self.occurred_at)?;
        map.serialize_entry("metadata", raw::<S>(&self.metadata)?)?;
        map.end()
    }
}

fn raw<S: Serializer>(json: &str) -> Result<&RawValue, S::Error> {
    serde_json::from_str(json).map_err(serde::ser::Error::custom)
}

/// Where an event stands in the store: a partition, and a place in its order of acceptance.
///
/// In Redis the place is the stream entry's id (`milliseconds-sequence`), in the embedded store a row number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// The partition, from 0.
    pub partition: u16,
    /// The first part of the place.
    pub major: u64,
    /// The second part of the place; 0 in the embedded store.
    pub minor: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.partition, self.major, self.minor)
    }
}

/// An event for tests: `id`, `event_type` and a payload, everything else plain.
#[cfg(test)]
pub(crate) fn sample(id: &str, event_type: &str, payload: &str) -> Event {
    Event {
        id: id.into(),
        source: "app".into(),
        event_type: event_type.into(),
        aggregate_type: ByteString::new(),
        aggregate_id: ByteString::new(),
        occurred_at: "2025-01-15T10:30:00Z".into(),
        accepted_at: Timestamp::from_millis(1_736_937_000_000),
        payload: payload.to_owned().into(),
        metadata: "{}".to_owned().into(),
        traceparent: ByteString::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_is_what_a_serializer_would_write() {
        let mut event = sample("evt_\"1\"", "order.created\n", r#"{"amount":1.10}"#);
        for (aggregate_type, aggregate_id) in [("", ""), ("Order", ""), ("주문", "order\\1")] {
            (event.aggregate_type, event.aggregate_id) = (aggregate_type.into(), aggregate_id.into());
            assert_eq!(String::from_utf8(event.envelope()).unwrap(), serde_json::to_string(&event).unwrap());
        }
    }

    #[test]
    fn the_envelope_keeps_the_payload_byte_for_byte() {
        let payload = r#"{"b": 1.000, "a":12345678901234567890123, "b":[ ]}"#;
        let event = sample("evt_1", "order.created", payload);
        assert_eq!(
            String::from_utf8(event.envelope()).unwrap(),
            format!(
                r#"{{"id":"evt_1","eventType":"order.created","payload":{payload},"occurredAt":"2025-01-15T10:30:00Z","metadata":{{}}}}"#
            )
        );
    }

    #[test]
    fn a_text_apart_does_not_keep_the_buffer() {
        let buffer = ByteString::from("{\"id\":\"evt_1\"}");
        let part = buffer.slice_ref(&buffer[7..12]);
        let range = buffer.as_bytes().as_ptr_range();
        assert!(range.contains(&part.clone().as_bytes().as_ptr()));
        let kept = apart(&part);
        assert!(kept == "evt_1" && !range.contains(&kept.as_bytes().as_ptr()));
    }
}
