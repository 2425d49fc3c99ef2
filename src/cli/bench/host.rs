//! One call of a plugin: the sandbox's own time, beside the same component in a bare wasmtime loop in the same run.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::load;
use crate::cli::plugin::sandbox;
use crate::cli::{Error, runtime};
use crate::config::PluginSpec;
use crate::plugin::{Fault, Load, Measurement, fixture};

/// What is called: what it stands for, the shipped plugin, its config.
const CALLS: [(&str, &str, &str); 3] = [
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
}

/// Calls the plugins of a folder with an event of this size. Blocks.
pub fn measure(plugins: &Path, size: usize, duration: Duration) -> Result<Vec<Call>, Error> {
    let envelope = load::envelope(size, 1, None);
    let event = fixture::event(&envelope).map_err(Error::Failed)?;
    let host = runtime()?.block_on(async { sandbox::start(sandbox::Counting::Off) })?;
    let mut calls = Vec::new();
    for (name, plugin, config) in CALLS {
        let spec = PluginSpec::new(plugin, plugins.join(format!("{plugin}.wasm")));
        let plugin = runtime()?.block_on(sandbox::load(&host, &spec))?;
        let failed = |fault: Fault| Error::Failed(format!("`{name}`: {}: {}", fault.kind.as_str(), fault.detail));
        let load = |threads| Load { config: config.into(), event: event.clone(), threads, duration: duration / ROUNDS };
        let (mut one, mut two, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            one.push(host.measure(&plugin, &load(1)).map_err(failed)?);
            bare.push(host.measure_bare(&plugin, &load(1)).map_err(failed)?);
            two.push(host.measure(&plugin, &load(2)).map_err(failed)?);
        }
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let least = |runs: &[Measurement]| *runs.iter().min_by_key(|run| run.whole.median).expect("there are rounds");
        let most = |runs: &[Measurement]| runs.iter().map(per_second).fold(0.0, f64::max);
        let (best, best_bare) = (least(&one), least(&bare));
        let (median, bare_median) = (micros(best.whole.median), micros(best_bare.whole.median));
        calls.push(Call {
            name,
            median_micros: median,
            p99_micros: micros(best.whole.p99),
            bare_median_micros: bare_median,
            over_bare: median / bare_median - 1.0,
            two_threads: most(&two) / most(&one),
        });
    }
    Ok(calls)
}

fn per_second(measured: &Measurement) -> f64 {
    measured.calls as f64 / measured.elapsed.as_secs_f64()
}
