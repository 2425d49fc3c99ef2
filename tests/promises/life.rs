//! The whole life of a delivery that keeps failing, on paused time: the real dispatcher and store, a scripted transport.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use branchline::clock::{Clock, Timestamp};
use branchline::config::Sandbox;
use branchline::delivery::{Attempt, AttemptResult, DeadLetterReason, DeliveryId, EventHead, Outcome, Request};
use branchline::dispatch::{Consumer, Dispatcher, EndpointState, Limits, Row, Snapshot, Transport};
use branchline::endpoint::{Endpoint, EndpointUrl};
use branchline::event::Event;
use branchline::filter::RouteTable;
use branchline::metrics::Metrics;
use branchline::plugin::PluginHost;
use branchline::route::{OnError, RetrySchedule, Route, Subscription};
use branchline::store::embedded::EmbeddedStore;
use branchline::store::redis::{RedisOptions, RedisStore};
use branchline::store::{Store, StoreOptions};
use tokio_util::sync::CancellationToken;

use crate::support::redis_server::RedisServer;

/// Answers from a list, the last one for ever, and remembers when it was asked and what it was given.
struct Script {
    clock: Clock,
    answers: Vec<AttemptResult>,
    /// Which attempts panic, and how many were begun.
    panics: Range<usize>,
    begun: AtomicUsize,
    requests: Mutex<Vec<(Timestamp, u32, DeliveryId, bytes::Bytes)>>,
}

#[async_trait]
impl Transport for Script {
    async fn attempt(
        &self,
        _endpoint: &Endpoint,
        delivery: &DeliveryId,
        _event: &EventHead,
        _subscription: &str,
        number: u32,
        request: &Request,
    ) -> Attempt {
        let begun = self.begun.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics.contains(&begun), "this attempt is told to panic");
        let at = self.clock.now();
        let mut requests = self.requests.lock().unwrap();
        let result = self.answers[requests.len().min(self.answers.len() - 1)].clone();
        requests.push((at, number, delivery.clone(), request.body.clone()));
        Attempt { number, at, duration_ms: 1, result, answer: None, by: None }
    }
}

fn answered(status: u16, retry_after: Option<Duration>) -> AttemptResult {
    let retry_after_ms = retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap());
    AttemptResult::Answered { status, retry_after_ms }
}

/// Runs one event against the script until it has its final outcome. Returns the requests and the outcome.
async fn live(answers: Vec<AttemptResult>) -> Life {
    live_after_panics(0, answers).await
}

/// The same, after so many attempts that panicked.
async fn live_after_panics(panics: usize, answers: Vec<AttemptResult>) -> Life {
    live_as(0..panics, answers).await
}

/// The same; from the `first`-th attempt on all panic.
async fn live_and_panic_after(first: usize, answers: Vec<AttemptResult>) -> Life {
    live_as(first..usize::MAX, answers).await
}

/// The requests and the outcome.
type Life = (Vec<(Timestamp, u32, DeliveryId, bytes::Bytes)>, Outcome);

async fn live_as(panics: Range<usize>, answers: Vec<AttemptResult>) -> Life {
    let (requests, mut outcomes) = live_for(&["subscription"], panics, answers).await;
    (requests, outcomes.remove(0))
}

/// The same for several subscriptions of one endpoint: the outcome of each, in the order in which they ended.
async fn live_for(
    names: &[&str],
    panics: Range<usize>,
    answers: Vec<AttemptResult>,
) -> (Vec<(Timestamp, u32, DeliveryId, bytes::Bytes)>, Vec<Outcome>) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::starting_at(Timestamp::from_millis(1_736_937_000_000));
    let store: Arc<dyn Store> =
        Arc::new(EmbeddedStore::open(folder.path(), StoreOptions::default(), clock).await.unwrap());
    let endpoint = endpoint();
    let subscriptions: Vec<_> = names.iter().map(|name| subscription(name, &endpoint)).collect();
    let routes = route_to(&subscriptions);
    let endpoint = EndpointState::new(endpoint);
    let consumers = subscriptions.into_iter().map(|subscription| {
        let endpoint = endpoint.clone();
        Consumer { subscription, chain: None, endpoint, refusal: None, plugin_row: Row::default(), by: Arc::default() }
    });
    let snapshot = Snapshot::new(1, routes, consumers.collect());
    walk(store, snapshot, clock, panics, answers, names.len()).await
}

/// Walks one event by a snapshot until it has so many final outcomes.
async fn walk(
    store: Arc<dyn Store>,
    snapshot: Snapshot,
    clock: Clock,
    panics: Range<usize>,
    answers: Vec<AttemptResult>,
    ends: usize,
) -> (Vec<(Timestamp, u32, DeliveryId, bytes::Bytes)>, Vec<Outcome>) {
    let script = Arc::new(Script { clock, answers, panics, begun: AtomicUsize::new(0), requests: Mutex::default() });
    let metrics = Metrics::default();
    let plugins = Arc::new(PluginHost::start(&Sandbox { threads: 1, cache: None }, metrics.clone()).unwrap());
    let dispatcher = Dispatcher::new(
        Arc::clone(&store),
        Arc::new(ArcSwap::from_pointee(snapshot)),
        Arc::clone(&script) as Arc<dyn Transport>,
        plugins,
        Limits { events_in_flight_max: 16, attempts_in_flight_max: 16 },
        clock,
        metrics,
    );
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { dispatcher.run(stop, Duration::from_secs(5)).await }
    });
    let event = Event {
        id: "evt_1".into(),
        source: "app".into(),
        event_type: "order.created".into(),
        aggregate_type: "".into(),
        aggregate_id: "".into(),
        occurred_at: "2025-01-15T10:30:00Z".into(),
        accepted_at: clock.now(),
        payload: r#"{"amount":1}"#.into(),
        metadata: "{}".into(),
        traceparent: "".into(),
    };
    store.append(vec![event]).await.unwrap();
    let outcomes = final_outcomes(&*store, ends).await;
    stop.cancel();
    assert!(running.await.unwrap(), "the dispatcher finishes what is in flight");
    store.close().await.unwrap();
    (script.requests.lock().unwrap().clone(), outcomes)
}

fn endpoint() -> Arc<Endpoint> {
    let url = EndpointUrl::parse("https://endpoint.example/").unwrap();
    Arc::new(Endpoint { max_in_flight: 4, breaker: None, ..Endpoint::new("endpoint", url) })
}

fn subscription(name: &str, endpoint: &Arc<Endpoint>) -> Arc<Subscription> {
    Arc::new(Subscription {
        name: name.into(),
        route: "route".into(),
        endpoint: Arc::clone(endpoint),
        plugins: vec![],
        on_error: OnError::default(),
        retry: RetrySchedule::default(),
    })
}

/// A route that takes every event.
fn route_to(subscriptions: &[Arc<Subscription>]) -> RouteTable {
    RouteTable::compile(&[Route {
        name: "route".into(),
        sources: vec![],
        patterns: vec!["**".into()],
        condition: None,
        subscriptions: subscriptions.to_vec(),
    }])
    .unwrap()
}

/// Waits on paused time: an hour of it passes in no time.
async fn final_outcomes(store: &dyn Store, count: usize) -> Vec<Outcome> {
    // On real time there is nothing that takes as long.
    let is_paused = tokio::runtime::Handle::current().runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread;
    let pause = if is_paused { Duration::from_secs(60) } else { Duration::from_millis(100) };
    for _ in 0..2_000 {
        let (records, _) = store.outcomes(None, 100).await.unwrap();
        let ended: Vec<_> = records.into_iter().filter_map(|record| record.outcome).filter(Outcome::is_final).collect();
        if ended.len() >= count {
            return ended;
        }
        tokio::time::sleep(pause).await;
    }
    panic!("no final outcome after a day and a third");
}

/// The waits between attempts, in seconds.
fn gaps(requests: &[(Timestamp, u32, DeliveryId, bytes::Bytes)]) -> Vec<f64> {
    requests.windows(2).map(|pair| pair[1].0.since(pair[0].0).as_secs_f64()).collect()
}

/// A wait is never shorter than the schedule's, and at most the jitter and one look at the schedule longer.
fn assert_waits(gaps: &[f64], schedule: &[f64]) {
    assert_eq!(gaps.len(), schedule.len(), "{gaps:?}");
    for (gap, wait) in gaps.iter().zip(schedule) {
        assert!(*gap >= *wait && *gap <= wait * 1.1 + 3.0, "waited {gap} s where the schedule says {wait} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_keeps_failing_is_tried_six_times_over_26_and_a_half_hours_then_becomes_a_dead_letter() {
    let began = std::time::Instant::now();
    let (requests, outcome) = live(vec![answered(500, None)]).await;
    assert_waits(&gaps(&requests), &[60.0, 300.0, 1_800.0, 7_200.0, 86_400.0]);
    assert_eq!(requests.iter().map(|request| request.1).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert!(requests.iter().all(|request| request.2 == requests[0].2), "every attempt has the same webhook-id");
    assert!(requests.iter().all(|request| request.3 == requests[0].3), "every attempt sends the same bytes");
    assert!(matches!(outcome, Outcome::DeadLetter { reason: DeadLetterReason::Exhausted, .. }), "{outcome:?}");
    println!("26.5 hours took {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn retry_after_lengthens_a_wait_and_an_endpoint_that_recovers_gets_its_delivery() {
    let answers = vec![
        answered(429, Some(Duration::from_secs(600))),
        answered(503, Some(Duration::from_secs(1))),
        answered(200, None),
    ];
    let (requests, outcome) = live(answers).await;
    assert_waits(&gaps(&requests), &[600.0, 300.0]);
    assert_eq!(outcome, Outcome::Delivered);
}

#[tokio::test(start_paused = true)]
async fn gone_gives_up_at_once() {
    let (requests, outcome) = live(vec![answered(410, None)]).await;
    assert_eq!(requests.len(), 1);
    assert!(matches!(outcome, Outcome::DeadLetter { reason: DeadLetterReason::Gone, .. }), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_walk_panics_is_walked_again_and_ends() {
    let (requests, outcome) = live_after_panics(3, vec![answered(500, None), answered(200, None)]).await;
    assert_eq!(outcome, Outcome::Delivered);
    assert_eq!(requests.iter().map(|request| request.1).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_panics_costs_the_other_subscriptions_of_its_event_nothing() {
    for (panics, delivered) in [(1..2, 2), (1..usize::MAX, 1)] {
        let (requests, outcomes) = live_for(&["well", "ill"], panics, vec![answered(200, None)]).await;
        let sent: Vec<_> = requests.iter().map(|request| &request.2).collect();
        assert_eq!(sent.len(), delivered, "none twice: {sent:?}");
        assert_eq!(outcomes[0], Outcome::Delivered, "at once");
        assert_eq!(
            outcomes.iter().filter(|outcome| **outcome == Outcome::Delivered).count(),
            delivered,
            "{outcomes:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_panics_each_time_becomes_a_dead_letter() {
    let (requests, outcome) = live_after_panics(usize::MAX, vec![answered(200, None)]).await;
    assert!(matches!(outcome, Outcome::DeadLetter { reason: DeadLetterReason::Panicked, .. }), "{outcome:?}");
    assert_eq!(requests.len(), 0);
    // The same for one that has outlived its event.
    let (requests, outcome) = live_and_panic_after(1, vec![answered(500, None)]).await;
    assert!(matches!(outcome, Outcome::DeadLetter { reason: DeadLetterReason::Panicked, .. }), "{outcome:?}");
    assert_eq!(requests.len(), 1);
}

/// By a generation whose routes name what it does not have: the walk panics before anything is begun, whenever it is made.
async fn walk_that_can_not_begin(store: Arc<dyn Store>, clock: Clock) {
    let routes = route_to(&[subscription("first", &endpoint()), subscription("second", &endpoint())]);
    let snapshot = Snapshot::new(1, routes, vec![]);
    let (requests, outcomes) = walk(store, snapshot, clock, 0..0, vec![answered(200, None)], 2).await;
    assert_eq!(requests.len(), 0);
    for outcome in outcomes {
        assert!(matches!(outcome, Outcome::DeadLetter { reason: DeadLetterReason::Panicked, .. }), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_can_not_be_walked_at_all_ends_as_dead_letters_in_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::starting_at(Timestamp::from_millis(1_736_937_000_000));
    let store = EmbeddedStore::open(folder.path(), StoreOptions::default(), clock).await.unwrap();
    walk_that_can_not_begin(Arc::new(store), clock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_can_not_be_walked_at_all_ends_as_dead_letters_in_redis() {
    let server = RedisServer::start("always");
    let store = RedisStore::open(server.target(), RedisOptions::default()).await.unwrap();
    let ended = walk_that_can_not_begin(Arc::new(store), Clock::system());
    tokio::time::timeout(Duration::from_secs(90), ended).await.expect("it ends");
}
