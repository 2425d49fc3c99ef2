//! One call of a plugin: the sandbox's own time, beside the same component in a bare wasmtime loop in the same run; and what
//! two threads make, beside what the machine gives to two processes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::caller::Caller;
use super::load;
use crate::cli::plugin::sandbox;
use crate::cli::{Error, runtime};
use crate::config::PluginSpec;
use crate::event::Event;
use crate::plugin::{Fault, Load, Measurement, Plugin, PluginHost, fixture};

/// What is called: what it stands for, the shipped plugin, its config.
pub const CALLS: [(&str, &str, &str); 3] = [
    ("pass, by the event's id (sample)", "sample", r#"{"share":1}"#),
    ("filter, by a field of its JSON (sample)", "sample", r#"{"share":1,"by":"/customer"}"#),
    ("transform (slack)", "slack", r##"{"channel":"#bench"}"##),
];
/// Rounds; the one with the least time counts, since nothing makes a call faster than it is.
const ROUNDS: u32 = 5;

/// A plugin's figures.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    pub name: &'static str,
    pub median_micros: f64,
    pub p99_micros: f64,
    pub bare_median_micros: f64,
    /// Over the bare loop, as a share: 0.1 is a tenth.
    pub over_bare: f64,
    /// Calls per second of two threads, over those of one.
    pub two_threads: f64,
    /// Calls per second of two processes with a thread each, over those of one: what the machine gives.
    pub two_processes: f64,
}

/// What is called, and with an event of which size.
pub struct Calls<'a> {
    pub plugins: &'a Path,
    pub size: usize,
}

impl Calls<'_> {
    /// A sandbox with one of the plugins.
    pub fn load(&self, plugin: &str, config: &str) -> Result<Callee, Error> {
        let event = fixture::event(&load::envelope(self.size, 1, None)).map_err(Error::Failed)?;
        let spec = PluginSpec::new(plugin, self.plugins.join(format!("{plugin}.wasm")));
        let (host, plugin) = runtime()?.block_on(async {
            let host = sandbox::start(sandbox::Counting::Off)?;
            let plugin = sandbox::load(&host, &spec).await?;
            Ok::<_, Error>((host, plugin))
        })?;
        Ok(Callee { host, plugin, config: config.into(), event })
    }

    /// Calls all of them. Blocks.
    pub fn measure(&self, duration: Duration) -> Result<Vec<Call>, Error> {
        CALLS.iter().enumerate().map(|(call, _)| self.measure_one(call, duration / ROUNDS)).collect()
    }

    fn measure_one(&self, call: usize, duration: Duration) -> Result<Call, Error> {
        let (name, plugin, config) = CALLS[call];
        let callee = self.load(plugin, config)?;
        let mut callers = [Caller::start(self, call, duration)?, Caller::start(self, call, duration)?];
        let (mut one, mut two, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        let (mut one_process, mut two_processes) = (0.0, 0.0);
        for _ in 0..ROUNDS {
            one.push(callee.measure(1, duration)?);
            bare.push(callee.measure_bare(duration)?);
            two.push(callee.measure(2, duration)?);
            one_process = Caller::together(&mut callers[..1])?.max(one_process);
            two_processes = Caller::together(&mut callers)?.max(two_processes);
        }
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let least = |runs: &[Measurement]| *runs.iter().min_by_key(|run| run.whole.median).expect("there are rounds");
        let most = |runs: &[Measurement]| runs.iter().map(Measurement::per_second).fold(0.0, f64::max);
        let (best, best_bare) = (least(&one), least(&bare));
        let (median, bare_median) = (micros(best.whole.median), micros(best_bare.whole.median));
        Ok(Call {
            name,
            median_micros: median,
            p99_micros: micros(best.whole.p99),
            bare_median_micros: bare_median,
            over_bare: median / bare_median - 1.0,
            two_threads: most(&two) / most(&one),
            two_processes: two_processes / one_process,
        })
    }
}

/// A plugin in a sandbox of its own, to be called with one event.
pub struct Callee {
    host: PluginHost,
    plugin: Arc<Plugin>,
    config: Arc<str>,
    event: Arc<Event>,
}

impl Callee {
    /// Calls as the router makes them.
    pub fn measure(&self, threads: usize, duration: Duration) -> Result<Measurement, Error> {
        self.host.measure(&self.plugin, &self.calls(threads, duration)).map_err(|fault| self.failed(&fault))
    }

    fn measure_bare(&self, duration: Duration) -> Result<Measurement, Error> {
        self.host.measure_bare(&self.plugin, &self.calls(1, duration)).map_err(|fault| self.failed(&fault))
    }

    fn calls(&self, threads: usize, duration: Duration) -> Load {
        Load { config: Arc::clone(&self.config), event: Arc::clone(&self.event), threads, duration }
    }

    fn failed(&self, fault: &Fault) -> Error {
        Error::Failed(format!("`{}`: {}: {}", self.plugin.name(), fault.kind.as_str(), fault.detail))
    }
}
