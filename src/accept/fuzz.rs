//! Fuzzing of what producers send: bodies in each format, heads in any pieces, trace contexts.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::envelope::Unreadable;
use super::framing::HeadWatch;
use super::intake::parse_body;
use super::json::{self, Shape};
use super::media_type::BodyKind;
use super::scan;
use super::trace_context::traceparent;
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

/// What the scan takes, the parser takes and reads the same in it.
fn scan_agrees(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(scanned) = scan::object(text) {
        let Ok(Shape::Object(parsed)) = json::parsed_shape(text) else { panic!("the parser refuses {text:?}") };
        assert_eq!(scanned.members, parsed.members);
        assert!(!parsed.cut && parsed.members.iter().all(|(_, value)| json::check(value).is_ok()), "{text:?}");
    }
    if let Some(scanned) = scan::objects(text, EVENTS_MAX) {
        let parsed: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
        assert_eq!(scanned.len(), parsed.len());
        parsed.iter().for_each(|object| scan_agrees(object.get().as_bytes()));
    }
}

#[test]
fn scans() {
    fuzz("envelope", scan_agrees);
    fuzz("ndjson", |input| input.split(|byte| *byte == b'\n').for_each(scan_agrees));
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

/// What of `traceparent` the specification lets through of version 00, by the places of its characters.
fn is_sound(text: &str) -> bool {
    let letters = text.as_bytes();
    let digits = |places: std::ops::Range<usize>| &letters[places];
    letters.len() == 55
        && letters.iter().enumerate().all(|(place, letter)| match place {
            2 | 35 | 52 => *letter == b'-',
            _ => b"0123456789abcdef".contains(letter),
        })
        && digits(0..2) == b"00"
        && digits(3..35) != [b'0'; 32]
        && digits(36..52) != [b'0'; 16]
}

/// A trace context is taken as it came or not at all; of two there is none.
#[test]
fn trace_contexts() {
    let mut taken = 0;
    fuzz("traceparent", |input| {
        let Ok(value) = HeaderValue::from_bytes(input) else { return };
        let mut headers = HeaderMap::new();
        headers.append("traceparent", value.clone());
        let text = value.to_str().unwrap_or_default();
        let expected = if is_sound(text) { text } else { "" };
        assert_eq!(traceparent(&headers), expected);
        taken += usize::from(!expected.is_empty());
        headers.append("traceparent", value);
        assert_eq!(traceparent(&headers), "");
    });
    assert!(taken > 0, "none was sound");
}
