//! Events that go from the call which stores them to whoever claims: the script claims them as well, nothing is read back.
//!
//! Only what the claimer has room for goes this way, only a bounded number at a time, so that other routers get
//! their share of what this one can't do at once, and only where nothing waits in the stream before it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::membership::{Member, Membership};
use crate::store::EventClaim;

/// How many events this process keeps for itself. Those that it can't deliver at once are anybody's from the next on.
const HELD_MAX: usize = 256;

#[derive(Default)]
struct State {
    /// What the claimer has room for beyond what is promised and claimed.
    wanted: usize,
    /// What calls under way may claim.
    promised: usize,
    claims: Vec<EventClaim>,
}

/// Between the lanes that store events and the one who claims them.
#[derive(Default)]
pub(super) struct Handover {
    state: Mutex<State>,
    arrived: Notify,
    /// Read by a call that claims; written by who looks through the pending list, who would take its claims for lost ones.
    looks: RwLock<()>,
}

/// What a call may claim, and as whom.
pub(super) struct Promise<'a> {
    handover: &'a Handover,
    pub(super) member: Member,
    pub(super) count: usize,
    /// Becomes true when there is no answer: then there may be claims in the pending list that nobody knows of.
    lost: &'a AtomicBool,
    answered: bool,
    _look: RwLockReadGuard<'a, ()>,
}

impl Handover {
    /// The claimer has room for `room` events.
    pub(super) fn want(&self, room: usize, membership: &Membership) {
        let most = HELD_MAX.saturating_sub(membership.held_events_count());
        let mut state = self.lock();
        state.wanted = room.min(most).saturating_sub(state.promised + state.claims.len());
    }

    /// The claimer asks no more.
    pub(super) fn want_no_more(&self) {
        self.lock().wanted = 0;
    }

    /// A call is about to store `events`; `None` when it is to claim none of them. `lost` becomes true when it is not answered.
    pub(super) fn promise<'a>(
        &'a self,
        events: usize,
        membership: &Membership,
        lost: &'a AtomicBool,
    ) -> Option<Promise<'a>> {
        let look = self.looks.try_read().ok()?;
        let member = membership.current()?;
        let mut state = self.lock();
        let count = events.min(state.wanted);
        if count == 0 {
            return None;
        }
        state.wanted -= count;
        state.promised += count;
        drop(state);
        Some(Promise { handover: self, member, count, lost, answered: false, _look: look })
    }

    /// Takes up to `max` claims.
    pub(super) fn take(&self, max: usize, membership: &Membership) -> Vec<EventClaim> {
        let mut state = self.lock();
        if state.claims.is_empty() {
            return Vec::new();
        }
        let generation = membership.generation();
        state.claims.retain(|claim| claim.fence == generation);
        let count = max.min(state.claims.len());
        state.claims.drain(..count).collect()
    }

    /// Waits until there is something to take.
    pub(super) async fn arrived(&self) {
        // One that was told of before it waited ends the wait at once.
        self.arrived.notified().await;
    }

    /// Waits until no call is under way that claims, and lets none begin.
    pub(super) async fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.looks.write().await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Promise<'_> {
    /// Hands over what was claimed; the call was answered.
    pub(super) fn keep(mut self, claims: Vec<EventClaim>) {
        self.answered = true;
        if !claims.is_empty() {
            self.handover.lock().claims.extend(claims);
            self.handover.arrived.notify_one();
        }
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.lost.store(true, Ordering::Relaxed);
        }
        self.handover.lock().promised -= self.count;
    }
}
