//! Who this process is to the others, and what it holds.
//!
//! A consumer's claims stand or fall together: when its owner key is gone it was taken over, all its claims
//! are lost, and this process goes on under a new name. The generation tells claims of before from claims of after.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::lease;
use super::reply::StreamId;

/// How many delivery claims of a partition are remembered before the ones whose lease ended are dropped.
const DELIVERY_CLAIMS_KEPT: usize = 4096;

/// How long an event whose settlement was refused is left alone. It stays pending.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// The name this process goes by now.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: Arc<str>,
    pub(super) generation: u64,
}

struct State {
    /// None while a new name is being made.
    name: Option<Arc<str>>,
    generation: u64,
    /// Names given up that others have yet to be told of.
    retired: Vec<Arc<str>>,
    /// By partition: the events handed out and not settled.
    events: Vec<HashSet<StreamId, foldhash::fast::RandomState>>,
    /// By partition: of those, the ones whose settlement was refused, and until when they are left alone.
    set_aside: Vec<Vec<(Instant, StreamId)>>,
    /// By partition: the deliveries held under a lease, with their fence.
    deliveries: Vec<HashMap<String, u64>>,
}

pub(super) struct Membership {
    state: Mutex<State>,
    lost: Notify,
    joined: Notify,
}

impl Membership {
    pub(super) fn new(partitions: usize) -> Self {
        let state = State {
            name: None,
            // By chance, so that a claim of another opening of the store is never taken for one of this.
            generation: fastrand::u64(..),
            retired: Vec::new(),
            events: vec![HashSet::default(); partitions],
            set_aside: vec![Vec::new(); partitions],
            deliveries: vec![HashMap::new(); partitions],
        };
        Self { state: Mutex::new(state), lost: Notify::new(), joined: Notify::new() }
    }

    /// A name that nobody had before: host, process, chance.
    pub(super) fn new_name() -> Arc<str> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
        let host = if host.is_empty() { "host" } else { &host };
        format!("{host}-{}-{:016x}", std::process::id(), fastrand::u64(..)).into()
    }

    /// The name now; `None` while there is none.
    pub(super) fn current(&self) -> Option<Member> {
        let state = self.lock();
        state.name.clone().map(|name| Member { name, generation: state.generation })
    }

    /// The generation of the claims that are good now.
    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// The name, waited for at most `limit`.
    pub(super) async fn wait_for_name(&self, limit: Duration) -> Option<Member> {
        let joined = self.joined.notified();
        tokio::pin!(joined);
        joined.as_mut().enable();
        if let Some(member) = self.current() {
            return Some(member);
        }
        // Whether it was notified or not: the state says what is so.
        let _ = tokio::time::timeout(limit, joined).await;
        self.current()
    }

    /// Takes up a name that the store knows.
    pub(super) fn join(&self, name: Arc<str>) {
        self.lock().name = Some(name);
        self.joined.notify_waiters();
    }

    /// The claims of `generation` are lost. Called twice it does nothing.
    pub(super) fn lose(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation != generation {
            return;
        }
        let Some(name) = state.name.take() else { return };
        state.generation = fastrand::u64(..);
        state.retired.push(Arc::clone(&name));
        for held in &mut state.events {
            held.clear();
        }
        for refused in &mut state.set_aside {
            refused.clear();
        }
        drop(state);
        tracing::warn!(consumer = %name, "the claims of this process were taken over or are gone; going on under a new name");
        self.lost.notify_one();
    }

    /// Waits until a name was lost.
    pub(super) async fn until_lost(&self) {
        self.lost.notified().await;
    }

    /// Names given up that others have yet to be told of.
    pub(super) fn retired(&self) -> Vec<Arc<str>> {
        self.lock().retired.clone()
    }

    /// Others were told of these.
    pub(super) fn told(&self, names: &[Arc<str>]) {
        self.lock().retired.retain(|name| !names.contains(name));
    }

    /// Notes an event as held. False when it is held already, or the claims of that generation are lost.
    pub(super) fn hold_event(&self, generation: u64, partition: u16, id: StreamId) -> bool {
        let mut state = self.lock();
        state.generation == generation && state.events[usize::from(partition)].insert(id)
    }

    /// An event is settled, or is not ours.
    pub(super) fn release_event(&self, generation: u64, partition: u16, id: StreamId) {
        let mut state = self.lock();
        if state.generation == generation {
            state.events[usize::from(partition)].remove(&id);
        }
    }

    /// An event's settlement was refused: it is held for a while more, so that it does not come again at once.
    pub(super) fn set_aside(&self, generation: u64, partition: u16, id: StreamId) {
        let mut state = self.lock();
        if state.generation == generation {
            state.set_aside[usize::from(partition)].push((Instant::now() + REFUSED_PAUSE, id));
        }
    }

    /// How many events are held.
    pub(super) fn held_events_count(&self) -> usize {
        self.lock().events.iter().map(HashSet::len).sum()
    }

    /// The events held in a partition. Those that were set aside for long enough are no longer.
    pub(super) fn held_events(&self, partition: usize) -> HashSet<StreamId, foldhash::fast::RandomState> {
        let mut state = self.lock();
        let State { events, set_aside, .. } = &mut *state;
        let now = Instant::now();
        set_aside[partition].retain(|(until, id)| {
            let stays = *until > now;
            if !stays {
                events[partition].remove(id);
            }
            stays
        });
        events[partition].clone()
    }

    /// Notes deliveries as held until `fence`. `now` is the server's time, where it is known.
    pub(super) fn hold_deliveries(
        &self,
        partition: usize,
        members: impl Iterator<Item = String>,
        fence: u64,
        now: u64,
    ) {
        let mut state = self.lock();
        let held = &mut state.deliveries[partition];
        held.extend(members.map(|member| (member, fence)));
        if held.len() > DELIVERY_CLAIMS_KEPT {
            held.retain(|_, fence| lease::ends_ms(*fence) > now);
        }
    }

    /// A delivery is settled, or is not ours.
    pub(super) fn release_delivery(&self, partition: usize, member: &str, fence: u64) {
        let mut state = self.lock();
        let held = &mut state.deliveries[partition];
        if held.get(member) == Some(&fence) {
            held.remove(member);
        }
    }

    /// Takes out what is held of a partition's deliveries, to hand it back.
    pub(super) fn take_deliveries(&self, partition: usize) -> Vec<(String, u64)> {
        self.lock().deliveries[partition].drain().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: StreamId = StreamId { milliseconds: 5, sequence: 0 };

    #[test]
    fn an_event_is_handed_out_once_until_it_is_released() {
        let membership = Membership::new(2);
        membership.join(Membership::new_name());
        let now = membership.generation();
        assert!(membership.hold_event(now, 1, ID));
        assert!(!membership.hold_event(now, 1, ID));
        membership.release_event(now, 1, ID);
        assert!(membership.hold_event(now, 1, ID));
    }

    #[test]
    fn a_lost_name_takes_its_claims_with_it() {
        let membership = Membership::new(1);
        membership.join("a".into());
        let before = membership.generation();
        assert!(membership.hold_event(before, 0, ID));
        membership.lose(before);
        membership.lose(before);
        assert!(membership.current().is_none());
        assert_eq!(membership.retired(), [Arc::<str>::from("a")]);
        assert!(!membership.hold_event(before, 0, ID), "a late answer to the old name");
        membership.join("b".into());
        let after = membership.generation();
        assert_ne!(before, after);
        assert!(membership.hold_event(after, 0, ID));
        membership.release_event(before, 0, ID);
        assert!(!membership.hold_event(after, 0, ID), "a late release of the old name");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_whose_settlement_was_refused_is_left_alone_for_a_while() {
        let membership = Membership::new(1);
        membership.join("a".into());
        let now = membership.generation();
        assert!(membership.hold_event(now, 0, ID));
        membership.set_aside(now, 0, ID);
        tokio::time::advance(REFUSED_PAUSE / 2).await;
        assert!(membership.held_events(0).contains(&ID));
        tokio::time::advance(REFUSED_PAUSE).await;
        assert!(membership.held_events(0).is_empty());
        assert!(membership.hold_event(now, 0, ID));
    }

    #[test]
    fn names_differ() {
        assert_ne!(Membership::new_name(), Membership::new_name());
    }
}
