//! Looking back and asking again: what operators rely on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use branchline::clock::Timestamp;
use branchline::delivery::{Delivery, DeliveryId, Outcome, OutcomeRecord, Waiting};
use branchline::event::{Event, Position};
use branchline::store::{
    AuditEntry, DeliveryKey, DeliverySettlement, EventSettlement, Hold, NextState, Order, PageLimits, Replay,
    ReplayFrom, Replayed, Scan, ScanCursor, SchedulePage, ScheduledDelivery, Settled, Store, StoreOptions,
};
use futures_util::future::join_all;

use super::{
    Fixture, PATIENCE, all_dead_letters, append, claim, claim_due_within, dead_letter, delivered, delivery, event,
    events, failed_attempt, outcome_of, rescheduled, schedule_one, settle,
};

/// Everything that a scan gives.
async fn scanned(store: &Arc<dyn Store>, scan: Scan, limits: PageLimits) -> Vec<(Position, Event)> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.scan_events(&scan, cursor, limits).await.expect("reading succeeds");
        assert!(page.items.len() <= limits.records, "{} of {}", page.items.len(), limits.records);
        all.extend(page.items);
        // As a client has it.
        cursor = page.next.map(|next| next.to_string().parse::<ScanCursor>().expect("a cursor is read back"));
        if cursor.is_none() {
            return all;
        }
    }
}

pub async fn events_are_read_in_order_in_pages_of_any_size_exactly_once(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let mut stored = HashMap::new();
    for batch in 0..30 {
        let batch = events(&format!("evt_{batch}"), 7);
        let positions = append(&store, batch.clone()).await;
        stored.extend(positions.into_iter().zip(batch));
    }
    for limits in [(1_000, 1 << 20), (7, 1 << 20), (1_000, 700), (1, 1)] {
        let limits = PageLimits { records: limits.0, bytes: limits.1 };
        let forward = scanned(&store, Scan::all(Order::OldestFirst), limits).await;
        assert_eq!(forward.len(), stored.len());
        assert_eq!(forward.iter().cloned().collect::<HashMap<_, _>>(), stored, "each once, as it was stored");
        let mut by_partition: BTreeMap<u16, Vec<Position>> = BTreeMap::new();
        forward.iter().for_each(|entry| by_partition.entry(entry.0.partition).or_default().push(entry.0));
        assert!(by_partition.values().all(|positions| positions.is_sorted()), "in the order of acceptance");
        let mut backward = scanned(&store, Scan::all(Order::NewestFirst), limits).await;
        backward.reverse();
        assert_eq!(backward, forward);
    }
}

pub async fn a_scan_is_of_its_time_and_ends_with_what_was_there_when_it_began(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let clock = branchline::clock::Clock::system();
    let pause = Duration::from_millis(300);
    append(&store, events("old", 5)).await;
    tokio::time::sleep(pause).await;
    let since = clock.now();
    tokio::time::sleep(pause).await;
    append(&store, events("middle", 20)).await;
    tokio::time::sleep(pause).await;
    let until = clock.now();
    tokio::time::sleep(pause).await;
    append(&store, events("new", 5)).await;
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let scan = Scan { since, until: Some(until), order };
        let found = scanned(&store, scan, PageLimits::records(3)).await;
        assert_eq!(found.len(), 20, "{order:?}");
        assert!(found.iter().all(|(_, event)| event.id.starts_with("middle")), "{order:?}");
    }
    let scan = Scan { since, until: None, order: Order::OldestFirst };
    let first = store.scan_events(&scan, None, PageLimits::records(3)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    append(&store, events("late", 5)).await;
    let (mut count, mut cursor) = (first.items.len(), first.next);
    while let Some(at) = cursor {
        let page = store.scan_events(&scan, Some(at), PageLimits::records(4)).await.unwrap();
        assert!(page.items.iter().all(|(_, event)| !event.id.starts_with("late")));
        (count, cursor) = (count + page.items.len(), page.next);
    }
    assert_eq!(count, 25);
}

pub async fn ten_thousand_events_are_scanned_in_seconds(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    for batch in 0..10 {
        append(&store, events(&format!("evt_{batch}"), 1_000)).await;
    }
    let started = Instant::now();
    let found = scanned(&store, Scan::all(Order::OldestFirst), PageLimits::records(1_000)).await;
    assert_eq!(found.len(), 10_000);
    // A hundred thousand in well under a minute, on a machine that does other things too.
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

/// What was recorded of one event.
async fn recorded(store: &Arc<dyn Store>, position: Position) -> Vec<OutcomeRecord> {
    store.outcomes_of(&[(position, event("evt").accepted_at)]).await.expect("reading succeeds")
}

pub async fn what_became_of_an_event_is_found_however_late_it_was_recorded(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let positions = append(&store, events("evt", 300)).await;
    let mut claims = claim(&store, 300).await;
    claims.sort_by_key(|claim| claim.position);
    let late = claims.split_off(150);
    join_all(
        claims.into_iter().map(|claim| settle(&store, rescheduled(claim, "warehouse", Hold::Wait(Duration::ZERO)))),
    )
    .await;
    // Longer than any store looks right after the event.
    tokio::time::sleep(Duration::from_millis(2_300)).await;
    join_all(late.into_iter().map(|claim| settle(&store, delivered(claim)))).await;
    for claim in claim_due_within(&store, 150, PATIENCE).await {
        let outcome = Some(outcome_of(&claim.delivery, Outcome::Delivered));
        let settlement = DeliverySettlement { claim, outcome, next: NextState::Ended };
        assert_eq!(store.settle_delivery(settlement).await.unwrap(), Settled::Written(()));
    }
    let words = |records: &[OutcomeRecord]| -> Vec<&str> {
        records.iter().map(|record| record.outcome.as_ref().expect("it has one").as_str()).collect()
    };
    let (mut once, mut twice) = (0, 0);
    for position in positions.iter().step_by(10) {
        let records = recorded(&store, *position).await;
        assert!(records.iter().all(|record| record.position == *position));
        match words(&records)[..] {
            ["delivered"] => once += 1,
            ["scheduled", "delivered"] => twice += 1,
            ref other => panic!("{other:?}"),
        }
    }
    assert_eq!((once > 0, twice > 0, once + twice), (true, true, 30));
    let many: Vec<_> = positions.iter().map(|position| (*position, event("evt").accepted_at)).collect();
    let all = store.outcomes_of(&many).await.unwrap();
    assert_eq!(all.len(), 450);
    let waiting = append(&store, vec![event("evt_waits")]).await[0];
    assert_eq!(recorded(&store, waiting).await, [], "it is not settled yet");
}

fn key(delivery: &Delivery) -> DeliveryKey {
    DeliveryKey {
        event: delivery.event.position,
        id: delivery.id.clone(),
        subscription: Arc::clone(&delivery.subscription),
    }
}

pub async fn a_waiting_delivery_is_found_and_whether_it_is_held(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let (waits, _) = schedule_one(&store, "evt_waits", Hold::Wait(Duration::from_secs(60))).await;
    let (held, _claims) = schedule_one(&store, "evt_held", Hold::Claimed).await;
    append(&store, vec![event("evt_none")]).await;
    let none = delivery(&claim(&store, 1).await[0], "warehouse");
    let found = store.waiting(&[key(&waits), key(&held), key(&none)]).await.unwrap();
    let of = |n: usize| found[n].as_ref().map(|waiting| (waiting.held, waiting.delivery.clone()));
    assert_eq!((of(0), of(1), of(2)), (Some((false, waits.clone())), Some((true, held.clone())), None));
    let listed = store.schedule(Some("warehouse"), None, 10).await.unwrap().items;
    assert_eq!(listed.iter().map(|waiting| waiting.held).collect::<HashSet<_>>(), [true, false].into());
    assert_eq!(store.schedule(Some("sales"), None, 10).await.unwrap(), SchedulePage::default());
}

/// More than any page has, and beside others.
pub async fn all_that_waits_is_counted(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    schedule_one(&store, "evt_one", Hold::Wait(Duration::from_secs(60))).await;
    append(&store, vec![event("evt_many")]).await;
    let claim = claim(&store, 1).await.remove(0);
    let many = (0..1_234).map(|number| {
        let id = DeliveryId::from_stored(&format!("dlv_{number}"));
        let delivery = Delivery { id, ..delivery(&claim, "sales") };
        ScheduledDelivery { delivery, hold: Hold::Wait(Duration::from_secs(60)) }
    });
    let scheduled = many.collect();
    settle(&store, EventSettlement { claim, outcomes: vec![], scheduled, dead_letters: vec![] }).await;
    let mut counts = Vec::new();
    for subscription in [Some("sales"), Some("warehouse"), Some("nobody"), None] {
        counts.push(store.count_waiting(subscription).await.unwrap());
    }
    assert_eq!(counts, [1_234, 1, 0, 1_235]);

    // Page by page each is there once, soonest first, held or not; what is of others is left out.
    let (held, _claims) = schedule_one(&store, "evt_held", Hold::Claimed).await;
    for (subscription, expected) in [(Some("sales"), 1_234), (Some("warehouse"), 2), (Some("nobody"), 0), (None, 1_236)]
    {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = store.schedule(subscription, after, 100).await.unwrap();
            assert!(page.items.len() <= 100);
            listed.extend(page.items);
            let Some(next) = page.next else { break };
            assert_eq!(next.to_string().parse(), Ok(next.clone()));
            after = Some(next);
        }
        assert!(listed.is_sorted_by_key(|waiting| waiting.due), "{subscription:?}");
        let ids: HashSet<_> = listed.iter().map(|waiting| waiting.delivery.id.clone()).collect();
        assert_eq!((listed.len(), ids.len()), (expected, expected), "{subscription:?}");
        assert_eq!(ids.contains(&held.id), subscription.is_none_or(|subscription| subscription == "warehouse"));
    }
}

/// An event with a dead letter for each of these subscriptions.
async fn given_up(store: &Arc<dyn Store>, id: &str, subscriptions: &[&str]) -> Vec<Delivery> {
    append(store, vec![event(id)]).await;
    let claim = claim(store, 1).await.remove(0);
    let deliveries: Vec<_> = subscriptions.iter().map(|subscription| delivery(&claim, subscription)).collect();
    let dead_letters = deliveries.iter().cloned().map(dead_letter).collect();
    settle(store, EventSettlement { claim, outcomes: vec![], scheduled: vec![], dead_letters }).await;
    deliveries
}

/// A replay of a delivery as it was, with a new round of attempts.
pub fn again(delivery: &Delivery, from: ReplayFrom) -> Replay {
    let delivery = Delivery { attempts: vec![], ..delivery.clone() };
    let outcome = outcome_of(&delivery, Outcome::Scheduled { next: Timestamp::from_millis(7), why: Waiting::Replay });
    Replay { delivery, from, anew: false, outcome }
}

pub async fn a_dead_letter_is_replayed_once_however_many_ask(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let deliveries = given_up(&store, "evt_1", &["warehouse", "sales"]).await;
    let (place, letter) = store.dead_letter(&deliveries[0].id).await.unwrap().expect("it was given up");
    assert_eq!(letter, dead_letter(deliveries[0].clone()));
    assert_eq!(store.replay(again(&deliveries[0], ReplayFrom::Event)).await.unwrap(), Replayed::DeadLettered);
    let asked = (0..20).map(|_| store.replay(again(&deliveries[0], ReplayFrom::DeadLetter(place))));
    let answers: Vec<_> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == Replayed::Scheduled).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| **answer == Replayed::Gone).count(), 19, "{answers:?}");
    assert_eq!(store.dead_letter(&deliveries[0].id).await.unwrap(), None);
    assert_eq!(all_dead_letters(&store).await, [dead_letter(deliveries[1].clone())], "the other one stays");
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.scheduled, stats.dead_letters), (1, 1));
    let claim = claim_due_within(&store, 1, PATIENCE).await.remove(0);
    assert_eq!(claim.delivery, Delivery { attempts: vec![], ..deliveries[0].clone() }, "the bytes are the same");
    let records = recorded(&store, deliveries[0].event.position).await;
    assert_eq!(records.len(), 1, "it is recorded once: {records:?}");
    assert!(matches!(records[0].outcome, Some(Outcome::Scheduled { why: Waiting::Replay, .. })));
}

pub async fn a_replay_meets_a_delivery_as_it_stands(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions { lease: Duration::from_secs(60), ..StoreOptions::default() }).await;
    let (waits, _) = schedule_one(&store, "evt_1", Hold::Wait(Duration::from_secs(3_600))).await;
    assert_eq!(store.replay(again(&waits, ReplayFrom::Event)).await.unwrap(), Replayed::Hastened);
    let claim = claim_due_within(&store, 1, PATIENCE).await.remove(0);
    assert_eq!(claim.delivery, waits, "it is as it was, attempts and all, only sooner");
    assert_eq!(store.replay(again(&waits, ReplayFrom::Event)).await.unwrap(), Replayed::Held);
    assert_eq!(store.stats().await.unwrap().scheduled, 1, "never twice");
    let mut next = waits.clone();
    next.attempts.push(failed_attempt(2));
    let next_state = NextState::Waits(next, Duration::from_secs(3_600));
    let settlement = DeliverySettlement { claim, outcome: None, next: next_state };
    assert_eq!(store.settle_delivery(settlement).await.unwrap(), Settled::Written(()), "the claim was left alone");
    let anew = Replay { anew: true, ..again(&waits, ReplayFrom::Event) };
    assert_eq!(store.replay(anew).await.unwrap(), Replayed::Hastened);
    let claim = claim_due_within(&store, 1, PATIENCE).await.remove(0);
    assert_eq!(claim.delivery.attempts, [], "it was written anew");
    let settlement = DeliverySettlement { claim, outcome: None, next: NextState::Ended };
    assert_eq!(store.settle_delivery(settlement).await.unwrap(), Settled::Written(()));
    assert_eq!(store.replay(again(&waits, ReplayFrom::Event)).await.unwrap(), Replayed::Scheduled);
    fixture.crash(store).await;
    let store = fixture.open(StoreOptions::default()).await;
    assert_eq!(claim_due_within(&store, 1, PATIENCE).await[0].delivery.id, waits.id, "a replay survives a crash");
}

pub async fn hundreds_of_dead_letters_are_replayed_in_pages_while_they_fail_again(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    append(&store, events("evt", 300)).await;
    let settlements = claim(&store, 300).await.into_iter().map(|claim| {
        let letter = dead_letter(delivery(&claim, "warehouse"));
        EventSettlement { claim, outcomes: vec![], scheduled: vec![], dead_letters: vec![letter] }
    });
    join_all(settlements.map(|settlement| settle(&store, settlement))).await;
    let all: HashSet<_> = all_dead_letters(&store).await.into_iter().map(|letter| letter.delivery.id).collect();
    assert_eq!(all.len(), 300);

    let scan = Scan::all(Order::OldestFirst);
    let (mut replayed, mut cursor, mut is_over) = (Vec::new(), None, false);
    while !is_over {
        let page = store.scan_dead_letters(&scan, cursor, PageLimits::records(17)).await.unwrap();
        for (place, letter) in page.items {
            let answer = store.replay(again(&letter.delivery, ReplayFrom::DeadLetter(place))).await.unwrap();
            assert_eq!(answer, Replayed::Scheduled);
            replayed.push(letter.delivery.id);
        }
        (cursor, is_over) = (page.next, page.next.is_none());
        // Some of them fail at once and are given up again, while the next pages are read.
        for claim in store.claim_due(9).await.unwrap().claims {
            let next = NextState::Dead(dead_letter(claim.delivery.clone()));
            store.settle_delivery(DeliverySettlement { claim, outcome: None, next }).await.unwrap();
        }
    }
    assert_eq!(replayed.len(), 300, "none twice");
    assert_eq!(replayed.into_iter().collect::<HashSet<_>>(), all, "none left out");
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.scheduled + stats.dead_letters, 300);
    for letter in all_dead_letters(&store).await {
        assert!(store.dead_letter(&letter.delivery.id).await.unwrap().is_some(), "it is found again");
    }
}

pub async fn a_discarded_dead_letter_is_gone_and_its_reason_is_recorded(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let delivery = given_up(&store, "evt_1", &["warehouse"]).await.remove(0);
    let (place, _) = store.dead_letter(&delivery.id).await.unwrap().expect("it was given up");
    let outcome = outcome_of(&delivery, Outcome::Discarded { reason: "a test order".to_owned() });
    let discard = async || store.discard(place, &delivery.id, outcome.clone()).await.unwrap();
    assert_eq!((discard().await, discard().await), (true, false));
    assert_eq!(store.dead_letter(&delivery.id).await.unwrap(), None);
    assert_eq!(store.replay(again(&delivery, ReplayFrom::DeadLetter(place))).await.unwrap(), Replayed::Gone);
    assert_eq!((all_dead_letters(&store).await.len(), store.stats().await.unwrap().dead_letters), (0, 0));
    assert_eq!(recorded(&store, delivery.event.position).await, [outcome]);
}

pub async fn the_audit_log_is_read_newest_first_and_trimmed_with_the_rest(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let entry = |n: u64| AuditEntry {
        at: Timestamp::from_millis(n),
        who: "loopback".to_owned(),
        action: "replay".to_owned(),
        target: format!("dlv_{n}"),
        detail: String::new(),
    };
    for n in 0..25 {
        store.record_audit(&entry(n)).await.unwrap();
    }
    fixture.crash(store).await;
    let options = StoreOptions { retention: Duration::ZERO, ..StoreOptions::default() };
    let store = fixture.open(options).await;
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.audit_log(cursor, 4).await.unwrap();
        seen.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).rev().map(entry).collect::<Vec<_>>());
    super::super::support::eventually("old entries go", PATIENCE, async || {
        store.record_audit(&entry(99)).await.unwrap();
        store.trim().await.unwrap();
        (store.audit_log(None, 100).await.unwrap().items.len() < 25).then_some(())
    })
    .await;
}

pub async fn sources_are_remembered(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    store.remember_sources(&["app".into(), "shop".into()]).await.unwrap();
    store.remember_sources(&["app".into()]).await.unwrap();
    fixture.crash(store).await;
    let store = fixture.open(StoreOptions::default()).await;
    let mut sources = store.sources().await.unwrap();
    sources.sort();
    assert_eq!(sources, ["app", "shop"]);
}
