//! Accepted events into their partitions' streams: callers' events are gathered, one script call a batch.
//!
//! Each partition has a lane: a bounded queue and a task. While a call is under way the next batch gathers,
//! so that a busy store gets few large calls and an idle one answers at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Cmd, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::append_wait::store_and_wait;
use super::fault::Fault;
use super::handover::Promise;
use super::ids::ids_field;
use super::keys::GROUP;
use super::reply::{self, StreamId};
use super::{Phase, Shared, scripts};
use crate::delivery::whole_millis;
use crate::event::{Event, Position};
use crate::store::{Appended, Error, EventClaim, decode_event, encode_event, partition_of};

/// How long a caller waits before it is told that the store is away.
const APPEND_TIME_MAX: Duration = Duration::from_secs(2);
/// How many callers may wait in a lane's queue.
const QUEUE_ITEMS_MAX: usize = 1024;
/// What one script call takes.
const BATCH_EVENTS_MAX: usize = 128;
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// What an event takes in a call besides its record, about.
const EVENT_EXTRA_BYTES: usize = 96;
/// What one wait for replicas or disks is for: as much as gathers while the one before it lasts.
const WAIT_EVENTS_MAX: usize = 8 * 1024;
const WAIT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many calls of a lane may be under way: the server need not wait for us between two of them.
const CALLS_IN_FLIGHT_MAX: usize = 2;
/// A further call starts only with this much to do: small calls cost the server more per event. With 64 callers, in two
/// noisy comparisons, 4 made 6 and 8 % more events/s than 64; 1 made no more than 64.
const FURTHER_CALL_ITEMS_MIN: usize = 4;
/// How many buckets before the current one are looked into at most.
const BUCKETS_BEFORE_MAX: u64 = 32;
/// The least number of 15 digits.
const NONCE_MIN: u64 = 100_000_000_000_000;
/// No key lives longer than this, so that a sum of milliseconds stays exact.
const LIFE_MS_MAX: u64 = 100 * 365 * 86_400_000;

pub(super) struct NewEvent {
    field: String,
    record: Bytes,
}

impl NewEvent {
    fn of(event: &Event) -> Self {
        Self { field: ids_field(&event.source, &event.id), record: encode_event(event).into() }
    }
}

/// What a call, made again, knows the events by that it stored the first time: others of the same id are duplicates.
#[derive(Clone, Copy)]
pub(super) struct Nonce(u64);

impl Nonce {
    /// All have 15 digits: none is the beginning of another.
    pub(super) fn new() -> Self {
        Self(fastrand::u64(NONCE_MIN..10 * NONCE_MIN))
    }
}

/// One caller's events of one partition.
pub(super) struct Submission {
    events: Vec<NewEvent>,
    reply: oneshot::Sender<Result<Vec<Appended>, Error>>,
}

pub(super) type Lane = mpsc::Sender<Submission>;
type Answer = oneshot::Receiver<Result<Vec<Appended>, Error>>;

/// Starts a partition's lane. It ends when the store closes and its queue is empty.
pub(super) fn start(shared: &Arc<Shared>, partition: u16) -> (Lane, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(QUEUE_ITEMS_MAX);
    (sender, tokio::spawn(run(Arc::clone(shared), partition, receiver)))
}

/// Stores events and answers when all of them are stored.
pub(super) async fn append(shared: &Shared, lanes: &[Lane], events: Vec<Event>) -> Result<Vec<Appended>, Error> {
    if shared.phase() != Phase::Open {
        return Err(Error::Closed);
    }
    let limit = time_max(shared);
    tokio::time::timeout(limit, store_in_lanes(lanes, events))
        .await
        .unwrap_or_else(|_| Err(Error::Away(format!("nothing was stored within {limit:?}"))))
}

async fn store_in_lanes(lanes: &[Lane], events: Vec<Event>) -> Result<Vec<Appended>, Error> {
    let count = u16::try_from(lanes.len()).expect("the partitions are counted in a u16");
    if let [event] = events.as_slice() {
        let partition = partition_of(event.partition_key(), count);
        let submitted = vec![NewEvent::of(event)];
        drop(events);
        return submit(lanes, partition, submitted).await?.await.map_err(|_| Error::Closed)?;
    }
    let mut groups: Vec<(u16, Vec<usize>, Vec<NewEvent>)> = Vec::new();
    for (place, event) in events.iter().enumerate() {
        let partition = partition_of(event.partition_key(), count);
        let new = NewEvent::of(event);
        match groups.iter_mut().find(|group| group.0 == partition) {
            Some(group) => {
                group.1.push(place);
                group.2.push(new);
            }
            None => groups.push((partition, vec![place], vec![new])),
        }
    }
    let mut answers = Vec::with_capacity(groups.len());
    for (partition, places, events) in groups {
        answers.push((places, submit(lanes, partition, events).await?));
    }
    let mut appended = vec![Appended::Duplicate; events.len()];
    for (places, answer) in answers {
        let results = answer.await.map_err(|_| Error::Closed)??;
        for (place, result) in places.into_iter().zip(results) {
            appended[place] = result;
        }
    }
    Ok(appended)
}

/// Queues events of one partition, and gives where their answer comes.
async fn submit(lanes: &[Lane], partition: u16, events: Vec<NewEvent>) -> Result<Answer, Error> {
    let (reply, answer) = oneshot::channel();
    lanes[usize::from(partition)].send(Submission { events, reply }).await.map_err(|_| Error::Closed)?;
    Ok(answer)
}

/// How long a caller waits: with replicas or disks also for theirs, and for those that the batch before it waits for.
fn time_max(shared: &Shared) -> Duration {
    APPEND_TIME_MAX + shared.options.wait.as_ref().map_or(Duration::ZERO, |wait| 2 * wait.timeout)
}

async fn run(shared: Arc<Shared>, partition: u16, mut queue: mpsc::Receiver<Submission>) {
    let mut under_way = FuturesUnordered::new();
    let waits = shared.options.wait.is_some();
    let (events_max, bytes_max, calls_max) = if waits {
        (WAIT_EVENTS_MAX, WAIT_BYTES_MAX, 1)
    } else {
        (BATCH_EVENTS_MAX, BATCH_BYTES_MAX, CALLS_IN_FLIGHT_MAX)
    };
    let mut phase = shared.phases();
    loop {
        let may_start = under_way.is_empty() || (under_way.len() < calls_max && queue.len() >= FURTHER_CALL_ITEMS_MIN);
        tokio::select! {
            Some(()) = under_way.next() => {}
            submission = queue.recv(), if may_start => match submission {
                Some(first) => under_way.push(store(&shared, partition, gather(first, &mut queue, events_max, bytes_max))),
                None => break,
            },
            // From here `recv` gives what is left, and then none.
            _ = phase.wait_for(|phase| *phase != Phase::Open), if !queue.is_closed() => queue.close(),
        }
    }
    while under_way.next().await.is_some() {}
}

/// Takes what is queued, up to a batch. A caller that has gone away is not served.
fn gather(
    first: Submission,
    queue: &mut mpsc::Receiver<Submission>,
    events_max: usize,
    bytes_max: usize,
) -> Vec<Submission> {
    let mut batch = Vec::new();
    let (mut events, mut bytes) = (0, 0);
    let mut next = Some(first);
    while let Some(submission) = next {
        if !submission.reply.is_closed() {
            events += submission.events.len();
            bytes += submission.events.iter().map(|event| event.record.len()).sum::<usize>();
            batch.push(submission);
        }
        next = if events < events_max && bytes < bytes_max { queue.try_recv().ok() } else { None };
    }
    batch
}

/// Stores a batch and answers its callers.
async fn store(shared: &Shared, partition: u16, batch: Vec<Submission>) {
    let deadline = Instant::now() + time_max(shared);
    let events: Vec<&NewEvent> = batch.iter().flat_map(|submission| &submission.events).collect();
    let mut outcomes: VecDeque<Result<Appended, Fault>> = VecDeque::new();
    // One caller may bring more than a call takes; its events go one call after the other, in order.
    let mut calls = calls_of(&events);
    match &shared.options.wait {
        Some(wait) => match store_and_wait(shared, partition, &calls, wait, deadline).await {
            Ok(appended) => outcomes.extend(appended.into_iter().map(Ok)),
            Err(fault) => outcomes.extend(std::iter::repeat_n(Err(fault), events.len())),
        },
        None => {
            calls.reverse();
            while let Some(events_of_call) = calls.pop() {
                match store_call(shared, partition, events_of_call, deadline).await {
                    Ok(appended) => outcomes.extend(appended.into_iter().map(Ok)),
                    Err(fault) => {
                        outcomes.extend(std::iter::repeat_n(Err(fault), events.len() - outcomes.len()));
                        break;
                    }
                }
            }
        }
    }
    for submission in batch {
        let results: Result<Vec<_>, Fault> = outcomes.drain(..submission.events.len()).collect();
        // A caller that has gone away knows that it knows nothing.
        let _ = submission.reply.send(results.map_err(Error::from));
    }
}

/// Events in parts that a call takes.
fn calls_of<'events>(mut events: &'events [&'events NewEvent]) -> Vec<&'events [&'events NewEvent]> {
    let mut calls = Vec::new();
    while !events.is_empty() {
        let mut bytes = 0;
        let fits = events.iter().take(BATCH_EVENTS_MAX).take_while(|event| {
            let fits = bytes < BATCH_BYTES_MAX;
            bytes += event.record.len();
            fits
        });
        let (call, rest) = events.split_at(fits.count());
        calls.push(call);
        events = rest;
    }
    calls
}

/// One script call, made again while its answer does not come. The nonce makes the repetition harmless.
async fn store_call(
    shared: &Shared,
    partition: u16,
    events: &[&NewEvent],
    deadline: Instant,
) -> Result<Vec<Appended>, Fault> {
    let nonce = Nonce::new();
    let mut pause = Duration::from_millis(20);
    loop {
        match tokio::time::timeout_at(deadline, store_once(shared, partition, nonce, events)).await {
            Ok(Ok(Some(appended))) => return Ok(appended),
            Ok(Ok(None)) => {} // The bucket of ids has changed; now we know the server's clock.
            Ok(Err(fault)) => {
                if !matches!(fault, Fault::Away(_) | Fault::NoScript) || Instant::now() + pause >= deadline {
                    return Err(fault);
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(_elapsed) => return Err(Fault::Away("no answer in time".to_owned())),
        }
    }
}

async fn store_once(
    shared: &Shared,
    partition: u16,
    nonce: Nonce,
    events: &[&NewEvent],
) -> Result<Option<Vec<Appended>>, Fault> {
    let link = shared.append_link(partition);
    let promise = shared.handover.promise(events.len(), &shared.membership, &shared.look_again);
    let write = |command: &mut Cmd| write_call(command, shared, partition, nonce, events, promise.as_ref());
    let bytes = events.iter().map(|event| event.record.len() + EVENT_EXTRA_BYTES).sum();
    let answer = link.run_large(&scripts::APPEND, bytes, write).await?;
    let Some(stored) = read_answer(shared, events.len(), answer)? else {
        promise.into_iter().for_each(|promise| promise.keep(Vec::new()));
        return Ok(None);
    };
    if let Some(promise) = promise {
        let claimed = events.iter().zip(&stored).filter(|(_, stored)| stored.claimed);
        let claims = claimed.filter_map(|(event, stored)| claim(shared, &promise, partition, event, stored.id?));
        let claims = claims.collect();
        promise.keep(claims);
    }
    Ok(Some(stored.iter().map(|stored| stored.appended(partition)).collect()))
}

/// Holds what the call claimed. It is the record that is read, as it would be from the stream: what is in flight holds no
/// more of a request's body than that.
fn claim(shared: &Shared, promise: &Promise<'_>, partition: u16, event: &NewEvent, id: StreamId) -> Option<EventClaim> {
    let fence = promise.member.generation;
    let Ok(event) = decode_event(&event.record) else {
        // It can't be read from the stream either: there it is put aside.
        shared.look_again.store(true, Ordering::Relaxed);
        return None;
    };
    let position = Position { partition, major: id.milliseconds, minor: id.sequence };
    let held = shared.membership.hold_event(fence, partition, id);
    held.then(|| EventClaim { event: Arc::new(event), position, fence })
}

/// Adds the keys and arguments of a call.
pub(super) fn write_call(
    command: &mut Cmd,
    shared: &Shared,
    partition: u16,
    nonce: Nonce,
    events: &[&NewEvent],
    promise: Option<&Promise<'_>>,
) {
    let keys = &shared.partitions[usize::from(partition)];
    let options = &shared.options.store;
    let width = shared.ids.width_ms;
    let bucket = shared.ids.current();
    let window = whole_millis(options.dedupe_window);
    let before = window.div_ceil(width).min(BUCKETS_BEFORE_MAX).min(bucket);
    let life = whole_millis(options.retention).saturating_add(width.saturating_mul(before + 1)).min(LIFE_MS_MAX);
    command.arg(2 + before).arg(&keys.events);
    for back in 0..=before {
        command.arg(keys.ids(bucket - back));
    }
    let waits = shared.options.wait.is_some();
    command.arg(bucket).arg(width).arg(window).arg(life).arg(u8::from(waits));
    command.arg(GROUP).arg(promise.map_or("", |promise| &*promise.member.name));
    command.arg(promise.map_or(0, |promise| promise.count)).arg(nonce.0);
    for event in events {
        command.arg(&event.field).arg(&*event.record);
    }
}

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Where it is; `None` for a duplicate.
    id: Option<StreamId>,
    claimed: bool,
}

impl Stored {
    pub(super) fn appended(&self, partition: u16) -> Appended {
        self.id.map_or(Appended::Duplicate, |id| {
            Appended::Stored(Position { partition, major: id.milliseconds, minor: id.sequence })
        })
    }
}

/// What a call answers; `None` when the bucket of ids has changed, and then the server's clock is known.
pub(super) fn read_answer(shared: &Shared, events: usize, answer: Value) -> Result<Option<Vec<Stored>>, Fault> {
    let mut answer = reply::array(answer)?.into_iter();
    let now = reply::count(&answer.next().unwrap_or(Value::Nil))?;
    let Some(ids) = answer.next() else {
        shared.ids.heard(now);
        return Ok(None);
    };
    let stored = places(&reply::bytes(ids)?.unwrap_or_default())?;
    if stored.len() == events { Ok(Some(stored)) } else { Err(Fault::strange("append")) }
}

/// Where events were stored: ids between commas, nothing for a duplicate, a star after one that the call has claimed.
fn places(ids: &[u8]) -> Result<Vec<Stored>, Fault> {
    let place = |text: &[u8]| {
        let (text, claimed) = text.strip_suffix(b"*").map_or((text, false), |id| (id, true));
        if text.is_empty() && !claimed {
            return Ok(Stored { id: None, claimed });
        }
        let id = StreamId::parse(text).ok_or_else(|| Fault::strange("append"))?;
        Ok(Stored { id: Some(id), claimed })
    };
    ids.split(|byte| *byte == b',').map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_place_for_each_event() {
        let stored =
            |milliseconds, sequence, claimed| Stored { id: Some(StreamId { milliseconds, sequence }), claimed };
        let duplicate = || Stored { id: None, claimed: false };
        for (ids, expected) in [
            ("17-2", vec![stored(17, 2, false)]),
            ("", vec![duplicate()]),
            ("17-2*,,18-0", vec![stored(17, 2, true), duplicate(), stored(18, 0, false)]),
            (",", vec![duplicate(), duplicate()]),
        ] {
            assert_eq!(places(ids.as_bytes()).unwrap(), expected, "{ids}");
        }
        for ids in ["17", "17-2,x", "17-2 18-0", "-", "*", "17-2**"] {
            assert!(places(ids.as_bytes()).is_err(), "{ids}");
        }
    }
}
