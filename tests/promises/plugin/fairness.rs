//! A plugin that misbehaves delays nobody else. Measured in counts and ratios: other tests run at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use branchline::event::Event;
use branchline::plugin::{ChainEnd, Plugin};
use tokio::task::JoinSet;

use super::{Bench, chain, event};
use crate::support::components::Guest;

/// Keeps a plugin busy with more events than it can take, until it is told to stop. Counts what became of them.
struct Load {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicU64>,
    busy: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Load {
    fn start(bench: &Bench, plugins: &[&Arc<Plugin>], event: &Arc<Event>, callers: usize) -> Self {
        let (stop, ended, busy) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            let (host, chain, event) = (Arc::clone(&bench.host), chain(plugins), Arc::clone(event));
            let (stop, ended, busy) =
                (Arc::clone(&stop), Arc::<AtomicU64>::clone(&ended), Arc::<AtomicU64>::clone(&busy));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match host.run(Arc::clone(&chain), Arc::clone(&event), "load".into()).await {
                        ChainEnd::Busy => {
                            busy.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        _ => _ = ended.fetch_add(1, Ordering::Relaxed),
                    }
                }
            });
        }
        Self { stop, ended, busy, tasks }
    }

    fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    async fn until_ended(&self, count: u64) {
        crate::support::eventually("the load runs", Duration::from_secs(60), async || {
            (self.ended() >= count).then_some(())
        })
        .await;
    }

    async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        self.busy.load(Ordering::Relaxed)
    }
}

/// Runs `calls` events one after another and tells how many were not delivered.
async fn run_many(bench: &Bench, plugin: &Arc<Plugin>, calls: u64) -> u64 {
    let event = event("{}");
    let mut refused = 0;
    for _ in 0..calls {
        let end = bench.run(&[plugin], &event).await;
        refused += u64::from(!matches!(end, ChainEnd::Event { .. }));
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_spins_does_not_delay_another() {
    let bench = Bench::with_threads(2);
    let deadline = |spec: &mut branchline::config::PluginSpec| spec.deadline = Duration::from_millis(50);
    let bad = bench.load_with("bad", &Guest::spins(), deadline).await;
    let worse = bench.load_with("worse", &Guest::spins(), deadline).await;
    let good = bench.load("good", &Guest::pass()).await;
    let load = Load::start(&bench, &[&bad], &event("{}"), 16);
    let more = Load::start(&bench, &[&worse], &event("{}"), 16);
    load.until_ended(2).await;
    more.until_ended(2).await;

    // Were each good call behind a bad one, two hundred of them would see two hundred deadlines pass.
    let before = load.ended() + more.ended();
    assert_eq!(run_many(&bench, &good, 200).await, 0);
    let passed = load.ended() + more.ended() - before;
    assert!(passed < 50, "{passed} bad calls ended while 200 good ones ran one after another");
    // The bad ones' own work is refused rather than piled up.
    assert!(load.stop().await + more.stop().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_with_a_bad_plugin_does_not_delay_others_that_use_its_good_one() {
    let bench = Bench::with_threads(2);
    let bad = bench.load_with("bad", &Guest::spins(), |spec| spec.deadline = Duration::from_millis(50)).await;
    let good = bench.load("good", &Guest::pass()).await;
    let load = Load::start(&bench, &[&good, &bad], &event("{}"), 16);
    load.until_ended(2).await;
    let before = load.ended();
    assert_eq!(run_many(&bench, &good, 200).await, 0);
    let passed = load.ended() - before;
    assert!(passed < 50, "{passed} bad chains ended while 200 good ones ran one after another");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_plugin_leaves_another_its_share() {
    let bench = Bench::with_threads(2);
    let greedy = bench.load("greedy", &Guest::works(20_000)).await;
    let modest = bench.load("modest", &Guest::works(20_000)).await;
    let load = Load::start(&bench, &[&greedy], &event("{}"), 64);
    load.until_ended(100).await;
    // One caller against sixty-four: it may wait for a call that runs, not for a queue.
    let before = load.ended();
    assert_eq!(run_many(&bench, &modest, 300).await, 0);
    let passed = load.ended() - before;
    assert!(passed < 300 * 8, "{passed} calls of the other ended while 300 ran");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_threads_run_two_calls_at_the_same_time() {
    /// How long `calls` of a plugin take, from several callers.
    async fn time(threads: usize) -> f64 {
        let bench = Bench::with_threads(threads);
        let plugin = bench.load("works", &Guest::works(200_000)).await;
        let load = Load::start(&bench, &[&plugin], &event("{}"), 8);
        load.until_ended(20).await;
        let (before, started) = (load.ended(), Instant::now());
        load.until_ended(before + 1000).await;
        let seconds = started.elapsed().as_secs_f64();
        load.stop().await;
        seconds
    }
    // The machine may be busy with other tests: it is enough to see it once.
    let mut ratios = Vec::new();
    for _ in 0..5 {
        ratios.push(time(1).await / time(2).await);
        if ratios.last().is_some_and(|ratio| *ratio > 1.3) {
            return;
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(cores < 2, "two threads were never much faster than one: {ratios:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_nobody_waits_for_is_not_run() {
    let bench = Bench::with_threads(1);
    let slow = bench.load_with("slow", &Guest::spins(), |spec| spec.deadline = Duration::from_millis(50)).await;
    let counted = bench.load("counted", &Guest::pass()).await;
    let (host, event) = (Arc::clone(&bench.host), event("{}"));
    let first = tokio::spawn({
        let (host, chain, event) = (Arc::clone(&host), chain(&[&slow]), Arc::clone(&event));
        async move { host.run(chain, event, "warehouse".into()).await }
    });
    // While the only thread spins, a caller comes and goes away again.
    let gone = tokio::time::timeout(Duration::from_millis(1), async {
        tokio::task::yield_now().await;
        loop {
            host.run(chain(&[&slow]), Arc::clone(&event), "warehouse".into()).await;
        }
    });
    assert!(gone.await.is_err());
    assert!(matches!(first.await.unwrap(), ChainEnd::Fault { .. }));
    assert_eq!(run_many(&bench, &counted, 1).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_stops_answers_all_its_callers() {
    let bench = Bench::with_threads(1);
    let bad = bench.load_with("bad", &Guest::spins(), |spec| spec.deadline = Duration::from_millis(200)).await;
    let mut load = Load::start(&bench, &[&bad], &event("{}"), 4);
    load.stop.store(true, Ordering::Relaxed);
    drop(bench);
    while let Some(ended) = load.tasks.join_next().await {
        ended.unwrap();
    }
}
