//! Events' settlements, in batches: one script call each, and one by one when a batch is refused.
//!
//! An event that is refused by itself is told of and left alone for a while: its claim is kept, so that it does
//! not come again at once.

use redis::Value;
use tokio::sync::oneshot;

use super::fault::Fault;
use super::history::SETTLED_SOON_MS;
use super::keys::GROUP;
use super::lease::lease_of;
use super::reply::{self, StreamId};
use super::settle::{GaveUp, count_within, patiently};
use super::write_ahead::Ahead;
use super::{Shared, scripts};
use crate::store::{Error, Settled};

/// What a delivery takes in a call besides its record, about.
const DELIVERY_EXTRA_BYTES: usize = 128;

/// An event's settlement, written out.
pub(super) struct EventItem {
    pub(super) generation: u64,
    pub(super) id: StreamId,
    pub(super) outcomes: Vec<u8>,
    /// Member, wait in milliseconds (-1: goes on being held), record (empty: it is written ahead).
    pub(super) deliveries: Vec<(String, i64, Vec<u8>)>,
    /// The delivery's id and the dead letter.
    pub(super) dead_letters: Vec<(String, Vec<u8>)>,
    /// What is too much for one call.
    pub(super) ahead: Option<Ahead>,
    /// Answers the fence of the deliveries that go on being held.
    pub(super) reply: oneshot::Sender<Result<Settled<u64>, Error>>,
}

impl EventItem {
    fn bytes(&self) -> usize {
        self.outcomes.len()
            + self.deliveries.iter().map(|delivery| delivery.2.len() + DELIVERY_EXTRA_BYTES).sum::<usize>()
            + self.dead_letters.iter().map(|letter| letter.1.len() + DELIVERY_EXTRA_BYTES).sum::<usize>()
    }
}

/// What became of a batch.
#[derive(Clone)]
enum Written {
    /// The fence of the deliveries that go on being held.
    Under(u64),
    Lost,
    /// Nothing was written: Redis went back in time, and these are nobody's, or were settled by another.
    Gone(Vec<StreamId>),
    /// What was written ahead is gone: Redis went back in time, or it took too long.
    Missing,
}

/// Settles events of a partition and answers their callers. Returns those that must be written ahead once more.
pub(super) async fn settle_events(
    shared: &Shared,
    partition: u16,
    sequence: &mut u64,
    mut items: Vec<EventItem>,
) -> Vec<EventItem> {
    let mut missing = Vec::new();
    while !items.is_empty() {
        let generation = shared.membership.generation();
        let mut bytes = 0;
        let fits = count_within(&items, |item| {
            bytes += item.bytes();
            bytes
        });
        let rest = items.split_off(fits);
        let (current, of_before): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.generation == generation);
        for item in of_before {
            answer(shared, partition, item, Ok(Settled::Lost));
        }
        let (current, outcome) = write_what_is_there(shared, partition, generation, sequence, current).await;
        match outcome {
            Err(GaveUp::Refused(fault)) if current.len() > 1 => {
                tracing::warn!(error = %Error::from(fault), "a batch of events is refused and is settled one by one");
                for item in current {
                    let alone = std::slice::from_ref(&item);
                    let outcome = write(shared, partition, generation, sequence, alone).await;
                    missing.extend(finish(shared, partition, item, outcome));
                }
            }
            outcome => {
                for item in current {
                    missing.extend(finish(shared, partition, item, outcome.clone()));
                }
            }
        }
        items = rest;
    }
    missing
}

/// Writes a batch without those that Redis no longer knows as claimed, whose callers are told. Gives the others, and what
/// became of them.
async fn write_what_is_there(
    shared: &Shared,
    partition: u16,
    generation: u64,
    sequence: &mut u64,
    mut items: Vec<EventItem>,
) -> (Vec<EventItem>, Result<Written, GaveUp>) {
    loop {
        match write(shared, partition, generation, sequence, &items).await {
            Ok(Written::Gone(gone)) if !items.is_empty() => {
                let (lost, rest): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| gone.contains(&item.id));
                for item in lost {
                    answer(shared, partition, item, Ok(Settled::Lost));
                }
                items = rest;
            }
            outcome => return (items, outcome),
        }
    }
}

/// Answers an item's caller, or gives the item back because it must be written ahead once more.
fn finish(shared: &Shared, partition: u16, item: EventItem, outcome: Result<Written, GaveUp>) -> Option<EventItem> {
    let settled = match outcome {
        Ok(Written::Missing) => return Some(item),
        Ok(Written::Under(fence)) => Ok(Settled::Written(fence)),
        Ok(Written::Lost | Written::Gone(_)) => Ok(Settled::Lost),
        Err(gave_up) => Err(gave_up),
    };
    answer(shared, partition, item, settled);
    None
}

/// Answers an item's caller.
pub(super) fn answer(shared: &Shared, partition: u16, item: EventItem, settled: Result<Settled<u64>, GaveUp>) {
    // Before the answer, so that an event which was not settled comes again from the pending list.
    if let Err(GaveUp::Refused(fault)) = &settled {
        let stream = &shared.partitions[usize::from(partition)].events;
        let error = Error::from(fault.clone());
        tracing::error!(%stream, entry = %item.id, %error, "an event's settlement can't be written; it is tried again later");
        shared.membership.set_aside(item.generation, partition, item.id);
    } else {
        shared.membership.release_event(item.generation, partition, item.id);
    }
    // A caller that has gone away has nothing left to do with the event.
    let _ = item.reply.send(settled.map_err(Error::from));
}

/// Writes a batch until it is answered.
async fn write(
    shared: &Shared,
    partition: u16,
    generation: u64,
    sequence: &mut u64,
    items: &[EventItem],
) -> Result<Written, GaveUp> {
    if items.is_empty() {
        return Ok(Written::Lost);
    }
    *sequence += 1;
    patiently(shared, || write_once(shared, partition, generation, *sequence, items)).await
}

async fn write_once(
    shared: &Shared,
    partition: u16,
    generation: u64,
    sequence: u64,
    items: &[EventItem],
) -> Result<Written, Fault> {
    let Some(member) = shared.membership.current().filter(|member| member.generation == generation) else {
        return Ok(Written::Lost);
    };
    let keys = &shared.partitions[usize::from(partition)];
    let lease = lease_of(&member.name, shared.options.store.lease);
    let outcomes = items.iter().map(|item| item.outcomes.as_slice()).filter(|lines| !lines.is_empty());
    let outcomes = outcomes.collect::<Vec<_>>().join(&b'\n');
    let deliveries: usize = items.iter().map(|item| item.deliveries.len()).sum();
    let oldest_ms = items.iter().map(|item| item.id.milliseconds).min().unwrap_or_default();
    let sets: Vec<_> = items
        .iter()
        .filter_map(|item| item.ahead.as_ref().map(|ahead| (item.id, ahead.letters_written())))
        .filter(|(_, letters)| *letters > 0)
        .collect();
    let run = shared.link.run(&scripts::SETTLE_EVENTS, |command| {
        command.arg(7 + deliveries + sets.len()).arg(&keys.events).arg(keys.owner(&member.name));
        command.arg(&keys.due).arg(&keys.dead).arg(&keys.outcomes).arg(&keys.letters).arg(&keys.later);
        for (member, ..) in items.iter().flat_map(|item| &item.deliveries) {
            command.arg(keys.record(member));
        }
        for (event, _) in &sets {
            command.arg(keys.letters_ahead(*event));
        }
        command.arg(GROUP).arg(sequence).arg(&lease).arg(outcomes.as_slice());
        command.arg(items.len()).arg(deliveries).arg(sets.len()).arg(oldest_ms).arg(SETTLED_SOON_MS);
        command.arg(u8::from(shared.link.may_have_gone_back()));
        for item in items {
            command.arg(item.id.to_string());
        }
        for (member, wait, record) in items.iter().flat_map(|item| &item.deliveries) {
            command.arg(member).arg(*wait).arg(record.as_slice());
        }
        for (_, letters) in &sets {
            command.arg(*letters);
        }
        for (delivery, letter) in items.iter().flat_map(|item| &item.dead_letters) {
            command.arg(delivery).arg(letter.as_slice());
        }
    });
    let mut answer = reply::array(run.await?)?.into_iter();
    match reply::text(answer.next().unwrap_or(Value::Nil))?.as_str() {
        "WRITTEN" => reply::count(&answer.next().unwrap_or(Value::Nil)).map(Written::Under),
        "LOST" => {
            shared.membership.lose(generation);
            Ok(Written::Lost)
        }
        "MISSING" => Ok(Written::Missing),
        "GONE" => {
            let ids = answer.map(|id| Ok(reply::bytes(id)?.as_deref().and_then(StreamId::parse)));
            let ids: Option<Vec<_>> = ids.collect::<Result<Option<Vec<_>>, Fault>>()?;
            ids.filter(|ids| !ids.is_empty()).map(Written::Gone).ok_or_else(|| Fault::strange("settle events"))
        }
        _ => Err(Fault::strange("settle events")),
    }
}
