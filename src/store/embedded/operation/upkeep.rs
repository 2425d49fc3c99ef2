//! Trimming, hastening, and the marks on endpoints.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Transaction, params};

use super::super::ids;
use super::super::memory::{Memory, lock};
use super::super::writer::Batch;
use super::super::{number, outcome};
use super::{Answer, tell};

/// How many events one step of trimming removes at most.
const TRIM_EVENTS_MAX: i64 = 1_000;
/// Behind how many events that wait it looks.
const TRIM_WAITING_MAX: i64 = 1_000;
/// How many rows of outcomes, and how many dead letters.
const TRIM_ROWS_MAX: i64 = 500;

/// Removes what is settled and old.
#[derive(Debug)]
pub(in super::super) struct Trim {
    pub(in super::super) removed: u64,
    pub(in super::super) answer: Answer<u64>,
}

/// Makes waiting deliveries fall due.
#[derive(Debug)]
pub(in super::super) struct Hasten {
    pub(in super::super) subscriptions: Vec<Arc<str>>,
    pub(in super::super) max: usize,
    /// How many fell due, and when.
    pub(in super::super) hastened: (usize, i64),
    pub(in super::super) answer: Answer<usize>,
}

/// Marks an endpoint.
#[derive(Debug)]
pub(in super::super) struct Mark {
    pub(in super::super) key: String,
    /// The whole mark, as JSON.
    pub(in super::super) record: String,
    pub(in super::super) answer: Answer<()>,
}

/// Takes the mark away.
#[derive(Debug)]
pub(in super::super) struct Unmark {
    pub(in super::super) key: String,
    pub(in super::super) found: bool,
    pub(in super::super) answer: Answer<bool>,
}

impl Trim {
    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        let now = number(batch.now.as_millis());
        let old = now.saturating_sub(number(batch.limits.retention_ms));
        // An event's row is also what its id is known by, so it stays for the dedupe window at least.
        let known = old.min(now.saturating_sub(number(batch.limits.dedupe_window_ms)));
        let events = trim_events(batch, known)?;
        let outcomes = trim_rows(batch, "outcome", old)?;
        let dead = trim_rows(batch, "dead", old)?;
        batch.changes.events_removed += events;
        batch.changes.dead_removed += dead;
        let damaged = trim_rows(batch, "damaged", old)?;
        let audit = trim_rows(batch, "audit", old)?;
        self.removed = events + outcomes + dead + damaged + audit;
        if self.removed > 0 {
            // Trimmed numbers must not be given out again after a restart.
            let mut keep = batch.transaction.prepare_cached("UPDATE meta SET value = ?2 WHERE key = ?1")?;
            for (table, last) in
                [("event", batch.last.event), ("outcome", batch.last.outcome), ("dead", batch.last.dead)]
            {
                keep.execute(params![table, last])?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) {
        tell(self.answer, Ok(self.removed));
    }
}

/// Removes settled events: from the oldest on, then between those that wait. Goes on the next time where it ended.
fn trim_events(batch: &Batch<'_>, old: i64) -> Result<u64, rusqlite::Error> {
    let transaction = &batch.transaction;
    let first: Option<i64> =
        transaction.prepare_cached("SELECT min(seq) FROM pending")?.query_row((), |row| row.get(0))?;
    let removed = trim_between(transaction, i64::MIN, first.unwrap_or(i64::MAX), old, TRIM_EVENTS_MAX)?;
    let left = TRIM_EVENTS_MAX - removed;
    let more = if left > 0 && first.is_some() { trim_behind_waiting(batch, old, left)? } else { 0 };
    Ok((removed + more).unsigned_abs())
}

/// The same behind each of some events that wait. One that waits for long keeps nothing but itself.
fn trim_behind_waiting(batch: &Batch<'_>, old: i64, max: i64) -> Result<i64, rusqlite::Error> {
    let behind = &batch.memory.trim_behind;
    let mut select =
        batch.transaction.prepare_cached("SELECT seq FROM pending WHERE seq >= ?1 ORDER BY seq LIMIT ?2")?;
    let waiting = select.query_map(params![behind.load(Ordering::Relaxed), TRIM_WAITING_MAX], |row| row.get(0))?;
    let waiting = waiting.collect::<Result<Vec<i64>, _>>()?;
    // The last one's turn comes the next time, unless none comes after it.
    let is_end = waiting.len() < usize::try_from(TRIM_WAITING_MAX).unwrap_or(usize::MAX);
    let ends = waiting.iter().skip(1).copied().chain(is_end.then_some(i64::MAX));
    let mut removed = 0;
    for (seq, end) in waiting.iter().copied().zip(ends) {
        if end - seq > 1 {
            removed += trim_between(&batch.transaction, seq, end, old, max - removed)?;
        }
        if removed == max {
            behind.store(seq, Ordering::Relaxed);
            return Ok(removed);
        }
    }
    behind.store(if is_end { i64::MIN } else { waiting.last().copied().unwrap_or(i64::MIN) }, Ordering::Relaxed);
    Ok(removed)
}

/// Removes the events between two numbers from the oldest on, up to the first that is young, and what is kept of them
/// elsewhere. Gives how many.
fn trim_between(
    transaction: &Transaction<'_>,
    after: i64,
    before: i64,
    old: i64,
    max: i64,
) -> Result<i64, rusqlite::Error> {
    let mut select = transaction
        .prepare_cached("SELECT seq, accepted_ms FROM event WHERE seq > ?1 AND seq < ?2 ORDER BY seq LIMIT ?3")?;
    let mut rows = select.query(params![after, before, max])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let (seq, accepted_ms): (i64, i64) = (row.get(0)?, row.get(1)?);
        if accepted_ms > old {
            break;
        }
        last = Some(seq);
    }
    let Some(end) = last else { return Ok(0) };
    let mut delete = transaction.prepare_cached("DELETE FROM event WHERE seq > ?1 AND seq <= ?2")?;
    let removed = delete.execute([after, end])?;
    // Nothing is left between the two, also of what earlier steps removed: so what is whole between them goes.
    ids::trim(transaction, after, end)?;
    let mut forget = transaction.prepare_cached("DELETE FROM outcome_of WHERE block > ?1 AND block < ?2")?;
    forget.execute([outcome::block_of(after), outcome::block_of(end)])?;
    Ok(i64::try_from(removed).unwrap_or(i64::MAX))
}

/// Removes rows from the oldest on, up to the first that is young.
fn trim_rows(batch: &Batch<'_>, table: &str, old: i64) -> Result<u64, rusqlite::Error> {
    let query = format!("SELECT seq, at_ms FROM {table} ORDER BY seq LIMIT ?1");
    let mut select = batch.transaction.prepare_cached(&query)?;
    let mut rows = select.query([TRIM_ROWS_MAX])?;
    let mut last: Option<i64> = None;
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(1)? > old {
            break;
        }
        last = Some(row.get(0)?);
    }
    let Some(last) = last else { return Ok(0) };
    let delete = format!("DELETE FROM {table} WHERE seq <= ?1");
    Ok(batch.transaction.prepare_cached(&delete)?.execute([last])? as u64)
}

impl Hasten {
    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        // One that is held is due on disk, so it is left alone.
        let mut hasten = batch.transaction.prepare_cached(
            "UPDATE delivery SET due_ms = ?2 WHERE key IN
             (SELECT key FROM delivery WHERE subscription = ?1 AND due_ms > ?2 ORDER BY due_ms LIMIT ?3)",
        )?;
        let now = number(batch.now.as_millis());
        self.hastened = (0, now);
        for subscription in &self.subscriptions {
            let left = i64::try_from(self.max - self.hastened.0).unwrap_or(i64::MAX);
            self.hastened.0 += hasten.execute(params![&**subscription, now, left])?;
        }
        Ok(())
    }

    pub(super) fn finish(self, memory: &Memory) {
        let (hastened, due) = self.hastened;
        if hastened > 0 {
            lock(&memory.schedule).waits(due);
        }
        tell(self.answer, Ok(hastened));
    }
}

impl Mark {
    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        batch
            .transaction
            .prepare_cached("INSERT OR REPLACE INTO endpoint (name, record) VALUES (?1, ?2)")?
            .execute([&self.key, &self.record])?;
        Ok(())
    }

    pub(super) fn finish(self) {
        tell(self.answer, Ok(()));
    }
}

impl Unmark {
    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        let deleted = batch.transaction.prepare_cached("DELETE FROM endpoint WHERE name = ?1")?.execute([&self.key])?;
        self.found = deleted > 0;
        Ok(())
    }

    pub(super) fn finish(self) {
        tell(self.answer, Ok(self.found));
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::super::super::schema;
    use super::*;

    fn numbers(connection: &Connection, query: &str) -> Vec<i64> {
        let mut select = connection.prepare(query).unwrap();
        select.query_map((), |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn events_behind_one_that_waits_take_along_what_is_kept_of_them_elsewhere() {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::prepare(&mut connection).unwrap();
        let insert = |query: &str, numbers: &[i64]| {
            connection.execute(query, rusqlite::params_from_iter(numbers)).unwrap();
        };
        for seq in 1..=640 {
            insert("INSERT INTO event VALUES (?1, 0, 'app', 'id', x'')", &[seq]);
        }
        for (segment, first, last) in [(0, 1, 100), (1, 101, 300), (2, 301, 500), (3, 501, 640)] {
            insert("INSERT INTO segment VALUES (?1, ?2, ?3, 0)", &[segment, first, last]);
            for bucket in [0, 63] {
                insert("INSERT INTO ids VALUES (?1, x'')", &[segment * 64 + bucket]);
            }
        }
        for block in 0..=10 {
            insert("INSERT INTO outcome_of VALUES (?1, 7)", &[block]);
        }
        let transaction = connection.transaction().unwrap();
        // 150 waits, and what is before it is young.
        let mut steps = 0;
        while trim_between(&transaction, 150, i64::MAX, 0, 100).unwrap() > 0 {
            steps += 1;
        }
        assert_eq!(steps, 5, "in bounded steps");
        assert_eq!(numbers(&transaction, "SELECT count(*) FROM event"), [150]);
        assert_eq!(numbers(&transaction, "SELECT segment FROM segment"), [0, 1], "the second has what waits");
        assert_eq!(numbers(&transaction, "SELECT key FROM ids"), [0, 63, 64, 127]);
        assert_eq!(numbers(&transaction, "SELECT block FROM outcome_of"), [0, 1, 2, 10]);
        // When it is settled, the rest goes.
        assert_eq!(trim_between(&transaction, i64::MIN, i64::MAX, 0, 1_000).unwrap(), 150);
        assert!(numbers(&transaction, "SELECT segment FROM segment").len() < 2);
    }
}
