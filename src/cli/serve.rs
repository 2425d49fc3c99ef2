//! `branchline serve`: the router, until SIGTERM or SIGINT. A second signal ends it at once.

use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Error, compiler, logging, runtime};
use crate::app::{Reloader, Router};
use crate::clock::Clock;
use crate::config::Config;

/// The exit code after a second signal: what was in flight is taken up again later.
const EXIT_INTERRUPTED: i32 = 130;

/// Runs the router.
pub fn run(path: &Path) -> Result<(), Error> {
    let config = Config::load(path)?;
    let _logs = logging::start(&config.log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    runtime()?.block_on(async {
        let stop = stop_on_signal()?;
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
            let _ = reloader.reload().await;
        }
    });
    Ok(())
}

/// A token that is cancelled by the first signal; the second ends the process.
pub(super) fn stop_on_signal() -> Result<CancellationToken, Error> {
    let listen = |kind| signal(kind).map_err(|error| Error::Failed(format!("signals can't be received: {error}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let mut signals = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            signals += 1;
            if signals == 2 {
                std::process::exit(EXIT_INTERRUPTED);
            }
            stopped.cancel();
        }
    });
    Ok(stop)
}
