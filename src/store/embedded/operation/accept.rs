//! Events come in: each is written once, unless its source and id are known.

use std::sync::Arc;

use rusqlite::params;

use super::super::super::{Appended, Error};
use super::super::ids::hash_of;
use super::super::memory::{Memory, lock};
use super::super::writer::Batch;
use super::super::{number, position};
use super::{Answer, tell};
use crate::event::Event;

/// Stores events.
#[derive(Debug)]
pub(in super::super) struct Append {
    events: Vec<Arc<Event>>,
    /// The events as bytes, in the same order.
    records: Vec<Vec<u8>>,
    /// What became of each; a number when it was stored.
    stored: Vec<Option<i64>>,
    pub(super) answer: Answer<Vec<Appended>>,
}

impl Append {
    pub(in super::super) fn new(events: Vec<Event>, answer: Answer<Vec<Appended>>) -> Self {
        let records = events.iter().map(super::super::super::encode_event).collect();
        Self { events: events.into_iter().map(Arc::new).collect(), records, stored: Vec::new(), answer }
    }

    pub(super) fn bytes(&self) -> usize {
        self.records.iter().map(Vec::len).sum()
    }

    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        let mut insert_event = batch
            .transaction
            .prepare_cached("INSERT INTO event (seq, accepted_ms, source, id, record) VALUES (?1, ?2, ?3, ?4, ?5)")?;
        let mut insert_pending = batch.transaction.prepare_cached("INSERT INTO pending (seq) VALUES (?1)")?;
        let now = number(batch.now.as_millis());
        let since = now.saturating_sub(number(batch.limits.dedupe_window_ms));
        let mut ids = lock(&batch.memory.ids);
        self.stored.clear();
        for (event, record) in self.events.iter().zip(&self.records) {
            let hash = hash_of(&event.source, &event.id);
            if ids.is_known(&batch.transaction, hash, (&event.source, &event.id), since)? {
                self.stored.push(None);
                continue;
            }
            let seq = batch.last.event + 1;
            insert_event.execute(params![seq, now, &*event.source, &*event.id, record])?;
            insert_pending.execute([seq])?;
            ids.add(hash, seq);
            batch.last.event = seq;
            self.stored.push(Some(seq));
        }
        Ok(())
    }

    pub(super) fn finish(self, memory: &Memory) {
        let mut backlog = lock(&memory.backlog);
        let mut appended = Vec::with_capacity(self.stored.len());
        for (event, stored) in self.events.into_iter().zip(self.stored) {
            appended.push(match stored {
                Some(seq) => {
                    backlog.stored(seq, event);
                    Appended::Stored(position(seq))
                }
                None => Appended::Duplicate,
            });
        }
        drop(backlog);
        tell(self.answer, Ok::<_, Error>(appended));
    }
}
