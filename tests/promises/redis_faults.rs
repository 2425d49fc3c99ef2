//! What the store in Redis survives: kills, stops, lost answers, lost scripts, lost data, full memory, broken entries.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use branchline::delivery::Outcome;
use branchline::secret::Secret;
use branchline::store::redis::{RedisOptions, RedisStore, RedisTarget};
use branchline::store::{Appended, DeliverySettlement, Error, Hold, NextState, Settled, Store, StoreOptions};
use futures_util::future::join_all;

use crate::redis_load::Load;
use crate::store_contract::{
    PATIENCE, all_outcomes, append, claim, claim_due_within, claim_within, delivered, event, events, nothing_to_claim,
    outcome_of, rescheduled, schedule_one, settle,
};
use crate::support::eventually;
use crate::support::fault_proxy::FaultProxy;
use crate::support::redis_server::{RedisCluster, RedisServer};

pub fn options() -> RedisOptions {
    RedisOptions {
        partitions: 4,
        store: StoreOptions { lease: Duration::from_secs(2), ..StoreOptions::default() },
        heartbeat: Duration::from_millis(100),
        dead_after: Duration::from_secs(2),
        ..Default::default()
    }
}

pub async fn open(target: RedisTarget) -> Arc<dyn Store> {
    Arc::new(RedisStore::open(target, options()).await.expect("the store opens"))
}

/// Tries again while the store is away.
async fn append_at_last(store: &Arc<dyn Store>, id: &str) {
    eventually("the event is stored", PATIENCE, async || store.append(vec![event(id)]).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_event_is_lost_by_kills_of_redis_with_appendfsync_always() {
    let server = RedisServer::start("always");
    let load = Load::start(open(server.target()).await, 64);
    for _ in 0..5 {
        load.more_accepted(1_000).await;
        server.kill();
        server.restart();
    }
    eprintln!("5 kills: {}", load.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_make_no_duplicates_and_lose_nothing() {
    let server = RedisServer::start("no");
    let proxy = FaultProxy::before(server.port()).await;
    let store = open(RedisTarget::Single(Secret::new(format!("redis://127.0.0.1:{}", proxy.port())))).await;
    for n in 0..20 {
        let id = format!("evt_{n}");
        proxy.lose_answers(1);
        // Whichever answer it hits (the append's, a read's, a heartbeat's): the event is stored, once, and by us.
        let answers = store.append(vec![event(&id)]).await.expect("the append is repeated");
        assert!(matches!(answers[..], [Appended::Stored(_)]), "{answers:?}");
        let claim = eventually("it is claimed", PATIENCE, async || {
            store.claim_events(1, Duration::from_millis(200)).await.ok().and_then(|mut claims| claims.pop())
        })
        .await;
        assert_eq!(claim.event.id, id);
        proxy.lose_answers(1);
        let held = store.settle_event(rescheduled(claim, "warehouse", Hold::Claimed)).await.expect("it is repeated");
        let Settled::Written(mut held) = held else { panic!("the claim is held") };
        proxy.lose_answers(1);
        let claim = held.pop().expect("one is held");
        let outcome = outcome_of(&claim.delivery, Outcome::Delivered);
        let settlement = DeliverySettlement { claim, outcome: Some(outcome), next: NextState::Ended };
        assert_eq!(store.settle_delivery(settlement).await.expect("it is repeated"), Settled::Written(()));
    }
    eventually("the last answer is lost", PATIENCE, async || (proxy.to_lose() == 0).then_some(())).await;
    eventually("it recovers", PATIENCE, async || store.stats().await.ok()).await;
    assert_eq!(all_outcomes(&store).await.len(), 40, "each settlement is written once");
    eventually("claiming goes on", PATIENCE, async || store.claim_events(1, Duration::ZERO).await.ok()).await;
    nothing_to_claim(&store).await;
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.backlog, stats.scheduled), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_whose_claim_was_not_answered_do_not_wait_for_the_end_of_their_lease() {
    let server = RedisServer::start("no");
    let proxy = FaultProxy::before(server.port()).await;
    let lease = Duration::from_secs(600);
    let options = RedisOptions { store: StoreOptions { lease, ..StoreOptions::default() }, ..options() };
    let target = RedisTarget::Single(Secret::new(format!("redis://127.0.0.1:{}", proxy.port())));
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(target, options).await.unwrap());
    let mut seen = HashSet::new();
    for n in 0..30 {
        schedule_one(&store, &format!("evt_{n}"), Hold::Wait(Duration::ZERO)).await;
        // It hits the claim's answer, that of the read of the records behind it, or a heartbeat's.
        proxy.lose_answers(1);
        let claims = eventually("it falls due", PATIENCE, async || {
            store.claim_due(9).await.ok().map(|due| due.claims).filter(|claims| !claims.is_empty())
        });
        for claim in claims.await {
            assert!(seen.insert(claim.delivery.id.clone()), "it is held once");
            let outcome = outcome_of(&claim.delivery, Outcome::Delivered);
            let settlement = DeliverySettlement { claim, outcome: Some(outcome), next: NextState::Ended };
            assert_eq!(store.settle_delivery(settlement).await.unwrap(), Settled::Written(()));
        }
    }
    assert_eq!(seen.len(), 30);
    assert_eq!(store.stats().await.unwrap().scheduled, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_redis_is_away_within_the_deadline_and_comes_back() {
    let server = RedisServer::start("everysec");
    let store = open(server.target()).await;
    append(&store, events("before", 3)).await;
    let mut claims = claim(&store, 3).await;
    let held = claims.pop().unwrap();
    server.signal("STOP");
    let started = Instant::now();
    let settling = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.settle_event(delivered(held)).await }
    });
    let answers = join_all((0..10).map(|n| store.append(vec![event(&format!("stopped_{n}"))]))).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(Error::Away(_)))), "{answers:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(matches!(store.stats().await, Err(Error::Away(_))));
    server.signal("CONT");
    append_at_last(&store, "after").await;
    let settled = tokio::time::timeout(PATIENCE, settling).await.expect("it keeps trying").unwrap();
    assert!(matches!(settled.unwrap(), Settled::Written(_)));
    for claim in claims {
        settle(&store, delivered(claim)).await;
    }
    // Of the ten that were answered with an error it is unknown whether they are stored; `after` is.
    let mut seen = HashSet::new();
    eventually("what was stored is claimed", PATIENCE, async || {
        let claims = store.claim_events(20, Duration::from_millis(200)).await.ok()?;
        seen.extend(claims.iter().map(|claim| claim.event.id.clone()));
        seen.contains("after").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_sent_again() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    server.cli(&["script", "flush"]);
    append(&store, events("evt", 5)).await;
    let claims = claim(&store, 5).await;
    server.cli(&["script", "flush"]);
    for claim in claims {
        settle(&store, delivered(claim)).await;
    }
    server.cli(&["script", "flush"]);
    assert_eq!(store.stats().await.unwrap().backlog, 0);
    assert!(store.claim_due(5).await.unwrap().claims.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_all_data_was_deleted_it_goes_on_from_nothing() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    append(&store, events("before", 5)).await;
    let held = claim(&store, 3).await;
    server.cli(&["flushall"]);
    let stored = append(&store, events("after", 10)).await;
    assert_eq!(stored.len(), 10);
    for claim in held {
        assert!(matches!(store.settle_event(delivered(claim)).await.unwrap(), Settled::Lost));
    }
    for claim in claim(&store, 10).await {
        assert!(claim.event.id.starts_with("after"));
        settle(&store, delivered(claim)).await;
    }
    nothing_to_claim(&store).await;
    // The layout is written again, so that nobody opens the store with another number of partitions.
    let other = RedisOptions { partitions: 5, ..options() };
    assert!(matches!(RedisStore::open(server.target(), other).await, Err(Error::Unusable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_memory_refuses_events_while_settling_goes_on() {
    let server = RedisServer::start_with(&["--maxmemory", "16mb", "--maxmemory-policy", "noeviction"]);
    let store = open(server.target()).await;
    let mut stored = 0;
    let refusal = loop {
        let mut batch = events(&format!("evt_{stored}"), 10);
        for event in &mut batch {
            event.payload = format!("\"{}\"", "x".repeat(20_000)).into();
        }
        match store.append(batch).await {
            Ok(answers) => stored += answers.len(),
            Err(error) => break error,
        }
        assert!(stored < 2_000, "the memory is never full");
    };
    assert!(matches!(refusal, Error::Full(_)), "{refusal:?}");
    // A part of the last batch may be stored: other partitions were asked before the memory was full.
    for (n, claim) in claim_within(&store, stored, PATIENCE).await.into_iter().enumerate() {
        let hold = Hold::Wait(Duration::ZERO);
        let settlement = if n % 10 == 0 { rescheduled(claim, "warehouse", hold) } else { delivered(claim) };
        settle(&store, settlement).await;
    }
    for claim in claim_due_within(&store, stored.div_ceil(10), PATIENCE).await {
        let outcome = outcome_of(&claim.delivery, Outcome::Delivered);
        let settlement = DeliverySettlement { claim, outcome: Some(outcome), next: NextState::Ended };
        assert_eq!(store.settle_delivery(settlement).await.unwrap(), Settled::Written(()));
    }
    server.cli(&["config", "set", "maxmemory", "0"]);
    append_at_last(&store, "evt_after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_was_taken_over_from_goes_on_under_a_new_name() {
    let server = RedisServer::start("no");
    let (first, second) = (open(server.target()).await, open(server.target()).await);
    append(&first, events("evt", 20)).await;
    let held = claim(&first, 20).await;
    // What a take-over begins with, done by hand: the owner keys go.
    for key in server.cli(&["--scan", "--pattern", "*:owner:*"]).lines() {
        server.cli(&["del", key]);
    }
    for claim in held {
        assert!(matches!(first.settle_event(delivered(claim)).await.unwrap(), Settled::Lost));
    }
    assert_eq!(all_outcomes(&first).await, []);
    // Both go on; between them they claim and settle each event once more.
    let mut seen = HashSet::new();
    eventually("all come again", PATIENCE, async || {
        for store in [&first, &second] {
            for claim in store.claim_events(20, Duration::from_millis(50)).await.unwrap() {
                let id = claim.event.id.clone();
                if let Settled::Written(_) = store.settle_event(delivered(claim)).await.unwrap() {
                    assert!(seen.insert(id), "each is settled once");
                }
            }
        }
        (seen.len() == 20).then_some(())
    })
    .await;
    assert_eq!(first.stats().await.unwrap().backlog, 0);
    // The names of before are gone: nothing is left behind.
    eventually("old names are removed", PATIENCE, async || {
        let names = server.cli(&["hlen", "bl:proc"]);
        (names.trim() == "2").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_router_held_of_the_schedule_is_free_when_it_is_taken_over_from() {
    let server = RedisServer::start("no");
    let lease = Duration::from_secs(600);
    let options = RedisOptions { store: StoreOptions { lease, ..StoreOptions::default() }, ..options() };
    let open = async || {
        let store = RedisStore::open(server.target(), options.clone()).await.expect("the store opens");
        Arc::new(store) as Arc<dyn Store>
    };
    let (first, second) = (open().await, open().await);
    append(&first, events("evt", 30)).await;
    for (n, claim) in claim(&first, 30).await.into_iter().enumerate() {
        // Some are held from their first attempt on, some are claimed when they fall due, some wait.
        let hold = [Hold::Claimed, Hold::Wait(Duration::ZERO), Hold::Wait(Duration::from_secs(300))][n % 3];
        settle(&first, rescheduled(claim, "warehouse", hold)).await;
    }
    let held = claim_due_within(&first, 7, PATIENCE).await;
    let others: HashSet<_> = claim_due_within(&second, 3, PATIENCE).await.into_iter().map(|c| c.delivery.id).collect();
    drop(first);
    let freed = claim_due_within(&second, 17, PATIENCE).await;
    assert!(freed.iter().all(|claim| !others.contains(&claim.delivery.id)), "its own it has already");
    assert!(held.iter().all(|old| freed.iter().any(|new| new.delivery.id == old.delivery.id)));
    assert!(second.claim_due(10).await.unwrap().claims.is_empty(), "what waits goes on waiting");
    // The dead one comes too late, and the new claims are good.
    for claim in freed {
        let outcome = outcome_of(&claim.delivery, Outcome::Delivered);
        let settlement = DeliverySettlement { claim, outcome: Some(outcome), next: NextState::Ended };
        assert_eq!(second.settle_delivery(settlement).await.unwrap(), Settled::Written(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_router_leaves_nothing_behind() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    append(&store, events("evt", 8)).await;
    for claim in claim(&store, 8).await {
        settle(&store, delivered(claim)).await;
    }
    store.close().await.unwrap();
    assert_eq!(server.cli(&["hlen", "bl:proc"]).trim(), "0");
    assert_eq!(server.cli(&["--scan", "--pattern", "*:owner:*"]).trim(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_cannot_be_read_are_put_aside_and_hold_nothing_up() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    server.cli(&["xadd", "{bl:0}:events", "*", "e", "not a record"]);
    server.cli(&["xadd", "{bl:1}:events", "*", "other", "field"]);
    server.cli(&["zadd", "{bl:2}:due", "1000", "dlv_missing:warehouse"]);
    server.cli(&["zadd", "{bl:3}:due", "1000", "dlv_broken:warehouse"]);
    server.cli(&["set", "{bl:3}:d:dlv_broken", "not a record"]);
    append(&store, events("evt", 20)).await;
    for claim in claim(&store, 20).await {
        settle(&store, delivered(claim)).await;
    }
    nothing_to_claim(&store).await;
    assert!(store.claim_due(10).await.unwrap().claims.is_empty());
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.backlog, stats.scheduled), (0, 0));
    for partition in 0..4 {
        assert_eq!(server.cli(&["xlen", &format!("{{bl:{partition}}}:damaged")]).trim(), "1", "kept for a look");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_would_lose_or_misplace_events_is_refused() {
    let server = RedisServer::start("no");
    drop(open(server.target()).await);
    let other = RedisOptions { partitions: 8, ..options() };
    let refusal = RedisStore::open(server.target(), other).await.err().expect("it is refused").to_string();
    assert!(refusal.contains("made with 4 partitions") && refusal.contains("8 are configured"), "{refusal}");
    server.cli(&["hset", "bl:meta", "layout", "3"]);
    let refusal = RedisStore::open(server.target(), options()).await.err().expect("it is refused").to_string();
    assert!(refusal.contains("layout 3"), "{refusal}");
    // One of before is taken, and a program of before would now refuse it.
    server.cli(&["hset", "bl:meta", "layout", "1"]);
    drop(open(server.target()).await);
    assert_eq!(server.cli(&["hget", "bl:meta", "layout"]).trim(), "2");
    let evicting = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let refusal = RedisStore::open(evicting.target(), options()).await.err().expect("it is refused").to_string();
    assert!(refusal.contains("allkeys-lru"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_url_or_password_is_told_without_the_password() {
    let server = RedisServer::start("no");
    server.cli(&["config", "set", "requirepass", "right"]);
    let url = |url: String| RedisTarget::Single(Secret::new(url));
    let wrong = url(format!("redis://:hunter2@127.0.0.1:{}", server.port()));
    let error = RedisStore::open(wrong, options()).await.err().expect("it is refused");
    assert!(matches!(error, Error::Unusable(_)) && !error.to_string().contains("hunter2"), "{error}");
    let error = RedisStore::open(url("redis//:hunter2@".to_owned()), options()).await.err().expect("it is refused");
    assert!(matches!(error, Error::Unusable(_)) && !error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_that_is_gone_holds_up_only_its_own_partitions() {
    let cluster = RedisCluster::start();
    // Without this the other masters refuse as well.
    for node in cluster.nodes() {
        node.cli(&["config", "set", "cluster-require-full-coverage", "no"]);
    }
    let options = RedisOptions { partitions: 16, ..options() };
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(cluster.target(), options).await.expect("the store opens"));
    append(&store, events("before", 100)).await;
    cluster.nodes()[2].kill();
    let answers = join_all((0..60).map(|n| store.append(vec![event(&format!("evt_{n}"))]))).await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((20..60).contains(&stored), "{stored} of 60 were stored");
    // So a router stays open for producers: what fails is only what falls to that master.
    eventually("the others' figures are there", PATIENCE, async || store.stats().await.ok()).await;
    // The Cluster keeps nothing on disk here: the killed master's events are gone.
    let mut settled = 0;
    eventually("the others' events are settled", PATIENCE, async || {
        for claim in store.claim_events(100, Duration::from_millis(100)).await.unwrap_or_default() {
            if let Ok(Ok(Settled::Written(_))) =
                tokio::time::timeout(Duration::from_secs(1), store.settle_event(delivered(claim))).await
            {
                settled += 1;
            }
        }
        (settled >= stored).then_some(())
    })
    .await;
}
