//! Several routers over one Redis, alone or a Cluster: streams, a sorted set and scripts.
//!
//! Each partition's keys lie in one hash slot and every step is one script. Callers' work gathers in a lane a
//! partition, so that a busy store makes few large calls. Fences, not locks: whoever lost a claim is told so.

mod append; // Accepted events into the streams.
mod audit; // Who did what, and which sources there were.
mod claim; // Events out of the streams.
mod fault; // What can go wrong, sorted by what to do about it.
mod history; // What an operator reads.
mod janitor; // Heartbeats, take-overs, names.
mod keys; // Names of keys.
mod layout; // What kind of server and store this is; refuses what would lose events.
mod link; // One connection, with deadlines.
mod membership; // Who this process is, and what it holds.
mod read; // Events, outcomes, dead letters, figures; trimming.
mod replay; // What an operator changes by hand.
mod reply; // Answers, taken apart.
mod scan; // Pages over all partitions, in one order.
mod schedule; // What is due.
mod scripts; // The atomic steps.
mod settle; // Settlements: their lanes.
mod settle_deliveries; // Deliveries' settlements, in batches.
mod settle_events; // Events' settlements, in batches.
mod write_ahead; // Settlements too large for one call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::append::IdsBuckets;
use self::claim::Claimer;
use self::janitor::Janitor;
use self::keys::{CommonKeys, PartitionKeys};
use self::link::Link;
use self::membership::Membership;
use super::{
    Appended, Cursor, DeliveryClaim, DeliverySettlement, DueDeliveries, EndpointMark, Error, EventClaim,
    EventSettlement, MarkKind, Settled, Stats, Store, StoreOptions,
};
use crate::clock::Timestamp;
use crate::delivery::{DeadLetter, Delivery, OutcomeRecord};
use crate::event::{Event, Position};
use crate::secret::Secret;

/// How many connections events are appended over. Redis reads 16 KiB of a connection at a time and syncs its file
/// before it reads on, so that with `appendfsync always` several connections share a sync where the parts of one
/// each wait for their own. Measured against one connection: two to four times the events a second, and less CPU each.
const APPEND_LINKS_MAX: usize = 8;
/// How long closing waits for what was submitted to be written.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

/// Which Redis.
#[derive(Clone, Debug)]
pub enum RedisTarget {
    /// One server: `redis://…` or `rediss://…`. The URL may hold a password.
    Single(Secret),
    /// A Cluster, by some of its nodes.
    Cluster(Vec<Secret>),
}

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
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            prefix: "bl".to_owned(),
            partitions: 1,
            store: StoreOptions::default(),
            heartbeat: Duration::from_secs(2),
            dead_after: Duration::from_secs(10),
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
    common: CommonKeys,
    partitions: Vec<PartitionKeys>,
    by_events_key: HashMap<String, u16>,
    options: RedisOptions,
    ids: IdsBuckets,
    membership: Membership,
    /// Whose settlements are written in several calls wait here for their turn.
    large_settlements: Arc<Semaphore>,
    /// There may be entries in the own pending list that nobody holds.
    look_again: AtomicBool,
    /// Where the next round over the partitions begins.
    next_partition: AtomicUsize,
    phase: watch::Sender<Phase>,
}

impl Shared {
    fn append_link(&self, partition: u16) -> &Link {
        &self.append_links[usize::from(partition) % self.append_links.len()]
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
        let link = Link::new(&target)?;
        let common = CommonKeys::new(&options.prefix);
        layout::check_server(&link).await?;
        let ids_bucket_ms = layout::open(&link, &common, &options).await?;
        let partitions: Vec<_> =
            (0..options.partitions).map(|partition| PartitionKeys::new(&options.prefix, partition)).collect();
        let append_links = (0..partitions.len().min(APPEND_LINKS_MAX)).map(|_| Link::new(&target));
        let append_links = append_links.collect::<Result<_, _>>()?;
        let shared = Arc::new(Shared {
            append_links,
            link,
            common,
            by_events_key: partitions.iter().map(|keys| keys.events.clone()).zip(0..).collect(),
            membership: Membership::new(partitions.len()),
            partitions,
            options,
            ids: IdsBuckets::new(ids_bucket_ms),
            large_settlements: Arc::new(Semaphore::new(write_ahead::LARGE_SETTLEMENTS_MAX)),
            look_again: AtomicBool::new(false),
            next_partition: AtomicUsize::new(0),
            phase: watch::channel(Phase::Open).0,
        });
        let mut janitor = Janitor::default();
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
        let claimer = tokio::sync::Mutex::new(Claimer::new(Link::new(&target)?));
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
        read::stats(&self.shared).await
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
        let waiting = schedule::listed(&self.shared, None, limit).await?;
        Ok(waiting.into_iter().map(|waiting| (waiting.due, waiting.delivery)).collect())
    }
}
