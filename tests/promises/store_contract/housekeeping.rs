//! Figures, trimming, and the marks on endpoints.

use std::sync::Arc;
use std::time::{Duration, Instant};

use branchline::clock::Timestamp;
use branchline::store::{EndpointMark, EventSettlement, Hold, MarkKind, Memory, Stats, Store, StoreOptions};
use futures_util::future::join_all;

use super::super::support::eventually;
use super::{
    Fixture, PATIENCE, all_dead_letters, all_outcomes, append, claim, claim_due_within, claim_within, dead_letter,
    delivered, delivery, events, schedule_one, settle,
};

/// Everything that is settled is old at once.
fn keep_nothing() -> StoreOptions {
    StoreOptions { retention: Duration::ZERO, dedupe_window: Duration::from_millis(1), ..StoreOptions::default() }
}

/// Trims until there is nothing more to do; gives the largest step.
async fn trim_all(store: &Arc<dyn Store>) -> u64 {
    let mut most = 0;
    loop {
        match store.trim().await.unwrap() {
            0 => return most,
            removed => most = most.max(removed),
        }
    }
}

pub async fn figures_follow_what_the_store_holds(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let stats = store.stats().await.unwrap();
    assert_eq!(Stats { memory: Memory::default(), ..stats }, Stats::default());
    append(&store, events("evt", 10)).await;
    assert_eq!(store.stats().await.unwrap().backlog, 10);
    let mut claims = claim(&store, 4).await;
    assert_eq!(store.stats().await.unwrap().backlog, 10, "claimed ones count");
    settle(&store, delivered(claims.remove(0))).await;
    let claim = claims.remove(0);
    let letter = dead_letter(delivery(&claim, "warehouse"));
    settle(&store, EventSettlement { claim, outcomes: vec![], scheduled: vec![], dead_letters: vec![letter] }).await;
    for (claim, seconds) in claims.into_iter().zip([0, 60]) {
        let wait = Hold::Wait(Duration::from_secs(seconds));
        settle(&store, super::rescheduled(claim, "warehouse", wait)).await;
    }
    let overdue = async |least: u64| {
        eventually("it is overdue", PATIENCE, async || {
            let stats = store.stats().await.unwrap();
            assert_eq!(
                Stats { overdue_ms: 0, memory: Memory::default(), ..stats },
                Stats { backlog: 6, scheduled: 2, dead_letters: 1, ..Stats::default() }
            );
            (stats.overdue_ms >= least).then_some(stats.overdue_ms)
        })
        .await
    };
    assert!(overdue(50).await < 60_000);
    // A claimed one is not overdue.
    let claims = claim_due_within(&store, 1, PATIENCE).await;
    eventually("none is overdue", PATIENCE, async || (store.stats().await.unwrap().overdue_ms == 0).then_some(()))
        .await;
    assert_eq!(store.stats().await.unwrap().scheduled, 2, "claimed ones count");
    drop(claims);
    fixture.crash(store).await;
    let store = fixture.open(StoreOptions::default()).await;
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.backlog, stats.scheduled, stats.dead_letters), (6, 2, 1));
}

pub async fn settled_old_events_are_trimmed_and_waiting_ones_never(fixture: &impl Fixture) {
    let store = fixture.open(keep_nothing()).await;
    let settled = append(&store, events("settled", 40)).await;
    for claim in claim(&store, 40).await {
        settle(&store, delivered(claim)).await;
    }
    let waiting = append(&store, events("waiting", 20)).await;
    let held = claim(&store, 5).await;
    eventually("what is settled is trimmed", PATIENCE, async || {
        trim_all(&store).await;
        for position in &settled {
            if store.event(*position).await.unwrap().is_some() {
                return None;
            }
        }
        Some(())
    })
    .await;
    assert_eq!(store.find_event("app", "settled_0").await.unwrap(), None);
    for position in &waiting {
        assert!(store.event(*position).await.unwrap().is_some(), "{position} waits");
    }
    assert_eq!(store.stats().await.unwrap().backlog, 20);
    drop(held);
    fixture.crash(store).await;
    let store = fixture.open(keep_nothing()).await;
    trim_all(&store).await;
    claim_within(&store, 20, fixture.survives_after() + PATIENCE).await;
}

pub async fn trimming_is_bounded_in_each_step(fixture: &impl Fixture) {
    let store = fixture.open(keep_nothing()).await;
    for batch in 0..6 {
        append(&store, events(&format!("evt_{batch}"), 1_000)).await;
    }
    join_all(claim(&store, 6_000).await.into_iter().map(|claim| settle(&store, delivered(claim)))).await;
    let (started, mut total) = (Instant::now(), 0);
    while total < 6_000 {
        assert!(started.elapsed() < PATIENCE, "{total} were trimmed");
        let removed = store.trim().await.unwrap();
        assert!(removed <= 5_000, "{removed} in one step");
        total += removed;
    }
}

pub async fn what_is_younger_than_the_retention_is_not_trimmed(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    // Retention counts from when the store took the event, so the events must say they are of today.
    let mut young = events("evt", 5);
    for event in &mut young {
        event.accepted_at = branchline::clock::Clock::system().now();
    }
    let positions = append(&store, young).await;
    for claim in claim(&store, 5).await {
        settle(&store, delivered(claim)).await;
    }
    trim_all(&store).await;
    for position in positions {
        assert!(store.event(position).await.unwrap().is_some());
    }
    assert_eq!(all_outcomes(&store).await.len(), 5);
}

pub async fn old_outcomes_and_dead_letters_are_trimmed(fixture: &impl Fixture) {
    let store = fixture.open(keep_nothing()).await;
    append(&store, events("evt", 10)).await;
    for claim in claim(&store, 10).await {
        let letter = dead_letter(delivery(&claim, "warehouse"));
        let mut settlement = delivered(claim);
        settlement.dead_letters.push(letter);
        settle(&store, settlement).await;
    }
    let (waiting, _) = schedule_one(&store, "evt_waits", Hold::Wait(Duration::from_secs(60))).await;
    eventually("they are trimmed", PATIENCE, async || {
        trim_all(&store).await;
        let left = all_outcomes(&store).await.len() + all_dead_letters(&store).await.len();
        (left == 0).then_some(())
    })
    .await;
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.scheduled, stats.dead_letters), (1, 0));
    assert_eq!(store.scheduled(10).await.unwrap()[0].1, waiting, "the schedule is never trimmed");
}

pub async fn marks_on_endpoints_outlive_a_restart_each_kind_by_itself(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let marked = |name: &str, kind, reason: &str| EndpointMark {
        name: name.to_owned(),
        kind,
        target: "digest".to_owned(),
        reason: reason.to_owned(),
        at: Timestamp::from_millis(7),
    };
    let disabled = |name: &str, reason: &str| marked(name, MarkKind::Disabled, reason);
    let paused = marked("warehouse", MarkKind::Paused, "paused by the operator");
    assert!(!store.unmark_endpoint("warehouse", MarkKind::Disabled).await.unwrap());
    store.mark_endpoint(disabled("warehouse", "answered 410")).await.unwrap();
    store.mark_endpoint(disabled("sales", "answered 410")).await.unwrap();
    store.mark_endpoint(paused.clone()).await.unwrap();
    store.mark_endpoint(disabled("warehouse", "answered 410 again")).await.unwrap();
    fixture.crash(store).await;
    let store = fixture.open(StoreOptions::default()).await;
    let mut marks = store.endpoint_marks().await.unwrap();
    marks.sort_by(|a, b| (&a.name, &a.reason).cmp(&(&b.name, &b.reason)));
    assert_eq!(marks, [disabled("sales", "answered 410"), disabled("warehouse", "answered 410 again"), paused.clone()]);
    assert!(store.unmark_endpoint("warehouse", MarkKind::Disabled).await.unwrap());
    assert!(!store.unmark_endpoint("warehouse", MarkKind::Disabled).await.unwrap());
    assert!(store.unmark_endpoint("sales", MarkKind::Disabled).await.unwrap());
    store.close().await.unwrap();
    drop(store);
    let store = fixture.open(StoreOptions::default()).await;
    assert_eq!(store.endpoint_marks().await.unwrap(), [paused]);
}
