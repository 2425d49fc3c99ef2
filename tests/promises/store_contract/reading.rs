//! Looking things up, and paging through them.

use std::time::Duration;

use branchline::delivery::Outcome;
use branchline::event::Position;
use branchline::store::{EventSettlement, Hold, StoreOptions};
use futures_util::future::join_all;

use super::{
    Fixture, append, claim, dead_letter, delivered, delivery, event, events, outcome_of, rescheduled, schedule_one,
    settle,
};

pub async fn an_event_is_found_by_its_position_and_by_its_id(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let mut other = event("evt_1");
    other.source = "shop".into();
    other.payload = "[2]".to_owned().into();
    let positions = append(&store, vec![event("evt_1"), other.clone()]).await;
    for claim in claim(&store, 2).await {
        settle(&store, delivered(claim)).await;
    }
    assert_eq!(store.event(positions[0]).await.unwrap().unwrap(), event("evt_1"));
    assert_eq!(store.find_event("app", "evt_1").await.unwrap().unwrap(), (positions[0], event("evt_1")));
    assert_eq!(store.find_event("shop", "evt_1").await.unwrap().unwrap(), (positions[1], other));
    assert_eq!(store.find_event("shop", "evt_2").await.unwrap(), None);
    let nowhere = Position { partition: positions[0].partition, major: 1 << 50, minor: 7 };
    assert_eq!(store.event(nowhere).await.unwrap(), None);
}

pub async fn outcomes_are_paged_through_exactly_once(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    let (page, cursor) = store.outcomes(None, 10).await.unwrap();
    assert!(page.is_empty());
    append(&store, events("evt", 60)).await;
    let mut claims = claim(&store, 60).await;
    let last = claims.split_off(50);
    let two = |claim| {
        let outcomes: Vec<_> = ["a", "b"].map(|name| outcome_of(&delivery(&claim, name), Outcome::Delivered)).into();
        (outcomes.clone(), EventSettlement { claim, outcomes, scheduled: vec![], dead_letters: vec![] })
    };
    let (expected, settlements): (Vec<_>, Vec<_>) = claims.into_iter().map(two).unzip();
    join_all(settlements.into_iter().map(|settlement| settle(&store, settlement))).await;

    let mut seen = Vec::new();
    let mut cursor = cursor;
    loop {
        let (page, next) = store.outcomes(Some(cursor), 7).await.unwrap();
        cursor = next;
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    let key = |record: &branchline::delivery::OutcomeRecord| (record.event_id.clone(), record.subscription.clone());
    let mut expected: Vec<_> = expected.into_iter().flatten().collect();
    expected.sort_by_key(key);
    seen.sort_by_key(key);
    assert_eq!(seen, expected);

    // The cursor of the empty page goes on with what is written later.
    for claim in last {
        settle(&store, delivered(claim)).await;
    }
    let mut later = 0;
    loop {
        let (page, next) = store.outcomes(Some(cursor), 3).await.unwrap();
        cursor = next;
        if page.is_empty() {
            break;
        }
        later += page.len();
    }
    assert_eq!(later, 10);
}

pub async fn dead_letters_are_paged_through_exactly_once(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions::default()).await;
    append(&store, events("evt", 25)).await;
    let mut expected = Vec::new();
    for claim in claim(&store, 25).await {
        let letter = dead_letter(delivery(&claim, "warehouse"));
        expected.push(letter.clone());
        settle(&store, EventSettlement { claim, outcomes: vec![], scheduled: vec![], dead_letters: vec![letter] })
            .await;
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let (page, next) = store.dead_letters(cursor, 4).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
        cursor = Some(next);
    }
    seen.sort_by(|a, b| a.delivery.id.cmp(&b.delivery.id));
    expected.sort_by(|a, b| a.delivery.id.cmp(&b.delivery.id));
    assert_eq!(seen, expected);
}

pub async fn the_schedule_is_read_soonest_first(fixture: &impl Fixture) {
    let store = fixture.open(StoreOptions { lease: Duration::from_secs(150), ..StoreOptions::default() }).await;
    append(&store, events("evt", 5)).await;
    let mut expected = Vec::new();
    for (claim, seconds) in claim(&store, 5).await.into_iter().zip([300, 100, 500, 200, 400]) {
        expected.push((seconds, delivery(&claim, "warehouse")));
        settle(&store, rescheduled(claim, "warehouse", Hold::Wait(Duration::from_secs(seconds)))).await;
    }
    // A claimed one stands where its lease ends.
    let (held, _claims) = schedule_one(&store, "evt_held", Hold::Claimed).await;
    expected.push((150, held));
    expected.sort_by_key(|entry| entry.0);
    let scheduled = store.scheduled(100).await.unwrap();
    let order = |entry: &(_, branchline::delivery::Delivery)| entry.1.clone();
    assert_eq!(
        scheduled.iter().map(order).collect::<Vec<_>>(),
        expected.iter().map(|e| e.1.clone()).collect::<Vec<_>>()
    );
    assert!(scheduled.is_sorted_by_key(|entry| entry.0));
    assert_eq!(store.scheduled(2).await.unwrap(), scheduled[..2]);
}
