//! Everything that can be wrong with a config, looked for as `serve` does it, and nothing run: no store, no network.

use super::identities::Identities;
use super::{Error, load};
use crate::config::{Config, Fault};
use crate::dispatch::Snapshot;
use crate::metrics::Metrics;
use crate::plugin::{Compiler, PluginHost};

/// Loads the config as a generation that nothing is walked by. Gives what is worth telling.
pub async fn check(config: &Config, compiler: Compiler) -> Result<Vec<Fault>, Error> {
    let host = PluginHost::start_with(&config.sandbox, compiler, Metrics::default())?;
    let loaded = load::load(config, &host, &Snapshot::default()).await?;
    Identities::load(config)?;
    Ok(loaded.warnings)
}
