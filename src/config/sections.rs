//! The tables that are there once: `[ingest]`, `[admin]`, `[store]`, `[delivery]`, `[sandbox]`, `[log]`. One line
//! a key: its name, its default, its bounds.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::reader::Table;
use super::secrets::Plain;
use super::values::{self, GIB, KIB, MIB, MILLISECOND, seconds};
use super::{Admin, ClientCa, DeliverySettings, Ingest, Log, LogFormat, Sandbox, TlsFiles};
use crate::secret::Secret;

const TOKENS_MAX: usize = 100;
const NETWORKS_MAX: usize = 1_000;
/// The largest body that can be allowed: an event is held in memory and in one record of the store.
pub(super) const BODY_BYTES_MAX: usize = 64 * MIB;

pub(super) fn ingest(mut table: Table<'_>) -> Ingest {
    let ingest = Ingest {
        listen: table.parsed("listen", loopback(8080), values::address),
        body_bytes_max: table.bytes("body_bytes_max", MIB, 1..=BODY_BYTES_MAX),
        batch_events_max: table.count("batch_events_max", 1_000, 1..=100_000),
        head_timeout: table.duration("head_timeout", seconds(10), MILLISECOND..=seconds(300)),
        body_timeout: table.duration("body_timeout", seconds(15), MILLISECOND..=seconds(300)),
        store_timeout: table.duration("store_timeout", seconds(10), MILLISECOND..=seconds(300)),
        connections_max: table.count("connections_max", 10_000, 1..=1_000_000),
        connections_per_address_max: table.count("connections_per_address_max", 1_024, 1..=1_000_000),
        bodies_bytes_max: table.bytes("bodies_bytes_max", 256 * MIB, 1..=64 * GIB),
        backlog_events_max: table.count("backlog_events_max", 1_000_000, 1..=1_000_000_000_000),
        tls: tls(&mut table),
    };
    if ingest.body_bytes_max > ingest.bodies_bytes_max {
        let message = format!(
            "`ingest.bodies_bytes_max` is {} for all bodies together, less than `ingest.body_bytes_max` allows for one ({})",
            values::show_bytes(ingest.bodies_bytes_max),
            values::show_bytes(ingest.body_bytes_max),
        );
        table.reading.fault("ingest.bodies_bytes_max", super::origins::Part::Value, message, None);
    }
    table.end();
    ingest
}

pub(super) fn admin(mut table: Table<'_>) -> Admin {
    let listen = table.parsed("listen", loopback(8081), values::address);
    let entry = table.find_secret("tokens");
    let given = entry.is_some();
    let tokens: Vec<Secret> = entry
        .and_then(|entry| entry.list(TOKENS_MAX))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.bearer_token())
        .collect();
    if !listen.ip().is_loopback() && tokens.is_empty() && !given {
        let message = format!(
            "`admin.listen` is not a loopback address, so `admin.tokens` must list at least one token, or anyone who \
             reaches {listen} operates this router"
        );
        table.reading.fault("admin.listen", super::origins::Part::Value, message, None);
    } else if !listen.ip().is_loopback() && tokens.is_empty() {
        let message = "`admin.tokens` must list at least one token, since `admin.listen` is not a loopback address";
        table.reading.fault("admin.tokens", super::origins::Part::Secret, message, None);
    }
    let tls = tls(&mut table);
    let watch = table.find("watch").and_then(|entry| entry.flag()).unwrap_or(false);
    table.end();
    Admin { listen, tokens, tls, watch }
}

fn tls(table: &mut Table<'_>) -> Option<TlsFiles> {
    let mut table = table.find("tls")?.table()?;
    let mut path = |name, what: &str| {
        table.require(name, &format!("the file of {what}, in PEM form")).and_then(|entry| entry.path())
    };
    let cert = path("cert", "the certificate and those that vouch for it");
    let key = path("key", "the certificate's private key");
    let client_ca = table.file("client_ca");
    let asked = table.find("client_certificate");
    if let (None, Some(asked)) = (&client_ca, &asked) {
        asked.fault("says how clients show a certificate, and there is no `client_ca` to vouch for one");
    }
    let is_required = asked.and_then(|entry| entry.parse(client_certificate)).unwrap_or(true);
    table.end();
    Some(TlsFiles { cert: cert?, key: key?, client_ca: client_ca.map(|file| ClientCa { file, is_required }) })
}

fn client_certificate(text: &str) -> Result<bool, String> {
    match text {
        "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err(format!("must be `required` or `optional`, not {}", values::quoted(text))),
    }
}

pub(super) fn delivery(mut table: Table<'_>) -> DeliverySettings {
    let networks = table.find("allow_networks").and_then(|entry| entry.list(NETWORKS_MAX));
    let delivery = DeliverySettings {
        allow_networks: networks.into_iter().flatten().filter_map(|entry| entry.parse(values::network)).collect(),
        events_in_flight_max: table.count("events_in_flight_max", 1_024, 1..=100_000),
        attempts_in_flight_max: table.count("attempts_in_flight_max", 4_096, 1..=100_000),
        answer_bytes_max: table.bytes("answer_bytes_max", 16 * KIB, 1..=16 * MIB),
        shutdown_grace: table.duration("shutdown_grace", seconds(25), seconds(0)..=seconds(3_600)),
    };
    table.end();
    delivery
}

pub(super) fn sandbox(mut table: Table<'_>) -> Sandbox {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = table.count("threads", cores.clamp(2, 256), 1..=256);
    let cache = match table.find("cache") {
        Some(entry) => entry
            .text()
            .filter(|text| !text.is_empty())
            .map(|text| table.reading.origins.folder(&entry.key).join(&*text)),
        None => user_cache(|name| table.reading.environment.get(name)),
    };
    table.end();
    Sandbox { threads, cache }
}

pub(super) fn log(mut table: Table<'_>) -> Log {
    let log = Log {
        level: table.parsed("level", "info".to_owned(), values::log_filter),
        format: table.parsed("format", LogFormat::default(), |text| match text {
            "auto" => Ok(LogFormat::Auto),
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("must be `auto`, `text` or `json`, not {}", values::quoted(text))),
        }),
    };
    table.end();
    log
}

/// `branchline` in the user's cache folder, by the XDG rules: a relative `XDG_CACHE_HOME` counts as none.
pub fn user_cache<T: Into<PathBuf>>(variable: impl Fn(&str) -> Option<T>) -> Option<PathBuf> {
    let folder = |name| variable(name).map(Into::into).filter(|path: &PathBuf| path.is_absolute());
    let caches = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("branchline"))
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl super::reader::Entry<'_> {
    /// As what follows `Authorization: Bearer`.
    pub fn bearer_token(&self) -> Option<Secret> {
        let token = self.secret(Plain::Warn)?;
        if token.expose().bytes().all(|b| b.is_ascii_graphic()) {
            return Some(token);
        }
        self.fault("has a blank or another character that no `Authorization: Bearer` header can carry");
        None
    }
}
