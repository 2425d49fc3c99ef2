//! What a run is made of: routers as processes, a real store, receivers, and links between them that can fail.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use crate::budget;
use crate::clocks::MachineClock;
use crate::disk::SmallDisk;
use crate::ledger::Disturbance;
use crate::record::{Record, locked};
use crate::servers::Servers;
use crate::sink;
use crate::support::eventually;
use crate::support::fault_proxy::FaultProxy;
use crate::support::redis_sentinel::RedisSentinels;
use crate::support::redis_server::RedisServer;
use crate::support::router::RouterProcess;
use crate::tracer::Tracer;

/// So many share a store in Redis.
const ROUTERS: usize = 3;
/// What a router's config says of the events and the attempts that it has under way at one time.
const EVENTS_IN_FLIGHT_MAX: usize = 64;
pub const ATTEMPTS_IN_FLIGHT_MAX: usize = 64;
/// Of these subscriptions so many want one event.
pub const SUBSCRIPTIONS_OF_AN_EVENT: usize = 2;
/// What a router can have delivered and not settled when it is killed or loses its claims: the pairs of the events that it
/// holds, the attempts that went on without their event, and the deliveries that it took out of the schedule.
pub const HELD_MAX: usize = held_max(EVENTS_IN_FLIGHT_MAX, ATTEMPTS_IN_FLIGHT_MAX);
/// The `timeout` of the endpoints.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long everything may take to come to rest after the last fault: the claims of the dead are taken over after 10 s,
/// leases end after 60 s.
const REST_TIME_MAX: Duration = Duration::from_secs(150);

/// The same for other limits.
pub const fn held_max(events_in_flight_max: usize, attempts_in_flight_max: usize) -> usize {
    SUBSCRIPTIONS_OF_AN_EVENT * events_in_flight_max + 2 * attempts_in_flight_max
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Three routers over one Redis, `appendfsync always`.
    Redis,
    /// Three routers over a master with replicas and Sentinels; a replica is waited for before `202`.
    Sentinels,
    /// The same over a Cluster of three masters with a replica each.
    Cluster,
    /// One router.
    Embedded,
}

impl Kind {
    /// The Redis servers it wants. One that is alone can be made to live by this clock.
    fn servers(self, clock: Option<&MachineClock>) -> Option<Servers> {
        match self {
            Self::Redis => Some(Servers::single_by(clock)),
            Self::Sentinels => Some(Servers::Sentinels(RedisSentinels::start())),
            Self::Cluster => Some(Servers::cluster()),
            Self::Embedded => None,
        }
    }

    /// What the config says of the store besides its URL: a fail-over takes nothing with it that a replica has.
    const fn of_store(self) -> &'static str {
        match self {
            Self::Sentinels | Self::Cluster => "[store.redis]\nwait = { replicas = 1, timeout = \"1s\" }\n",
            Self::Redis | Self::Embedded => "",
        }
    }
}

/// What a run is to be made of.
pub struct Setting {
    pub kind: Kind,
    /// Where an embedded store is kept, if not in the router's folder.
    pub disk: Option<SmallDisk>,
    /// What the routers take for the machine's clock, if not that one.
    pub clock: Option<MachineClock>,
    /// What a Redis that is alone takes for its machine's clock, if not that one.
    pub redis_clock: Option<MachineClock>,
    /// What stands between an embedded store's router and its kernel.
    pub tracer: Option<Tracer>,
    /// Variables that the routers are started with.
    pub environment: Vec<(String, String)>,
    /// Attempts at one time to the endpoint of everything.
    pub in_flight_max: u32,
}

impl Setting {
    /// The usual one.
    pub fn of(kind: Kind) -> Self {
        Self { kind, disk: None, clock: None, redis_clock: None, tracer: None, environment: vec![], in_flight_max: 64 }
    }
}

/// A run's parts.
pub struct World {
    pub record: Arc<Record>,
    pub routers: Vec<Mutex<RouterProcess>>,
    pub kind: Kind,
    pub servers: Option<Servers>,
    /// Between each router and Redis, where there is one server.
    pub store_links: Vec<FaultProxy>,
    /// How long the receiver of everything takes to answer, in milliseconds.
    pub slowness: Arc<AtomicU64>,
    /// Between the routers and the receivers.
    pub receiver_link: FaultProxy,
    /// How often the config was changed.
    generation: Mutex<u32>,
    /// Two copies of a plugin, to be swapped.
    plugins: tempfile::TempDir,
    /// Where an embedded store is kept, if not in the router's folder.
    pub disk: Option<SmallDisk>,
    /// What the routers take for the machine's clock, if not that one.
    pub clock: Option<MachineClock>,
    /// What Redis takes for it.
    pub redis_clock: Option<MachineClock>,
    pub tracer: Option<Tracer>,
    /// The part of the config that stays the same.
    constant: String,
}

impl World {
    /// Starts everything.
    pub async fn start(setting: Setting) -> Self {
        budget::begin();
        let servers = setting.kind.servers(setting.redis_clock.as_ref());
        let mut store_links = Vec::new();
        let mut stores = Vec::new();
        match &servers {
            Some(Servers::Single(server)) => {
                for _ in 0..ROUTERS {
                    let link = FaultProxy::before(server.port()).await;
                    stores.push(format!("redis://127.0.0.1:{}", link.port()));
                    store_links.push(link);
                }
            }
            // They name each other: no link can stand between them and the routers.
            Some(servers) => stores.extend((0..ROUTERS).map(|_| servers.url())),
            None => stores.push(match &setting.disk {
                Some(disk) => format!("file:{}", disk.store_folder().display()),
                None => "file:{folder}/data".to_owned(),
            }),
        }
        Self::start_on(setting, servers, stores, store_links).await
    }

    /// Starts a router for each of these store URLs.
    pub async fn start_on(
        setting: Setting,
        servers: Option<Servers>,
        stores: Vec<String>,
        store_links: Vec<FaultProxy>,
    ) -> Self {
        let Setting { kind, disk, clock, redis_clock, tracer, mut environment, in_flight_max } = setting;
        let (record, slowness) = (Arc::new(Record::new()), Arc::new(AtomicU64::new(0)));
        let receivers = sink::start(Arc::clone(&record), Arc::clone(&slowness)).await;
        let receiver_link = FaultProxy::before(receivers).await;
        let plugins = tempfile::tempdir().expect("a folder can be made");
        for copy in 0..2 {
            let original = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/slack.wasm");
            std::fs::copy(original, plugin(plugins.path(), copy)).expect("the plugin can be copied");
        }
        let constant = format!("{}{}", kind.of_store(), endpoints(receiver_link.port(), in_flight_max));
        let config = constant.clone() + &routes(plugins.path(), 0);
        environment.extend(clock.iter().flat_map(MachineClock::environment));
        let mut routers = Vec::new();
        for store in stores {
            let mut router = RouterProcess::new(&store, &config);
            router.environment.clone_from(&environment);
            // On a busy machine a master may be replaced at any time, and a router that finds none ends.
            router.supervised = matches!(kind, Kind::Sentinels | Kind::Cluster);
            router.start().await;
            routers.push(Mutex::new(router));
        }
        let generation = Mutex::new(0);
        Self {
            record,
            routers,
            kind,
            servers,
            store_links,
            slowness,
            receiver_link,
            generation,
            plugins,
            disk,
            clock,
            redis_clock,
            tracer,
            constant,
        }
    }

    /// The ingest ports.
    pub async fn ports(&self) -> Vec<u16> {
        let mut ports = Vec::new();
        for router in &self.routers {
            ports.push(router.lock().await.ingest);
        }
        ports
    }

    /// The servers of a run with Redis.
    pub fn servers(&self) -> &Servers {
        self.servers.as_ref().expect("this run has a Redis")
    }

    /// The one server of a run with one Redis.
    pub fn redis(&self) -> &RedisServer {
        self.servers().single()
    }

    /// The folder of an embedded store.
    pub async fn store_folder(&self) -> PathBuf {
        match &self.disk {
            Some(disk) => disk.store_folder(),
            None => self.routers[0].lock().await.folder().join("data"),
        }
    }

    /// One of the routers.
    pub async fn router(&self, chance: &mut fastrand::Rng) -> MutexGuard<'_, RouterProcess> {
        self.routers[chance.usize(..self.routers.len())].lock().await
    }

    /// Writes every router's config anew: the plugin's other copy, another order, an endpoint more or less.
    pub async fn change_config(&self) {
        let mut generation = self.generation.lock().await;
        *generation += 1;
        let config = self.constant.clone() + &routes(self.plugins.path(), *generation);
        for router in &self.routers {
            router.lock().await.write_config(&config);
        }
    }

    /// Notes what was done to the system from `from` until now; its effects may go on for `lingers`.
    pub fn disturbed(&self, what: &'static str, from: u64, lingers: Duration, repeats_max: usize) {
        let lingers = u64::try_from(lingers.as_millis()).expect("it is short");
        let to = self.record.now() + lingers;
        let disturbance = Disturbance { what, from, to, repeats_max, may_forget: false };
        locked(&self.record.disturbances).push(disturbance);
    }

    /// What all routers together can have delivered and not settled at one time.
    pub fn held_max(&self) -> usize {
        self.routers.len() * HELD_MAX
    }

    /// How often something on a link felt what was done to it.
    pub fn hindered(&self) -> usize {
        self.store_links.iter().chain([&self.receiver_link]).map(FaultProxy::hindered).sum()
    }

    /// What the routers have logged.
    pub async fn log(&self) -> String {
        let mut log = String::new();
        for router in &self.routers {
            log += &router.lock().await.log();
        }
        log
    }

    /// Waits until so many more events are acknowledged.
    pub async fn until_acknowledged(&self, more: usize, patience: Duration) {
        let enough = self.record.acknowledged() + more;
        let is_enough = async || (self.record.acknowledged() >= enough).then_some(());
        eventually("events are acknowledged", patience, is_enough).await;
    }

    /// The last disturbance put another server in a master's place.
    pub fn may_have_forgotten(&self) {
        if let Some(last) = locked(&self.record.disturbances).last_mut() {
            last.may_forget = true;
        }
    }

    /// Waits until nothing waits any more, by what the store says now. The metrics are read from it once a second: they
    /// may be from before the last event.
    pub async fn rest(&self) {
        let router = self.routers[0].lock().await;
        let mut last = None;
        let resting = async {
            loop {
                last = router.get("/api/v1/stats").await;
                let stats: Option<serde_json::Value> =
                    last.as_ref().and_then(|(_, stats)| serde_json::from_str(stats).ok());
                if stats.is_some_and(|stats| stats["backlog"] == 0 && stats["scheduled"] == 0) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let rested = tokio::time::timeout(REST_TIME_MAX, resting).await;
        let about = || self.servers.as_ref().map(Servers::about_waiting).unwrap_or_default();
        assert!(rested.is_ok(), "everything has not come to rest: {last:?}{}", about());
        if let Some(servers) = &self.servers {
            eventually("the names of the dead are forgotten", REST_TIME_MAX, async || {
                (servers.names() == Some(self.routers.len())).then_some(())
            })
            .await;
        }
    }

    /// The most memory that a router has now had, in bytes.
    pub async fn memory_peak(&self) -> u64 {
        let mut peak = 0;
        for router in &self.routers {
            peak = peak.max(router.lock().await.memory_peak().unwrap_or(0));
        }
        peak
    }

    /// SIGTERM to every router; each must end well.
    pub async fn stop(&self) {
        for router in &self.routers {
            let mut router = router.lock().await;
            let status = router.stop().await;
            assert!(status.success(), "{status}\n{}", router.log());
        }
    }
}

fn plugin(folder: &Path, copy: u32) -> PathBuf {
    folder.join(format!("slack-{copy}.wasm"))
}

/// The endpoints: `/audit`; `/sales`; `/flaky`, whose receiver answers badly at first; `/doomed`, which never answers well.
fn endpoints(receivers: u16, in_flight_max: u32) -> String {
    let mut text = format!(
        "[delivery]\nallow_networks = [\"127.0.0.0/8\"]\nshutdown_grace = \"15s\"\n\
         events_in_flight_max = {EVENTS_IN_FLIGHT_MAX}\nattempts_in_flight_max = {ATTEMPTS_IN_FLIGHT_MAX}\n"
    );
    let timeout = format!("{}s", ATTEMPT_TIMEOUT.as_secs());
    // An answer that a busy machine delays by more than the timeout would look like a repeat without a fault.
    // Longer in all than any fault lasts: only what is doomed may be given up.
    let patient = format!("[\"200ms\", \"400ms\", \"1s\"{}]", ", \"2s\"".repeat(45));
    let in_flight = format!("max_in_flight = {in_flight_max}");
    for (name, retry, more) in [
        ("audit", patient.as_str(), format!("format = \"payload\"\n{in_flight}")),
        ("sales", &patient, in_flight.clone()),
        ("flaky", &patient, format!("{in_flight}\nbreaker = \"off\"")),
        ("doomed", "[\"300ms\"]", "breaker = \"off\"".to_owned()),
    ] {
        let _ = write!(
            text,
            "[endpoints.{name}]\nurl = \"http://127.0.0.1:{receivers}/{name}\"\nsecret = {{ env = \"TEST_SECRET\" }}\ntimeout = \"{timeout}\"\nretry = {retry}\n{more}\n",
        );
    }
    text
}

/// Four subscriptions: everything to `/audit`; large orders through a plugin to `/sales`; users to `/flaky`; failed
/// payments to `/doomed`.
fn routes(plugins: &Path, generation: u32) -> String {
    let mut text = String::new();
    let _ =
        write!(text, "[plugins.slack]\npath = \"{}\"\ndeadline = \"2s\"\n", plugin(plugins, generation % 2).display());
    let mut routes = [
        route("audit", "**", "", ""),
        route(
            "sales",
            "order.*",
            "where = \"payload.amount >= 5000\"\n",
            ", plugins = [{ use = \"slack\", config = { channel = \"#sales\" } }]",
        ),
        route("flaky", "user.*", "", ""),
        route("doomed", "payment.*", "", ""),
    ];
    let turns = generation as usize % routes.len();
    routes.rotate_left(turns);
    if generation.is_multiple_of(3) {
        text.push_str("[endpoints.unused]\nurl = \"https://example.com/\"\n");
    }
    text + &routes.concat()
}

fn route(name: &str, events: &str, condition: &str, plugins: &str) -> String {
    format!(
        "[[routes]]\nname = \"{name}\"\nevents = [\"{events}\"]\n{condition}subscriptions = [{{ name = \"{name}\", endpoint = \"{name}\"{plugins} }}]\n"
    )
}
