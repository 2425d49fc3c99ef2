//! Settlements too large for one call: records and dead letters are written ahead, about a mebibyte a call.
//!
//! The records are not in the schedule until the settlement itself puts all of them there at once, so that it stays
//! one atomic step; a dead letter is seen at once, and is written once however often the settlement begins anew.
//! What no settlement follows expires.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::fault::Fault;
use super::keys::{GROUP, member};
use super::settle::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, count_within, patiently};
use super::settle_events::{EventItem, answer};
use super::{Shared, reply, scripts};
use crate::delivery::{DeadLetter, Delivery, Work, whole_millis};
use crate::store::{Error, ScheduledDelivery, Settled, encode_dead_letter, encode_delivery};

/// How many settlements are written ahead at a time: each has one call under way.
pub(super) const LARGE_SETTLEMENTS_MAX: usize = 4;
/// How long what is written ahead waits for its settlement. When it was away for longer it is written anew.
const LIFE: Duration = Duration::from_secs(86_400);
/// What a head takes, and what an attempt takes besides its answer, about.
const HEAD_BYTES: usize = 512;

/// What of an event's settlement is written ahead of it.
pub(super) struct Ahead {
    pub(super) deliveries: Vec<Delivery>,
    dead_letters: Vec<DeadLetter>,
    pub(super) written: bool,
    _turn: OwnedSemaphorePermit,
}

impl Ahead {
    /// Waits for its turn if the settlement is too large for one call; `None` when it is not.
    pub(super) async fn when_large(
        shared: &Shared,
        scheduled: &[ScheduledDelivery],
        dead_letters: &[DeadLetter],
    ) -> Result<Option<Self>, Error> {
        let deliveries =
            scheduled.iter().map(|scheduled| &scheduled.delivery).chain(dead_letters.iter().map(|dead| &dead.delivery));
        if fit(deliveries) {
            return Ok(None);
        }
        let turn = Arc::clone(&shared.large_settlements).acquire_owned().await.map_err(|_| Error::Closed)?;
        Ok(Some(Self { deliveries: Vec::new(), dead_letters: Vec::new(), written: false, _turn: turn }))
    }

    /// Takes the dead letters, or gives them back when they fit into the settlement's own call.
    pub(super) fn take_letters(&mut self, dead_letters: Vec<DeadLetter>) -> Vec<DeadLetter> {
        if fit(dead_letters.iter().map(|dead| &dead.delivery)) {
            return dead_letters;
        }
        self.dead_letters = dead_letters;
        Vec::new()
    }

    /// How many dead letters there are once all are written.
    pub(super) fn letters_written(&self) -> usize {
        self.dead_letters.iter().map(|letter| &letter.delivery.id).collect::<HashSet<_>>().len()
    }
}

/// How many bytes a delivery's record has, about.
fn record_bytes(delivery: &Delivery) -> usize {
    let body = match &delivery.work {
        Work::Run(event) => event.payload.len() + event.metadata.len() + HEAD_BYTES,
        Work::Send(request) => {
            let headers = request.headers.iter().map(|(name, value)| name.len() + value.len());
            request.body.len() + headers.sum::<usize>()
        }
    };
    let attempts = delivery.attempts.iter().map(|attempt| HEAD_BYTES + attempt.answer.as_ref().map_or(0, String::len));
    HEAD_BYTES + body + attempts.sum::<usize>()
}

/// Whether the records of these deliveries go into one call.
fn fit<'a>(deliveries: impl Iterator<Item = &'a Delivery>) -> bool {
    let (count, bytes) =
        deliveries.fold((0, 0), |(count, bytes), delivery| (count + 1, bytes + record_bytes(delivery)));
    count <= BATCH_ITEMS_MAX && bytes <= BATCH_BYTES_MAX
}

/// One record to be written.
#[derive(Clone, Copy)]
enum Part<'a> {
    Delivery(&'a Delivery),
    Letter(&'a DeadLetter),
}

impl Part<'_> {
    fn bytes(self) -> usize {
        match self {
            Self::Delivery(delivery) => record_bytes(delivery),
            Self::Letter(letter) => record_bytes(&letter.delivery),
        }
    }
}

/// Writes what is to be written ahead of an item's settlement. Gives the item back; `None` when its caller is answered.
pub(super) async fn write(shared: Arc<Shared>, partition: u16, mut item: EventItem) -> Option<EventItem> {
    let Some(ahead) = &item.ahead else { return Some(item) };
    let parts: Vec<_> =
        ahead.deliveries.iter().map(Part::Delivery).chain(ahead.dead_letters.iter().map(Part::Letter)).collect();
    let mut left = &parts[..];
    let mut settled = Ok(None);
    while !left.is_empty() {
        let mut bytes = 0;
        let fits = count_within(left, |part| {
            bytes += part.bytes();
            bytes
        });
        let (now, later) = left.split_at(fits);
        let records = Records::of(now);
        match patiently(&shared, || write_once(&shared, partition, &item, &records)).await {
            Ok(true) => left = later,
            Ok(false) => {
                settled = Ok(Some(Settled::Lost));
                break;
            }
            Err(gave_up) => {
                settled = Err(gave_up);
                break;
            }
        }
    }
    match settled {
        Ok(None) => {
            if let Some(ahead) = &mut item.ahead {
                ahead.written = true;
            }
            return Some(item);
        }
        Ok(Some(lost)) => answer(&shared, partition, item, Ok(lost)),
        Err(gave_up) => answer(&shared, partition, item, Err(gave_up)),
    }
    None
}

/// The records of one call. Only these are in memory, not all of the settlement's.
struct Records {
    /// Member and record.
    deliveries: Vec<(String, Vec<u8>)>,
    /// The delivery's id and the dead letter.
    letters: Vec<(String, Vec<u8>)>,
}

impl Records {
    fn of(parts: &[Part<'_>]) -> Self {
        let (mut deliveries, mut letters) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Part::Delivery(delivery) => deliveries.push((member(delivery), encode_delivery(delivery))),
                Part::Letter(letter) => letters.push((letter.delivery.id.to_string(), encode_dead_letter(letter))),
            }
        }
        Self { deliveries, letters }
    }
}

/// One call. False when the claim is lost.
async fn write_once(shared: &Shared, partition: u16, item: &EventItem, records: &Records) -> Result<bool, Fault> {
    let Some(owner) = shared.membership.current().filter(|owner| owner.generation == item.generation) else {
        return Ok(false);
    };
    let keys = &shared.partitions[usize::from(partition)];
    let run = shared.link.run(&scripts::WRITE_AHEAD, |command| {
        command.arg(6 + records.deliveries.len()).arg(keys.owner(&owner.name));
        command.arg(&keys.due).arg(&keys.dead).arg(keys.letters_ahead(item.id)).arg(&keys.letters);
        command.arg(&keys.events);
        for (member, _) in &records.deliveries {
            command.arg(keys.record(member));
        }
        command.arg(whole_millis(LIFE)).arg(GROUP).arg(item.id.to_string());
        for (name, record) in records.deliveries.iter().chain(&records.letters) {
            command.arg(name).arg(record.as_slice());
        }
    });
    match reply::text(run.await?)?.as_str() {
        "WRITTEN" => Ok(true),
        "LOST" => {
            shared.membership.lose(item.generation);
            Ok(false)
        }
        // Its entry was acknowledged by hand: there is nothing to settle any more.
        "SETTLED" => Ok(false),
        _ => Err(Fault::strange("write ahead")),
    }
}
