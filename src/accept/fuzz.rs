//! Fuzzing of what producers send: bodies in each format, heads in any pieces.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::envelope::Unreadable;
use super::framing::HeadWatch;
use super::intake::parse_body;
use super::media_type::BodyKind;
use crate::fuzz::{Parts, fuzz};

const EVENTS_MAX: usize = 20;

/// What is taken is sound: payload and metadata are JSON to another parser too, and the payload's bytes are the body's.
fn holds(kind: BodyKind, headers: &HeaderMap, body: &[u8]) {
    match parse_body(kind, headers, body.to_vec().into(), EVENTS_MAX) {
        Ok(parsed) => {
            assert!(parsed.drafts.len() <= EVENTS_MAX);
            assert!(!parsed.drafts.is_empty() || !parsed.faults.is_empty(), "neither an event nor a fault");
            for draft in &parsed.drafts {
                assert!(serde_json::from_str::<&serde_json::value::RawValue>(&draft.payload).is_ok(), "{draft:?}");
                assert!(serde_json::from_str::<serde_json::Map<_, _>>(&draft.metadata).is_ok(), "{draft:?}");
                assert!(!draft.event_type.is_empty() && !draft.event_type.chars().any(char::is_control), "{draft:?}");
            }
        }
        Err(Unreadable::NotJson(what)) => assert!(what.len() < 400, "{what}"),
        Err(Unreadable::TooManyEvents | Unreadable::Empty) => {}
    }
}

#[test]
fn envelopes() {
    fuzz("envelope", |input| holds(BodyKind::Envelopes, &HeaderMap::new(), input));
}

#[test]
fn lines() {
    fuzz("ndjson", |input| holds(BodyKind::Lines, &HeaderMap::new(), input));
}

#[test]
fn cloud_events() {
    fuzz("cloudevents", |input| {
        holds(BodyKind::CloudEvent, &HeaderMap::new(), input);
        holds(BodyKind::CloudEventBatch, &HeaderMap::new(), input);
        // The same as headers and data: lines up to a blank one, then the data.
        let (mut parts, mut headers) = (Parts(input), HeaderMap::new());
        loop {
            let line = parts.line();
            let Some((name, value)) = line.split_once(": ") else { break };
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                headers.append(name, value);
            }
        }
        let data = parts.0;
        // Data that is no JSON is taken too, as base64 or a text of JSON: `holds` looks at what came of it.
        holds(BodyKind::CloudEventData, &headers, data);
    });
}

/// However the bytes come in pieces, the same heads have the same faults.
#[test]
fn heads() {
    fuzz("head", |input| {
        let watched = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut watch = HeadWatch::new();
            pieces.for_each(|piece| watch.observe(piece));
            let faults: Vec<_> = (0..8).map(|head| watch.first_fault().of(head)).collect();
            (faults, watch.at_rest())
        };
        let whole = watched(&mut std::iter::once(input));
        assert_eq!(whole, watched(&mut input.chunks(1)));
        assert_eq!(whole, watched(&mut input.chunks(7)));
    });
}
