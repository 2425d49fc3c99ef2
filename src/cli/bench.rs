//! `branchline bench`: events per second and router CPU per event, beside a bare HTTP pipe in the same run.
//!
//! Load, receiver, pipe, router and Redis are processes of their own on loopback; every event is counted
//! at the receiver, and a run ends when the last one has arrived. Machines are noisy: read the ratios.

mod load; // Producers: a closed loop of keep-alive connections.
mod pipe; // Accept → POST, and nothing else.
mod process; // Child processes, and the CPU time they used.
mod receiver; // The endpoint, which counts.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::{Error, runtime};
use process::{Child, free_port};

/// How long a run may take before it is given up.
const RUN_TIMEOUT: Duration = Duration::from_secs(300);

/// What `branchline bench` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Events per run.
    #[arg(long, default_value_t = 60_000)]
    events: u64,
    /// Connections that producers keep open, each with one request at a time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of an event's envelope.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Rounds; each runs every scenario once, and medians are shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Run only the scenarios whose name contains this (the pipe always runs).
    #[arg(long)]
    only: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// The processes that a run is made of.
#[derive(clap::Subcommand)]
enum Role {
    /// Count what arrives.
    #[command(hide = true)]
    Receiver { port: u16 },
    /// Forward what arrives.
    #[command(hide = true)]
    Pipe { port: u16, receiver: u16 },
}

/// What is measured.
struct Scenario {
    name: &'static str,
    store: Option<Store>,
    plugin: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Redis { fsync: &'static str },
    Embedded,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "bare pipe", store: None, plugin: false },
    Scenario { name: "redis everysec", store: Some(Store::Redis { fsync: "everysec" }), plugin: false },
    Scenario { name: "redis everysec + slack plugin", store: Some(Store::Redis { fsync: "everysec" }), plugin: true },
    Scenario { name: "redis always", store: Some(Store::Redis { fsync: "always" }), plugin: false },
    Scenario { name: "embedded", store: Some(Store::Embedded), plugin: false },
    Scenario { name: "embedded + slack plugin", store: Some(Store::Embedded), plugin: true },
];

/// One run's figures.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    events_per_second: f64,
    router_cpu_micros_per_event: f64,
    store_cpu_micros_per_event: f64,
    accept_p50_ms: f64,
    accept_p99_ms: f64,
    peak_memory_mib: f64,
}

/// A scenario's medians over the rounds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    scenario: &'static str,
    of_the_pipe: f64,
    #[serde(flatten)]
    figures: Figures,
}

/// Runs the bench, or one of its processes.
pub fn run(options: &Options) -> Result<(), Error> {
    match options.role {
        Some(Role::Receiver { port }) => runtime()?.block_on(receiver::run(port)),
        Some(Role::Pipe { port, receiver }) => runtime()?.block_on(pipe::run(port, receiver)),
        None => runtime()?.block_on(measure(options)),
    }
}

async fn measure(options: &Options) -> Result<(), Error> {
    let wanted = |scenario: &&Scenario| {
        scenario.store.is_none() || options.only.as_ref().is_none_or(|only| scenario.name.contains(only.as_str()))
    };
    let has_redis = process::is_installed("redis-server");
    if !has_redis {
        eprintln!("redis-server is not installed: its scenarios are left out");
    }
    let scenarios: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(wanted)
        .filter(|scenario| has_redis || !matches!(scenario.store, Some(Store::Redis { .. })))
        .collect();
    let mut runs: Vec<Vec<Figures>> = vec![Vec::new(); scenarios.len()];
    for round in 1..=options.rounds.max(1) {
        for (scenario, runs) in scenarios.iter().zip(&mut runs) {
            eprintln!("round {round} of {}: {} …", options.rounds.max(1), scenario.name);
            let figures = tokio::time::timeout(RUN_TIMEOUT, run_once(scenario, options)).await;
            runs.push(
                figures
                    .map_err(|_| Error::Failed(format!("`{}` did not end within {RUN_TIMEOUT:?}", scenario.name)))??,
            );
        }
    }
    let pipe = median(&runs[0], |figures| figures.events_per_second);
    let rows: Vec<Row> = scenarios
        .iter()
        .zip(&runs)
        .map(|(scenario, runs)| {
            let figures = Figures {
                events_per_second: median(runs, |f| f.events_per_second),
                router_cpu_micros_per_event: median(runs, |f| f.router_cpu_micros_per_event),
                store_cpu_micros_per_event: median(runs, |f| f.store_cpu_micros_per_event),
                accept_p50_ms: median(runs, |f| f.accept_p50_ms),
                accept_p99_ms: median(runs, |f| f.accept_p99_ms),
                peak_memory_mib: median(runs, |f| f.peak_memory_mib),
            };
            Row { scenario: scenario.name, of_the_pipe: figures.events_per_second / pipe, figures }
        })
        .collect();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows).expect("rows are plain numbers and names"));
    } else {
        println!("{}", table(&rows, options));
    }
    Ok(())
}

fn table(rows: &[Row], options: &Options) -> String {
    let mut text = format!(
        "{} events of {} bytes, {} connections, medians of {} rounds\n\n{:<31} {:>9} {:>9} {:>14} {:>13} {:>11} {:>11} {:>9}\n",
        options.events,
        options.size,
        options.connections,
        options.rounds,
        "scenario",
        "events/s",
        "of pipe",
        "router µs/ev.",
        "redis µs/ev.",
        "202 p50 ms",
        "202 p99 ms",
        "peak MiB",
    );
    for Row { scenario, of_the_pipe, figures } in rows {
        writeln!(
            text,
            "{scenario:<31} {:>9.0} {:>8.0}% {:>14.1} {:>13.1} {:>11.2} {:>11.2} {:>9.0}",
            figures.events_per_second,
            of_the_pipe * 100.0,
            figures.router_cpu_micros_per_event,
            figures.store_cpu_micros_per_event,
            figures.accept_p50_ms,
            figures.accept_p99_ms,
            figures.peak_memory_mib,
        )
        .expect("writing to a string does not fail");
    }
    text
}

fn median(runs: &[Figures], figure: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn run_once(scenario: &Scenario, options: &Options) -> Result<Figures, Error> {
    let folder = process::Folder::create()?;
    let receiver_port = free_port()?;
    let _receiver = Child::of_bench(["receiver", &receiver_port.to_string()], folder.path())?;
    process::wait_for_port(receiver_port).await?;

    let port = free_port()?;
    let mut redis = None;
    let router = match scenario.store {
        None => Child::of_bench(["pipe", &port.to_string(), &receiver_port.to_string()], folder.path())?,
        Some(store) => {
            let url = match store {
                Store::Embedded => format!("file:{}", folder.path().join("data").display()),
                Store::Redis { fsync } => {
                    let redis_port = free_port()?;
                    redis = Some(Child::redis(redis_port, fsync, folder.path())?);
                    process::wait_for_port(redis_port).await?;
                    format!("redis://127.0.0.1:{redis_port}")
                }
            };
            let config = write_config(folder.path(), &url, port, receiver_port, scenario.plugin)?;
            Child::serve(&config, folder.path())?
        }
    };
    process::wait_for_port(port).await?;

    // What comes before the first counted event (start-up, first connections) is not measured.
    let warm_up = (options.events / 20).clamp(100, 2_000);
    let producers = load::Producers { port, connections: options.connections, size: options.size };
    producers.send(0, warm_up).await?;
    receiver::wait_for_count(receiver_port, warm_up).await?;

    let cpu_before = (router.cpu_time()?, redis.as_ref().map(Child::cpu_time).transpose()?);
    let began = std::time::Instant::now();
    let mut latencies = producers.send(warm_up, options.events).await?;
    receiver::wait_for_count(receiver_port, warm_up + options.events).await?;
    let took = began.elapsed();
    let cpu_after = (router.cpu_time()?, redis.as_ref().map(Child::cpu_time).transpose()?);

    let per_event = |before: Duration, after: Duration| (after - before).as_secs_f64() * 1e6 / options.events as f64;
    latencies.sort_unstable();
    let percentile = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    Ok(Figures {
        events_per_second: options.events as f64 / took.as_secs_f64(),
        router_cpu_micros_per_event: per_event(cpu_before.0, cpu_after.0),
        store_cpu_micros_per_event: cpu_before
            .1
            .zip(cpu_after.1)
            .map_or(0.0, |(before, after)| per_event(before, after)),
        accept_p50_ms: percentile(0.5),
        accept_p99_ms: percentile(0.99),
        peak_memory_mib: router.peak_memory_mib()?,
    })
}

fn write_config(folder: &Path, store: &str, port: u16, receiver: u16, plugin: bool) -> Result<PathBuf, Error> {
    let failed = |error| Error::Failed(format!("the bench's config could not be written: {error}"));
    std::fs::write(folder.join("slack.wasm"), super::demo::SLACK_COMPONENT).map_err(failed)?;
    let plugins = if plugin { r##", plugins = [{ use = "slack", config = { channel = "#bench" } }]"## } else { "" };
    let admin = free_port()?;
    let text = format!(
        r#"
[ingest]
listen = "127.0.0.1:{port}"
[admin]
listen = "127.0.0.1:{admin}"
[store]
url = "{store}"
[delivery]
allow_networks = ["127.0.0.0/8"]
[log]
level = "info"
[sources.bench]
path = "/v1/events"
auth = {{ bearer = [{{ env = "BENCH_KEY" }}] }}
[endpoints.receiver]
url = "http://127.0.0.1:{receiver}/"
secret = {{ env = "BENCH_SECRET" }}
max_in_flight = 256
[plugins.slack]
path = "slack.wasm"
[[routes]]
name = "bench"
events = ["order.*"]
subscriptions = [{{ name = "bench", endpoint = "receiver"{plugins} }}]
"#
    );
    let path = folder.join("bench.toml");
    std::fs::write(&path, text).map_err(failed)?;
    Ok(path)
}
