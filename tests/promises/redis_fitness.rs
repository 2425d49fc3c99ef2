//! What kind of server the store takes, at the start and later; and what happens when it has no room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use branchline::store::Store;
use branchline::store::redis::{Check, Checks, OnFault, RedisOptions, RedisStore};
use http::StatusCode;

use crate::redis_faults::{open, options};
use crate::router::route_to;
use crate::store_contract::{PATIENCE, append, event};
use crate::support::eventually;
use crate::support::receiver::Receiver;
use crate::support::redis_server::RedisServer;
use crate::support::router::RouterProcess;

/// Why the store is not opened.
async fn refusal(server: &RedisServer, checks: Checks) -> Option<String> {
    RedisStore::open(server.target(), RedisOptions { checks, ..options() }).await.err().map(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_would_lose_events_is_refused_or_told_as_the_config_says() {
    let master = RedisServer::start_with(&["--appendonly", "no"]);
    assert_eq!(refusal(&master, Checks::default()).await, None, "told, and no more");
    let mut strict = Checks::default();
    strict.set(Check::Persistence, OnFault::Refuse);
    let text = refusal(&master, strict).await.expect("it is refused");
    assert!(text.contains("no append-only file") && text.contains("appendonly yes"), "{text}");
    let text = refusal(&master, Checks::all(OnFault::Refuse)).await.expect("it is refused");
    assert!(text.contains("no append-only file") && text.contains("no maxmemory"), "{text}");

    let replica = RedisServer::start_with(&["--replicaof", &format!("127.0.0.1 {}", master.port())]);
    let text = refusal(&replica, Checks::default()).await.expect("it is refused");
    assert!(text.contains("is a replica"), "{text}");

    let evicting = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let text = refusal(&evicting, Checks::default()).await.expect("it is refused");
    assert!(text.contains("allkeys-lru"), "{text}");
    assert_eq!(refusal(&evicting, Checks::all(OnFault::Warn)).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_config_is_forbidden_info_says_enough() {
    let server = RedisServer::start_with(&["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]);
    server.cli(&["acl", "setuser", "default", "-config"]);
    let text = refusal(&server, Checks::default()).await.expect("it is refused");
    assert!(text.contains("allkeys-lru"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_becomes_unfit_gets_no_events_until_it_is_fit_again() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    append(&store, vec![event("before")]).await;
    server.cli(&["config", "set", "maxmemory-policy", "allkeys-lru"]);
    // As after a fail-over: what is connected to now may be another server.
    server.cli(&["client", "kill", "type", "normal"]);
    let refusal = eventually("no events are taken", PATIENCE, async || store.append(vec![event("during")]).await.err());
    let refusal = eventually_says(&store, "allkeys-lru", refusal.await.to_string()).await;
    assert!(refusal.contains("noeviction"), "{refusal}");
    assert!(store.stats().await.is_err(), "so the router is not ready");
    server.cli(&["config", "set", "maxmemory-policy", "noeviction"]);
    eventually("events are taken again", PATIENCE, async || store.append(vec![event("after")]).await.ok()).await;
}

/// The first refusals may be of the cut connections.
async fn eventually_says(store: &Arc<dyn Store>, part: &str, first: String) -> String {
    if first.contains(part) {
        return first;
    }
    eventually("it says why", PATIENCE, async || {
        let refusal = store.append(vec![event("during")]).await.err()?.to_string();
        refusal.contains(part).then_some(refusal)
    })
    .await
}

/// Posts an event whose payload has this many bytes; gives the status.
async fn post(router: &RouterProcess, id: &str, bytes: usize) -> (StatusCode, serde_json::Value) {
    let body = format!(r#"{{"id":"{id}","eventType":"order.created","payload":"{}"}}"#, "x".repeat(bytes));
    router.post("application/json", body).await.expect("there is an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_memory_refuses_events_before_redis_does_and_takes_them_again_when_there_is_room() {
    let server = RedisServer::start_with(&["--appendonly", "no", "--maxmemory", "24mb"]);
    let receiver = Receiver::start().await;
    let rest = format!("[store.redis]\nretention_when_short = \"2s\"\n{}", route_to(&receiver, "/all"));
    let mut router = RouterProcess::new(server.url().expose(), &rest);
    router.start().await;
    let mut accepted = 0;
    let refused = loop {
        let (status, problem) = post(&router, &format!("evt_{accepted}"), 100_000).await;
        if status != StatusCode::ACCEPTED {
            break (status, problem);
        }
        accepted += 1;
        assert!(accepted < 1_000, "the memory is never short");
        // Slower than the figures are read, so that the router notices before Redis refuses.
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(refused.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.1["type"], "/problems/store-nearly-full", "{}", refused.1);
    let (status, reason) = router.get("/readyz").await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reason.contains("memory is nearly full"), "{reason}");
    // Everything that was accepted is delivered, and what is settled makes room before its retention ends.
    eventually("all are delivered", PATIENCE, async || (receiver.count("/all") == accepted).then_some(())).await;
    eventually("events are taken again", PATIENCE * 4, async || {
        (post(&router, "evt_after", 10).await.0 == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    assert_eq!(router.get("/readyz").await.unwrap().0, StatusCode::OK);
    eprintln!("{accepted} events of 100 kB were accepted into 24 MB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_stopped_producers_are_answered_soon() {
    let server = RedisServer::start("everysec");
    let receiver = Receiver::start().await;
    let mut router = RouterProcess::new(server.url().expose(), &route_to(&receiver, "/all"));
    router.start().await;
    assert_eq!(post(&router, "before", 10).await.0, StatusCode::ACCEPTED);
    server.signal("STOP");
    let mut longest = Duration::ZERO;
    for n in 0..5 {
        let asked = Instant::now();
        let (status, _) = post(&router, &format!("during_{n}"), 10).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        longest = longest.max(asked.elapsed());
    }
    server.signal("CONT");
    // Two seconds for Redis, and some for a loaded machine.
    assert!(longest < Duration::from_secs(4), "{longest:?}");
    eprintln!("the slowest answer took {longest:?}");
    eventually("events are taken again", PATIENCE, async || {
        (post(&router, "after", 10).await.0 == StatusCode::ACCEPTED).then_some(())
    })
    .await;
}
