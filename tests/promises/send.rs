//! One attempt, whatever the receiver does: real sockets on loopback, real time.

mod answers; // Receivers that answer, well or badly.
mod connections; // Receivers reached twice, or by many at once.
mod receiver; // The receivers.
mod refused; // Addresses that deliveries may not go to.
mod tls; // Certificates and HTTP/2.

use std::time::Duration;

use branchline::clock::Clock;
use branchline::config::DeliverySettings;
use branchline::delivery::{Attempt, AttemptResult, DeliveryId, EventHead, Request, SendErrorKind};
use branchline::endpoint::{BodyFormat, Endpoint, EndpointUrl};
use branchline::event::{Event, Position};
use branchline::metrics::Metrics;
use branchline::send::{Sender, SenderBuilder, body_for};

/// Settings that allow what is listed, and nothing else that is not public.
fn settings(allow_networks: &[&str]) -> DeliverySettings {
    DeliverySettings {
        allow_networks: allow_networks.iter().map(|network| network.parse().unwrap()).collect(),
        events_in_flight_max: 64,
        attempts_in_flight_max: 64,
        answer_bytes_max: 16 * 1024,
        shutdown_grace: Duration::from_secs(1),
    }
}

/// A sender that may send to this machine, and its metrics.
fn sender() -> (Sender, Metrics) {
    let metrics = Metrics::default();
    (Sender::new(&settings(&["127.0.0.0/8"]), metrics.clone(), Clock::system()).unwrap(), metrics)
}

fn builder(allow_networks: &[&str]) -> SenderBuilder {
    Sender::builder(&settings(allow_networks), Metrics::default(), Clock::system())
}

fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        name: "test".into(),
        url: EndpointUrl::parse(url).unwrap(),
        signing_keys: Vec::new(),
        timeout: Duration::from_secs(3),
        connect_timeout: Duration::from_secs(1),
        max_in_flight: 8,
        breaker: None,
        rate: None,
        headers: Vec::new(),
        format: BodyFormat::Envelope,
        retry: None,
        tls: None,
    }
}

fn event() -> Event {
    let clock = Clock::system();
    Event {
        id: "evt_1".into(),
        source: "app".into(),
        event_type: "order.created".into(),
        aggregate_type: "".into(),
        aggregate_id: "".into(),
        occurred_at: "2025-01-15T10:30:00Z".into(),
        accepted_at: clock.now(),
        payload: r#"{"amount": 10}"#.into(),
        metadata: "{}".into(),
        traceparent: "".into(),
    }
}

/// Makes the attempt `number` with what `request` is.
async fn attempt_with(sender: &Sender, endpoint: &Endpoint, number: u32, request: &Request) -> Attempt {
    let event = event();
    let head = EventHead::of(&event, Position { partition: 0, major: 1, minor: 0 });
    sender.attempt(endpoint, &DeliveryId::derive(&event, "warehouse"), &head, "warehouse", number, request).await
}

/// Makes a first attempt with the event's envelope.
async fn attempt(sender: &Sender, endpoint: &Endpoint) -> Attempt {
    attempt_with(sender, endpoint, 1, &body_for(&event(), endpoint.format)).await
}

/// The status, and nothing else, or the test fails.
#[track_caller]
fn status(attempt: &Attempt) -> u16 {
    match &attempt.result {
        AttemptResult::Answered { status, .. } => *status,
        AttemptResult::Failed { .. } | AttemptResult::PluginFailed { .. } => panic!("not answered: {attempt:?}"),
    }
}

/// The error and the sentence, or the test fails.
#[track_caller]
fn failure(attempt: &Attempt) -> (SendErrorKind, &str) {
    match &attempt.result {
        AttemptResult::Failed { error, detail } => (*error, detail),
        AttemptResult::Answered { .. } | AttemptResult::PluginFailed { .. } => panic!("not failed: {attempt:?}"),
    }
}
