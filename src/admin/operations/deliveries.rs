//! What waits in the schedule, with when it is due and why.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::times::Time;
use super::views::{AttemptView, EventOfDelivery, WorkView};
use super::{Error, limit_of};
use crate::delivery::{DeliveryId, Waiting};
use crate::dispatch::Snapshot;
use crate::store::{Store, WaitingDelivery};

/// Which deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliveriesQuery {
    /// Of this subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// How many; soonest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Whether all that wait are counted, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub count: bool,
}

/// The first of the schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveriesList {
    /// Soonest first.
    pub deliveries: Vec<DeliveryView>,
    /// How many there are, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// Why a delivery is in the schedule, as far as it shows now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhyWaiting {
    /// A router is at work on it.
    UnderWay,
    /// The config has no such subscription; it will be given up when it is due.
    SubscriptionGone,
    /// Its endpoint is disabled.
    EndpointDisabled,
    /// Its endpoint is paused.
    EndpointPaused,
    /// Its endpoint keeps failing, and is left alone for a while.
    EndpointFailing,
    /// An attempt failed.
    Retry,
    /// It was not tried yet: replayed, or parked because endpoint or plugin were at a limit.
    NotYetTried,
}

/// A delivery in the schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryView {
    /// Its id.
    pub delivery_id: DeliveryId,
    /// Its event.
    pub event: EventOfDelivery,
    /// Its subscription.
    pub subscription: Arc<str>,
    /// When it falls due; of one that is held, when its lease ends.
    pub due: Time,
    /// Why it waits.
    pub why: WhyWaiting,
    /// The number of the next attempt.
    pub next_attempt: u32,
    /// The last attempt made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<AttemptView>,
    /// What is left to do.
    pub work: WorkView,
}

fn why(waiting: &WaitingDelivery, snapshot: &Snapshot) -> WhyWaiting {
    if waiting.held {
        return WhyWaiting::UnderWay;
    }
    let Some(consumer) = snapshot.consumer(&waiting.delivery.subscription) else {
        return WhyWaiting::SubscriptionGone;
    };
    match consumer.endpoint.held() {
        Some(Waiting::Paused) => WhyWaiting::EndpointPaused,
        Some(_) => WhyWaiting::EndpointDisabled,
        None if consumer.endpoint.breaker_is_open() => WhyWaiting::EndpointFailing,
        None if waiting.delivery.attempts.is_empty() => WhyWaiting::NotYetTried,
        None => WhyWaiting::Retry,
    }
}

/// What waits, soonest first.
pub async fn list(store: &dyn Store, snapshot: &Snapshot, query: &DeliveriesQuery) -> Result<DeliveriesList, Error> {
    let subscription = query.subscription.as_deref();
    let waiting = store.schedule(subscription, limit_of(query.limit)?).await?;
    let count = if query.count { Some(store.count_waiting(subscription).await?) } else { None };
    let view = |waiting: WaitingDelivery| DeliveryView {
        why: why(&waiting, snapshot),
        due: Time(waiting.due),
        delivery_id: waiting.delivery.id.clone(),
        event: EventOfDelivery::of(&waiting.delivery.event),
        subscription: Arc::clone(&waiting.delivery.subscription),
        next_attempt: waiting.delivery.next_attempt(),
        last_attempt: waiting.delivery.attempts.last().map(AttemptView::of),
        work: WorkView::of(&waiting.delivery.work, false),
    };
    Ok(DeliveriesList { deliveries: waiting.into_iter().map(view).collect(), count })
}
