//! How events, deliveries and dead letters are written as bytes.
//!
//! A record is a version byte, the length of its head (four bytes, little endian), the head and the body (raw bytes, never
//! re-encoded). Heads can grow fields that an older reader skips: those of deliveries and dead letters are JSON. An event's is
//! written and read once for each event, so it is a list of fields: number (one byte), length (four bytes), bytes.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::clock::Timestamp;
use crate::delivery::{Attempt, DeadLetter, DeadLetterReason, Delivery, DeliveryId, EventHead, Request, Work};
use crate::event::Event;

/// The version of heads in JSON: deliveries and dead letters, and events of before. A reader refuses what it does not know
/// rather than guess.
const VERSION: u8 = 1;
/// The version of events.
const EVENT_VERSION: u8 = 2;
const PREFIX_BYTES: usize = 5;
/// What stands before a field's bytes: its number, and how many they are.
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

fn u32_of(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a head is far below 4 GiB")
}

#[derive(Serialize, Deserialize)]
struct DeliveryFields {
    id: DeliveryId,
    event: EventHead,
    subscription: Arc<str>,
    attempts: Vec<Attempt>,
    work: WorkFields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dead: Option<DeadFields>,
}

/// What the body is: an event's record, or a request's body.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum WorkFields {
    Run,
    #[serde(rename_all = "camelCase")]
    Send {
        content_type: String,
        headers: Vec<(String, String)>,
    },
}

#[derive(Serialize, Deserialize)]
struct DeadFields {
    reason: DeadLetterReason,
    detail: String,
    at: Timestamp,
}

/// Writes a delivery.
pub fn encode_delivery(delivery: &Delivery) -> Vec<u8> {
    encode_with(delivery, None)
}

/// Reads a delivery.
pub fn decode_delivery(record: &Bytes) -> Result<Delivery, Error> {
    decode_with("delivery", record).map(|(delivery, _)| delivery)
}

/// Writes a dead letter: its delivery, and why it was given up.
pub fn encode_dead_letter(letter: &DeadLetter) -> Vec<u8> {
    let dead = DeadFields { reason: letter.reason, detail: letter.detail.clone(), at: letter.at };
    encode_with(&letter.delivery, Some(dead))
}

/// Reads a dead letter.
pub fn decode_dead_letter(record: &Bytes) -> Result<DeadLetter, Error> {
    let (delivery, dead) = decode_with("dead letter", record)?;
    let dead = dead.ok_or_else(|| damaged("dead letter", "it has no reason"))?;
    Ok(DeadLetter { delivery, reason: dead.reason, detail: dead.detail, at: dead.at })
}

fn encode_with(delivery: &Delivery, dead: Option<DeadFields>) -> Vec<u8> {
    let event;
    let (work, body): (_, &[u8]) = match &delivery.work {
        Work::Run(run) => {
            event = encode_event(run);
            (WorkFields::Run, &event)
        }
        Work::Send(request) => (
            WorkFields::Send { content_type: request.content_type.clone(), headers: request.headers.clone() },
            &request.body,
        ),
    };
    let head = DeliveryFields {
        id: delivery.id.clone(),
        event: delivery.event.clone(),
        subscription: Arc::clone(&delivery.subscription),
        attempts: delivery.attempts.clone(),
        work,
        dead,
    };
    encode(&head, &[body])
}

fn decode_with(what: &'static str, record: &Bytes) -> Result<(Delivery, Option<DeadFields>), Error> {
    let (head, body) = decode::<DeliveryFields>(what, record)?;
    let work = match head.work {
        WorkFields::Run => Work::Run(Arc::new(decode_event(&body)?)),
        WorkFields::Send { content_type, headers } => Work::Send(Arc::new(Request { content_type, headers, body })),
    };
    let delivery =
        Delivery { id: head.id, event: head.event, subscription: head.subscription, attempts: head.attempts, work };
    Ok((delivery, head.dead))
}

fn encode(head: &impl Serialize, body: &[&[u8]]) -> Vec<u8> {
    let mut record = Vec::with_capacity(PREFIX_BYTES + 256 + body.iter().map(|part| part.len()).sum::<usize>());
    record.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
    serde_json::to_writer(&mut record, head).expect("heads have string keys only");
    let head_bytes = u32_of(record.len() - PREFIX_BYTES);
    record[1..PREFIX_BYTES].copy_from_slice(&head_bytes.to_le_bytes());
    for part in body {
        record.extend_from_slice(part);
    }
    record
}

fn decode<Head: DeserializeOwned>(what: &'static str, record: &Bytes) -> Result<(Head, Bytes), Error> {
    if let Some(version) = record.first().filter(|version| **version != VERSION) {
        return Err(damaged(what, &format!("it has version {version}, which this program does not read")));
    }
    let (head, body) = split(what, record)?;
    // The position is told, the text is not: an error text must not carry a payload.
    let head = serde_json::from_slice(&head)
        .map_err(|error| damaged(what, &format!("its head is not as expected, at byte {}", error.column())))?;
    Ok((head, body))
}

/// A record's head and body.
fn split(what: &'static str, record: &Bytes) -> Result<(Bytes, Bytes), Error> {
    let prefix = record.get(..PREFIX_BYTES).ok_or_else(|| damaged(what, "it is shorter than its prefix"))?;
    let head_bytes = u32::from_le_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    let end = PREFIX_BYTES.saturating_add(head_bytes);
    if end > record.len() {
        return Err(damaged(what, "its head is cut short"));
    }
    Ok((record.slice(PREFIX_BYTES..end), record.slice(end..)))
}

fn damaged(what: &'static str, detail: &str) -> Error {
    Error::Damaged { what, detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{AttemptResult, PluginFaultKind, SendErrorKind, Waiting};
    use crate::event::{self, Position};

    fn delivery(work: Work) -> Delivery {
        let event = event::sample("evt_1", "order.created", r#"{"amount":1.10}"#);
        Delivery {
            id: DeliveryId::derive(&event, "warehouse"),
            event: EventHead::of(&event, Position { partition: 3, major: 9, minor: 1 }),
            subscription: "warehouse".into(),
            attempts: vec![Attempt {
                number: 1,
                at: Timestamp::from_millis(5),
                duration_ms: 2,
                result: AttemptResult::PluginFailed {
                    plugin: "slack".into(),
                    error: PluginFaultKind::Trap,
                    detail: "wasm trap: unreachable".into(),
                    retryable: true,
                },
                answer: None,
                by: None,
            }],
            work,
        }
    }

    #[test]
    fn events_are_read_back_as_they_were_written() {
        let mut event = event::sample("evt_1", "order.created", r#"{"amount":1.10,"이름":"값"}"#);
        event.aggregate_id = "order_1".into();
        event.metadata = r#"{"tenant":"a"}"#.into();
        let record = Bytes::from(encode_event(&event));
        assert_eq!(decode_event(&record).unwrap(), event);
    }

    #[test]
    fn deliveries_and_dead_letters_are_read_back_as_they_were_written() {
        let request = Request {
            content_type: "application/json".into(),
            headers: vec![("x-a".into(), "b".into())],
            body: Bytes::from_static(b"\x00\xff{}"),
        };
        let event = event::sample("evt_1", "order.created", "[1]");
        for work in [Work::Send(Arc::new(request)), Work::Run(Arc::new(event))] {
            let delivery = delivery(work);
            assert_eq!(decode_delivery(&encode_delivery(&delivery).into()).unwrap(), delivery);
            let letter = DeadLetter {
                delivery,
                reason: DeadLetterReason::Exhausted,
                detail: "503".into(),
                at: Timestamp::from_millis(11),
            };
            assert_eq!(decode_dead_letter(&encode_dead_letter(&letter).into()).unwrap(), letter);
        }
    }

    #[test]
    fn words_of_later_versions_are_read_as_unknown_and_what_stands_beside_them_is_kept() {
        let event = event::sample("evt_1", "order.created", "[1]");
        let letter = DeadLetter {
            delivery: delivery(Work::Run(Arc::new(event))),
            reason: DeadLetterReason::Panicked,
            detail: "said in words".into(),
            at: Timestamp::from_millis(11),
        };
        let mut later = encode_dead_letter(&letter);
        for (word, newer) in [("\"panicked\"", "\"melted!!\""), ("\"trap\"", "\"gone\"")] {
            let at = later.windows(word.len()).position(|part| part == word.as_bytes()).unwrap();
            later[at..at + word.len()].copy_from_slice(newer.as_bytes());
        }
        let read = decode_dead_letter(&later.into()).unwrap();
        assert_eq!((read.reason, &*read.detail, read.at), (DeadLetterReason::Unknown, "said in words", letter.at));
        let AttemptResult::PluginFailed { error, detail, .. } = &read.delivery.attempts[0].result else {
            unreachable!()
        };
        assert_eq!((*error, &**detail), (PluginFaultKind::Unknown, "wasm trap: unreachable"));
        assert_eq!(read.delivery.work, letter.delivery.work);
        assert_eq!(serde_json::from_str::<Waiting>("\"queueing\"").unwrap(), Waiting::Unknown);
        assert_eq!(serde_json::from_str::<SendErrorKind>("\"quic\"").unwrap(), SendErrorKind::Unknown);
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
