//! Everything that can be wrong with a config, looked for as `serve` does it, and nothing run: no store, no network.

use super::identities::{self, Identities};
use super::{Error, load};
use crate::clock::Clock;
use crate::config::{Config, Description, Fault};
use crate::dispatch::Snapshot;
use crate::metrics::Metrics;
use crate::plugin::{Compiler, PluginHost};

/// A config in which nothing is wrong.
pub struct Checked {
    /// What it says, and which components its plugins are.
    pub description: Description,
    /// What is worth telling.
    pub warnings: Vec<Fault>,
}

/// Loads the config as a generation that nothing is walked by.
pub async fn check(config: &Config, compiler: Compiler) -> Result<Checked, Error> {
    let host = PluginHost::start_with(&config.sandbox, compiler, Metrics::default())?;
    let loaded = load::load(config, &host, &Snapshot::default()).await?;
    Identities::load(config)?;
    let mut warnings = loaded.warnings;
    warnings.extend(identities::doubts(config, Clock::system().now()));
    Ok(Checked { description: loaded.description, warnings })
}
