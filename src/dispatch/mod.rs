//! Claims work and walks it through filter, plugin, send and settle, with limits everywhere.
//!
//! Takes events and due deliveries from the store, gives settlements back. Never holds work that the
//! store does not hold too: whatever is in flight here is claimed there, so a crash loses nothing.

mod advance; // One step of a delivery: plugins, its turn, an attempt, a decision.
mod delivery; // A delivery out of the schedule.
mod event; // An event's first attempts.
mod gate; // How many attempts an endpoint may have under way.
mod passage; // Who may go to an endpoint now.
mod rehearsal; // One event to its end, with another clock and another transport.
mod snapshot; // One generation of the config.
mod transport; // How a request gets out.
mod walks; // What is under way, and what begins anew.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

pub use event::DETACH_AFTER;
pub use gate::Row;
pub use rehearsal::{Rehearsed, rehearse};
pub use snapshot::{Consumer, EndpointState, Snapshot};
pub use transport::Transport;

use crate::clock::Clock;
use crate::delivery::{EventHead, Outcome};
use crate::metrics::Metrics;
use crate::plugin::PluginHost;
use crate::store::{self, Store};
use crate::tail::{Happening, What};
use walks::Walks;

/// How long one claim waits for an event. Short enough that a shutdown is not kept waiting.
const CLAIM_WAIT: Duration = Duration::from_secs(1);

/// How many due deliveries one claim takes at most.
const DUE_BATCH_MAX: usize = 256;

/// The schedule is looked at this often even when nothing is known to fall due: another router may have written to it.
const SCHEDULE_LOOK: Duration = Duration::from_millis(500);

/// How many events may be matched at one time by conditions that take long.
const LONG_MATCHES_MAX: usize = 2;

/// How long a claim loop waits after the store refused it.
const STORE_PAUSE: Duration = Duration::from_millis(250);

/// How much may be in flight at one time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events claimed.
    pub events_in_flight_max: usize,
    /// Attempts on the wire, over all endpoints; also how many due deliveries are claimed.
    pub attempts_in_flight_max: usize,
}

/// What a step of a delivery uses. There is no store in it: so a rehearsal makes the very same steps.
struct Means {
    transport: Arc<dyn Transport>,
    plugins: Arc<PluginHost>,
    clock: Clock,
    metrics: Metrics,
    attempts: Semaphore,
    /// A number from 0 up to 1, for jitter.
    chance: fn() -> f64,
}

/// What every walk uses.
struct Context {
    store: Arc<dyn Store>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    means: Means,
    /// Turns for matching that takes long: it may use a part of the machine, never all of it.
    long_matches: Semaphore,
    schedule_changed: Notify,
}

impl Context {
    /// Counts an outcome, and tells it to whoever watches.
    fn outcome(&self, event: &EventHead, subscription: &Arc<str>, outcome: &Outcome) {
        self.means.metrics.outcome(subscription, outcome.as_str());
        self.tell_outcome(event, Some((subscription, outcome)));
    }

    /// Tells what became of an event for a subscription, or that no route wanted it.
    fn tell_outcome(&self, event: &EventHead, of: Option<(&Arc<str>, &Outcome)>) {
        self.means.metrics.tail().tell(|| {
            let (subscription, outcome) = (of.map(|of| Arc::clone(of.0)), of.map(|of| of.1.clone()));
            Happening { at: self.means.clock.now(), event: event.into(), what: What::Outcome { subscription, outcome } }
        });
    }

    /// Wakes the claiming of deliveries when one was written that falls due before the next look at the schedule.
    fn scheduled_in(&self, soonest: Option<Duration>) {
        if soonest.is_some_and(|soonest| soonest < SCHEDULE_LOOK) {
            self.schedule_changed.notify_one();
        }
    }
}

/// The dispatcher. [`Dispatcher::run`] ends when it is told to stop.
pub struct Dispatcher {
    context: Arc<Context>,
    event_slots: Arc<Semaphore>,
    delivery_slots: Arc<Semaphore>,
    walks: Arc<Walks>,
}

impl Dispatcher {
    /// Puts a dispatcher together; it does nothing until it runs.
    pub fn new(
        store: Arc<dyn Store>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        transport: Arc<dyn Transport>,
        plugins: Arc<PluginHost>,
        limits: Limits,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let attempts = Semaphore::new(limits.attempts_in_flight_max);
        let context = Arc::new(Context {
            store,
            snapshot,
            means: Means { transport, plugins, clock, metrics, attempts, chance: fastrand::f64 },
            long_matches: Semaphore::new(LONG_MATCHES_MAX),
            schedule_changed: Notify::new(),
        });
        let event_slots = Arc::new(Semaphore::new(limits.events_in_flight_max));
        let walks = Walks::new(Arc::clone(&context), Arc::clone(&event_slots));
        let delivery_slots = Arc::new(Semaphore::new(limits.attempts_in_flight_max));
        Self { context, event_slots, delivery_slots, walks }
    }

    /// Claims and walks until `stop`, then lets what is in flight finish for up to `grace`.
    ///
    /// Returns whether everything finished. What did not is still claimed: closing the store hands it back.
    pub async fn run(&self, stop: CancellationToken, grace: Duration) -> bool {
        tokio::join!(self.claim_events(&stop), self.claim_deliveries(&stop));
        tokio::time::timeout(grace, self.walks.finish()).await.is_ok()
    }

    /// Makes the schedule be looked at now.
    pub fn schedule_changed(&self) {
        self.context.schedule_changed.notify_one();
    }

    async fn claim_events(&self, stop: &CancellationToken) {
        loop {
            let Some(first) = acquire(&self.event_slots, stop).await else { return };
            let free = self.event_slots.available_permits() + 1;
            let claims = tokio::select! {
                () = stop.cancelled() => return,
                claims = self.context.store.claim_events(free, CLAIM_WAIT) => claims,
            };
            let claims = match claims {
                Ok(claims) => claims,
                Err(error) => {
                    if !pause_after(&error, "events", stop).await {
                        return;
                    }
                    continue;
                }
            };
            let mut first = Some(first);
            for claim in claims {
                // A store with partitions may give a few more than asked for: those wait here for a slot.
                let slot = match first.take() {
                    Some(slot) => slot,
                    None => Arc::clone(&self.event_slots)
                        .acquire_owned()
                        .await
                        .expect("the dispatcher never closes its slots"),
                };
                self.walks.event(claim, slot);
            }
        }
    }

    async fn claim_deliveries(&self, stop: &CancellationToken) {
        loop {
            let Some(first) = acquire(&self.delivery_slots, stop).await else { return };
            let max = (self.delivery_slots.available_permits() + 1).min(DUE_BATCH_MAX);
            let due = match self.context.store.claim_due(max).await {
                Ok(due) => due,
                Err(error) => {
                    if !pause_after(&error, "due deliveries", stop).await {
                        return;
                    }
                    continue;
                }
            };
            let mut first = Some(first);
            for claim in due.claims {
                let slot = match first.take() {
                    Some(slot) => slot,
                    None => Arc::clone(&self.delivery_slots)
                        .acquire_owned()
                        .await
                        .expect("the dispatcher never closes its slots"),
                };
                self.walks.delivery(claim, slot);
            }
            drop(first);
            let pause = due.next_in.unwrap_or(SCHEDULE_LOOK).min(SCHEDULE_LOOK);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.context.schedule_changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// A free slot, or `None` when it is time to stop.
async fn acquire(slots: &Arc<Semaphore>, stop: &CancellationToken) -> Option<tokio::sync::OwnedSemaphorePermit> {
    tokio::select! {
        () = stop.cancelled() => None,
        slot = Arc::clone(slots).acquire_owned() => Some(slot.expect("the dispatcher never closes its slots")),
    }
}

/// Waits a moment after the store refused a claim. False when it is time to stop.
async fn pause_after(error: &store::Error, what: &str, stop: &CancellationToken) -> bool {
    tracing::warn!(%error, "{what} could not be claimed; trying again");
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(STORE_PAUSE) => true,
    }
}
