//! The component's side of the boundary: turns the generated types into ours and back, and writes a
//! readable line to the router's log when the plugin panics.

use serde::de::DeserializeOwned;

use crate::bindings;
use crate::bindings::branchline::plugin::types;
use crate::{Body, Error, Event, RawEvent, Verdict, entry, host};

/// The export `handle`.
pub fn handle<Payload: DeserializeOwned, Config: DeserializeOwned>(
    handle: fn(Event<Payload>, Config) -> Result<Verdict, Error>,
    event: bindings::Event,
) -> Result<bindings::Verdict, bindings::Error> {
    host::report_panics();
    match entry::handle(handle, from_boundary(event), &host::config()) {
        Ok(verdict) => Ok(verdict_to_boundary(verdict)),
        Err(error) => Err(bindings::Error { code: error.code, message: error.message, retryable: error.retryable }),
    }
}

/// The export `validate-config`.
pub fn validate_config<Payload, Config: DeserializeOwned>(
    handle: fn(Event<Payload>, Config) -> Result<Verdict, Error>,
    check: fn(&Config) -> Result<(), String>,
    config: &str,
) -> Result<(), String> {
    host::report_panics();
    entry::validate_config(handle, check, config)
}

fn from_boundary(event: types::Event) -> RawEvent {
    RawEvent {
        id: event.id,
        event_type: event.event_type,
        aggregate_type: event.aggregate_type,
        aggregate_id: event.aggregate_id,
        occurred_at: event.occurred_at,
        payload: event.payload,
        metadata: event.metadata,
    }
}

fn event_to_boundary(event: RawEvent) -> types::Event {
    types::Event {
        id: event.id,
        event_type: event.event_type,
        aggregate_type: event.aggregate_type,
        aggregate_id: event.aggregate_id,
        occurred_at: event.occurred_at,
        payload: event.payload,
        metadata: event.metadata,
    }
}

fn verdict_to_boundary(verdict: Verdict) -> types::Verdict {
    match verdict {
        Verdict::Pass => types::Verdict::Pass,
        Verdict::Replace(event) => types::Verdict::Replace(event_to_boundary(event)),
        Verdict::Send(request) => types::Verdict::Send(types::Request {
            headers: request
                .headers
                .into_iter()
                .map(|header| types::Header { name: header.name, value: header.value })
                .collect(),
            content_type: request.content_type,
            body: match request.body {
                Body::Text(text) => types::Body::Text(text),
                Body::Binary(bytes) => types::Body::Binary(bytes),
            },
        }),
        Verdict::Drop(reason) => types::Verdict::Drop(reason),
        Verdict::DeadLetter(reason) => types::Verdict::DeadLetter(reason),
    }
}
