//! Several routers over one Redis, alone or a Cluster: streams, a sorted set and scripts.
//!
//! Each partition's keys lie in one hash slot and every step is one script. Callers' work gathers in a lane a
//! partition, so that a busy store makes few large calls. Fences, not locks: whoever lost a claim is told so.

mod append; // Accepted events into the streams.
mod append_wait; // The same, waited for.
mod audit; // Who did what, and which sources there were.
mod check; // Whether a server would lose, forget or refuse events.
mod claim; // Events out of the streams.
mod fault; // What can go wrong, sorted by what to do about it.
mod handover; // Events that are claimed by the call that stores them.
mod history; // What an operator reads.
mod ids; // The buckets of time that ids are kept in.
mod janitor; // Heartbeats, take-overs, names.
mod keys; // Names of keys.
mod layout; // What kind of store this is.
mod lease; // Who has claimed what of the schedule.
mod link; // One connection, with deadlines.
mod look; // What a router would find, without writing.
mod membership; // Who this process is, and what it holds.
mod pending; // Entries that were claimed and are not held.
mod read; // Events, outcomes, dead letters, figures; trimming.
mod replay; // What an operator changes by hand.
mod reply; // Answers, taken apart.
mod scan; // Pages over all partitions, in one order.
mod schedule; // What is due.
mod scripts; // The atomic steps.
mod sentinel; // Who is the master.
mod server; // The servers: what they are, how full they are.
mod settle; // Settlements: their lanes.
mod settle_deliveries; // Deliveries' settlements, in batches.
mod settle_events; // Events' settlements, in batches.
mod target; // Which Redis, and how to connect to it.
mod wait; // Replicas and disks that an event is waited for.
mod write_ahead; // Settlements too large for one call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::check::{Check, Checks, OnFault};
use self::claim::Claimer;
use self::handover::Handover;
use self::ids::IdsBuckets;
use self::janitor::Janitor;
use self::keys::{CommonKeys, PartitionKeys};
use self::link::Link;
pub use self::look::look;
use self::membership::Membership;
use self::server::Examiner;
use self::target::Dialer;
pub use self::target::{RedisTarget, RedisTls, SentinelTarget};
pub use self::wait::Wait;
use super::{
    Appended, Cursor, DeliveryClaim, DeliverySettlement, DueDeliveries, EndpointMark, Error, EventClaim,
    EventSettlement, MarkKind, Memory, Settled, Stats, Store, StoreOptions,
};
use crate::clock::Timestamp;
use crate::delivery::{DeadLetter, Delivery, OutcomeRecord};
use crate::event::{Event, Position};

/// How many connections events are appended over. Redis reads 16 KiB of a connection at a time and syncs its file
/// before it reads on, so that with `appendfsync always` several connections share a sync where the parts of one
/// each wait for their own. Measured against one connection: two to four times the events a second, and less CPU each.
const APPEND_LINKS_MAX: usize = 8;
/// How long closing waits for what was submitted to be written.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

/// How Redis is used.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// What every key's name begins with.
    pub prefix: String,
    /// How many partitions; fixed when the store is first used.
    pub partitions: u16,
    /// What holds for every store.
    pub store: StoreOptions,
    /// How often this process says that it is alive.
    pub heartbeat: Duration,
    /// A process that was silent for this long is taken over from.
    pub dead_after: Duration,
    /// What is waited for before an event counts as stored, besides the master's word.
    pub wait: Option<Wait>,
    /// What is done about servers that would lose, forget or refuse events.
    pub checks: Checks,
    /// How much memory a server may take; it may itself have a lower limit.
    pub memory_bytes_max: Option<u64>,
    /// While memory is short, settled events and outcomes older than this are removed before their retention ends.
    pub retention_when_short: Duration,
    /// What the servers want of TLS that is not usual.
    pub tls: Option<RedisTls>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            prefix: "bl".to_owned(),
            partitions: 1,
            store: StoreOptions::default(),
            heartbeat: Duration::from_secs(2),
            dead_after: Duration::from_secs(10),
            wait: None,
            checks: Checks::default(),
            memory_bytes_max: None,
            retention_when_short: Duration::from_secs(3_600),
            tls: None,
        }
    }
}

/// How far the closing of the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nothing new is taken; what was submitted is written.
    Closing,
    /// What is not written by now is given up.
    Abandoning,
}

/// What all parts of the store work with.
struct Shared {
    link: Link,
    /// The connections that events are appended over; partitions share them by turns.
    append_links: Vec<Link>,
    /// Whose turn it is to wait on each of them.
    append_turns: Vec<tokio::sync::Mutex<()>>,
    common: CommonKeys,
    partitions: Vec<PartitionKeys>,
    by_events_key: HashMap<String, u16>,
    options: RedisOptions,
    ids: IdsBuckets,
    membership: Membership,
    handover: Handover,
    /// Whose settlements are written in several calls wait here for their turn.
    large_settlements: Arc<Semaphore>,
    /// There may be entries in the own pending list that nobody holds.
    look_again: AtomicBool,
    /// Where the next round over the partitions begins.
    next_partition: AtomicUsize,
    /// By partition: the calls that claim what is due.
    due_calls: Vec<tokio::sync::Mutex<schedule::Calls>>,
    /// Memory is nearly full, as the figures last said.
    is_short: AtomicBool,
    /// Why the servers are not fit to store events, if so.
    unfit: ArcSwapOption<String>,
    phase: watch::Sender<Phase>,
}

impl Shared {
    fn append_link(&self, partition: u16) -> &Link {
        &self.append_links[usize::from(partition) % self.append_links.len()]
    }

    fn append_turn(&self, partition: u16) -> &tokio::sync::Mutex<()> {
        &self.append_turns[usize::from(partition) % self.append_turns.len()]
    }

    /// Tells of servers that have become unfit, or fit again.
    fn found_unfit(&self, reason: Option<String>) {
        let before = self.unfit.load_full();
        match (&before, &reason) {
            (None, Some(reason)) => tracing::error!("no events are stored, because {reason}"),
            (Some(_), None) => tracing::info!("events are stored again: Redis is as it should be"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.unfit.store(reason.map(Arc::new));
    }

    async fn look_at_memory(&self) -> Result<Memory, Error> {
        let memory = server::memory(&self.link, self.options.memory_bytes_max).await?;
        let was_short = self.is_short.load(Ordering::Relaxed);
        self.is_short.store(memory.is_short(was_short), Ordering::Relaxed);
        Ok(memory)
    }

    /// How long what is settled is kept.
    fn retention(&self) -> Duration {
        let retention = self.options.store.retention;
        if self.is_short.load(Ordering::Relaxed) { retention.min(self.options.retention_when_short) } else { retention }
    }

    fn refuse_when_unfit(&self) -> Result<(), Error> {
        match &*self.unfit.load() {
            None => Ok(()),
            Some(reason) => Err(Error::Away(reason.to_string())),
        }
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    fn refuse_when_closed(&self) -> Result<(), Error> {
        match self.phase() {
            Phase::Open => Ok(()),
            Phase::Closing | Phase::Abandoning => Err(Error::Closed),
        }
    }
}

/// The store in Redis. Dropped without [`Store::close`] it ends as a crash does.
pub struct RedisStore {
    shared: Arc<Shared>,
    append_lanes: Vec<append::Lane>,
    settle_lanes: Vec<settle::Lane>,
    claimer: tokio::sync::Mutex<Claimer>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl RedisStore {
    /// Connects, checks or writes the layout, takes a name, and takes over from processes that are gone.
    pub async fn open(target: RedisTarget, options: RedisOptions) -> Result<Self, Error> {
        if options.partitions == 0 {
            return Err(Error::Unusable("the store needs at least one partition".to_owned()));
        }
        let dialer = Arc::new(Dialer::new(&target, &options)?);
        let link = Link::new(&dialer);
        let common = CommonKeys::new(&options.prefix);
        let mut examiner = Examiner::default();
        if let Some(refusal) = examiner.look(&link, &options).await? {
            return Err(Error::Unusable(refusal));
        }
        let ids_bucket_ms = layout::open(&link, &common, &options).await?;
        let partitions: Vec<_> =
            (0..options.partitions).map(|partition| PartitionKeys::new(&options.prefix, partition)).collect();
        let append_links: Vec<_> = (0..partitions.len().min(APPEND_LINKS_MAX)).map(|_| Link::new(&dialer)).collect();
        let shared = Arc::new(Shared {
            append_turns: append_links.iter().map(|_| tokio::sync::Mutex::default()).collect(),
            append_links,
            link,
            common,
            by_events_key: partitions.iter().map(|keys| keys.events.clone()).zip(0..).collect(),
            membership: Membership::new(partitions.len()),
            handover: Handover::default(),
            due_calls: partitions.iter().map(|_| tokio::sync::Mutex::default()).collect(),
            partitions,
            options,
            ids: IdsBuckets::new(ids_bucket_ms),
            large_settlements: Arc::new(Semaphore::new(write_ahead::LARGE_SETTLEMENTS_MAX)),
            look_again: AtomicBool::new(false),
            next_partition: AtomicUsize::new(0),
            is_short: AtomicBool::new(false),
            unfit: ArcSwapOption::empty(),
            phase: watch::channel(Phase::Open).0,
        });
        let mut janitor = Janitor::new(examiner);
        janitor.turn(&shared).await?;

        let mut tasks = vec![tokio::spawn(janitor.run(Arc::clone(&shared)))];
        let (mut append_lanes, mut settle_lanes) = (Vec::new(), Vec::new());
        for partition in 0..shared.options.partitions {
            let (lane, task) = append::start(&shared, partition);
            append_lanes.push(lane);
            tasks.push(task);
            let (lane, task) = settle::start(&shared, partition);
            settle_lanes.push(lane);
            tasks.push(task);
        }
        if let Some(sentinels) = dialer.sentinels() {
            tasks.push(tokio::spawn(sentinel::watch(Arc::clone(sentinels), shared.phases())));
        }
        let claimer = tokio::sync::Mutex::new(Claimer::new(Link::new(&dialer)));
        Ok(Self { shared, append_lanes, settle_lanes, claimer, tasks: Mutex::new(tasks) })
    }

    fn take_tasks(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        for task in self.take_tasks() {
            task.abort();
        }
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn append(&self, events: Vec<Event>) -> Result<Vec<Appended>, Error> {
        self.shared.refuse_when_unfit()?;
        append::append(&self.shared, &self.append_lanes, events).await
    }

    async fn claim_events(&self, max: usize, wait: Duration) -> Result<Vec<EventClaim>, Error> {
        self.shared.refuse_when_closed()?;
        let deadline = Instant::now() + wait;
        let Ok(mut claimer) = tokio::time::timeout_at(deadline, self.claimer.lock()).await else {
            return Ok(Vec::new());
        };
        claimer.claim(&self.shared, max, deadline).await
    }

    async fn settle_event(&self, settlement: EventSettlement) -> Result<Settled<Vec<DeliveryClaim>>, Error> {
        settle::event(&self.shared, &self.settle_lanes, settlement).await
    }

    async fn claim_due(&self, max: usize) -> Result<DueDeliveries, Error> {
        self.shared.refuse_when_closed()?;
        schedule::claim_due(&self.shared, max).await
    }

    async fn settle_delivery(&self, settlement: DeliverySettlement) -> Result<Settled<()>, Error> {
        settle::delivery(&self.shared, &self.settle_lanes, settlement).await
    }

    async fn close(&self) -> Result<(), Error> {
        let deadline = Instant::now() + CLOSE_TIME_MAX;
        self.shared.phase.send_if_modified(|phase| {
            *phase == Phase::Open && {
                *phase = Phase::Closing;
                true
            }
        });
        // Claiming sees the phase and ends; the lanes write what they have and end.
        let mut claimer = self.claimer.lock().await;
        claimer.stop().await;
        for mut task in self.take_tasks() {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                self.shared.phase.send_replace(Phase::Abandoning);
                // Whether it ended well: it is over.
                let _ = task.await;
            }
        }
        schedule::hand_back(&self.shared).await?;
        janitor::leave(&self.shared).await?;
        self.shared.link.disconnect();
        self.shared.append_links.iter().for_each(Link::disconnect);
        Ok(())
    }

    async fn mark_endpoint(&self, mark: EndpointMark) -> Result<(), Error> {
        read::mark(&self.shared, &mark).await
    }

    async fn unmark_endpoint(&self, name: &str, kind: MarkKind) -> Result<bool, Error> {
        read::unmark(&self.shared, name, kind).await
    }

    async fn endpoint_marks(&self) -> Result<Vec<EndpointMark>, Error> {
        read::marks(&self.shared).await
    }

    async fn hasten(&self, subscriptions: &[Arc<str>], max: usize) -> Result<usize, Error> {
        schedule::hasten(&self.shared, subscriptions, max).await
    }

    async fn stats(&self) -> Result<Stats, Error> {
        self.shared.refuse_when_unfit()?;
        let (stats, memory) = tokio::try_join!(read::stats(&self.shared), self.shared.look_at_memory())?;
        Ok(Stats { memory, ..stats })
    }

    async fn trim(&self) -> Result<u64, Error> {
        read::trim(&self.shared).await
    }

    async fn event(&self, position: Position) -> Result<Option<Event>, Error> {
        read::event(&self.shared, position).await
    }

    async fn find_event(&self, source: &str, id: &str) -> Result<Option<(Position, Event)>, Error> {
        read::find_event(&self.shared, source, id).await
    }

    async fn outcomes(&self, cursor: Option<Cursor>, limit: usize) -> Result<(Vec<OutcomeRecord>, Cursor), Error> {
        read::outcomes(&self.shared, cursor, limit).await
    }

    async fn dead_letters(&self, cursor: Option<Cursor>, limit: usize) -> Result<(Vec<DeadLetter>, Cursor), Error> {
        read::dead_letters(&self.shared, cursor, limit).await
    }

    async fn scheduled(&self, limit: usize) -> Result<Vec<(Timestamp, Delivery)>, Error> {
        let waiting = schedule::listed(&self.shared, None, None, limit).await?;
        Ok(waiting.items.into_iter().map(|waiting| (waiting.due, waiting.delivery)).collect())
    }
}
