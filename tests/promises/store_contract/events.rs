//! Accepting, claiming and settling events.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use branchline::delivery::Outcome;
use branchline::event::Position;
use branchline::store::{Appended, Error, EventSettlement, Hold, ReplayFrom, ScheduledDelivery, Settled, StoreOptions};
use futures_util::future::join_all;

use super::{
    Fixture, PATIENCE, all_dead_letters, all_outcomes, append, claim, claim_due_within, claim_within, dead_letter,
    delivered, delivery, event, events, nothing_to_claim, outcome_of, schedule_one, settle,
};

pub async fn appended_events_are_claimed_once_each_in_the_order_of_their_partition(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let mut sent = Vec::new();
    let mut expected: BTreeMap<u16, Vec<(Position, String)>> = BTreeMap::new();
    for batch in 0..20 {
        let batch = events(&format!("evt_{batch}"), 10);
        let positions = append(&store, batch.clone()).await;
        for (event, position) in batch.into_iter().zip(positions) {
            expected.entry(position.partition).or_default().push((position, event.id.to_string()));
            sent.push(event);
        }
    }
    let mut claimed: BTreeMap<u16, Vec<(Position, String)>> = BTreeMap::new();
    for claim in claim(&store, sent.len()).await {
        let original = sent.iter().find(|event| event.id == claim.event.id).expect("it was sent");
        assert_eq!(*claim.event, *original);
        claimed.entry(claim.position.partition).or_default().push((claim.position, claim.event.id.to_string()));
    }
    assert_eq!(claimed, expected);
    for positions in claimed.values() {
        assert!(positions.is_sorted_by(|a, b| a.0 < b.0), "positions rise within a partition");
    }
    nothing_to_claim(&store).await;
}

pub async fn a_known_id_is_a_duplicate_within_its_source(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let mut other_source = event("evt_1");
    other_source.source = "shop".into();
    append(&store, vec![event("evt_1")]).await;
    append(&store, vec![other_source.clone()]).await;
    let mut other_payload = event("evt_1");
    other_payload.payload = "[]".to_owned().into();
    let answers = store.append(vec![event("evt_1"), other_source, other_payload]).await.unwrap();
    assert_eq!(answers, [Appended::Duplicate; 3]);
    // It is known while it is claimed and after it was settled, too.
    for claim in claim(&store, 2).await {
        settle(&store, delivered(claim)).await;
    }
    assert_eq!(store.append(vec![event("evt_1")]).await.unwrap(), [Appended::Duplicate]);
    nothing_to_claim(&store).await;
}

pub async fn an_id_twice_in_one_call_is_stored_once(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let answers = store.append(vec![event("evt_1"), event("evt_2"), event("evt_1")]).await.unwrap();
    assert!(matches!(answers[..], [Appended::Stored(_), Appended::Stored(_), Appended::Duplicate]), "{answers:?}");
    claim(&store, 2).await;
    nothing_to_claim(&store).await;
}

pub async fn of_fifty_tasks_that_append_one_id_exactly_one_stores_it(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let tasks = (0..50).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.append(vec![event("evt_1")]).await.unwrap().remove(0) })
    });
    let answers = join_all(tasks).await.into_iter().map(|answer| answer.expect("the task ends")).collect::<Vec<_>>();
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Appended::Stored(_))).count(), 1);
    claim(&store, 1).await;
    nothing_to_claim(&store).await;
}

pub async fn an_id_is_known_after_a_crash(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    append(&store, vec![event("evt_1")]).await;
    fixture.crash(store).await;
    let store = fixture.open(StoreOptions::default()).await;
    assert_eq!(store.append(vec![event("evt_1")]).await.unwrap(), [Appended::Duplicate]);
}

pub async fn an_id_is_forgotten_after_twice_the_dedupe_window(fixture: &impl Fixture) {
    let window = Duration::from_millis(300);
    let store = fixture.open(StoreOptions { dedupe_window: window, ..StoreOptions::default() }).await;
    let first = append(&store, vec![event("evt_1")]).await[0];
    // The window is a bound on elapsed time, so here waiting is the thing itself.
    tokio::time::sleep(window * 2 + Duration::from_millis(100)).await;
    let second = append(&store, vec![event("evt_1")]).await[0];
    assert!(first < second);
    claim(&store, 2).await;
}

pub async fn unsettled_events_come_back_after_a_crash_and_settled_ones_do_not(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    append(&store, events("evt", 30)).await;
    let mut unsettled: HashSet<String> = (0..30).map(|n| format!("evt_{n}")).collect();
    for (n, claim) in claim(&store, 20).await.into_iter().enumerate() {
        if n % 2 == 0 {
            unsettled.remove(&*claim.event.id);
            settle(&store, delivered(claim)).await;
        }
    }
    fixture.crash(store).await;
    let store = fixture.open(StoreOptions::default()).await;
    let claims = claim_within(&store, unsettled.len(), fixture.survives_after() + PATIENCE).await;
    assert_eq!(claims.into_iter().map(|claim| claim.event.id.to_string()).collect::<HashSet<_>>(), unsettled);
    nothing_to_claim(&store).await;
}

pub async fn a_settlement_writes_outcomes_deliveries_and_dead_letters_together(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    append(&store, vec![event("evt_1")]).await;
    let claim = claim(&store, 1).await.remove(0);
    let [waiting, held, given_up] = ["waiting", "held", "given-up"].map(|name| delivery(&claim, name));
    let outcomes: Vec<_> = [&waiting, &held, &given_up].map(|delivery| outcome_of(delivery, Outcome::Delivered)).into();
    let settlement = EventSettlement {
        claim,
        outcomes: outcomes.clone(),
        scheduled: vec![
            ScheduledDelivery { delivery: waiting.clone(), hold: Hold::Wait(Duration::from_secs(30)) },
            ScheduledDelivery { delivery: held.clone(), hold: Hold::Claimed },
        ],
        dead_letters: vec![dead_letter(given_up.clone())],
    };
    let claims = settle(&store, settlement).await;
    assert!(matches!(&claims[..], [claim] if claim.delivery == held));

    fixture.crash(store).await;
    let store = fixture.open(StoreOptions::default()).await;
    assert_eq!(all_outcomes(&store).await, outcomes);
    assert_eq!(all_dead_letters(&store).await, [dead_letter(given_up)]);
    let mut scheduled: Vec<_> = store.scheduled(10).await.unwrap().into_iter().map(|(_, delivery)| delivery).collect();
    let mut expected = vec![waiting, held];
    scheduled.sort_by(|a, b| a.id.cmp(&b.id));
    expected.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(scheduled, expected);
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.backlog, stats.scheduled, stats.dead_letters), (0, 2, 1));
    nothing_to_claim(&store).await;
}

pub async fn a_settlement_from_before_a_crash_is_lost(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    append(&store, vec![event("evt_1")]).await;
    let old = claim(&store, 1).await.remove(0);
    fixture.crash(store).await;
    let store = fixture.open(StoreOptions::default()).await;
    let new = claim_within(&store, 1, fixture.survives_after() + PATIENCE).await.remove(0);
    assert!(matches!(store.settle_event(delivered(old)).await.unwrap(), Settled::Lost));
    assert_eq!(all_outcomes(&store).await, []);
    settle(&store, delivered(new)).await;
    assert_eq!(all_outcomes(&store).await.len(), 1);
}

pub async fn a_waiting_claim_is_woken_by_an_append(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.claim_events(10, Duration::from_secs(60)).await.unwrap().len() }
    });
    // Whether the claim or the append comes first, the claim ends long before its own time.
    tokio::time::sleep(Duration::from_millis(50)).await;
    append(&store, vec![event("evt_1")]).await;
    assert_eq!(tokio::time::timeout(PATIENCE, waiting).await.expect("it is woken").unwrap(), 1);
}

pub async fn a_claim_waits_no_longer_than_it_was_told(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let started = Instant::now();
    assert!(store.claim_events(10, Duration::from_millis(200)).await.unwrap().is_empty());
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(150) && took < PATIENCE, "{took:?}");
}

pub async fn a_dropped_claim_loses_no_event(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let mut claimed = HashSet::new();
    for n in 0..40_u64 {
        let appended = tokio::spawn({
            let store = Arc::clone(&store);
            async move { append(&store, events(&format!("evt_{n}"), 3)).await }
        });
        // Dropped at many different moments of claiming.
        let limit = Duration::from_micros(n * 250);
        if let Ok(claims) = tokio::time::timeout(limit, store.claim_events(2, Duration::from_secs(5))).await {
            claimed.extend(claims.unwrap().into_iter().map(|claim| claim.event.id.to_string()));
        }
        appended.await.expect("the append succeeds");
    }
    let rest = claim(&store, 120 - claimed.len()).await;
    claimed.extend(rest.into_iter().map(|claim| claim.event.id.to_string()));
    assert_eq!(claimed.len(), 120);
    nothing_to_claim(&store).await;
}

pub async fn closing_hands_back_what_is_claimed(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let (held, claims) = schedule_one(&store, "evt_held", Hold::Claimed).await;
    append(&store, events("evt", 3)).await;
    let unsettled = claim(&store, 3).await;
    store.close().await.unwrap();
    drop(store);
    let store = fixture.open(StoreOptions::default()).await;
    claim_within(&store, 3, Duration::from_secs(5)).await;
    let again = claim_due_within(&store, 1, Duration::from_secs(5)).await;
    assert_eq!(again[0].delivery, held);
    drop((claims, unsettled));
}

pub async fn a_closed_store_refuses(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    append(&store, vec![event("evt_1")]).await;
    let claim = claim(&store, 1).await.remove(0);
    let again = super::history::again(&delivery(&claim, "warehouse"), ReplayFrom::Event);
    store.close().await.unwrap();
    assert!(matches!(store.replay(again).await, Err(Error::Closed)));
    assert!(matches!(store.remember_sources(&["app".into()]).await, Err(Error::Closed)));
    assert!(matches!(store.append(vec![event("evt_2")]).await, Err(Error::Closed)));
    assert!(matches!(store.claim_events(1, Duration::from_secs(5)).await, Err(Error::Closed)));
    assert!(matches!(store.settle_event(delivered(claim)).await, Err(Error::Closed)));
    assert!(matches!(store.claim_due(1).await, Err(Error::Closed)));
}

pub async fn two_thousand_events_are_stored_claimed_and_settled(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    // One call with many, and many calls with one.
    append(&store, events("many", 2_000)).await;
    join_all(events("one", 2_000).into_iter().map(|event| append(&store, vec![event]))).await;
    assert_eq!(store.stats().await.unwrap().backlog, 4_000);
    let claims = claim(&store, 4_000).await;
    let ids: HashSet<_> = claims.iter().map(|claim| claim.event.id.clone()).collect();
    assert_eq!(ids.len(), 4_000);
    join_all(claims.into_iter().map(|claim| settle(&store, delivered(claim)))).await;
    assert_eq!(store.stats().await.unwrap().backlog, 0);
    let recorded: HashSet<_> = all_outcomes(&store).await.into_iter().map(|record| record.event_id).collect();
    assert_eq!(recorded, ids);
}

pub async fn a_payload_of_a_mebibyte_comes_back_byte_for_byte(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let mut big = event("evt_big");
    let mut payload = String::from("[\"");
    // Characters of one to four bytes, so that a cut in the wrong place shows.
    while payload.len() < (1 << 20) {
        payload.push_str("aé값🦀 \\u0000");
    }
    payload.push_str("\"]");
    big.payload = payload.into();
    let position = append(&store, vec![big.clone()]).await[0];
    let claim = claim(&store, 1).await.remove(0);
    assert_eq!(*claim.event, big);
    let delivery = delivery(&claim, "warehouse");
    settle(&store, super::rescheduled(claim, "warehouse", Hold::Wait(Duration::ZERO))).await;
    fixture.crash(store).await;
    let store = fixture.open(StoreOptions::default()).await;
    assert_eq!(store.event(position).await.unwrap().unwrap(), big);
    assert_eq!(claim_due_within(&store, 1, PATIENCE).await[0].delivery, delivery);
}
