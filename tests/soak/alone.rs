//! Each fault by itself: nothing is lost, and nothing is repeated that the fault does not explain.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::fault::Fault;
use crate::run::{MODERATE, Ran, run_well};
use crate::support::eventually;
use crate::world::{Kind, Setting, World};

/// What a router logs when a settlement is refused because the claim is another's by now.
const REFUSALS: [&str; 2] = ["another router has taken the event over", "the delivery's lease had ended"];
const REFUSED_WITHIN: Duration = Duration::from_secs(30);

/// Does one thing several times to a system under load.
async fn alone(kind: Kind, fault: Fault, times: usize) -> Ran {
    let seed = fastrand::u64(..1 << 32);
    let world = World::start(Setting::of(kind)).await;
    let name = format!("{} ({kind:?})", fault.name());
    run_well(&name, seed, MODERATE, world, async |world| {
        let mut chance = fastrand::Rng::with_seed(seed);
        for _ in 0..times {
            fault.inflict(world, &mut chance).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await
}

/// A fault that did nothing shows nothing: where one leaves a trace for certain, it must be there.
fn must_have_been_felt(fault: Fault, ran: &Ran) {
    let traces = match fault {
        Fault::FullRedis => ran.refused,
        Fault::PauseRedisPastLease => ran.refused + ran.unanswered,
        Fault::LoseReceiverAnswers => ran.findings.repeats,
        _ => return,
    };
    assert!(traces > 0, "nothing was seen of {}", fault.name());
}

macro_rules! alone {
    ($($name:ident: $kind:ident, $fault:ident, $times:literal;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let ran = alone(Kind::$kind, Fault::$fault, $times).await;
                must_have_been_felt(Fault::$fault, &ran);
            }
        )+
    };
}

alone! {
    a_router_that_is_killed_and_stays_away_is_taken_over_from: Redis, KillRouterForLong, 1;
    a_router_that_was_asleep_for_longer_than_its_claims_last_loses_nothing: Redis, PauseRouter, 1;
    a_killed_redis_loses_nothing_it_acknowledged: Redis, KillRedis, 5;
    a_redis_that_sleeps_for_longer_than_a_heartbeat_loses_nothing: Redis, PauseRedis, 1;
    a_redis_that_sleeps_for_longer_than_the_leases_loses_nothing: Redis, PauseRedisPastLease, 1;
    a_killed_master_behind_sentinels_takes_nothing_with_it: Sentinels, KillMaster, 2;
    a_stopped_master_behind_sentinels_takes_nothing_with_it: Sentinels, StopMaster, 1;
    a_killed_master_of_a_cluster_takes_nothing_with_it: Cluster, KillMaster, 3;
    a_stopped_master_of_a_cluster_takes_nothing_with_it: Cluster, StopMaster, 1;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_three_routers_under_load_loses_and_repeats_nothing() {
    let ran = alone(Kind::Redis, Fault::RollingRestart, 3).await;
    assert_eq!(ran.findings.repeats, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_and_repeats_nothing() {
    let ran = alone(Kind::Embedded, Fault::RestartRouter, 8).await;
    assert_eq!(ran.findings.repeats, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_and_swapped_plugins_under_load_lose_and_repeat_nothing() {
    let ran = alone(Kind::Redis, Fault::Reload, 8).await;
    assert_eq!(ran.findings.repeats, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_hostile_receivers_cost_nobody_anything() {
    let world = World::start(Setting::of(Kind::Redis)).await;
    let wait = async |_: &World| tokio::time::sleep(Duration::from_secs(5)).await;
    let ran = run_well("no fault (Redis)", 1, MODERATE, world, wait).await;
    assert_eq!(ran.findings.repeats, 0);
}

/// A router that sleeps through its leases holds attempts whose answers it never saw. When it wakes it settles them, and is
/// told each time that they are no longer its own.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_router_settles_that_slept_through_its_leases_is_refused() {
    let world = World::start(Setting::of(Kind::Redis)).await;
    world.slowness.store(400, Ordering::Relaxed);
    run_well("router stopped for 65 s, attempts under way (Redis)", 1, MODERATE, world, async |world| {
        Fault::PauseRouterPastLease.inflict(world, &mut fastrand::Rng::with_seed(1)).await;
        eventually("late settlements are refused", REFUSED_WITHIN, async || {
            let mut refused = 0;
            for router in &world.routers {
                let log = router.lock().await.log();
                refused += REFUSALS.iter().map(|said| log.matches(said).count()).sum::<usize>();
            }
            (refused > 0).then(|| println!("{refused} late settlements were refused"))
        })
        .await;
        world.slowness.store(0, Ordering::Relaxed);
    })
    .await;
}
