//! One run: load, harm, rest, and the check.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::evidence;
use crate::ledger::{Evidence, Findings, Kept, check};
use crate::producer::Producers;
use crate::record::locked;
use crate::support::eventually;
use crate::world::World;

/// How much load a run has.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub producers: usize,
    pub pause: Duration,
}

/// What came of a run.
#[derive(Debug)]
pub struct Ran {
    pub findings: Findings,
    /// Answers 429, 503 or none.
    pub refused: usize,
    /// The most memory that a router had, in bytes; of the processes that were there at the end.
    pub memory_peak: u64,
}

/// About a hundred requests a second: enough for something to be under way at any time.
pub const MODERATE: Load = Load { producers: 8, pause: Duration::from_millis(60) };

/// Runs load on a world while `harm` is done to it, and checks what came of it.
pub async fn run(name: &str, seed: u64, load: Load, world: World, harm: impl AsyncFnOnce(&World)) -> Ran {
    let began = Instant::now();
    let (evidence, refused, memory_peak) = evidence_of(seed, load, &world, harm).await;
    let ran = Ran { findings: check(&evidence), refused, memory_peak };
    println!("{}", report(name, seed, began.elapsed(), &evidence, &ran));
    ran
}

/// The same, and nothing may be wrong.
pub async fn run_well(name: &str, seed: u64, load: Load, world: World, harm: impl AsyncFnOnce(&World)) -> Ran {
    let ran = run(name, seed, load, world, harm).await;
    let violations = &ran.findings.violations;
    let first: Vec<String> = violations.iter().take(20).map(ToString::to_string).collect();
    assert!(
        violations.is_empty(),
        "{name}, seed {seed}: {} violations, of which the first are\n{}",
        violations.len(),
        first.join("\n")
    );
    assert!(ran.findings.acknowledged > 0, "{name}: nothing was checked");
    ran
}

async fn evidence_of(seed: u64, load: Load, world: &World, harm: impl AsyncFnOnce(&World)) -> (Evidence, usize, u64) {
    let record = Arc::clone(&world.record);
    let stop = Arc::new(AtomicBool::new(false));
    let producers = Arc::new(Producers {
        record: Arc::clone(&record),
        ports: world.ports().await,
        producers: load.producers,
        pause: load.pause,
        seed,
        stop: Arc::clone(&stop),
        refused: AtomicUsize::new(0),
    });
    let producing = tokio::spawn({
        let producers = Arc::clone(&producers);
        async move { producers.run().await }
    });
    // Nothing is done to a system that does nothing.
    eventually("deliveries arrive", Duration::from_secs(60), async || (record.requests() > 20).then_some(())).await;
    harm(world).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    tokio::time::timeout(Duration::from_secs(120), producing)
        .await
        .expect("every event has its last answer")
        .expect("the producers do not panic");
    world.rest().await;
    let memory_peak = world.memory_peak().await;
    world.stop().await;
    let kept = kept(world).await;
    let evidence = Evidence {
        sent: std::mem::take(&mut *locked(&record.sent)),
        receipts: std::mem::take(&mut *locked(&record.receipts)),
        kept,
        disturbances: std::mem::take(&mut *locked(&record.disturbances)),
    };
    (evidence, producers.refused.load(Ordering::Relaxed), memory_peak)
}

async fn kept(world: &World) -> Kept {
    match &world.redis {
        Some(redis) => evidence::of_redis(redis).await,
        None => evidence::of_folder(&world.store_folder().await).await,
    }
}

/// A run in one paragraph.
fn report(name: &str, seed: u64, took: Duration, evidence: &Evidence, ran: &Ran) -> String {
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    for fault in &evidence.disturbances {
        *faults.entry(fault.what).or_default() += 1;
    }
    let Ran { findings: Findings { violations, acknowledged, pairs, requests, repeats }, refused, memory_peak } = ran;
    let mut text = format!(
        "soak: {name}, seed {seed}: {} events, {acknowledged} acknowledged, {pairs} pairs checked, {requests} requests received, \
         {repeats} repeated after a fault, {refused} answers 429, 503 or none, {} faults, {} MiB at most, {} violations, {:.0} s",
        evidence.sent.len(),
        evidence.disturbances.len(),
        memory_peak >> 20,
        violations.len(),
        took.as_secs_f64(),
    );
    for (fault, count) in faults {
        let _ = write!(text, "\n  {count:>5} × {fault}");
    }
    text
}

/// The store's folder, where it is an embedded one.
impl World {
    async fn store_folder(&self) -> PathBuf {
        match &self.folder {
            Some(folder) => folder.clone(),
            None => self.routers[0].lock().await.folder().join("data"),
        }
    }
}
