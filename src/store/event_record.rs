//! How events are written as bytes: a record whose head is a list of fields, since each event's is written and read once.
//! A field is its number (one byte), its length (four bytes, little endian), and its bytes.

use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize;

use super::Error;
use super::record::{PREFIX_BYTES, damaged, decode, split, u32_of};
use crate::clock::Timestamp;
use crate::event::Event;

/// The version of these records; those of version 1 have a head in JSON.
const EVENT_VERSION: u8 = 2;
/// What stands before a field's bytes.
const FIELD_BYTES: usize = 5;

/// An event's head as the first version had it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventFields {
    id: ByteString,
    source: ByteString,
    event_type: ByteString,
    #[serde(default)]
    aggregate_type: ByteString,
    #[serde(default)]
    aggregate_id: ByteString,
    occurred_at: ByteString,
    accepted_at: Timestamp,
    #[serde(default)]
    traceparent: ByteString,
    /// Where in the body the payload ends and the metadata begins.
    payload_bytes: usize,
}

/// The fields of an event's head, by number. A number is never given to another field; a reader skips those that it does not know.
mod field {
    pub const ID: u8 = 1;
    pub const SOURCE: u8 = 2;
    pub const EVENT_TYPE: u8 = 3;
    pub const AGGREGATE_TYPE: u8 = 4;
    pub const AGGREGATE_ID: u8 = 5;
    pub const OCCURRED_AT: u8 = 6;
    /// Milliseconds since 1970, eight bytes.
    pub const ACCEPTED_AT: u8 = 7;
    pub const TRACEPARENT: u8 = 8;
    /// Where in the body the payload ends and the metadata begins, eight bytes.
    pub const PAYLOAD_BYTES: u8 = 9;
}

/// Writes an event.
pub fn encode_event(event: &Event) -> Vec<u8> {
    let numbers = [event.accepted_at.as_millis(), event.payload.len() as u64].map(u64::to_le_bytes);
    let values: [(u8, &[u8]); 9] = [
        (field::ID, event.id.as_bytes()),
        (field::SOURCE, event.source.as_bytes()),
        (field::EVENT_TYPE, event.event_type.as_bytes()),
        (field::OCCURRED_AT, event.occurred_at.as_bytes()),
        (field::ACCEPTED_AT, &numbers[0]),
        (field::PAYLOAD_BYTES, &numbers[1]),
        (field::AGGREGATE_TYPE, event.aggregate_type.as_bytes()),
        (field::AGGREGATE_ID, event.aggregate_id.as_bytes()),
        (field::TRACEPARENT, event.traceparent.as_bytes()),
    ];
    let head_bytes = values.iter().map(|(_, value)| FIELD_BYTES + value.len()).sum::<usize>();
    let mut record = Vec::with_capacity(PREFIX_BYTES + head_bytes + event.payload.len() + event.metadata.len());
    record.push(EVENT_VERSION);
    record.extend_from_slice(&u32_of(head_bytes).to_le_bytes());
    for (number, value) in values {
        record.push(number);
        record.extend_from_slice(&u32_of(value.len()).to_le_bytes());
        record.extend_from_slice(value);
    }
    record.extend_from_slice(event.payload.as_bytes());
    record.extend_from_slice(event.metadata.as_bytes());
    record
}

/// Reads an event; its texts share the record's bytes.
pub fn decode_event(record: &Bytes) -> Result<Event, Error> {
    let (head, body) = if record.first() == Some(&EVENT_VERSION) {
        let (head, body) = split("event", record)?;
        (fields(&head)?, body)
    } else {
        decode::<EventFields>("event", record)?
    };
    if head.payload_bytes > body.len() {
        return Err(damaged("event", "the payload is cut short"));
    }
    let text = |part: Bytes| ByteString::try_from(part).map_err(|_| damaged("event", "the payload is not UTF-8"));
    Ok(Event {
        id: head.id,
        source: head.source,
        event_type: head.event_type,
        aggregate_type: head.aggregate_type,
        aggregate_id: head.aggregate_id,
        occurred_at: head.occurred_at,
        accepted_at: head.accepted_at,
        traceparent: head.traceparent,
        payload: text(body.slice(..head.payload_bytes))?,
        metadata: text(body.slice(head.payload_bytes..))?,
    })
}

/// Reads the fields of an event's head.
fn fields(head: &Bytes) -> Result<EventFields, Error> {
    let mut texts = [const { None }; field::PAYLOAD_BYTES as usize];
    let mut numbers = [None; 2];
    let mut at = 0;
    while at < head.len() {
        let value = head.get(at + 1..at + FIELD_BYTES).and_then(|bytes| {
            let begin = at + FIELD_BYTES;
            let end = begin.checked_add(u32::from_le_bytes(bytes.try_into().ok()?) as usize)?;
            (end <= head.len()).then_some(begin..end)
        });
        let value = value.ok_or_else(|| damaged("event", "a field is cut short"))?;
        let (number, end) = (head[at], value.end);
        match number {
            field::ACCEPTED_AT | field::PAYLOAD_BYTES => {
                let bytes = head[value].try_into().map_err(|_| damaged("event", "a number has not eight bytes"))?;
                numbers[usize::from(number == field::PAYLOAD_BYTES)] = Some(u64::from_le_bytes(bytes));
            }
            field::ID..=field::TRACEPARENT => {
                let text = ByteString::try_from(head.slice(value));
                texts[usize::from(number)] = Some(text.map_err(|_| damaged("event", "a text is not UTF-8"))?);
            }
            _ => {}
        }
        at = end;
    }
    let [_, id, source, event_type, aggregate_type, aggregate_id, occurred_at, _, traceparent] = texts;
    let ((Some(id), Some(source), Some(event_type), Some(occurred_at)), [Some(accepted_at), Some(payload_bytes)]) =
        ((id, source, event_type, occurred_at), numbers)
    else {
        return Err(damaged("event", "a field is missing"));
    };
    Ok(EventFields {
        id,
        source,
        event_type,
        aggregate_type: aggregate_type.unwrap_or_default(),
        aggregate_id: aggregate_id.unwrap_or_default(),
        occurred_at,
        accepted_at: Timestamp::from_millis(accepted_at),
        traceparent: traceparent.unwrap_or_default(),
        payload_bytes: usize::try_from(payload_bytes).unwrap_or(usize::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::super::record::VERSION;
    use super::*;
    use crate::event;

    #[test]
    fn events_are_read_back_as_they_were_written() {
        let mut event = event::sample("evt_1", "order.created", r#"{"amount":1.10,"이름":"값"}"#);
        event.aggregate_id = "order_1".into();
        event.metadata = r#"{"tenant":"a"}"#.into();
        let record = Bytes::from(encode_event(&event));
        assert_eq!(decode_event(&record).unwrap(), event);
    }

    #[test]
    fn damaged_records_are_refused_at_every_length() {
        let record = Bytes::from(encode_event(&event::sample("evt_1", "order.created", "{}")));
        for length in 0..record.len() - 4 {
            assert!(matches!(decode_event(&record.slice(..length)), Err(Error::Damaged { .. })), "{length}");
        }
        let mut newer = record.to_vec();
        newer[0] = 3;
        assert!(decode_event(&newer.into()).unwrap_err().to_string().contains("version 3"));
    }

    #[test]
    fn events_written_before_are_read() {
        let mut event = event::sample("evt_1", "order.created", r#"{"amount":1.10}"#);
        (event.aggregate_id, event.traceparent) = ("주문".into(), "00-aa-bb-01".into());
        let head = format!(
            r#"{{"id":"evt_1","source":"app","eventType":"order.created","aggregateId":"주문","occurredAt":"{}","acceptedAt":{},"traceparent":"00-aa-bb-01","payloadBytes":15}}"#,
            event.occurred_at,
            serde_json::to_string(&event.accepted_at).unwrap(),
        );
        let body = [event.payload.as_bytes().as_ref(), event.metadata.as_bytes().as_ref()].concat();
        let record = [&[VERSION], &u32_of(head.len()).to_le_bytes()[..], head.as_bytes(), &body].concat();
        assert_eq!(decode_event(&record.into()).unwrap(), event);
    }

    #[test]
    fn fields_of_a_later_version_are_skipped_and_missing_ones_told() {
        let event = event::sample("evt_1", "order.created", "{}");
        let record = encode_event(&event);
        let with = |field: &[u8]| {
            let head_bytes = u32::from_le_bytes(record[1..PREFIX_BYTES].try_into().unwrap()) + u32_of(field.len());
            [&[EVENT_VERSION], &head_bytes.to_le_bytes()[..], field, &record[PREFIX_BYTES..]].concat()
        };
        assert_eq!(decode_event(&with(b"\xf0\x03\0\0\0new").into()).unwrap(), event);
        for damaged in [&b"\xf0\xff\xff\xff\xff"[..], b"\x01\x02\0\0\0\xff\xff", b"\x07\x01\0\0\0a"] {
            assert!(matches!(decode_event(&with(damaged).into()), Err(Error::Damaged { .. })), "{damaged:?}");
        }
        let empty = [EVENT_VERSION, 0, 0, 0, 0];
        assert!(decode_event(&Bytes::copy_from_slice(&empty)).unwrap_err().to_string().contains("missing"));
    }
}
