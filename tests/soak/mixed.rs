//! Faults at random from a printed seed, a loop of kills, and the long soak.

use std::time::{Duration, Instant};

use crate::fault::{self, Fault};
use crate::run::{MODERATE, run_well};
use crate::world::{Kind, Setting, World};

/// How often routers are killed in each loop.
const KILLS: usize = 30;
/// How long a mixture lasts when nobody asks for more.
const MIXED_FOR: Duration = Duration::from_secs(45);

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

async fn kill_loop(kind: Kind) {
    let seed = seed();
    println!("kills ({kind:?}): seed {seed}");
    let world = World::start(Setting::of(kind)).await;
    run_well(&format!("{KILLS} kills ({kind:?})"), seed, MODERATE, world, async |world| {
        let mut chance = fastrand::Rng::with_seed(seed);
        for _ in 0..KILLS {
            tokio::time::sleep(Duration::from_millis(chance.u64(20..600))).await;
            Fault::KillRouter.inflict(world, &mut chance).await;
        }
    })
    .await;
}

async fn mixture(kind: Kind) {
    let (seed, duration) = (seed(), duration());
    println!("mixed ({kind:?}): seed {seed}, for {duration:?}");
    let world = World::start(Setting::of(kind)).await;
    run_well(&format!("mixed ({kind:?})"), seed, MODERATE, world, async |world| {
        let mut chance = fastrand::Rng::with_seed(seed);
        let faults = fault::of(kind);
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
    kill_loop(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_lose_nothing_with_the_embedded_store() {
    kill_loop(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_mixed_at_random_lose_nothing_with_redis() {
    mixture(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_mixed_at_random_lose_nothing_with_the_embedded_store() {
    mixture(Kind::Embedded).await;
}
