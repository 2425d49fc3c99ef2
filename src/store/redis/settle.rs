//! Settlements: gathered by partition, one script call a batch, repeated until Redis has answered.
//!
//! At most one call for events and one for deliveries is under way in a partition; its sequence number makes a
//! repetition harmless. What settles while a call is under way gathers for the next one. What is too large for a
//! call is written ahead beside the lane, so that nothing waits behind it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::fault::Fault;
use super::keys::member;
use super::reply::StreamId;
use super::settle_deliveries::{DeliveryItem, settle_deliveries};
use super::settle_events::{EventItem, settle_events};
use super::write_ahead::{self, Ahead};
use super::{Phase, Shared};
use crate::delivery::{OutcomeRecord, whole_millis};
use crate::event::Position;
use crate::store::outcome_line::push_outcome;
use crate::store::{
    DeliveryClaim, DeliverySettlement, Error, EventSettlement, Hold, NextState, Settled, encode_dead_letter,
    encode_delivery,
};

const QUEUE_ITEMS_MAX: usize = 1024;
/// What most outcomes fit into.
const LINE_BYTES: usize = 384;
pub(super) const BATCH_ITEMS_MAX: usize = 128;
pub(super) const BATCH_BYTES_MAX: usize = 1024 * 1024;
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// No wait is longer than this, so that a sum of milliseconds stays exact.
const WAIT_MS_MAX: u64 = 100 * 365 * 86_400_000;

/// What is queued in a partition's lane.
pub(super) enum Item {
    Event(EventItem),
    Delivery(DeliveryItem),
}

pub(super) type Lane = mpsc::Sender<Item>;

/// Starts a partition's lane. It ends when the store closes and its queue is empty.
pub(super) fn start(shared: &Arc<Shared>, partition: u16) -> (Lane, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(QUEUE_ITEMS_MAX);
    (sender, tokio::spawn(run(Arc::clone(shared), partition, receiver)))
}

/// Settles an event.
pub(super) async fn event(
    shared: &Shared,
    lanes: &[Lane],
    settlement: EventSettlement,
) -> Result<Settled<Vec<DeliveryClaim>>, Error> {
    let EventSettlement { claim, outcomes, scheduled, dead_letters } = settlement;
    let Position { partition, major, minor } = claim.position;
    let mut ahead = Ahead::when_large(shared, &scheduled, &dead_letters).await?;
    let mut deliveries = Vec::with_capacity(scheduled.len());
    let mut held = Vec::new();
    for scheduled in scheduled {
        let wait = match scheduled.hold {
            Hold::Wait(wait) => i64::try_from(whole_millis(wait).min(WAIT_MS_MAX)).unwrap_or(i64::MAX),
            Hold::Claimed => -1,
        };
        let record = if ahead.is_some() { Vec::new() } else { encode_delivery(&scheduled.delivery) };
        deliveries.push((member(&scheduled.delivery), wait, record));
        if scheduled.hold == Hold::Claimed {
            held.push(scheduled.delivery.clone());
        }
        if let Some(ahead) = &mut ahead {
            ahead.deliveries.push(scheduled.delivery);
        }
    }
    let dead_letters = match &mut ahead {
        Some(ahead) => ahead.take_letters(dead_letters),
        None => dead_letters,
    };
    let (reply, answer) = oneshot::channel();
    let item = EventItem {
        generation: claim.fence,
        id: StreamId { milliseconds: major, sequence: minor },
        outcomes: lines(&outcomes),
        deliveries,
        dead_letters: dead_letters
            .iter()
            .map(|dead| (dead.delivery.id.to_string(), encode_dead_letter(dead)))
            .collect(),
        ahead,
        reply,
    };
    let lane = lanes.get(usize::from(partition)).ok_or(Error::Closed)?;
    lane.send(Item::Event(item)).await.map_err(|_| Error::Closed)?;
    Ok(match answer.await.map_err(|_| Error::Closed)?? {
        Settled::Lost => Settled::Lost,
        Settled::Written(fence) => {
            let now = shared.ids.now_ms();
            shared.membership.hold_deliveries(usize::from(partition), held.iter().map(member), fence, now);
            Settled::Written(held.into_iter().map(|delivery| DeliveryClaim { delivery, fence }).collect())
        }
    })
}

/// Settles a delivery.
pub(super) async fn delivery(
    shared: &Shared,
    lanes: &[Lane],
    settlement: DeliverySettlement,
) -> Result<Settled<()>, Error> {
    let DeliverySettlement { claim: DeliveryClaim { delivery, fence }, outcome, next } = settlement;
    let partition = usize::from(delivery.event.position.partition);
    let member = member(&delivery);
    let (state, wait_ms, record) = match next {
        NextState::Ended => ("ended", 0, Vec::new()),
        NextState::Waits(next, wait) => ("waits", whole_millis(wait).min(WAIT_MS_MAX), encode_delivery(&next)),
        NextState::Dead(letter) => ("dead", 0, encode_dead_letter(&letter)),
    };
    let (reply, answer) = oneshot::channel();
    let outcome = lines(outcome.as_slice());
    let event_ms = delivery.event.position.major;
    let item = DeliveryItem { member: member.clone(), fence, event_ms, state, wait_ms, outcome, record, reply };
    let lane = lanes.get(partition).ok_or(Error::Closed)?;
    lane.send(Item::Delivery(item)).await.map_err(|_| Error::Closed)?;
    let settled = answer.await.map_err(|_| Error::Closed)?;
    shared.membership.release_delivery(partition, &member, fence);
    settled
}

/// Outcome records as JSON, one a line.
pub(super) fn lines(outcomes: &[OutcomeRecord]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(outcomes.len() * LINE_BYTES);
    for outcome in outcomes {
        if !lines.is_empty() {
            lines.push(b'\n');
        }
        push_outcome(&mut lines, outcome);
    }
    lines
}

/// How far a lane's sequences are. They never start anew, so that no repetition is taken for another batch's.
#[derive(Default)]
struct Sequences {
    events: u64,
    deliveries: u64,
}

async fn run(shared: Arc<Shared>, partition: u16, mut queue: mpsc::Receiver<Item>) {
    let mut sequences = Sequences::default();
    let mut phase = shared.phases();
    let mut items = Vec::with_capacity(BATCH_ITEMS_MAX);
    // As many as the semaphore in `Ahead` lets in, and those of a batch that are written ahead once more.
    let mut written_ahead = JoinSet::new();
    let mut drained = false;
    loop {
        tokio::select! {
            count = queue.recv_many(&mut items, BATCH_ITEMS_MAX), if !drained => drained = count == 0,
            // A task that has panicked has dropped its item, and so has told its caller.
            Some(done) = written_ahead.join_next() => items.extend(done.ok().flatten().map(Item::Event)),
            // From here `recv_many` gives what is left, and then none.
            _ = phase.wait_for(|phase| *phase != Phase::Open), if !queue.is_closed() => queue.close(),
            else => break,
        }
        let (mut events, mut deliveries) = (Vec::with_capacity(items.len()), Vec::new());
        for item in items.drain(..) {
            match item {
                Item::Event(item) if item.ahead.as_ref().is_some_and(|ahead| !ahead.written) => {
                    written_ahead.spawn(write_ahead::write(Arc::clone(&shared), partition, item));
                }
                Item::Event(item) => events.push(item),
                Item::Delivery(item) => deliveries.push(item),
            }
        }
        let (missing, ()) = tokio::join!(
            settle_events(&shared, partition, &mut sequences.events, events),
            settle_deliveries(&shared, partition, &mut sequences.deliveries, deliveries)
        );
        for item in missing {
            written_ahead.spawn(write_ahead::write(Arc::clone(&shared), partition, item));
        }
    }
}

/// Why a settlement was not written, for good.
#[derive(Clone)]
pub(super) enum GaveUp {
    Closing,
    Refused(Fault),
}

impl From<GaveUp> for Error {
    fn from(gave_up: GaveUp) -> Self {
        match gave_up {
            GaveUp::Closing => Self::Closed,
            GaveUp::Refused(fault) => fault.into(),
        }
    }
}

/// Makes a call until it is answered: for ever, unless it is refused or the store closes.
pub(super) async fn patiently<T, Call: Future<Output = Result<T, Fault>>>(
    shared: &Shared,
    mut call: impl FnMut() -> Call,
) -> Result<T, GaveUp> {
    let mut patience = Patience { pause: PAUSE_MIN, told: false, phase: shared.phases() };
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(fault) => patience.after(fault).await?,
        }
    }
}

/// Waits between two attempts at a settlement.
struct Patience {
    pause: Duration,
    told: bool,
    phase: watch::Receiver<Phase>,
}

impl Patience {
    async fn after(&mut self, fault: Fault) -> Result<(), GaveUp> {
        match fault {
            Fault::Refused(_) | Fault::Denied(_) => return Err(GaveUp::Refused(fault)),
            Fault::Away(_) | Fault::Full(_) | Fault::Unconfirmed(_) | Fault::NoGroup | Fault::NoScript => {
                if self.pause == PAUSE_MAX && !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(error = %Error::from(fault), "a settlement waits for the store");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(self.pause) => {
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                Ok(())
            }
            _ = self.phase.wait_for(|phase| *phase == Phase::Abandoning) => Err(GaveUp::Closing),
        }
    }
}

/// How many items make a batch: at least one, else as many as stay within the bytes and the number of a batch.
pub(super) fn count_within<T>(items: &[T], mut bytes_so_far: impl FnMut(&T) -> usize) -> usize {
    items.iter().take(BATCH_ITEMS_MAX).take_while(|item| bytes_so_far(item) <= BATCH_BYTES_MAX).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_one_item_at_least_and_no_more_bytes_than_its_limit() {
        let sum = |sizes: &[usize]| {
            let mut bytes = 0;
            count_within(sizes, |size| {
                bytes += size;
                bytes
            })
        };
        assert_eq!(sum(&[2 * BATCH_BYTES_MAX, 1]), 1);
        assert_eq!(sum(&[BATCH_BYTES_MAX / 2, BATCH_BYTES_MAX / 2, 1]), 2);
        assert_eq!(sum(&[1, 2, 3]), 3);
    }
}
