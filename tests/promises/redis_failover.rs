//! What the store in Redis survives when another server takes the master's place.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use branchline::store::redis::{RedisOptions, RedisStore, Wait};
use branchline::store::{Settled, Store};

use crate::redis_faults::options;
use crate::redis_load::Load;
use crate::router::route_to;
use crate::store_contract::{PATIENCE, all_outcomes, append, claim, delivered, event, events, settle};
use crate::support::eventually;
use crate::support::receiver::Receiver;
use crate::support::redis_sentinel::{RedisSentinels, SENTINEL_PASSWORD};
use crate::support::redis_server::RedisServer;
use crate::support::router::RouterProcess;

/// From the Sentinels' agreement to the first event that the new master takes.
const MOVED_WITHIN: Duration = Duration::from_secs(10);
const FAIL_OVER_TIME_MAX: Duration = Duration::from_secs(40);

async fn open(sentinels: &RedisSentinels) -> Arc<dyn Store> {
    open_with(sentinels, options()).await
}

async fn open_with(sentinels: &RedisSentinels, options: RedisOptions) -> Arc<dyn Store> {
    Arc::new(RedisStore::open(sentinels.target(), options).await.expect("the store opens"))
}

/// Waits until the Sentinels name another master than `old`, and until events are accepted again.
async fn wait_for_new_master(sentinels: &RedisSentinels, old: u16, load: &Load) {
    let named = eventually("another master is named", FAIL_OVER_TIME_MAX, async || {
        sentinels.named().filter(|port| *port != old)
    });
    named.await;
    let agreed = Instant::now();
    load.more_accepted(200).await;
    let moved = agreed.elapsed();
    assert!(moved < MOVED_WITHIN, "{moved:?}");
    eprintln!("events are accepted {moved:?} after the Sentinels agreed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_master_was_killed_everything_goes_on_with_the_new_one() {
    let sentinels = RedisSentinels::start();
    let load = Load::start(open(&sentinels).await, 16);
    load.more_accepted(500).await;
    let (old, copied) = (sentinels.master(), load.accepted_ids());
    load.more_accepted(100).await;
    old.kill();
    // What was answered and not yet copied is lost: without `wait` nobody had promised more.
    let last = load.accepted_ids().difference(&copied).cloned().collect();
    wait_for_new_master(&sentinels, old.port(), &load).await;
    eprintln!("the master was killed: {}", load.end_but_for(&last).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_replica_waited_for_a_killed_master_takes_nothing_with_it() {
    let sentinels = RedisSentinels::start();
    let wait = Some(Wait { replicas: 1, timeout: Duration::from_secs(1), ..Wait::default() });
    let load = Load::start(open_with(&sentinels, RedisOptions { wait, ..options() }).await, 16);
    load.more_accepted(500).await;
    let old = sentinels.master();
    old.kill();
    wait_for_new_master(&sentinels, old.port(), &load).await;
    eprintln!("the master was killed, a replica was waited for: {}", load.end().await);
}

/// The real program finds the master through the Sentinels, and what it answered 202 after the fail-over arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_outlives_its_master() {
    outlives_its_master(&RedisSentinels::start(), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_outlives_its_master_with_tls_and_passwords() {
    let sentinels = RedisSentinels::start_secured();
    let of_redis = |password: &str, ca: &Path| {
        format!(
            "[store.redis]\nsentinel_user = \"watcher\"\nsentinel_password = \"{password}\"\n\
             [store.redis.tls]\nca = \"{}\"\n",
            ca.display()
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let stranger = folder.path().join("stranger.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(&stranger, rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()).unwrap();
    for (password, ca, said) in [
        ("marker-wrong-password", sentinels.ca(), "a Sentinel: "),
        (SENTINEL_PASSWORD, stranger, "certificate"),
        (SENTINEL_PASSWORD, folder.path().join("missing.pem"), "missing.pem` can't be read"),
    ] {
        let mut router = RouterProcess::new(&sentinels.url(), &of_redis(password, &ca));
        router.spawn();
        assert!(!router.ended().await.success());
        let log = router.log();
        assert!(log.contains(said) && !log.contains(password), "{said}: {log}");
    }
    outlives_its_master(&sentinels, &of_redis(SENTINEL_PASSWORD, &sentinels.ca())).await;
}

async fn outlives_its_master(sentinels: &RedisSentinels, of_redis: &str) {
    let receiver = Receiver::start().await;
    let config = format!("{}{of_redis}", route_to(&receiver, "/all"));
    let mut router = RouterProcess::new(&sentinels.url(), "");
    router.log_at("trace"); // It is searched for secrets at the end.
    router.write_config(&config);
    router.start().await;
    let send = async |id: &str| {
        let body = format!(r#"{{"id":"{id}","eventType":"order.created","payload":{{}}}}"#);
        let (status, answer) = router.post("application/json", body).await?;
        assert!(matches!(status.as_u16(), 200 | 202 | 503), "{status} {answer}");
        (status.as_u16() != 503).then_some(())
    };
    send("before").await.expect("it is accepted");
    sentinels.master().kill();
    for n in 0..50 {
        let id = format!("after_{n}");
        eventually("it is accepted", FAIL_OVER_TIME_MAX, async || send(&id).await).await;
    }
    eventually("all arrive", FAIL_OVER_TIME_MAX, async || {
        let received = receiver.received("/all");
        let arrived =
            |id: &String| received.iter().any(|one| one.body.windows(id.len()).any(|part| part == id.as_bytes()));
        (0..50).map(|n| format!("after_{n}\"")).all(|id| arrived(&id)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_is_left() {
    let sentinels = RedisSentinels::start();
    let load = Load::start(open(&sentinels).await, 16);
    load.more_accepted(500).await;
    let old = sentinels.master();
    let before = load.accepted_ids();
    sentinels.fail_over();
    wait_for_new_master(&sentinels, old.port(), &load).await;
    eventually("the old master follows the new one", FAIL_OVER_TIME_MAX, async || {
        old.cli(&["role"]).starts_with("slave").then_some(())
    })
    .await;
    // The Sentinels make the new master first and tell the old one later: what it takes in between it throws away.
    let between = load.accepted_ids().difference(&before).cloned().collect();
    load.more_accepted(200).await;
    eprintln!("the master was demoted: {}", load.end_but_for(&between).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_answers_nothing_any_more_is_left_when_the_sentinels_name_another() {
    let sentinels = RedisSentinels::start();
    let load = Load::start(open(&sentinels).await, 16);
    load.more_accepted(500).await;
    let old = sentinels.master();
    let before = load.accepted_ids();
    load.more_accepted(50).await;
    old.signal("STOP");
    // Nobody waited for replicas: what it answered last may not have left it, and some of its answers are still on their way.
    let mut accepted = None;
    eventually("its last answers are here", PATIENCE, async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        (accepted.replace(load.accepted()) == Some(load.accepted())).then_some(())
    })
    .await;
    let losable = load.accepted_ids().difference(&before).cloned().collect();
    wait_for_new_master(&sentinels, old.port(), &load).await;
    // It comes back as a master until the Sentinels have told it: what were accepted there now would be lost.
    old.signal("CONT");
    load.more_accepted(200).await;
    eprintln!("the master was stopped: {}", load.end_but_for(&losable).await);
}

const EVENTS: &str = "{bl:0}:events";

async fn open_one_partition(server: &RedisServer) -> Arc<dyn Store> {
    let options = RedisOptions { partitions: 1, ..options() };
    Arc::new(RedisStore::open(server.target(), options).await.expect("the store opens"))
}

/// A new master may not know of the last claims of the old one. What was claimed from that is given to somebody else then, and
/// must have one outcome all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_claim_was_forgotten_is_settled_once() {
    let server = RedisServer::start("no");
    let store = open_one_partition(&server).await;
    append(&store, events("evt", 3)).await;
    let mut claims = claim(&store, 3).await;
    let forgotten = claims.remove(1);
    let position = forgotten.position;
    let id = format!("{}-{}", position.major, position.minor);
    server.cli(&["xack", EVENTS, "g", &id]);
    server.cli(&["client", "kill", "type", "normal"]);
    let (one, second, other) = tokio::join!(
        store.settle_event(delivered(claims.remove(0))),
        store.settle_event(delivered(forgotten)),
        store.settle_event(delivered(claims.remove(0)))
    );
    assert!(matches!(second.unwrap(), Settled::Lost), "nobody has claimed it");
    for settled in [one, other] {
        assert!(matches!(settled.unwrap(), Settled::Written(_)), "what is claimed is settled");
    }
    // As if it had never been given out.
    let first = server.cli(&["xrange", EVENTS, "-", "+", "count", "1"]);
    let first = first.lines().next().expect("an entry").to_owned();
    server.cli(&["xgroup", "setid", EVENTS, "g", &first]);
    let again = eventually("it is given out", PATIENCE, async || {
        let claims = store.claim_events(3, Duration::from_millis(200)).await.ok()?;
        claims.into_iter().find(|claim| claim.position == position)
    });
    settle(&store, delivered(again.await)).await;
    let ids: Vec<_> = all_outcomes(&store).await.into_iter().map(|record| record.event_id).collect();
    assert_eq!(ids.iter().filter(|id| **id == "evt_1").count(), 1, "{ids:?}");
}

/// A replica counts what was read in another way than its master, and may be wrong for ever when it takes that one's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_waits_when_all_was_read_whatever_redis_counts() {
    let server = RedisServer::start("no");
    let store = open_one_partition(&server).await;
    append(&store, events("evt", 3)).await;
    for claim in claim(&store, 3).await {
        settle(&store, delivered(claim)).await;
    }
    let last = server.cli(&["xrevrange", EVENTS, "+", "-", "count", "1"]);
    let last = last.lines().next().expect("an entry").to_owned();
    server.cli(&["xgroup", "setid", EVENTS, "g", &last, "entriesread", "1"]);
    assert!(server.cli(&["xinfo", "groups", EVENTS]).contains("lag\n2"), "Redis miscounts");
    assert_eq!(store.stats().await.unwrap().backlog, 0);
    append(&store, vec![event("one_more")]).await;
    assert!(store.stats().await.unwrap().backlog >= 1);
}
