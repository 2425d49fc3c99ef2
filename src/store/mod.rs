//! The only place where durable state is: accepted events, the schedule, dead letters, outcomes.
//!
//! A stage hands its work to a [`Store`] and gets claims back; a crash between two stages loses
//! nothing, because there is nothing between them. Both stores run the same contract tests
//! (`tests/promises/store_contract.rs`). Nothing here decides anything about an event.

pub mod embedded; // One process: SQLite on disk.
mod event_record; // How events are written as bytes.
#[cfg(test)]
mod fuzz;
mod history; // Looking back and asking again.
mod outcome_line; // How outcomes are written.
mod record; // How deliveries and dead letters are written as bytes.
pub mod redis; // Several routers: streams, a sorted set and scripts.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::delivery::{DeadLetter, Delivery, OutcomeRecord};
use crate::event::{Event, Position};

pub use event_record::{decode_event, encode_event};
pub use history::{
    AuditEntry, DeliveryKey, History, NoCursor, Order, Page, PageLimits, Replay, ReplayFrom, Replayed, Scan,
    ScanCursor, ScheduleCursor, SchedulePage, WaitingDelivery,
};
pub use record::{decode_dead_letter, decode_delivery, encode_dead_letter, encode_delivery};

/// Durable state behind one trait. Every method may be called from many tasks at once.
///
/// A store batches across callers by itself (group commit): callers don't gather. What an operator asks is in [`History`].
#[async_trait]
pub trait Store: History + Send + Sync + 'static {
    /// Stores events durably, in order, and returns only then. An event whose source and id are
    /// known from within the dedupe window is not stored again.
    ///
    /// On an error it is unknown which of the events are stored; the same call again is safe for
    /// events whose ids the producer chose.
    async fn append(&self, events: Vec<Event>) -> Result<Vec<Appended>, Error>;

    /// Claims up to about `max` events for this process (a store with partitions may give a few more), waiting at most `wait` for the first.
    ///
    /// Claimed again after a crash: what a dead process held, what this process held before a restart.
    /// Dropping the future loses no event: what was claimed by it comes again from a later call.
    /// Whoever asked for more than it got is taken to ask again: the store may claim what comes meanwhile for that call.
    async fn claim_events(&self, max: usize, wait: Duration) -> Result<Vec<EventClaim>, Error>;

    /// Acknowledges an event, records its outcomes, and writes its scheduled deliveries and dead letters, in one atomic step.
    ///
    /// The answer has a claim for each entry of `scheduled` whose `hold` is [`Hold::Claimed`], in order.
    /// Keeps trying while the store is away; an error is final.
    async fn settle_event(&self, settlement: EventSettlement) -> Result<Settled<Vec<DeliveryClaim>>, Error>;

    /// Claims up to `max` deliveries that are due, under a lease: unless they are settled before it ends, they fall due again.
    async fn claim_due(&self, max: usize) -> Result<DueDeliveries, Error>;

    /// Settles a claimed delivery in one atomic step.
    ///
    /// Keeps trying while the store is away; an error is final.
    async fn settle_delivery(&self, settlement: DeliverySettlement) -> Result<Settled<()>, Error>;

    /// Stops claiming, waits for what was submitted to be written, and hands back every claim that is not settled, so that another process (or the next start) takes it up at once.
    async fn close(&self) -> Result<(), Error>;

    /// Marks an endpoint: its deliveries are held. A mark replaces one of the same name and kind.
    async fn mark_endpoint(&self, mark: EndpointMark) -> Result<(), Error>;

    /// Takes a mark away. False when there was none.
    async fn unmark_endpoint(&self, name: &str, kind: MarkKind) -> Result<bool, Error>;

    /// All marks.
    async fn endpoint_marks(&self) -> Result<Vec<EndpointMark>, Error>;

    /// Makes the deliveries of these subscriptions that wait in the schedule unclaimed fall due now. Returns how many; bounded to `max` a call.
    async fn hasten(&self, subscriptions: &[Arc<str>], max: usize) -> Result<usize, Error>;

    /// How much the store holds. Cheap: called every second.
    async fn stats(&self) -> Result<Stats, Error>;

    /// Removes what is settled and older than the retention, in a bounded step; never an event that
    /// still waits. Returns how much was removed; 0 when there is nothing more to do now.
    async fn trim(&self) -> Result<u64, Error>;

    /// Reads one event back; `None` when it is not there (any more).
    async fn event(&self, position: Position) -> Result<Option<Event>, Error>;

    /// Looks an event up by the producer's source and id.
    async fn find_event(&self, source: &str, id: &str) -> Result<Option<(Position, Event)>, Error>;

    /// Outcome records in the order they were written within a partition, from after `cursor`, about `limit` of them.
    ///
    /// Returns the cursor to go on from; an empty page means the end.
    async fn outcomes(&self, cursor: Option<Cursor>, limit: usize) -> Result<(Vec<OutcomeRecord>, Cursor), Error>;

    /// Dead letters, oldest first within a partition, from after `cursor`.
    async fn dead_letters(&self, cursor: Option<Cursor>, limit: usize) -> Result<(Vec<DeadLetter>, Cursor), Error>;

    /// The deliveries that wait in the schedule with when they fall due (a claimed one: when its lease ends), soonest first, at most `limit`.
    async fn scheduled(&self, limit: usize) -> Result<Vec<(Timestamp, Delivery)>, Error>;
}

/// How many waiting deliveries one step of [`hasten_all`] makes due.
const HASTEN_BATCH_MAX: usize = 10_000;

/// Makes all deliveries of these subscriptions that wait in the schedule unclaimed fall due now, step by step. Returns how many.
pub async fn hasten_all(store: &dyn Store, subscriptions: &[Arc<str>]) -> Result<usize, Error> {
    let mut due = 0;
    loop {
        match store.hasten(subscriptions, HASTEN_BATCH_MAX).await? {
            0 => return Ok(due),
            step => due += step,
        }
    }
}

/// What [`Store::append`] did with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is stored here.
    Stored(Position),
    /// An event with its source and id was stored before.
    Duplicate,
}

/// An event this process holds. Settle it once: it is taken by value.
#[derive(Debug)]
pub struct EventClaim {
    /// The event.
    pub event: Arc<Event>,
    /// Where it stands.
    pub position: Position,
    /// What the store fences with: the claim's generation within this process.
    pub(crate) fence: u64,
}

impl EventClaim {
    /// The same claim once more, for the case that whoever settles this one panics. Only one of them may be settled.
    pub(crate) fn again(&self) -> Self {
        Self { event: Arc::clone(&self.event), position: self.position, fence: self.fence }
    }
}

/// A delivery this process holds under a lease. Settle it once: it is taken by value.
#[derive(Debug)]
pub struct DeliveryClaim {
    /// The delivery.
    pub delivery: Delivery,
    /// When the lease ends, by the store's clock: what the store fences with.
    pub(crate) fence: u64,
}

impl DeliveryClaim {
    /// The same claim once more, for the case that whoever settles this one panics. Only one of them may be settled.
    pub(crate) fn again(&self) -> Self {
        Self { delivery: self.delivery.clone(), fence: self.fence }
    }
}

/// What [`Store::claim_due`] found.
#[derive(Debug, Default)]
pub struct DueDeliveries {
    /// The claims.
    pub claims: Vec<DeliveryClaim>,
    /// How long until the next delivery falls due, if one waits; zero when more are due now.
    pub next_in: Option<Duration>,
}

/// An event's end: everything that is to be written when it is acknowledged.
#[derive(Debug)]
pub struct EventSettlement {
    /// The claim.
    pub claim: EventClaim,
    /// One for each subscription that matched, or one without subscription when none did.
    pub outcomes: Vec<OutcomeRecord>,
    /// The deliveries that outlive the event.
    pub scheduled: Vec<ScheduledDelivery>,
    /// The deliveries that were given up.
    pub dead_letters: Vec<DeadLetter>,
}

/// A delivery to be written into the schedule.
#[derive(Debug)]
pub struct ScheduledDelivery {
    /// The delivery.
    pub delivery: Delivery,
    /// Whether it waits, or goes on being held by this process.
    pub hold: Hold,
}

/// How a delivery stands in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It falls due after this long, by the store's clock.
    Wait(Duration),
    /// This process goes on holding it under a lease.
    Claimed,
}

/// A claimed delivery's next state.
#[derive(Debug)]
pub struct DeliverySettlement {
    /// The claim.
    pub claim: DeliveryClaim,
    /// What is recorded; nothing when it only goes on waiting as before.
    pub outcome: Option<OutcomeRecord>,
    /// What becomes of it.
    pub next: NextState,
}

/// What becomes of a settled delivery.
#[derive(Debug)]
pub enum NextState {
    /// It leaves the schedule: delivered, dropped.
    Ended,
    /// It is written anew (the claim's delivery is replaced by this one) and falls due after this long, by the store's clock.
    Waits(Delivery, Duration),
    /// It leaves the schedule and is kept as a dead letter.
    Dead(DeadLetter),
}

/// Whether a settlement was written.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled<T> {
    /// It was.
    Written(T),
    /// The claim was lost: its lease ended and another process holds it or has settled it. Nothing was written.
    Lost,
}

/// A mark on an endpoint, by which its deliveries are held.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EndpointMark {
    /// The endpoint's name.
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub kind: MarkKind,
    /// A digest of its URL.
    pub target: String,
    /// A sentence for people.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}

/// Why an endpoint's deliveries are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarkKind {
    /// It answered `410`. Records from before there were kinds are of this one.
    #[default]
    Disabled,
    /// The operator has paused it.
    Paused,
}

impl MarkKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Disabled, Self::Paused];

    /// What the mark on an endpoint is stored under. No endpoint's name has a colon.
    pub(crate) fn key(self, name: &str) -> String {
        match self {
            Self::Disabled => name.to_owned(),
            Self::Paused => format!("paused:{name}"),
        }
    }
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Events accepted and not settled, claimed ones included.
    pub backlog: u64,
    /// Deliveries in the schedule, claimed ones included.
    pub scheduled: u64,
    /// Of those, how long the one most overdue has been due, in milliseconds; 0 when none is.
    pub overdue_ms: u64,
    /// Dead letters kept.
    pub dead_letters: u64,
    /// How full the memory is where everything is kept in memory.
    pub memory: Memory,
}

/// How full a store's memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// What is taken.
    pub used_bytes: u64,
    /// What may be taken; 0 when nobody says.
    pub bytes_max: u64,
}

impl Memory {
    /// Whether it is nearly full: from four fifths on, and then until it is below seven tenths, so that it does not change all the time.
    pub fn is_short(self, was_short: bool) -> bool {
        let percent = if was_short { 70 } else { 80 };
        self.bytes_max > 0 && self.used_bytes.saturating_mul(100) >= self.bytes_max.saturating_mul(percent)
    }
}

/// Where a reader of outcomes or dead letters goes on: a place per partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub(crate) Vec<(u64, u64)>);

/// What holds for every store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How long settled events, outcomes and dead letters are kept.
    pub retention: Duration,
    /// How long an id is remembered at least; at most twice as long.
    pub dedupe_window: Duration,
    /// How long a claimed delivery is held before it falls due again. Longer than any attempt can take.
    pub lease: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(7 * 86_400),
            dedupe_window: Duration::from_secs(600),
            lease: Duration::from_secs(60),
        }
    }
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store can't be reached or does not answer; trying again later may help.
    #[error("the store is away: {0}")]
    Away(String),
    /// The store has no room; trying again later may help.
    #[error("the store is full: {0}")]
    Full(String),
    /// The store is closing or closed.
    #[error("the store is closed")]
    Closed,
    /// The store can't be used as it is: wrong version, wrong layout, locked by another process.
    #[error("{0}")]
    Unusable(String),
    /// A record can't be read: damaged, or written by a newer version.
    #[error("a stored {what} can't be read: {detail}")]
    Damaged {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

/// The partition of an event among `count`.
///
/// FNV-1a, written out here because what is stored depends on it for ever.
pub(crate) fn partition_of(key: &str, count: u16) -> u16 {
    let hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The low bits of FNV-1a are the weaker ones; fold the high half in.
    u16::try_from((hash ^ (hash >> 32)) % u64::from(count.max(1))).expect("the remainder is below a u16")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_from_four_fifths_until_below_seven_tenths() {
        let memory = |used_bytes| Memory { used_bytes, bytes_max: 1000 };
        let mut short = false;
        let steps = [(799, false), (800, true), (750, true), (700, true), (699, false), (750, false)];
        for (used, expected) in steps {
            short = memory(used).is_short(short);
            assert_eq!(short, expected, "{used}");
        }
        assert!(!Memory { used_bytes: u64::MAX, bytes_max: 0 }.is_short(true));
    }

    #[test]
    fn partitions_stay_where_they_are_and_are_even() {
        assert_eq!(partition_of("user_xyz789", 16), partition_of("user_xyz789", 16));
        let mut counts = [0_u32; 16];
        for n in 0..16_000 {
            counts[usize::from(partition_of(&format!("order_{n}"), 16))] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
