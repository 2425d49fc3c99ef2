//! What is known in memory beside the disk: what waits, who holds what, how much there is.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::Notify;

use super::backlog::Backlog;
use super::ids::Ids;
use super::schedule::Schedule;

/// Shared by the writer, which tells it what is on disk, and those who claim.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) backlog: Mutex<Backlog>,
    /// Told when the backlog has something new, and when there will be nothing more.
    pub(super) arrived: Notify,
    pub(super) schedule: Mutex<Schedule>,
    pub(super) ids: Mutex<Ids>,
    /// The waiting event behind which trimming goes on.
    pub(super) trim_behind: AtomicI64,
    dead_letters: AtomicU64,
}

/// What the disk has, counted.
struct Counts {
    last_event: i64,
    pending: u64,
    scheduled: u64,
    dead_letters: u64,
}

impl Counts {
    fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let count = |table: &str| {
            let query = format!("SELECT count(*) FROM {table}");
            connection.query_row(&query, (), |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
        };
        Ok(Self {
            last_event: super::schema::last_seq(connection, "event")?,
            pending: count("pending")?,
            scheduled: count("delivery")?,
            dead_letters: count("dead")?,
        })
    }
}

impl Memory {
    /// Counts what is on disk. `starts` is how often the store was opened, `since_ms` when the dedupe window begins.
    pub(super) fn read(connection: &Connection, starts: u64, since_ms: i64) -> Result<Self, rusqlite::Error> {
        let counts = Counts::read(connection)?;
        let earliest = connection.query_row("SELECT min(due_ms) FROM delivery", (), |row| row.get(0))?;
        Ok(Self {
            backlog: Mutex::new(Backlog::new(counts.last_event, counts.pending)),
            arrived: Notify::new(),
            schedule: Mutex::new(Schedule::new(counts.scheduled, earliest, starts)),
            ids: Mutex::new(Ids::read(connection, since_ms)?),
            trim_behind: AtomicI64::new(i64::MIN),
            dead_letters: AtomicU64::new(counts.dead_letters),
        })
    }

    /// Counts again what is on disk, after a commit failed: whether it took place is unknown.
    pub(super) fn recount(&self, connection: &Connection) -> Result<(), rusqlite::Error> {
        let counts = Counts::read(connection)?;
        lock(&self.backlog).recounted(counts.last_event, counts.pending);
        lock(&self.schedule).recounted(counts.scheduled);
        self.dead_letters.store(counts.dead_letters, Ordering::Relaxed);
        self.arrived.notify_waiters();
        Ok(())
    }

    /// Takes note of how a commit changed the figures.
    pub(super) fn changed(&self, changes: Changes) {
        if changes.settled > 0 {
            lock(&self.backlog).settled(changes.settled);
        }
        if changes.scheduled + changes.unscheduled > 0 {
            lock(&self.schedule).changed(changes.scheduled, changes.unscheduled);
        }
        self.dead_letters.fetch_add(changes.dead_added, Ordering::Relaxed);
        self.dead_letters.fetch_sub(changes.dead_removed, Ordering::Relaxed);
    }

    /// Dead letters kept.
    pub(super) fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Relaxed)
    }
}

/// How a commit changes the figures.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    /// Events settled.
    pub(super) settled: u64,
    /// Rows that came into the schedule.
    pub(super) scheduled: u64,
    /// Rows that left it.
    pub(super) unscheduled: u64,
    /// Events that were trimmed.
    pub(super) events_removed: u64,
    /// Dead letters that came.
    pub(super) dead_added: u64,
    /// Dead letters that were trimmed.
    pub(super) dead_removed: u64,
}

/// Locks. What is behind these locks is whole between any two statements, so a panic elsewhere spoils nothing.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
