//! What an event's way through the router is made of, step by step. Timed by `steps`, counted in instructions by `instructions`.

use std::hint::black_box;
use std::sync::Arc;

use branchline::accept;
use branchline::clock::Timestamp;
use branchline::delivery::{Attempt, AttemptResult};
use branchline::endpoint::{BodyFormat, Endpoint, EndpointUrl, SigningKey};
use branchline::event::Event;
use branchline::filter::RouteTable;
use branchline::route::{OnError, RetrySchedule, Route, Subscription};
use branchline::send::{body_for, sign};
use branchline::settle;
use branchline::store::{decode_event, encode_event};

/// A step that can be done over and over.
pub struct Case {
    /// Its name, in the baseline too.
    pub name: &'static str,
    /// Gets everything ready; what it returns does the step once.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

/// All steps that need nothing but this process.
pub const CASES: [Case; 8] = [
    Case { name: "parse an envelope of 1 KiB", prepare: parse },
    Case { name: "filter by type, 1 of 10,000 routes", prepare: filter_by_type },
    Case { name: "filter by type and a where", prepare: filter_by_condition },
    Case { name: "make a delivery's body", prepare: body },
    Case { name: "sign 1 KiB", prepare: sign_one },
    Case { name: "decide a settlement", prepare: decide },
    Case { name: "write an event's record", prepare: write_record },
    Case { name: "read an event's record", prepare: read_record },
];

const AT: Timestamp = Timestamp::from_millis(1_736_937_000_000);

/// An envelope of 1 KiB.
pub fn envelope(number: u64) -> String {
    let start = format!(
        r#"{{"id":"evt_{number:012}","eventType":"order.created","aggregateType":"Order","aggregateId":"order_{number}","occurredAt":"2025-01-15T10:30:00Z","payload":{{"orderId":"order_{number}","amount":25000,"currency":"KRW","note":""#
    );
    let end = r#""},"metadata":{}}"#;
    let note = "a note of the customer; ".repeat(64);
    format!("{start}{}{end}", &note[..1024 - start.len() - end.len()])
}

/// The event of that envelope.
pub fn event(number: u64) -> Event {
    accept::read_event(&envelope(number), "app", AT).expect("the envelope is one")
}

fn parse() -> Box<dyn FnMut()> {
    let text = envelope(1);
    Box::new(move || {
        black_box(accept::read_event(black_box(&text), "app", AT).expect("the envelope is one"));
    })
}

fn filter_by_type() -> Box<dyn FnMut()> {
    let mut routes: Vec<_> = (0..10_000).map(|tenant| route(&format!("tenant-{tenant}.*"), None)).collect();
    routes.push(route("order.*", None));
    matching(&routes)
}

fn filter_by_condition() -> Box<dyn FnMut()> {
    matching(&[route("order.*", Some("payload.amount >= 10000"))])
}

fn matching(routes: &[Route]) -> Box<dyn FnMut()> {
    let table = RouteTable::compile(routes).expect("the routes are right");
    let event = event(1);
    Box::new(move || {
        let matches = black_box(table.matches(black_box(&event)));
        assert!(matches.len() == 1 && matches[0].is_wanted(), "one route wants the event");
    })
}

fn body() -> Box<dyn FnMut()> {
    let event = event(1);
    Box::new(move || {
        black_box(body_for(black_box(&event), BodyFormat::Envelope));
    })
}

fn sign_one() -> Box<dyn FnMut()> {
    let keys = [SigningKey::Hmac(Arc::from([7; 32]))];
    let body = envelope(1);
    Box::new(move || {
        black_box(sign::signature(&keys, "dlv_0123456789abcdef", "1736937000", black_box(body.as_bytes())));
    })
}

fn decide() -> Box<dyn FnMut()> {
    let attempt = |status| Attempt {
        number: 1,
        at: AT,
        duration_ms: 1,
        result: AttemptResult::Answered { status, retry_after_ms: None },
        answer: None,
        by: None,
    };
    let (well, failed, schedule) = (attempt(200), attempt(500), RetrySchedule::default());
    Box::new(move || {
        black_box(settle::decide(black_box(&well), &schedule, 0.5));
        black_box(settle::decide(black_box(&failed), &schedule, 0.5));
    })
}

fn write_record() -> Box<dyn FnMut()> {
    let event = event(1);
    Box::new(move || {
        black_box(encode_event(black_box(&event)));
    })
}

fn read_record() -> Box<dyn FnMut()> {
    let record = bytes::Bytes::from(encode_event(&event(1)));
    Box::new(move || {
        black_box(decode_event(black_box(&record)).expect("the record was written just now"));
    })
}

fn route(pattern: &str, condition: Option<&str>) -> Route {
    let name: Arc<str> = pattern.into();
    let url = EndpointUrl::parse("https://example.com/").expect("the URL is one");
    let endpoint = Arc::new(Endpoint::new("endpoint", url));
    Route {
        name: Arc::clone(&name),
        sources: vec![],
        patterns: vec![pattern.to_owned()],
        condition: condition.map(str::to_owned),
        subscriptions: vec![Arc::new(Subscription {
            name: Arc::clone(&name),
            route: name,
            endpoint,
            plugins: vec![],
            on_error: OnError::default(),
            retry: RetrySchedule::default(),
        })],
    }
}
