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
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Whether all that wait are counted, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub count: bool,
}

/// A page of the schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveriesList {
    /// Soonest first.
    pub deliveries: Vec<DeliveryView>,
    /// How many there are, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Where to go on; null at the end. A page may be empty and still not be the last. What is put elsewhere in the schedule
    /// between two pages is on both or on none.
    #[serde(default)]
    pub cursor: Option<String>,
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

/// Why a delivery waits.
pub(super) fn why(waiting: &WaitingDelivery, snapshot: &Snapshot) -> WhyWaiting {
    match held_up(&waiting.delivery.subscription, snapshot) {
        _ if waiting.held => WhyWaiting::UnderWay,
        Some(why) => why,
        None if waiting.delivery.attempts.is_empty() => WhyWaiting::NotYetTried,
        None => WhyWaiting::Retry,
    }
}

/// Why a subscription's deliveries wait whatever their schedule says; `None` where they don't.
pub(super) fn held_up(subscription: &str, snapshot: &Snapshot) -> Option<WhyWaiting> {
    let Some(consumer) = snapshot.consumer(subscription) else { return Some(WhyWaiting::SubscriptionGone) };
    match consumer.endpoint.held() {
        Some(Waiting::Paused) => Some(WhyWaiting::EndpointPaused),
        Some(_) => Some(WhyWaiting::EndpointDisabled),
        None => consumer.endpoint.breaker_is_open().then_some(WhyWaiting::EndpointFailing),
    }
}

/// A page of what waits, soonest first.
pub async fn list(store: &dyn Store, snapshot: &Snapshot, query: &DeliveriesQuery) -> Result<DeliveriesList, Error> {
    let subscription = query.subscription.as_deref();
    let after = query.cursor.as_deref().map(str::parse).transpose()?;
    let page = store.schedule(subscription, after, limit_of(query.limit)?).await?;
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
    let cursor = page.next.map(|next| next.to_string());
    Ok(DeliveriesList { deliveries: page.items.into_iter().map(view).collect(), count, cursor })
}
