//! A plugin that misbehaves delays nobody else. Measured in counts and ratios: other tests run at the same time.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
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
                    match host.run(&chain, Arc::clone(&event)).await.end {
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

/// Runs some events, one after another with pauses, and tells how many calls of the others ended while these waited.
async fn ended_meanwhile(bench: &Bench, plugin: &Arc<Plugin>, loads: &[&Load], calls: u32) -> u64 {
    let event = event("{}");
    let all = || loads.iter().map(|load| load.ended()).sum::<u64>();
    let mut meanwhile = 0;
    for _ in 0..calls {
        // Long enough for a thread that is free to take up something else.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let before = all();
        let end = bench.run(&[plugin], &event).await;
        assert!(matches!(end, ChainEnd::Event { .. }), "{end:?}");
        meanwhile += all() - before;
    }
    meanwhile
}

fn with_a_short_deadline(spec: &mut branchline::config::PluginSpec) {
    spec.deadline = Duration::from_millis(50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_spins_does_not_delay_another() {
    let bench = Bench::with_threads(2);
    let bad = bench.load_with("bad", &Guest::spins(), with_a_short_deadline).await;
    let worse = bench.load_with("worse", &Guest::spins(), with_a_short_deadline).await;
    let good = bench.load("good", &Guest::pass()).await;
    let load = Load::start(&bench, &[&bad], &event("{}"), 16);
    let more = Load::start(&bench, &[&worse], &event("{}"), 16);
    load.until_ended(2).await;
    more.until_ended(2).await;

    // Were a good call to wait for a thread, it would wait until a bad one ends.
    let ended = ended_meanwhile(&bench, &good, &[&load, &more], 100).await;
    assert!(ended < 30, "{ended} bad calls ended while 100 good ones waited");
    // The bad ones' own work is refused rather than piled up.
    assert!(load.stop().await + more.stop().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_with_a_bad_plugin_does_not_delay_others_that_use_its_good_one() {
    let bench = Bench::with_threads(2);
    let bad = bench.load_with("bad", &Guest::spins(), with_a_short_deadline).await;
    let good = bench.load("good", &Guest::pass()).await;
    let load = Load::start(&bench, &[&good, &bad], &event("{}"), 16);
    load.until_ended(2).await;
    let ended = ended_meanwhile(&bench, &good, &[&load], 100).await;
    assert!(ended < 30, "{ended} bad chains ended while 100 good ones waited");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_plugin_leaves_another_its_share() {
    let bench = Bench::with_threads(1);
    let greedy = bench.load("greedy", &Guest::works(100_000)).await;
    let modest = bench.load("modest", &Guest::pass()).await;
    let load = Load::start(&bench, &[&greedy], &event("{}"), 64);
    load.until_ended(100).await;
    // One caller against sixty-four: it waits for the call that runs, not for a queue.
    let ended = ended_meanwhile(&bench, &modest, &[&load], 100).await;
    assert!(ended < 100 * 8, "{ended} calls of the other ended while 100 waited");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_threads_run_two_calls_at_the_same_time() {
    /// The time of all calls together, over the time that passed: how many ran at once, on average.
    async fn at_once(threads: usize) -> f64 {
        let bench = Bench::with_threads(threads);
        let plugin = bench.load("works", &Guest::works(400_000)).await;
        let started = Instant::now();
        let mut callers = JoinSet::new();
        for _ in 0..8 {
            let (host, plugin, event) = (Arc::clone(&bench.host), Arc::clone(&plugin), event("{}"));
            callers.spawn(async move {
                let mut took = Duration::ZERO;
                for _ in 0..100 {
                    took += host.call_once(&plugin, "{}", Arc::clone(&event), "warehouse").await.duration;
                }
                took
            });
        }
        let took: Duration = callers.join_all().await.into_iter().sum();
        took.as_secs_f64() / started.elapsed().as_secs_f64()
    }
    assert!(at_once(1).await <= 1.0);
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return; // There is nothing to see on one core.
    }
    // The machine may be busy with other tests: it is enough to see it once.
    crate::support::eventually("two calls run at once", Duration::from_secs(60), async || {
        (at_once(2).await > 1.3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_nobody_waits_for_is_not_run() {
    let bench = Bench::with_threads(1);
    let slow = bench.load_with("slow", &Guest::spins(), with_a_short_deadline).await;
    let (host, event) = (Arc::clone(&bench.host), event("{}"));
    let chain = chain(&[&slow]);
    let call = || Box::pin(host.run(&chain, Arc::clone(&event)));
    let (mut waits, mut goes_away) = (call(), call());
    // Both are asked for, in this order, and while the only thread spins for the first the second is given up.
    for asked in [&mut waits, &mut goes_away] {
        let pending = poll_fn(|context| Poll::Ready(asked.as_mut().poll(context).is_pending())).await;
        assert!(pending);
    }
    drop(goes_away);
    assert!(matches!(waits.await.end, ChainEnd::Fault { .. }));
    assert!(matches!(call().await.end, ChainEnd::Fault { .. }));
    let text = bench.metrics.render();
    assert!(text.contains(r#"branchline_plugin_calls_total{plugin="slow",verdict="deadline"} 2"#), "{text}");
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
