//! What is told of what is no longer there: the operations on a store alone, whose retention is over.

use std::sync::Arc;
use std::time::Duration;

use branchline::admin::operations::replay::{ReplayRequest, Selection};
use branchline::admin::operations::{Caller, Error, dead_letters, events, replay};
use branchline::clock::Clock;
use branchline::dispatch::Snapshot;
use branchline::store::embedded::EmbeddedStore;
use branchline::store::{EventSettlement, Store, StoreOptions};

use crate::store_contract::{append, claim, dead_letter, delivery, event, settle};

#[tokio::test]
async fn an_event_that_was_trimmed_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        StoreOptions { retention: Duration::ZERO, dedupe_window: Duration::from_millis(1), ..StoreOptions::default() };
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(folder.path(), options, Clock::system()).await.unwrap());
    store.remember_sources(&["app".into()]).await.unwrap();
    append(&store, vec![event("evt_1")]).await;
    let claim = claim(&store, 1).await.remove(0);
    let delivery = delivery(&claim, "warehouse");
    let letter = dead_letter(delivery.clone());
    settle(&store, EventSettlement { claim, outcomes: vec![], scheduled: vec![], dead_letters: vec![letter] }).await;
    assert_eq!(events::one(&*store, &Snapshot::default(), "evt_1", None).await.unwrap().event.id, "evt_1");
    tokio::time::sleep(Duration::from_millis(20)).await;
    while store.trim().await.unwrap() > 0 {}

    let told = |error: Error| match error {
        Error::NotFound(text) => assert!(text.contains("`retention`"), "{text}"),
        other => panic!("{other:?}"),
    };
    told(events::one(&*store, &Snapshot::default(), "evt_1", None).await.unwrap_err());
    told(dead_letters::one(&*store, &delivery.id).await.unwrap_err());
    let (snapshot, caller) = (Arc::new(Snapshot::default()), Caller { who: "test".into(), now: Clock::system().now() });
    told(replay::dead_letter(&*store, &snapshot, &caller, &delivery.id, false).await.unwrap_err());
    let selection = Selection { event_ids: Some(vec!["evt_1".into(), "evt_2".into()]), ..Selection::default() };
    let step = replay::step(&*store, &snapshot, &caller, &ReplayRequest { selection, ..ReplayRequest::default() })
        .await
        .unwrap();
    assert_eq!((step.matched, step.skipped.values().sum::<usize>()), (0, 2));
}
