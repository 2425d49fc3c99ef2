//! The way to the writer: a bounded queue, and a writer that runs while there is something in it.
//!
//! The writer is a job on tokio's threads for blocking work, never two at a time. It is that rather
//! than a thread of its own so that a test's paused clock stands still while it works.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::Error;
use super::memory::lock;
use super::operation::{Answer, Operation};

/// How much may wait to be written, in KiB; each operation counts as one KiB at least.
const QUEUE_KIB_MAX: u32 = 65_536;
/// How many operations share a commit.
const BATCH_OPERATIONS_MAX: usize = 512;
/// How many bytes share a commit, if there are several operations.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// An operation and its place in the queue, which is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) operation: Operation,
    _room: OwnedSemaphorePermit,
}

/// Operations on their way to the writer.
#[derive(Debug)]
pub(super) struct Queue {
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    operations: VecDeque<Submitted>,
    /// A writer runs, and looks here before it ends.
    writing: bool,
    closing: Closing,
}

#[derive(Debug, Default)]
enum Closing {
    #[default]
    Open,
    /// When everything is written, the writer is to close the store and answer.
    Asked(Answer<()>),
    /// The writer is closing, or nobody wants it any more.
    Done,
}

/// What the writer is to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Write these.
    Write(Vec<Submitted>),
    /// Nothing is in the queue.
    Rest,
    /// Close the store.
    Close(Answer<()>),
    /// End, leaving everything as it is.
    Stop,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(QUEUE_KIB_MAX as usize)), state: Mutex::default() }
    }

    /// Waits for room, and puts an operation in. True when a writer must be started for it.
    pub(super) async fn submit(&self, operation: Operation) -> Result<bool, Error> {
        let kib = u32::try_from(operation.bytes() >> 10).unwrap_or(u32::MAX).clamp(1, QUEUE_KIB_MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(|_closed| Error::Closed)?;
        let mut state = lock(&self.state);
        match state.closing {
            Closing::Open => {}
            Closing::Asked(_) | Closing::Done => return Err(Error::Closed),
        }
        state.operations.push_back(Submitted { operation, _room: room });
        Ok(!std::mem::replace(&mut state.writing, true))
    }

    /// Lets nothing more in; what is in is still written. True when a writer must be started, `None`
    /// when it was closed before.
    pub(super) fn close(&self, answer: Answer<()>) -> Option<bool> {
        self.room.close();
        let mut state = lock(&self.state);
        match state.closing {
            Closing::Open => state.closing = Closing::Asked(answer),
            Closing::Asked(_) | Closing::Done => return None,
        }
        Some(!std::mem::replace(&mut state.writing, true))
    }

    /// Lets nothing more in, and gives back what is not written.
    pub(super) fn abandon(&self) -> Vec<Submitted> {
        self.room.close();
        let mut state = lock(&self.state);
        state.closing = Closing::Done;
        state.operations.drain(..).collect()
    }

    /// Whether the store takes operations.
    pub(super) fn is_open(&self) -> bool {
        matches!(lock(&self.state).closing, Closing::Open)
    }

    /// What the writer is to do next.
    pub(super) fn next(&self) -> Next {
        let mut state = lock(&self.state);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_OPERATIONS_MAX
            && let Some(next) = state.operations.front()
        {
            bytes += next.operation.bytes();
            if bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                break;
            }
            batch.extend(state.operations.pop_front());
        }
        if !batch.is_empty() {
            return Next::Write(batch);
        }
        match std::mem::replace(&mut state.closing, Closing::Done) {
            Closing::Open => {
                state.closing = Closing::Open;
                Next::Rest
            }
            Closing::Asked(answer) => Next::Close(answer),
            Closing::Done => Next::Stop,
        }
    }

    /// Ends the writer, if there is still nothing to do.
    pub(super) fn stop_writing(&self) -> bool {
        let mut state = lock(&self.state);
        let nothing = state.operations.is_empty() && matches!(state.closing, Closing::Open);
        state.writing = !nothing;
        nothing
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::event::sample;
    use crate::store::embedded::operation::{Append, Trim};

    fn trim() -> Operation {
        Operation::Trim(Trim { removed: 0, answer: oneshot::channel().0 })
    }

    fn append(bytes: usize) -> Operation {
        let event = sample("evt_1", "order.created", &format!("\"{}\"", "a".repeat(bytes)));
        Operation::Append(Append::new(vec![event], oneshot::channel().0))
    }

    fn written(queue: &Queue) -> usize {
        match queue.next() {
            Next::Write(batch) => batch.len(),
            Next::Rest => 0,
            next @ (Next::Close(_) | Next::Stop) => panic!("{next:?}"),
        }
    }

    #[tokio::test]
    async fn one_writer_is_started_and_takes_what_is_queued_up() {
        let queue = Queue::new();
        assert!(queue.submit(trim()).await.unwrap());
        for _ in 0..BATCH_OPERATIONS_MAX {
            assert!(!queue.submit(trim()).await.unwrap());
        }
        assert_eq!(written(&queue), BATCH_OPERATIONS_MAX);
        assert!(!queue.stop_writing());
        assert_eq!(written(&queue), 1);
        assert_eq!(written(&queue), 0);
        assert!(queue.stop_writing());
        assert!(queue.submit(trim()).await.unwrap());
    }

    #[tokio::test]
    async fn a_batch_is_bounded_by_its_bytes_but_never_empty() {
        let queue = Queue::new();
        for bytes in [1, BATCH_BYTES_MAX + 1, 1, 2] {
            queue.submit(append(bytes)).await.unwrap();
        }
        assert_eq!([(); 4].map(|()| written(&queue)), [1, 1, 2, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_makes_the_next_wait() {
        let queue = Queue::new();
        queue.submit(append((QUEUE_KIB_MAX as usize) << 10)).await.unwrap();
        let mut next = std::pin::pin!(queue.submit(trim()));
        let waited = tokio::time::timeout(Duration::from_secs(60), next.as_mut()).await;
        assert!(waited.is_err(), "there is no room");
        drop(queue.next());
        assert!(!next.await.unwrap());
    }

    #[tokio::test]
    async fn a_closed_queue_is_written_and_then_closes() {
        let queue = Queue::new();
        queue.submit(trim()).await.unwrap();
        assert_eq!(queue.close(oneshot::channel().0), Some(false));
        assert_eq!(queue.close(oneshot::channel().0), None);
        assert!(matches!(queue.submit(trim()).await, Err(Error::Closed)));
        assert_eq!(written(&queue), 1);
        assert!(matches!(queue.next(), Next::Close(_)));
        assert!(matches!(queue.next(), Next::Stop));
    }
}
