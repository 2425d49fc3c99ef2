//! One run: load, harm, rest, and the check.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::ledger::{Evidence, Findings, Kept, Receipt, Violation, check};
use crate::producer::Producers;
use crate::record::locked;
use crate::support::eventually;
use crate::world::World;
use crate::{budget, evidence};

/// How much load a run has.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub producers: usize,
    pub pause: Duration,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Ran {
    pub findings: Findings,
    /// Answers 429 or 503.
    pub refused: usize,
    /// Requests without an answer.
    pub unanswered: usize,
    /// Attempts after the first at receivers that never answer badly.
    pub retried: usize,
    /// How often something on a link felt what was done to it.
    pub hindered: usize,
    /// How often something was done to the system.
    pub faults: usize,
    /// What the routers logged.
    pub log: String,
    /// The most memory that a router had, in bytes; of the processes that were there at the end.
    pub memory_peak: u64,
}

/// About a hundred requests a second: enough for something to be under way at any time.
pub const MODERATE: Load = Load { producers: 8, pause: Duration::from_millis(60) };

/// Runs load on a world while `harm` is done to it, and checks what came of it.
pub async fn run(name: &str, seed: u64, load: Load, world: World, harm: impl AsyncFnOnce(&World)) -> Ran {
    let began = Instant::now();
    let (evidence, memory_peak) = evidence_of(seed, load, &world, harm).await;
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let (refused, unanswered) = (count(&world.record.refused), count(&world.record.unanswered));
    let ran = Ran {
        findings: check(&evidence),
        refused,
        unanswered,
        retried: evidence.receipts.iter().filter(|receipt| is_retry(receipt)).count(),
        hindered: world.hindered(),
        faults: evidence.disturbances.len(),
        log: world.log().await,
        memory_peak,
    };
    println!("{}", report(name, seed, began.elapsed(), &evidence, &ran));
    if !ran.findings.violations.is_empty() {
        println!("{}", circumstances(&world, &evidence, &ran.findings).await);
    }
    budget::check();
    ran
}

/// Whether it follows an attempt that failed although the receiver answered well.
fn is_retry(receipt: &Receipt) -> bool {
    receipt.attempt > 1 && matches!(&receipt.pair.1[..], "audit" | "sales")
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

async fn evidence_of(seed: u64, load: Load, world: &World, harm: impl AsyncFnOnce(&World)) -> (Evidence, u64) {
    let record = Arc::clone(&world.record);
    let stop = Arc::new(AtomicBool::new(false));
    let producers = Arc::new(Producers {
        record: Arc::clone(&record),
        ports: world.ports().await,
        producers: load.producers,
        pause: load.pause,
        seed,
        stop: Arc::clone(&stop),
    });
    let producing = tokio::spawn({
        let producers = Arc::clone(&producers);
        async move { producers.run().await }
    });
    // Nothing is done to a system that does nothing.
    eventually("deliveries arrive", Duration::from_secs(60), async || (record.requests() > 20).then_some(())).await;
    harm(world).await;
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
    (evidence, memory_peak)
}

async fn kept(world: &World) -> Kept {
    match &world.servers {
        Some(servers) => evidence::of_redis(servers).await,
        None => evidence::of_folder(&world.store_folder().await).await,
    }
}

/// What was done when, and what routers said of the events that something is wrong with: for whoever has to find the cause.
async fn circumstances(world: &World, evidence: &Evidence, findings: &Findings) -> String {
    let mut text = String::new();
    for fault in &evidence.disturbances {
        let _ = writeln!(text, "  {:>7} to {:>7} ms: {}", fault.from, fault.to, fault.what);
    }
    let events: Vec<_> = findings.violations.iter().filter_map(Violation::event).take(20).collect();
    for router in &world.routers {
        let log = router.lock().await.log();
        for line in log.lines().filter(|line| events.iter().any(|event| line.contains(&format!("{event}\"")))) {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

/// A run in one paragraph.
fn report(name: &str, seed: u64, took: Duration, evidence: &Evidence, ran: &Ran) -> String {
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    for fault in &evidence.disturbances {
        *faults.entry(fault.what).or_default() += 1;
    }
    let Ran { findings, refused, unanswered, memory_peak, .. } = ran;
    let Findings { violations, acknowledged, pairs, requests, repeats, repeats_max, forgotten } = findings;
    let mut text = format!(
        "soak: {name}, seed {seed}: {} events, {acknowledged} acknowledged, {pairs} pairs checked, {requests} requests received, \
         {repeats} repeated after a fault (of {repeats_max} at most), {forgotten} forgotten and sent anew, {refused} answers 429 or 503, {unanswered} without an answer, {} faults, {} MiB at most, {} violations, {:.0} s",
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
