//! Everything that can be wrong with a config, looked for as `serve` does it, and nothing run: no store, no network.

use super::identities::{self, Identities};
use super::load::Loaded;
use super::{Error, load};
use crate::clock::Clock;
use crate::config::{Config, Description, Draft, Errors, Fault};
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
    let loaded = match (load::load(config, &host, &Snapshot::default()).await, Identities::faults(config)) {
        (Ok(loaded), faults) if faults.is_empty() => loaded,
        (Ok(Loaded { warnings, .. }), faults) => return Err(Errors { faults, warnings }.into()),
        (Err(mut errors), faults) => {
            errors.faults.extend(faults);
            return Err(errors.into());
        }
    };
    let mut warnings = loaded.warnings;
    warnings.extend(identities::doubts(config, Clock::system().now()));
    Ok(Checked { description: loaded.description, warnings })
}

/// The config of a draft; the error has all that is wrong, also what the reader's own faults do not keep from being found.
pub async fn finish(draft: Draft, compiler: Compiler) -> Result<Config, Error> {
    let host = PluginHost::start_with(&draft.config().sandbox, compiler, Metrics::default())?;
    Ok(load::finish(draft, &host).await?)
}
