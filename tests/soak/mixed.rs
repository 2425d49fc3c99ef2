//! Faults at random from a printed seed, a loop of kills, and the long soak.

use std::time::{Duration, Instant};

use crate::clocks::MachineClock;
use crate::disk::SmallDisk;
use crate::fault::{self, Fault};
use crate::run::{MODERATE, run_well};
use crate::tracer::Tracer;
use crate::world::{Kind, Setting, World};

/// How often routers are killed in a loop when nobody asks for more.
const KILLS: usize = 60;
const KILLS_EMBEDDED: usize = 30;
/// How long a mixture lasts when nobody asks for more.
const MIXED_FOR: Duration = Duration::from_secs(30);
/// A mixture that lasts this long has faults of over a minute in it, too.
const LONG: Duration = Duration::from_secs(180);
/// The disk of an embedded store, and what it has more for each minute of a long run.
const DISK_BYTES: u64 = 300 << 20;
const DISK_BYTES_A_MINUTE: u64 = 40 << 20;

/// The seed that is asked for, or another one each time.
fn seed() -> u64 {
    match std::env::var("BRANCHLINE_SOAK_SEED") {
        Ok(seed) => seed.parse().expect("BRANCHLINE_SOAK_SEED is a number"),
        Err(_) => fastrand::u64(..1 << 32),
    }
}

/// How long a mixture lasts.
fn duration() -> Duration {
    match std::env::var("BRANCHLINE_SOAK_MINUTES") {
        Ok(minutes) => {
            let minutes: f64 = minutes.parse().expect("BRANCHLINE_SOAK_MINUTES is a number");
            Duration::from_secs_f64(minutes * 60.0)
        }
        Err(_) => MIXED_FOR,
    }
}

async fn kill_loop(kind: Kind, kills: usize) {
    let seed = seed();
    let kills = std::env::var("BRANCHLINE_SOAK_KILLS")
        .map_or(kills, |kills| kills.parse().expect("BRANCHLINE_SOAK_KILLS is a number"));
    println!("kills ({kind:?}): seed {seed}");
    let world = World::start(Setting::of(kind)).await;
    run_well(&format!("{kills} kills ({kind:?})"), seed, MODERATE, world, async |world| {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut left = kills;
        while left > 0 {
            tokio::time::sleep(Duration::from_millis(chance.u64(20..600))).await;
            let twice = left > 1 && chance.u8(..5) == 0;
            let kill = if twice { Fault::KillRouterAsItStarts } else { Fault::KillRouter };
            kill.inflict(world, &mut chance).await;
            left -= if twice { 2 } else { 1 };
        }
    })
    .await;
}

async fn mixture(kind: Kind) {
    let (seed, duration) = (seed(), duration());
    println!("mixed ({kind:?}): seed {seed}, for {duration:?}");
    let mut setting = Setting { clock: MachineClock::install(), ..Setting::of(kind) };
    if kind == Kind::Embedded {
        setting.disk = SmallDisk::mount(DISK_BYTES + DISK_BYTES_A_MINUTE * duration.as_secs() / 60);
        setting.tracer = Tracer::find();
    }
    let world = World::start(setting).await;
    run_well(&format!("mixed ({kind:?})"), seed, MODERATE, world, async |world| {
        let mut chance = fastrand::Rng::with_seed(seed);
        let faults = fault::of(world, duration >= LONG);
        let began = Instant::now();
        while began.elapsed() < duration {
            faults[chance.usize(..faults.len())].inflict(world, &mut chance).await;
            tokio::time::sleep(Duration::from_millis(chance.u64(0..1_000))).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_lose_nothing_with_redis() {
    kill_loop(Kind::Redis, KILLS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_lose_nothing_with_the_embedded_store() {
    kill_loop(Kind::Embedded, KILLS_EMBEDDED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_mixed_at_random_lose_nothing_with_redis() {
    mixture(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_mixed_at_random_lose_nothing_with_sentinels() {
    mixture(Kind::Sentinels).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_mixed_at_random_lose_nothing_with_a_cluster() {
    mixture(Kind::Cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_mixed_at_random_lose_nothing_with_the_embedded_store() {
    mixture(Kind::Embedded).await;
}
