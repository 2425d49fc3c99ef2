//! Looking back and asking again: what an operator reads of a store, and the few things he changes by hand.
//!
//! Pages are bounded by count and by bytes and go on from a cursor that is made of the order they are read in, so
//! that whatever is stored or removed meanwhile, nothing is skipped and nothing comes twice. None of it is on an event's path.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::clock::Timestamp;
use crate::delivery::{DeadLetter, Delivery, DeliveryId, OutcomeRecord};
use crate::event::{Event, Position};

/// What an operator reads of a store and changes in it.
#[async_trait]
pub trait History: Send + Sync {
    /// Stored events in the order of acceptance, as the store saw it. One that can't be read is left out and told of in the log.
    async fn scan_events(
        &self,
        scan: &Scan,
        cursor: Option<ScanCursor>,
        limits: PageLimits,
    ) -> Result<Page<(Position, Event)>, Error>;

    /// Dead letters in the order in which they were given up, each with its place.
    async fn scan_dead_letters(
        &self,
        scan: &Scan,
        cursor: Option<ScanCursor>,
        limits: PageLimits,
    ) -> Result<Page<(Position, DeadLetter)>, Error>;

    /// What was recorded of these events (each with its place and its time of acceptance), in the order in which it was written.
    ///
    /// Cheap for one event, and for many that were accepted one after the other.
    async fn outcomes_of(&self, events: &[(Position, Timestamp)]) -> Result<Vec<OutcomeRecord>, Error>;

    /// Which of these deliveries are in the schedule; an answer for each.
    async fn waiting(&self, deliveries: &[DeliveryKey]) -> Result<Vec<Option<WaitingDelivery>>, Error>;

    /// A page of what is in the schedule, soonest first; of one subscription or of all. What is put elsewhere in the schedule
    /// between two pages is on both or on none.
    async fn schedule(
        &self,
        subscription: Option<&str>,
        after: Option<ScheduleCursor>,
        limit: usize,
    ) -> Result<SchedulePage, Error>;

    /// How many deliveries are in the schedule; of one subscription or of all. While others change it, about as many.
    async fn count_waiting(&self, subscription: Option<&str>) -> Result<u64, Error>;

    /// The dead letter of a delivery, and its place.
    async fn dead_letter(&self, id: &DeliveryId) -> Result<Option<(Position, DeadLetter)>, Error>;

    /// Puts a delivery into the schedule, due now, in one atomic step; a dead letter that it comes from is removed in the same step.
    ///
    /// A delivery is never twice in the schedule, and a dead letter is replayed once, however many ask at a time.
    async fn replay(&self, replay: Replay) -> Result<Replayed, Error>;

    /// Removes the dead letter at this place and records why, in one atomic step. False when it is not there any more.
    async fn discard(&self, place: Position, id: &DeliveryId, outcome: OutcomeRecord) -> Result<bool, Error>;

    /// Notes who did what.
    async fn record_audit(&self, entry: &AuditEntry) -> Result<(), Error>;

    /// Who did what, newest first, for as long as the retention.
    async fn audit_log(&self, cursor: Option<ScanCursor>, limit: usize) -> Result<Page<AuditEntry>, Error>;

    /// Remembers sources by name, so that an event can be looked up without its source for as long as it is kept.
    async fn remember_sources(&self, names: &[Arc<str>]) -> Result<(), Error>;

    /// Every source ever remembered.
    async fn sources(&self) -> Result<Vec<String>, Error>;
}

/// What is read, and in which order. Times are the store's: when it took the record in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// From this time on.
    pub since: Timestamp,
    /// Before this time. A scan from the oldest on ends with what was there when it began, also without this.
    pub until: Option<Timestamp>,
    /// Which comes first.
    pub order: Order,
}

impl Scan {
    /// Everything there is.
    pub const fn all(order: Order) -> Self {
        Self { since: Timestamp::from_millis(0), until: None, order }
    }
}

/// Which record comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The one that was stored first.
    OldestFirst,
    /// The one that was stored last.
    NewestFirst,
}

/// How much one page has at most; one record always fits.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Records.
    pub records: usize,
    /// Bytes of records, about.
    pub bytes: usize,
}

impl PageLimits {
    /// So many records, of bearable size together.
    pub const fn records(records: usize) -> Self {
        Self { records, bytes: 8 << 20 }
    }
}

/// A part of what is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The records.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end. A page may be empty and still not be the last.
    pub next: Option<ScanCursor>,
    /// Where the scan ends, so that a reader may go on from any of the records.
    pub(crate) bound: u64,
}

/// Where a scan goes on. Opaque outside the store; as a text it may be given to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanCursor {
    /// The record that was given last.
    pub(crate) last: Position,
    /// Where the scan ends: fixed when it began.
    pub(crate) bound: u64,
}

impl fmt::Display for ScanCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { partition, major, minor } = self.last;
        write!(f, "{partition:x}-{major:x}-{minor:x}-{:x}", self.bound)
    }
}

/// The text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that was given out")]
pub struct NoCursor;

impl FromStr for ScanCursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let numbers: Vec<u64> = text
            .split('-')
            .map(|part| u64::from_str_radix(part, 16).map_err(|_| NoCursor))
            .collect::<Result<_, _>>()?;
        let [partition, major, minor, bound] = numbers[..] else { return Err(NoCursor) };
        let partition = u16::try_from(partition).map_err(|_| NoCursor)?;
        Ok(Self { last: Position { partition, major, minor }, bound })
    }
}

/// A part of the schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchedulePage {
    /// The deliveries.
    pub items: Vec<WaitingDelivery>,
    /// Where to go on; `None` at the end. A page may be empty and still not be the last.
    pub next: Option<ScheduleCursor>,
}

/// A place in the schedule, by which what follows it is found. Opaque outside the store; as a text it may be given to a client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScheduleCursor {
    /// When what stands there falls due, in milliseconds.
    pub(crate) due_ms: u64,
    /// Whether that is the end of a lease: it comes after what is due in the same millisecond.
    pub(crate) is_lease: bool,
    /// What stands there, by the store's own name for it.
    pub(crate) member: String,
}

impl fmt::Display for ScheduleCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}-{}", self.due_ms, u8::from(self.is_lease), self.member)
    }
}

impl FromStr for ScheduleCursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let mut parts = text.splitn(3, '-');
        let mut part = || parts.next().ok_or(NoCursor);
        let due_ms = u64::from_str_radix(part()?, 16).map_err(|_| NoCursor)?;
        let is_lease = match part()? {
            "0" => false,
            "1" => true,
            _ => return Err(NoCursor),
        };
        Ok(Self { due_ms, is_lease, member: part()?.to_owned() })
    }
}

/// What a delivery in the schedule is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryKey {
    /// Where its event stands.
    pub event: Position,
    /// Its id.
    pub id: DeliveryId,
    /// Its subscription.
    pub subscription: Arc<str>,
}

/// A delivery in the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingDelivery {
    /// When it falls due; of one that is held, when its lease ends.
    pub due: Timestamp,
    /// Whether a router is at work on it.
    pub held: bool,
    /// The delivery.
    pub delivery: Delivery,
}

/// A delivery that is to be made again.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The delivery as it is to stand in the schedule.
    pub delivery: Delivery,
    /// Where it comes from.
    pub from: ReplayFrom,
    /// Whether one that waits already is written anew; else it is only made due.
    pub anew: bool,
    /// What is recorded of it.
    pub outcome: OutcomeRecord,
}

/// Where a replayed delivery comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayFrom {
    /// The dead letter at this place: it must still be there, and is removed.
    DeadLetter(Position),
    /// The event; there must be no dead letter.
    Event,
}

/// What became of a replay. Only the first two changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It is in the schedule now.
    Scheduled,
    /// It was waiting in the schedule, and is due now.
    Hastened,
    /// A router is at work on it at this moment.
    Held,
    /// The dead letter is not there any more: somebody else has replayed or discarded it, or it was trimmed.
    Gone,
    /// There is a dead letter of it, which has to be replayed instead.
    DeadLettered,
}

/// Who did what, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who: a token's name, or where the caller came from.
    pub who: String,
    /// What, in one word, for example `replay`.
    pub action: String,
    /// To what: an endpoint's name, a delivery's id, a selection.
    pub target: String,
    /// What came of it, in a few words; no payload, no secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_from_its_text_and_nothing_else_is() {
        let last = Position { partition: u16::MAX, major: u64::MAX, minor: 7 };
        let cursor = ScanCursor { last, bound: 1 << 40 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "1-2-3", "1-2-3-4-5", "10000-2-3-4", "1-2-x-4", "1-2--4", "+1-2-3-4-"] {
            assert_eq!(text.parse::<ScanCursor>(), Err(NoCursor), "{text}");
        }
    }
}
