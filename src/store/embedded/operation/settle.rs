//! Events and deliveries are settled: what is recorded, scheduled and given up is written together.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use super::super::super::{Hold, Settled, encode_dead_letter};
use super::super::memory::{Memory, lock};
use super::super::number;
use super::super::writer::Batch;
use super::{Answer, tell};
use crate::delivery::{DeadLetter, whole_millis};

/// Acknowledges an event.
#[derive(Debug)]
pub(in super::super) struct SettleEvent {
    /// The event.
    pub(in super::super) seq: i64,
    /// Its outcomes, as lines of JSON.
    pub(in super::super) outcomes: Vec<u8>,
    pub(in super::super) scheduled: Vec<Placing>,
    pub(in super::super) dead_letters: Vec<Letter>,
    /// Whether the event was still there to be settled.
    pub(in super::super) written: bool,
    /// The answer has the fences of those deliveries that go on being held.
    pub(in super::super) answer: Answer<Settled<Vec<u64>>>,
}

/// A delivery that goes into the schedule.
#[derive(Debug)]
pub(in super::super) struct Placing {
    pub(in super::super) id: String,
    pub(in super::super) subscription: Arc<str>,
    pub(in super::super) record: Vec<u8>,
    pub(in super::super) hold: Hold,
    /// Its row, and when it falls due or its lease ends; known when it is written.
    pub(in super::super) placed: Option<(i64, i64)>,
}

/// A dead letter that is to be kept.
#[derive(Debug)]
pub(in super::super) struct Letter {
    pub(in super::super) delivery: String,
    pub(in super::super) record: Vec<u8>,
}

impl Letter {
    pub(in super::super) fn of(letter: &DeadLetter) -> Self {
        Self { delivery: letter.delivery.id.as_str().to_owned(), record: encode_dead_letter(letter) }
    }
}

/// Settles a claimed delivery.
#[derive(Debug)]
pub(in super::super) struct SettleDelivery {
    pub(in super::super) fence: u64,
    /// Its event.
    pub(in super::super) event: i64,
    /// Its outcome, as a line of JSON.
    pub(in super::super) outcome: Vec<u8>,
    pub(in super::super) next: NextRow,
    /// Its row, when the claim was held; and when it falls due again, if it does.
    pub(in super::super) row: Option<(i64, Option<i64>)>,
    pub(in super::super) answer: Answer<Settled<()>>,
}

/// What becomes of a delivery's row.
#[derive(Debug)]
pub(in super::super) enum NextRow {
    /// It goes away.
    Ended,
    /// It is this record from now on, and falls due after this many milliseconds.
    Waits(Vec<u8>, u64),
    /// It goes away, and this goes among the dead letters.
    Dead(Letter),
}

impl SettleEvent {
    pub(super) fn bytes(&self) -> usize {
        let scheduled: usize = self.scheduled.iter().map(|placing| placing.record.len()).sum();
        self.outcomes.len() + scheduled + self.dead_letters.iter().map(|letter| letter.record.len()).sum::<usize>()
    }

    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        self.written =
            batch.transaction.prepare_cached("DELETE FROM pending WHERE seq = ?1")?.execute([self.seq])? == 1;
        if !self.written {
            return Ok(());
        }
        batch.changes.settled += 1;
        batch.record_outcomes(self.seq, &self.outcomes)?;
        for placing in &mut self.scheduled {
            placing.apply(batch)?;
        }
        self.dead_letters.iter().try_for_each(|letter| batch.insert_dead_letter(letter))
    }

    pub(super) fn finish(self, memory: &Memory) {
        if !self.written {
            return tell(self.answer, Ok(Settled::Lost));
        }
        let mut fences = Vec::new();
        if !self.scheduled.is_empty() {
            let mut schedule = lock(&memory.schedule);
            for placing in self.scheduled {
                match (placing.placed, placing.hold) {
                    (Some((key, until)), Hold::Claimed) => fences.push(schedule.claim(key, until)),
                    (Some((key, due)), Hold::Wait(_)) => {
                        schedule.release(key);
                        schedule.waits(due);
                    }
                    (None, _) => {}
                }
            }
        }
        tell(self.answer, Ok(Settled::Written(fences)));
    }
}

impl Placing {
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        let now = number(batch.now.as_millis());
        // A held one is due on disk: after a restart, when nobody holds it any more, it comes at once.
        let (due, told) = match self.hold {
            Hold::Wait(wait) if wait.is_zero() => (now, now),
            Hold::Wait(wait) => {
                let due = now.saturating_add(number(whole_millis(wait)));
                (due, due)
            }
            Hold::Claimed => (now, now.saturating_add(number(batch.limits.lease_ms))),
        };
        // The same delivery may be there already when an operator asked for it again: it is replaced.
        let known: Option<i64> = batch
            .transaction
            .prepare_cached("SELECT key FROM delivery WHERE id = ?1")?
            .query_row([&self.id], |row| row.get(0))
            .optional()?;
        let key = match known {
            Some(key) => {
                batch
                    .transaction
                    .prepare_cached("UPDATE delivery SET due_ms = ?2, subscription = ?3, record = ?4 WHERE key = ?1")?
                    .execute(params![key, due, &*self.subscription, self.record])?;
                key
            }
            None => {
                batch.changes.scheduled += 1;
                batch
                    .transaction
                    .prepare_cached("INSERT INTO delivery (id, due_ms, subscription, record) VALUES (?1, ?2, ?3, ?4)")?
                    .insert(params![self.id, due, &*self.subscription, self.record])?
            }
        };
        if self.hold == Hold::Claimed {
            // Before the commit: nobody may claim it between that and the end of this step.
            lock(&batch.memory.schedule).hold(key);
            batch.held.push(key);
        }
        self.placed = Some((key, told));
        Ok(())
    }
}

impl SettleDelivery {
    pub(super) fn bytes(&self) -> usize {
        let record = match &self.next {
            NextRow::Ended => 0,
            NextRow::Waits(record, _) | NextRow::Dead(Letter { record, .. }) => record.len(),
        };
        self.outcome.len() + record
    }

    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        self.row = None;
        let Some(key) = lock(&batch.memory.schedule).begin_settling(self.fence) else {
            return Ok(());
        };
        batch.record_outcomes(self.event, &self.outcome)?;
        let mut due = None;
        match &self.next {
            NextRow::Ended => batch.delete_delivery(key)?,
            NextRow::Waits(record, wait_ms) => {
                let due_ms = number(batch.now.as_millis()).saturating_add(number(*wait_ms));
                batch
                    .transaction
                    .prepare_cached("UPDATE delivery SET due_ms = ?2, record = ?3 WHERE key = ?1")?
                    .execute(params![key, due_ms, record])?;
                due = Some(due_ms);
            }
            NextRow::Dead(letter) => {
                batch.insert_dead_letter(letter)?;
                batch.delete_delivery(key)?;
            }
        }
        self.row = Some((key, due));
        Ok(())
    }

    pub(super) fn finish(self, memory: &Memory) {
        let Some((key, due)) = self.row else {
            return tell(self.answer, Ok(Settled::Lost));
        };
        let mut schedule = lock(&memory.schedule);
        schedule.release(key);
        if let Some(due) = due {
            schedule.waits(due);
        }
        drop(schedule);
        tell(self.answer, Ok(Settled::Written(())));
    }
}
