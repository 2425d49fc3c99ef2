//! The sandbox as the other stages see it: load a plugin, check a config, run a chain.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Error;
use super::cache::{Cache, CacheCounts};
use super::call::Report;
use super::compiler::Compiler;
use super::engine::{self, Metering, Ticker, this_thread};
use super::engines::Engines;
use super::error::Refusal;
use super::imports::{Standing, Subject};
use super::lanes::LaneId;
use super::load::{self, Loaded};
use super::log::LogBudget;
use super::scheduler::{ChainJob, Job, Scheduler};
use crate::breaker::Breaker;
use crate::config::{PluginSpec, Sandbox};
use crate::delivery::{PluginFaultKind, PluginNote, Request};
use crate::event::Event;
use crate::metrics::Metrics;
use crate::route::{OnError, PluginMode, PluginUse};

/// How many digits of a component's SHA-256 an outcome keeps: enough to tell any two plugins of an operator apart.
const LABEL_DIGITS: usize = 12;
/// Threads that have a standing of their own in each chain; of more some share one.
const STANDINGS_MAX: usize = 16;

/// A plugin that was loaded and may be called.
pub struct Plugin {
    pub(super) name: Arc<str>,
    pub(super) loaded: Arc<Loaded>,
    pub(super) lane: LaneId,
    pub(super) deadline: Duration,
    pub(super) memory_bytes_max: usize,
    pub(super) output_bytes_max: usize,
    pub(super) log_budget: LogBudget,
    pub(super) metering: Metering,
    digest: [u8; 32],
    scheduler: Arc<Scheduler>,
}

impl Plugin {
    /// The name in the config.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The SHA-256 of the component, in hex.
    pub fn sha256(&self) -> String {
        load::hex(&self.digest)
    }

    /// Bytes of memory that an instance has before it has run.
    pub fn initial_memory_bytes(&self) -> u64 {
        self.loaded.initial_memory_bytes
    }

    /// Whether it exports `validate-config`.
    pub fn validates_config(&self) -> bool {
        self.loaded.validate_config.is_some()
    }

    /// Asks the plugin whether it accepts `config` (JSON text). A plugin that does not check accepts everything.
    /// The error is a sentence for the operator.
    pub async fn validate_config(self: &Arc<Self>, config: &str) -> Result<(), String> {
        if !self.validates_config() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.scheduler.push(Job::Config { plugin: Arc::clone(self), config: config.into(), reply });
        answer.await.unwrap_or_else(|_| Err("the sandbox is shutting down".to_owned()))
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).field("sha256", &self.sha256()).finish_non_exhaustive()
    }
}

/// A plugin in a chain, with how the subscription uses it.
#[derive(Clone)]
pub struct Link {
    pub(super) plugin: Arc<Plugin>,
    pub(super) config: Arc<str>,
    pub(super) mode: PluginMode,
    pub(super) on_error: OnError,
    /// None: it is called however often it breaks.
    pub(super) breaker: Option<Arc<Breaker>>,
}

/// Without the config: there may be secrets in it.
impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("plugin", &self.plugin).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Link {
    /// A plugin by itself, for tools: applied, and called however often it breaks.
    pub fn new(plugin: &Arc<Plugin>, config: impl Into<Arc<str>>) -> Self {
        let (mode, on_error) = (PluginMode::default(), OnError::default());
        Self { plugin: Arc::clone(plugin), config: config.into(), mode, on_error, breaker: None }
    }
}

/// What a chain came to.
#[derive(Debug)]
pub struct ChainRun {
    /// Its end.
    pub end: ChainEnd,
    /// What plugins did that was not applied: those in shadow mode, and faults that were passed through.
    pub notes: Vec<PluginNote>,
}

/// The plugins of a subscription, in order. Built once for each subscription and shared by its deliveries.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    pub(super) links: Box<[Link]>,
    /// Where each link stands, in order; for each of the sandbox's threads, up to [`STANDINGS_MAX`].
    standings: Box<[Arc<Standing>]>,
}

impl Chain {
    /// A subscription's chain of these plugins, for calls on one thread at a time; on more they get in each other's way.
    pub fn new(subscription: &Arc<str>, links: impl Into<Box<[Link]>>) -> Self {
        Self::for_threads(subscription, links.into(), 1)
    }

    fn for_threads(subscription: &Arc<str>, links: Box<[Link]>, threads: usize) -> Self {
        let of_one =
            || links.iter().enumerate().map(|(position, link)| Standing::new(subscription, position, &link.config));
        let standings = (0..threads).flat_map(|_| of_one()).collect();
        Self { links, standings }
    }

    /// Where a link stands, for this thread.
    pub(super) fn standing(&self, position: usize) -> &Arc<Standing> {
        let threads = self.standings.len() / self.links.len();
        &self.standings[this_thread() % threads * self.links.len() + position]
    }

    /// Whether there is no plugin in it.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// The same plugins, called however often they break: a breaker counts what all events do to a plugin, and a rehearsal has one
    /// event. Its time is the machine's, too, and a rehearsal's is not.
    pub fn without_breakers(&self) -> Self {
        let links = self.links.iter().map(|link| Link { breaker: None, ..link.clone() }).collect();
        Self { links, standings: self.standings.clone() }
    }

    /// Each plugin's name, `@`, and the first digits of its component's SHA-256: what outcomes keep of a run.
    pub fn labels(&self) -> Vec<String> {
        let label = |link: &Link| format!("{}@{}", link.plugin.name, &link.plugin.sha256()[..LABEL_DIGITS]);
        self.links.iter().map(label).collect()
    }
}

/// What a chain made of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainEnd {
    /// Deliver this event.
    Event {
        /// The event as the last plugin left it; the same `Arc` as before when none changed it.
        event: Arc<Event>,
        /// Whether a plugin changed it.
        changed: bool,
    },
    /// Send exactly this.
    Send(Request),
    /// Do not deliver.
    Dropped {
        /// The plugin that said so.
        plugin: Arc<str>,
        /// Its reason.
        reason: String,
    },
    /// Give up now.
    DeadLetter {
        /// The plugin that said so.
        plugin: Arc<str>,
        /// Its reason.
        reason: String,
    },
    /// A plugin failed.
    Fault {
        /// The plugin that failed.
        plugin: Arc<str>,
        /// How.
        kind: PluginFaultKind,
        /// A sentence for people; no payload, no secret.
        detail: String,
        /// Whether a later attempt may succeed.
        retryable: bool,
    },
    /// Nothing ran, or not all of it: a plugin has more to do than its share. Not the event's fault; try again later.
    Busy,
    /// The plugin keeps breaking: its breaker is open. Nothing was run; come back after this long.
    Open {
        /// The plugin's name.
        plugin: Arc<str>,
        /// The wait.
        after: Duration,
    },
}

/// The sandbox. Dropping it ends its threads.
pub struct PluginHost {
    shared: Arc<Shared>,
    scheduler: Arc<Scheduler>,
    threads: usize,
    /// One file is compiled at a time: the compiler itself uses every core, and the second of two equal files is found loaded.
    loading: tokio::sync::Mutex<()>,
    breakers: Mutex<HashMap<BreakerKey, Weak<Breaker>>>,
}

/// Faults in a row that open a plugin's breaker. Fewer would let one unlucky event hold up the others.
const FAULTS_MAX: u32 = 5;

/// A component's digest and a config: what breaks together.
type BreakerKey = ([u8; 32], Arc<str>);

struct Shared {
    engines: Arc<Engines>,
    cache: Cache,
    compiler: Compiler,
    loaded: Mutex<HashMap<[u8; 32], Weak<Loaded>>>,
    metering: Metering,
}

impl PluginHost {
    /// A sandbox that compiles in this process: [`PluginHost::start_with`].
    pub fn start(settings: &Sandbox, metrics: Metrics) -> Result<Self, Error> {
        Self::start_with(settings, Compiler::InProcess, metrics)
    }

    /// Sets up the engines, their threads and the cache, and sees that deadlines hold.
    pub fn start_with(settings: &Sandbox, compiler: Compiler, metrics: Metrics) -> Result<Self, Error> {
        Self::start_metering(settings, compiler, metrics, Metering::Off)
    }

    /// A sandbox that also counts the instructions of each call ([`Report::instructions`]). That slows calls down by
    /// about a third and asks for other machine code, made in this process, so it is for the tools of authors.
    pub fn start_counting(settings: &Sandbox, metrics: Metrics) -> Result<Self, Error> {
        Self::start_metering(settings, Compiler::InProcess, metrics, Metering::Instructions)
    }

    fn start_metering(
        settings: &Sandbox,
        compiler: Compiler,
        metrics: Metrics,
        metering: Metering,
    ) -> Result<Self, Error> {
        let threads = settings.threads.clamp(1, 1024);
        let engines = Engines::new(threads, metering)?;
        let ticker = Ticker::start(engines.all())?;
        engines.all().try_for_each(|engine| engine::self_test(engine, &ticker, metering))?;
        let scheduler = Scheduler::start(threads, ticker, metrics)?;
        let cache = Cache::open(settings.cache.as_deref());
        let shared = Arc::new(Shared { engines, cache, compiler, loaded: Mutex::default(), metering });
        Ok(Self { shared, scheduler, threads, loading: tokio::sync::Mutex::default(), breakers: Mutex::default() })
    }

    /// Loads a plugin: reads its file, checks it, compiles it (away from the runtime's threads) or takes it from the cache.
    pub async fn load(&self, spec: &PluginSpec) -> Result<Arc<Plugin>, Error> {
        let refused = |refusal| Error::Refused { plugin: Arc::clone(&spec.name), path: spec.path.clone(), refusal };
        let (shared, path, pinned) = (Arc::clone(&self.shared), spec.path.clone(), spec.sha256.clone());
        let one_at_a_time = self.loading.lock().await;
        let loading = tokio::task::spawn_blocking(move || shared.load(path, pinned.as_deref()));
        let loaded = loading.await.unwrap_or_else(|_| Err(Refusal::Compile("the compiler panicked".to_owned())));
        drop(one_at_a_time);
        let (loaded, digest) = loaded.map_err(refused)?;
        loaded.fits(spec.memory_bytes_max).map_err(refused)?;
        Ok(Arc::new(Plugin {
            name: Arc::clone(&spec.name),
            loaded,
            lane: self.scheduler.lane(&spec.name),
            deadline: spec.deadline,
            memory_bytes_max: spec.memory_bytes_max.min(engine::MEMORY_BYTES_MAX),
            output_bytes_max: spec.output_bytes_max,
            log_budget: LogBudget::new(),
            metering: self.shared.metering,
            digest,
            scheduler: Arc::clone(&self.scheduler),
        }))
    }

    /// Runs a subscription's chain over an event.
    pub async fn run(&self, chain: &Arc<Chain>, event: Arc<Event>) -> ChainRun {
        if chain.is_empty() {
            return ChainRun { end: ChainEnd::Event { event, changed: false }, notes: Vec::new() };
        }
        let (reply, end) = oneshot::channel();
        let queued = Instant::now();
        self.scheduler.push(Job::Chain(ChainJob {
            chain: Arc::clone(chain),
            position: 0,
            event,
            changed: false,
            notes: Vec::new(),
            reply,
            queued,
        }));
        // A job that is refused, at once or halfway, is dropped with its `reply`.
        let run = end.await.unwrap_or(ChainRun { end: ChainEnd::Busy, notes: Vec::new() });
        if !matches!(run.end, ChainEnd::Busy | ChainEnd::Open { .. }) {
            self.scheduler.metrics().plugin_chain(&chain.standing(0).subscription, queued.elapsed());
        }
        run
    }

    /// A subscription's chain of these plugins.
    pub fn chain(&self, subscription: &Arc<str>, links: Vec<Link>) -> Chain {
        Chain::for_threads(subscription, links.into(), self.threads.min(STANDINGS_MAX))
    }

    /// A plugin as a subscription uses it. Links of one component and config share a breaker.
    pub fn link(&self, plugin: &Arc<Plugin>, plugin_use: &PluginUse, on_error: OnError) -> Link {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.retain(|_, breaker| breaker.strong_count() > 0);
        let PluginUse { config, mode, .. } = plugin_use;
        let key = (plugin.digest, Arc::clone(config));
        let breaker = breakers.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| Breaker::new(FAULTS_MAX));
        breakers.insert(key, Arc::downgrade(&breaker));
        let (plugin, config) = (Arc::clone(plugin), Arc::clone(config));
        Link { plugin, config, mode: *mode, on_error, breaker: Some(breaker) }
    }

    /// Makes one call and tells all about it. For tests of plugins and for people; deliveries go by [`PluginHost::run`].
    pub async fn call_once(&self, plugin: &Arc<Plugin>, config: &str, event: Arc<Event>, subscription: &str) -> Report {
        let standing = Standing::new(&subscription.into(), 0, &config.into());
        let subject = Subject { event: Some(Arc::clone(&event)), standing };
        self.call(plugin, subject, event).await
    }

    pub(super) async fn call(&self, plugin: &Arc<Plugin>, subject: Subject, event: Arc<Event>) -> Report {
        let (reply, report) = oneshot::channel();
        self.scheduler.push(Job::Once { plugin: Arc::clone(plugin), subject, event, reply });
        report.await.unwrap_or_else(|_| Report::not_run("the sandbox is shutting down"))
    }

    pub(super) fn ticker(&self) -> &Ticker {
        self.scheduler.ticker()
    }

    /// What the cache of compiled plugins did.
    pub fn cache_counts(&self) -> CacheCounts {
        self.shared.cache.counts()
    }
}

impl Drop for PluginHost {
    fn drop(&mut self) {
        self.scheduler.stop();
    }
}

impl Shared {
    fn load(&self, path: PathBuf, pinned: Option<&str>) -> Result<(Arc<Loaded>, [u8; 32]), Refusal> {
        let binary = load::read(&path, pinned)?;
        let known =
            self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(&binary.digest).and_then(Weak::upgrade);
        if let Some(loaded) = known {
            return Ok((loaded, binary.digest));
        }
        let loaded = Arc::new(load::component(&self.engines, &self.cache, &self.compiler, &binary)?);
        let mut all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, loaded| loaded.strong_count() > 0);
        all.insert(binary.digest, Arc::downgrade(&loaded));
        Ok((loaded, binary.digest))
    }
}
