//! What happens, told at the moment it does to whoever watches: events accepted, attempts ended, outcomes.
//!
//! Nobody is waited for: who reads too slowly misses some, and is told how many. While nobody watches, telling costs the
//! look at one number.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytestring::ByteString;
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};

use crate::clock::Timestamp;
use crate::delivery::{Attempt, EventHead, Outcome};
use crate::event::apart;

/// How much is kept for one who reads slowly.
const KEPT_MAX: usize = 4_096;

/// Tells what happens. Cloning shares it.
#[derive(Clone)]
pub struct Tail {
    sender: broadcast::Sender<Arc<Happening>>,
    watchers: Arc<AtomicUsize>,
}

impl Default for Tail {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(KEPT_MAX), watchers: Arc::default() }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Happening {
    /// When, by the router's clock.
    pub at: Timestamp,
    /// The event it is about.
    pub event: HappeningEvent,
    /// What.
    pub what: What,
}

/// What is known of the event.
#[derive(Clone, Debug)]
pub struct HappeningEvent {
    /// Its id.
    pub id: ByteString,
    /// The source it came in by.
    pub source: ByteString,
    /// Its type.
    pub event_type: ByteString,
}

impl From<&EventHead> for HappeningEvent {
    fn from(head: &EventHead) -> Self {
        // One who reads slowly must not keep bodies.
        Self { id: apart(&head.id), source: apart(&head.source), event_type: apart(&head.event_type) }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// It was accepted.
    Accepted,
    /// An attempt ended.
    Attempt {
        /// For this subscription.
        subscription: Arc<str>,
        /// At this endpoint.
        endpoint: Arc<str>,
        /// How.
        attempt: Attempt,
    },
    /// Something was decided of it.
    Outcome {
        /// For this subscription; for none when no route wanted it.
        subscription: Option<Arc<str>>,
        /// What; nothing when no route wanted it.
        outcome: Option<Outcome>,
    },
}

impl Tail {
    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Tells what happened, if anybody watches.
    pub fn tell(&self, happening: impl FnOnce() -> Happening) {
        if self.is_watched() {
            // Who watched may have just gone.
            let _ = self.sender.send(Arc::new(happening()));
        }
    }

    /// Watches from now on.
    pub fn watch(&self) -> Watch {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watch { receiver: self.sender.subscribe(), watchers: Arc::clone(&self.watchers) }
    }
}

/// One who watches.
pub struct Watch {
    receiver: broadcast::Receiver<Arc<Happening>>,
    watchers: Arc<AtomicUsize>,
}

/// What a watcher is told.
#[derive(Clone, Debug)]
pub enum Seen {
    /// This happened.
    Happening(Arc<Happening>),
    /// So many things happened that it was too slow for.
    Missed(u64),
}

impl Watch {
    /// The next thing that happens; `None` when nothing will any more.
    pub async fn next(&mut self) -> Option<Seen> {
        match self.receiver.recv().await {
            Ok(happening) => Some(Seen::Happening(happening)),
            Err(RecvError::Lagged(missed)) => Some(Seen::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next thing, if it has happened already.
    pub fn next_now(&mut self) -> Option<Seen> {
        match self.receiver.try_recv() {
            Ok(happening) => Some(Seen::Happening(happening)),
            Err(TryRecvError::Lagged(missed)) => Some(Seen::Missed(missed)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(n: usize) -> Happening {
        let event =
            HappeningEvent { id: format!("evt_{n}").into(), source: "app".into(), event_type: "order.created".into() };
        Happening { at: Timestamp::from_millis(0), event, what: What::Accepted }
    }

    #[tokio::test]
    async fn nothing_is_made_while_nobody_watches_and_who_is_slow_is_told_what_was_missed() {
        let tail = Tail::default();
        tail.tell(|| panic!("nobody watches"));
        let mut watch = tail.watch();
        (0..KEPT_MAX + 10).for_each(|n| tail.tell(|| accepted(n)));
        assert!(matches!(watch.next().await, Some(Seen::Missed(10))));
        assert!(matches!(watch.next_now(), Some(Seen::Happening(first)) if first.event.id == "evt_10"));
        drop(watch);
        tail.tell(|| panic!("nobody watches any more"));
    }
}
