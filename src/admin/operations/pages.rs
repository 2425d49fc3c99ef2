//! Through many records of which some are wanted, a bounded step at a time.

use std::pin::Pin;

use crate::event::Position;
use crate::store::{self, Page, PageLimits, ScanCursor};

/// How many records one step looks at. It may find nothing among them, and then there is a cursor to go on from.
pub const LOOKED_AT_MAX: usize = 5_000;

/// How many are read at a time.
const READ_AT_ONCE: usize = 500;

/// What a step has found.
pub struct Found<T> {
    /// What was wanted.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next: Option<ScanCursor>,
}

/// A page that is being read.
type Reading<'s, T> = Pin<Box<dyn Future<Output = Result<Page<(Position, T)>, store::Error>> + Send + 's>>;

/// Reads on from `cursor` until `limit` records were taken, or enough was looked at. `take` gives what is wanted of a record.
pub async fn find<'s, T, U>(
    read: impl Fn(Option<ScanCursor>, PageLimits) -> Reading<'s, T>,
    mut cursor: Option<ScanCursor>,
    limit: usize,
    mut take: impl FnMut(Position, T) -> Option<U>,
) -> Result<Found<U>, store::Error> {
    let (mut items, mut looked_at) = (Vec::new(), 0);
    loop {
        let page = read(cursor, PageLimits::records(READ_AT_ONCE)).await?;
        let bound = page.bound;
        let mut records = page.items.into_iter();
        while let Some((place, record)) = records.next() {
            looked_at += 1;
            items.extend(take(place, record));
            if items.len() >= limit {
                let is_last = records.len() == 0 && page.next.is_none();
                let next = (!is_last).then_some(ScanCursor { last: place, bound });
                return Ok(Found { items, next });
            }
        }
        cursor = page.next;
        if cursor.is_none() || looked_at >= LOOKED_AT_MAX {
            return Ok(Found { items, next: cursor });
        }
    }
}
