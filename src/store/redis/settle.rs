//! Settlements: gathered by partition, one script call a batch, repeated until Redis has answered.
//!
//! At most one call for events and one for deliveries is under way in a partition; its sequence number makes a
//! repetition harmless. What settles while a call is under way gathers for the next one.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::fault::Fault;
use super::keys::{GROUP, member};
use super::reply::{self, StreamId};
use super::{Phase, Shared, scripts};
use crate::delivery::{OutcomeRecord, whole_millis};
use crate::event::Position;
use crate::store::{
    DeliveryClaim, DeliverySettlement, Error, EventSettlement, Hold, NextState, Settled, encode_dead_letter,
    encode_delivery,
};

const QUEUE_ITEMS_MAX: usize = 1024;
const BATCH_ITEMS_MAX: usize = 128;
const BATCH_BYTES_MAX: usize = 1024 * 1024;
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// No wait is longer than this, so that a sum of milliseconds stays exact.
const WAIT_MS_MAX: u64 = 100 * 365 * 86_400_000;

/// What is queued in a partition's lane.
pub(super) enum Item {
    Event(EventItem),
    Delivery(DeliveryItem),
}

/// An event's settlement, written out.
pub(super) struct EventItem {
    generation: u64,
    id: StreamId,
    outcomes: String,
    /// Member, wait in milliseconds (-1: goes on being held), record.
    deliveries: Vec<(String, i64, Vec<u8>)>,
    dead_letters: Vec<Vec<u8>>,
    /// Answers the fence of the deliveries that go on being held.
    reply: oneshot::Sender<Result<Settled<u64>, Error>>,
}

/// A delivery's settlement, written out.
pub(super) struct DeliveryItem {
    member: String,
    fence: u64,
    state: &'static str,
    wait_ms: u64,
    outcome: String,
    record: Vec<u8>,
    reply: oneshot::Sender<Result<Settled<()>, Error>>,
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
    let mut deliveries = Vec::with_capacity(scheduled.len());
    let mut held = Vec::new();
    for scheduled in scheduled {
        let wait = match scheduled.hold {
            Hold::Wait(wait) => i64::try_from(whole_millis(wait).min(WAIT_MS_MAX)).unwrap_or(i64::MAX),
            Hold::Claimed => -1,
        };
        deliveries.push((member(&scheduled.delivery), wait, encode_delivery(&scheduled.delivery)));
        if scheduled.hold == Hold::Claimed {
            held.push(scheduled.delivery);
        }
    }
    let (reply, answer) = oneshot::channel();
    let item = EventItem {
        generation: claim.fence,
        id: StreamId { milliseconds: major, sequence: minor },
        outcomes: lines(&outcomes),
        deliveries,
        dead_letters: dead_letters.iter().map(encode_dead_letter).collect(),
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
    let item = DeliveryItem { member: member.clone(), fence, state, wait_ms, outcome, record, reply };
    let lane = lanes.get(partition).ok_or(Error::Closed)?;
    lane.send(Item::Delivery(item)).await.map_err(|_| Error::Closed)?;
    let settled = answer.await.map_err(|_| Error::Closed)?;
    shared.membership.release_delivery(partition, &member, fence);
    settled
}

/// Outcome records as JSON, one a line.
fn lines(outcomes: &[OutcomeRecord]) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&serde_json::to_string(outcome).expect("an outcome record has string keys only"));
    }
    text
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
    loop {
        tokio::select! {
            count = queue.recv_many(&mut items, BATCH_ITEMS_MAX) => if count == 0 { break },
            // From here `recv_many` gives what is left, and then none.
            _ = phase.wait_for(|phase| *phase != Phase::Open), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        }
        let (mut events, mut deliveries) = (Vec::new(), Vec::new());
        for item in items.drain(..) {
            match item {
                Item::Event(item) => events.push(item),
                Item::Delivery(item) => deliveries.push(item),
            }
        }
        tokio::join!(
            settle_events(&shared, partition, &mut sequences.events, events),
            settle_deliveries(&shared, partition, &mut sequences.deliveries, deliveries)
        );
    }
}

async fn settle_events(shared: &Shared, partition: u16, sequence: &mut u64, mut items: Vec<EventItem>) {
    while !items.is_empty() {
        let generation = shared.membership.generation();
        let mut bytes = 0;
        let fits = count_within(&items, |item| {
            bytes += item.deliveries.iter().map(|delivery| delivery.2.len()).sum::<usize>()
                + item.dead_letters.iter().map(Vec::len).sum::<usize>();
            bytes
        });
        let rest = items.split_off(fits);
        let (current, of_before): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.generation == generation);
        for item in of_before {
            let _ = item.reply.send(Ok(Settled::Lost));
        }
        if !current.is_empty() {
            *sequence += 1;
            let mut patience = Patience::new(shared);
            let outcome = loop {
                match write_events(shared, partition, generation, *sequence, &current).await {
                    Ok(written) => break Ok(written),
                    Err(fault) => {
                        if let Err(gave_up) = patience.after(fault).await {
                            break Err(gave_up);
                        }
                    }
                }
            };
            for item in current {
                // First, so that an event which was not settled comes again from the pending list.
                shared.membership.release_event(generation, partition, item.id);
                let answer = match &outcome {
                    Ok(Some(fence)) => Ok(Settled::Written(*fence)),
                    Ok(None) => Ok(Settled::Lost),
                    Err(GaveUp::Closing) => Err(Error::Closed),
                    Err(GaveUp::Refused(fault)) => Err(fault.clone().into()),
                };
                // A caller that has gone away has nothing left to do with the event.
                let _ = item.reply.send(answer);
            }
        }
        items = rest;
    }
}

/// Writes a batch of events; `None` when the claims are lost, else the fence of the deliveries held.
async fn write_events(
    shared: &Shared,
    partition: u16,
    generation: u64,
    sequence: u64,
    items: &[EventItem],
) -> Result<Option<u64>, Fault> {
    let Some(member) = shared.membership.current().filter(|member| member.generation == generation) else {
        return Ok(None);
    };
    let keys = &shared.partitions[usize::from(partition)];
    let lease = whole_millis(shared.options.store.lease);
    let outcomes = items.iter().map(|item| item.outcomes.as_str()).filter(|lines| !lines.is_empty());
    let outcomes = outcomes.collect::<Vec<_>>().join("\n");
    let deliveries: usize = items.iter().map(|item| item.deliveries.len()).sum();
    let run = shared.link.run(&scripts::SETTLE_EVENTS, |command| {
        command.arg(5 + deliveries).arg(&keys.events).arg(keys.owner(&member.name));
        command.arg(&keys.due).arg(&keys.dead).arg(&keys.outcomes);
        for (member, ..) in items.iter().flat_map(|item| &item.deliveries) {
            command.arg(keys.record(member));
        }
        command.arg(GROUP).arg(sequence).arg(lease).arg(&outcomes).arg(items.len()).arg(deliveries);
        for item in items {
            command.arg(item.id.to_string());
        }
        for (member, wait, record) in items.iter().flat_map(|item| &item.deliveries) {
            command.arg(member).arg(*wait).arg(record.as_slice());
        }
        for letter in items.iter().flat_map(|item| &item.dead_letters) {
            command.arg(letter.as_slice());
        }
    });
    let mut answer = reply::array(run.await?)?.into_iter();
    match reply::text(answer.next().unwrap_or(Value::Nil))?.as_str() {
        "WRITTEN" => reply::count(&answer.next().unwrap_or(Value::Nil)).map(Some),
        "LOST" => {
            shared.membership.lose(generation);
            Ok(None)
        }
        _ => Err(Fault::strange("settle events")),
    }
}

async fn settle_deliveries(shared: &Shared, partition: u16, sequence: &mut u64, mut items: Vec<DeliveryItem>) {
    while !items.is_empty() {
        let mut bytes = 0;
        let fits = count_within(&items, |item| {
            bytes += item.record.len();
            bytes
        });
        let rest = items.split_off(fits);
        *sequence += 1;
        let mut patience = Patience::new(shared);
        let outcome = loop {
            match write_deliveries(shared, partition, *sequence, &items).await {
                Ok(written) => break Ok(written),
                Err(fault) => {
                    if let Err(gave_up) = patience.after(fault).await {
                        break Err(gave_up);
                    }
                }
            }
        };
        for (place, item) in items.into_iter().enumerate() {
            let answer = match &outcome {
                Ok(written) if written.as_bytes().get(place) == Some(&b'1') => Ok(Settled::Written(())),
                Ok(_) => Ok(Settled::Lost),
                Err(GaveUp::Closing) => Err(Error::Closed),
                Err(GaveUp::Refused(fault)) => Err(fault.clone().into()),
            };
            let _ = item.reply.send(answer);
        }
        items = rest;
    }
}

/// Writes a batch of deliveries; the answer has a `1` for each that was written.
async fn write_deliveries(
    shared: &Shared,
    partition: u16,
    sequence: u64,
    items: &[DeliveryItem],
) -> Result<String, Fault> {
    let keys = &shared.partitions[usize::from(partition)];
    // A delivery's fence is its score, not the consumer: any name will do, it only carries the sequence.
    let name = shared.membership.current().map_or_else(|| "none".into(), |member| member.name);
    let run = shared.link.run(&scripts::SETTLE_DELIVERIES, |command| {
        command.arg(4 + items.len()).arg(keys.owner(&name)).arg(&keys.due).arg(&keys.dead).arg(&keys.outcomes);
        for item in items {
            command.arg(keys.record(&item.member));
        }
        command.arg(sequence);
        for item in items {
            command.arg(&item.member).arg(item.fence).arg(item.state).arg(item.wait_ms);
            command.arg(&item.outcome).arg(item.record.as_slice());
        }
    });
    let written = reply::text(run.await?)?;
    if written.len() == items.len() { Ok(written) } else { Err(Fault::strange("settle deliveries")) }
}

/// Why a settlement was not written, for good.
enum GaveUp {
    Closing,
    Refused(Fault),
}

/// Waits between two attempts at a settlement: for ever, unless it is refused or the store closes.
struct Patience {
    pause: Duration,
    told: bool,
    phase: watch::Receiver<Phase>,
}

impl Patience {
    fn new(shared: &Shared) -> Self {
        Self { pause: PAUSE_MIN, told: false, phase: shared.phases() }
    }

    async fn after(&mut self, fault: Fault) -> Result<(), GaveUp> {
        match fault {
            Fault::Refused(_) | Fault::Denied(_) => {
                tracing::error!(error = %Error::from(fault.clone()), "a settlement can't be written");
                return Err(GaveUp::Refused(fault));
            }
            Fault::Away(_) | Fault::Full(_) | Fault::NoGroup | Fault::NoScript => {
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

/// How many items make a batch: at least one, else as many as stay within the bytes of a batch.
fn count_within<T>(items: &[T], mut bytes_so_far: impl FnMut(&T) -> usize) -> usize {
    items.iter().take_while(|item| bytes_so_far(item) <= BATCH_BYTES_MAX).count().max(1)
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
