//! How one event stands with one subscription, put together from what was recorded, what waits and what was given up.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Error;
use super::deliveries::{self, WhyWaiting};
use super::times::Time;
use super::views::OutcomeView;
use crate::delivery::{DeliveryId, Outcome, OutcomeRecord};
use crate::dispatch::Snapshot;
use crate::event::{Event, Position};
use crate::store::{DeliveryKey, Store, WaitingDelivery};

/// The words that a selection by status knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The endpoint has it.
    Delivered,
    /// It waits in the schedule.
    Scheduled,
    /// The route's `where` was not true.
    Filtered,
    /// A plugin dropped it.
    Dropped,
    /// It was given up and is kept.
    DeadLetter,
    /// It was given up and thrown away.
    Discarded,
    /// Nothing is recorded of the pair: no route wanted the event, or the subscription came later.
    Unmatched,
}

impl Status {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Scheduled => "scheduled",
            Self::Filtered => "filtered",
            Self::Dropped => "dropped",
            Self::DeadLetter => "dead-letter",
            Self::Discarded => "discarded",
            Self::Unmatched => "unmatched",
        }
    }

    fn of(outcome: Option<&Outcome>) -> Self {
        match outcome {
            None => Self::Unmatched,
            Some(Outcome::Delivered) => Self::Delivered,
            Some(Outcome::Scheduled { .. }) => Self::Scheduled,
            Some(Outcome::Filtered { .. }) => Self::Filtered,
            Some(Outcome::Dropped { .. }) => Self::Dropped,
            Some(Outcome::DeadLetter { .. }) => Self::DeadLetter,
            Some(Outcome::Discarded { .. }) => Self::Discarded,
        }
    }
}

/// A delivery in the schedule, as it is shown with its pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingView {
    /// When it falls due; of one that is held, when its lease ends.
    pub due: Time,
    /// Whether a router is at work on it.
    pub held: bool,
    /// Why it waits, as far as it shows now.
    pub why: WhyWaiting,
}

/// How an event stands with a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pair {
    /// The subscription; absent in the one entry of an event that no route wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<Arc<str>>,
    /// What `webhook-id` carries, and what a dead letter goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<DeliveryId>,
    /// How it stands now.
    pub status: Status,
    /// The last thing that was recorded; absent when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<OutcomeView>,
    /// What was recorded before, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<OutcomeView>,
    /// Where it stands in the schedule, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<WaitingView>,
}

/// What was recorded of one event, by subscription, in the order in which the subscriptions came.
pub type Records = Vec<(Option<Arc<str>>, Vec<OutcomeRecord>)>;

/// Sorts records by event and subscription.
pub fn by_event(records: Vec<OutcomeRecord>) -> HashMap<Position, Records> {
    let mut events: HashMap<Position, Records> = HashMap::new();
    for record in records {
        let pairs = events.entry(record.position).or_default();
        match pairs.iter_mut().find(|(subscription, _)| *subscription == record.subscription) {
            Some((_, records)) => records.push(record),
            None => pairs.push((record.subscription.clone(), vec![record])),
        }
    }
    events
}

/// How a pair stands by what was recorded of it, oldest first.
pub fn status_of(records: &[OutcomeRecord]) -> Status {
    Status::of(records.last().and_then(|record| record.outcome.as_ref()))
}

/// Whether plugins ran for any attempt, so that the event alone does not give the bytes that were sent.
pub fn ran_plugins(records: &[OutcomeRecord]) -> bool {
    let attempts = records.iter().flat_map(|record| &record.attempts);
    attempts.filter_map(|attempt| attempt.by.as_ref()).any(|by| !by.plugins.is_empty())
}

/// How an event stands with everything that was recorded of it, which is `records`.
pub async fn of_event(
    store: &dyn Store,
    snapshot: &Snapshot,
    position: Position,
    event: &Event,
    records: Vec<OutcomeRecord>,
) -> Result<Vec<Pair>, Error> {
    let records = by_event(records).remove(&position).unwrap_or_default();
    let keys = records.iter().flat_map(|(subscription, _)| subscription).map(|subscription| DeliveryKey {
        event: position,
        id: DeliveryId::derive(event, subscription),
        subscription: Arc::clone(subscription),
    });
    let keys: Vec<_> = keys.collect();
    let waiting = store.waiting(&keys).await?;
    let mut by_subscription: HashMap<Arc<str>, (DeliveryId, Option<WaitingDelivery>)> =
        keys.into_iter().zip(waiting).map(|(key, waiting)| (key.subscription, (key.id, waiting))).collect();
    let mut pairs = Vec::with_capacity(records.len());
    for (subscription, records) in records {
        let known = subscription.as_ref().and_then(|subscription| by_subscription.remove(subscription));
        let (delivery_id, waiting) = known.map_or((None, None), |(id, waiting)| (Some(id), waiting));
        let waiting = waiting.map(|waiting| WaitingView {
            due: Time(waiting.due),
            held: waiting.held,
            why: deliveries::why(&waiting, snapshot),
        });
        pairs.push(pair(subscription, delivery_id, &records, waiting));
    }
    Ok(pairs)
}

fn pair(
    subscription: Option<Arc<str>>,
    delivery_id: Option<DeliveryId>,
    records: &[OutcomeRecord],
    waiting: Option<WaitingView>,
) -> Pair {
    let mut views: Vec<_> = records.iter().map(OutcomeView::of).collect();
    // What is in the schedule waits, whatever was recorded before it came there.
    let status = if waiting.is_some() { Status::Scheduled } else { status_of(records) };
    Pair { subscription, delivery_id, status, last: views.pop(), before: views, waiting }
}
