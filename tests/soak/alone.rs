//! Each fault by itself: nothing is lost, and nothing is repeated that the fault does not explain.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::fault::Fault;
use crate::run::{MODERATE, Ran, run_well};
use crate::world::{Kind, Setting, World};

/// Between two times so many events are acknowledged.
const EVENTS_BETWEEN: usize = 50;
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(60);
const EVENTS_WITHOUT_A_FAULT: usize = 500;
/// Of three routers with the same load each makes this much of all deliveries, in percent.
const SHARE_MIN: u64 = 10;

/// How long the receiver of everything takes, in milliseconds: where attempts must be under way at any time, a while; where
/// they must go on without their event and be settled late, longer than an event waits for them.
const fn slowness(fault: Fault) -> u64 {
    match fault {
        Fault::ResetReceiverLink => 50,
        Fault::PauseRouterPastLease => 400,
        _ => 0,
    }
}

/// Does one thing several times to a system under load, which must feel it.
async fn alone(kind: Kind, fault: Fault, times: usize) -> Ran {
    let seed = fastrand::u64(..1 << 32);
    let world = World::start(Setting::of(kind)).await;
    world.slowness.store(slowness(fault), Ordering::Relaxed);
    let name = format!("{} ({kind:?})", fault.name());
    let ran = run_well(&name, seed, MODERATE, world, async |world| {
        let mut chance = fastrand::Rng::with_seed(seed);
        for _ in 0..times {
            fault.inflict(world, &mut chance).await;
            world.until_acknowledged(EVENTS_BETWEEN, RECOVERY_TIME_MAX).await;
        }
    })
    .await;
    fault.must_have_been_felt(&ran);
    ran
}

/// What mostly waits waits at one time, each on a system of its own.
fn side_by_side(runs: &[(Kind, Fault, usize)]) {
    std::thread::scope(|scope| {
        for (kind, fault, times) in runs.iter().copied() {
            scope.spawn(move || {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
                runtime.block_on(alone(kind, fault, times));
            });
        }
    });
}

macro_rules! alone {
    ($($name:ident: $kind:ident, $fault:ident, $times:literal;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                alone(Kind::$kind, Fault::$fault, $times).await;
            }
        )+
    };
}

alone! {
    a_killed_redis_loses_nothing_it_acknowledged: Redis, KillRedis, 5;
    a_redis_without_memory_refuses_events_and_loses_none: Redis, FullRedis, 2;
    reset_connections_to_redis_lose_nothing: Redis, ResetStoreLinks, 8;
    lost_answers_of_redis_lose_nothing: Redis, LoseStoreAnswers, 4;
    cut_answers_of_redis_lose_nothing: Redis, TruncateStoreAnswers, 4;
    a_partition_of_a_router_and_redis_loses_nothing: Redis, PartitionStoreLink, 2;
    a_router_that_is_heard_and_hears_nothing_loses_nothing: Redis, DeafStoreLink, 3;
    a_slow_redis_loses_nothing: Redis, SlowStoreLink, 2;
    reset_connections_to_receivers_lose_nothing: Embedded, ResetReceiverLink, 4;
    lost_answers_of_receivers_cost_repeats_and_nothing_else: Embedded, LoseReceiverAnswers, 4;
    a_partition_of_routers_and_receivers_loses_nothing: Embedded, PartitionReceiverLink, 3;
    cut_answers_of_receivers_cost_repeats_and_nothing_else: Embedded, TruncateReceiverAnswers, 4;
}

#[test]
fn a_killed_master_takes_nothing_with_it_behind_sentinels_and_in_a_cluster() {
    side_by_side(&[(Kind::Sentinels, Fault::KillMaster, 2), (Kind::Cluster, Fault::KillMaster, 3)]);
}

#[test]
fn a_stopped_master_takes_nothing_with_it_behind_sentinels_and_in_a_cluster() {
    side_by_side(&[(Kind::Sentinels, Fault::StopMaster, 1), (Kind::Cluster, Fault::StopMaster, 1)]);
}

/// A router that sleeps through its leases holds attempts whose answers it never saw. When it wakes it settles them, and is
/// told each time that they are no longer its own.
#[test]
fn a_router_or_a_redis_that_sleeps_or_is_away_for_longer_than_claims_last_loses_nothing() {
    side_by_side(&[
        (Kind::Redis, Fault::PauseRouterPastLease, 1),
        (Kind::Redis, Fault::PauseRedisPastLease, 1),
        (Kind::Redis, Fault::PauseRouter, 1),
        (Kind::Redis, Fault::KillRouterForLong, 1),
        (Kind::Redis, Fault::PauseRedis, 1),
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_three_routers_under_load_loses_and_repeats_nothing() {
    let ran = alone(Kind::Redis, Fault::RollingRestart, 2).await;
    assert_eq!(ran.findings.repeats, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_and_repeats_nothing() {
    let ran = alone(Kind::Embedded, Fault::RestartRouter, 4).await;
    assert_eq!(ran.findings.repeats, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_and_swapped_plugins_under_load_lose_and_repeat_nothing() {
    let ran = alone(Kind::Redis, Fault::Reload, 8).await;
    assert_eq!(ran.findings.repeats, 0);
}

/// How many deliveries each router has made.
async fn delivered_by_each(world: &World) -> Vec<u64> {
    let mut all = Vec::new();
    for router in &world.routers {
        let (_, metrics) = router.lock().await.get("/metrics").await.expect("it answers");
        let outcomes = metrics
            .lines()
            .filter(|line| line.starts_with("branchline_outcomes_total{") && line.contains("outcome=\"delivered\""));
        all.push(outcomes.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_routers_share_the_work_and_hostile_receivers_cost_nobody_anything() {
    let world = World::start(Setting::of(Kind::Redis)).await;
    let ran = run_well("no fault (Redis)", 1, MODERATE, world, async |world| {
        world.until_acknowledged(EVENTS_WITHOUT_A_FAULT, RECOVERY_TIME_MAX).await;
        let each = delivered_by_each(world).await;
        println!("deliveries made by each router: {each:?}");
        // Chance decides who is first to ask for what came in.
        let all: u64 = each.iter().sum();
        assert!(each.iter().all(|own| own * 100 >= all * SHARE_MIN), "they do not share the work: {each:?}");
    })
    .await;
    assert_eq!(ran.findings.repeats, 0);
}
