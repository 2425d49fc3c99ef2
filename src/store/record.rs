//! How deliveries and dead letters are written as bytes, and what all records have in common.
//!
//! A record is a version byte, the length of its head (four bytes, little endian), the head and the body (raw bytes, never
//! re-encoded). Heads can grow fields that an older reader skips: those of deliveries and dead letters are JSON, an event's is a
//! list of fields (see `event_record`).

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Error;
use super::event_record::{decode_event, encode_event};
use crate::clock::Timestamp;
use crate::delivery::{Attempt, DeadLetter, DeadLetterReason, Delivery, DeliveryId, EventHead, Request, Work};

/// The version of heads in JSON: deliveries and dead letters, and events of before. A reader refuses what it does not know
/// rather than guess.
pub(super) const VERSION: u8 = 1;
pub(super) const PREFIX_BYTES: usize = 5;

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

pub(super) fn u32_of(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a head is far below 4 GiB")
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

pub(super) fn decode<Head: DeserializeOwned>(what: &'static str, record: &Bytes) -> Result<(Head, Bytes), Error> {
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
pub(super) fn split(what: &'static str, record: &Bytes) -> Result<(Bytes, Bytes), Error> {
    let prefix = record.get(..PREFIX_BYTES).ok_or_else(|| damaged(what, "it is shorter than its prefix"))?;
    let head_bytes = u32::from_le_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    let end = PREFIX_BYTES.saturating_add(head_bytes);
    if end > record.len() {
        return Err(damaged(what, "its head is cut short"));
    }
    Ok((record.slice(PREFIX_BYTES..end), record.slice(end..)))
}

pub(super) fn damaged(what: &'static str, detail: &str) -> Error {
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
}
