//! Fuzzing of what plugins return: what passes the check can be sent and stored.

use http::{HeaderName, HeaderValue};

use super::bindings::branchline::plugin::types;
use super::verdict::{Verdict, check};
use crate::event;
use crate::fuzz::{Parts, fuzz};

const OUTPUT_BYTES_MAX: usize = 1024;

fn returned(input: &[u8]) -> Result<types::Verdict, types::Error> {
    let mut parts = Parts(input);
    let kind = parts.byte();
    // The corpus has letters there, so that its files can be read and written by people.
    Ok(match kind {
        b'p' => types::Verdict::Pass,
        b'r' => types::Verdict::Replace(types::EventResult {
            id: parts.line(),
            event_type: parts.line(),
            aggregate_type: parts.line(),
            aggregate_id: parts.line(),
            occurred_at: parts.line(),
            payload: parts.line(),
            metadata: parts.line(),
        }),
        b's' => {
            let content_type = parts.line();
            let mut headers = Vec::new();
            loop {
                let line = parts.line();
                let Some((name, value)) = line.split_once(':') else { break };
                headers.push(types::Header { name: name.to_owned(), value: value.to_owned() });
            }
            types::Verdict::Send(types::Request { headers, content_type, body: types::Body::Binary(parts.0.to_vec()) })
        }
        b'd' => types::Verdict::Drop(parts.line()),
        b'l' => types::Verdict::DeadLetter(parts.line()),
        _ => {
            let retryable = parts.byte() & 1 == 1;
            return Err(types::Error { code: parts.line(), message: parts.line(), retryable });
        }
    })
}

#[test]
fn verdicts() {
    let event = event::sample("evt_1", "order.created", r#"{"amount":1}"#);
    // A tab moves nothing but the cursor, so it stays.
    let is_tame = |text: &str| text.len() <= 1200 && !text.chars().any(|c| c.is_control() && c != '\t');
    fuzz("verdict", |input| match check(returned(input), &event, OUTPUT_BYTES_MAX) {
        Ok(Verdict::Pass) => {}
        Ok(Verdict::Replace(new)) => {
            assert_eq!((&new.id, &new.source, new.accepted_at), (&event.id, &event.source, event.accepted_at));
            assert!(serde_json::from_str::<&serde_json::value::RawValue>(&new.payload).is_ok());
            assert!(serde_json::from_str::<serde_json::Map<_, _>>(&new.metadata).is_ok());
        }
        Ok(Verdict::Send(request)) => {
            assert!(request.body.len() <= OUTPUT_BYTES_MAX && HeaderValue::from_str(&request.content_type).is_ok());
            for (name, value) in &request.headers {
                let name: HeaderName = name.parse().expect("a valid name");
                assert!(HeaderValue::from_str(value).is_ok());
                let own = ["host", "content-length", "transfer-encoding", "connection", "traceparent"];
                assert!(!own.contains(&name.as_str()) && !name.as_str().starts_with("webhook-"), "{name}");
            }
        }
        Ok(Verdict::Drop(reason) | Verdict::DeadLetter(reason)) => assert!(is_tame(&reason), "{reason:?}"),
        Err(fault) => assert!(is_tame(&fault.detail), "{:?}", fault.detail),
    });
}
