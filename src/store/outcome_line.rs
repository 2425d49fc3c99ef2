//! How outcomes are written: a line of JSON each, in both stores.

use crate::attempt::{Attempt, AttemptResult, Provenance};
use crate::delivery::{Outcome, OutcomeRecord};
use crate::event::Position;
use crate::json::push_text;

/// Appends a record as JSON.
///
/// What nearly all are, delivered in attempts that were answered, is written by hand: a serializer takes four
/// times the instructions for it. Every other goes through the serializer, and a test holds the two to the same bytes.
pub(super) fn push_outcome(out: &mut Vec<u8>, record: &OutcomeRecord) {
    if !is_plain(record) {
        serde_json::to_writer(out, record).expect("an outcome record has string keys only");
        return;
    }
    let OutcomeRecord { event_id, position, subscription, attempts, by, at, outcome: _, notes: _ } = record;
    out.extend_from_slice(b"{\"eventId\":");
    push_text(out, event_id);
    let Position { partition, major, minor } = *position;
    push_number(out, b",\"position\":{\"partition\":", partition.into());
    push_number(out, b",\"major\":", major);
    push_number(out, b",\"minor\":", minor);
    out.push(b'}');
    if let Some(subscription) = subscription {
        out.extend_from_slice(b",\"subscription\":");
        push_text(out, subscription);
    }
    out.extend_from_slice(b",\"outcome\":\"delivered\",\"attempts\":[");
    for (place, attempt) in attempts.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        push_attempt(out, attempt);
    }
    out.push(b']');
    push_by(out, by.as_deref());
    push_number(out, b",\"at\":", at.as_millis());
    out.push(b'}');
}

fn is_plain(record: &OutcomeRecord) -> bool {
    let answered = |attempt: &Attempt| {
        matches!(attempt.result, AttemptResult::Answered { retry_after_ms: None, .. }) && attempt.answer.is_none()
    };
    record.outcome == Some(Outcome::Delivered)
        && record.notes.is_empty()
        && !record.attempts.is_empty()
        && record.attempts.iter().all(answered)
}

fn push_attempt(out: &mut Vec<u8>, attempt: &Attempt) {
    let Attempt { number, at, duration_ms, result, answer: _, by } = attempt;
    push_number(out, b"{\"number\":", (*number).into());
    push_number(out, b",\"at\":", at.as_millis());
    push_number(out, b",\"durationMs\":", *duration_ms);
    if let AttemptResult::Answered { status, retry_after_ms: _ } = result {
        push_number(out, b",\"result\":\"answered\",\"status\":", (*status).into());
    }
    push_by(out, by.as_deref());
    out.push(b'}');
}

fn push_by(out: &mut Vec<u8>, by: Option<&Provenance>) {
    let Some(Provenance { generation, plugins }) = by else { return };
    push_number(out, b",\"by\":{\"generation\":", *generation);
    for (place, plugin) in plugins.iter().enumerate() {
        out.extend_from_slice(if place == 0 { b",\"plugins\":[" } else { b"," });
        push_text(out, plugin);
    }
    out.extend_from_slice(if plugins.is_empty() { b"}" } else { b"]}" });
}

fn push_number(out: &mut Vec<u8>, before: &[u8], number: u64) {
    out.extend_from_slice(before);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::attempt::SendErrorKind;
    use crate::clock::Timestamp;
    use crate::delivery::{NoteKind, PluginNote};

    fn attempt(number: u32, by: Option<Provenance>) -> Attempt {
        Attempt {
            number,
            at: Timestamp::from_millis(1_764_066_000_100),
            duration_ms: 3,
            result: AttemptResult::Answered { status: 200, retry_after_ms: None },
            answer: None,
            by: by.map(Arc::new),
        }
    }

    fn delivered(attempts: Vec<Attempt>) -> OutcomeRecord {
        OutcomeRecord {
            event_id: "evt_\"1\"".into(),
            position: Position { partition: 3, major: 1_764_066_000_000, minor: 7 },
            subscription: Some("주문".into()),
            outcome: Some(Outcome::Delivered),
            attempts,
            notes: vec![],
            by: None,
            at: Timestamp::from_millis(1_764_066_000_200),
        }
    }

    #[test]
    fn a_line_is_what_a_serializer_would_write() {
        let plugins = |plugins: &[&str]| Provenance {
            generation: 3,
            plugins: plugins.iter().map(|plugin| (*plugin).to_owned()).collect(),
        };
        let plain = [
            delivered(vec![attempt(1, None)]),
            delivered(vec![attempt(1, Some(plugins(&[]))), attempt(2, Some(plugins(&["slack@01", "a\"b@02"])))]),
            OutcomeRecord {
                subscription: None,
                by: Some(Arc::new(plugins(&["x@1"]))),
                ..delivered(vec![attempt(9, None)])
            },
        ];
        assert!(plain.iter().all(is_plain));
        let note = PluginNote { plugin: "slack".into(), kind: NoteKind::Shadow, detail: "pass".into() };
        let failed = AttemptResult::Failed { error: SendErrorKind::Timeout, detail: "3 s".into() };
        let asked_to_wait = AttemptResult::Answered { status: 503, retry_after_ms: Some(7) };
        let others = [
            delivered(vec![]),
            OutcomeRecord { outcome: None, ..delivered(vec![attempt(1, None)]) },
            OutcomeRecord { outcome: Some(Outcome::Filtered { reason: "no".into() }), ..delivered(vec![]) },
            OutcomeRecord { notes: vec![note], ..delivered(vec![attempt(1, None)]) },
            delivered(vec![Attempt { result: failed, ..attempt(1, None) }]),
            delivered(vec![Attempt { result: asked_to_wait, ..attempt(1, None) }]),
            delivered(vec![Attempt { answer: Some("no".into()), ..attempt(1, None) }]),
        ];
        assert!(!others.iter().any(is_plain));
        for record in plain.iter().chain(&others) {
            let mut line = Vec::new();
            push_outcome(&mut line, record);
            assert_eq!(String::from_utf8(line).unwrap(), serde_json::to_string(record).unwrap());
        }
    }
}
