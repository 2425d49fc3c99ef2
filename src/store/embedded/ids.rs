//! Which event has which id: for duplicates, and for look-up.
//!
//! An index in the order of ids would rewrite a page for each event whose id is random. So the ids of
//! the newest events are in memory (the events themselves are their record on disk), and those of
//! older ones in segments that are written once, at the end of the database, and go away as a whole.
//! A filter in memory tells nearly always which segments of the dedupe window not to look into.

use std::collections::{HashMap, VecDeque};

use rusqlite::{Connection, OptionalExtension, params};

/// From how many events on their ids become a segment.
const SEGMENT_EVENTS: usize = 16_384;
/// A segment's ids are in so many rows, by the highest bits of their hashes, so that a look reads one page.
const BUCKET_BITS: u32 = 6;
const BUCKETS: i64 = 1 << BUCKET_BITS;
/// An entry of a row: the hash, and the event's number as a distance from the segment's first.
const ENTRY_BYTES: usize = 12;
/// Ids for each block of a filter: sixteen bits for each id.
const FILTER_BLOCK_IDS: usize = 32;

/// The ids of the newest events, and filters for the segments of the dedupe window.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// The newest event for each hash.
    recent: HashMap<u64, i64>,
    /// The same in the order of events; also of hashes that came twice.
    entries: Vec<(u64, i64)>,
    /// Oldest first.
    filters: VecDeque<Filter>,
    next_segment: i64,
}

/// A blocked Bloom filter: it may say yes for an id that is not there, never no for one that is.
#[derive(Debug)]
struct Filter {
    segment: i64,
    /// When the segment was written: its events were accepted before.
    written_ms: i64,
    /// Blocks of a cache line each; their number is a power of two.
    blocks: Box<[[u64; 8]]>,
}

impl Filter {
    fn new(segment: i64, written_ms: i64, hashes: impl ExactSizeIterator<Item = u64>) -> Self {
        let blocks = hashes.len().div_ceil(FILTER_BLOCK_IDS).next_power_of_two();
        let mut filter = Self { segment, written_ms, blocks: vec![[0; 8]; blocks].into_boxed_slice() };
        for hash in hashes {
            let block = filter.block_of(hash);
            for (word, bit) in bits_of(hash) {
                filter.blocks[block][word] |= bit;
            }
        }
        filter
    }

    fn may_have(&self, hash: u64) -> bool {
        let block = &self.blocks[self.block_of(hash)];
        bits_of(hash).into_iter().all(|(word, bit)| block[word] & bit != 0)
    }

    fn block_of(&self, hash: u64) -> usize {
        // The bits above those that choose within a block.
        (hash >> 36) as usize & (self.blocks.len() - 1)
    }
}

/// Four bits within a block: its words, and the bit in each.
fn bits_of(hash: u64) -> [(usize, u64); 4] {
    [0, 9, 18, 27].map(|shift| {
        let bit = (hash >> shift) & 511;
        ((bit >> 6) as usize, 1 << (bit & 63))
    })
}

/// FNV-1a with a finisher that spreads it over all bits; stored, so it stays as it is.
pub(super) fn hash_of(source: &str, id: &str) -> u64 {
    let hash = source
        .bytes()
        .chain([0xff])
        .chain(id.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

impl Ids {
    /// Reads what is not in segments yet, and the segments that were written after `since_ms`.
    pub(super) fn read(connection: &Connection, since_ms: i64) -> Result<Self, rusqlite::Error> {
        let mut ids = Self::default();
        let mut indexed_to = 0;
        let mut segments = connection.prepare("SELECT segment, last_seq, written_ms FROM segment ORDER BY segment")?;
        let mut rows = segments.query(())?;
        while let Some(row) = rows.next()? {
            let (segment, written_ms) = (row.get(0)?, row.get(2)?);
            (ids.next_segment, indexed_to) = (segment + 1, row.get(1)?);
            if written_ms >= since_ms {
                let hashes = segment_hashes(connection, segment)?;
                ids.filters.push_back(Filter::new(segment, written_ms, hashes.into_iter()));
            }
        }
        let mut events = connection.prepare("SELECT seq, source, id FROM event WHERE seq > ?1 ORDER BY seq")?;
        let mut rows = events.query([indexed_to])?;
        while let Some(row) = rows.next()? {
            let (source, id) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
            ids.add(hash_of(source, id), row.get(0)?);
        }
        Ok(ids)
    }

    /// Whether an event with this id was accepted at `since_ms` or later.
    pub(super) fn is_known(
        &self,
        connection: &Connection,
        hash: u64,
        (source, id): (&str, &str),
        since_ms: i64,
    ) -> Result<bool, rusqlite::Error> {
        let young = |seq| Ok::<_, rusqlite::Error>(accepted_ms(connection, seq, source, id)? >= Some(since_ms));
        if let Some(seq) = self.recent.get(&hash)
            && young(*seq)?
        {
            return Ok(true);
        }
        for filter in self.filters.iter().rev().take_while(|filter| filter.written_ms >= since_ms) {
            if filter.may_have(hash) {
                for seq in look_into(connection, filter.segment, hash)? {
                    if young(seq)? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Takes in the id of an event that is being written.
    pub(super) fn add(&mut self, hash: u64, seq: i64) {
        self.recent.insert(hash, seq);
        self.entries.push((hash, seq));
    }

    /// Forgets events that were not written after all: those after `last`.
    pub(super) fn roll_back(&mut self, last: i64) {
        self.entries.retain(|(_, seq)| *seq <= last);
        self.recent = self.entries.iter().copied().collect();
    }

    /// Whether there are enough ids for a segment.
    pub(super) fn fill_a_segment(&self) -> bool {
        self.entries.len() >= SEGMENT_EVENTS
    }

    /// Writes the ids in memory as a segment; they stay in memory until that is on disk.
    pub(super) fn write_segment(&self, connection: &Connection, now_ms: i64) -> Result<(), rusqlite::Error> {
        let (Some((_, first)), Some((_, last))) = (self.entries.first(), self.entries.last()) else { return Ok(()) };
        // Replacing: a commit that failed may have taken place.
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO segment (segment, first_seq, last_seq, written_ms) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![self.next_segment, first, last, now_ms])?;
        let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO ids (key, entries) VALUES (?1, ?2)")?;
        let mut entries = self.entries.clone();
        entries.sort_unstable();
        for bucket in entries.chunk_by(|a, b| bucket_of(a.0) == bucket_of(b.0)) {
            let mut row = Vec::with_capacity(bucket.len() * ENTRY_BYTES);
            for (hash, seq) in bucket {
                // A segment has no more events than fit into two batches.
                let distance = u32::try_from(seq - first).unwrap_or(u32::MAX);
                row.extend_from_slice(&hash.to_le_bytes());
                row.extend_from_slice(&distance.to_le_bytes());
            }
            insert.execute(params![key_of(self.next_segment, bucket[0].0), row])?;
        }
        Ok(())
    }

    /// The segment is on disk.
    pub(super) fn segment_written(&mut self, now_ms: i64, since_ms: i64) {
        let hashes = self.entries.iter().map(|entry| entry.0);
        self.filters.push_back(Filter::new(self.next_segment, now_ms, hashes));
        self.next_segment += 1;
        self.entries.clear();
        self.recent.clear();
        while self.filters.front().is_some_and(|filter| filter.written_ms < since_ms) {
            self.filters.pop_front();
        }
    }

    /// The newest event with this id among those in memory.
    pub(super) fn recent(&self, hash: u64) -> Option<i64> {
        self.recent.get(&hash).copied()
    }
}

/// The newest event with this id; `recent` is the candidate from memory.
pub(super) fn find(
    connection: &Connection,
    recent: Option<i64>,
    source: &str,
    id: &str,
) -> Result<Option<i64>, rusqlite::Error> {
    let is_it = |seq| Ok::<_, rusqlite::Error>(accepted_ms(connection, seq, source, id)?.is_some());
    if let Some(seq) = recent
        && is_it(seq)?
    {
        return Ok(Some(seq));
    }
    let hash = hash_of(source, id);
    let mut segments = connection.prepare_cached("SELECT segment FROM segment ORDER BY segment DESC")?;
    let mut rows = segments.query(())?;
    while let Some(row) = rows.next()? {
        for seq in look_into(connection, row.get(0)?, hash)? {
            if is_it(seq)? {
                return Ok(Some(seq));
            }
        }
    }
    Ok(None)
}

/// Removes the segments all of whose events were trimmed: those that stand between two numbers.
pub(super) fn trim(connection: &Connection, after: i64, last: i64) -> Result<(), rusqlite::Error> {
    let mut select =
        connection.prepare_cached("SELECT segment FROM segment WHERE first_seq > ?1 AND last_seq <= ?2")?;
    let trimmed = select.query_map([after, last], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    for segment in trimmed {
        connection.prepare_cached("DELETE FROM segment WHERE segment = ?1")?.execute([segment])?;
        let keys = [segment * BUCKETS, (segment + 1) * BUCKETS];
        connection.prepare_cached("DELETE FROM ids WHERE key >= ?1 AND key < ?2")?.execute(keys)?;
    }
    Ok(())
}

/// When the event was accepted, if it is there and has this id.
fn accepted_ms(connection: &Connection, seq: i64, source: &str, id: &str) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT accepted_ms FROM event WHERE seq = ?1 AND source = ?2 AND id = ?3")?
        .query_row(params![seq, source, id], |row| row.get(0))
        .optional()
}

fn bucket_of(hash: u64) -> u64 {
    hash >> (u64::BITS - BUCKET_BITS)
}

fn key_of(segment: i64, hash: u64) -> i64 {
    segment * BUCKETS + bucket_of(hash).cast_signed()
}

/// The events of a segment whose ids have this hash, newest first.
fn look_into(connection: &Connection, segment: i64, hash: u64) -> Result<Vec<i64>, rusqlite::Error> {
    let mut select = connection
        .prepare_cached("SELECT first_seq, entries FROM segment JOIN ids ON key = ?2 WHERE segment.segment = ?1")?;
    let mut rows = select.query(params![segment, key_of(segment, hash)])?;
    let Some(row) = rows.next()? else { return Ok(Vec::new()) };
    let first: i64 = row.get(0)?;
    let entries = row.get_ref(1)?.as_blob()?;
    let found = entries_of(entries).filter(|entry| entry.0 == hash).map(|entry| first + i64::from(entry.1));
    Ok(found.collect::<Vec<_>>().into_iter().rev().collect())
}

fn segment_hashes(connection: &Connection, segment: i64) -> Result<Vec<u64>, rusqlite::Error> {
    let mut select = connection.prepare_cached("SELECT entries FROM ids WHERE key >= ?1 AND key < ?2")?;
    let mut rows = select.query([segment * BUCKETS, (segment + 1) * BUCKETS])?;
    let mut hashes = Vec::with_capacity(SEGMENT_EVENTS);
    while let Some(row) = rows.next()? {
        hashes.extend(entries_of(row.get_ref(0)?.as_blob()?).map(|entry| entry.0));
    }
    Ok(hashes)
}

fn entries_of(row: &[u8]) -> impl Iterator<Item = (u64, u32)> {
    let (entries, _) = row.as_chunks::<ENTRY_BYTES>();
    entries.iter().map(|[a, b, c, d, e, f, g, h, i, j, k, l]| {
        (u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), u32::from_le_bytes([*i, *j, *k, *l]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::schema;

    fn database(events: i64) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::prepare(&mut connection).unwrap();
        let insert = "INSERT INTO event VALUES (?1, ?1 * 10, 'app', ?2, x'')";
        for seq in 1..=events {
            connection.prepare_cached(insert).unwrap().execute(params![seq, format!("evt_{seq}")]).unwrap();
        }
        connection
    }

    fn known(ids: &Ids, connection: &Connection, id: &str, since_ms: i64) -> bool {
        ids.is_known(connection, hash_of("app", id), ("app", id), since_ms).unwrap()
    }

    #[test]
    fn ids_are_known_from_memory_and_from_segments() {
        let connection = database(300);
        let mut ids = Ids::default();
        for seq in 1..=300 {
            ids.add(hash_of("app", &format!("evt_{seq}")), seq);
            if seq % 100 == 0 && seq < 300 {
                ids.write_segment(&connection, seq * 10).unwrap();
                ids.segment_written(seq * 10, 0);
            }
        }
        for ids in [ids, Ids::read(&connection, 0).unwrap()] {
            assert_eq!((ids.filters.len(), ids.entries.len(), ids.next_segment), (2, 100, 2));
            for seq in 1..=300 {
                assert!(known(&ids, &connection, &format!("evt_{seq}"), 0), "{seq}");
            }
            assert!(!known(&ids, &connection, "evt_301", 0));
            assert!(!ids.is_known(&connection, hash_of("shop", "evt_1"), ("shop", "evt_1"), 0).unwrap());
            // The window is exact to the millisecond, in memory and in segments.
            for seq in [150, 250] {
                let id = format!("evt_{seq}");
                assert!(known(&ids, &connection, &id, seq * 10));
                assert!(!known(&ids, &connection, &id, seq * 10 + 1));
            }
        }
        assert_eq!(Ids::read(&connection, 1_500).unwrap().filters.len(), 1, "older segments need no filter");
        let find = |recent, id| find(&connection, recent, "app", id).unwrap();
        assert_eq!(
            (find(None, "evt_7"), find(Some(250), "evt_250"), find(None, "evt_301")),
            (Some(7), Some(250), None)
        );
        trim(&connection, i64::MIN, 150).unwrap();
        assert_eq!((find(None, "evt_7"), find(None, "evt_107")), (None, Some(107)));
        assert_eq!(Ids::read(&connection, 0).unwrap().next_segment, 2);
    }

    #[test]
    fn what_was_rolled_back_is_forgotten() {
        let connection = database(3);
        let mut ids = Ids::default();
        (1..=3).for_each(|seq| ids.add(hash_of("app", &format!("evt_{seq}")), seq));
        // An id taken twice falls back to where it was first.
        ids.add(hash_of("app", "evt_1"), 4);
        ids.roll_back(2);
        assert_eq!(ids.recent(hash_of("app", "evt_1")), Some(1));
        assert_eq!(ids.recent(hash_of("app", "evt_3")), None);
        assert!(known(&ids, &connection, "evt_2", 0));
    }

    #[test]
    fn a_filter_never_denies_and_seldom_errs() {
        let hashes: Vec<_> = (0..SEGMENT_EVENTS).map(|n| hash_of("app", &format!("evt_{n}"))).collect();
        let filter = Filter::new(0, 0, hashes.iter().copied());
        assert!(hashes.iter().all(|hash| filter.may_have(*hash)));
        let wrong = (0..100_000).filter(|n| filter.may_have(hash_of("app", &format!("other_{n}")))).count();
        assert!(wrong < 1_000, "{wrong} of 100,000");
    }
}
