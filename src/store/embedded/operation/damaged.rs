//! Accepted events whose record can't be read: they are kept apart, and no longer wait to be claimed.

use std::collections::BTreeMap;

use rusqlite::params;

use super::super::memory::{Memory, lock};
use super::super::writer::Batch;
use super::super::{number, position};
use super::{Answer, tell};

/// Puts damaged events aside.
#[derive(Debug)]
pub(in super::super) struct PutAside {
    /// The events, and why each can't be read.
    damaged: BTreeMap<i64, String>,
    /// Those that still waited.
    written: Vec<i64>,
    /// How many are kept apart in all.
    kept: i64,
    pub(super) answer: Answer<()>,
}

impl PutAside {
    pub(in super::super) fn new(damaged: BTreeMap<i64, String>, answer: Answer<()>) -> Self {
        Self { damaged, written: Vec::new(), kept: 0, answer }
    }

    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        // The event's row stays until it is trimmed: its id is known by it.
        let mut keep = batch.transaction.prepare_cached(
            "INSERT INTO damaged (seq, at_ms, record) SELECT seq, ?2, record FROM event WHERE seq = ?1",
        )?;
        let mut settle = batch.transaction.prepare_cached("DELETE FROM pending WHERE seq = ?1")?;
        self.written.clear();
        for seq in self.damaged.keys() {
            if settle.execute([seq])? == 1 {
                keep.execute(params![seq, number(batch.now.as_millis())])?;
                self.written.push(*seq);
            }
        }
        batch.changes.settled += self.written.len() as u64;
        self.kept = batch.transaction.query_row("SELECT count(*) FROM damaged", (), |row| row.get(0))?;
        Ok(())
    }

    pub(super) fn finish(self, memory: &Memory) {
        for seq in &self.written {
            let why = &self.damaged[seq];
            tracing::error!(
                event.position = %position(*seq),
                damaged_events = self.kept,
                "an event can't be read and was put aside: {why}"
            );
        }
        lock(&memory.backlog).put_aside(self.damaged.into_keys());
        tell(self.answer, Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use rusqlite::Connection;

    use super::super::super::super::{Appended, EventSettlement, Settled, Store, StoreOptions};
    use super::super::super::EmbeddedStore;
    use crate::clock::Clock;
    use crate::event::sample;

    async fn open(folder: &Path, retention: Duration) -> EmbeddedStore {
        let options = StoreOptions { retention, dedupe_window: retention, ..StoreOptions::default() };
        EmbeddedStore::open(folder, options, Clock::system()).await.unwrap()
    }

    #[tokio::test]
    async fn a_damaged_event_is_put_aside_and_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("branchline.db");
        let store = open(folder.path(), Duration::from_secs(60)).await;
        let events = ["evt_1", "evt_2", "evt_3"].map(|id| sample(id, "order.created", "{}"));
        store.append(events.to_vec()).await.unwrap();
        store.close().await.unwrap();
        let connection = Connection::open(&path).unwrap();
        connection.execute("UPDATE event SET record = x'00ff00ff' WHERE id = 'evt_2'", ()).unwrap();
        drop(connection);

        let store = open(folder.path(), Duration::from_secs(60)).await;
        let claims = store.claim_events(10, Duration::ZERO).await.unwrap();
        assert_eq!(claims.iter().map(|claim| &*claim.event.id).collect::<Vec<_>>(), ["evt_1", "evt_3"]);
        assert_eq!(store.stats().await.unwrap().backlog, 2);
        assert_eq!(store.append(vec![events[1].clone()]).await.unwrap(), [Appended::Duplicate]);
        for claim in claims {
            let settlement = EventSettlement { claim, outcomes: vec![], scheduled: vec![], dead_letters: vec![] };
            assert!(matches!(store.settle_event(settlement).await.unwrap(), Settled::Written(_)));
        }
        store.close().await.unwrap();
        let connection = Connection::open(&path).unwrap();
        let kept = "SELECT seq, hex(record) FROM damaged WHERE at_ms > 0 AND (SELECT count(*) FROM pending) = 0";
        let kept: (i64, String) = connection.query_row(kept, (), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(kept, (2, "00FF00FF".to_owned()));
        drop(connection);

        // It is known after a restart, is not claimed again, and goes when everything of its age goes.
        let store = open(folder.path(), Duration::ZERO).await;
        assert!(store.claim_events(10, Duration::ZERO).await.unwrap().is_empty());
        assert_eq!((store.stats().await.unwrap().backlog, store.trim().await.unwrap()), (0, 4));
    }
}
