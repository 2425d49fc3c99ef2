//! How many instructions each step takes, beside `benches/instructions.json`: more than 5 % above it fails.
//!
//! Times vary with the machine; instructions hardly do, so that a small loss is seen on a busy one too. Each step is counted by
//! callgrind in a process of its own, a plugin's call by the sandbox itself, since its machine code is made at run time.
//! Counted is what the tests run, so that it costs no build of its own: dependencies optimised, our code not.
//!
//!   cargo bench --profile dev --bench instructions                 compares
//!   cargo bench --profile dev --bench instructions -- --update     writes the baseline anew

mod cases;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use branchline::config::{PluginSpec, Sandbox};
use branchline::metrics::Metrics;
use branchline::plugin::PluginHost;
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much more than the baseline is let pass.
const MORE_MAX: f64 = 0.05;
/// Calls that are counted, and before them calls that are not: memory and lazily made things are then as they are later on.
const CALLS: u64 = 100;
const WARM_UP: u64 = 10;
/// The plugins whose calls are counted, with their configs.
const PLUGINS: [(&str, &str); 2] =
    [("sample", r#"{"share":1,"by":"/orderId"}"#), ("slack", r##"{"channel":"#bench"}"##)];
/// The step by which the comparison is itself checked.
const CHECKED_BY: &str = "sign 1 KiB";

/// The committed counts, and what they depend on.
#[derive(Deserialize, Serialize)]
struct Baseline {
    rustc: String,
    instructions: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["--step", name, calls] => {
            step(name, calls);
            Ok(())
        }
        [] => compare(),
        ["--update"] => update(),
        _ => Err("usage: cargo bench --profile dev --bench instructions [-- --update]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("instructions: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Does a step so many times: what runs under callgrind.
fn step(name: &str, calls: &str) {
    let case = cases::CASES.into_iter().find(|case| case.name == name).expect("the parent names a step");
    let calls: u64 = calls.parse().expect("the parent gives a number");
    let mut step = (case.prepare)();
    (0..WARM_UP).for_each(|_| step());
    counted_calls(&mut step, calls);
}

/// Callgrind counts while this runs, and finds it by its name: a closure's name would hold it too, and end the counting.
#[inline(never)]
fn counted_calls(step: &mut dyn FnMut(), calls: u64) {
    for _ in 0..calls {
        step();
    }
}

fn compare() -> Result<(), String> {
    let text = std::fs::read_to_string(file()).map_err(|error| format!("{}: {error}", file().display()))?;
    let baseline: Baseline = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file().display()))?;
    let counted = count_all()?;
    println!("{:<36} {:>12} {:>12} {:>8}", "instructions", "baseline", "now", "");
    let mut worse = Vec::new();
    for (name, now) in &counted {
        let Some(before) = baseline.instructions.get(name) else {
            worse.push(format!("`{name}` is not in the baseline"));
            continue;
        };
        let change = change(*before, *now);
        println!("{name:<36} {before:>12} {now:>12} {:>+7.1}%", change * 100.0);
        if change > MORE_MAX {
            worse.push(format!("`{name}` takes {:.1} % more instructions than the baseline", change * 100.0));
        } else if change < -MORE_MAX {
            println!("  better than the baseline: write it anew, so that it stays so");
        }
    }
    // A comparison that can't fail shows nothing: one call in ten made twice must be seen.
    let slower = count(CHECKED_BY, CALLS + CALLS / 10)?;
    if change(counted[CHECKED_BY], slower) <= MORE_MAX {
        worse.push("a step that takes a tenth more was not seen: the counts can't be trusted".to_owned());
    }
    if worse.is_empty() {
        return Ok(());
    }
    let mut why = worse.join("\n  ");
    if baseline.rustc != rustc()? {
        why +=
            &format!("\n  the baseline is of {}, this is {}: the compiler may be the reason", baseline.rustc, rustc()?);
    }
    Err(format!(
        "{why}\n  where that is meant or the compiler's doing: cargo bench --profile dev --bench instructions -- --update"
    ))
}

fn update() -> Result<(), String> {
    let baseline = Baseline { rustc: rustc()?, instructions: count_all()? };
    let text = serde_json::to_string_pretty(&baseline).expect("a baseline is names and numbers");
    println!("{text}");
    std::fs::write(file(), text + "\n").map_err(|error| format!("{}: {error}", file().display()))
}

fn count_all() -> Result<BTreeMap<String, u64>, String> {
    let mut counts = BTreeMap::new();
    for case in cases::CASES {
        counts.insert(case.name.to_owned(), count(case.name, CALLS)?);
    }
    for (plugin, config) in PLUGINS {
        counts.insert(format!("call the plugin {plugin}, its own code"), count_plugin(plugin, config)?);
    }
    Ok(counts)
}

/// Instructions of one call, if so many calls were [`CALLS`].
fn count(name: &str, calls: u64) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
    command.arg("--toggle-collect=*counted_calls*").arg(own);
    command.args(["--step", name, &calls.to_string()]);
    let ended = command.output().map_err(|error| format!("valgrind, which counts, can't be run: {error}"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    let collected = collected.filter(|collected| ended.status.success() && *collected > 0);
    collected.map(|collected| collected / CALLS).ok_or_else(|| format!("`{name}` under valgrind: {said}"))
}

/// WebAssembly instructions of one call.
fn count_plugin(plugin: &str, config: &str) -> Result<u64, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let spec = PluginSpec::new(plugin, root().join(format!("plugins/{plugin}.wasm")));
    runtime.block_on(async {
        let settings = Sandbox { threads: 1, cache: None };
        let host = PluginHost::start_counting(&settings, Metrics::default()).map_err(|error| error.to_string())?;
        let plugin = host.load(&spec).await.map_err(|error| error.to_string())?;
        let report = host.call_once(&plugin, config, Arc::new(cases::event(1)), "bench").await;
        report.verdict.map_err(|fault| format!("`{}`: {}", spec.name, fault.detail))?;
        report.instructions.ok_or_else(|| "the sandbox did not count".to_owned())
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn change(before: u64, now: u64) -> f64 {
    now as f64 / before as f64 - 1.0
}

fn rustc() -> Result<String, String> {
    let said = Command::new("rustc").arg("--version").output().map_err(|error| format!("rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn file() -> PathBuf {
    root().join("benches/instructions.json")
}
