//! A store that holds something before its router starts: a backlog of events, or deliveries that wait for a retry.
//!
//! Written through the store's own code, so that it is what a router finds after a long night.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::load;
use super::scenario::Work;
use crate::cli::Error;
use crate::clock::{Clock, Timestamp};
use crate::delivery::{Attempt, AttemptResult, Delivery, DeliveryId, EventHead, Request, Work as Left};
use crate::event::Event;
use crate::plugin::fixture;
use crate::secret::Secret;
use crate::store::embedded::EmbeddedStore;
use crate::store::redis::{RedisOptions, RedisStore, RedisTarget};
use crate::store::{EventClaim, EventSettlement, Hold, ScheduledDelivery, Store, StoreOptions};

/// Events of one append.
const APPEND_BATCH: u64 = 500;
/// Appends at a time.
const APPENDS: u64 = 4;
/// Deliveries that an event leaves in the schedule.
const DELIVERIES_PER_EVENT: u64 = 100;
/// Longer than any run takes.
const WAIT: Duration = Duration::from_secs(86_400);

/// Puts what the work wants into the store at this URL.
pub async fn fill(store: &str, work: &Work) -> Result<(), Error> {
    if work.backlog == 0 && work.waiting == 0 {
        return Ok(());
    }
    fill_with(store, work).await.map_err(|error| Error::Failed(format!("the store can't be filled: {error}")))
}

/// Whatever went wrong.
type Fault = Box<dyn std::error::Error>;

async fn fill_with(store: &str, work: &Work) -> Result<(), Fault> {
    let clock = Clock::system();
    let store: Arc<dyn Store> = match store.strip_prefix("file:") {
        Some(folder) => Arc::new(EmbeddedStore::open(Path::new(folder), StoreOptions::default(), clock).await?),
        None => Arc::new(RedisStore::open(RedisTarget::Single(Secret::new(store)), RedisOptions::default()).await?),
    };
    let now = clock.now();
    wait_for_retries(&*store, work, now).await?;
    append(&*store, work, now).await?;
    Ok(store.close().await?)
}

async fn append(store: &dyn Store, work: &Work, now: Timestamp) -> Result<(), Fault> {
    for first in (0..work.backlog).step_by((APPEND_BATCH * APPENDS) as usize) {
        let batches = (0..APPENDS).map(|batch| {
            let from = first + batch * APPEND_BATCH;
            let until = (from + APPEND_BATCH).min(work.backlog);
            (from..until).map(|number| event(work.size, number, now)).collect::<Result<Vec<_>, _>>()
        });
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        try_join_all(batches.into_iter().map(|events| store.append(events))).await?;
    }
    Ok(())
}

/// An event's deliveries enter the schedule when it is settled.
async fn wait_for_retries(store: &dyn Store, work: &Work, now: Timestamp) -> Result<(), Fault> {
    let (mut appended, mut left) = (0, work.waiting);
    while left > 0 {
        let count = left.div_ceil(DELIVERIES_PER_EVENT).min(DELIVERIES_PER_EVENT);
        // Numbers that no backlog and no producer of this run uses.
        let events = (appended..appended + count).map(|number| event(work.size, u64::from(u32::MAX) + number, now));
        store.append(events.collect::<Result<_, _>>()?).await?;
        appended += count;
        let mut settlements = Vec::new();
        for _ in 0..count {
            let claims = store.claim_events(1, Duration::from_secs(10)).await?;
            let Some(claim) = claims.into_iter().next() else {
                return Err("an event was appended and can't be claimed".into());
            };
            let deliveries = left.min(DELIVERIES_PER_EVENT);
            left -= deliveries;
            settlements.push(settlement(claim, deliveries, now));
        }
        try_join_all(settlements.into_iter().map(|settlement| store.settle_event(settlement))).await?;
    }
    Ok(())
}

fn settlement(claim: EventClaim, deliveries: u64, now: Timestamp) -> EventSettlement {
    let body = Arc::new(Request {
        content_type: "application/json".to_owned(),
        headers: Vec::new(),
        body: claim.event.envelope().into(),
    });
    let scheduled = (0..deliveries).map(|number| {
        let subscription = format!("waiting-{number}");
        let attempt = Attempt {
            number: 1,
            at: now,
            duration_ms: 1,
            result: AttemptResult::Answered { status: 500, retry_after_ms: None },
            answer: None,
            by: None,
        };
        let delivery = Delivery {
            id: DeliveryId::derive(&claim.event, &subscription),
            event: EventHead::of(&claim.event, claim.position),
            subscription: subscription.into(),
            attempts: vec![attempt],
            work: Left::Send(Arc::clone(&body)),
        };
        ScheduledDelivery { delivery, hold: Hold::Wait(WAIT) }
    });
    let scheduled = scheduled.collect();
    EventSettlement { claim, outcomes: Vec::new(), scheduled, dead_letters: Vec::new() }
}

fn event(size: usize, number: u64, now: Timestamp) -> Result<Event, Fault> {
    let event = fixture::event(&load::envelope(size, number, None))?;
    Ok(Event { source: load::SOURCE.into(), accepted_at: now, ..Arc::unwrap_or_clone(event) })
}
