//! The events that wait to be claimed: those just accepted are handed over from memory, in order,
//! and those that don't fit into it are read from disk when their turn comes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::event::Event;

/// How many events are kept in memory for the next claim.
const READY_EVENTS_MAX: usize = 8_192;
/// How many bytes of payload those may have.
const READY_BYTES_MAX: usize = 32 << 20;

/// How many damaged events are known at a time; others wait for the next start.
const DAMAGED_EVENTS_MAX: usize = 1_024;

/// What waits, by number.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    ready: VecDeque<(i64, Arc<Event>)>,
    ready_bytes: usize,
    /// Whatever waits and has no higher number is in `ready` or was claimed.
    read_to: i64,
    /// The highest number that is on disk.
    committed: i64,
    /// Events that are not settled, claimed ones included.
    pending: u64,
    /// Events that were read from disk and are none, with why: they are to be put aside.
    damaged: BTreeMap<i64, String>,
}

impl Backlog {
    /// The backlog of a store that was just opened: nothing is in memory.
    pub(super) fn new(committed: i64, pending: u64) -> Self {
        Self { committed, pending, ..Self::default() }
    }

    /// Takes note of an event that is on disk now; numbers rise from call to call.
    pub(super) fn stored(&mut self, seq: i64, event: Arc<Event>) {
        // An event that is left out keeps the later ones out, too: they come after it.
        let in_order = self.read_to == self.committed;
        self.pending += 1;
        self.committed = seq;
        if in_order && self.ready.len() < READY_EVENTS_MAX && self.ready_bytes < READY_BYTES_MAX {
            self.push(seq, event);
        }
    }

    /// Takes note of events that were settled.
    pub(super) fn settled(&mut self, events: u64) {
        self.pending = self.pending.saturating_sub(events);
    }

    /// What is on disk, counted again after a commit failed: whether that one took place was unknown.
    pub(super) fn recounted(&mut self, committed: i64, pending: u64) {
        self.committed = self.committed.max(committed);
        self.pending = pending;
    }

    /// Takes up to `max` events from memory.
    pub(super) fn take(&mut self, max: usize) -> Vec<(i64, Arc<Event>)> {
        let taken: Vec<_> = self.ready.drain(..max.min(self.ready.len())).collect();
        self.ready_bytes -= taken.iter().map(|(_, event)| event_bytes(event)).sum::<usize>();
        taken
    }

    /// From where to read on from disk, and up to where that is known to go; `None` while memory has
    /// events, or the disk has none.
    pub(super) fn unread(&self) -> Option<(i64, i64)> {
        (self.ready.is_empty() && self.read_to < self.committed).then_some((self.read_to, self.committed))
    }

    /// Takes in what was read from disk: it goes up to `read_to`.
    pub(super) fn read(&mut self, events: Vec<(i64, Arc<Event>)>, read_to: i64) {
        for (seq, event) in events {
            self.push(seq, event);
        }
        self.read_to = self.read_to.max(read_to);
    }

    /// Takes note of an event on disk that can't be read.
    pub(super) fn found_damaged(&mut self, seq: i64, why: String) {
        if self.damaged.len() < DAMAGED_EVENTS_MAX {
            self.damaged.insert(seq, why);
        }
    }

    /// The events that are to be put aside, until [`Self::put_aside`] has them.
    pub(super) fn damaged(&self) -> BTreeMap<i64, String> {
        self.damaged.clone()
    }

    /// Takes note that these were put aside.
    pub(super) fn put_aside(&mut self, seqs: impl Iterator<Item = i64>) {
        seqs.for_each(|seq| drop(self.damaged.remove(&seq)));
    }

    /// Events that are not settled.
    pub(super) fn pending(&self) -> u64 {
        self.pending
    }

    fn push(&mut self, seq: i64, event: Arc<Event>) {
        self.read_to = seq;
        self.ready_bytes += event_bytes(&event);
        self.ready.push_back((seq, event));
    }
}

/// What an event takes in memory, roughly: what may be large.
fn event_bytes(event: &Event) -> usize {
    event.payload.len() + event.metadata.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    fn event() -> Arc<Event> {
        Arc::new(sample("evt_1", "order.created", "{}"))
    }

    fn numbers(taken: Vec<(i64, Arc<Event>)>) -> Vec<i64> {
        taken.into_iter().map(|entry| entry.0).collect()
    }

    #[test]
    fn events_are_handed_over_from_memory_in_order() {
        let mut backlog = Backlog::new(0, 0);
        (1..=5).for_each(|seq| backlog.stored(seq, event()));
        assert_eq!(numbers(backlog.take(3)), [1, 2, 3]);
        assert_eq!(backlog.unread(), None);
        assert_eq!(numbers(backlog.take(3)), [4, 5]);
        assert_eq!((backlog.unread(), backlog.ready_bytes, backlog.pending()), (None, 0, 5));
    }

    #[test]
    fn what_does_not_fit_into_memory_is_read_from_disk_before_anything_newer() {
        let mut backlog = Backlog::new(0, 0);
        let last = READY_EVENTS_MAX as i64 + 10;
        (1..=last).for_each(|seq| backlog.stored(seq, event()));
        assert_eq!(backlog.unread(), None, "memory comes first");
        assert_eq!(backlog.take(usize::MAX).len(), READY_EVENTS_MAX);
        assert_eq!(backlog.unread(), Some((READY_EVENTS_MAX as i64, last)));
        // One more comes in while the disk is read: it waits for its turn there.
        backlog.stored(last + 1, event());
        assert!(backlog.take(1).is_empty());
        backlog.read(vec![(last, event())], last);
        assert_eq!(numbers(backlog.take(10)), [last]);
        assert_eq!(backlog.unread(), Some((last, last + 1)));
        backlog.read(vec![(last + 1, event())], last + 1);
        assert_eq!(numbers(backlog.take(10)), [last + 1]);
        backlog.stored(last + 2, event());
        assert_eq!(numbers(backlog.take(10)), [last + 2], "and from memory again");
    }

    #[test]
    fn an_opened_store_reads_from_disk() {
        let mut backlog = Backlog::new(7, 3);
        assert_eq!(backlog.unread(), Some((0, 7)));
        backlog.read(vec![], 7);
        assert_eq!((backlog.unread(), backlog.pending()), (None, 3));
    }
}
