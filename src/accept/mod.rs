//! HTTP in, stored event out: authenticates a request, checks what it carries, and answers 2xx only
//! when the store has it durably.
//!
//! A request meets `listener` (connections), `socket` and `framing` (bytes), `intake` (the order of the
//! checks), `admission` and `media_type` (its head), `body`, then `envelope` or `cloud_event`. Whatever is
//! wrong ends as one `Refusal`. Nothing of a body and no key ever reaches a log line or an error text.

mod admission; // A request's head: whose source, which key, how long, what kind.
mod body; // A body, read within a time, a size and a budget.
mod cloud_event; // CloudEvents 1.0 → events.
mod envelope; // Envelopes → events.
mod fault; // What is wrong with an event, and where.
mod fields; // Rules for an event's fields, whatever they came in.
mod framing; // What hyper hides of a request's head.
#[cfg(test)]
mod fuzz;
mod gate; // Whether events are taken at all.
mod intake; // One request → one answer.
mod json; // Strict JSON without building values.
mod listener; // Connections, with limits.
mod media_type; // What a body is said to be.
mod reading; // One envelope outside of any request.
mod refusal; // Every answer that is no success.
mod scan; // Plain JSON in one pass.
mod socket; // A connection's bytes: watched, and never waiting for ever.
mod sources; // The ways in, by path.
mod trace_context; // `traceparent`.
mod unreadable; // What hyper refuses by itself.

pub use gate::{Closure, Gate};
pub use intake::Intake;
pub use listener::Listener;
pub use reading::read_event;

/// Why the listener can't do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address can't be listened on.
    #[error("can't listen on `{address}`: {reason}; is another program using it?")]
    Bind {
        /// The address of the config.
        address: std::net::SocketAddr,
        /// What the system said.
        reason: std::io::Error,
    },
}
