//! What can be done to a running system. Each fault begins, lasts, ends, and notes when.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::support::fault_proxy::Weather;
use crate::world::{Kind, World};

/// After a fault between a router and Redis the others may take its work over: they wait ten seconds for a heartbeat.
const TAKE_OVER: Duration = Duration::from_secs(15);

/// A way to do harm, or something that must do none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of a router, which starts again at once.
    KillRouter,
    /// `kill -9` of a router, which stays away until the others have taken over.
    KillRouterForLong,
    /// A router is stopped for so long that it is taken over from, and then goes on.
    PauseRouter,
    /// SIGTERM to a router, which starts again.
    RestartRouter,
    /// SIGTERM to each router in turn.
    RollingRestart,
    /// SIGHUP with another config, another copy of a plugin.
    Reload,
    /// `kill -9` of Redis, which starts again.
    KillRedis,
    /// Redis is stopped for longer than routers wait for a heartbeat.
    PauseRedis,
    /// Redis has no memory for anything more.
    FullRedis,
    /// Every connection to Redis is reset.
    ResetStoreLinks,
    /// Answers of Redis are lost, and their connections with them.
    LoseStoreAnswers,
    /// Answers of Redis are cut in the middle.
    TruncateStoreAnswers,
    /// One router and Redis hear nothing of each other.
    PartitionStoreLink,
    /// One router is heard by Redis and hears nothing.
    DeafStoreLink,
    /// Redis answers late.
    SlowStoreLink,
    /// Every connection to receivers is reset.
    ResetReceiverLink,
    /// Receivers' answers are lost.
    LoseReceiverAnswers,
    /// Nothing comes through to the receivers.
    PartitionReceiverLink,
    /// Receivers' answers are cut in the middle.
    TruncateReceiverAnswers,
}

/// What can be done to any run.
pub const COMMON: [Fault; 7] = [
    Fault::KillRouter,
    Fault::RestartRouter,
    Fault::Reload,
    Fault::ResetReceiverLink,
    Fault::LoseReceiverAnswers,
    Fault::PartitionReceiverLink,
    Fault::TruncateReceiverAnswers,
];

/// What can be done to a run with Redis besides.
pub const OF_REDIS: [Fault; 12] = [
    Fault::KillRouterForLong,
    Fault::PauseRouter,
    Fault::RollingRestart,
    Fault::KillRedis,
    Fault::PauseRedis,
    Fault::FullRedis,
    Fault::ResetStoreLinks,
    Fault::LoseStoreAnswers,
    Fault::TruncateStoreAnswers,
    Fault::PartitionStoreLink,
    Fault::DeafStoreLink,
    Fault::SlowStoreLink,
];

/// What can be done to a run with this store.
pub fn of(kind: Kind) -> Vec<Fault> {
    match kind {
        Kind::Embedded => COMMON.to_vec(),
        Kind::Redis => [&COMMON[..], &OF_REDIS[..]].concat(),
    }
}

impl Fault {
    /// Does it, and returns when it is over.
    pub async fn inflict(self, world: &World, chance: &mut fastrand::Rng) {
        let from = world.record.now();
        self.act(world, chance).await;
        let (lingers, may_repeat) = self.consequences();
        world.disturbed(self.name(), from, lingers, may_repeat);
    }

    /// How long its effects may go on, and whether it may cost a repeat.
    const fn consequences(self) -> (Duration, bool) {
        match self {
            Self::RestartRouter | Self::RollingRestart | Self::Reload | Self::FullRedis => (Duration::ZERO, false),
            Self::KillRouter | Self::KillRouterForLong => (Duration::ZERO, true),
            Self::ResetReceiverLink
            | Self::LoseReceiverAnswers
            | Self::PartitionReceiverLink
            | Self::TruncateReceiverAnswers => (Duration::from_secs(2), true),
            Self::PauseRouter
            | Self::KillRedis
            | Self::PauseRedis
            | Self::ResetStoreLinks
            | Self::LoseStoreAnswers
            | Self::TruncateStoreAnswers
            | Self::PartitionStoreLink
            | Self::DeafStoreLink
            | Self::SlowStoreLink => (TAKE_OVER, true),
        }
    }

    /// Its name in a report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KillRouter => "kill -9 of a router",
            Self::KillRouterForLong => "kill -9 of a router, taken over",
            Self::PauseRouter => "router stopped for 14 s",
            Self::RestartRouter => "SIGTERM of a router",
            Self::RollingRestart => "rolling restart",
            Self::Reload => "reload and plugin swap",
            Self::KillRedis => "kill -9 of Redis",
            Self::PauseRedis => "Redis stopped for 13 s",
            Self::FullRedis => "Redis out of memory",
            Self::ResetStoreLinks => "connections to Redis reset",
            Self::LoseStoreAnswers => "answers of Redis lost",
            Self::TruncateStoreAnswers => "answers of Redis cut",
            Self::PartitionStoreLink => "partition of a router and Redis",
            Self::DeafStoreLink => "a router deaf to Redis",
            Self::SlowStoreLink => "Redis answers late",
            Self::ResetReceiverLink => "connections to receivers reset",
            Self::LoseReceiverAnswers => "answers of receivers lost",
            Self::PartitionReceiverLink => "partition of routers and receivers",
            Self::TruncateReceiverAnswers => "answers of receivers cut",
        }
    }

    async fn act(self, world: &World, chance: &mut fastrand::Rng) {
        let some = |chance: &mut fastrand::Rng, from: u64, to: u64| Duration::from_millis(chance.u64(from..to));
        let store_link = |chance: &mut fastrand::Rng| &world.store_links[chance.usize(..world.store_links.len())];
        match self {
            Self::KillRouter => {
                let mut router = world.router(chance).await;
                router.kill();
                router.start().await;
            }
            Self::KillRouterForLong => {
                let mut router = world.router(chance).await;
                router.kill();
                sleep(Duration::from_secs(13)).await;
                router.start().await;
            }
            Self::PauseRouter => {
                let router = world.router(chance).await;
                signal(router.id(), Signal::STOP);
                sleep(Duration::from_secs(14)).await;
                signal(router.id(), Signal::CONT);
            }
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
            Self::PauseRedis => {
                world.redis().signal("STOP");
                sleep(Duration::from_secs(13)).await;
                world.redis().signal("CONT");
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
        }
    }
}

async fn restart(router: &mut crate::support::router::RouterProcess) {
    let status = router.stop().await;
    assert!(status.success(), "{status}\n{}", router.log());
    router.start().await;
}

fn signal(process: u32, signal: Signal) {
    let process = Pid::from_raw(i32::try_from(process).expect("a process id")).expect("it is not zero");
    kill_process(process, signal).expect("the process is there");
}
