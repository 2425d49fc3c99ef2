//! What is kept, for how long, and how much room it takes.

use std::sync::Arc;
use std::time::Duration;

use branchline::clock::Clock;
use branchline::event::Event;
use branchline::store::embedded::EmbeddedStore;
use branchline::store::redis::{RedisOptions, RedisStore};
use branchline::store::{Store, StoreOptions};
use futures_util::future::join_all;

use crate::redis_faults::{open, options};
use crate::store_contract::{PATIENCE, append, claim_within, delivered, event, events, settle};
use crate::support::eventually;
use crate::support::redis_server::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_old_unsettled_event_does_not_keep_what_was_settled_after_it() {
    let server = RedisServer::start("no");
    let store = StoreOptions { retention: Duration::ZERO, ..StoreOptions::default() };
    let options = RedisOptions { partitions: 1, store, ..options() };
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(server.target(), options).await.expect("the store opens"));
    keeps_what_waits(&store).await;
}

/// The same with the embedded store, in which events are in order of their numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_it_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (retention, dedupe_window) = (Duration::ZERO, Duration::from_millis(1));
    let options = StoreOptions { retention, dedupe_window, ..StoreOptions::default() };
    let store: Arc<dyn Store> =
        Arc::new(EmbeddedStore::open(folder.path(), options, Clock::system()).await.expect("the store opens"));
    keeps_what_waits(&store).await;
}

async fn keeps_what_waits(store: &Arc<dyn Store>) {
    let mut positions = append(store, vec![event("first")]).await;
    for batch in 0..5 {
        positions.extend(append(store, events(&format!("evt_{batch}"), 1_000)).await);
    }
    let waiting = append(store, events("waiting", 10)).await;
    let mut claims = claim_within(store, positions.len(), PATIENCE).await;
    // One at the beginning and one in the middle take long.
    let slow = [claims.remove(2_500), claims.remove(0)];
    join_all(claims.into_iter().map(|claim| settle(store, delivered(claim)))).await;
    let kept: Vec<_> = slow.iter().map(|claim| claim.position).chain(waiting).collect();
    positions.retain(|position| !kept.contains(position));
    eventually("all that is settled is removed", PATIENCE, async || {
        let removed = store.trim().await.unwrap();
        assert!(removed <= 2_000, "{removed} in one step");
        // What is gone is not asked for again.
        while let Some(position) = positions.last() {
            if store.event(*position).await.unwrap().is_some() {
                return None;
            }
            positions.pop();
        }
        Some(())
    })
    .await;
    for position in &kept {
        assert!(store.event(*position).await.unwrap().is_some(), "{position} waits");
    }
    let waiting = claim_within(store, 10, PATIENCE).await;
    join_all(slow.into_iter().chain(waiting).map(|claim| settle(store, delivered(claim)))).await;
    eventually("the rest is removed", PATIENCE, async || {
        store.trim().await.unwrap();
        store.event(kept[0]).await.unwrap().is_none().then_some(())
    })
    .await;
    while store.trim().await.unwrap() > 0 {}
}

const MEASURED: usize = 10_000;

/// Events of a kibibyte that does not compress.
fn measured_events(batch: usize) -> Vec<Event> {
    let mut events = events(&format!("evt_{batch}"), 1_000);
    for event in &mut events {
        let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(1_000).collect();
        event.payload = format!(r#"{{"text":"{text}"}}"#).into();
        event.accepted_at = Clock::system().now();
    }
    events
}

/// Stores and settles them.
async fn fill(store: &Arc<dyn Store>) {
    for batch in 0..MEASURED / 1_000 {
        append(store, measured_events(batch)).await;
        let claims = claim_within(store, 1_000, PATIENCE).await;
        join_all(claims.into_iter().map(|claim| settle(store, delivered(claim)))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kept_event_takes_is_known() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    let used = async || store.stats().await.unwrap().memory.used_bytes;
    let before = used().await;
    fill(&store).await;
    let in_memory = (used().await - before) / MEASURED as u64;

    let folder = tempfile::tempdir().unwrap();
    let embedded = EmbeddedStore::open(folder.path(), StoreOptions::default(), Clock::system()).await.unwrap();
    let embedded: Arc<dyn Store> = Arc::new(embedded);
    fill(&embedded).await;
    embedded.close().await.unwrap();
    drop(embedded);
    let files = std::fs::read_dir(folder.path()).unwrap();
    let on_disk = files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>() / MEASURED as u64;

    eprintln!("a settled event of 1 KiB: {in_memory} bytes of Redis's memory, {on_disk} bytes on disk");
    // Stated in the README as about 1.8 and 1.6 kB.
    assert!((1_000..2_400).contains(&in_memory), "{in_memory}");
    assert!((1_000..2_400).contains(&on_disk), "{on_disk}");
}
