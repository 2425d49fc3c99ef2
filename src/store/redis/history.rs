//! What an operator reads of the store: events and dead letters in order, what became of an event, what waits.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use redis::Value;

use super::fault::Fault;
use super::keys::PartitionKeys;
use super::link::CALL_TIME_MAX;
use super::reply::{self, StreamId};
use super::{RedisStore, Shared, audit, replay, scan, schedule};
use crate::clock::Timestamp;
use crate::delivery::{DeadLetter, DeliveryId, OutcomeRecord};
use crate::event::{Event, Position};
use crate::store::{
    AuditEntry, DeliveryKey, Error, History, Order, Page, PageLimits, Replay, Replayed, Scan, ScanCursor,
    ScheduleCursor, SchedulePage, WaitingDelivery, decode_dead_letter, decode_event,
};

/// An outcome that was written no later than this after its event is found by the time alone; for a later one the
/// settlement writes down where it is. A stream of a busy partition has a few mebibytes of outcomes in this time.
pub(super) const SETTLED_SOON_MS: u64 = 2_000;
/// How many entries of the outcomes' stream are read with one call.
const OUTCOME_ENTRIES: usize = 32;

#[async_trait]
impl History for RedisStore {
    async fn scan_events(
        &self,
        scan: &Scan,
        cursor: Option<ScanCursor>,
        limits: PageLimits,
    ) -> Result<Page<(Position, Event)>, Error> {
        let page = scan::page(&self.shared, |keys| &keys.events, b"e", scan, cursor, limits).await?;
        Ok(decoded(page, "an event", decode_event))
    }

    async fn scan_dead_letters(
        &self,
        scan: &Scan,
        cursor: Option<ScanCursor>,
        limits: PageLimits,
    ) -> Result<Page<(Position, DeadLetter)>, Error> {
        let page = scan::page(&self.shared, |keys| &keys.dead, b"d", scan, cursor, limits).await?;
        Ok(decoded(page, "a dead letter", decode_dead_letter))
    }

    async fn outcomes_of(&self, events: &[(Position, Timestamp)]) -> Result<Vec<OutcomeRecord>, Error> {
        let partitions = (0_u16..).zip(&self.shared.partitions).map(|(partition, keys)| {
            let of_partition = events.iter().map(|(position, _)| *position);
            let wanted: BTreeSet<_> = of_partition.filter(|position| position.partition == partition).collect();
            outcomes_in(&self.shared, keys, wanted)
        });
        Ok(try_join_all(partitions).await?.into_iter().flatten().collect())
    }

    async fn waiting(&self, deliveries: &[DeliveryKey]) -> Result<Vec<Option<WaitingDelivery>>, Error> {
        Ok(try_join_all(deliveries.iter().map(|key| schedule::waiting(&self.shared, key))).await?)
    }

    async fn schedule(
        &self,
        subscription: Option<&str>,
        after: Option<ScheduleCursor>,
        limit: usize,
    ) -> Result<SchedulePage, Error> {
        schedule::listed(&self.shared, subscription, after.as_ref(), limit).await
    }

    async fn count_waiting(&self, subscription: Option<&str>) -> Result<u64, Error> {
        schedule::count(&self.shared, subscription).await
    }

    async fn dead_letter(&self, id: &DeliveryId) -> Result<Option<(Position, DeadLetter)>, Error> {
        let numbered = (0_u16..).zip(&self.shared.partitions);
        let looks = numbered.map(|(partition, keys)| letter_in(&self.shared, partition, keys, id));
        let (mut found, mut is_indexed) = (None, true);
        for (letter, complete) in try_join_all(looks).await? {
            found = found.or(letter);
            is_indexed &= complete;
        }
        if found.is_some() || is_indexed {
            return Ok(found);
        }
        // Some were written by a program that did not write down where they are.
        let (scan, mut cursor) = (Scan::all(Order::NewestFirst), None);
        loop {
            let page = self.scan_dead_letters(&scan, cursor, PageLimits::records(1_000)).await?;
            if let Some(found) = page.items.into_iter().find(|(_, letter)| letter.delivery.id == *id) {
                return Ok(Some(found));
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(None);
            }
        }
    }

    async fn replay(&self, replay: Replay) -> Result<Replayed, Error> {
        self.shared.refuse_when_closed()?;
        replay::replay(&self.shared, replay).await
    }

    async fn discard(&self, place: Position, id: &DeliveryId, outcome: OutcomeRecord) -> Result<bool, Error> {
        self.shared.refuse_when_closed()?;
        replay::discard(&self.shared, place, id, &outcome).await
    }

    async fn record_audit(&self, entry: &AuditEntry) -> Result<(), Error> {
        self.shared.refuse_when_closed()?;
        audit::record(&self.shared, entry).await
    }

    async fn audit_log(&self, cursor: Option<ScanCursor>, limit: usize) -> Result<Page<AuditEntry>, Error> {
        audit::page(&self.shared, cursor, limit).await
    }

    async fn remember_sources(&self, names: &[Arc<str>]) -> Result<(), Error> {
        self.shared.refuse_when_closed()?;
        audit::remember_sources(&self.shared, names).await
    }

    async fn sources(&self) -> Result<Vec<String>, Error> {
        audit::sources(&self.shared).await
    }
}

/// What can be read of a page.
fn decoded<T>(
    page: Page<(Position, Bytes)>,
    what: &str,
    decode: fn(&Bytes) -> Result<T, Error>,
) -> Page<(Position, T)> {
    let items = page.items.into_iter().filter_map(|(position, record)| match decode(&record) {
        Ok(record) => Some((position, record)),
        Err(error) => {
            tracing::error!(entry = %position, %error, "{what} can't be read");
            None
        }
    });
    Page { items: items.collect(), next: page.next, bound: page.bound }
}

/// The dead letter of a delivery, if it is in this partition; and whether every dead letter here is written down by its delivery.
async fn letter_in(
    shared: &Shared,
    partition: u16,
    keys: &PartitionKeys,
    id: &DeliveryId,
) -> Result<(Option<(Position, DeadLetter)>, bool), Fault> {
    let score = shared.link.call(redis::cmd("ZSCORE").arg(&keys.letters).arg(id.as_str()), CALL_TIME_MAX).await?;
    if score == Value::Nil {
        let count = async |name: &str, key: &str| {
            reply::count(&shared.link.call(redis::cmd(name).arg(key), CALL_TIME_MAX).await?)
        };
        let (indexed, all) = (count("ZCARD", &keys.letters).await?, count("XLEN", &keys.dead).await?);
        return Ok((None, indexed >= all));
    }
    let milliseconds = schedule::whole(&reply::text(score)?)?;
    let mut command = redis::cmd("XRANGE");
    command.arg(&keys.dead).arg(milliseconds).arg(milliseconds);
    for entry in reply::entries(shared.link.call(&command, CALL_TIME_MAX).await?)? {
        if let Ok(letter) = decode_dead_letter(&entry.field(b"d").unwrap_or_default())
            && letter.delivery.id == *id
        {
            let place = Position { partition, major: entry.id.milliseconds, minor: entry.id.sequence };
            return Ok((Some((place, letter)), true));
        }
    }
    Ok((None, true))
}

/// Spans of time that the outcomes of events accepted at these times, in order, may be in.
fn windows(accepted: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut windows: Vec<(u64, u64)> = Vec::new();
    for milliseconds in accepted {
        let end = milliseconds.saturating_add(SETTLED_SOON_MS);
        match windows.last_mut() {
            Some(last) if milliseconds <= last.1 => last.1 = end,
            Some(_) | None => windows.push((milliseconds, end)),
        }
    }
    windows
}

/// What a partition has recorded of its events `wanted`.
async fn outcomes_in(
    shared: &Shared,
    keys: &PartitionKeys,
    wanted: BTreeSet<Position>,
) -> Result<Vec<OutcomeRecord>, Fault> {
    let mut found: BTreeMap<StreamId, Vec<OutcomeRecord>> = BTreeMap::new();
    let accepted: HashSet<u64> = wanted.iter().map(|position| position.major).collect();
    for (from, to) in windows(wanted.iter().map(|position| position.major)) {
        let mut start = from.to_string();
        loop {
            let mut command = redis::cmd("XRANGE");
            command.arg(&keys.outcomes).arg(&start).arg(to).arg("COUNT").arg(OUTCOME_ENTRIES);
            let entries = reply::entries(shared.link.call(&command, CALL_TIME_MAX).await?)?;
            let is_end = entries.len() < OUTCOME_ENTRIES;
            for entry in entries {
                start = format!("({}", entry.id);
                found.insert(entry.id, records_of(&entry, &wanted));
            }
            if is_end {
                break;
            }
        }
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(&keys.later).arg(from).arg(to);
        let mut later = BTreeSet::new();
        for member in reply::array(shared.link.call(&command, CALL_TIME_MAX).await?)? {
            let member = reply::text(member)?;
            if let Some((event, entry)) = member.split_once(':')
                && event.parse().is_ok_and(|event: u64| accepted.contains(&event))
                && let Some(id) = StreamId::parse(entry.as_bytes())
                && !found.contains_key(&id)
            {
                later.insert(id);
            }
        }
        for id in later {
            let mut command = redis::cmd("XRANGE");
            command.arg(&keys.outcomes).arg(id.to_string()).arg(id.to_string());
            for entry in reply::entries(shared.link.call(&command, CALL_TIME_MAX).await?)? {
                found.insert(entry.id, records_of(&entry, &wanted));
            }
        }
    }
    Ok(found.into_values().flatten().collect())
}

/// The records of an entry that are about the events `wanted`.
fn records_of(entry: &reply::Entry, wanted: &BTreeSet<Position>) -> Vec<OutcomeRecord> {
    let lines = entry.field(b"o").unwrap_or_default();
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let records = lines.filter_map(|line| match serde_json::from_slice::<OutcomeRecord>(line) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::error!(entry = %entry.id, column = error.column(), "an outcome can't be read");
            None
        }
    });
    records.filter(|record| wanted.contains(&record.position)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_accepted_one_after_the_other_share_a_window() {
        assert_eq!(windows([].into_iter()), []);
        assert_eq!(windows([5].into_iter()), [(5, 2_005)]);
        assert_eq!(windows([5, 6, 2_000, 9_000].into_iter()), [(5, 4_000), (9_000, 11_000)]);
    }
}
