//! Random steps (append, claim, settle, replay, discard, crash, restart) against a model in memory.
//!
//! The model knows what must be true whatever the order: every accepted event is settled exactly once,
//! nothing is held twice, and in the end outcomes, schedule and figures are those that were written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use branchline::delivery::{Delivery, DeliveryId, Outcome, OutcomeRecord};
use branchline::event::Position;
use branchline::store::{
    Appended, DeliveryClaim, DeliverySettlement, EventClaim, EventSettlement, Hold, NextState, Replay, ReplayFrom,
    Replayed, ScheduledDelivery, Settled, Store, StoreOptions,
};
use fastrand::Rng;

use super::{Fixture, PATIENCE, all_outcomes, claim_within, dead_letter, delivery, event, failed_attempt, outcome_of};

const STEPS: usize = 300;
/// Few ids, so that many are duplicates.
const IDS: usize = 250;
/// Short, so that leases end within the test, and a crash of a process doesn't hold the test up.
const LEASE: Duration = Duration::from_secs(2);
/// A crash of a store whose claims are taken over late costs that much time.
const SLOW_CRASHES_MAX: usize = 2;

/// What must be true of the store.
#[derive(Default)]
struct Model {
    accepted: HashMap<String, Position>,
    unsettled: HashSet<String>,
    schedule: BTreeMap<DeliveryId, Delivery>,
    dead: HashMap<DeliveryId, usize>,
    outcomes: Vec<OutcomeRecord>,
}

/// What the living process holds.
#[derive(Default)]
struct Held {
    events: Vec<EventClaim>,
    deliveries: Vec<(DeliveryClaim, Instant)>,
}

struct Run<'a, F> {
    fixture: &'a F,
    store: Option<Arc<dyn Store>>,
    random: Rng,
    model: Model,
    held: Held,
    crashes: usize,
}

fn options() -> StoreOptions {
    StoreOptions { lease: LEASE, ..StoreOptions::default() }
}

pub async fn random_steps_and_crashes_agree_with_a_model(fixture: &impl Fixture) {
    let seed = match std::env::var("BRANCHLINE_TEST_SEED") {
        Ok(seed) => seed.parse().expect("the seed is a number"),
        Err(_) => fastrand::u64(..),
    };
    eprintln!("the seed is {seed}; BRANCHLINE_TEST_SEED={seed} runs it again");
    let mut run = Run {
        fixture,
        store: Some(fixture.open(options()).await),
        random: Rng::with_seed(seed),
        model: Model::default(),
        held: Held::default(),
        crashes: 0,
    };
    for _ in 0..STEPS {
        run.step().await;
    }
    run.restart(false).await;
    run.drain().await;
    run.compare().await;
}

impl<F: Fixture> Run<'_, F> {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().expect("a store is open between two steps"))
    }

    async fn step(&mut self) {
        match self.random.u32(..100) {
            0..30 => self.append().await,
            30..55 => self.claim().await,
            55..80 => self.settle_some().await,
            80..88 => self.claim_due().await,
            88..92 => self.settle_deliveries().await,
            92..94 => self.ask_again().await,
            94 => self.discard().await,
            95..97 => self.restart(true).await,
            _ => self.restart(false).await,
        }
    }

    async fn append(&mut self) {
        let count = self.random.usize(1..20);
        let ids: Vec<String> = (0..count).map(|_| format!("evt_{}", self.random.usize(..IDS))).collect();
        let answers = self.store().append(ids.iter().map(|id| event(id)).collect()).await.expect("the append succeeds");
        assert_eq!(answers.len(), count);
        for (id, answer) in ids.into_iter().zip(answers) {
            match answer {
                Appended::Stored(position) => {
                    assert!(self.model.unsettled.insert(id.clone()), "{id} is stored twice");
                    assert!(self.model.accepted.insert(id.clone(), position).is_none(), "{id} is stored twice");
                }
                Appended::Duplicate => assert!(self.model.accepted.contains_key(&id), "{id} was never stored"),
            }
        }
    }

    fn took(&mut self, claim: EventClaim) {
        let id = &claim.event.id;
        assert!(self.model.unsettled.contains(&**id), "{id} is settled or was never accepted");
        assert_eq!(self.model.accepted[&**id], claim.position);
        assert!(self.held.events.iter().all(|held| held.event.id != *id), "{id} is claimed twice");
        self.held.events.push(claim);
    }

    async fn claim(&mut self) {
        let max = self.random.usize(1..30);
        for claim in self.store().claim_events(max, Duration::from_millis(20)).await.expect("claiming succeeds") {
            self.took(claim);
        }
    }

    async fn settle_some(&mut self) {
        for _ in 0..self.random.usize(1..20) {
            if self.held.events.is_empty() {
                return;
            }
            let claim = self.held.events.swap_remove(self.random.usize(..self.held.events.len()));
            self.settle(claim).await;
        }
    }

    /// Settles an event with three subscriptions, each ending in its own way.
    async fn settle(&mut self, claim: EventClaim) {
        let id = claim.event.id.clone();
        let mut settlement = EventSettlement { outcomes: vec![], scheduled: vec![], dead_letters: vec![], claim };
        for subscription in ["a", "b", "c"] {
            let delivery = delivery(&settlement.claim, subscription);
            settlement.outcomes.push(outcome_of(&delivery, Outcome::Delivered));
            match self.random.u32(..10) {
                0 => settlement.dead_letters.push(dead_letter(delivery)),
                1 => settlement.scheduled.push(ScheduledDelivery { delivery, hold: Hold::Claimed }),
                2 => {
                    let wait = Duration::from_millis(self.random.u64(..200));
                    settlement.scheduled.push(ScheduledDelivery { delivery, hold: Hold::Wait(wait) });
                }
                _ => {}
            }
        }
        let outcomes = settlement.outcomes.clone();
        let scheduled: Vec<_> = settlement.scheduled.iter().map(|entry| entry.delivery.clone()).collect();
        let dead: Vec<_> = settlement.dead_letters.iter().map(|letter| letter.delivery.id.clone()).collect();
        let claimed = settlement.scheduled.iter().filter(|entry| entry.hold == Hold::Claimed).count();
        let taken = Instant::now();
        match self.store().settle_event(settlement).await.expect("the settlement succeeds") {
            Settled::Written(claims) => {
                assert_eq!(claims.len(), claimed);
                self.held.deliveries.extend(claims.into_iter().map(|claim| (claim, taken)));
            }
            Settled::Lost => panic!("{id} is held by the only process there is"),
        }
        assert!(self.model.unsettled.remove(&*id));
        self.model.outcomes.extend(outcomes);
        self.model.schedule.extend(scheduled.into_iter().map(|delivery| (delivery.id.clone(), delivery)));
        for id in dead {
            *self.model.dead.entry(id).or_default() += 1;
        }
    }

    async fn claim_due(&mut self) {
        let max = self.random.usize(1..20);
        let taken = Instant::now();
        let due = self.store().claim_due(max).await.expect("claiming succeeds");
        assert!(due.claims.len() <= max);
        for claim in due.claims {
            let id = &claim.delivery.id;
            assert_eq!(self.model.schedule.get(id), Some(&claim.delivery));
            if let Some(held) = self.held.deliveries.iter().position(|held| held.0.delivery.id == *id) {
                let (_, since) = self.held.deliveries.swap_remove(held);
                assert!(since.elapsed() >= LEASE - Duration::from_millis(20), "{id} is claimed twice");
            }
            self.held.deliveries.push((claim, taken));
        }
    }

    async fn settle_deliveries(&mut self) {
        for _ in 0..self.random.usize(1..10) {
            if self.held.deliveries.is_empty() {
                return;
            }
            let (claim, since) = self.held.deliveries.swap_remove(self.random.usize(..self.held.deliveries.len()));
            self.settle_delivery(claim, since).await;
        }
    }

    async fn settle_delivery(&mut self, claim: DeliveryClaim, since: Instant) {
        let delivery = claim.delivery.clone();
        let mut anew = delivery.clone();
        anew.attempts.push(failed_attempt(anew.next_attempt()));
        let outcome = outcome_of(&anew, Outcome::Delivered);
        let (next, waits, dies) = match self.random.u32(..4) {
            0 => (NextState::Dead(dead_letter(delivery.clone())), false, true),
            1 => (NextState::Waits(anew.clone(), Duration::from_millis(self.random.u64(..300))), true, false),
            _ => (NextState::Ended, false, false),
        };
        let settlement = DeliverySettlement { claim, outcome: Some(outcome.clone()), next };
        match self.store().settle_delivery(settlement).await.expect("the settlement succeeds") {
            Settled::Lost => {
                assert!(since.elapsed() >= LEASE - Duration::from_millis(20), "{} was held", delivery.id);
                return;
            }
            Settled::Written(()) => self.model.outcomes.push(outcome),
        }
        if waits {
            self.model.schedule.insert(delivery.id, anew);
        } else {
            self.model.schedule.remove(&delivery.id);
            *self.model.dead.entry(delivery.id).or_default() += usize::from(dies);
        }
    }

    /// An operator asks for a delivery again: for one that was given up, or for one that waits.
    async fn ask_again(&mut self) {
        let (store, anew) = (self.store(), self.random.bool());
        let from_letters = self.random.bool();
        let known: Vec<DeliveryId> = match from_letters {
            true => self.model.dead.iter().filter(|(_, letters)| **letters > 0).map(|(id, _)| id.clone()).collect(),
            false => self.model.schedule.keys().cloned().collect(),
        };
        let Some(id) = self.random.choice(&known) else { return };
        let (from, delivery) = match from_letters {
            true => {
                let (place, letter) = store.dead_letter(id).await.expect("reading succeeds").expect("it was given up");
                (ReplayFrom::DeadLetter(place), letter.delivery)
            }
            false => (ReplayFrom::Event, self.model.schedule[id].clone()),
        };
        let delivery = Delivery { attempts: vec![], ..delivery };
        let outcome = outcome_of(&delivery, Outcome::Delivered);
        let replay = Replay { delivery: delivery.clone(), from, anew, outcome: outcome.clone() };
        let held = self.held.deliveries.iter().find(|(claim, _)| claim.delivery.id == *id).map(|(_, since)| *since);
        match store.replay(replay).await.expect("the replay succeeds") {
            Replayed::Scheduled => {
                assert!(from_letters, "{id} is in the schedule");
                self.model.dead.remove(id);
                self.model.schedule.insert(id.clone(), delivery);
            }
            Replayed::Hastened => {
                assert!(!from_letters, "{id} is not in the schedule");
                assert!(held.is_none_or(|since| since.elapsed() >= LEASE - Duration::from_millis(20)), "{id} was held");
                if anew {
                    self.model.schedule.insert(id.clone(), delivery);
                }
            }
            // A process that has crashed may hold it, too.
            Replayed::Held => return assert!(!from_letters, "{id} is not in the schedule"),
            other @ (Replayed::Gone | Replayed::DeadLettered) => panic!("{id}: {other:?}"),
        }
        self.model.outcomes.push(outcome);
    }

    /// An operator throws a dead letter away.
    async fn discard(&mut self) {
        let known = self.model.dead.iter().filter(|(_, letters)| **letters > 0).map(|(id, _)| id.clone());
        let Some(id) = self.random.choice(&known.collect::<Vec<_>>()).cloned() else { return };
        let store = self.store();
        let (place, letter) = store.dead_letter(&id).await.expect("reading succeeds").expect("it was given up");
        let outcome = outcome_of(&letter.delivery, Outcome::Delivered);
        assert!(store.discard(place, &id, outcome.clone()).await.expect("the discard succeeds"));
        self.model.dead.remove(&id);
        self.model.outcomes.push(outcome);
    }

    /// Ends the process, by closing or by a crash, and starts the next.
    async fn restart(&mut self, closes: bool) {
        let held = std::mem::take(&mut self.held);
        if closes {
            self.store().close().await.expect("closing succeeds");
        } else if self.fixture.survives_after() > Duration::from_secs(1) {
            if self.crashes == SLOW_CRASHES_MAX {
                self.held = held;
                return;
            }
            self.crashes += 1;
        }
        self.fixture.crash(self.store.take().expect("a store is open between two steps")).await;
        self.store = Some(self.fixture.open(options()).await);
        drop(held);
    }

    /// Claims and settles everything that is left.
    async fn drain(&mut self) {
        let count = self.model.unsettled.len();
        for claim in claim_within(&self.store(), count, self.fixture.survives_after() + PATIENCE).await {
            self.took(claim);
        }
        while let Some(claim) = self.held.events.pop() {
            self.settle(claim).await;
        }
        let started = Instant::now();
        while !self.model.schedule.is_empty() {
            assert!(started.elapsed() < PATIENCE + LEASE, "{} deliveries never fell due", self.model.schedule.len());
            self.claim_due().await;
            self.settle_deliveries().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn compare(&mut self) {
        let key =
            |record: &OutcomeRecord| (record.event_id.clone(), record.subscription.clone(), record.attempts.len());
        let mut written = all_outcomes(&self.store()).await;
        let mut expected = std::mem::take(&mut self.model.outcomes);
        written.sort_by_key(key);
        expected.sort_by_key(key);
        assert_eq!(written, expected);
        let mut dead: HashMap<DeliveryId, usize> = HashMap::new();
        for letter in super::all_dead_letters(&self.store()).await {
            *dead.entry(letter.delivery.id).or_default() += 1;
        }
        self.model.dead.retain(|_, letters| *letters > 0);
        assert_eq!(dead, self.model.dead);
        assert!(self.store().scheduled(10).await.expect("reading succeeds").is_empty());
        let stats = self.store().stats().await.expect("figures are there");
        let letters = dead.values().sum::<usize>() as u64;
        assert_eq!((stats.backlog, stats.scheduled, stats.dead_letters), (0, 0, letters));
        for (id, position) in &self.model.accepted {
            assert_eq!(self.store().event(*position).await.expect("reading succeeds"), Some(event(id)));
        }
    }
}
