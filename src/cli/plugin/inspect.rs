//! `branchline plugin inspect`: what a component is, what it needs, what it was built with, and whether a router would
//! take it. It refuses what `serve` would refuse, with the same words.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;

use super::sandbox::{self, Counting, Limits};
use super::{place, print_json, units};
use crate::cli::{Error, runtime};
use crate::plugin;

/// What `branchline plugin inspect` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// A component, or a plugin's folder.
    #[arg(default_value = ".")]
    plugin: PathBuf,
    #[command(flatten)]
    limits: Limits,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Inspects a file.
pub fn run(options: &Options) -> Result<(), Error> {
    let file = place::component(&options.plugin)?;
    let spec = options.limits.spec(&file);
    let started = Instant::now();
    let plugin = runtime()?.block_on(async {
        let host = sandbox::start(Counting::Off)?;
        sandbox::load(&host, &spec).await
    })?;
    let load_time = started.elapsed();
    // It was read a moment ago and accepted, so it is a regular file within the limit.
    let bytes =
        std::fs::read(&file).map_err(|error| Error::Failed(format!("can't read `{}`: {error}", file.display())))?;
    let found = plugin::inspect(&bytes).map_err(|refusal| Error::Failed(refusal.to_string()))?;
    let memory = usize::try_from(plugin.initial_memory_bytes()).unwrap_or(usize::MAX);
    let world = found.world.as_deref().unwrap_or("none");
    if options.json {
        print_json(&json!({
            "file": file,
            "accepted": true,
            "world": found.world,
            "imports": found.imports,
            "exports": found.exports,
            "bytes": bytes.len(),
            "initialMemoryBytes": memory,
            "sha256": plugin.sha256(),
            "producers": found.producers,
        }));
        return Ok(());
    }
    outln!("{}", file.display());
    let list = |name: &str, lines: &[String]| {
        for (index, line) in lines.iter().enumerate() {
            outln!("  {:<10} {line}", if index == 0 { name } else { "" });
        }
    };
    outln!("  {:<10} {world}", "world");
    list("imports", &found.imports);
    list("exports", &found.exports);
    outln!("  {:<10} {} bytes ({})", "size", units::count(bytes.len() as u64), units::bytes(bytes.len()));
    outln!("  {:<10} {} at the start, of {}", "memory", units::bytes(memory), units::bytes(spec.memory_bytes_max));
    outln!("  {:<10} {}", "sha256", plugin.sha256());
    list("toolchain", &found.producers);
    outln!("  a router takes it (loaded in {})", units::time(load_time));
    Ok(())
}
