//! Branchline: an HTTP event router.

pub mod accept; // Authenticate the request, store the event, answer 202.
pub mod admin; // The operator's door: health, metrics.
pub mod app; // Wires it all; the only file that knows every stage.
pub mod cli; // One file per command.
pub mod clock; // Time, the one place that reads it.
pub mod config; // Files and environment in, checked settings out.
pub mod delivery; // Vocabulary: the duty to bring one event to one subscription.
pub mod dispatch; // Claim work, walk it through the stages, with limits everywhere.
pub mod endpoint; // Vocabulary: where deliveries go.
pub mod event; // Vocabulary: what happened.
pub mod filter; // Which subscriptions want the event.
pub mod metrics; // Every metric's name, in one file.
pub mod plugin; // The sandbox.
pub mod route; // Vocabulary: which events go where.
pub mod secret; // Vocabulary: values that are never printed.
pub mod send; // One attempt.
pub mod settle; // Delivered, retry at, dead letter.
pub mod store; // The only place where durable state is.
