//! Events that are claimed in the step that stores them: by whom, how often, and what a crash or a lost answer leaves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use branchline::secret::Secret;
use branchline::store::redis::RedisTarget;
use branchline::store::{EventClaim, Store};
use tokio::sync::mpsc;

use crate::redis_faults::{one_partition, open};
use crate::store_contract::{
    PATIENCE, append, claim, claim_within, delivered, event, events, nothing_to_claim, settle,
};
use crate::support::eventually;
use crate::support::fault_proxy::FaultProxy;
use crate::support::redis_server::RedisServer;

/// How often events were claimed without being read. Taking over from a dead process counts too.
fn claimed_unread(server: &RedisServer) -> u64 {
    let stats = server.cli(&["info", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_xclaim:calls="));
    calls.and_then(|calls| calls.split(',').next()?.parse().ok()).unwrap_or(0)
}

/// Claims for ever, as a router does, and gives what it has claimed.
fn claiming(store: &Arc<dyn Store>) -> mpsc::Receiver<EventClaim> {
    let (sender, receiver) = mpsc::channel(1024);
    let store = Arc::clone(store);
    tokio::spawn(async move {
        loop {
            let claims = store.claim_events(100, Duration::from_secs(1)).await.unwrap_or_default();
            for claim in claims {
                if sender.send(claim).await.is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stores_an_event_and_waits_for_events_has_it_without_reading_it_back() {
    let server = RedisServer::start("no");
    let target = || server.target();
    let (store, other) = (one_partition(target()).await, one_partition(target()).await);
    append(&store, events("read", 1)).await;
    let first = claim(&store, 1).await.remove(0);
    settle(&store, delivered(first)).await;
    assert_eq!(claimed_unread(&server), 0, "nobody waited while it was stored");

    let mut claims = claiming(&store);
    let stored = events("handed", 50);
    let mut held = Vec::new();
    for event in &stored {
        append(&store, vec![event.clone()]).await;
        held.push(tokio::time::timeout(PATIENCE, claims.recv()).await.expect("it is claimed").unwrap());
    }
    assert!(held.iter().map(|claim| &*claim.event).eq(&stored), "as they were stored, in their order");
    assert!(claimed_unread(&server) > 40, "{} of 50", claimed_unread(&server));
    nothing_to_claim(&other).await;
    let backlog = store.stats().await.unwrap().backlog;
    assert_eq!(backlog, 50, "held is not settled");
    for claim in held.drain(..25) {
        settle(&store, delivered(claim)).await;
    }
    // A crash: nobody hands anything back.
    drop((claims, store));
    let mut left: Vec<_> =
        claim_within(&other, 25, PATIENCE).await.iter().map(|claim| claim.event.id.clone()).collect();
    left.sort();
    let mut expected: Vec<_> = held.iter().map(|claim| claim.event.id.clone()).collect();
    expected.sort();
    assert_eq!(left, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_older_events_are_left_to_read_they_come_first() {
    let server = RedisServer::start("no");
    let store = one_partition(server.target()).await;
    append(&store, events("old", 300)).await;
    let mut claims = claiming(&store);
    append(&store, events("new", 5)).await;
    for n in 0..305 {
        let claim = tokio::time::timeout(PATIENCE, claims.recv()).await.expect("it is claimed").unwrap();
        assert_eq!(claim.event.id.starts_with("old"), n < 300, "{n}: {}", claim.event.id);
        settle(&store, delivered(claim)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_answer_is_lost_hands_its_events_over_once() {
    let server = RedisServer::start("no");
    let proxy = FaultProxy::before(server.port()).await;
    let store = open(RedisTarget::Single(Secret::new(format!("redis://127.0.0.1:{}", proxy.port())))).await;
    let mut claims = claiming(&store);
    let mut seen: HashMap<String, usize> = HashMap::new();
    for n in 0..30 {
        let id = format!("evt_{n}");
        if n % 3 == 0 {
            proxy.lose_answers(1);
        }
        eventually("it is stored", PATIENCE, async || store.append(vec![event(&id)]).await.ok()).await;
        while !seen.contains_key(&id) {
            let claim = tokio::time::timeout(PATIENCE, claims.recv()).await.expect("it is claimed").unwrap();
            *seen.entry(claim.event.id.clone()).or_default() += 1;
            settle(&store, delivered(claim)).await;
        }
    }
    eventually("everything is settled", PATIENCE, async || store.stats().await.ok().filter(|stats| stats.backlog == 0))
        .await;
    assert!(claims.try_recv().is_err(), "nothing comes twice");
    assert!(seen.values().all(|times| *times == 1) && seen.len() == 30, "{seen:?}");
    assert!(claimed_unread(&server) > 0);
}
