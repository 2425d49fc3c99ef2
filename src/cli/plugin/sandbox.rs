//! The router's sandbox at the terminal: the same engine, limits and checks as in `serve`, with its compiled plugins in
//! the same cache, so that what was tried here starts at once there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::units;
use crate::cli::Error;
use crate::config::{PluginSpec, Sandbox, user_cache};
use crate::metrics::Metrics;
use crate::plugin::{Plugin, PluginHost};

/// Threads of the sandbox; `bench` calls on as many.
pub const THREADS: usize = 2;

/// The limits of a plugin's table in the config.
#[derive(clap::Args)]
pub struct Limits {
    /// The bound on one call [default: 50ms, as in the config]
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    deadline: Option<Duration>,
    /// The bound on a call's memory [default: 16MiB, as in the config]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    memory_bytes_max: Option<usize>,
    /// The bound on what a call returns [default: 1MiB, as in the config]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    output_bytes_max: Option<usize>,
}

impl Limits {
    /// The plugin at `path`, with these limits.
    pub fn spec(&self, path: &Path) -> PluginSpec {
        let name = path.file_stem().map_or("plugin".into(), |name| name.to_string_lossy());
        let mut spec = PluginSpec::new(&name, path.to_owned());
        spec.deadline = self.deadline.unwrap_or(spec.deadline);
        spec.memory_bytes_max = self.memory_bytes_max.unwrap_or(spec.memory_bytes_max);
        spec.output_bytes_max = self.output_bytes_max.unwrap_or(spec.output_bytes_max);
        spec
    }
}

/// Whether the sandbox counts instructions, which makes calls slower.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    Off,
    Instructions,
}

/// Starts the sandbox.
pub fn start(counting: Counting) -> Result<PluginHost, Error> {
    let settings = Sandbox { threads: THREADS, cache: user_cache(|name| std::env::var_os(name)) };
    let started = match counting {
        Counting::Off => PluginHost::start(&settings, Metrics::default()),
        Counting::Instructions => PluginHost::start_counting(&settings, Metrics::default()),
    };
    started.map_err(|error| Error::Failed(error.to_string()))
}

/// Loads a plugin as `serve` does.
pub async fn load(host: &PluginHost, spec: &PluginSpec) -> Result<Arc<Plugin>, Error> {
    host.load(spec).await.map_err(|error| Error::Failed(error.to_string()))
}
