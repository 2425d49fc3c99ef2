//! What a run is made of: routers as processes, a real store, receivers, and links between them that can fail.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use crate::ledger::Disturbance;
use crate::record::{Record, locked};
use crate::sink;
use crate::support::eventually;
use crate::support::fault_proxy::FaultProxy;
use crate::support::redis_server::RedisServer;
use crate::support::router::RouterProcess;

/// How long everything may take to come to rest after the last fault: the claims of the dead are taken over after 10 s,
/// leases end after 60 s.
const REST_TIME_MAX: Duration = Duration::from_secs(150);

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Three routers over one Redis, `appendfsync always`.
    Redis,
    /// One router.
    Embedded,
}

/// What a run is to be made of.
pub struct Setting {
    pub kind: Kind,
    /// Where an embedded store is kept, if not in the router's folder.
    pub folder: Option<PathBuf>,
    /// Variables that the routers are started with.
    pub environment: Vec<(String, String)>,
}

impl Setting {
    /// The usual one.
    pub fn of(kind: Kind) -> Self {
        Self { kind, folder: None, environment: vec![] }
    }
}

/// A run's parts.
pub struct World {
    pub record: Arc<Record>,
    pub routers: Vec<Mutex<RouterProcess>>,
    pub redis: Option<RedisServer>,
    /// Between each router and Redis.
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
    pub folder: Option<PathBuf>,
}

impl World {
    /// Starts everything.
    pub async fn start(setting: Setting) -> Self {
        let redis = match setting.kind {
            Kind::Redis => Some(RedisServer::start("always")),
            Kind::Embedded => None,
        };
        let mut store_links = Vec::new();
        let mut stores = Vec::new();
        match &redis {
            Some(redis) => {
                for _ in 0..3 {
                    let link = FaultProxy::before(redis.port()).await;
                    stores.push(format!("redis://127.0.0.1:{}", link.port()));
                    store_links.push(link);
                }
            }
            None => stores.push(match &setting.folder {
                Some(folder) => format!("file:{}", folder.display()),
                None => "file:{folder}/data".to_owned(),
            }),
        }
        Self::start_on(setting, redis, stores, store_links).await
    }

    /// Starts a router for each of these store URLs.
    pub async fn start_on(
        setting: Setting,
        redis: Option<RedisServer>,
        stores: Vec<String>,
        store_links: Vec<FaultProxy>,
    ) -> Self {
        let (record, slowness) = (Arc::new(Record::new()), Arc::new(AtomicU64::new(0)));
        let receivers = sink::start(Arc::clone(&record), Arc::clone(&slowness)).await;
        let receiver_link = FaultProxy::before(receivers).await;
        let plugins = tempfile::tempdir().expect("a folder can be made");
        for copy in 0..2 {
            let original = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/slack.wasm");
            std::fs::copy(original, plugin(plugins.path(), copy)).expect("the plugin can be copied");
        }
        let config = routes(receiver_link.port(), plugins.path(), 0);
        let mut routers = Vec::new();
        for store in stores {
            let mut router = RouterProcess::new(&store, &config);
            router.environment.clone_from(&setting.environment);
            router.start().await;
            routers.push(Mutex::new(router));
        }
        let (folder, generation) = (setting.folder, Mutex::new(0));
        Self { record, routers, redis, store_links, slowness, receiver_link, generation, plugins, folder }
    }

    /// The ingest ports.
    pub async fn ports(&self) -> Vec<u16> {
        let mut ports = Vec::new();
        for router in &self.routers {
            ports.push(router.lock().await.ingest);
        }
        ports
    }

    /// The server of a run with Redis.
    pub fn redis(&self) -> &RedisServer {
        self.redis.as_ref().expect("this run has a Redis")
    }

    /// One of the routers.
    pub async fn router(&self, chance: &mut fastrand::Rng) -> MutexGuard<'_, RouterProcess> {
        self.routers[chance.usize(..self.routers.len())].lock().await
    }

    /// Writes every router's config anew: the plugin's other copy, another order, an endpoint more or less.
    pub async fn change_config(&self) {
        let mut generation = self.generation.lock().await;
        *generation += 1;
        let config = routes(self.receiver_link.port(), self.plugins.path(), *generation);
        for router in &self.routers {
            router.lock().await.write_config(&config);
        }
    }

    /// Notes what was done to the system from `from` until now; its effects may go on for `lingers`.
    pub fn disturbed(&self, what: &'static str, from: u64, lingers: Duration, may_repeat: bool) {
        let lingers = u64::try_from(lingers.as_millis()).expect("it is short");
        let to = self.record.now() + lingers;
        locked(&self.record.disturbances).push(Disturbance { what, from, to, may_repeat });
    }

    /// Waits until nothing waits any more, by what the store says now. The metrics are read from it once a second: they
    /// may be from before the last event.
    pub async fn rest(&self) {
        let router = self.routers[0].lock().await;
        eventually("everything has come to rest", REST_TIME_MAX, async || {
            let (_, stats) = router.get("/api/v1/stats").await?;
            let stats: serde_json::Value = serde_json::from_str(&stats).ok()?;
            (stats["backlog"] == 0 && stats["scheduled"] == 0).then_some(())
        })
        .await;
        if let Some(redis) = &self.redis {
            let routers = self.routers.len().to_string();
            eventually("the names of the dead are forgotten", REST_TIME_MAX, async || {
                (redis.cli(&["hlen", "bl:proc"]).trim() == routers).then_some(())
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

/// Four subscriptions: everything to `/audit`; large orders through a plugin to `/sales`; users to `/flaky`, whose
/// receiver answers badly at first; failed payments to `/doomed`, which never answers well.
fn routes(receivers: u16, plugins: &Path, generation: u32) -> String {
    let mut text = String::from("[delivery]\nallow_networks = [\"127.0.0.0/8\"]\nshutdown_grace = \"15s\"\n");
    // Longer in all than any fault lasts: only what is doomed may be given up.
    let patient = format!("[\"200ms\", \"400ms\", \"1s\"{}]", ", \"2s\"".repeat(45));
    for (name, retry, more) in [
        ("audit", patient.as_str(), "format = \"payload\"\nmax_in_flight = 64"),
        ("sales", &patient, "max_in_flight = 64"),
        ("flaky", &patient, "max_in_flight = 64\nbreaker = \"off\""),
        ("doomed", "[\"300ms\"]", "breaker = \"off\""),
    ] {
        let _ = write!(
            text,
            "[endpoints.{name}]\nurl = \"http://127.0.0.1:{receivers}/{name}\"\nsecret = {{ env = \"TEST_SECRET\" }}\ntimeout = \"1s\"\nretry = {retry}\n{more}\n",
        );
    }
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
