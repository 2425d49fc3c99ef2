//! The store in Redis: events that the call which stores them claims for a router that waits for some.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use branchline::secret::Secret;
use branchline::store::redis::{RedisOptions, RedisStore, RedisTarget};
use branchline::store::{EventClaim, Store};
use tokio::task::JoinHandle;

use crate::redis_faults;
use crate::store_contract::{PATIENCE, append, claim, delivered, event, events, nothing_to_claim, settle};
use crate::support::eventually;
use crate::support::fault_proxy::FaultProxy;
use crate::support::redis_server::RedisServer;

/// The one partition's stream.
const EVENTS: &str = "{bl:0}:events";

async fn open(target: RedisTarget) -> Arc<dyn Store> {
    let options = RedisOptions { partitions: 1, ..redis_faults::options() };
    Arc::new(RedisStore::open(target, options).await.expect("the store opens"))
}

/// Begins to claim, and waits until Redis makes the read wait: from here on the claimer has said what it has room for.
async fn begin_to_claim(store: &Arc<dyn Store>, server: &RedisServer, max: usize) -> JoinHandle<Vec<EventClaim>> {
    let claiming = tokio::spawn({
        let store = Arc::clone(store);
        async move { store.claim_events(max, PATIENCE).await.expect("it can claim") }
    });
    read_waits(server).await;
    claiming
}

async fn read_waits(server: &RedisServer) {
    let is_blocked = async || server.cli(&["info", "clients"]).contains("blocked_clients:1").then_some(());
    eventually("the read waits", PATIENCE, is_blocked).await;
}

/// How often Redis ran a command.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let figures = server.cli(&["info", "commandstats"]);
    let line = figures.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next()).map_or(0, |count| count.parse().expect("a count"))
}

/// What the group says of itself, by a field's name.
fn group(server: &RedisServer, field: &str) -> String {
    let about = server.cli(&["xinfo", "groups", EVENTS]);
    let mut lines = about.lines().skip_while(|line| *line != field);
    lines.nth(1).unwrap_or_default().to_owned()
}

fn ids(claims: &[EventClaim]) -> Vec<&str> {
    claims.iter().map(|claim| &*claim.event.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_waits_gets_events_without_reading_them() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    let claiming = begin_to_claim(&store, &server, 10).await;
    let stored = append(&store, events("evt", 3)).await;
    let claims = claiming.await.unwrap();
    assert_eq!(ids(&claims), ["evt_0", "evt_1", "evt_2"]);
    assert_eq!(claims.iter().map(|claim| claim.position).collect::<Vec<_>>(), stored);
    assert_eq!(*claims[0].event, event("evt_0"));
    assert_eq!(calls(&server, "xclaim"), 1, "the call that stored them claimed them");
    assert_eq!((group(&server, "pending"), group(&server, "lag")), ("3".to_owned(), "0".to_owned()));
    assert_eq!(group(&server, "entries-read"), "3");
    assert_eq!(store.stats().await.unwrap().backlog, 3);
    for claim in claims {
        settle(&store, delivered(claim)).await;
    }
    assert_eq!(store.stats().await.unwrap().backlog, 0);
    nothing_to_claim(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_claimed_than_there_is_room_for_and_the_rest_is_anybodys() {
    let server = RedisServer::start("no");
    let (store, other) = (open(server.target()).await, open(server.target()).await);
    let claiming = begin_to_claim(&store, &server, 2).await;
    append(&store, events("evt", 5)).await;
    // Two go by the call that stores them, the read that waited brings two more at the most, whichever comes first.
    let first = claiming.await.unwrap();
    assert_eq!((first.len(), calls(&server, "xclaim")), (2, 1));
    let mut seen: HashSet<_> = first.iter().map(|claim| claim.event.id.clone()).collect();
    seen.extend(claim(&other, 1).await.iter().map(|claim| claim.event.id.clone()));
    while seen.len() < 5 {
        for store in [&store, &other] {
            let claims = store.claim_events(10, Duration::from_millis(100)).await.unwrap();
            claims.iter().for_each(|claim| assert!(seen.insert(claim.event.id.clone()), "it is claimed once"));
        }
    }
    nothing_to_claim(&store).await;
    nothing_to_claim(&other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_read_before_anything_is_claimed_by_storing_it() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    append(&store, events("before", 3)).await;
    assert_eq!(ids(&claim(&store, 1).await), ["before_0"]);
    append(&store, events("after", 2)).await;
    assert_eq!(calls(&server, "xclaim"), 0);
    assert_eq!(ids(&claim(&store, 4).await), ["before_1", "before_2", "after_0", "after_1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_has_stopped_asking_claims_nothing_that_it_stores() {
    let server = RedisServer::start("no");
    let (store, other) = (open(server.target()).await, open(server.target()).await);
    let claiming = begin_to_claim(&store, &server, 10).await;
    claiming.abort();
    assert!(claiming.await.unwrap_err().is_cancelled());
    // What the read brings that waited comes with the next claim, so the other may get none of the first.
    append(&store, vec![event("evt_1")]).await;
    assert_eq!(calls(&server, "xclaim"), 0);
    let both = async {
        let mut claims = store.claim_events(1, Duration::from_secs(1)).await.unwrap();
        claims.extend(other.claim_events(1, Duration::from_secs(1)).await.unwrap());
        claims
    };
    assert_eq!(ids(&both.await), ["evt_1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_are_right_when_redis_starts_again_from_its_file() {
    let server = RedisServer::start("always");
    let store = open(server.target()).await;
    for n in 0..20 {
        let claiming = begin_to_claim(&store, &server, 10).await;
        append(&store, events(&format!("evt_{n}"), 2)).await;
        let mut claims = Vec::new();
        claims.extend(claiming.await.unwrap());
        // The two may have come in two calls, of which the second was too late for the claim.
        while claims.len() < 2 {
            claims.extend(store.claim_events(10, PATIENCE).await.unwrap());
        }
        settle(&store, delivered(claims.pop().unwrap())).await;
    }
    assert!(calls(&server, "xclaim") >= 10, "nearly all went this way");
    let figures = ["pending", "last-delivered-id", "entries-read", "lag"].map(|field| group(&server, field));
    assert_eq!((figures[0].as_str(), figures[2].as_str(), figures[3].as_str()), ("20", "40", "0"));
    server.kill();
    server.restart();
    assert_eq!(["pending", "last-delivered-id", "entries-read", "lag"].map(|field| group(&server, field)), figures);
    server.cli(&["bgrewriteaof"]);
    let rewritten = async || server.cli(&["info", "persistence"]).contains("aof_rewrite_in_progress:0").then_some(());
    eventually("the file is rewritten", PATIENCE, rewritten).await;
    server.kill();
    server.restart();
    assert_eq!(["pending", "last-delivered-id", "entries-read", "lag"].map(|field| group(&server, field)), figures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_whose_answer_was_lost_are_taken_up_once() {
    let server = RedisServer::start("no");
    let proxy = FaultProxy::before(server.port()).await;
    let store = open(RedisTarget::Single(Secret::new(format!("redis://127.0.0.1:{}", proxy.port())))).await;
    for n in 0..20 {
        let claiming = tokio::spawn({
            let store = Arc::clone(&store);
            async move {
                loop {
                    let claims = store.claim_events(1, Duration::from_secs(1)).await;
                    if let Some(claim) = claims.ok().and_then(|mut claims| claims.pop()) {
                        return claim;
                    }
                }
            }
        });
        read_waits(&server).await;
        // Whichever it hits: the append's, which claims as well, or a heartbeat's.
        proxy.lose_answers(1);
        append(&store, vec![event(&format!("evt_{n}"))]).await;
        let claim = tokio::time::timeout(PATIENCE, claiming).await.expect("it is claimed").unwrap();
        assert_eq!(claim.event.id, format!("evt_{n}"));
        settle(&store, delivered(claim)).await;
    }
    assert!(calls(&server, "xclaim") > 0);
    eventually("the last answer is lost", PATIENCE, async || (proxy.to_lose() == 0).then_some(())).await;
    eventually("claiming goes on", PATIENCE, async || store.claim_events(1, Duration::ZERO).await.ok()).await;
    nothing_to_claim(&store).await;
    assert_eq!(store.stats().await.unwrap().backlog, 0);
}
