//! The walks under way. One that panics has settled nothing, and its event is still claimed by this process, so nobody
//! else would take it up: it is walked again after a while, from its beginning. After a few times it is given up.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::{Context, delivery, event};
use crate::delivery::{DeadLetterReason, DeliveryId};
use crate::store::{DeliveryClaim, EventClaim};

/// How long an event is left alone after its walk has panicked: it will probably panic again.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// After this many walks that panicked, an event or a delivery becomes a dead letter.
const PANICS_MAX: u32 = 5;
/// An event that can't even be made one is left alone after so many tries: it stays claimed, and a restart begins anew.
const BURIALS_MAX: u32 = 3;
const GIVEN_UP: &str =
    "this program panicked whenever it tried to deliver, which is a bug of it; parts may have arrived";

/// How many deliveries that panicked are remembered. When there are more, their counts begin anew.
const COUNTED_MAX: usize = 10_000;

/// Starts walks, and can wait for all of them.
pub(super) struct Walks {
    context: Arc<Context>,
    event_slots: Arc<Semaphore>,
    tasks: TaskTracker,
    /// How often the walks of deliveries panicked that are not over.
    panics: Mutex<HashMap<DeliveryId, u32>>,
}

impl Walks {
    pub(super) fn new(context: Arc<Context>, event_slots: Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self { context, event_slots, tasks: TaskTracker::new(), panics: Mutex::default() })
    }

    /// Walks an event.
    pub(super) fn event(self: &Arc<Self>, claim: EventClaim, slot: OwnedSemaphorePermit) {
        self.walk_event(claim, slot, 0);
    }

    /// Walks an event whose walk has panicked so often.
    fn walk_event(self: &Arc<Self>, claim: EventClaim, slot: OwnedSemaphorePermit, panics: u32) {
        let this = Arc::clone(self);
        let again = claim.again();
        // Boxed: a task's own memory is aligned to 128 bytes, which allocators do slowly for something this large.
        self.tasks.spawn(Box::pin(async move {
            let context = Arc::clone(&this.context);
            let ended = if panics < PANICS_MAX {
                AssertUnwindSafe(event::walk(context, claim, slot)).catch_unwind().await
            } else {
                let buried = event::bury(&context, claim, DeadLetterReason::Panicked, GIVEN_UP);
                AssertUnwindSafe(buried).catch_unwind().await
            };
            if ended.is_err() {
                this.after_panic(again, panics + 1);
            }
        }));
    }

    /// What becomes of an event whose walk, or burial, has panicked so often.
    fn after_panic(self: Arc<Self>, claim: EventClaim, panics: u32) {
        let event_id = claim.event.id.clone();
        if panics >= PANICS_MAX + BURIALS_MAX {
            tracing::error!(
                event.id = %event_id,
                "the event can't be walked, and can't be made a dead letter either, which is a bug of this program; it stays \
                 stored, and is walked again after a restart"
            );
            return;
        }
        let pause = if panics == PANICS_MAX {
            tracing::error!(event.id = %event_id, "walking the event panicked {panics} times; it is given up");
            Duration::ZERO
        } else {
            let pause = PAUSE_MIN.saturating_mul(1 << (panics - 1).min(16)).min(PAUSE_MAX);
            tracing::error!(
                event.id = %event_id,
                "walking the event panicked, which is a bug of this program; it is walked again in {pause:?}"
            );
            pause
        };
        // Not among the walks: a shutdown does not wait for it.
        tokio::spawn(self.walk_again(claim, pause, panics));
    }

    async fn walk_again(self: Arc<Self>, claim: EventClaim, pause: Duration, panics: u32) {
        tokio::time::sleep(pause).await;
        let slot = Arc::clone(&self.event_slots).acquire_owned().await.expect("the dispatcher never closes its slots");
        // What is not settled when the store closes is handed back.
        if !self.tasks.is_closed() {
            self.walk_event(claim, slot, panics);
        }
    }

    /// Walks a delivery. One that panics falls due again when its lease ends.
    pub(super) fn delivery(self: &Arc<Self>, claim: DeliveryClaim, slot: OwnedSemaphorePermit) {
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let again = claim.again();
            let walk = delivery::walk(Arc::clone(&this.context), claim, slot);
            let id = &again.delivery.id;
            if AssertUnwindSafe(walk).catch_unwind().await.is_ok() {
                this.forget_panics(id);
                return;
            }
            tracing::error!(
                delivery = %id, event.id = %again.delivery.event.id,
                "walking the delivery panicked, which is a bug of this program; it falls due again when its lease ends"
            );
            if this.count_panic(id) == PANICS_MAX {
                delivery::bury(&this.context, again, DeadLetterReason::Panicked, GIVEN_UP).await;
            }
        });
    }

    fn count_panic(&self, id: &DeliveryId) -> u32 {
        let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        if panics.len() >= COUNTED_MAX {
            panics.clear();
        }
        let count = panics.entry(id.clone()).or_insert(0);
        *count += 1;
        let count = *count;
        if count == PANICS_MAX {
            panics.remove(id);
        }
        count
    }

    /// What has gone well now begins anew when it comes again.
    fn forget_panics(&self, id: &DeliveryId) {
        let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        if !panics.is_empty() {
            panics.remove(id);
        }
    }

    /// Waits until none is under way. No walk begins anew from here.
    pub(super) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use async_trait::async_trait;
    use tokio_util::sync::CancellationToken;

    use super::super::{Consumer, Dispatcher, EndpointState, Limits, Row, Snapshot, Transport, event};
    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::config::Sandbox;
    use crate::delivery::{Attempt, AttemptResult, EventHead, Outcome, Request};
    use crate::endpoint::Endpoint;
    use crate::event as vocabulary;
    use crate::filter::RouteTable;
    use crate::filter::tests::route;
    use crate::metrics::Metrics;
    use crate::plugin::PluginHost;
    use crate::store::embedded::EmbeddedStore;
    use crate::store::{Order, PageLimits, Scan, Store, StoreOptions};

    /// Takes everything.
    struct Willing(Clock);

    #[async_trait]
    impl Transport for Willing {
        async fn attempt(
            &self,
            _endpoint: &Endpoint,
            _delivery: &DeliveryId,
            _event: &EventHead,
            _subscription: &str,
            number: u32,
            _request: &Request,
        ) -> Attempt {
            let result = AttemptResult::Answered { status: 200, retry_after_ms: None };
            Attempt { number, at: self.0.now(), duration_ms: 1, result, answer: None, by: None }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_condition_that_panics_gives_its_subscription_a_dead_letter_and_costs_the_others_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::starting_at(Timestamp::from_millis(1_736_937_000_000));
        let store: Arc<dyn Store> =
            Arc::new(EmbeddedStore::open(folder.path(), StoreOptions::default(), clock).await.unwrap());
        let routes = ["ill", "well"].map(|name| route(name, &["**"], &[], Some("payload.amount == 1")));
        let mut table = RouteTable::compile(&routes).unwrap();
        table.have_panic("ill");
        let consumers = routes.iter().flat_map(|route| &route.subscriptions).map(|subscription| Consumer {
            subscription: Arc::clone(subscription),
            chain: None,
            endpoint: EndpointState::new(Arc::clone(&subscription.endpoint)),
            refusal: None,
            plugin_row: Row::default(),
            by: Arc::default(),
        });
        let snapshot = Snapshot::new(1, table, consumers.collect());
        let metrics = Metrics::default();
        let dispatcher = Dispatcher::new(
            Arc::clone(&store),
            Arc::new(ArcSwap::from_pointee(snapshot)),
            Arc::new(Willing(clock)),
            Arc::new(PluginHost::start(&Sandbox { threads: 1, cache: None }, metrics.clone()).unwrap()),
            Limits { events_in_flight_max: 4, attempts_in_flight_max: 4 },
            clock,
            metrics,
        );
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let stop = stop.clone();
            async move { dispatcher.run(stop, Duration::from_secs(5)).await }
        });
        store.append(vec![vocabulary::sample("evt_1", "order.created", r#"{"amount":1}"#)]).await.unwrap();
        let mut records = Vec::new();
        while records.len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            records = store.outcomes(None, 10).await.unwrap().0;
        }
        stop.cancel();
        assert!(running.await.unwrap());
        let of = |name: &str| {
            let record = records.iter().find(|record| record.subscription.as_deref() == Some(name));
            record.and_then(|record| record.outcome.clone()).unwrap()
        };
        assert_eq!(of("well"), Outcome::Delivered);
        let (reason, detail) = (DeadLetterReason::Panicked, event::MATCHING_PANICKED.to_owned());
        assert_eq!(of("ill"), Outcome::DeadLetter { reason, detail });
        let limits = PageLimits { records: 10, bytes: 1 << 20 };
        let letters = store.scan_dead_letters(&Scan::all(Order::OldestFirst), None, limits).await.unwrap();
        assert_eq!(letters.items.len(), 1, "it is kept, to be replayed");
        store.close().await.unwrap();
    }
}
