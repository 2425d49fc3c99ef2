//! The store for one process: SQLite on disk, written by one writer at a time, and read beside it.
//!
//! Whatever blocks runs on tokio's threads for that, never on a task. Who holds what is known in
//! memory only: the folder is locked, so when a process starts, nobody else holds anything.

mod backlog; // Events that wait to be claimed.
mod folder; // The folder: private, locked, watched for room.
#[cfg(test)]
mod fuzz;
mod history; // What an operator reads.
mod ids; // Which event has which id.
mod look; // What a router would find, without writing.
mod memory; // What is known beside the disk.
mod operation; // What the writer is asked to do.
mod outcome; // How outcomes are written.
mod queue; // The way to the writer.
mod reader; // What is read.
mod scan; // Pages of a table.
mod schedule; // Who holds which delivery.
mod schema; // Tables and settings.
mod shared; // What the store's tasks share.
mod writer; // Batches, commits, checkpoints.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::look::{is_there, look};
use self::memory::lock;
use self::operation::{
    Append, Hasten, Letter, Mark, NextRow, Operation, Placing, PutAside, SettleDelivery, SettleEvent, Trim, Unmark,
};
use self::shared::Shared;
use super::{
    Appended, Cursor, DeliveryClaim, DeliverySettlement, DueDeliveries, EndpointMark, Error, EventClaim,
    EventSettlement, History as _, Hold, MarkKind, NextState, ScheduledDelivery, Settled, Stats, Store, StoreOptions,
    encode_delivery,
};
use crate::clock::{Clock, Timestamp};
use crate::delivery::{DeadLetter, Delivery, OutcomeRecord, whole_millis};
use crate::event::{Event, Position};

/// A store in a folder, for one process. Dropping it is like a crash: nothing is lost, nothing is tidied up.
#[derive(Debug)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
}

impl EmbeddedStore {
    /// Opens the store in `folder`, and makes it when it is not there. Must be called within a tokio runtime.
    pub async fn open(folder: &Path, options: StoreOptions, clock: Clock) -> Result<Self, Error> {
        let folder = folder.to_owned();
        let opened = tokio::task::spawn_blocking(move || Shared::open(&folder, &options, clock)).await;
        let shared =
            opened.unwrap_or_else(|error| Err(Error::Unusable(format!("opening the store failed: {error}"))))?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Puts events aside that were found to be damaged. They would wait for ever, and trimming with them.
    async fn put_damaged_aside(&self) -> Result<(), Error> {
        let damaged = lock(&self.shared.memory.backlog).damaged();
        if damaged.is_empty() {
            return Ok(());
        }
        match self.shared.ask(|answer| Operation::PutAside(PutAside::new(damaged, answer))).await {
            // Without room they are put aside at a later claim, and hold nobody up until then.
            Ok(()) | Err(Error::Full(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn now_ms(&self) -> i64 {
        millis(self.shared.clock.now())
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        drop(self.shared.queue.abandon());
        self.shared.memory.arrived.notify_waiters();
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn append(&self, events: Vec<Event>) -> Result<Vec<Appended>, Error> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        self.shared.ask(|answer| Operation::Append(Append::new(events, answer))).await
    }

    async fn claim_events(&self, max: usize, wait: Duration) -> Result<Vec<EventClaim>, Error> {
        let started = tokio::time::Instant::now();
        let memory = &self.shared.memory;
        loop {
            self.put_damaged_aside().await?;
            // Before looking: what arrives from here on ends the wait.
            let mut arrived = std::pin::pin!(memory.arrived.notified());
            arrived.as_mut().enable();
            self.shared.check()?;
            let (taken, unread) = {
                let mut backlog = lock(&memory.backlog);
                (backlog.take(max), backlog.unread())
            };
            if !taken.is_empty() || max == 0 {
                // No await between taking and returning: a dropped future has taken nothing.
                let fence = self.shared.starts;
                let claim = |(seq, event)| EventClaim { event, position: position(seq), fence };
                return Ok(taken.into_iter().map(claim).collect());
            }
            if unread.is_some() {
                self.shared.claiming(reader::backlog).await?;
                continue;
            }
            let left = wait.saturating_sub(started.elapsed());
            if left.is_zero() || tokio::time::timeout(left, arrived).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    async fn settle_event(&self, settlement: EventSettlement) -> Result<Settled<Vec<DeliveryClaim>>, Error> {
        let EventSettlement { claim, outcomes, scheduled, dead_letters } = settlement;
        let seq = match row_number(claim.position) {
            Some(seq) if claim.fence == self.shared.starts => seq,
            Some(_) | None => return Ok(Settled::Lost),
        };
        let placing = |entry: &ScheduledDelivery| Placing {
            id: entry.delivery.id.as_str().to_owned(),
            subscription: Arc::clone(&entry.delivery.subscription),
            record: encode_delivery(&entry.delivery),
            hold: entry.hold,
            placed: None,
        };
        let (rows, lines) = (scheduled.iter().map(placing).collect(), outcome::encode_lines(&outcomes));
        let letters = dead_letters.iter().map(Letter::of).collect();
        let settled = self
            .shared
            .ask(|answer| {
                Operation::SettleEvent(SettleEvent {
                    seq,
                    outcomes: lines,
                    scheduled: rows,
                    dead_letters: letters,
                    written: false,
                    answer,
                })
            })
            .await?;
        Ok(match settled {
            Settled::Lost => Settled::Lost,
            Settled::Written(fences) => {
                let held = scheduled.into_iter().filter(|entry| entry.hold == Hold::Claimed);
                let claim =
                    |(entry, fence): (ScheduledDelivery, u64)| DeliveryClaim { delivery: entry.delivery, fence };
                Settled::Written(held.zip(fences).map(claim).collect())
            }
        })
    }

    async fn claim_due(&self, max: usize) -> Result<DueDeliveries, Error> {
        self.shared.check()?;
        let now = self.shared.clock.now();
        let mut claims = Vec::new();
        let may_be_due = lock(&self.shared.memory.schedule).may_be_due(millis(now));
        if may_be_due && max > 0 {
            let lease_ms = self.shared.limits.lease_ms;
            claims = self
                .shared
                .claiming(move |connection, memory| reader::claim_due(connection, memory, now, lease_ms, max))
                .await?;
        }
        let next_in = lock(&self.shared.memory.schedule).next_in(self.now_ms());
        Ok(DueDeliveries { claims, next_in })
    }

    async fn settle_delivery(&self, settlement: DeliverySettlement) -> Result<Settled<()>, Error> {
        let DeliverySettlement { claim, outcome, next } = settlement;
        let next = match next {
            NextState::Ended => NextRow::Ended,
            NextState::Waits(delivery, wait) => NextRow::Waits(encode_delivery(&delivery), whole_millis(wait)),
            NextState::Dead(letter) => NextRow::Dead(Letter::of(&letter)),
        };
        let outcome = outcome::encode_lines(outcome.as_slice());
        let (fence, event) = (claim.fence, row_number(claim.delivery.event.position).unwrap_or_default());
        self.shared
            .ask(|answer| Operation::SettleDelivery(SettleDelivery { fence, event, outcome, next, row: None, answer }))
            .await
    }

    async fn close(&self) -> Result<(), Error> {
        self.shared.close().await
    }

    async fn mark_endpoint(&self, mark: EndpointMark) -> Result<(), Error> {
        let record = serde_json::to_string(&mark).expect("a mark always serializes: its keys are all strings");
        let key = mark.kind.key(&mark.name);
        self.shared.ask(|answer| Operation::Mark(Mark { key, record, answer })).await
    }

    async fn unmark_endpoint(&self, name: &str, kind: MarkKind) -> Result<bool, Error> {
        let key = kind.key(name);
        self.shared.ask(|answer| Operation::Unmark(Unmark { key, found: false, answer })).await
    }

    async fn endpoint_marks(&self) -> Result<Vec<EndpointMark>, Error> {
        self.shared.reading(|connection, _| reader::endpoint_marks(connection)).await
    }

    async fn hasten(&self, subscriptions: &[Arc<str>], max: usize) -> Result<usize, Error> {
        let subscriptions = subscriptions.to_vec();
        self.shared.ask(|answer| Operation::Hasten(Hasten { subscriptions, max, hastened: (0, 0), answer })).await
    }

    async fn stats(&self) -> Result<Stats, Error> {
        self.shared.check()?;
        let memory = &self.shared.memory;
        let backlog = lock(&memory.backlog).pending();
        let schedule = lock(&memory.schedule);
        let (scheduled, overdue_ms) = (schedule.count(), schedule.overdue_ms(self.now_ms()));
        Ok(Stats { backlog, scheduled, overdue_ms, dead_letters: memory.dead_letters(), ..Stats::default() })
    }

    async fn trim(&self) -> Result<u64, Error> {
        self.shared.ask(|answer| Operation::Trim(Trim { removed: 0, answer })).await
    }

    async fn event(&self, position: Position) -> Result<Option<Event>, Error> {
        let Some(seq) = row_number(position) else { return Ok(None) };
        self.shared.reading(move |connection, _| reader::event(connection, seq)).await
    }

    async fn find_event(&self, source: &str, id: &str) -> Result<Option<(Position, Event)>, Error> {
        let (source, id) = (source.to_owned(), id.to_owned());
        self.shared.reading(move |connection, memory| reader::find_event(connection, memory, &source, &id)).await
    }

    async fn outcomes(&self, cursor: Option<Cursor>, limit: usize) -> Result<(Vec<OutcomeRecord>, Cursor), Error> {
        self.shared.reading(move |connection, _| reader::outcomes(connection, cursor, limit)).await
    }

    async fn dead_letters(&self, cursor: Option<Cursor>, limit: usize) -> Result<(Vec<DeadLetter>, Cursor), Error> {
        self.shared.reading(move |connection, _| reader::dead_letters(connection, cursor, limit)).await
    }

    async fn scheduled(&self, limit: usize) -> Result<Vec<(Timestamp, Delivery)>, Error> {
        let waiting = self.schedule(None, None, limit).await?;
        Ok(waiting.items.into_iter().map(|waiting| (waiting.due, waiting.delivery)).collect())
    }
}

/// A number as SQLite has them. What does not fit is as good as for ever.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn millis(time: Timestamp) -> i64 {
    number(time.as_millis())
}

/// Where an event's row stands.
fn position(seq: i64) -> Position {
    Position { partition: 0, major: seq.unsigned_abs(), minor: 0 }
}

/// The row that stands there; `None` for a position of another store.
fn row_number(position: Position) -> Option<i64> {
    (position.partition == 0 && position.minor == 0).then(|| i64::try_from(position.major).ok()).flatten()
}
