//! Pages of a table that grows at its end: by number, and from and to a time.
//!
//! Times rise with the numbers, unless the machine's clock was set back between two starts; then a page may
//! begin or end a little off at that place.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::{Order, Page, PageLimits, Scan, ScanCursor};
use super::reader::ReadError;
use super::{millis, number, position};

/// A table to read pages of.
#[derive(Clone, Copy)]
pub(super) struct Table {
    name: &'static str,
    /// When a row was written, in milliseconds.
    at: &'static str,
}

pub(super) const EVENTS: Table = Table { name: "event", at: "accepted_ms" };
pub(super) const DEAD_LETTERS: Table = Table { name: "dead", at: "at_ms" };
pub(super) const AUDIT: Table = Table { name: "audit", at: "at_ms" };

/// Reads a page. `decode` makes something of a record, or leaves it out; `bytes` of it count.
pub(super) fn page<T>(
    connection: &Connection,
    table: Table,
    scan: &Scan,
    cursor: Option<ScanCursor>,
    limits: PageLimits,
    decode: impl Fn(i64, Vec<u8>) -> Option<T>,
) -> Result<Page<T>, ReadError> {
    let Table { name, .. } = table;
    let last = |cursor: ScanCursor| number(cursor.last.major);
    // Inclusive on both sides.
    let (mut from, mut to) = (
        first_since(connection, table, millis(scan.since))?,
        match (cursor, scan.until) {
            (Some(cursor), _) => number(cursor.bound),
            (None, Some(until)) => first_since(connection, table, millis(until))? - 1,
            (None, None) => {
                connection.query_row(&format!("SELECT coalesce(max(seq), 0) FROM {name}"), (), |row| row.get(0))?
            }
        },
    );
    let bound = to.max(0).unsigned_abs();
    let direction = match scan.order {
        Order::OldestFirst => {
            from = cursor.map_or(from, |cursor| last(cursor) + 1);
            "ASC"
        }
        Order::NewestFirst => {
            to = cursor.map_or(to, |cursor| last(cursor) - 1);
            "DESC"
        }
    };
    let query = format!("SELECT seq, record FROM {name} WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq {direction}");
    let mut select = connection.prepare_cached(&query)?;
    let mut rows = select.query([from, to])?;
    let (mut items, mut bytes, mut read) = (Vec::new(), 0, 0);
    let mut last = None;
    while let Some(row) = rows.next()? {
        if read > 0 && (read >= limits.records || bytes >= limits.bytes) {
            // There is this one more.
            let next = last.map(|seq| ScanCursor { last: position(seq), bound });
            return Ok(Page { items, next, bound });
        }
        let (seq, record) = (row.get(0)?, record_of(row)?);
        (last, bytes, read) = (Some(seq), bytes + record.len(), read + 1);
        items.extend(decode(seq, record));
    }
    Ok(Page { items, next: None, bound })
}

fn record_of(row: &Row<'_>) -> Result<Vec<u8>, rusqlite::Error> {
    Ok(row.get_ref(1)?.as_bytes().map_err(rusqlite::Error::from)?.to_vec())
}

/// The number of the first row written at that time or later, or one in the gap before it; one past the last when there is none.
fn first_since(connection: &Connection, Table { name, at }: Table, since_ms: i64) -> Result<i64, rusqlite::Error> {
    let ends = format!("SELECT coalesce(min(seq), 1), coalesce(max(seq), 0) + 1 FROM {name}");
    let (mut low, mut high): (i64, i64) = connection.query_row(&ends, (), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let query = format!("SELECT seq, {at} FROM {name} WHERE seq >= ?1 ORDER BY seq LIMIT 1");
    let mut select = connection.prepare_cached(&query)?;
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<(i64, i64)> =
            select.query_row(params![middle], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match found {
            Some((seq, at_ms)) if at_ms < since_ms => low = seq + 1,
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::store::embedded::schema;

    /// Rows 3, 4, 6, 7, … 20 without every fifth, each written at ten times its number.
    fn database() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::prepare(&mut connection).unwrap();
        for seq in (3..=20).filter(|seq| seq % 5 != 0) {
            connection.execute("INSERT INTO audit VALUES (?1, ?1 * 10, 'abc')", [seq]).unwrap();
        }
        connection
    }

    fn all(connection: &Connection, scan: Scan, limits: PageLimits) -> Vec<i64> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = page(connection, AUDIT, &scan, cursor, limits, |seq, _| Some(seq)).unwrap();
            assert!(page.items.len() <= limits.records);
            all.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                return all;
            }
        }
    }

    #[test]
    fn the_first_row_since_a_time_is_found_between_gaps() {
        let connection = database();
        // Before it, or in the gap before it, is as good: no row is between.
        for (since, last_before, first) in
            [(0, 0, 3), (30, 2, 3), (31, 3, 4), (41, 4, 6), (51, 4, 6), (190, 18, 19), (191, 19, 20)]
        {
            let found = first_since(&connection, AUDIT, since).unwrap();
            assert!(found > last_before && found <= first, "{since}: {found}");
        }
        connection.execute("DELETE FROM audit", ()).unwrap();
        assert_eq!(first_since(&connection, AUDIT, 5).unwrap(), 1);
    }

    #[test]
    fn pages_of_any_size_in_either_order_give_every_row_of_the_time_once() {
        let connection = database();
        let time = |milliseconds| Timestamp::from_millis(milliseconds);
        for (since, until, expected) in [
            (0, None, vec![3, 4, 6, 7, 8, 9, 11, 12, 13, 14, 16, 17, 18, 19]),
            (70, Some(120), vec![7, 8, 9, 11]),
            (71, Some(121), vec![8, 9, 11, 12]),
            (300, None, vec![]),
            (0, Some(30), vec![]),
        ] {
            for (records, bytes) in [(1, 100), (2, 100), (3, 3), (100, 7), (100, 1 << 20)] {
                let scan = |order| Scan { since: time(since), until: until.map(time), order };
                let limits = PageLimits { records, bytes };
                assert_eq!(all(&connection, scan(Order::OldestFirst), limits), expected);
                let backward: Vec<_> = expected.iter().rev().copied().collect();
                assert_eq!(all(&connection, scan(Order::NewestFirst), limits), backward);
            }
        }
    }

    #[test]
    fn a_scan_ends_with_what_was_there_when_it_began() {
        let connection = database();
        let scan = Scan::all(Order::OldestFirst);
        let first = page(&connection, AUDIT, &scan, None, PageLimits::records(2), |seq, _| Some(seq)).unwrap();
        connection.execute("INSERT INTO audit VALUES (21, 210, 'late')", ()).unwrap();
        let limits = PageLimits::records(100);
        let rest = page(&connection, AUDIT, &scan, first.next, limits, |seq, _| Some(seq)).unwrap();
        assert_eq!((rest.items.last(), rest.next), (Some(&19), None));
    }
}
