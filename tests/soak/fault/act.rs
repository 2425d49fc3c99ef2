//! How each fault is done: the matching of its name to signals, links, clocks and disks.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::{ANSWERS_HARMED_MAX, Fault, RESETS};
use crate::disk::LITTLE_BYTES;
use crate::servers::{Manner, set, told};
use crate::support::eventually;
use crate::support::fault_proxy::{FaultProxy, Weather};
use crate::support::router::RouterProcess;
use crate::tracer::{Tracer, fail_syncs, tear_a_write};
use crate::world::{Kind, World};

/// Longer than the leases of deliveries in a run, which are of 60 s.
const PAST_LEASE: Duration = Duration::from_secs(65);

/// How long a fault may take to reach what it is to meet.
const REACHED_WITHIN: Duration = Duration::from_secs(60);

impl Fault {
    pub(super) async fn act(self, world: &World, chance: &mut fastrand::Rng) {
        let some = |chance: &mut fastrand::Rng, from: u64, to: u64| Duration::from_millis(chance.u64(from..to));
        let store_link = |chance: &mut fastrand::Rng| &world.store_links[chance.usize(..world.store_links.len())];
        match self {
            Self::KillRouter => {
                let mut router = world.router(chance).await;
                router.kill();
                router.start().await;
            }
            Self::KillRouterAsItStarts => {
                let mut router = world.router(chance).await;
                router.kill();
                router.spawn();
                sleep(some(chance, 0, 600)).await;
                router.kill();
                router.start().await;
            }
            Self::KillRouterForLong => {
                let mut router = world.router(chance).await;
                router.kill();
                until_taken_over(world).await;
                router.start().await;
            }
            Self::PauseRouter => pause(&*world.router(chance).await, until_taken_over(world)).await,
            Self::PauseRouterPastLease => pause(&*world.router(chance).await, sleep(PAST_LEASE)).await,
            Self::RestartRouter => restart(&mut *world.router(chance).await).await,
            Self::RollingRestart => {
                for router in &world.routers {
                    restart(&mut *router.lock().await).await;
                    sleep(Duration::from_millis(300)).await;
                }
            }
            Self::Reload => {
                world.change_config().await;
                for router in &world.routers {
                    reload(&*router.lock().await).await;
                }
            }
            Self::KillRedis => {
                world.redis().kill();
                sleep(some(chance, 50, 800)).await;
                tokio::task::block_in_place(|| world.redis().restart());
                // It has met nobody yet. One of its clients is the one that asks.
                let clients = || told(world.redis(), &["client", "list"]).lines().count();
                let are_back = async || (clients() > world.routers.len()).then_some(());
                eventually("routers have connected again", REACHED_WITHIN, are_back).await;
            }
            Self::PauseRedis => pause_redis(world, Duration::from_secs(13)).await,
            Self::PauseRedisPastLease => pause_redis(world, PAST_LEASE).await,
            Self::KillMaster | Self::StopMaster => {
                let manner = if self == Self::KillMaster { Manner::Killed } else { Manner::Stopped };
                let missing = some(chance, 0, 3_000);
                world.servers().lose_master(manner, missing, chance).await;
            }
            Self::FullRedis => {
                // Less than it has: nothing more may be stored, and what frees memory must still be done.
                set(world.redis(), "maxmemory", "1mb");
                sleep(some(chance, 2_000, 4_000)).await;
                set(world.redis(), "maxmemory", "0");
            }
            Self::ResetStoreLinks => {
                for link in &world.store_links {
                    link.break_all(chance.bool());
                }
                sleep(Duration::from_millis(200)).await;
            }
            Self::LoseStoreAnswers => {
                let link = store_link(chance);
                link.lose_answers(chance.usize(1..6));
                until_harmed(link).await;
            }
            Self::TruncateStoreAnswers => {
                let link = store_link(chance);
                link.truncate_answers(chance.usize(1..6));
                until_harmed(link).await;
            }
            Self::PartitionStoreLink => {
                let link = store_link(chance);
                link.set(Weather::Silent);
                sleep(some(chance, 1_000, 15_000)).await;
                if chance.bool() {
                    link.break_all(false);
                }
                link.set(Weather::Fair);
            }
            Self::DeafStoreLink => {
                let link = store_link(chance);
                link.set(Weather::NoAnswers);
                sleep(some(chance, 1_000, 6_000)).await;
                link.break_all(chance.bool());
                link.set(Weather::Fair);
            }
            Self::SlowStoreLink => {
                let link = store_link(chance);
                link.set(Weather::Slow(some(chance, 20, 400)));
                sleep(some(chance, 1_000, 4_000)).await;
                link.set(Weather::Fair);
            }
            Self::ResetReceiverLink => {
                for _ in 0..RESETS {
                    world.receiver_link.break_all(chance.bool());
                    sleep(Duration::from_millis(100)).await;
                }
            }
            Self::LoseReceiverAnswers => {
                world.receiver_link.lose_answers(chance.usize(5..ANSWERS_HARMED_MAX));
                until_harmed(&world.receiver_link).await;
            }
            Self::PartitionReceiverLink => {
                world.receiver_link.set(if chance.bool() { Weather::Silent } else { Weather::NoRequests });
                sleep(some(chance, 500, 4_000)).await;
                world.receiver_link.set(Weather::Fair);
            }
            Self::TruncateReceiverAnswers => {
                world.receiver_link.truncate_answers(chance.usize(5..ANSWERS_HARMED_MAX));
                until_harmed(&world.receiver_link).await;
            }
            Self::StepClock => {
                let clock = world.clock.as_ref().expect("the run has one");
                clock.step(chance.i64(-3_600..=3_600));
                sleep(some(chance, 1_000, 3_000)).await;
                if world.kind == Kind::Embedded {
                    // It is the store's clock too when a router starts: what waits would wait for an hour more.
                    clock.step(0);
                }
            }
            Self::StepRedisClock => {
                let clock = world.redis_clock.as_ref().expect("the run has one");
                clock.step_redis(world.redis(), -chance.i64(60..=3_600)).await;
                sleep(some(chance, 500, 3_000)).await;
                // Never left behind: what was scheduled before would wait for that much more.
                clock.step_redis(world.redis(), 0).await;
            }
            Self::FillDisk => {
                let disk = world.disk.as_ref().expect("the run has one");
                disk.leave(if chance.bool() { LITTLE_BYTES } else { 0 });
                sleep(some(chance, 500, 4_000)).await;
                disk.widen();
            }
            Self::TearWrite => drop(tear_a_write(tracer(world), world, chance).await),
            Self::FailSyncs => {
                let error = if chance.bool() { "EIO" } else { "ENOSPC" };
                fail_syncs(tracer(world), world, error, chance.u32(1..14)).await;
            }
        }
    }
}

/// Waits until the store has forgotten a router that does nothing: the others have everything that it held.
async fn until_taken_over(world: &World) {
    let is_gone = async || world.servers().names().is_some_and(|names| names < world.routers.len()).then_some(());
    eventually("the others have taken over", REACHED_WITHIN, is_gone).await;
}

/// Waits until every answer was lost or cut that was to be.
async fn until_harmed(link: &FaultProxy) {
    let is_harmed = async || (link.to_lose() + link.to_truncate() == 0).then_some(());
    eventually("answers are lost or cut", REACHED_WITHIN, is_harmed).await;
}

/// Lets a router read its config anew, and waits until it has it.
async fn reload(router: &RouterProcess) {
    let before = generation(router).await.expect("it says which config it uses");
    router.hang_up();
    let is_next = async || (generation(router).await? > before).then_some(());
    eventually("the next config is in use", REACHED_WITHIN, is_next).await;
}

/// Which config a router uses; `None` when it does not answer.
async fn generation(router: &RouterProcess) -> Option<u64> {
    let (_, config) = router.get("/api/v1/config").await?;
    serde_json::from_str::<serde_json::Value>(&config).ok()?["generation"].as_u64()
}

/// SIGTERM, after which it must end well; and starts it again.
pub async fn restart(router: &mut RouterProcess) {
    let status = router.stop().await;
    assert!(status.success(), "{status}\n{}", router.log());
    router.start().await;
}

fn signal(process: u32, signal: Signal) {
    let process = Pid::from_raw(i32::try_from(process).expect("a process id")).expect("it is not zero");
    kill_process(process, signal).expect("the process is there");
}

async fn pause(router: &RouterProcess, over: impl Future<Output = ()>) {
    signal(router.id(), Signal::STOP);
    over.await;
    signal(router.id(), Signal::CONT);
}

async fn pause_redis(world: &World, duration: Duration) {
    world.redis().signal("STOP");
    sleep(duration).await;
    world.redis().signal("CONT");
}

fn tracer(world: &World) -> &Tracer {
    world.tracer.as_ref().expect("the run has one")
}
