//! `branchline plugin bench`: how long a call takes, and how many a router can make, on one thread and on two. The
//! calls are the router's own, in a loop; a bare wasmtime beside them shows what the sandbox adds.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::sandbox::{self, Counting, Limits, THREADS};
use super::{place, print_json, units};
use crate::cli::{Error, runtime};
use crate::plugin::{Fault, Load, Measurement, Spread, fixture};

/// What `branchline plugin bench` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// A component, or a plugin's folder.
    #[arg(default_value = ".")]
    plugin: PathBuf,
    /// An event: an envelope as JSON.
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// The plugin's config as JSON [default: `{}`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long each of the three measurements goes on.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = units::parse_duration)]
    duration: Duration,
    #[command(flatten)]
    limits: Limits,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Measures.
pub fn run(options: &Options) -> Result<(), Error> {
    let event = fixture::read_event(&options.event).map_err(Error::Failed)?;
    let config = match &options.config {
        Some(path) => fixture::read_text(path).map_err(Error::Failed)?,
        None => "{}".to_owned(),
    };
    let component = place::component(&options.plugin)?;
    let spec = options.limits.spec(&component);
    let (host, plugin) = runtime()?.block_on(async {
        let host = sandbox::start(Counting::Off)?;
        let plugin = sandbox::load(&host, &spec).await?;
        plugin
            .validate_config(&config)
            .await
            .map_err(|text| Error::Failed(format!("the plugin refuses the config: {text}")))?;
        Ok::<_, Error>((host, plugin))
    })?;
    let failed = |fault: Fault| Error::Failed(format!("a call failed ({}): {}", fault.kind.as_str(), fault.detail));
    let load =
        |threads| Load { config: config.as_str().into(), event: event.clone(), threads, duration: options.duration };
    let one = host.measure(&plugin, &load(1)).map_err(failed)?;
    let two = host.measure(&plugin, &load(THREADS)).map_err(failed)?;
    let bare = host.measure_bare(&plugin, &load(1)).map_err(failed)?;
    let all = [("1 thread", 1, one), ("2 threads", THREADS, two), ("bare wasmtime, 1 thread", 1, bare)];
    if options.json {
        let rows: Vec<_> = all.iter().map(|(name, threads, measured)| row(name, *threads, measured)).collect();
        print_json(&json!({ "component": component, "eventBytes": event.payload.len(), "measurements": rows }));
        return Ok(());
    }
    outln!(
        "{:<24} {:>10} {:>10} {:>10} {:>10} {:>12} {:>12} {:>12}",
        "",
        "call",
        "p99",
        "instance",
        "code",
        "calls",
        "calls/s",
        "per thread"
    );
    for (name, threads, measured) in &all {
        outln!(
            "{name:<24} {:>10} {:>10} {:>10} {:>10} {:>12} {:>12} {:>12}",
            units::time(measured.whole.median),
            units::time(measured.whole.p99),
            units::time(measured.instantiation.median),
            units::time(measured.execution.median),
            units::count(measured.calls),
            units::count(per_second(measured)),
            units::count(per_second(measured) / *threads as u64),
        );
    }
    let late: u64 = all.iter().map(|(_, _, measured)| measured.late).sum();
    if late > 0 {
        outln!("\n{late} calls ran past the deadline of {}", units::time(spec.deadline));
    }
    outln!("\ncall: the median of whole calls, of which `instance` is making the instance and `code` the rest");
    Ok(())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive and far below 2^52")]
fn per_second(measured: &Measurement) -> u64 {
    measured.per_second() as u64
}

fn row(name: &str, threads: usize, measured: &Measurement) -> Value {
    let micros = |spread: Spread| json!({ "medianMicros": spread.median.as_nanos() as f64 / 1e3, "p99Micros": spread.p99.as_nanos() as f64 / 1e3 });
    json!({
        "name": name,
        "threads": threads,
        "calls": measured.calls,
        "late": measured.late,
        "callsPerSecond": per_second(measured),
        "call": micros(measured.whole),
        "instantiation": micros(measured.instantiation),
        "execution": micros(measured.execution),
    })
}
