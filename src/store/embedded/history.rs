//! What an operator reads of the store: events and dead letters in order, what became of an event, what waits.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use super::super::{
    AuditEntry, DeliveryKey, Error, History, Order, Page, PageLimits, Replay, ReplayFrom, Replayed, Scan, ScanCursor,
    ScheduleCursor, SchedulePage, WaitingDelivery, decode_dead_letter, decode_delivery, decode_event, encode_delivery,
};
use super::memory::{Memory, lock};
use super::operation::{Discard, Operation, RecordAudit, RememberSources, ReplayDelivery};
use super::reader::{PAGE_BYTES_MAX, ReadError};
use super::{EmbeddedStore, outcome, position, row_number, scan};
use crate::clock::Timestamp;
use crate::delivery::{DeadLetter, DeliveryId, OutcomeRecord};
use crate::event::{Event, Position};

#[async_trait]
impl History for EmbeddedStore {
    async fn scan_events(
        &self,
        scan: &Scan,
        cursor: Option<ScanCursor>,
        limits: PageLimits,
    ) -> Result<Page<(Position, Event)>, Error> {
        let scan = *scan;
        let read = move |connection: &Connection, _: &Memory| {
            scan::page(connection, scan::EVENTS, &scan, cursor, limits, decoded("an event", decode_event))
        };
        self.shared.reading(read).await
    }

    async fn scan_dead_letters(
        &self,
        scan: &Scan,
        cursor: Option<ScanCursor>,
        limits: PageLimits,
    ) -> Result<Page<(Position, DeadLetter)>, Error> {
        let scan = *scan;
        let read = move |connection: &Connection, _: &Memory| {
            let decode = decoded("a dead letter", decode_dead_letter);
            scan::page(connection, scan::DEAD_LETTERS, &scan, cursor, limits, decode)
        };
        self.shared.reading(read).await
    }

    async fn outcomes_of(&self, events: &[(Position, Timestamp)]) -> Result<Vec<OutcomeRecord>, Error> {
        let wanted: HashSet<i64> = events.iter().filter_map(|(position, _)| row_number(*position)).collect();
        self.shared.reading(move |connection, _| outcomes_of(connection, &wanted)).await
    }

    async fn waiting(&self, deliveries: &[DeliveryKey]) -> Result<Vec<Option<WaitingDelivery>>, Error> {
        let ids: Vec<_> = deliveries.iter().map(|key| key.id.clone()).collect();
        let now = self.now_ms();
        let read = move |connection: &Connection, memory: &Memory| {
            ids.iter().map(|id| waiting(connection, memory, id, now)).collect::<Result<Vec<_>, _>>()
        };
        self.shared.reading(read).await
    }

    async fn schedule(
        &self,
        subscription: Option<&str>,
        after: Option<ScheduleCursor>,
        limit: usize,
    ) -> Result<SchedulePage, Error> {
        let subscription = subscription.map(str::to_owned);
        let now = self.now_ms();
        let read = move |connection: &Connection, memory: &Memory| {
            schedule(connection, memory, subscription.as_deref(), after.as_ref(), limit, now)
        };
        self.shared.reading(read).await
    }

    async fn count_waiting(&self, subscription: Option<&str>) -> Result<u64, Error> {
        let subscription = subscription.map(str::to_owned);
        self.shared.reading(move |connection, _| count_waiting(connection, subscription.as_deref())).await
    }

    async fn dead_letter(&self, id: &DeliveryId) -> Result<Option<(Position, DeadLetter)>, Error> {
        let id = id.clone();
        self.shared.reading(move |connection, _| dead_letter(connection, &id)).await
    }

    async fn replay(&self, replay: Replay) -> Result<Replayed, Error> {
        let Replay { delivery, from, anew, outcome } = replay;
        let letter = match from {
            ReplayFrom::Event => None,
            ReplayFrom::DeadLetter(place) => match row_number(place) {
                Some(seq) => Some(seq),
                None => return Ok(Replayed::Gone),
            },
        };
        let event = row_number(delivery.event.position).unwrap_or_default();
        let (id, subscription) = (delivery.id.as_str().to_owned(), Arc::clone(&delivery.subscription));
        let record = encode_delivery(&delivery);
        let outcome = outcome::encode_lines(&[outcome]);
        self.shared
            .ask(|answer| {
                Operation::Replay(ReplayDelivery::new(id, subscription, record, letter, anew, event, outcome, answer))
            })
            .await
    }

    async fn discard(&self, place: Position, _id: &DeliveryId, outcome: OutcomeRecord) -> Result<bool, Error> {
        let Some(letter) = row_number(place) else { return Ok(false) };
        let event = row_number(outcome.position).unwrap_or_default();
        let outcome = outcome::encode_lines(&[outcome]);
        self.shared.ask(|answer| Operation::Discard(Discard { letter, event, outcome, discarded: false, answer })).await
    }

    async fn record_audit(&self, entry: &AuditEntry) -> Result<(), Error> {
        let record = serde_json::to_string(entry).expect("an entry has string keys only");
        self.shared.ask(|answer| Operation::RecordAudit(RecordAudit { record, answer })).await
    }

    async fn audit_log(&self, cursor: Option<ScanCursor>, limit: usize) -> Result<Page<AuditEntry>, Error> {
        let decode = |seq: i64, record: Vec<u8>| {
            let read = serde_json::from_slice(&record);
            read.map_err(|_| tracing::error!(row = seq, "an entry of the audit log can't be read")).ok()
        };
        let read = move |connection: &Connection, _: &Memory| {
            let (scan, limits) = (Scan::all(Order::NewestFirst), PageLimits::records(limit));
            scan::page(connection, scan::AUDIT, &scan, cursor, limits, decode)
        };
        self.shared.reading(read).await
    }

    async fn remember_sources(&self, names: &[Arc<str>]) -> Result<(), Error> {
        let names = names.to_vec();
        self.shared.ask(|answer| Operation::RememberSources(RememberSources { names, answer })).await
    }

    async fn sources(&self) -> Result<Vec<String>, Error> {
        let read = |connection: &Connection, _: &Memory| {
            let mut select = connection.prepare_cached("SELECT name FROM source ORDER BY name")?;
            Ok(select.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?)
        };
        self.shared.reading(read).await
    }
}

/// Decodes a row's record; one that can't be read is told of.
fn decoded<T>(
    what: &'static str,
    decode: fn(&Bytes) -> Result<T, Error>,
) -> impl Fn(i64, Vec<u8>) -> Option<(Position, T)> {
    move |seq, record| match decode(&Bytes::from(record)) {
        Ok(record) => Some((position(seq), record)),
        Err(error) => {
            tracing::error!(row = seq, %error, "{what} can't be read");
            None
        }
    }
}

/// What was recorded of these events: the rows that have something of their blocks, without what is of others.
fn outcomes_of(connection: &Connection, wanted: &HashSet<i64>) -> Result<Vec<OutcomeRecord>, ReadError> {
    let blocks: BTreeSet<i64> = wanted.iter().map(|seq| outcome::block_of(*seq)).collect();
    let mut select = connection.prepare_cached("SELECT outcome FROM outcome_of WHERE block = ?1")?;
    let mut rows: BTreeSet<i64> = BTreeSet::new();
    for block in blocks {
        let found = select.query_map([block], |row| row.get(0))?;
        rows.extend(found.collect::<Result<Vec<i64>, _>>()?);
    }
    let mut select = connection.prepare_cached("SELECT records FROM outcome WHERE seq = ?1")?;
    let mut records = Vec::new();
    for row in rows {
        // It may have been trimmed.
        let lines: Option<Vec<u8>> = select.query_row([row], |row| row.get(0)).optional()?;
        let Some(lines) = lines else { continue };
        let all = outcome::decode_row(&lines, 0, usize::MAX)?;
        records.extend(
            all.into_iter().filter(|record| row_number(record.position).is_some_and(|seq| wanted.contains(&seq))),
        );
    }
    Ok(records)
}

fn waiting(
    connection: &Connection,
    memory: &Memory,
    id: &DeliveryId,
    now: i64,
) -> Result<Option<WaitingDelivery>, ReadError> {
    let row: Option<(i64, i64, Vec<u8>)> = connection
        .prepare_cached("SELECT key, due_ms, record FROM delivery WHERE id = ?1")?
        .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((key, due_ms, record)) = row else { return Ok(None) };
    let held_until = lock(&memory.schedule).held_until();
    Ok(Some(waiting_delivery(&held_until, now, key, due_ms, record)?))
}

fn waiting_delivery(
    held_until: &HashMap<i64, i64>,
    now: i64,
    key: i64,
    due_ms: i64,
    record: Vec<u8>,
) -> Result<WaitingDelivery, ReadError> {
    let held = held_until.get(&key).copied();
    let due = Timestamp::from_millis(held.unwrap_or(due_ms).max(0).unsigned_abs());
    let held = held.is_some_and(|until| until > now);
    Ok(WaitingDelivery { due, held, delivery: decode_delivery(&Bytes::from(record))? })
}

fn count_waiting(connection: &Connection, subscription: Option<&str>) -> Result<u64, ReadError> {
    let count: i64 = match subscription {
        None => connection.prepare_cached("SELECT count(*) FROM delivery")?.query_row([], |row| row.get(0))?,
        Some(subscription) => connection
            .prepare_cached("SELECT count(*) FROM delivery WHERE subscription = ?1")?
            .query_row([subscription], |row| row.get(0))?,
    };
    Ok(count.unsigned_abs())
}

/// A page of the schedule, soonest first. A delivery that is held falls due when its lease ends, and stands earlier on disk.
pub(super) fn schedule(
    connection: &Connection,
    memory: &Memory,
    subscription: Option<&str>,
    after: Option<&ScheduleCursor>,
    limit: usize,
    now: i64,
) -> Result<SchedulePage, ReadError> {
    let held_until = lock(&memory.schedule).held_until();
    let after = match after {
        None => (i64::MIN, i64::MIN),
        Some(ScheduleCursor { due_ms, member, .. }) => {
            (i64::try_from(*due_ms).unwrap_or(i64::MAX), member.parse().unwrap_or(i64::MAX))
        }
    };
    // One more, to know whether there is one; and those that are held stand here, too.
    let rows = i64::try_from(limit.saturating_add(held_until.len()).saturating_add(1)).unwrap_or(i64::MAX);
    let of_row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let (order, (due_ms, key)) = ("(due_ms, key) > (?1, ?2) ORDER BY due_ms, key LIMIT ?3", after);
    let mut due: Vec<(i64, i64)> = match subscription {
        None => connection
            .prepare_cached(&format!("SELECT due_ms, key FROM delivery WHERE {order}"))?
            .query_map([due_ms, key, rows], of_row)?
            .collect::<Result<_, _>>()?,
        Some(subscription) => connection
            .prepare_cached(&format!("SELECT due_ms, key FROM delivery WHERE subscription = ?4 AND {order}"))?
            .query_map(rusqlite::params![due_ms, key, rows, subscription], of_row)?
            .collect::<Result<_, _>>()?,
    };
    due.retain(|(_, key)| !held_until.contains_key(key));
    let mut select = connection.prepare_cached("SELECT subscription FROM delivery WHERE key = ?1")?;
    for (key, until) in &held_until {
        let of: Option<String> = select.query_row([key], |row| row.get(0)).optional()?;
        let is_of = of.is_some_and(|of| subscription.is_none_or(|subscription| of == subscription));
        due.extend(Some((*until, *key)).filter(|place| is_of && *place > after));
    }
    due.sort_unstable();
    let mut is_last = due.len() <= limit;
    due.truncate(limit);
    let mut select = connection.prepare_cached("SELECT record FROM delivery WHERE key = ?1")?;
    let (mut items, mut bytes, mut reached) = (Vec::with_capacity(due.len()), 0, None);
    for (number, (due_ms, key)) in due.iter().enumerate() {
        reached = Some((*due_ms, *key));
        // Between the two queries one may have been settled.
        let record: Option<Vec<u8>> = select.query_row([key], |row| row.get(0)).optional()?;
        let Some(record) = record else { continue };
        bytes += record.len();
        items.push(waiting_delivery(&held_until, now, *key, *due_ms, record)?);
        if bytes >= PAGE_BYTES_MAX && number + 1 < due.len() {
            is_last = false;
            break;
        }
    }
    let place = |(due_ms, key): (i64, i64)| ScheduleCursor {
        due_ms: due_ms.max(0).unsigned_abs(),
        is_lease: held_until.contains_key(&key),
        member: key.to_string(),
    };
    Ok(SchedulePage { items, next: reached.filter(|_| !is_last).map(place) })
}

fn dead_letter(connection: &Connection, id: &DeliveryId) -> Result<Option<(Position, DeadLetter)>, ReadError> {
    let row: Option<(i64, Vec<u8>)> = connection
        .prepare_cached("SELECT seq, record FROM dead WHERE delivery = ?1 ORDER BY seq DESC LIMIT 1")?
        .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    row.map(|(seq, record)| Ok((position(seq), decode_dead_letter(&Bytes::from(record))?))).transpose()
}
