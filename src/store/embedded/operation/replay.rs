//! What an operator changes by hand: deliveries made again, dead letters thrown away, and the notes of both.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use super::super::super::Replayed;
use super::super::memory::{Memory, lock};
use super::super::number;
use super::super::writer::Batch;
use super::{Answer, tell};

/// Puts a delivery into the schedule, due now.
#[derive(Debug)]
pub(in super::super) struct ReplayDelivery {
    id: String,
    subscription: Arc<str>,
    record: Vec<u8>,
    /// The dead letter that it comes from.
    letter: Option<i64>,
    /// Whether one that waits is written anew.
    anew: bool,
    event: i64,
    /// Its outcome, as a line of JSON.
    outcome: Vec<u8>,
    /// What became of it, and its row and when it falls due if it was written.
    replayed: (Replayed, Option<(i64, i64)>),
    pub(super) answer: Answer<Replayed>,
}

/// Removes a dead letter.
#[derive(Debug)]
pub(in super::super) struct Discard {
    pub(in super::super) letter: i64,
    pub(in super::super) event: i64,
    /// Its outcome, as a line of JSON.
    pub(in super::super) outcome: Vec<u8>,
    pub(in super::super) discarded: bool,
    pub(in super::super) answer: Answer<bool>,
}

/// Notes who did what.
#[derive(Debug)]
pub(in super::super) struct RecordAudit {
    pub(in super::super) record: String,
    pub(in super::super) answer: Answer<()>,
}

/// Remembers sources by name.
#[derive(Debug)]
pub(in super::super) struct RememberSources {
    pub(in super::super) names: Vec<Arc<str>>,
    pub(in super::super) answer: Answer<()>,
}

impl ReplayDelivery {
    #[expect(clippy::too_many_arguments, reason = "each is a column, or the answer")]
    pub(in super::super) fn new(
        id: String,
        subscription: Arc<str>,
        record: Vec<u8>,
        letter: Option<i64>,
        anew: bool,
        event: i64,
        outcome: Vec<u8>,
        answer: Answer<Replayed>,
    ) -> Self {
        Self { id, subscription, record, letter, anew, event, outcome, replayed: (Replayed::Gone, None), answer }
    }

    pub(super) fn bytes(&self) -> usize {
        self.record.len() + self.outcome.len()
    }

    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        self.replayed = (Replayed::Gone, None);
        let letter: Option<i64> = match self.letter {
            Some(seq) => batch
                .transaction
                .prepare_cached("SELECT seq FROM dead WHERE seq = ?1")?
                .query_row([seq], |row| row.get(0)),
            None => batch
                .transaction
                .prepare_cached("SELECT seq FROM dead WHERE delivery = ?1 LIMIT 1")?
                .query_row([&self.id], |row| row.get(0)),
        }
        .optional()?;
        match (self.letter, letter) {
            (Some(_), None) => return Ok(()),
            (None, Some(_)) => {
                self.replayed.0 = Replayed::DeadLettered;
                return Ok(());
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        let now = number(batch.now.as_millis());
        let known: Option<i64> = batch
            .transaction
            .prepare_cached("SELECT key FROM delivery WHERE id = ?1")?
            .query_row([&self.id], |row| row.get(0))
            .optional()?;
        let (replayed, key) = match known {
            Some(key) => {
                if !hold(batch, key, now) {
                    self.replayed.0 = Replayed::Held;
                    return Ok(());
                }
                let record = self.anew.then_some(&self.record);
                batch
                    .transaction
                    .prepare_cached("UPDATE delivery SET due_ms = ?2, record = coalesce(?3, record) WHERE key = ?1")?
                    .execute(params![key, now, record])?;
                (Replayed::Hastened, key)
            }
            None => {
                batch.changes.scheduled += 1;
                let key = batch
                    .transaction
                    .prepare_cached("INSERT INTO delivery (id, due_ms, subscription, record) VALUES (?1, ?2, ?3, ?4)")?
                    .insert(params![self.id, now, &*self.subscription, self.record])?;
                hold(batch, key, now);
                (Replayed::Scheduled, key)
            }
        };
        batch.record_outcomes(self.event, &self.outcome)?;
        if let Some(letter) = letter {
            batch.delete_dead_letter(letter)?;
        }
        self.replayed = (replayed, Some((key, now)));
        Ok(())
    }

    pub(super) fn finish(self, memory: &Memory) {
        let (replayed, written) = self.replayed;
        if let Some((key, due)) = written {
            let mut schedule = lock(&memory.schedule);
            schedule.release(key);
            schedule.waits(due);
        }
        tell(self.answer, Ok(replayed));
    }
}

/// Holds a row until this step is over, so that nobody claims what is being written. False when somebody holds it.
fn hold(batch: &mut Batch<'_>, key: i64, now: i64) -> bool {
    let mut schedule = lock(&batch.memory.schedule);
    let free = !schedule.is_held(key, now);
    if free {
        schedule.hold(key);
        batch.held.push(key);
    }
    free
}

impl Discard {
    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        self.discarded = batch.delete_dead_letter(self.letter)?;
        if self.discarded {
            batch.record_outcomes(self.event, &self.outcome)?;
        }
        Ok(())
    }

    pub(super) fn finish(self) {
        tell(self.answer, Ok(self.discarded));
    }
}

impl RecordAudit {
    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        batch
            .transaction
            .prepare_cached("INSERT INTO audit (at_ms, record) VALUES (?1, ?2)")?
            .execute(params![number(batch.now.as_millis()), self.record])?;
        Ok(())
    }

    pub(super) fn finish(self) {
        tell(self.answer, Ok(()));
    }
}

impl RememberSources {
    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        let mut insert = batch.transaction.prepare_cached("INSERT OR IGNORE INTO source (name) VALUES (?1)")?;
        self.names.iter().try_for_each(|name| insert.execute([&**name]).map(drop))
    }

    pub(super) fn finish(self) {
        tell(self.answer, Ok(()));
    }
}
