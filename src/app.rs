//! Wires the stages together; the only file that knows every one of them.
//!
//! `Router::start` opens, loads, binds and begins; `Router::run` keeps house until it is told to stop, then lets what is in flight finish.

mod check; // Everything that can be wrong with a config, without running it.
mod identities; // The listeners' certificates.
mod lint; // What a config may say and probably does not mean.
mod load; // A config as one generation that events can be walked by.
mod online; // What only others can tell of a config.
mod reload; // Another generation in place of this one, or none.
mod stores; // The store that a config names.
mod watch; // Has the config read anew when its files have changed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
pub use check::{Checked, check, finish};
use identities::Identities;
pub use online::online;
pub use reload::{Reloader, Status};
pub use stores::open_store;
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use watch::look;

use crate::accept;
use crate::admin;
use crate::clock::Clock;
use crate::config::{self, Config, Description};
use crate::dispatch::{Dispatcher, Limits, Snapshot, Transport};
use crate::metrics::Metrics;
use crate::plugin::{Compiler, PluginHost};
use crate::send::Sender;
use crate::store::{self, Store};

/// How often the store's figures are read: for `/metrics`, readiness and back-pressure.
const STATS_EVERY: Duration = Duration::from_secs(1);

/// How often the marks on endpoints are read: another router may have set or lifted one.
const MARKS_EVERY: Duration = Duration::from_secs(2);

/// How often what is settled and old is removed.
const TRIM_EVERY: Duration = Duration::from_secs(30);

/// How many steps of removal are made at a time.
const TRIM_STEPS_MAX: usize = 100;

/// Why the router can't start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error("store: {0}")]
    Store(#[from] store::Error),
    /// The ingest listener.
    #[error("ingest: {0}")]
    Accept(#[from] accept::Error),
    /// The admin listener.
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// The client.
    #[error("delivery: {0}")]
    Send(#[from] crate::send::Error),
    /// The sandbox, or a plugin.
    #[error("plugin: {0}")]
    Plugin(#[from] crate::plugin::Error),
    /// What is wrong with the routes, the plugins, their configs.
    #[error("{0}")]
    Invalid(#[from] config::Errors),
}

/// A running router.
pub struct Router {
    ingest_address: SocketAddr,
    admin_address: SocketAddr,
    store: Arc<dyn Store>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    intake: Arc<accept::Intake>,
    reloader: Arc<Reloader>,
    dispatcher: Arc<Dispatcher>,
    metrics: Metrics,
    backlog_events_max: u64,
    shutdown_grace: Duration,
    accepting: (channel::Sender<bool>, JoinHandle<()>),
    administering: (CancellationToken, JoinHandle<()>),
    dispatching: (CancellationToken, JoinHandle<bool>),
}

impl Router {
    /// Opens the store, loads the plugins, binds the listeners and begins. `path` is where `config` came from, and where a reload reads it again.
    pub async fn start(path: &Path, config: &Config, compiler: Compiler, clock: Clock) -> Result<Self, Error> {
        let metrics = Metrics::default();
        let plugins = Arc::new(PluginHost::start_with(&config.sandbox, compiler, metrics.clone())?);
        // Before anything is read again: a change from here on is one.
        let seen = look(path, &config.plugins.iter().map(|plugin| plugin.path.clone()).collect::<Vec<_>>());
        let load::Loaded { snapshot, description, warnings } =
            load::load(config, &plugins, &Snapshot::default()).await?;
        for warning in warnings.iter().chain(&identities::doubts(config, clock.now())) {
            tracing::warn!("{}", warning.line());
        }
        let sender = Arc::new(Sender::new(&config.delivery, metrics.clone(), clock)?);
        let identities = Identities::load(config)?;
        let ingest = accept::Listener::bind(&config.ingest, identities.ingest.clone())?;
        let admin = admin::Listener::bind(&config.admin, identities.admin.clone()).await?;
        // Last, so that nothing is claimed by a process that can't start.
        let store = open_store(config, clock).await?;
        // Before the first attempt: what was paused stays paused.
        snapshot.apply_marks(&store.endpoint_marks().await?);
        store.remember_sources(&source_names(config)).await?;
        let router = Self::begin(
            path,
            config,
            description,
            clock,
            metrics,
            snapshot,
            plugins,
            sender,
            identities,
            ingest,
            admin,
            store,
        );
        if config.admin.watch {
            let stop = router.dispatching.0.clone();
            tokio::spawn(watch::watch(Arc::clone(&router.reloader), seen, stop));
        }
        Ok(router)
    }

    #[expect(clippy::too_many_arguments, reason = "these are the stages; only this function joins them")]
    fn begin(
        path: &Path,
        config: &Config,
        description: Description,
        clock: Clock,
        metrics: Metrics,
        snapshot: Snapshot,
        plugins: Arc<PluginHost>,
        sender: Arc<Sender>,
        identities: Identities,
        ingest: accept::Listener,
        admin: admin::Listener,
        store: Arc<dyn Store>,
    ) -> Self {
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        let limits = Limits {
            events_in_flight_max: config.delivery.events_in_flight_max,
            attempts_in_flight_max: config.delivery.attempts_in_flight_max,
        };
        let dispatcher = Arc::new(Dispatcher::new(
            Arc::clone(&store),
            Arc::clone(&snapshot),
            Arc::clone(&sender) as Arc<dyn Transport>,
            Arc::clone(&plugins),
            limits,
            clock,
            metrics.clone(),
        ));
        let (ingest_address, admin_address) = (ingest.local_addr(), admin.local_addr());
        let grace = config.delivery.shutdown_grace;

        let (stop_accepting, accepting_stopped) = channel::channel(false);
        let intake =
            Arc::new(accept::Intake::new(&config.ingest, &config.sources, Arc::clone(&store), metrics.clone(), clock));
        let accepting = tokio::spawn(ingest.serve(Arc::clone(&intake), accepting_stopped, grace));

        let reloader = Arc::new(Reloader::new(
            path,
            config,
            description,
            Arc::clone(&plugins),
            Arc::clone(&snapshot),
            Arc::clone(&intake),
            Arc::clone(&store),
            sender,
            identities,
            clock,
        ));

        let stop_administering = CancellationToken::new();
        let state = Arc::new(admin::State {
            metrics: metrics.clone(),
            not_ready: {
                let intake = Arc::clone(&intake);
                Box::new(move || intake.gate().closure().map(not_ready))
            },
            clock,
            store: Arc::clone(&store),
            snapshot: Arc::clone(&snapshot),
            tokens: config.admin.tokens.clone(),
            reload: {
                let reloader = Arc::clone(&reloader);
                Box::new(move |who| {
                    let reloader = Arc::clone(&reloader);
                    Box::pin(async move {
                        let reloaded = reloader.reload(&who).await;
                        reloaded.map(|status| json(&status)).map_err(|refused| admin::Refused {
                            detail: refused.sentence(),
                            status: json(&refused.status),
                            faults: refused.errors.faults,
                        })
                    })
                })
            },
            config_status: {
                let reloader = Arc::clone(&reloader);
                Box::new(move || json(&reloader.status()))
            },
            compare: {
                let reloader = Arc::clone(&reloader);
                Box::new(move |prints| reloader.compare(prints))
            },
            plugins,
            read_event: {
                let intake = Arc::clone(&intake);
                Box::new(move |text, source, now| intake.read_event(text, source, now))
            },
            schedule_changed: {
                let dispatcher = Arc::clone(&dispatcher);
                Box::new(move || dispatcher.schedule_changed())
            },
        });
        let administering = tokio::spawn(admin.serve(state, stop_administering.clone()));

        let stop_dispatching = CancellationToken::new();
        let dispatching = tokio::spawn({
            let (dispatcher, stop) = (Arc::clone(&dispatcher), stop_dispatching.clone());
            async move { dispatcher.run(stop, grace).await }
        });
        Self {
            ingest_address,
            admin_address,
            store,
            snapshot,
            intake,
            reloader,
            dispatcher,
            metrics,
            backlog_events_max: config.ingest.backlog_events_max,
            shutdown_grace: grace,
            accepting: (stop_accepting, accepting),
            administering: (stop_administering, administering),
            dispatching: (stop_dispatching, dispatching),
        }
    }

    /// Where producers POST.
    pub fn ingest_address(&self) -> SocketAddr {
        self.ingest_address
    }

    /// Where the operator looks.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The store, for reading what became of events.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What reads the config anew.
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// Keeps house until `stop`, then stops: no new events, what is in flight finishes, the rest is handed back.
    ///
    /// An error means that the store can't go on; the router stops all the same.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            error = self.keep_house() => Err(error),
        };
        self.intake.gate().set(accept::Closure::Draining, true);
        tracing::info!("stopping: no new events; what is in flight has {:?} to finish", self.shutdown_grace);
        let (accepting, dispatching) = (self.accepting, self.dispatching);
        accepting.0.send_replace(true);
        dispatching.0.cancel();
        let (accepted, dispatched) = tokio::join!(accepting.1, dispatching.1);
        if let Err(error) = accepted {
            tracing::error!(%error, "the ingest listener ended badly");
        }
        match dispatched {
            Ok(true) => tracing::info!("stopped: everything in flight has finished"),
            Ok(false) => tracing::warn!("stopped: what did not finish in time is handed back"),
            Err(error) => tracing::error!(%error, "the dispatcher ended badly"),
        }
        let closed = self.store.close().await;
        self.administering.0.cancel();
        if let Err(error) = self.administering.1.await {
            tracing::error!(%error, "the admin listener ended badly");
        }
        ended.and(closed.map_err(Error::Store))
    }

    /// Reads figures and marks, and removes what is old. Returns only when the store can't go on.
    async fn keep_house(&self) -> Error {
        let mut stats = tokio::time::interval(STATS_EVERY);
        let mut marks = tokio::time::interval(MARKS_EVERY);
        let mut trim = tokio::time::interval(TRIM_EVERY);
        for interval in [&mut stats, &mut marks, &mut trim] {
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        loop {
            let done = tokio::select! {
                _ = stats.tick() => self.read_stats().await,
                _ = marks.tick() => self.read_marks().await,
                _ = trim.tick() => self.trim().await,
            };
            match done {
                Ok(()) => {}
                Err(error @ (store::Error::Unusable(_) | store::Error::Closed)) => {
                    tracing::error!(%error, "the store can't go on");
                    return error.into();
                }
                Err(error) => tracing::warn!(%error, "the store did not answer"),
            }
        }
    }

    async fn read_stats(&self) -> Result<(), store::Error> {
        let stats = self.store.stats().await;
        let gate = self.intake.gate();
        gate.set(accept::Closure::StoreAway, stats.is_err());
        let stats = stats?;
        self.metrics.store(&stats);
        // What waits in the schedule takes as much room as what was never claimed.
        let was_short = gate.is_shut_for(accept::Closure::StoreShort);
        let is_short = stats.memory.is_short(was_short);
        if is_short && !was_short {
            let store::Memory { used_bytes, bytes_max } = stats.memory;
            tracing::warn!(
                used_bytes,
                bytes_max,
                "the store's memory is nearly full: no events are taken until there is room"
            );
        }
        gate.set(accept::Closure::StoreShort, is_short);
        gate.set(accept::Closure::Backlog, stats.backlog + stats.scheduled > self.backlog_events_max);
        Ok(())
    }

    async fn read_marks(&self) -> Result<(), store::Error> {
        let marks = self.store.endpoint_marks().await?;
        let snapshot = self.snapshot.load_full();
        for endpoint in snapshot.apply_marks(&marks) {
            // Another router released it, and this one may have parked what was due since.
            store::hasten_all(&*self.store, &snapshot.subscriptions_of(&endpoint)).await?;
            self.dispatcher.schedule_changed();
        }
        Ok(())
    }

    async fn trim(&self) -> Result<(), store::Error> {
        for _ in 0..TRIM_STEPS_MAX {
            if self.store.trim().await? == 0 {
                break;
            }
        }
        Ok(())
    }
}

fn json(status: &reload::Status) -> serde_json::Value {
    serde_json::to_value(status).expect("a status has string keys only")
}

/// The names of the sources, by which events are looked up later.
fn source_names(config: &Config) -> Vec<Arc<str>> {
    config.sources.iter().map(|source| Arc::clone(&source.name)).collect()
}

/// What `/readyz` says of a shut gate.
fn not_ready(closure: accept::Closure) -> String {
    match closure {
        accept::Closure::Backlog => "what waits is over `ingest.backlog_events_max`",
        accept::Closure::StoreShort => "the store's memory is nearly full",
        accept::Closure::StoreAway => "the store does not answer or can't take events; the log has more",
        accept::Closure::Draining => "stopping",
    }
    .to_owned()
}

/// A config as one generation, for what asks without a router.
pub async fn generation(config: &Config, plugins: &PluginHost) -> Result<Snapshot, Error> {
    Ok(load::load(config, plugins, &Snapshot::default()).await?.snapshot)
}
