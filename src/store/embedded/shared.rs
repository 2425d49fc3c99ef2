//! What the store's tasks share: the queue, memory, the connections, and whether the store has failed.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::{Error, StoreOptions};
use super::folder::Folder;
use super::memory::{Memory, lock};
use super::operation::{Answer, Operation};
use super::queue::{Next, Queue};
use super::reader::{ReadError, Readers};
use super::writer::{Limits, Writer, is_full, refuse};
use super::{millis, number, schema};
use crate::clock::Clock;

/// How many connections read for claims, and how many for everybody else.
const READERS_MAX: usize = 2;
/// How long the writer waits for room on a full disk before it tries again.
const FULL_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) memory: Memory,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    /// How often the store was opened: the fence of event claims.
    pub(super) starts: u64,
    /// For claims, so that nobody else's reading holds them up.
    claimers: Readers,
    readers: Readers,
    /// `None` when the store is closed or has failed.
    writer: Mutex<Option<Writer>>,
    /// Why the store has failed.
    failure: OnceLock<String>,
}

impl Shared {
    /// Opens the store. Blocks.
    pub(super) fn open(folder: &Path, options: &StoreOptions, clock: Clock) -> Result<Self, Error> {
        let folder = Arc::new(Folder::lock(folder)?);
        let path = folder.database()?;
        let unusable = |error: rusqlite::Error| match is_full(&error) {
            true => Error::Full("the disk is full".to_owned()),
            false => folder.unusable(error),
        };
        let mut connection = schema::open_writer(&path).map_err(unusable)?;
        let starts = match schema::prepare(&mut connection) {
            Ok(starts) => starts,
            Err(schema::Error::Sqlite(error)) => return Err(unusable(error)),
            Err(error @ (schema::Error::Foreign | schema::Error::Newer(_))) => return Err(folder.unusable(error)),
        };
        let limits = Limits::of(options);
        let since_ms = millis(clock.now()).saturating_sub(number(limits.dedupe_window_ms));
        let memory = Memory::read(&connection, starts, since_ms).map_err(unusable)?;
        let writer = Writer::new(connection, Arc::clone(&folder), clock, limits).map_err(unusable)?;
        Ok(Self {
            queue: Queue::new(),
            memory,
            clock,
            limits,
            starts,
            claimers: Readers::new(path.clone(), READERS_MAX),
            readers: Readers::new(path, READERS_MAX),
            writer: Mutex::new(Some(writer)),
            failure: OnceLock::new(),
        })
    }

    /// Whether the store is open and works.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.failure.get() {
            Some(failure) => Err(Error::Unusable(failure.clone())),
            None if self.queue.is_open() => Ok(()),
            None => Err(Error::Closed),
        }
    }

    /// Has something written, and waits until it is on disk.
    pub(super) async fn ask<T>(self: &Arc<Self>, operation: impl FnOnce(Answer<T>) -> Operation) -> Result<T, Error> {
        self.check()?;
        let (answer, answered) = oneshot::channel();
        match self.queue.submit(operation(answer)).await {
            Ok(true) => self.start_writing(),
            Ok(false) => {}
            Err(error) => return Err(self.check().err().unwrap_or(error)),
        }
        match answered.await {
            Ok(result) => result,
            Err(_dropped) => Err(self.check().err().unwrap_or(Error::Closed)),
        }
    }

    /// Closes the store in good order.
    pub(super) async fn close(self: &Arc<Self>) -> Result<(), Error> {
        if let Some(failure) = self.failure.get() {
            return Err(Error::Unusable(failure.clone()));
        }
        let (answer, answered) = oneshot::channel();
        let Some(start) = self.queue.close(answer) else { return Ok(()) };
        self.memory.arrived.notify_waiters();
        if start {
            self.start_writing();
        }
        match answered.await {
            Ok(result) => result,
            Err(_dropped) => Err(self.check().err().unwrap_or(Error::Closed)),
        }
    }

    /// Reads for a claim.
    pub(super) async fn claiming<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection, &Memory) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Error> {
        self.read(|shared| &shared.claimers, query).await
    }

    /// Reads for anybody else.
    pub(super) async fn reading<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection, &Memory) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Error> {
        self.check()?;
        self.read(|shared| &shared.readers, query).await
    }

    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        readers: fn(&Self) -> &Readers,
        query: impl FnOnce(&Connection, &Memory) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Error> {
        let Ok(place) = Arc::clone(&readers(self).places).acquire_owned().await else {
            return Err(self.check().err().unwrap_or(Error::Closed));
        };
        let shared = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let result = readers(&shared).run(|connection| query(connection, &shared.memory));
            drop(place);
            match result {
                Ok(value) => Ok(value),
                Err(ReadError::Record(error)) => Err(error),
                Err(ReadError::Sqlite(error)) if is_full(&error) => Err(Error::Full("the disk is full".to_owned())),
                Err(ReadError::Sqlite(error)) => Err(shared.fail(&format!("reading the store failed: {error}"))),
            }
        });
        read.await.unwrap_or_else(|error| Err(self.fail(&format!("reading the store failed: {error}"))))
    }

    fn start_writing(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        drop(tokio::task::spawn_blocking(move || shared.write()));
    }

    /// Writes until there is nothing more to write. Blocks.
    fn write(&self) {
        let _failing = FailsOnPanic(self);
        let mut next = self.queue.next();
        loop {
            let mut slot = lock(&self.writer);
            let Some(writer) = slot.as_mut() else { return };
            let done = match next {
                Next::Write(submitted) => writer.write(submitted, &self.memory),
                Next::Rest if writer.waits_for_room() => writer.write(Vec::new(), &self.memory),
                Next::Rest => match writer.rest() {
                    Ok(()) if self.queue.stop_writing() => return,
                    rested => rested,
                },
                Next::Close(answer) => {
                    let closed = slot.take().map_or(Ok(()), Writer::close);
                    self.claimers.close();
                    self.readers.close();
                    // Nobody waits for the answer when the one who closes was dropped.
                    drop(answer.send(closed));
                    return;
                }
                Next::Stop => {
                    writer.give_up(|| self.check().err().unwrap_or(Error::Closed));
                    *slot = None;
                    return;
                }
            };
            if let Err(error) = done {
                let failure = self.fail(&error.to_string());
                writer.give_up(|| Error::Unusable(failure.to_string()));
                *slot = None;
                return;
            }
            let waits_for_room = writer.waits_for_room();
            drop(slot);
            next = self.queue.next();
            if waits_for_room && matches!(next, Next::Rest) {
                // Blocking is what this thread is for; tokio's clock has no part in how full a disk is.
                std::thread::sleep(FULL_PAUSE);
            }
        }
    }

    /// Ends the store: from here on every call is answered with this. The first failure counts.
    fn fail(&self, failure: &str) -> Error {
        if self.failure.set(failure.to_owned()).is_ok() {
            tracing::error!("{failure}");
        }
        let failure = self.failure.get().map_or(failure, String::as_str);
        refuse(self.queue.abandon(), || Error::Unusable(failure.to_owned()));
        self.memory.arrived.notify_waiters();
        Error::Unusable(failure.to_owned())
    }
}

/// A panic in the writer must not leave everybody waiting for it.
struct FailsOnPanic<'a>(&'a Shared);

impl Drop for FailsOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the store's writer panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{EventSettlement, Hold, ScheduledDelivery, Settled, Store};
    use super::super::EmbeddedStore;
    use super::*;
    use crate::delivery::{Delivery, DeliveryId, EventHead, Work};
    use crate::event::{Event, sample};

    async fn open(folder: &Path) -> Arc<EmbeddedStore> {
        Arc::new(EmbeddedStore::open(folder, StoreOptions::default(), Clock::system()).await.unwrap())
    }

    fn event(id: &str, bytes: usize) -> Event {
        sample(id, "order.created", &format!("\"{}\"", "a".repeat(bytes)))
    }

    fn allow_pages(store: &EmbeddedStore, more: i64) {
        lock(&store.shared.writer).as_ref().unwrap().allow_pages(more);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_a_full_disk_events_are_refused_and_settlements_wait_for_room() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        store.append(vec![event("evt_1", 200_000), event("evt_2", 10)]).await.unwrap();
        let mut claims = store.claim_events(2, Duration::from_secs(10)).await.unwrap();
        allow_pages(&store, 4);
        for _ in 0..3 {
            assert!(matches!(store.append(vec![event("evt_3", 100_000)]).await, Err(Error::Full(_))));
        }
        let claim = claims.remove(0);
        let delivery = Delivery {
            id: DeliveryId::derive(&claim.event, "warehouse"),
            event: EventHead::of(&claim.event, claim.position),
            subscription: "warehouse".into(),
            attempts: vec![],
            work: Work::Run(Arc::clone(&claim.event)),
        };
        let scheduled = vec![ScheduledDelivery { delivery, hold: Hold::Claimed }];
        let settlement = EventSettlement { claim, outcomes: vec![], scheduled, dead_letters: vec![] };
        let settling = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.settle_event(settlement).await }
        });
        // What fits is settled meanwhile, and what does not is not given up.
        assert!(matches!(store.append(vec![event("evt_3", 100_000)]).await, Err(Error::Full(_))));
        let claim = claims.remove(0);
        let small = EventSettlement { claim, outcomes: vec![], scheduled: vec![], dead_letters: vec![] };
        let small = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.settle_event(small).await }
        });
        assert!(!settling.is_finished());
        assert_eq!(store.stats().await.unwrap().scheduled, 0);

        // Between two tries the writer leaves its connection alone.
        let made_room = Arc::clone(&store);
        tokio::task::spawn_blocking(move || allow_pages(&made_room, 10_000)).await.unwrap();
        match settling.await.unwrap().unwrap() {
            Settled::Written(claims) => assert_eq!(claims.len(), 1),
            Settled::Lost => panic!("the claim is held"),
        }
        assert!(matches!(small.await.unwrap().unwrap(), Settled::Written(_)));
        store.append(vec![event("evt_3", 100_000)]).await.unwrap();
        let stats = store.stats().await.unwrap();
        assert_eq!((stats.backlog, stats.scheduled), (1, 1));
        store.close().await.unwrap();
        let store = open(folder.path()).await;
        let stats = store.stats().await.unwrap();
        assert_eq!((stats.backlog, stats.scheduled), (1, 1));
        assert_eq!(*store.claim_events(10, Duration::ZERO).await.unwrap()[0].event, event("evt_3", 100_000));
        assert_eq!(store.claim_due(10).await.unwrap().claims.len(), 1);
    }

    #[tokio::test]
    async fn a_store_that_failed_answers_every_call_with_why() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        store.append(vec![event("evt_1", 10)]).await.unwrap();
        let claim = store.claim_events(1, Duration::ZERO).await.unwrap().remove(0);
        let broken = |error: Error| matches!(error, Error::Unusable(text) if text.contains("a reason"));
        store.shared.fail("a reason");
        let settlement = EventSettlement { claim, outcomes: vec![], scheduled: vec![], dead_letters: vec![] };
        assert!(broken(store.append(vec![event("evt_2", 10)]).await.unwrap_err()));
        assert!(broken(store.settle_event(settlement).await.unwrap_err()));
        assert!(broken(store.claim_events(1, Duration::from_secs(60)).await.unwrap_err()));
        assert!(broken(store.claim_due(1).await.unwrap_err()));
        assert!(broken(store.stats().await.unwrap_err()));
        assert!(broken(store.find_event("app", "evt_1").await.unwrap_err()));
        assert!(broken(store.close().await.unwrap_err()));
    }
}
