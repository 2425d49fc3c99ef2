//! What is read from disk: connections, a few at a time, and every query.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::Semaphore;

use super::super::{Cursor, DeliveryClaim, EndpointMark, Error};
use super::super::{decode_dead_letter, decode_delivery, decode_event};
use super::memory::{Memory, lock};
use super::{ids, millis, number, outcome, position, schema};
use crate::clock::Timestamp;
use crate::delivery::{DeadLetter, OutcomeRecord};
use crate::event::{Event, Position};

/// How many bytes of payload one look at the disk brings in for claims.
const CLAIM_BYTES_MAX: usize = 8 << 20;
/// How many events.
const CLAIM_EVENTS_MAX: i64 = 1_024;
/// How many bytes of records a page of a listing has, if it has several records.
pub(super) const PAGE_BYTES_MAX: usize = 16 << 20;

/// Connections that read, opened when they are wanted.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    /// As many places as there may be connections.
    pub(super) places: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, connections_max: usize) -> Self {
        Self { path, places: Arc::new(Semaphore::new(connections_max)), idle: Mutex::default() }
    }

    /// Runs a query; the caller has one of the places, and is on a thread that may block.
    pub(super) fn run<T>(&self, query: impl FnOnce(&Connection) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let idle = lock(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path)?,
        };
        let result = query(&connection);
        if !self.places.is_closed() {
            lock(&self.idle).push(connection);
        }
        result
    }

    /// Lets nobody in any more, and closes what is idle.
    pub(super) fn close(&self) {
        self.places.close();
        lock(&self.idle).clear();
    }
}

/// Why something can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The disk, or the database.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A record.
    #[error(transparent)]
    Record(#[from] Error),
}

/// Reads events that wait into memory, if it has none.
pub(super) fn backlog(connection: &Connection, memory: &Memory) -> Result<(), ReadError> {
    let Some((from, to)) = lock(&memory.backlog).unread() else { return Ok(()) };
    let mut select = connection.prepare_cached(
        "SELECT seq, record FROM pending JOIN event USING (seq) WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = select.query(params![from, CLAIM_EVENTS_MAX])?;
    let (mut events, mut bytes, mut last, mut count) = (Vec::new(), 0, from, 0);
    // When the rows come to their end, all that waits up to `to` has been read, and maybe more.
    let mut read_to = to;
    while let Some(row) = rows.next()? {
        let record: Vec<u8> = row.get(1)?;
        last = row.get(0)?;
        (bytes, count) = (bytes + record.len(), count + 1);
        match decode_event(&Bytes::from(record)) {
            Ok(event) => events.push((last, Arc::new(event))),
            // It is put aside by the writer, before the next claim; the others go on.
            Err(error) => lock(&memory.backlog).found_damaged(last, error.to_string()),
        }
        if bytes >= CLAIM_BYTES_MAX || count == CLAIM_EVENTS_MAX {
            read_to = last;
            break;
        }
    }
    lock(&memory.backlog).read(events, read_to.max(last));
    Ok(())
}

/// Claims deliveries that are due.
pub(super) fn claim_due(
    connection: &Connection,
    memory: &Memory,
    now: Timestamp,
    lease_ms: u64,
    max: usize,
) -> Result<Vec<DeliveryClaim>, ReadError> {
    let now = millis(now);
    let until = now.saturating_add(number(lease_ms));
    let mut claimed = Vec::new();
    {
        // The lock is taken before the query begins: what is settled by then is gone from the query's
        // snapshot, and what is not settled by then is still held in memory.
        let mut schedule = lock(&memory.schedule);
        let mut select = connection
            .prepare_cached("SELECT key, due_ms FROM delivery WHERE due_ms <= ?1 ORDER BY due_ms LIMIT ?2")?;
        let limit = i64::try_from(max.saturating_add(schedule.claimed()).saturating_add(1)).unwrap_or(i64::MAX);
        let mut rows = select.query(params![now, limit])?;
        let mut next = None;
        while let Some(row) = rows.next()? {
            let (key, due): (i64, i64) = (row.get(0)?, row.get(1)?);
            if schedule.is_held(key, now) {
                continue;
            }
            if claimed.len() == max {
                next = Some(due);
                break;
            }
            claimed.push((key, schedule.claim(key, until)));
        }
        if next.is_none() {
            let query = "SELECT min(due_ms) FROM delivery WHERE due_ms > ?1";
            next = connection.prepare_cached(query)?.query_row([now], |row| row.get(0))?;
        }
        schedule.seen(next);
    }
    // They are held now, so nobody takes them away.
    let mut select = connection.prepare_cached("SELECT record FROM delivery WHERE key = ?1")?;
    let mut claims = Vec::with_capacity(claimed.len());
    for (key, fence) in claimed {
        let record: Vec<u8> = select.query_row([key], |row| row.get(0))?;
        match decode_delivery(&Bytes::from(record)) {
            Ok(delivery) => claims.push(DeliveryClaim { delivery, fence }),
            // It is claimed, so it is tried again when the lease ends, and not before.
            Err(error) => tracing::error!(delivery.row = key, "a delivery can't be claimed: {error}"),
        }
    }
    Ok(claims)
}

/// An event by its number.
pub(super) fn event(connection: &Connection, seq: i64) -> Result<Option<Event>, ReadError> {
    let record: Option<Vec<u8>> = connection
        .prepare_cached("SELECT record FROM event WHERE seq = ?1")?
        .query_row([seq], |row| row.get(0))
        .optional()?;
    Ok(record.map(|record| decode_event(&Bytes::from(record))).transpose()?)
}

/// An event by the producer's source and id.
pub(super) fn find_event(
    connection: &Connection,
    memory: &Memory,
    source: &str,
    id: &str,
) -> Result<Option<(Position, Event)>, ReadError> {
    let recent = lock(&memory.ids).recent(ids::hash_of(source, id));
    let seq = ids::find(connection, recent, source, id)?;
    let Some(seq) = seq else { return Ok(None) };
    Ok(event(connection, seq)?.map(|event| (position(seq), event)))
}

/// Outcomes from after the cursor: a row, and how many of its records were read.
pub(super) fn outcomes(
    connection: &Connection,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<OutcomeRecord>, Cursor), ReadError> {
    let (mut seq, mut read) = place(cursor);
    let mut select = connection.prepare_cached("SELECT seq, records FROM outcome WHERE seq >= ?1 ORDER BY seq")?;
    let mut rows = select.query([number(seq)])?;
    let mut records = Vec::new();
    while records.len() < limit
        && let Some(row) = rows.next()?
    {
        let row_seq = row.get::<_, i64>(0)?.unsigned_abs();
        if row_seq != seq {
            (seq, read) = (row_seq, 0);
        }
        let lines = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let skip = usize::try_from(read).unwrap_or(usize::MAX);
        let page = outcome::decode_row(lines, skip, limit - records.len())?;
        read += page.len() as u64;
        records.extend(page);
    }
    Ok((records, Cursor(vec![(seq, read)])))
}

/// Dead letters from after the cursor.
pub(super) fn dead_letters(
    connection: &Connection,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<DeadLetter>, Cursor), ReadError> {
    let (mut seq, _) = place(cursor);
    let mut select = connection.prepare_cached("SELECT seq, record FROM dead WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let mut rows = select.query(params![number(seq), i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let (mut letters, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES_MAX
        && let Some(row) = rows.next()?
    {
        let record: Vec<u8> = row.get(1)?;
        bytes += record.len();
        letters.push(decode_dead_letter(&Bytes::from(record))?);
        seq = row.get::<_, i64>(0)?.unsigned_abs();
    }
    Ok((letters, Cursor(vec![(seq, 0)])))
}

fn place(cursor: Option<Cursor>) -> (u64, u64) {
    cursor.and_then(|cursor| cursor.0.first().copied()).unwrap_or_default()
}

/// The marks on endpoints.
pub(super) fn endpoint_marks(connection: &Connection) -> Result<Vec<EndpointMark>, ReadError> {
    let mut select = connection.prepare_cached("SELECT record FROM endpoint ORDER BY name")?;
    let records = select.query_map((), |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let decode = |record: String| {
        serde_json::from_str(&record)
            .map_err(|error| Error::Damaged { what: "mark of an endpoint", detail: error.to_string() }.into())
    };
    records.into_iter().map(decode).collect()
}
