//! More than the system can take: producers are told to come back, memory stays within bounds, and every event that was
//! acknowledged arrives afterwards.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::run::{Load, MODERATE, run_well};
use crate::support::eventually;
use crate::support::fault_proxy::Weather;
use crate::world::{Kind, Setting, World};

/// With 64 attempts at a time: a hundred deliveries a second and router.
const ANSWER_TAKES: Duration = Duration::from_millis(640);
/// About two thousand requests a second, where the machine gives that many.
const TENFOLD: Load = Load { producers: 96, pause: Duration::ZERO };
const OVERLOADED_FOR: Duration = Duration::from_secs(12);
/// A busy machine takes longer to be given too much.
const OVERLOADED_FOR_MAX: Duration = Duration::from_secs(60);
const BACKLOG_EVENTS_MAX: u64 = 1_500;
/// What a router of these settings may take at most, in a build without optimisation.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

async fn is_ready(world: &World) -> bool {
    let answer = world.routers[0].lock().await.get("/readyz").await;
    answer.is_some_and(|(status, _)| status == StatusCode::OK)
}

async fn overload(kind: Kind) {
    let environment = [
        ("BRANCHLINE_INGEST__BACKLOG_EVENTS_MAX", BACKLOG_EVENTS_MAX.to_string()),
        ("BRANCHLINE_INGEST__BODIES_BYTES_MAX", "16MiB".to_owned()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let world = World::start(Setting { environment, ..Setting::of(kind) }).await;
    world.slowness.store(u64::try_from(ANSWER_TAKES.as_millis()).expect("it is short"), Ordering::Relaxed);
    let ran = run_well(&format!("ten times too much ({kind:?})"), 1, TENFOLD, world, async |world| {
        let from = world.record.now();
        let (began, mut shut, mut most) = (Instant::now(), false, 0);
        while began.elapsed() < OVERLOADED_FOR || !shut && began.elapsed() < OVERLOADED_FOR_MAX {
            shut |= !is_ready(world).await;
            if let Some((_, metrics)) = world.routers[0].lock().await.get("/metrics").await {
                let figures = metrics.lines().filter_map(|line| {
                    let waiting = line.strip_prefix("branchline_backlog_events ");
                    waiting.or_else(|| line.strip_prefix("branchline_scheduled_deliveries "))?.parse::<u64>().ok()
                });
                most = most.max(figures.sum());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(shut, "readiness never turned false");
        // The figures are read once a second: what comes in between may be over the limit, and no more than that.
        println!("at most {most} waited");
        assert!(most > BACKLOG_EVENTS_MAX, "the limit was never reached");
        world.slowness.store(10, Ordering::Relaxed);
        // An answer that took longer than the endpoint's timeout is a lost answer.
        world.disturbed("ten times too much", from, Duration::from_secs(5), true);
    })
    .await;
    assert!(ran.refused > 100, "only {} requests were refused", ran.refused);
    assert!(ran.memory_peak < MEMORY_BYTES_MAX, "{} MiB", ran.memory_peak >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_too_much_is_refused_within_bounds_and_what_was_taken_arrives_with_redis() {
    overload(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_too_much_is_refused_within_bounds_and_what_was_taken_arrives_with_the_embedded_store() {
    overload(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_answers_too_late_shuts_the_door_and_loses_nothing() {
    let world = World::start(Setting::of(Kind::Redis)).await;
    let ran = run_well("a store that answers too late", 1, MODERATE, world, async |world| {
        let from = world.record.now();
        let set = |weather| world.store_links.iter().for_each(|link| link.set(weather));
        set(Weather::Slow(Duration::from_secs(4)));
        let patience = Duration::from_secs(20);
        eventually("it is not ready", patience, async || (!is_ready(world).await).then_some(())).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        set(Weather::Fair);
        eventually("it is ready again", patience, async || is_ready(world).await.then_some(())).await;
        world.disturbed("Redis answers after 4 s", from, Duration::from_secs(15), true);
    })
    .await;
    assert!(ran.refused > 0, "producers were told, and each answer said when to come back");
}
