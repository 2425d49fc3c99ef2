//! Files and environment in, checked settings out. A `Config` that exists is valid: names resolve,
//! URLs, patterns, durations and secrets are parsed. Nothing past this module sees a raw text of a file.

mod comparison; // Whether secrets are the same, without showing them.
mod description; // What a config says, to be shown and compared.
mod document; // A file's text: its values, and where each stands.
mod endpoints; // `[endpoints.NAME]`.
mod environment; // Variables that set keys or hold secrets.
mod excerpt; // A file's lines as messages show them.
mod faults; // Every mistake, with its place.
mod files; // Paths of files.
#[cfg(test)]
mod fuzz;
mod json; // JSON files.
mod load; // Files and environment, merged and read.
mod meaning; // Whether two ways of writing a key mean the same.
mod origins; // Where everything came from.
mod plugins; // `[plugins.NAME]`.
mod reader; // Tables, key by key.
mod route_tests; // `[[tests]]`.
mod routes; // `[[routes]]`.
mod schema; // What editors know of the config.
mod secrets; // What is never shown.
mod sections; // The tables that are there once.
mod sources; // `[sources.NAME]`.
mod store; // `[store]`.
mod values; // What single texts mean.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use comparison::{Comparison, SecretPrints};
pub use description::{Description, Keys};
pub use document::below;
pub use environment::Environment;
pub(crate) use faults::no_subscription;
pub use faults::{Errors, Fault, Place, Rule, Severity};
pub use load::Draft;
pub(crate) use meaning::is_same;
pub use route_tests::{Answer, Expectation, ExpectedEnd, ExpectedRequest, RouteTest, TestEvent};
pub use schema::SCHEMA;
pub use sections::user_cache;

use crate::endpoint::Endpoint;
use crate::rate::Rate;
use crate::route::Route;
use crate::secret::Secret;
use crate::store::StoreOptions;
use crate::store::redis::{RedisOptions, RedisTarget};

/// Everything `branchline serve` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[ingest]`: where producers POST.
    pub ingest: Ingest,
    /// `[admin]`: the operator's door.
    pub admin: Admin,
    /// `[store]`: where durable state is.
    pub store: StoreSettings,
    /// `[delivery]`: limits on what goes out.
    pub delivery: DeliverySettings,
    /// `[sandbox]`: what all plugins share.
    pub sandbox: Sandbox,
    /// `[log]`.
    pub log: Log,
    /// `[sources.NAME]`, by name.
    pub sources: Vec<Arc<Source>>,
    /// `[endpoints.NAME]`, by name; also those that no subscription uses.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// `[plugins.NAME]`, by name; also those that no subscription uses.
    pub plugins: Vec<Arc<PluginSpec>>,
    /// `[[routes]]`, in the order of the files.
    pub routes: Vec<Route>,
    /// `[[tests]]`, in the order of the files.
    pub tests: Vec<RouteTest>,
    /// What is allowed but worth telling the operator.
    pub warnings: Vec<Fault>,
    /// What it says.
    pub description: Description,
    /// Where each key came from: see [`Config::fault`].
    pub places: Places,
}

/// Where each key came from. It holds the files, secrets included, and prints nothing of them.
#[derive(Clone)]
pub struct Places(Arc<origins::Origins>);

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

/// `[ingest]`.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// `listen`, default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// `body_bytes_max`, default 1 MiB: one request's body, unless its source says otherwise.
    pub body_bytes_max: usize,
    /// `batch_events_max`, default 1,000: events in one request.
    pub batch_events_max: usize,
    /// `head_timeout`, default 10 s: from the connection (or the last answer) to the end of a request's head.
    pub head_timeout: Duration,
    /// `body_timeout`, default 15 s: for a whole body.
    pub body_timeout: Duration,
    /// `store_timeout`, default 10 s: how long a request waits for the store before it is answered 503.
    pub store_timeout: Duration,
    /// `connections_max`, default 10,000.
    pub connections_max: usize,
    /// `connections_per_address_max`, default 1,024.
    pub connections_per_address_max: usize,
    /// `bodies_bytes_max`, default 256 MiB: all bodies that are being read or stored at one time.
    pub bodies_bytes_max: usize,
    /// `[ingest.tls]`: without it the listener speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// `backlog_events_max`, default 1,000,000: events not yet settled and deliveries in the schedule; above it, producers get 503.
    pub backlog_events_max: u64,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct Admin {
    /// `listen`, default `127.0.0.1:8081`.
    pub listen: SocketAddr,
    /// `tokens`: any of them is accepted as `Authorization: Bearer …`. Required where `listen` is not loopback.
    pub tokens: Vec<Secret>,
    /// `[admin.tls]`: without it the listener speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// `watch`, default false: whether a change of the config's files or of a plugin's is read by itself.
    pub watch: bool,
}

/// `[ingest.tls]`, `[admin.tls]`: PEM files, read at start and again at a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `cert`: the server's certificate, then those that vouch for it; a relative path is relative to the config file.
    pub cert: PathBuf,
    /// `key`: its private key.
    pub key: PathBuf,
    /// `client_ca`: those that vouch for clients' certificates; without it no client is asked for one.
    pub client_ca: Option<ClientCa>,
}

/// `client_ca` and `client_certificate` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCa {
    /// The file of the certificates.
    pub file: PathBuf,
    /// `client_certificate`: `required` (the default), or `optional`. One that nobody vouches for is refused either way.
    pub is_required: bool,
}

/// `[store]`.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// `url`, default `file:data`.
    pub url: StoreUrl,
    /// `partitions`, default 1 (16 for a Cluster): fixed when the store is first used. Redis only.
    pub partitions: u16,
    /// `retention` (default 7 d), `dedupe_window` (default 10 min); the lease follows from the longest endpoint timeout.
    pub options: StoreOptions,
    /// `[store.redis]`: what is waited for, what is checked, how much memory may be taken. Its partitions and retention are those above.
    pub redis: RedisOptions,
}

/// Which store.
#[derive(Clone, Debug)]
pub enum StoreUrl {
    /// `file:PATH`: embedded, in this folder; a relative path is relative to the config file.
    File(PathBuf),
    /// `redis://…`, `rediss://…`: one server; `redis+sentinel://host:port,…/service`: the master of a service;
    /// `redis+cluster://host:port,…`: a Cluster. The URL may hold a password.
    Redis(RedisTarget),
}

/// `[delivery]`.
#[derive(Clone, Debug)]
pub struct DeliverySettings {
    /// `allow_networks`, default none: loopback, private, link-local and other special networks are refused unless listed.
    pub allow_networks: Vec<IpNet>,
    /// `events_in_flight_max`, default 1,024: events claimed at one time.
    pub events_in_flight_max: usize,
    /// `attempts_in_flight_max`, default 4,096: HTTP requests under way at one time, over all endpoints.
    pub attempts_in_flight_max: usize,
    /// `answer_bytes_max`, default 16 KiB: how much of an answer's body is read.
    pub answer_bytes_max: usize,
    /// `shutdown_grace`, default 25 s: how long what is in flight may go on after SIGTERM.
    pub shutdown_grace: Duration,
}

/// `[sandbox]`: what all plugins share.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// `threads`, default the number of cores, at least 2: plugin calls under way at one time.
    pub threads: usize,
    /// `cache`: the folder of compiled plugins; default `branchline` in the user's cache folder. `None` when it is set to `""`: nothing is cached.
    pub cache: Option<PathBuf>,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// `level`, default `info`: a `tracing` filter, for example `branchline=debug,info`.
    pub level: String,
    /// `format`: `text`, `json`, or (default) text on a terminal and JSON otherwise.
    pub format: LogFormat,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For programs, a JSON object a line.
    Json,
}

/// A named way in.
#[derive(Clone, Debug)]
pub struct Source {
    /// The name in the config.
    pub name: Arc<str>,
    /// `path`: what producers POST to, for example `/v1/events`. Unique among sources.
    pub path: String,
    /// `auth`.
    pub auth: SourceAuth,
    /// `body_bytes_max`: one request's body; default that of `[ingest]`.
    pub body_bytes_max: usize,
    /// `rate` and `burst`: events that each router takes in so much time, and how many at once; default as many as come.
    pub quota: Option<Quota>,
}

/// How many events a source may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// `rate`.
    pub rate: Rate,
    /// `burst`, default what the rate gives in a second.
    pub burst: u32,
}

/// Who may use a source.
#[derive(Clone, Debug)]
pub enum SourceAuth {
    /// `auth = "none"`: anybody who can connect.
    None,
    /// `auth = { bearer = […] }`: `Authorization: Bearer KEY` with any of these.
    Bearer(Vec<Secret>),
    /// `auth = { client_certificate = […] }`: a certificate with any of these names, which `ingest.tls.client_ca` vouches for.
    ClientCertificate(Vec<String>),
}

/// A plugin as the config names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginSpec {
    /// The name in the config.
    pub name: Arc<str>,
    /// `path`: the component's file; a relative path is relative to the config file.
    pub path: PathBuf,
    /// `sha256`: hex digest that the file must have, if given.
    pub sha256: Option<String>,
    /// `fixtures`: what must hold before the plugin is used.
    pub fixtures: PluginFixtures,
    /// `deadline`, default 50 ms: the bound on one call. 1 ms to 10 s.
    pub deadline: Duration,
    /// `memory_bytes_max`, default 16 MiB: the bound on a call's linear memory. 64 KiB to 256 MiB.
    pub memory_bytes_max: usize,
    /// `output_bytes_max`, default 1 MiB: the bound on what a call returns.
    pub output_bytes_max: usize,
}

/// Where the fixtures are that a plugin must meet before it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PluginFixtures {
    /// Nothing is said: where `branchline plugin test` finds them; a plugin may have none.
    #[default]
    Beside,
    /// `fixtures = "PATH"`: this folder; a relative path is relative to the config file.
    Folder(PathBuf),
    /// `fixtures = ""`: none are run.
    Off,
}
