//! What an operator can ask and do, as functions over a store and, where routes matter, a generation of the config.
//!
//! Requests and answers are typed and go both ways through JSON: the admin listener serves exactly these, and the command
//! line reads the same whether a router answers it or it opens the store itself. Whatever changes something notes it in the audit log.

pub mod audit; // Who did what.
pub mod choice; // Whether a pair is made again.
pub mod dead_letters; // What was given up.
pub mod deliveries; // What waits.
pub mod events; // What was accepted, and what became of it.
pub mod pages; // Through many records, a bounded step at a time.
pub mod pairs; // How one event stands with one subscription.
pub mod replay; // Deliveries made again.
pub mod stats; // How much there is.
pub mod times; // Times in queries and answers.
pub mod views; // Records as they are shown.

use crate::clock::Timestamp;
use crate::config::no_subscription;
use crate::dispatch::Snapshot;
use crate::store::{self, NoCursor};

/// Who asks for a change, and when.
#[derive(Clone, Debug)]
pub struct Caller {
    /// A token's name, or where the caller came from.
    pub who: String,
    /// The time, by the router's clock.
    pub now: Timestamp,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// The request is not one that can be carried out.
    #[error("{0}")]
    Invalid(String),
    /// It can't be done as things stand.
    #[error("{0}")]
    Conflict(String),
    /// Matching the event panicked.
    #[error("matching the event panicked, which is a bug of this program; its log says where")]
    Panicked,
    /// The store did not do it.
    #[error("{0}")]
    Store(#[from] store::Error),
}

impl From<NoCursor> for Error {
    fn from(no_cursor: NoCursor) -> Self {
        Self::Invalid(format!("`cursor`: {no_cursor}; leave it out to begin anew"))
    }
}

/// A page has no more entries than this.
pub const LIMIT_MAX: usize = 1_000;

/// How many entries a page has when nothing is said.
pub const LIMIT_DEFAULT: usize = 50;

/// Refuses the name of a subscription that the config does not have.
pub(crate) fn subscription_of(snapshot: &Snapshot, name: &str) -> Result<(), Error> {
    if snapshot.consumer(name).is_some() {
        return Ok(());
    }
    Err(Error::NotFound(no_subscription(name, snapshot.subscriptions())))
}

/// The number of entries that was asked for.
pub(crate) fn limit_of(limit: Option<usize>) -> Result<usize, Error> {
    match limit {
        None => Ok(LIMIT_DEFAULT),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(limit) => Err(Error::Invalid(format!("`limit` must be from 1 to {LIMIT_MAX}, not {limit}"))),
    }
}
