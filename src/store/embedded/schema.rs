//! The database: its settings, its tables, and whether a file is one of ours.
//!
//! Settling must not rewrite what was accepted, so what waits is a table of bare numbers beside
//! the events. Numbers are never used twice: readers of outcomes and dead letters go on by them.

use std::path::Path;

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use super::super::decode_dead_letter;

/// `Brln`: marks the file as ours for `file(1)` and for [`prepare`].
const APPLICATION_ID: i64 = 0x4272_6c6e;
/// The layout this program writes. It reads layout 1, too, whose events have a head in JSON; such a database becomes one of this
/// when it is opened, since a program of before could not read what is written from then on.
const VERSION: i64 = 2;
const WRITER_CACHE_KIB: i64 = 65_536;
const READER_CACHE_KIB: i64 = 4_096;
/// What the log's file shrinks to when it starts over.
const LOG_BYTES_KEPT: i64 = 64 << 20;
const STATEMENTS_CACHED: usize = 64;

const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('starts', 0), ('event', 0), ('outcome', 0), ('dead', 0);

    -- What was accepted. The record is last: reading the columns before it never reads a large one.
    CREATE TABLE event (
        seq INTEGER PRIMARY KEY, accepted_ms INTEGER NOT NULL, source TEXT NOT NULL, id TEXT NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
    -- Of those, the ones that are not settled.
    CREATE TABLE pending (seq INTEGER PRIMARY KEY) STRICT;
    -- Which event has which id (ids.rs): segments of events, and a few rows of hashes for each.
    CREATE TABLE segment (
        segment INTEGER PRIMARY KEY, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, written_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE ids (key INTEGER PRIMARY KEY, entries BLOB NOT NULL) STRICT;

    -- The schedule. Who holds a delivery is known in memory only: after a restart nobody does.
    CREATE TABLE delivery (
        key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, due_ms INTEGER NOT NULL, subscription TEXT NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
    CREATE INDEX delivery_due ON delivery (due_ms);
    CREATE INDEX delivery_subscription ON delivery (subscription, due_ms);

    CREATE TABLE dead (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, record BLOB NOT NULL) STRICT;
    -- A row has the outcomes of all that was settled in one commit.
    CREATE TABLE outcome (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, records BLOB NOT NULL) STRICT;
    CREATE TABLE endpoint (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// What older databases of the same layout lack, and older programs leave alone.
const ADDED: &str = "
    -- Accepted events whose record can't be read, for somebody to look at.
    CREATE TABLE IF NOT EXISTS damaged (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, record BLOB NOT NULL) STRICT;
    -- Which rows of outcomes have something of which block of events.
    CREATE TABLE IF NOT EXISTS outcome_of (
        block INTEGER NOT NULL, outcome INTEGER NOT NULL, PRIMARY KEY (block, outcome)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS audit (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS source (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
";

/// Dead letters are found by their delivery. Rows that an older program wrote have none until [`prepare`] fills it in.
const DEAD_BY_DELIVERY: &str = "CREATE INDEX IF NOT EXISTS dead_delivery ON dead (delivery)";

/// Why a database can't be prepared.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// SQLite says so.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// It is a database of something else.
    #[error("its file is a database of another program")]
    Foreign,
    /// It was written by a newer program.
    #[error("it has layout {0}, this program reads layout {VERSION}; use the program that wrote it, or a newer one")]
    Newer(i64),
}

/// Opens the one connection that writes.
pub(super) fn open_writer(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_CACHE_KIB)?;
    // Both take effect with the first page of a new database, and are ignored later.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(rusqlite::Error::InvalidPath(path.to_owned()));
    }
    // A commit returns when the log is on disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The writer checkpoints by itself, when nobody waits for it.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_KEPT, |_| Ok(()))?;
    Ok(connection)
}

/// Opens a connection that reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    // Not read-only to SQLite: after a crash the first to read may have to rebuild the log's index.
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, READER_CACHE_KIB)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags, cache_kib: i64) -> Result<Connection, rusqlite::Error> {
    // A connection is never used by two threads at a time: each has an owner or a lock.
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // Closing checkpoints explicitly; a store that is dropped leaves the disk as a crash does.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(connection)
}

/// Makes the tables of a new database or checks those of an old one; returns how often it was opened.
pub(super) fn prepare(connection: &mut Connection) -> Result<u64, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    if application == 0 && tables == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    } else {
        fits(application, version)?;
        if version != VERSION {
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
    }
    transaction.execute_batch(ADDED)?;
    name_dead_letters(&transaction)?;
    let update = "UPDATE meta SET value = value + 1 WHERE key = 'starts' RETURNING value";
    let starts: i64 = transaction.query_row(update, (), |row| row.get(0))?;
    transaction.commit()?;
    Ok(starts.unsigned_abs())
}

/// Whether a database is one that this program reads and writes, by what its head says.
pub(super) fn fits(application_id: i64, version: i64) -> Result<(), Error> {
    match (application_id, version) {
        (APPLICATION_ID, 1..=VERSION) => Ok(()),
        (APPLICATION_ID, version) => Err(Error::Newer(version)),
        _ => Err(Error::Foreign),
    }
}

/// Makes every dead letter known by its delivery.
fn name_dead_letters(connection: &Connection) -> Result<(), rusqlite::Error> {
    let columns = "SELECT count(*) FROM pragma_table_info('dead') WHERE name = 'delivery'";
    if connection.query_row(columns, (), |row| row.get::<_, i64>(0))? == 0 {
        connection.execute_batch("ALTER TABLE dead ADD COLUMN delivery TEXT")?;
    }
    connection.execute_batch(DEAD_BY_DELIVERY)?;
    let mut select = connection.prepare("SELECT seq, record FROM dead WHERE delivery IS NULL")?;
    let mut name = connection.prepare("UPDATE dead SET delivery = ?2 WHERE seq = ?1")?;
    let mut rows = select.query(())?;
    let mut names = Vec::new();
    while let Some(row) = rows.next()? {
        // One that can't be read is left as it is; reading it tells why.
        if let Ok(letter) = decode_dead_letter(&Bytes::from(row.get::<_, Vec<u8>>(1)?)) {
            names.push((row.get::<_, i64>(0)?, letter.delivery.id));
        }
    }
    names.iter().try_for_each(|(seq, id)| name.execute(params![seq, id.as_str()]).map(drop))
}

/// The last number used in `table` (`event`, `outcome` or `dead`), also of rows that were trimmed.
pub(super) fn last_seq(connection: &Connection, table: &str) -> Result<i64, rusqlite::Error> {
    let query = format!("SELECT max(value, (SELECT coalesce(max(seq), 0) FROM {table})) FROM meta WHERE key = ?1");
    connection.query_row(&query, [table], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::encode_dead_letter;
    use super::*;
    use crate::clock::Timestamp;
    use crate::delivery::{DeadLetter, DeadLetterReason, Delivery, DeliveryId, EventHead, Work};
    use crate::event::{self, Position};

    #[test]
    fn a_database_is_made_once_and_those_of_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        std::fs::write(&path, b"").unwrap();
        for start in 1..4 {
            assert_eq!(prepare(&mut open_writer(&path).unwrap()).unwrap(), start);
        }
        let mut connection = open_writer(&path).unwrap();
        let setting = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!((setting("synchronous"), setting("auto_vacuum"), setting("wal_autocheckpoint")), (2, 2, 0));
        connection.pragma_update(None, "user_version", 1).unwrap();
        assert_eq!(prepare(&mut connection).unwrap(), 4);
        assert_eq!(connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap(), VERSION);
        connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(matches!(prepare(&mut connection), Err(Error::Newer(3))));
        connection.pragma_update(None, "application_id", 7).unwrap();
        assert!(matches!(prepare(&mut connection), Err(Error::Foreign)));
    }

    #[test]
    fn numbers_are_not_used_again_after_trimming() {
        let mut connection = Connection::open_in_memory().unwrap();
        prepare(&mut connection).unwrap();
        assert_eq!(last_seq(&connection, "dead").unwrap(), 0);
        connection.execute("INSERT INTO dead (seq, at_ms, record) VALUES (5, 0, x'')", ()).unwrap();
        assert_eq!(last_seq(&connection, "dead").unwrap(), 5);
        connection.execute_batch("DELETE FROM dead; UPDATE meta SET value = 9 WHERE key = 'dead'").unwrap();
        assert_eq!(last_seq(&connection, "dead").unwrap(), 9);
    }

    #[test]
    fn dead_letters_of_an_older_program_are_known_by_their_delivery() {
        let mut connection = Connection::open_in_memory().unwrap();
        prepare(&mut connection).unwrap();
        // As it was before.
        connection.execute_batch("DROP INDEX dead_delivery; ALTER TABLE dead DROP COLUMN delivery").unwrap();
        let event = event::sample("evt_1", "order.created", "{}");
        let delivery = Delivery {
            id: DeliveryId::derive(&event, "warehouse"),
            event: EventHead::of(&event, Position { partition: 0, major: 1, minor: 0 }),
            subscription: "warehouse".into(),
            attempts: vec![],
            work: Work::Run(Arc::new(event)),
        };
        let id = delivery.id.clone();
        let (reason, at) = (DeadLetterReason::Gone, Timestamp::from_millis(3));
        let record = encode_dead_letter(&DeadLetter { delivery, reason, detail: String::new(), at });
        let insert = "INSERT INTO dead (seq, at_ms, record) VALUES (?1, 3, ?2)";
        connection.execute(insert, params![1, record]).unwrap();
        connection.execute(insert, params![2, b"damaged"]).unwrap();
        prepare(&mut connection).unwrap();
        let named = "SELECT seq FROM dead WHERE delivery = ?1";
        assert_eq!(connection.query_row(named, [id.as_str()], |row| row.get::<_, i64>(0)).unwrap(), 1);
    }
}
