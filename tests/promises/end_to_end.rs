//! The whole job, with real processes: events in by HTTP, through a `where` and a plugin, out by HTTP; on both stores, and through `kill -9`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use branchline::clock::Clock;
use branchline::delivery::{DeliveryId, Outcome};
use branchline::store::embedded::EmbeddedStore;
use branchline::store::redis::{RedisOptions, RedisStore, RedisTarget};
use branchline::store::{Store, StoreOptions};
use tokio::task::JoinSet;

use crate::support::receiver::Receiver;
use crate::support::redis_server::RedisServer;
use crate::support::router::RouterProcess;
use crate::support::{SECRET, eventually};

/// The event types of the first users' product.
const TYPES: [&str; 15] = [
    "user.created",
    "user.updated",
    "user.deleted",
    "organization.created",
    "organization.updated",
    "organization.deleted",
    "project.created",
    "project.updated",
    "project.deleted",
    "order.created",
    "order.completed",
    "order.cancelled",
    "order.refunded",
    "payment.succeeded",
    "payment.failed",
];

const EVENTS: usize = 10_000;
const CONNECTIONS: usize = 16;
const DRAIN: Duration = Duration::from_secs(120);

/// Three subscriptions: everything to `/audit`, big orders through the `slack` plugin to `/slack`, everything of users to an endpoint that fails.
fn routes(receiver: &Receiver) -> String {
    let plugins = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins");
    format!(
        r##"
[delivery]
allow_networks = ["127.0.0.0/8"]
[endpoints.audit]
url = "{audit}"
secret = {{ env = "TEST_SECRET" }}
max_in_flight = 64
[endpoints.slack]
url = "{slack}"
secret = {{ env = "TEST_SECRET" }}
max_in_flight = 64
[endpoints.failing]
url = "{failing}"
secret = {{ env = "TEST_SECRET" }}
max_in_flight = 64
breaker = "off"
[plugins.slack]
path = "{plugins}/slack.wasm"
[[routes]]
name = "audit"
events = ["**"]
subscriptions = [{{ name = "audit", endpoint = "audit" }}]
[[routes]]
name = "orders"
events = ["order.*"]
where = "payload.amount >= 5000"
subscriptions = [{{ name = "slack", endpoint = "slack", plugins = [{{ use = "slack", config = {{ channel = "#sales" }} }}] }}]
[[routes]]
name = "users"
events = ["user.*"]
subscriptions = [{{ name = "failing", endpoint = "failing", retry = ["1h"] }}]
"##,
        audit = receiver.url("/audit"),
        slack = receiver.url("/slack"),
        failing = receiver.url("/failing"),
    )
}

fn event(number: usize) -> (String, String) {
    let id = format!("evt_{number:05}");
    let event_type = TYPES[number % TYPES.len()];
    let body = format!(
        r#"{{"id":"{id}","eventType":"{event_type}","aggregateType":"T","aggregateId":"a_{}","payload":{{"amount":{},"currency":"KRW","이름":"김민지"}},"occurredAt":"2025-01-15T10:30:00Z"}}"#,
        number % 997,
        number % 10_000,
    );
    (id, body)
}

/// Whether an event was taken. No answer, or a 503, says that it is to be sent again.
fn is_taken(answer: Option<(http::StatusCode, serde_json::Value)>) -> bool {
    answer.is_some_and(|(status, answer)| {
        assert!(matches!(status.as_u16(), 200 | 202 | 503), "{status} {answer}");
        status.as_u16() != 503
    })
}

/// Sends every event, again and again until it is answered 2xx: what a careful producer does.
async fn produce(router: &Arc<tokio::sync::RwLock<RouterProcess>>) {
    let mut producers = JoinSet::new();
    for first in 0..CONNECTIONS {
        let router = Arc::clone(router);
        producers.spawn(async move {
            for number in (first..EVENTS).step_by(CONNECTIONS) {
                let (_, body) = event(number);
                // The lock is taken anew each time: the test kills and starts the router in between.
                while !is_taken(router.read().await.post("application/json", body.clone()).await) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
    }
    while let Some(done) = producers.join_next().await {
        done.unwrap();
    }
}

/// What the store says of every (event, subscription): its final outcomes, and whether it waits.
#[derive(Default)]
struct Ledger {
    finals: HashMap<(String, String), Vec<Outcome>>,
    waiting: BTreeSet<(String, String)>,
    unmatched: usize,
    scheduled: u64,
    backlog: u64,
}

async fn read_ledger(store: &dyn Store) -> Ledger {
    let mut ledger = Ledger::default();
    let mut cursor = None;
    loop {
        let (records, next) = store.outcomes(cursor, 1_000).await.unwrap();
        if records.is_empty() {
            break;
        }
        cursor = Some(next);
        for record in records {
            let (Some(subscription), Some(outcome)) = (record.subscription, record.outcome) else {
                ledger.unmatched += 1;
                continue;
            };
            let finals = ledger.finals.entry((record.event_id.to_string(), subscription.to_string())).or_default();
            if outcome.is_final() {
                finals.push(outcome);
            }
        }
    }
    for (_, delivery) in store.scheduled(EVENTS).await.unwrap() {
        ledger.waiting.insert((delivery.event.id.to_string(), delivery.subscription.to_string()));
    }
    let stats = store.stats().await.unwrap();
    (ledger.scheduled, ledger.backlog) = (stats.scheduled, stats.backlog);
    ledger
}

/// What must become of every pair.
fn expected() -> BTreeMap<(String, String), &'static str> {
    let mut expected = BTreeMap::new();
    for number in 0..EVENTS {
        let (id, _) = event(number);
        let event_type = TYPES[number % TYPES.len()];
        expected.insert((id.clone(), "audit".to_owned()), "delivered");
        if event_type.starts_with("order.") {
            let outcome = if number % 10_000 >= 5_000 { "delivered" } else { "filtered" };
            expected.insert((id.clone(), "slack".to_owned()), outcome);
        }
        if event_type.starts_with("user.") {
            expected.insert((id, "failing".to_owned()), "waits");
        }
    }
    expected
}

fn check_ledger(ledger: &Ledger) {
    let expected = expected();
    for (pair, outcome) in &expected {
        let finals = ledger.finals.get(pair).unwrap_or_else(|| panic!("{pair:?} has no outcome"));
        if *outcome == "waits" {
            assert!(finals.is_empty() && ledger.waiting.contains(pair), "{pair:?} should wait, has {finals:?}");
        } else {
            assert_eq!(finals.iter().map(Outcome::as_str).collect::<Vec<_>>(), [*outcome], "{pair:?}");
        }
    }
    assert_eq!(ledger.finals.len(), expected.len(), "there are outcomes that nobody expects");
    let waiting = expected.values().filter(|outcome| **outcome == "waits").count();
    assert_eq!(ledger.scheduled, waiting as u64, "the schedule has as many entries as deliveries wait");
    assert_eq!((ledger.backlog, ledger.unmatched), (0, 0));
}

/// Every request is signed rightly, carries its own delivery's id, and what was delivered did arrive. Returns how many were repeats.
fn check_received(receiver: &Receiver) -> usize {
    let webhook = standardwebhooks::Webhook::new(SECRET).unwrap();
    let mut requests = 0;
    let mut bodies: HashMap<String, bytes::Bytes> = HashMap::new();
    for (path, subscription) in [("/audit", "audit"), ("/slack", "slack"), ("/failing", "failing")] {
        for received in receiver.received(path) {
            requests += 1;
            webhook.verify(&received.body, &received.headers).expect("the signature verifies");
            assert_eq!(received.header("branchline-subscription"), subscription);
            let id = received.header("webhook-id").to_owned();
            assert_eq!(DeliveryId::from_stored(&id).as_str().len(), 36);
            if let Some(before) = bodies.insert(id, received.body.clone()) {
                assert_eq!(before, received.body, "a repeat has the same bytes");
            }
        }
    }
    let sent = expected().values().filter(|outcome| **outcome != "filtered").count();
    assert_eq!(bodies.len(), sent, "each pair that is to be sent has one webhook-id");
    requests - sent
}

/// Waits until nothing is in flight, stops the router, and reads the store as it left it.
async fn drain_and_stop(router: &mut RouterProcess, waiting: usize) {
    eventually("the backlog is drained", DRAIN, async || {
        let (_, metrics) = router.get("/metrics").await?;
        let figure =
            |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok());
        let drained = figure("branchline_backlog_events ") == Some(0)
            && figure("branchline_scheduled_deliveries ") == Some(waiting);
        drained.then_some(())
    })
    .await;
    let status = router.stop().await;
    assert!(status.success(), "{status}\n{}", router.log());
}

fn waiting() -> usize {
    expected().values().filter(|outcome| **outcome == "waits").count()
}

async fn open_embedded(router: &RouterProcess) -> EmbeddedStore {
    EmbeddedStore::open(&router.folder().join("data"), StoreOptions::default(), Clock::system()).await.unwrap()
}

async fn open_redis(server: &RedisServer) -> RedisStore {
    let options = RedisOptions { partitions: 1, ..RedisOptions::default() };
    RedisStore::open(RedisTarget::Single(server.url()), options).await.unwrap()
}

async fn run_without_faults(store: &str) -> (RouterProcess, Receiver) {
    let receiver = Receiver::start().await;
    receiver.answers("/failing", &[500]);
    let mut router = RouterProcess::new(store, &routes(&receiver));
    router.start().await;
    let router = Arc::new(tokio::sync::RwLock::new(router));
    produce(&router).await;
    let mut router = Arc::into_inner(router).unwrap().into_inner();
    drain_and_stop(&mut router, waiting()).await;
    assert_eq!(check_received(&receiver), 0, "without a fault nothing is repeated");
    (router, receiver)
}

/// `kill -9` when a part of the events has arrived, and again; each time the router starts anew.
async fn run_with_kills(store: &str) -> RouterProcess {
    let receiver = Receiver::start().await;
    receiver.answers("/failing", &[500]);
    let mut router = RouterProcess::new(store, &routes(&receiver));
    router.start().await;
    let router = Arc::new(tokio::sync::RwLock::new(router));
    let producing = tokio::spawn({
        let router = Arc::clone(&router);
        async move { produce(&router).await }
    });
    for share in [EVENTS / 5, EVENTS / 2] {
        eventually("a part has arrived", DRAIN, async || (receiver.count("/audit") >= share).then_some(())).await;
        let mut router = router.write().await;
        router.kill();
        router.start().await;
    }
    producing.await.unwrap();
    let mut router = Arc::into_inner(router).unwrap().into_inner();
    drain_and_stop(&mut router, waiting()).await;
    let repeats = check_received(&receiver);
    println!("{repeats} repeats after two kills");
    router
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_has_exactly_one_outcome_with_the_embedded_store() {
    let (router, _receiver) = run_without_faults("file:{folder}/data").await;
    check_ledger(&read_ledger(&open_embedded(&router).await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_has_exactly_one_outcome_with_redis() {
    let server = RedisServer::start("always");
    let (_router, _receiver) = run_without_faults(server.url().expose()).await;
    let store = open_redis(&server).await;
    check_ledger(&read_ledger(&store).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_router_loses_nothing_it_accepted_with_the_embedded_store() {
    let router = run_with_kills("file:{folder}/data").await;
    check_ledger(&read_ledger(&open_embedded(&router).await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_router_loses_nothing_it_accepted_with_redis() {
    let server = RedisServer::start("always");
    let _router = run_with_kills(server.url().expose()).await;
    check_ledger(&read_ledger(&open_redis(&server).await).await);
}
