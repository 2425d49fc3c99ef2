//! `branchline bench`: events per second and router CPU per event, beside a bare and a durable HTTP pipe in the same run.
//!
//! Load, receiver, pipe, router and Redis are processes of their own on loopback; every event is counted
//! at the receiver, and a run ends when the last one has arrived. Machines are noisy: read the ratios.

mod aims; // What the figures should be.
mod caller; // Plugin calls in a process of their own.
mod chart; // The figures as a picture.
mod durable_pipe; // Accept → stream → POST, and nothing else.
mod fill; // What a store holds beforehand.
mod growth; // How figures change with what grows, as a picture.
mod host; // One plugin call, beside a bare wasmtime.
mod load; // Producers: a closed loop, or an open one at a rate.
mod pipe; // Accept → POST, and nothing else.
mod process; // Child processes, and the CPU time they used.
mod receiver; // The endpoint, which counts.
mod report; // What was measured.
mod run; // One run of a scenario.
mod scenario; // What is measured.
mod setup; // The processes of a run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Error, runtime};
use host::Calls;
use report::{LatencyRow, Report};
use run::Figures;
use scenario::{Group, Scenario, System, Work};

/// How long each plugin is called for.
const HOST_DURATION: Duration = Duration::from_secs(5);
/// The load at which latencies are measured, as a share of what the router can do.
const LATENCY_SHARE: f64 = 1.0 / 3.0;

/// What `branchline bench` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// What to measure; `stores` unless told otherwise.
    #[arg(long, value_enum, value_name = "GROUP")]
    scenario: Vec<Group>,
    /// Measure everything.
    #[arg(long, conflicts_with = "scenario")]
    all: bool,
    /// Run only the scenarios whose name contains this (the pipe always runs).
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Events per run; fewer where one event is much work.
    #[arg(long, value_name = "COUNT", default_value_t = 60_000)]
    events: u64,
    /// Connections that producers keep open, each with one request at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    connections: usize,
    /// Bytes of an event's envelope.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    size: usize,
    /// Events, or deliveries, that the store holds before the router starts, at most: for `backlog` and `retries`.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    held: u64,
    /// Rounds; each runs every scenario once, and medians are shown.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    rounds: usize,
    /// One round, with a tenth of the events and of what is held.
    #[arg(long)]
    quick: bool,
    /// A setting of the Redis servers that it starts, as in redis.conf; again for each further one. Redis's own default is
    /// 64mb here, which a new file reaches amid a short run.
    #[arg(long, value_name = "SETTING", default_value = "auto-aof-rewrite-min-size 1gb")]
    redis: Vec<String>,
    /// The shipped plugins, for what needs more than `slack`: `chain`, `rest` and `host`.
    #[arg(long, value_name = "FOLDER", default_value = "plugins")]
    plugins: PathBuf,
    /// Write bench.json and bench.svg into this folder.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
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
    /// Forward what arrives, each request so many times.
    #[command(hide = true)]
    Pipe { port: u16, receiver: u16, copies: usize },
    /// Forward what arrives through a stream of Redis.
    #[command(hide = true)]
    DurablePipe { port: u16, receiver: u16, redis: String },
    /// Call a plugin whenever a line is read.
    #[command(hide = true)]
    Caller { call: usize, duration_ms: u64 },
}

impl Options {
    fn events(&self) -> u64 {
        if self.quick { self.events / 10 } else { self.events }
    }

    fn held(&self) -> u64 {
        if self.quick { self.held / 10 } else { self.held }
    }

    fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    fn calls(&self) -> Calls<'_> {
        Calls { plugins: &self.plugins, size: self.size }
    }

    /// Whether a scenario is asked for.
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// The groups to measure. Those that can't be measured here are told of and left out.
    fn groups(&self) -> Vec<Group> {
        let asked = match (self.all, self.scenario.is_empty()) {
            (true, _) => Group::ALL.to_vec(),
            (false, true) => vec![Group::Stores],
            (false, false) => self.scenario.clone(),
        };
        let has_plugins = self.plugins.join("sample.wasm").is_file();
        let needs_plugins = |group: &Group| matches!(group, Group::Chain | Group::Rest | Group::Host);
        if !has_plugins && asked.iter().any(needs_plugins) {
            let folder = self.plugins.display();
            eprintln!("`{folder}` has no shipped plugins (see --plugins): chain, rest and host are left out");
        }
        asked.into_iter().filter(|group| has_plugins || !needs_plugins(group)).collect()
    }
}

/// Runs the bench, or one of its processes.
pub fn run(options: &Options) -> Result<(), Error> {
    match &options.role {
        &Some(Role::Receiver { port }) => return runtime()?.block_on(receiver::run(port)),
        &Some(Role::Pipe { port, receiver, copies }) => {
            return runtime()?.block_on(pipe::run(port, receiver, copies));
        }
        Some(Role::DurablePipe { port, receiver, redis }) => {
            return runtime()?.block_on(durable_pipe::run(*port, *receiver, redis));
        }
        &Some(Role::Caller { call, duration_ms }) => {
            return caller::run(&options.calls(), call, Duration::from_millis(duration_ms));
        }
        None => {}
    }
    let groups = options.groups();
    let has_redis = process::is_installed("redis-server");
    if !has_redis {
        eprintln!("redis-server is not installed: its scenarios are left out");
    }
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        events: options.events(),
        connections: options.connections,
        rounds: options.rounds(),
        redis: if has_redis { options.redis.clone() } else { Vec::new() },
        ..Report::default()
    };
    runtime()?.block_on(measure(options, &groups, has_redis, &mut report))?;
    if groups.contains(&Group::Host) {
        eprintln!("plugin calls …");
        let duration = if options.quick { HOST_DURATION / 10 } else { HOST_DURATION };
        report.host = options.calls().measure(duration)?;
    }
    report.aims = aims::of(&report);
    if let Some(folder) = &options.out {
        write(&report, folder)?;
    }
    if options.json {
        outln!("{}", json(&report));
    } else {
        outln!("{}", report.table());
    }
    Ok(())
}

async fn measure(options: &Options, groups: &[Group], has_redis: bool, report: &mut Report) -> Result<(), Error> {
    let scenarios = scenarios(options, groups, has_redis);
    let mut runs: Vec<Vec<Figures>> = vec![Vec::new(); scenarios.len()];
    for round in 1..=options.rounds() {
        for (scenario, runs) in scenarios.iter().zip(&mut runs) {
            eprintln!("round {round} of {}: {} …", options.rounds(), scenario.name);
            runs.push(run::run(scenario, options).await?);
        }
    }
    report.scenarios = report::rows(&scenarios, &runs);
    let router = if has_redis { System::Redis("everysec") } else { System::Embedded };
    let work = scenario::plain(options.size);
    if groups.contains(&Group::Latency) {
        let name = if has_redis { "redis everysec" } else { "embedded" };
        eprintln!("{name}: what it can do …");
        let scenario = Scenario { group: Group::Latency, name: name.to_owned(), at: None, system: router, work };
        let rate = run::run(&scenario, options).await?.events_per_second * LATENCY_SHARE;
        for (name, system) in [("bare pipe", System::Pipe), (name, router)] {
            eprintln!("{name}, {rate:.0} events/s …");
            let latency = run::open_loop(name, system, &work, rate, options).await?;
            report.latency.push(LatencyRow { scenario: name.to_owned(), latency });
        }
    }
    if groups.contains(&Group::Rest) {
        eprintln!("at rest …");
        report.rest = Some(run::rest(router, &Work { others: 999, ..work }, options).await?);
    }
    Ok(())
}

/// The scenarios that are asked for and can be run; before them the pipes they are compared with, for each size of events.
fn scenarios(options: &Options, groups: &[Group], has_redis: bool) -> Vec<Scenario> {
    let mut asked: Vec<Scenario> =
        groups.iter().flat_map(|group| scenario::of(*group, options.size, options.held())).collect();
    asked.retain(|scenario| options.wants(&scenario.name));
    asked.retain(|scenario| has_redis || scenario.system.fsync().is_none());
    let mut sizes: Vec<usize> = asked.iter().map(|scenario| scenario.work.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let pipes = sizes.into_iter().map(|size| scenario::pipe(Group::Stores, size));
    let mut on_redis: Vec<_> =
        asked.iter().filter_map(|scenario| Some((scenario.work.size, scenario.system.fsync()?))).collect();
    on_redis.sort_unstable();
    on_redis.dedup();
    let durable_pipes = on_redis.into_iter().map(|(size, fsync)| scenario::durable_pipe(size, fsync));
    pipes.chain(durable_pipes).chain(asked).collect()
}

fn json(report: &Report) -> String {
    serde_json::to_string_pretty(report).expect("a report is plain numbers and names")
}

fn write(report: &Report, folder: &Path) -> Result<(), Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Failed(format!("`{}`: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    std::fs::write(folder.join("bench.json"), json(report) + "\n").map_err(|error| failed(&error))?;
    let picture = chart::svg(&report.scenarios).map_err(|error| failed(&error))?;
    std::fs::write(folder.join("bench.svg"), picture).map_err(|error| failed(&error))
}
