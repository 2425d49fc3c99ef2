//! Deliveries' settlements, in batches: one script call each, and one by one when a batch is refused.
//!
//! Each is fenced by its score, so those of one batch are written or lost each for itself.

use tokio::sync::oneshot;

use super::fault::Fault;
use super::settle::{GaveUp, count_within, patiently};
use super::{Shared, reply, scripts};
use crate::store::{Error, Settled};

/// A delivery's settlement, written out.
pub(super) struct DeliveryItem {
    pub(super) member: String,
    pub(super) fence: u64,
    /// When its event was accepted.
    pub(super) event_ms: u64,
    pub(super) state: &'static str,
    pub(super) wait_ms: u64,
    pub(super) outcome: Vec<u8>,
    pub(super) record: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<Settled<()>, Error>>,
}

/// Settles deliveries of a partition and answers their callers.
pub(super) async fn settle_deliveries(
    shared: &Shared,
    partition: u16,
    sequence: &mut u64,
    mut items: Vec<DeliveryItem>,
) {
    while !items.is_empty() {
        let mut bytes = 0;
        let fits = count_within(&items, |item| {
            bytes += item.record.len() + item.outcome.len();
            bytes
        });
        let rest = items.split_off(fits);
        match write(shared, partition, sequence, &items).await {
            Err(GaveUp::Refused(fault)) if items.len() > 1 => {
                tracing::warn!(error = %Error::from(fault), "a batch of deliveries is refused and is settled one by one");
                for item in items {
                    let outcome = write(shared, partition, sequence, std::slice::from_ref(&item)).await;
                    finish(item, 0, outcome);
                }
            }
            outcome => {
                for (place, item) in items.into_iter().enumerate() {
                    finish(item, place, outcome.clone());
                }
            }
        }
        items = rest;
    }
}

/// Answers the caller of the item at `place` of its batch.
fn finish(item: DeliveryItem, place: usize, outcome: Result<String, GaveUp>) {
    let answer = match outcome {
        Ok(written) if written.as_bytes().get(place) == Some(&b'1') => Ok(Settled::Written(())),
        Ok(_) => Ok(Settled::Lost),
        Err(GaveUp::Closing) => Err(Error::Closed),
        Err(GaveUp::Refused(fault)) => {
            let error = Error::from(fault);
            // It keeps its lease, and falls due again no sooner than that ends.
            tracing::error!(delivery = item.member, %error, "a delivery's settlement can't be written");
            Err(error)
        }
    };
    // A caller that has gone away has nothing left to do with the delivery.
    let _ = item.reply.send(answer);
}

/// Writes a batch until it is answered; the answer has a `1` for each that was written.
async fn write(shared: &Shared, partition: u16, sequence: &mut u64, items: &[DeliveryItem]) -> Result<String, GaveUp> {
    *sequence += 1;
    patiently(shared, || write_once(shared, partition, *sequence, items)).await
}

async fn write_once(shared: &Shared, partition: u16, sequence: u64, items: &[DeliveryItem]) -> Result<String, Fault> {
    let keys = &shared.partitions[usize::from(partition)];
    // A delivery's fence is its score, not the consumer: any name will do, it only carries the sequence.
    let name = shared.membership.current().map_or_else(|| "none".into(), |member| member.name);
    let run = shared.link.run(&scripts::SETTLE_DELIVERIES, |command| {
        command.arg(6 + items.len()).arg(keys.owner(&name)).arg(&keys.due).arg(&keys.dead).arg(&keys.outcomes);
        command.arg(&keys.letters).arg(&keys.later);
        for item in items {
            command.arg(keys.record(&item.member));
        }
        command.arg(sequence);
        for item in items {
            command.arg(&item.member).arg(item.fence).arg(item.state).arg(item.wait_ms);
            command.arg(item.outcome.as_slice()).arg(item.record.as_slice()).arg(item.event_ms);
        }
    });
    let written = reply::text(run.await?)?;
    if written.len() == items.len() { Ok(written) } else { Err(Fault::strange("settle deliveries")) }
}
