//! Deliveries: waiting, leases, settlements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use branchline::delivery::Outcome;
use branchline::store::{DeliveryClaim, DeliverySettlement, Hold, NextState, Settled, Store, StoreOptions};

use super::{
    Fixture, PATIENCE, all_dead_letters, all_outcomes, claim, claim_due_within, dead_letter, failed_attempt,
    nothing_to_claim, outcome_of, rescheduled, schedule_one, settle,
};

const NOW: Hold = Hold::Wait(Duration::ZERO);
const LATER: Hold = Hold::Wait(Duration::from_secs(60));

fn settlement(claim: DeliveryClaim, next: NextState) -> DeliverySettlement {
    let outcome = outcome_of(&claim.delivery, Outcome::Delivered);
    DeliverySettlement { claim, outcome: Some(outcome), next }
}

async fn settle_claimed(store: &Arc<dyn Store>, claim: DeliveryClaim, next: NextState) {
    let answer = store.settle_delivery(settlement(claim, next)).await.expect("the settlement succeeds");
    assert_eq!(answer, Settled::Written(()));
}

pub async fn a_held_delivery_is_settled_with_its_claim(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let (delivery, mut claims) = schedule_one(&store, "evt_1", Hold::Claimed).await;
    assert_eq!(claims.len(), 1);
    let claim = claims.remove(0);
    assert_eq!(claim.delivery, delivery);
    assert!(store.claim_due(10).await.unwrap().claims.is_empty(), "it is held");
    settle_claimed(&store, claim, NextState::Ended).await;
    assert_eq!(store.stats().await.unwrap().scheduled, 0);
    assert_eq!(all_outcomes(&store).await.len(), 2);
}

pub async fn a_waiting_delivery_falls_due_after_its_wait_and_not_before(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let started = Instant::now();
    let (delivery, claims) = schedule_one(&store, "evt_1", Hold::Wait(Duration::from_millis(600))).await;
    assert!(claims.is_empty());
    let claim = claim_due_within(&store, 1, PATIENCE).await.remove(0);
    assert!(started.elapsed() >= Duration::from_millis(580), "{:?}", started.elapsed());
    assert_eq!(claim.delivery, delivery);
}

pub async fn a_claimed_delivery_is_not_claimed_again_within_its_lease(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    schedule_one(&store, "evt_1", NOW).await;
    let claim = claim_due_within(&store, 1, PATIENCE).await.remove(0);
    for _ in 0..5 {
        assert!(store.claim_due(10).await.unwrap().claims.is_empty());
    }
    settle_claimed(&store, claim, NextState::Ended).await;
    assert!(store.claim_due(10).await.unwrap().claims.is_empty());
}

pub async fn a_delivery_whose_lease_has_ended_is_claimed_again_and_its_old_claim_is_lost(fixture: &impl Fixture) {
    let lease = Duration::from_millis(400);
    let options = StoreOptions { lease, ..StoreOptions::default() };
    for hold in [Hold::Claimed, NOW] {
        let store = fixture.open(options.clone()).await;
        let started = Instant::now();
        let (delivery, held) = schedule_one(&store, &format!("evt_{hold:?}"), hold).await;
        let old = match held.into_iter().next() {
            Some(claim) => claim,
            None => claim_due_within(&store, 1, PATIENCE).await.remove(0),
        };
        let before = all_outcomes(&store).await.len();
        let new = claim_due_within(&store, 1, PATIENCE).await.remove(0);
        assert!(started.elapsed() >= lease - Duration::from_millis(20), "{:?}", started.elapsed());
        assert_eq!(new.delivery, delivery);
        assert_eq!(store.settle_delivery(settlement(old, NextState::Ended)).await.unwrap(), Settled::Lost);
        assert_eq!(all_outcomes(&store).await.len(), before, "a lost settlement writes nothing");
        assert_eq!(store.stats().await.unwrap().scheduled, 1);
        // The new claim may be past its lease as well by now: what counts is that somebody can settle it.
        let mut claim = new;
        while store.settle_delivery(settlement(claim, NextState::Ended)).await.unwrap() == Settled::Lost {
            claim = claim_due_within(&store, 1, PATIENCE).await.remove(0);
        }
        assert_eq!(store.stats().await.unwrap().scheduled, 0);
        store.close().await.unwrap();
    }
}

pub async fn an_ended_delivery_leaves_the_schedule(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    schedule_one(&store, "evt_1", NOW).await;
    let claim = claim_due_within(&store, 1, PATIENCE).await.remove(0);
    settle_claimed(&store, claim, NextState::Ended).await;
    fixture.crash(store).await;
    let store = fixture.open(StoreOptions::default()).await;
    assert!(store.scheduled(10).await.unwrap().is_empty());
    assert!(all_dead_letters(&store).await.is_empty());
    assert_eq!(all_outcomes(&store).await.len(), 2);
}

pub async fn a_delivery_that_waits_is_written_anew(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let (delivery, _) = schedule_one(&store, "evt_1", NOW).await;
    let claim = claim_due_within(&store, 1, PATIENCE).await.remove(0);
    let mut next = delivery.clone();
    next.attempts.push(failed_attempt(2));
    let started = Instant::now();
    settle_claimed(&store, claim, NextState::Waits(next.clone(), Duration::from_millis(500))).await;
    assert_eq!(store.scheduled(10).await.unwrap().into_iter().map(|entry| entry.1).collect::<Vec<_>>(), [next.clone()]);
    let claim = claim_due_within(&store, 1, PATIENCE).await.remove(0);
    assert!(started.elapsed() >= Duration::from_millis(480), "{:?}", started.elapsed());
    assert_eq!(claim.delivery, next);
    settle_claimed(&store, claim, NextState::Waits(next.clone(), Duration::from_secs(60))).await;
    assert!(store.claim_due(10).await.unwrap().claims.is_empty());
    fixture.crash(store).await;
    let store = fixture.open(StoreOptions::default()).await;
    assert!(store.claim_due(10).await.unwrap().claims.is_empty(), "a crash shortens no wait");
    assert_eq!(store.scheduled(10).await.unwrap()[0].1, next);
}

pub async fn a_given_up_delivery_is_kept_as_a_dead_letter(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let (delivery, _) = schedule_one(&store, "evt_1", NOW).await;
    let claim = claim_due_within(&store, 1, PATIENCE).await.remove(0);
    settle_claimed(&store, claim, NextState::Dead(dead_letter(delivery.clone()))).await;
    fixture.crash(store).await;
    let store = fixture.open(StoreOptions::default()).await;
    assert!(store.scheduled(10).await.unwrap().is_empty());
    assert_eq!(all_dead_letters(&store).await, [dead_letter(delivery)]);
    assert_eq!(store.stats().await.unwrap().dead_letters, 1);
}

pub async fn next_in_tells_when_the_next_delivery_falls_due(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions { lease: Duration::from_secs(30), ..StoreOptions::default() }).await;
    assert_eq!(store.claim_due(10).await.unwrap().next_in, None);
    schedule_one(&store, "evt_late", Hold::Wait(Duration::from_secs(300))).await;
    schedule_one(&store, "evt_soon", Hold::Wait(Duration::from_secs(120))).await;
    let next_in = store.claim_due(10).await.unwrap().next_in.expect("two wait");
    assert!(next_in > Duration::from_secs(90) && next_in < Duration::from_secs(121), "{next_in:?}");
    for n in 0..3 {
        schedule_one(&store, &format!("evt_{n}"), NOW).await;
    }
    let mut claims = claim_due_within(&store, 1, PATIENCE).await;
    super::super::support::eventually("more are due", PATIENCE, async || {
        let due = store.claim_due(1).await.unwrap();
        let more = due.next_in;
        claims.extend(due.claims);
        (claims.len() == 2).then_some(more)
    })
    .await
    .into_iter()
    .for_each(|next_in| assert_eq!(next_in, Duration::ZERO));
    claims.extend(claim_due_within(&store, 1, PATIENCE).await);
    let next_in = store.claim_due(10).await.unwrap().next_in.expect("leases end");
    assert!(next_in > Duration::from_secs(5) && next_in <= Duration::from_secs(30), "{next_in:?}");
    for claim in claims {
        settle_claimed(&store, claim, NextState::Ended).await;
    }
    let next_in = store.claim_due(10).await.unwrap().next_in.expect("two wait");
    assert!(next_in > Duration::from_secs(60) && next_in <= Duration::from_secs(120), "{next_in:?}");
}

pub async fn due_deliveries_are_claimed_no_more_than_asked_for(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    super::append(&store, super::events("evt", 50)).await;
    for claim in claim(&store, 50).await {
        settle(&store, rescheduled(claim, "warehouse", NOW)).await;
    }
    let mut seen = std::collections::HashSet::new();
    let started = Instant::now();
    while seen.len() < 50 {
        assert!(started.elapsed() < PATIENCE);
        let due = store.claim_due(7).await.unwrap();
        assert!(due.claims.len() <= 7);
        for claim in due.claims {
            assert!(seen.insert(claim.delivery.id.clone()), "each is claimed once");
        }
    }
    assert!(store.claim_due(7).await.unwrap().claims.is_empty());
}

pub async fn deliveries_survive_a_crash(fixture: &impl Fixture) {
    let lease = Duration::from_millis(500);
    let options = StoreOptions { lease, ..StoreOptions::default() };
    let store = fixture.open(options.clone()).await;
    let (held, claims) = schedule_one(&store, "evt_held", Hold::Claimed).await;
    let (due, _) = schedule_one(&store, "evt_due", NOW).await;
    schedule_one(&store, "evt_later", LATER).await;
    fixture.crash(store).await;
    drop(claims);
    let store = fixture.open(options).await;
    // After the crash the held one comes again when its lease ends, at the latest.
    let mut again = std::collections::HashSet::new();
    super::super::support::eventually("both come again", PATIENCE, async || {
        let due = store.claim_due(10).await.unwrap();
        again.extend(due.claims.into_iter().map(|claim| claim.delivery.id));
        (again.len() == 2).then_some(())
    })
    .await;
    assert_eq!(again, [held.id, due.id].into());
    nothing_to_claim(&store).await;
}

pub async fn hastened_deliveries_fall_due_now(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    super::append(&store, super::events("evt", 12)).await;
    let subscriptions = ["warehouse", "tell-sales", "other"];
    for (n, claim) in claim(&store, 12).await.into_iter().enumerate() {
        settle(&store, rescheduled(claim, subscriptions[n % 3], LATER)).await;
    }
    let (_, held) = schedule_one(&store, "evt_held", Hold::Claimed).await;
    let hastened = [Arc::from("warehouse"), Arc::from("tell-sales")];
    assert_eq!(store.hasten(&hastened, 5).await.unwrap(), 5);
    assert_eq!(claim_due_within(&store, 5, PATIENCE).await.len(), 5);
    assert_eq!(store.hasten(&hastened, 100).await.unwrap(), 3);
    let claims = claim_due_within(&store, 3, PATIENCE).await;
    assert!(claims.iter().all(|claim| &*claim.delivery.subscription != "other"));
    assert_eq!(store.hasten(&hastened, 100).await.unwrap(), 0, "claimed ones are left alone");
    assert!(store.claim_due(10).await.unwrap().claims.is_empty());
    settle_claimed(&store, held.into_iter().next().expect("one is held"), NextState::Ended).await;
    assert_eq!(store.hasten(&[Arc::from("nobody")], 100).await.unwrap(), 0);
}
