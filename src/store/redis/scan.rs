//! Pages of a stream over all partitions in one order: by the milliseconds of the entries' ids, then by partition.
//!
//! A cursor is the place of the last entry in that order, and says for each partition where to go on. A page gives
//! only what no partition can have anything before.

use bytes::Bytes;
use futures_util::future::try_join_all;
use redis::Value;

use super::fault::Fault;
use super::keys::PartitionKeys;
use super::reply::{self, Entry, StreamId};
use super::{Shared, scripts};
use crate::event::Position;
use crate::store::{Error, Order, Page, PageLimits, Scan, ScanCursor};

/// A place in the order over all partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    milliseconds: u64,
    partition: u16,
    sequence: u64,
}

impl Place {
    fn of(position: Position) -> Self {
        Self { milliseconds: position.major, partition: position.partition, sequence: position.minor }
    }

    fn position(self) -> Position {
        Position { partition: self.partition, major: self.milliseconds, minor: self.sequence }
    }
}

/// One partition's part of a page.
struct Part {
    now: u64,
    /// A limit ended it: there may be more after its last entry.
    has_more: bool,
    entries: Vec<(Place, Entry)>,
}

/// Reads a page of each partition's stream `key`; gives the bytes of `field`.
pub(super) async fn page(
    shared: &Shared,
    key: fn(&PartitionKeys) -> &String,
    field: &[u8],
    scan: &Scan,
    cursor: Option<ScanCursor>,
    limits: PageLimits,
) -> Result<Page<(Position, Bytes)>, Error> {
    let until = scan.until.map(|until| until.as_millis());
    // Both bounds are inclusive.
    let Some(mut latest) = until.map_or(Some(u64::MAX), |until| until.checked_sub(1)) else {
        return Ok(Page { items: Vec::new(), next: None, bound: 0 });
    };
    if let Some(cursor) = cursor {
        latest = latest.min(cursor.bound);
    }
    let last = cursor.map(|cursor| Place::of(cursor.last));
    let share = PageLimits {
        records: limits.records.div_ceil(shared.partitions.len()).max(1),
        bytes: limits.bytes / shared.partitions.len(),
    };
    let calls = (0_u16..).zip(&shared.partitions).map(|(partition, keys)| {
        let (command, from, to) = range(scan, latest, last, partition);
        read_part(shared, key(keys), partition, command, (from, to), share)
    });
    let parts = try_join_all(calls).await?;
    if cursor.is_none() && scan.order == Order::OldestFirst {
        // What is stored from now on belongs to another scan: one that stores while it reads must come to an end.
        latest = latest.min(parts.iter().map(|part| part.now).min().unwrap_or(latest));
    }
    let (entries, is_end) = merge(parts, scan.order, latest, limits);
    let next = entries.last().filter(|_| !is_end).map(|(place, _)| place.position());
    let items = entries.into_iter().map(|(place, entry)| (place.position(), entry.field(field).unwrap_or_default()));
    Ok(Page { items: items.collect(), next: next.map(|last| ScanCursor { last, bound: latest }), bound: latest })
}

/// What is left to read of a partition: the command and its bounds.
fn range(scan: &Scan, latest: u64, last: Option<Place>, partition: u16) -> (&'static str, String, String) {
    let since = scan.since.as_millis();
    match scan.order {
        Order::OldestFirst => {
            let from = match last {
                None => since.to_string(),
                Some(last) if partition < last.partition => format!("({}-{}", last.milliseconds, u64::MAX),
                Some(last) if partition == last.partition => format!("({}-{}", last.milliseconds, last.sequence),
                Some(last) => last.milliseconds.to_string(),
            };
            ("XRANGE", from, latest.to_string())
        }
        Order::NewestFirst => {
            let from = match last {
                None => latest.to_string(),
                Some(last) if partition < last.partition => last.milliseconds.to_string(),
                Some(last) if partition == last.partition => format!("({}-{}", last.milliseconds, last.sequence),
                Some(last) => format!("({}-0", last.milliseconds),
            };
            ("XREVRANGE", from, since.to_string())
        }
    }
}

async fn read_part(
    shared: &Shared,
    key: &str,
    partition: u16,
    command: &'static str,
    (from, to): (String, String),
    limits: PageLimits,
) -> Result<Part, Fault> {
    let run = shared.link.run(&scripts::SCAN, |script| {
        script.arg(1).arg(key).arg(command).arg(&from).arg(&to).arg(limits.records).arg(limits.bytes);
    });
    let mut answer = reply::array(run.await?)?.into_iter();
    let mut number = || reply::count(&answer.next().unwrap_or(Value::Nil));
    let (now, has_more) = (number()?, number()? == 1);
    let entries = reply::entries(Value::Array(answer.collect()))?;
    let place = |id: StreamId| Place { milliseconds: id.milliseconds, partition, sequence: id.sequence };
    Ok(Part { now, has_more, entries: entries.into_iter().map(|entry| (place(entry.id), entry)).collect() })
}

/// Puts the parts in order, and says whether that is all there is. What comes after the end of a part that has more is
/// left for a later page: something of that partition may come before it.
fn merge(parts: Vec<Part>, order: Order, latest: u64, limits: PageLimits) -> (Vec<(Place, Entry)>, bool) {
    let comes_before = |a: &Place, b: &Place| match order {
        Order::OldestFirst => a.cmp(b),
        Order::NewestFirst => b.cmp(a),
    };
    let ends = parts.iter().filter(|part| part.has_more).filter_map(|part| part.entries.last());
    let end = ends.map(|(place, _)| *place).min_by(comes_before);
    let mut entries: Vec<_> = parts.into_iter().flat_map(|part| part.entries).collect();
    entries.sort_by(|(a, _), (b, _)| comes_before(a, b));
    let mut is_end = true;
    if let Some(end) = end {
        entries.retain(|(place, _)| comes_before(place, &end).is_le());
        is_end = false;
    }
    let all = entries.len();
    entries.retain(|(place, _)| place.milliseconds <= latest);
    if entries.len() < all {
        is_end = true; // Whatever is left is later still.
    }
    let mut bytes = 0;
    let fits = entries.iter().take(limits.records.max(1)).take_while(|(_, entry)| {
        let fits = bytes < limits.bytes.max(1);
        bytes += entry.fields.iter().map(|(_, value)| value.len()).sum::<usize>();
        fits
    });
    let fits = fits.count();
    is_end &= fits == entries.len();
    entries.truncate(fits);
    (entries, is_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn part(partition: u16, has_more: bool, ids: &[(u64, u64)]) -> Part {
        let entry = |&(milliseconds, sequence): &(u64, u64)| {
            let id = StreamId { milliseconds, sequence };
            (Place { milliseconds, partition, sequence }, Entry { id, fields: vec![] })
        };
        Part { now: 100, has_more, entries: ids.iter().map(entry).collect() }
    }

    fn places(merged: &[(Place, Entry)]) -> Vec<(u64, u16, u64)> {
        merged.iter().map(|(place, _)| (place.milliseconds, place.partition, place.sequence)).collect()
    }

    #[test]
    fn a_page_gives_nothing_that_another_partition_may_have_something_before() {
        let limits = PageLimits::records(10);
        let parts = vec![part(0, true, &[(1, 0), (4, 0)]), part(1, false, &[(1, 0), (1, 1), (9, 0)])];
        let (merged, is_end) = merge(parts, Order::OldestFirst, 50, limits);
        assert_eq!((places(&merged), is_end), (vec![(1, 0, 0), (1, 1, 0), (1, 1, 1), (4, 0, 0)], false));
        let parts = vec![part(0, true, &[(9, 0), (4, 0)]), part(1, false, &[(7, 0), (3, 0)])];
        let (merged, is_end) = merge(parts, Order::NewestFirst, 50, limits);
        assert_eq!((places(&merged), is_end), (vec![(9, 0, 0), (7, 1, 0), (4, 0, 0)], false));
        let parts = vec![part(0, false, &[(1, 0), (60, 0)]), part(1, false, &[])];
        let (merged, is_end) = merge(parts, Order::OldestFirst, 50, limits);
        assert_eq!((places(&merged), is_end), (vec![(1, 0, 0)], true));
        let parts = vec![part(0, false, &[(1, 0), (2, 0), (3, 0)])];
        let (merged, is_end) = merge(parts, Order::OldestFirst, 50, PageLimits::records(2));
        assert_eq!((merged.len(), is_end), (2, false));
    }

    #[test]
    fn a_cursor_says_for_each_partition_where_to_go_on() {
        let last = Some(Place { milliseconds: 7, partition: 1, sequence: 3 });
        let scan = |order| Scan { since: Timestamp::from_millis(2), until: None, order };
        let ranges = |order| [0, 1, 2].map(|partition| range(&scan(order), 9, last, partition));
        let max = u64::MAX;
        assert_eq!(
            ranges(Order::OldestFirst).map(|(_, from, to)| (from, to)),
            [format!("(7-{max}"), "(7-3".into(), "7".into()].map(|from: String| (from, "9".to_owned()))
        );
        assert_eq!(
            ranges(Order::NewestFirst).map(|(_, from, to)| (from, to)),
            ["7", "(7-3", "(7-0"].map(|from| (from.to_owned(), "2".to_owned()))
        );
    }
}
