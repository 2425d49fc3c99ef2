//! What can be done to a running system. Each fault begins, lasts, ends, and notes when.

mod act; // How it is done.

pub use act::restart;

use std::time::Duration;

use crate::world::{ATTEMPT_TIMEOUT, ATTEMPTS_IN_FLIGHT_MAX, HELD_MAX, Kind, World};

/// After a fault between a router and Redis the others may take its work over: they wait ten seconds for a heartbeat.
pub const TAKE_OVER: Duration = Duration::from_secs(15);

/// So many answers of receivers are lost or cut at one time at most.
const ANSWERS_HARMED_MAX: usize = 30;

/// How often in a row connections to receivers are reset.
const RESETS: usize = 5;

/// An attempt that such a fault meets may go on for as long as its endpoint's timeout.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(5);

/// A way to do harm, or something that must do none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of a router, which starts again at once.
    KillRouter,
    /// `kill -9` of a router, and again while it starts.
    KillRouterAsItStarts,
    /// `kill -9` of a router, which stays away until the others have taken over.
    KillRouterForLong,
    /// A router is stopped for so long that it is taken over from, and then goes on.
    PauseRouter,
    /// The same for longer than the leases of its deliveries.
    PauseRouterPastLease,
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
    /// The same for longer than the leases of deliveries.
    PauseRedisPastLease,
    /// `kill -9` of a master, whose place a replica takes.
    KillMaster,
    /// A master is stopped until a replica has its place, and comes back as the master that it was.
    StopMaster,
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
    /// The machine's clock steps by up to an hour.
    StepClock,
    /// Redis's own clock steps back by up to an hour, and forward again.
    StepRedisClock,
    /// The disk under the embedded store is full, or nearly.
    FillDisk,
    /// A router is killed at a sync, and what was not synced is torn.
    TearWrite,
    /// Syncs of the embedded store fail, until the router has ended.
    FailSyncs,
}

/// What can be done to any run.
const COMMON: [Fault; 8] = [
    Fault::KillRouter,
    Fault::KillRouterAsItStarts,
    Fault::RestartRouter,
    Fault::Reload,
    Fault::ResetReceiverLink,
    Fault::LoseReceiverAnswers,
    Fault::PartitionReceiverLink,
    Fault::TruncateReceiverAnswers,
];

/// What can be done to a run with several routers besides.
const OF_FLEETS: [Fault; 3] = [Fault::KillRouterForLong, Fault::PauseRouter, Fault::RollingRestart];

/// What can be done to a run with one Redis besides.
const OF_REDIS: [Fault; 9] = [
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

/// What can be done to masters that have replicas.
const OF_MASTERS: [Fault; 2] = [Fault::KillMaster, Fault::StopMaster];

/// What takes over a minute each, and is for runs that have the time.
const LONG: [Fault; 2] = [Fault::PauseRouterPastLease, Fault::PauseRedisPastLease];

/// What wants a tool between a program and its machine.
const OF_TOOLS: [Fault; 5] =
    [Fault::StepClock, Fault::StepRedisClock, Fault::FillDisk, Fault::TearWrite, Fault::FailSyncs];

/// Everything that can be done.
pub fn every() -> impl Iterator<Item = Fault> {
    COMMON.into_iter().chain(OF_FLEETS).chain(OF_REDIS).chain(OF_MASTERS).chain(LONG).chain(OF_TOOLS)
}

/// What can be done to this run, with the tools that there are.
pub fn of(world: &World, is_long: bool) -> Vec<Fault> {
    let mut faults = COMMON.to_vec();
    match world.kind {
        Kind::Embedded => {}
        Kind::Redis => faults.extend(OF_FLEETS.into_iter().chain(OF_REDIS)),
        Kind::Sentinels | Kind::Cluster => faults.extend(OF_FLEETS.into_iter().chain(OF_MASTERS)),
    }
    if is_long && world.kind == Kind::Redis {
        faults.extend(LONG);
    }
    if world.clock.is_some() {
        faults.push(Fault::StepClock);
    }
    if world.redis_clock.is_some() {
        faults.push(Fault::StepRedisClock);
    }
    if world.disk.is_some() {
        faults.push(Fault::FillDisk);
    }
    if world.tracer.is_some() {
        faults.extend([Fault::TearWrite, Fault::FailSyncs]);
    }
    faults
}

impl Fault {
    /// Does it, and returns when it is over.
    pub async fn inflict(self, world: &World, chance: &mut fastrand::Rng) {
        let from = world.record.now();
        self.act(world, chance).await;
        let lasted = Duration::from_millis(world.record.now() - from);
        world.disturbed(self.name(), from, self.lingers(), self.repeats_max(world.routers.len(), lasted));
        if OF_MASTERS.contains(&self) {
            world.may_have_forgotten();
        }
    }

    /// How long its effects may go on.
    const fn lingers(self) -> Duration {
        match self {
            Self::RestartRouter
            | Self::RollingRestart
            | Self::Reload
            | Self::FullRedis
            | Self::StepClock
            | Self::FillDisk
            | Self::KillRouter
            | Self::KillRouterAsItStarts
            | Self::KillRouterForLong
            | Self::TearWrite
            | Self::FailSyncs => Duration::ZERO,
            Self::ResetReceiverLink
            | Self::LoseReceiverAnswers
            | Self::PartitionReceiverLink
            | Self::TruncateReceiverAnswers => ATTEMPT_TIME_MAX,
            Self::PauseRouter
            | Self::PauseRouterPastLease
            | Self::KillRedis
            | Self::PauseRedis
            | Self::PauseRedisPastLease
            | Self::KillMaster
            | Self::StopMaster
            | Self::ResetStoreLinks
            | Self::LoseStoreAnswers
            | Self::TruncateStoreAnswers
            | Self::PartitionStoreLink
            | Self::DeafStoreLink
            | Self::SlowStoreLink
            | Self::StepRedisClock => TAKE_OVER,
        }
    }

    /// How many repeats it may cost: what was delivered and not settled where it struck. Whoever loses its claims by it
    /// loses them once.
    fn repeats_max(self, routers: usize, lasted: Duration) -> usize {
        match self {
            Self::RestartRouter
            | Self::RollingRestart
            | Self::Reload
            | Self::FullRedis
            | Self::StepClock
            | Self::FillDisk => 0,
            // What one router held.
            Self::KillRouter
            | Self::KillRouterForLong
            | Self::TearWrite
            | Self::FailSyncs
            | Self::PauseRouter
            | Self::PauseRouterPastLease
            | Self::LoseStoreAnswers
            | Self::TruncateStoreAnswers
            | Self::PartitionStoreLink
            | Self::DeafStoreLink
            | Self::SlowStoreLink => HELD_MAX,
            Self::KillRouterAsItStarts => 2 * HELD_MAX,
            // What all of them held.
            Self::KillRedis
            | Self::PauseRedis
            | Self::PauseRedisPastLease
            | Self::ResetStoreLinks
            | Self::StepRedisClock => routers * HELD_MAX,
            // And what they had settled just before, which no replica had yet: settlements don't wait for one.
            Self::KillMaster | Self::StopMaster => 2 * routers * HELD_MAX,
            Self::LoseReceiverAnswers | Self::TruncateReceiverAnswers => ANSWERS_HARMED_MAX,
            Self::ResetReceiverLink => RESETS * routers * ATTEMPTS_IN_FLIGHT_MAX,
            Self::PartitionReceiverLink => attempts_in(lasted, routers),
        }
    }

    /// Its name in a report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KillRouter => "kill -9 of a router",
            Self::KillRouterAsItStarts => "kill -9 of a router, twice",
            Self::KillRouterForLong => "kill -9 of a router, taken over",
            Self::PauseRouter => "router stopped until it was taken over from",
            Self::PauseRouterPastLease => "router stopped for 65 s",
            Self::RestartRouter => "SIGTERM of a router",
            Self::RollingRestart => "rolling restart",
            Self::Reload => "reload and plugin swap",
            Self::KillRedis => "kill -9 of Redis",
            Self::PauseRedis => "Redis stopped for 13 s",
            Self::PauseRedisPastLease => "Redis stopped for 65 s",
            Self::KillMaster => "kill -9 of a master",
            Self::StopMaster => "master stopped until it was replaced",
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
            Self::StepClock => "clock step of up to an hour",
            Self::StepRedisClock => "clock step of Redis, there and back",
            Self::FillDisk => "full disk",
            Self::TearWrite => "torn write",
            Self::FailSyncs => "failing syncs",
        }
    }
}

/// How many attempts routers can make in such a time that end with their timeout.
pub fn attempts_in(lasted: Duration, routers: usize) -> usize {
    let rounds = lasted.as_secs() / ATTEMPT_TIMEOUT.as_secs() + 2;
    routers * ATTEMPTS_IN_FLIGHT_MAX * usize::try_from(rounds).expect("no fault is that long")
}
