//! How each fault is done: the matching of its name to signals, links, clocks and disks.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::Fault;
use crate::disk::LITTLE_BYTES;
use crate::servers::Manner;
use crate::support::fault_proxy::Weather;
use crate::support::router::RouterProcess;
use crate::tracer::{Tracer, fail_syncs, tear_a_write};
use crate::world::{Kind, World};

/// Longer than the leases of deliveries in a run, which are of 60 s.
const PAST_LEASE: Duration = Duration::from_secs(65);

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
                sleep(Duration::from_secs(13)).await;
                router.start().await;
            }
            Self::PauseRouter => pause(&*world.router(chance).await, Duration::from_secs(14)).await,
            Self::PauseRouterPastLease => pause(&*world.router(chance).await, PAST_LEASE).await,
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
                    router.lock().await.hang_up();
                }
                sleep(some(chance, 300, 800)).await;
            }
            Self::KillRedis => {
                world.redis().kill();
                sleep(some(chance, 50, 800)).await;
                tokio::task::block_in_place(|| world.redis().restart());
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
                world.redis().cli(&["config", "set", "maxmemory", "1mb"]);
                sleep(some(chance, 2_000, 4_000)).await;
                world.redis().cli(&["config", "set", "maxmemory", "0"]);
            }
            Self::ResetStoreLinks => {
                for link in &world.store_links {
                    link.break_all(chance.bool());
                }
                sleep(Duration::from_millis(200)).await;
            }
            Self::LoseStoreAnswers => {
                store_link(chance).lose_answers(chance.usize(1..6));
                sleep(Duration::from_secs(2)).await;
            }
            Self::TruncateStoreAnswers => {
                store_link(chance).truncate_answers(chance.usize(1..6));
                sleep(Duration::from_secs(2)).await;
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
                for _ in 0..5 {
                    world.receiver_link.break_all(chance.bool());
                    sleep(Duration::from_millis(100)).await;
                }
            }
            Self::LoseReceiverAnswers => {
                world.receiver_link.lose_answers(chance.usize(5..30));
                sleep(Duration::from_secs(1)).await;
                world.receiver_link.lose_answers(0);
            }
            Self::PartitionReceiverLink => {
                world.receiver_link.set(if chance.bool() { Weather::Silent } else { Weather::NoRequests });
                sleep(some(chance, 500, 4_000)).await;
                world.receiver_link.set(Weather::Fair);
            }
            Self::TruncateReceiverAnswers => {
                world.receiver_link.truncate_answers(chance.usize(5..30));
                sleep(Duration::from_secs(1)).await;
                world.receiver_link.truncate_answers(0);
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

async fn restart(router: &mut RouterProcess) {
    let status = router.stop().await;
    assert!(status.success(), "{status}\n{}", router.log());
    router.start().await;
}

fn signal(process: u32, signal: Signal) {
    let process = Pid::from_raw(i32::try_from(process).expect("a process id")).expect("it is not zero");
    kill_process(process, signal).expect("the process is there");
}

async fn pause(router: &RouterProcess, duration: Duration) {
    signal(router.id(), Signal::STOP);
    sleep(duration).await;
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
