//! The walks under way. One that panics has settled nothing, and its event is still claimed by this process, so nobody
//! else would take it up: it is walked again after a while, from its beginning.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::{Context, delivery, event};
use crate::store::{DeliveryClaim, EventClaim};

/// How long an event is left alone after its walk has panicked: it will probably panic again.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Starts walks, and can wait for all of them.
pub(super) struct Walks {
    context: Arc<Context>,
    event_slots: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Walks {
    pub(super) fn new(context: Arc<Context>, event_slots: Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self { context, event_slots, tasks: TaskTracker::new() })
    }

    /// Walks an event. `pause` is how long it is left alone if that panics.
    pub(super) fn event(self: &Arc<Self>, claim: EventClaim, slot: OwnedSemaphorePermit) {
        self.walk_event(claim, slot, PAUSE_MIN);
    }

    fn walk_event(self: &Arc<Self>, claim: EventClaim, slot: OwnedSemaphorePermit, pause: Duration) {
        let this = Arc::clone(self);
        let again = claim.again();
        // Boxed: a task's own memory is aligned to 128 bytes, which allocators do slowly for something this large.
        self.tasks.spawn(Box::pin(async move {
            let walk = event::walk(Arc::clone(&this.context), claim, slot);
            if AssertUnwindSafe(walk).catch_unwind().await.is_err() {
                tracing::error!(
                    event.id = %again.event.id,
                    "walking the event panicked, which is a bug of this program; it is walked again in {pause:?}"
                );
                // Not among the walks: a shutdown does not wait for it.
                tokio::spawn(this.walk_again(again, pause));
            }
        }));
    }

    async fn walk_again(self: Arc<Self>, claim: EventClaim, pause: Duration) {
        tokio::time::sleep(pause).await;
        let slot = Arc::clone(&self.event_slots).acquire_owned().await.expect("the dispatcher never closes its slots");
        // What is not settled when the store closes is handed back.
        if !self.tasks.is_closed() {
            self.walk_event(claim, slot, (pause * 2).min(PAUSE_MAX));
        }
    }

    /// Walks a delivery. One that panics falls due again when its lease ends.
    pub(super) fn delivery(&self, claim: DeliveryClaim, slot: OwnedSemaphorePermit) {
        self.tasks.spawn(delivery::walk(Arc::clone(&self.context), claim, slot));
    }

    /// Waits until none is under way. No walk begins anew from here.
    pub(super) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
