//! The one writer: what is queued up shares a transaction and its fsync, and is answered after it.
//!
//! A full disk is survived: what can be refused is refused, and settlements are tried until there is
//! room. Any other failure ends the store: after a failed write only a fresh start knows what is on disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, MAIN_DB, Transaction, TransactionBehavior, params};

use super::super::{Error, StoreOptions};
use super::folder::Folder;
use super::memory::{Changes, Memory, lock};
use super::operation::Letter;
use super::outcome;
use super::queue::Submitted;
use super::{number, schema};
use crate::clock::{Clock, Timestamp};
use crate::delivery::whole_millis;

/// A log of so many pages (8 MiB) is checkpointed when nothing else is to do.
const CHECKPOINT_IDLE_PAGES: i32 = 2_048;
/// One of so many (32 MiB), whatever else there is to do.
const CHECKPOINT_BUSY_PAGES: i32 = 8_192;
/// A log this long (256 MiB), because a reader kept it from starting over, is cut short.
const TRUNCATE_PAGES: i32 = 65_536;
/// When so many pages (64 MiB) of the database are free, and a quarter of it, some are given back to the disk.
const VACUUM_FREE_PAGES_MIN: i64 = 16_384;
/// How many are given back at a time.
const VACUUM_STEP_PAGES: i64 = 2_048;
/// A row of outcomes takes no more once it has this many bytes.
const OUTCOME_ROW_BYTES: usize = 256 << 10;

/// Owns the connection that writes.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
    folder: Arc<Folder>,
    clock: Clock,
    limits: Limits,
    last: LastNumbers,
    /// How many pages the log has, as SQLite tells at each commit.
    log_pages: Arc<AtomicI32>,
    /// At how many pages the log is checkpointed next.
    checkpoint_at_pages: i32,
    /// Settlements for which there was no room. They keep their places in the queue, so they are bounded.
    held_over: Vec<Submitted>,
    /// Something was trimmed, so there may be pages to give back.
    trimmed: bool,
}

/// [`StoreOptions`] in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) retention_ms: u64,
    pub(super) dedupe_window_ms: u64,
    pub(super) lease_ms: u64,
}

impl Limits {
    pub(super) fn of(options: &StoreOptions) -> Self {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            retention_ms: millis(options.retention),
            dedupe_window_ms: millis(options.dedupe_window),
            lease_ms: whole_millis(options.lease),
        }
    }
}

/// The last number that was given out in each table.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastNumbers {
    pub(super) event: i64,
    pub(super) outcome: i64,
    pub(super) dead: i64,
}

impl LastNumbers {
    fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            event: schema::last_seq(connection, "event")?,
            outcome: schema::last_seq(connection, "outcome")?,
            dead: schema::last_seq(connection, "dead")?,
        })
    }
}

/// A transaction that operations share.
pub(super) struct Batch<'a> {
    pub(super) transaction: Transaction<'a>,
    pub(super) memory: &'a Memory,
    pub(super) now: Timestamp,
    pub(super) limits: Limits,
    pub(super) last: LastNumbers,
    pub(super) changes: Changes,
    /// Rows that memory holds for this batch; they are released when it fails.
    pub(super) held: Vec<i64>,
    /// Lines of JSON that make the next row of outcomes.
    outcomes: Vec<u8>,
    /// The blocks of events that they are about.
    outcome_blocks: BTreeSet<i64>,
}

impl Batch<'_> {
    /// Adds outcomes of an event to the row that this batch writes.
    pub(super) fn record_outcomes(&mut self, event: i64, lines: &[u8]) -> Result<(), rusqlite::Error> {
        if !self.outcomes.is_empty() && self.outcomes.len() + lines.len() > OUTCOME_ROW_BYTES {
            self.flush_outcomes()?;
        }
        if !lines.is_empty() {
            self.outcome_blocks.insert(outcome::block_of(event));
        }
        outcome::append_lines(&mut self.outcomes, lines);
        Ok(())
    }

    fn flush_outcomes(&mut self) -> Result<(), rusqlite::Error> {
        if self.outcomes.is_empty() {
            return Ok(());
        }
        self.last.outcome += 1;
        self.transaction
            .prepare_cached("INSERT INTO outcome (seq, at_ms, records) VALUES (?1, ?2, ?3)")?
            .execute(params![self.last.outcome, number(self.now.as_millis()), self.outcomes])?;
        self.outcomes.clear();
        let mut insert = self.transaction.prepare_cached("INSERT INTO outcome_of (block, outcome) VALUES (?1, ?2)")?;
        while let Some(block) = self.outcome_blocks.pop_first() {
            insert.execute([block, self.last.outcome])?;
        }
        Ok(())
    }

    /// Keeps a dead letter.
    pub(super) fn insert_dead_letter(&mut self, letter: &Letter) -> Result<(), rusqlite::Error> {
        self.last.dead += 1;
        self.changes.dead_added += 1;
        self.transaction
            .prepare_cached("INSERT INTO dead (seq, at_ms, record, delivery) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![self.last.dead, number(self.now.as_millis()), letter.record, letter.delivery])?;
        Ok(())
    }

    /// Takes a dead letter away; false when it is not there.
    pub(super) fn delete_dead_letter(&mut self, seq: i64) -> Result<bool, rusqlite::Error> {
        let deleted = self.transaction.prepare_cached("DELETE FROM dead WHERE seq = ?1")?.execute([seq])?;
        self.changes.dead_removed += deleted as u64;
        Ok(deleted > 0)
    }

    /// Takes a delivery out of the schedule.
    pub(super) fn delete_delivery(&mut self, key: i64) -> Result<(), rusqlite::Error> {
        let deleted = self.transaction.prepare_cached("DELETE FROM delivery WHERE key = ?1")?.execute([key])?;
        self.changes.unscheduled += deleted as u64;
        Ok(())
    }
}

impl Writer {
    pub(super) fn new(
        mut connection: Connection,
        folder: Arc<Folder>,
        clock: Clock,
        limits: Limits,
    ) -> Result<Self, rusqlite::Error> {
        let log_pages = Arc::new(AtomicI32::new(0));
        connection.wal_hook(Some({
            let log_pages = Arc::clone(&log_pages);
            move |_: &mut rusqlite::hooks::Wal, pages| {
                log_pages.store(pages, Ordering::Relaxed);
                Ok(())
            }
        }))?;
        let last = LastNumbers::read(&connection)?;
        Ok(Self {
            connection,
            folder,
            clock,
            limits,
            last,
            log_pages,
            checkpoint_at_pages: CHECKPOINT_BUSY_PAGES,
            held_over: Vec::new(),
            trimmed: false,
        })
    }

    /// Writes what was submitted. An error is the end of the store.
    pub(super) fn write(&mut self, submitted: Vec<Submitted>, memory: &Memory) -> Result<(), Error> {
        // What was held over goes first and alone: it is small, and it is what makes room in the end.
        if !self.held_over.is_empty() {
            let held_over = std::mem::take(&mut self.held_over);
            self.commit(held_over, memory)?;
        }
        let room =
            if submitted.iter().any(|submitted| submitted.operation.grows()) { self.folder.has_room() } else { Ok(()) };
        match room {
            Ok(()) => self.commit(submitted, memory)?,
            Err(Error::Full(detail)) => {
                let (refused, rest) = submitted.into_iter().partition(|submitted| submitted.operation.grows());
                refuse(refused, || Error::Full(detail.clone()));
                self.commit(rest, memory)?;
            }
            Err(error) => return Err(error),
        }
        if lock(&memory.ids).fill_a_segment() {
            self.write_segment(memory).or_else(|error| self.survive("writing ids", error))?;
        }
        if self.log_pages.load(Ordering::Relaxed) >= self.checkpoint_at_pages {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Moves the ids of the newest events from memory to disk; the events themselves are there.
    fn write_segment(&mut self, memory: &Memory) -> Result<(), rusqlite::Error> {
        let now_ms = number(self.clock.now().as_millis());
        let mut ids = lock(&memory.ids);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        ids.write_segment(&transaction, now_ms)?;
        transaction.commit()?;
        ids.segment_written(now_ms, now_ms.saturating_sub(number(self.limits.dedupe_window_ms)));
        Ok(())
    }

    /// Whether something waits for room on the disk.
    pub(super) fn waits_for_room(&self) -> bool {
        !self.held_over.is_empty()
    }

    fn commit(&mut self, submitted: Vec<Submitted>, memory: &Memory) -> Result<(), Error> {
        if submitted.is_empty() {
            return Ok(());
        }
        let mut submitted = submitted;
        match self.try_commit(&mut submitted, memory) {
            Ok(()) => {
                for submitted in submitted {
                    submitted.operation.finish(memory);
                }
                memory.arrived.notify_waiters();
                Ok(())
            }
            Err(error) if is_full(&error) => {
                tracing::warn!("the disk is full, nothing was written: {error}");
                let (must, may): (Vec<_>, Vec<_>) =
                    submitted.into_iter().partition(|submitted| submitted.operation.must_be_written());
                self.held_over.extend(must);
                self.recount(memory).map_err(|error| self.folder.unusable(error))?;
                refuse(may, || Error::Full("the disk is full".to_owned()));
                Ok(())
            }
            Err(error) => {
                let error = self.folder.unusable(error);
                let text = error.to_string();
                refuse(submitted, || Error::Unusable(text.clone()));
                Err(error)
            }
        }
    }

    fn try_commit(&mut self, submitted: &mut [Submitted], memory: &Memory) -> Result<(), rusqlite::Error> {
        let mut batch = Batch {
            transaction: self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?,
            memory,
            now: self.clock.now(),
            limits: self.limits,
            last: self.last,
            changes: Changes::default(),
            held: Vec::new(),
            outcomes: Vec::new(),
            outcome_blocks: BTreeSet::new(),
        };
        let applied = submitted
            .iter_mut()
            .try_for_each(|submitted| submitted.operation.apply(&mut batch))
            .and_then(|()| batch.flush_outcomes());
        let Batch { transaction, last, changes, held, .. } = batch;
        match applied.and_then(|()| transaction.commit()) {
            Ok(()) => {
                self.last = last;
                self.trimmed |= changes.dead_removed > 0 || changes.events_removed > 0;
                memory.changed(changes);
                Ok(())
            }
            Err(error) => {
                let mut schedule = lock(&memory.schedule);
                held.into_iter().for_each(|key| schedule.release(key));
                lock(&memory.ids).roll_back(self.last.event);
                Err(error)
            }
        }
    }

    /// Reads again what is on disk: a commit that failed may have taken place.
    fn recount(&mut self, memory: &Memory) -> Result<(), rusqlite::Error> {
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        let last = LastNumbers::read(&self.connection)?;
        // Numbers of the failed commit are left out rather than given out again.
        self.last.event = self.last.event.max(last.event);
        self.last.outcome = self.last.outcome.max(last.outcome);
        self.last.dead = self.last.dead.max(last.dead);
        memory.recount(&self.connection)
    }

    /// Uses a moment in which nothing waits to be written.
    pub(super) fn rest(&mut self) -> Result<(), Error> {
        if self.log_pages.load(Ordering::Relaxed) >= CHECKPOINT_IDLE_PAGES.min(self.checkpoint_at_pages) {
            self.checkpoint()?;
        }
        if std::mem::take(&mut self.trimmed) {
            self.vacuum().or_else(|error| self.survive("giving room back", error))?;
        }
        Ok(())
    }

    /// Moves the log into the database, so that the log starts over.
    fn checkpoint(&mut self) -> Result<(), Error> {
        let pages = self.log_pages.load(Ordering::Relaxed);
        let mode = if pages >= TRUNCATE_PAGES { CheckpointMode::TRUNCATE } else { CheckpointMode::PASSIVE };
        let moved = self.connection.wal_checkpoint_v2(Some(MAIN_DB), mode);
        // A reader may have kept it from going all the way; then the next try is that much later.
        let all = matches!(moved, Ok((log, moved)) if log == moved);
        self.log_pages.store(if all { 0 } else { pages }, Ordering::Relaxed);
        self.checkpoint_at_pages =
            if all { CHECKPOINT_BUSY_PAGES } else { pages.saturating_add(CHECKPOINT_BUSY_PAGES) };
        match moved {
            Ok(_) => Ok(()),
            Err(error) => self.survive("a checkpoint", error),
        }
    }

    /// Gives pages back to the disk, when many are free.
    fn vacuum(&self) -> Result<(), rusqlite::Error> {
        let pragma = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (free, all) = (pragma("freelist_count")?, pragma("page_count")?);
        if free >= VACUUM_FREE_PAGES_MIN && free >= all / 4 {
            self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_STEP_PAGES})"))?;
        }
        Ok(())
    }

    /// Upkeep may fail for want of room, or because a reader is in its way; that costs nothing.
    fn survive(&self, what: &str, error: rusqlite::Error) -> Result<(), Error> {
        if is_full(&error) || error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) {
            tracing::warn!("{what} of the store must wait: {error}");
            return Ok(());
        }
        Err(self.folder.unusable(error))
    }

    /// Ends in good order: the log is empty, and every lock is given back.
    pub(super) fn close(mut self) -> Result<(), Error> {
        let held_over = std::mem::take(&mut self.held_over);
        let written = if held_over.is_empty() { Ok(()) } else { Err(Error::Full("the disk is full".to_owned())) };
        // These events stay unsettled, and come again at the next start.
        refuse(held_over, || Error::Full("the disk is full".to_owned()));
        match self.connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::TRUNCATE) {
            Ok(_) => written,
            Err(error) => self.survive("a checkpoint", error).and(written),
        }
    }

    /// Refuses what is held over, because the store has failed.
    pub(super) fn give_up(&mut self, error: impl Fn() -> Error) {
        refuse(std::mem::take(&mut self.held_over), error);
    }
}

#[cfg(test)]
impl Writer {
    /// Makes the database as full as a disk would.
    pub(super) fn allow_pages(&self, more: i64) {
        let pragma = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = pragma("page_count").unwrap();
        self.connection.pragma_update_and_check(None, "max_page_count", pages + more, |_| Ok(())).unwrap();
    }
}

/// Whether SQLite wants room: for a page, or for the index of the log, which it keeps in a file.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
        || error.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// Answers each with an error.
pub(super) fn refuse(submitted: Vec<Submitted>, error: impl Fn() -> Error) {
    for submitted in submitted {
        submitted.operation.refuse(error());
    }
}
