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
            let walk = event::walk(Arc::clone(&this.context), claim, slot);
            if AssertUnwindSafe(walk).catch_unwind().await.is_ok() {
                return;
            }
            let panics = panics + 1;
            if panics >= PANICS_MAX {
                let buried = event::bury(&this.context, again.again(), DeadLetterReason::Panicked, GIVEN_UP);
                if AssertUnwindSafe(buried).catch_unwind().await.is_ok() {
                    return;
                }
            }
            let pause = PAUSE_MIN.saturating_mul(1 << (panics - 1).min(16)).min(PAUSE_MAX);
            tracing::error!(
                event.id = %again.event.id,
                "walking the event panicked, which is a bug of this program; it is walked again in {pause:?}"
            );
            // Not among the walks: a shutdown does not wait for it.
            tokio::spawn(this.walk_again(again, pause, panics));
        }));
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
