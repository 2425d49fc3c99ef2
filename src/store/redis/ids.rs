//! Where ids of events are kept for the dedupe window: in buckets of time, by the server's clock.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::Clock;

/// What an event goes by in the ids hashes. An id has no space in it.
pub(super) fn ids_field(source: &str, id: &str) -> String {
    [source, " ", id].concat()
}

/// The buckets of time that ids are kept in: their width is fixed when the store is first used, and the server's clock decides.
pub(super) struct IdsBuckets {
    pub(super) width_ms: u64,
    clock: Clock,
    /// How far the server's clock is ahead of ours, in milliseconds.
    ahead_ms: AtomicI64,
}

impl IdsBuckets {
    pub(super) fn new(width_ms: u64) -> Self {
        Self { width_ms: width_ms.max(1), clock: Clock::system(), ahead_ms: AtomicI64::new(0) }
    }

    /// The server said what time it is.
    pub(super) fn heard(&self, server_now_ms: u64) {
        let ours = i64::try_from(self.clock.now().as_millis()).unwrap_or(i64::MAX);
        let ahead = i64::try_from(server_now_ms).unwrap_or(i64::MAX).saturating_sub(ours);
        self.ahead_ms.store(ahead, Ordering::Relaxed);
    }

    /// The server's time, about.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now().as_millis().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// The bucket of now, about.
    pub(super) fn current(&self) -> u64 {
        self.now_ms() / self.width_ms
    }
}
