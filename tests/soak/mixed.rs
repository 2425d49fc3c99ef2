//! Faults at random from a printed seed, a loop of kills, and the long soak.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::budget;
use crate::clocks::MachineClock;
use crate::disk::SmallDisk;
use crate::fault::{self, Fault};
use crate::run::{MODERATE, run_well};
use crate::tracer::Tracer;
use crate::world::{Kind, Setting, World};

/// How often routers are killed in a loop when nobody asks for more.
const KILLS: usize = 60;
const KILLS_EMBEDDED: usize = 30;
/// What a kill may cost on the whole, far more than it does (2 to 8 were seen) and far less than a router can hold.
const REPEATS_A_KILL_MAX: usize = 30;
/// How long a mixture lasts when nobody asks for more.
const MIXED_FOR: Duration = Duration::from_secs(25);
/// A mixture that lasts this long has faults of over a minute in it, too.
const LONG: Duration = Duration::from_secs(180);
/// The disk of an embedded store, and what it has more for each minute of a long run.
const DISK_BYTES: u64 = 300 << 20;
const DISK_BYTES_A_MINUTE: u64 = 40 << 20;

/// Between two faults so many events are acknowledged: nothing is done to a system that does nothing.
const EVENTS_BETWEEN: usize = 20;
/// How long a system may take after a fault until it takes events again.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(60);

/// The seed that is asked for, or another one each time.
fn seed() -> u64 {
    budget::asked_for("SEED").unwrap_or_else(|| fastrand::u64(..1 << 32))
}

/// How long a mixture lasts.
fn duration() -> Duration {
    let asked = budget::asked_for("MINUTES").map(|minutes: f64| Duration::from_secs_f64(minutes * 60.0));
    budget::of_mixture(asked.unwrap_or(MIXED_FOR))
}

/// Faults in an order by chance: none again before all the others have had their turn.
struct Deck {
    faults: Vec<Fault>,
    left: Vec<Fault>,
}

impl Deck {
    fn shuffle(&mut self, chance: &mut fastrand::Rng) {
        self.left.clone_from(&self.faults);
        chance.shuffle(&mut self.left);
    }

    fn draw(&mut self, chance: &mut fastrand::Rng) -> Fault {
        if self.left.is_empty() {
            self.shuffle(chance);
        }
        self.left.pop().expect("something can be done to any run")
    }
}

async fn kill_loop(kind: Kind, kills: usize) {
    let seed = seed();
    let kills = budget::asked_for("KILLS").unwrap_or(kills);
    println!("kills ({kind:?}): seed {seed}");
    let world = World::start(Setting::of(kind)).await;
    let ran = run_well(&format!("{kills} kills ({kind:?})"), seed, MODERATE, world, async |world| {
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
    Fault::KillRouter.must_have_been_felt(&ran);
    let repeats = ran.findings.repeats;
    assert!(repeats <= kills * REPEATS_A_KILL_MAX, "{repeats} requests were repeated by {kills} kills");
}

async fn mixture(kind: Kind) {
    let (seed, duration) = (seed(), duration());
    println!("mixed ({kind:?}): seed {seed}, for {duration:?}");
    let mut setting = Setting { clock: MachineClock::install(), ..Setting::of(kind) };
    if kind == Kind::Redis {
        setting.redis_clock = MachineClock::install();
    }
    if kind == Kind::Embedded {
        setting.disk = SmallDisk::mount(DISK_BYTES + DISK_BYTES_A_MINUTE * duration.as_secs() / 60);
        setting.tracer = Tracer::find();
    }
    let world = World::start(setting).await;
    run_well(&format!("mixed ({kind:?})"), seed, MODERATE, world, async |world| {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut deck = Deck { faults: fault::of(world, duration >= LONG), left: vec![] };
        // However short it is, what such a store is there for is in it.
        let first = matches!(kind, Kind::Sentinels | Kind::Cluster).then_some(Fault::KillMaster);
        deck.shuffle(&mut chance);
        deck.left.retain(|fault| Some(*fault) != first);
        deck.left.extend(first);
        let mut done: BTreeMap<Fault, usize> = deck.faults.iter().map(|fault| (*fault, 0)).collect();
        let began = Instant::now();
        while began.elapsed() < duration {
            let fault = deck.draw(&mut chance);
            fault.inflict(world, &mut chance).await;
            *done.entry(fault).or_default() += 1;
            world.until_acknowledged(EVENTS_BETWEEN, RECOVERY_TIME_MAX).await;
        }
        let left_out: Vec<_> = done.iter().filter(|(_, times)| **times == 0).map(|(fault, _)| fault.name()).collect();
        println!(
            "mixed ({kind:?}): {} of {} kinds of faults; not drawn: {left_out:?}",
            done.len() - left_out.len(),
            done.len()
        );
        assert!(first.is_none_or(|first| done[&first] > 0), "no master was lost");
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
