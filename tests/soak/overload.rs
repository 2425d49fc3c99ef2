//! More than the system can take: producers are told to come back, memory stays within bounds, and every event that was
//! acknowledged arrives afterwards.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::fault::{TAKE_OVER, attempts_in};
use crate::record::locked;
use crate::run::{Load, MODERATE, run_well};
use crate::support::eventually;
use crate::support::fault_proxy::Weather;
use crate::world::{Kind, SUBSCRIPTIONS_OF_AN_EVENT, Setting, World};

/// How long the receiver takes for an answer, and how many attempts it is given at one time, by all routers: what can be
/// delivered in a time follows from these two, on any machine.
const ANSWER_TAKES: Duration = Duration::from_millis(640);
const IN_FLIGHT_MAX: u32 = 24;
/// So many times that must be offered.
const TIMES: f64 = 10.0;
const OVERLOAD: Load = Load { producers: 96, pause: Duration::ZERO };
const OVERLOADED_FOR: Duration = Duration::from_secs(60);
/// Few: what waits goes out at the pace that the receiver had.
const BACKLOG_EVENTS_MAX: u64 = 500;
const BODIES_BYTES_MAX: u64 = 16 << 20;
/// Each router looks once a second at what waits, and is told what was so a moment before: what is taken between two
/// looks may be over the limit.
const LOOK_TIME_MAX: Duration = Duration::from_secs(3);
/// The default of `delivery.events_in_flight_max`, and a bit more than the largest event of a run.
const EVENTS_IN_FLIGHT_MAX: u64 = 1_024;
const EVENT_BYTES_MAX: u64 = 42_000;
/// The default of a plugin's `memory_bytes_max`.
const INSTANCE_BYTES_MAX: u64 = 16 << 20;

/// Whether the router says this of itself; where it says nothing, neither.
async fn says(world: &World, expected: StatusCode) -> bool {
    let answer = world.routers[0].lock().await.get("/readyz").await;
    answer.is_some_and(|(status, _)| status == expected)
}

async fn is_ready(world: &World) -> bool {
    says(world, StatusCode::OK).await
}

async fn is_shut(world: &World) -> bool {
    says(world, StatusCode::SERVICE_UNAVAILABLE).await
}

/// How many events wait, by the metrics of a router.
async fn waiting(world: &World) -> u64 {
    let Some((_, metrics)) = world.routers[0].lock().await.get("/metrics").await else { return 0 };
    let figures = metrics.lines().filter_map(|line| {
        let waiting = line.strip_prefix("branchline_backlog_events ");
        waiting.or_else(|| line.strip_prefix("branchline_scheduled_deliveries "))?.parse::<u64>().ok()
    });
    figures.sum()
}

/// Requests to the slow receiver so far.
fn attempts(world: &World) -> usize {
    locked(&world.record.receipts).iter().filter(|receipt| receipt.pair.1 == "audit").count()
}

/// What was offered while it was too much, and what came of it meanwhile.
#[derive(Debug)]
struct Offered {
    events: usize,
    attempts: usize,
    /// What the receiver can take in that time.
    capacity: f64,
    was_shut: bool,
    /// Events and deliveries that waited at one time.
    waiting_max: u64,
    /// Events acknowledged between two looks at what waits.
    taken_max: usize,
}

/// The most events that were acknowledged within such a time, by how many were by when.
fn taken_within(limit: Duration, acknowledged: &[(Duration, usize)]) -> usize {
    let mut from = acknowledged.iter().peekable();
    let taken = acknowledged.iter().filter_map(|(now, count)| {
        while from.next_if(|(then, _)| *now - *then > limit).is_some() {}
        Some(count - from.peek()?.1)
    });
    taken.max().unwrap_or(0)
}

async fn offer_too_much(world: &World) -> Offered {
    let offered = || world.record.offered.load(Ordering::Relaxed);
    let (events, attempts_before, began) = (offered(), attempts(world), Instant::now());
    let (mut was_shut, mut waiting_max, mut acknowledged) = (false, 0, Vec::new());
    while began.elapsed() < OVERLOADED_FOR {
        was_shut |= is_shut(world).await;
        waiting_max = waiting(world).await.max(waiting_max);
        acknowledged.push((began.elapsed(), world.record.acknowledged()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Offered {
        events: offered() - events,
        attempts: attempts(world) - attempts_before,
        capacity: f64::from(IN_FLIGHT_MAX) * began.elapsed().as_secs_f64() / ANSWER_TAKES.as_secs_f64(),
        was_shut,
        waiting_max,
        taken_max: taken_within(LOOK_TIME_MAX, &acknowledged),
    }
}

async fn overload(kind: Kind, routers: u32) {
    let environment = [
        ("BRANCHLINE_INGEST__BACKLOG_EVENTS_MAX", BACKLOG_EVENTS_MAX.to_string()),
        ("BRANCHLINE_INGEST__BODIES_BYTES_MAX", BODIES_BYTES_MAX.to_string()),
        ("BRANCHLINE_DELIVERY__EVENTS_IN_FLIGHT_MAX", EVENTS_IN_FLIGHT_MAX.to_string()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let world =
        World::start(Setting { environment, in_flight_max: IN_FLIGHT_MAX / routers, ..Setting::of(kind) }).await;
    let at_rest = world.memory_peak().await;
    world.slowness.store(u64::try_from(ANSWER_TAKES.as_millis()).expect("it is short"), Ordering::Relaxed);
    let ran = run_well(&format!("ten times too much ({kind:?})"), 1, OVERLOAD, world, async |world| {
        let from = world.record.now();
        let offered = offer_too_much(world).await;
        println!("{offered:?}");
        let times = as_float(offered.events) / offered.capacity;
        assert!(times >= TIMES, "only {times:.1} times as much was offered as can be delivered");
        // As many as can go are on their way: refusing is not so dear that there is no time for delivering.
        assert!(as_float(offered.attempts) >= offered.capacity / 4.0, "{offered:?}");
        assert!(offered.was_shut, "readiness never turned false");
        assert!(offered.waiting_max > BACKLOG_EVENTS_MAX, "the limit was never reached");
        // An event that waits may become a delivery that waits for each of its subscriptions.
        let events = BACKLOG_EVENTS_MAX + offered.taken_max as u64;
        let most = SUBSCRIPTIONS_OF_AN_EVENT as u64 * events;
        assert!(offered.waiting_max <= most, "{} waited, may be {most}", offered.waiting_max);
        world.slowness.store(10, Ordering::Relaxed);
        // An answer that took longer than the endpoint's timeout is a lost answer.
        let lasted = Duration::from_millis(world.record.now() - from);
        let repeats_max = attempts_in(lasted, world.routers.len());
        world.disturbed("ten times too much", from, Duration::from_secs(5), repeats_max);
    })
    .await;
    assert!(ran.refused > 100, "only {} requests were refused", ran.refused);
    // As many instances run at one time as there are cores.
    let instances = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2) as u64);
    // The bound that docs/performance.md states.
    let most = at_rest + BODIES_BYTES_MAX + EVENTS_IN_FLIGHT_MAX * EVENT_BYTES_MAX + instances * INSTANCE_BYTES_MAX;
    println!("{} MiB at rest, {} MiB at most, may be {}", at_rest >> 20, ran.memory_peak >> 20, most >> 20);
    assert!(ran.memory_peak <= most, "{} MiB instead of {} MiB", ran.memory_peak >> 20, most >> 20);
}

fn as_float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("no run has that many"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_too_much_is_refused_within_bounds_and_what_was_taken_arrives_with_redis() {
    overload(Kind::Redis, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_too_much_is_refused_within_bounds_and_what_was_taken_arrives_with_the_embedded_store() {
    overload(Kind::Embedded, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_answers_too_late_shuts_the_door_and_loses_nothing() {
    let world = World::start(Setting::of(Kind::Redis)).await;
    let ran = run_well("a store that answers too late", 1, MODERATE, world, async |world| {
        let from = world.record.now();
        let set = |weather| world.store_links.iter().for_each(|link| link.set(weather));
        set(Weather::Slow(Duration::from_secs(4)));
        let patience = Duration::from_secs(20);
        eventually("it is not ready", patience, async || is_shut(world).await.then_some(())).await;
        set(Weather::Fair);
        eventually("it is ready again", patience, async || is_ready(world).await.then_some(())).await;
        world.disturbed("Redis answers after 4 s", from, TAKE_OVER, world.held_max());
    })
    .await;
    assert!(ran.refused > 0, "producers were told, and each answer said when to come back");
}
