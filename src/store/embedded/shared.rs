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
use super::schema;
use super::writer::{Limits, Writer, is_full, refuse};
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
        let memory = Memory::read(&connection, starts).map_err(unusable)?;
        let limits = Limits::of(options);
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
        let mut slot = lock(&self.writer);
        while let Some(writer) = slot.as_mut() {
            let done = match self.queue.next() {
                Next::Write(submitted) => writer.write(submitted, &self.memory),
                Next::Rest if writer.waits_for_room() => {
                    // Blocking is what this thread is for; the clock of tokio has no part in how full a disk is.
                    std::thread::sleep(FULL_PAUSE);
                    writer.write(Vec::new(), &self.memory)
                }
                Next::Rest => match writer.rest() {
                    Ok(()) if self.queue.stop_writing() => break,
                    rested => rested,
                },
                Next::Close(answer) => {
                    let closed = slot.take().map_or(Ok(()), Writer::close);
                    self.claimers.close();
                    self.readers.close();
                    drop(answer.send(closed));
                    break;
                }
                Next::Stop => {
                    writer.give_up(|| self.check().err().unwrap_or(Error::Closed));
                    *slot = None;
                    break;
                }
            };
            if let Err(error) = done {
                let failure = self.fail(&error.to_string());
                writer.give_up(|| Error::Unusable(failure.to_string()));
                *slot = None;
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
