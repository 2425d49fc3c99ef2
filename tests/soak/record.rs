//! What the run remembers while it goes on: the evidence for the checker, and the run's own clock.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::ledger::{Disturbance, Receipt, Sent};

/// A digest of bytes, for comparison within one run.
pub fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Shared by producers, receivers and whoever disturbs.
pub struct Record {
    began: Instant,
    pub sent: Mutex<Vec<Sent>>,
    pub receipts: Mutex<Vec<Receipt>>,
    pub disturbances: Mutex<Vec<Disturbance>>,
    /// Events that producers tried to hand over, each as often as they tried.
    pub offered: AtomicUsize,
    /// Events answered 2xx.
    pub acknowledged: AtomicUsize,
    /// Answers 429 or 503, each of which said when to come back.
    pub refused: AtomicUsize,
    /// Requests without an answer.
    pub unanswered: AtomicUsize,
}

impl Record {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            sent: Mutex::default(),
            receipts: Mutex::default(),
            disturbances: Mutex::default(),
            offered: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
        }
    }

    /// Milliseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).expect("no run is that long")
    }

    /// How many events were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// How many requests receivers got so far.
    pub fn requests(&self) -> usize {
        locked(&self.receipts).len()
    }
}

/// The content of a mutex, whatever became of an earlier holder.
pub fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
