//! `branchline serve`: the router, until SIGTERM or SIGINT. A second signal ends it at once.

use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::signals::stop_on_signal;
use super::{Error, compiler, logging, runtime};
use crate::app::{self, Reloader, Router};
use crate::clock::Clock;
use crate::config::{Draft, Environment};

/// Runs the router.
pub fn run(path: &Path) -> Result<(), Error> {
    let draft = Draft::read(path, &Environment::of_process())?;
    let runtime = runtime()?;
    let config = runtime.block_on(app::finish(draft, compiler()?))?;
    let _logs = logging::start(&config.log)?;
    let stop = stop_on_signal()?;
    runtime.block_on(async move {
        let router = Router::start(path, &config, compiler()?, Clock::system()).await?;
        reload_on_hangup(Arc::clone(router.reloader()))?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            ingest = %router.ingest_address(),
            admin = %router.admin_address(),
            sources = config.sources.len(),
            routes = config.routes.len(),
            plugins = config.plugins.len(),
            "ready"
        );
        // Where each of its keys stands is several times what the router keeps of it.
        drop(config);
        router.run(stop).await.map_err(Error::from)
    })
}

/// SIGHUP reads the config anew. What comes of it is logged; a bad config never replaces a good one.
fn reload_on_hangup(reloader: Arc<Reloader>) -> Result<(), Error> {
    let mut hangup =
        signal(SignalKind::hangup()).map_err(|error| Error::Failed(format!("signals can't be received: {error}")))?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // Both ends are logged by the reloader.
            let _ = reloader.reload("SIGHUP").await;
        }
    });
    Ok(())
}
