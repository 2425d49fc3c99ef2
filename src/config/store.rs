//! `[store]`: which store, and how long it keeps what. The URL may hold a password: no message shows it.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::files::OwnTls;
use super::reader::{Entry, Table};
use super::secrets::{Plain, Shape};
use super::values::{self, GIB, MIB, MILLISECOND, days, seconds};
use super::{PluginSpec, StoreSettings, StoreUrl};
use crate::endpoint::Endpoint;
use crate::route::Route;
use crate::secret::Secret;
use crate::store::StoreOptions;
use crate::store::redis::{Check, Checks, OnFault, RedisOptions, RedisTarget, RedisTls, SentinelTarget, Wait};

/// Less than this holds no backlog worth the name.
const MEMORY_BYTES: RangeInclusive<usize> = 16 * MIB..=64 * 1024 * GIB;
/// Stands in the URL of a master that Sentinels name; whoever connects puts the real one in its place.
const MASTER_HOST: &str = "master";
const NODES_MAX: usize = 1_000;
/// One server does one thing at a time: more partitions only make its batches smaller (by a third fewer events/s with four).
const PARTITIONS: u16 = 1;
const PARTITIONS_OF_A_CLUSTER: u16 = 16;

pub(super) fn store(mut table: Table<'_>) -> StoreSettings {
    let url = match table.find_secret("url") {
        Some(entry) => entry.store_url(),
        None => None,
    };
    let mut url = url.unwrap_or_else(|| StoreUrl::File(table.reading.origins.root_folder().join("data")));
    let partitions = match url {
        StoreUrl::Redis(RedisTarget::Cluster(_)) => PARTITIONS_OF_A_CLUSTER,
        StoreUrl::File(_) | StoreUrl::Redis(RedisTarget::Single(_) | RedisTarget::Sentinel(_)) => PARTITIONS,
    };
    let redis = redis_options(table.section("redis"), &mut url);
    let defaults = StoreOptions::default();
    let settings = StoreSettings {
        url,
        partitions: table.count("partitions", partitions, 1..=1_024),
        options: StoreOptions {
            retention: table.duration("retention", defaults.retention, seconds(1)..=days(3_650)),
            dedupe_window: table.duration("dedupe_window", defaults.dedupe_window, seconds(1)..=days(30)),
            lease: defaults.lease,
        },
        redis,
    };
    table.end();
    settings
}

/// `[store.redis]`: what only matters there.
fn redis_options(mut table: Table<'_>, url: &mut StoreUrl) -> RedisOptions {
    let (user, password) = (table.find("sentinel_user"), table.find_secret("sentinel_password"));
    if matches!(url, StoreUrl::Redis(RedisTarget::Single(_) | RedisTarget::Cluster(_))) {
        for entry in user.iter().chain(&password) {
            entry.warn("is of no use: `store.url` names no Sentinels");
        }
    }
    let user = user.and_then(|entry| entry.text().map(Cow::into_owned));
    let password = password.and_then(|entry| entry.secret(Plain::Warn));
    if let StoreUrl::Redis(RedisTarget::Sentinel(target)) = url {
        (target.sentinel_user, target.sentinel_password) = (user, password);
    }
    let defaults = RedisOptions::default();
    let tls = table.find("tls").and_then(|entry| redis_tls(&entry, url));
    let options = RedisOptions {
        wait: table.find("wait").and_then(|entry| wait(entry.table()?)),
        checks: table.find("checks").map_or_else(Checks::default, |entry| checks(&entry)),
        memory_bytes_max: table
            .find("memory_bytes_max")
            .and_then(|entry| entry.bytes(&MEMORY_BYTES))
            .map(|max| max as u64),
        retention_when_short: table.duration(
            "retention_when_short",
            defaults.retention_when_short,
            seconds(1)..=days(3_650),
        ),
        tls,
        ..defaults
    };
    table.end();
    options
}

/// Certificates for servers that speak TLS.
fn redis_tls(entry: &Entry<'_>, url: &StoreUrl) -> Option<RedisTls> {
    let mut table = entry.table()?;
    let files = table.own_tls(entry);
    table.end();
    let is_encrypted = |url: &Secret| url.expose().starts_with("rediss");
    let is_encrypted = match url {
        StoreUrl::File(_) => false,
        StoreUrl::Redis(RedisTarget::Single(url)) => is_encrypted(url),
        StoreUrl::Redis(RedisTarget::Sentinel(target)) => is_encrypted(&target.master),
        StoreUrl::Redis(RedisTarget::Cluster(urls)) => urls.iter().any(is_encrypted),
    };
    if !is_encrypted {
        entry.fault("says how to use TLS, and `store.url` uses none: it begins with `rediss`");
    }
    files.map(|OwnTls { own, ca }| RedisTls { ca, own })
}

/// What is waited for before `202`.
fn wait(mut table: Table<'_>) -> Option<Wait> {
    let defaults = Wait::default();
    let wait = Wait {
        replicas: table.count("replicas", defaults.replicas, 0..=100),
        fsync: table.find("fsync").and_then(|entry| entry.flag()).unwrap_or(defaults.fsync),
        timeout: table.duration("timeout", defaults.timeout, MILLISECOND..=seconds(60)),
    };
    let waits = wait.replicas > 0 || wait.fsync;
    if !waits {
        let message = format!("`{}` waits for nothing: give `replicas`, or `fsync = true`, or leave it out", table.key);
        table.reading.fault(&table.key, super::origins::Part::Value, message, None);
    }
    table.end();
    waits.then_some(wait)
}

/// One word for all checks, or a word for some.
fn checks(entry: &Entry<'_>) -> Checks {
    if !entry.value.is_object() {
        return entry.parse(on_fault).map_or_else(Checks::default, Checks::all);
    }
    let mut checks = Checks::default();
    if let Some(mut table) = entry.table() {
        for check in Check::ALL {
            checks.set(check, table.parsed(check.name(), checks.on(check), on_fault));
        }
        table.end();
    }
    checks
}

fn on_fault(text: &str) -> Result<OnFault, String> {
    match text {
        "refuse" => Ok(OnFault::Refuse),
        "warn" => Ok(OnFault::Warn),
        "ignore" => Ok(OnFault::Ignore),
        _ => Err(format!("must be `refuse`, `warn` or `ignore`, not {}", values::quoted(text))),
    }
}

/// How long a claimed delivery is held: longer than any chain of plugins and attempt can take, with a retry of the settling.
pub(super) fn lease(endpoints: &[Arc<Endpoint>], plugins: &[Arc<PluginSpec>], routes: &[Route]) -> Duration {
    let timeout = endpoints.iter().map(|endpoint| endpoint.timeout).max().unwrap_or_default();
    // Each link of a chain may wait in the sandbox's queue before it runs.
    let deadline =
        |name: &str| plugins.iter().find(|plugin| *plugin.name == *name).map_or(Duration::ZERO, |p| p.deadline);
    let subscriptions = routes.iter().flat_map(|route| &route.subscriptions);
    let chain: Duration = subscriptions
        .map(|subscription| {
            subscription.plugins.iter().map(|link| deadline(&link.plugin) + seconds(1)).sum::<Duration>()
        })
        .max()
        .unwrap_or_default();
    (2 * (timeout + chain) + seconds(30)).max(seconds(60))
}

impl Entry<'_> {
    fn store_url(&self) -> Option<StoreUrl> {
        let secret = self.secret_of(Plain::Fine, Shape::StoreUrl)?;
        if secret.expose().contains('@') && self.value.is_string() && !self.is_set_by_variable() {
            self.warn("holds a user or password in plain text; better `{ env = \"NAME\" }` or `{ file = \"path\" }`");
        }
        match store_url(secret.expose(), &self.reading.origins.folder(&self.key)) {
            Ok(url) => Some(url),
            Err(message) => {
                self.fault(message);
                None
            }
        }
    }
}

fn store_url(text: &str, folder: &Path) -> Result<StoreUrl, String> {
    if let Some(path) = text.strip_prefix("file:") {
        if path.is_empty() {
            return Err("must name a folder after `file:`, for example `file:data`".to_owned());
        }
        return Ok(StoreUrl::File(folder.join(path)));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(unknown_scheme());
    };
    match scheme {
        "redis" | "rediss" => {
            let (user, hosts, _) = parts(rest);
            check_host(hosts)?;
            check_user(user)?;
            Ok(StoreUrl::Redis(RedisTarget::Single(Secret::new(text))))
        }
        "redis+cluster" | "rediss+cluster" => {
            let scheme = scheme.trim_end_matches("+cluster");
            let (user, hosts, tail) = parts(rest);
            check_user(user)?;
            let nodes = hosts_of(hosts)?.map(|host| Secret::new(format!("{scheme}://{user}{host}{tail}")));
            Ok(StoreUrl::Redis(RedisTarget::Cluster(nodes.collect())))
        }
        "redis+sentinel" | "rediss+sentinel" => {
            let scheme = scheme.trim_end_matches("+sentinel");
            let (user, hosts, tail) = parts(rest);
            check_user(user)?;
            let hosts = hosts_of(hosts)?;
            let (service, database) = service(tail)?;
            Ok(StoreUrl::Redis(RedisTarget::Sentinel(SentinelTarget {
                sentinels: hosts.map(|host| Secret::new(format!("{scheme}://{host}"))).collect(),
                sentinel_user: None,
                sentinel_password: None,
                service: service.to_owned(),
                master: Secret::new(format!("{scheme}://{user}{MASTER_HOST}/{database}")),
            })))
        }
        _ => Err(unknown_scheme()),
    }
}

/// The hosts of a list.
fn hosts_of(list: &str) -> Result<impl Iterator<Item = String>, String> {
    let hosts: Vec<String> = list.split(',').map(str::to_owned).collect();
    if hosts.len() > NODES_MAX {
        return Err(format!("lists more than {NODES_MAX} nodes"));
    }
    hosts.iter().try_for_each(|host| check_host(host))?;
    Ok(hosts.into_iter())
}

/// What follows the Sentinels: `/service`, and perhaps `/` and the number of a database.
fn service(tail: &str) -> Result<(&str, u32), String> {
    let wrong = || {
        "must end with `/` and what the Sentinels call the master, and perhaps `/` and the number of a database, for \
         example `redis+sentinel://a:26379,b:26379,c:26379/mymaster`"
            .to_owned()
    };
    let path = tail.strip_prefix('/').ok_or_else(wrong)?;
    let (service, database) = path.split_once('/').unwrap_or((path, "0"));
    let is_name = !service.is_empty() && service.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    match database.parse() {
        Ok(database) if is_name => Ok((service, database)),
        _ => Err(wrong()),
    }
}

/// User info with its `@`, hosts, and what follows them.
fn parts(rest: &str) -> (&str, &str, &str) {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let user = authority.rfind('@').map_or(0, |at| at + 1);
    (&authority[..user], &authority[user..], tail)
}

fn check_user(user: &str) -> Result<(), String> {
    // A `/`, `?`, `#` or `@` in a password would end the host part early, so it must be escaped.
    if user.trim_end_matches('@').contains('@') {
        return Err("has an `@` in its user or password; write `%40`".to_owned());
    }
    Ok(())
}

fn check_host(host: &str) -> Result<(), String> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name_is_good = match name.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !name.is_empty() && name.chars().all(plain),
    };
    if !name_is_good {
        return Err("has no valid host after `//`; a password's `/`, `?`, `#` and `@` must be written as `%2F`, \
                    `%3F`, `%23` and `%40`"
            .to_owned());
    }
    if port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) || port.is_none() {
        return Ok(());
    }
    Err("has a port that is not a number from 1 to 65535".to_owned())
}

fn unknown_scheme() -> String {
    "must start with `file:`, `redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://`".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_url_names_a_folder_a_server_or_a_cluster() {
        let url = |text| store_url(text, Path::new("/etc/branchline"));
        assert!(matches!(url("file:data"), Ok(StoreUrl::File(path)) if path == Path::new("/etc/branchline/data")));
        assert!(matches!(url("file:/var/data"), Ok(StoreUrl::File(path)) if path == Path::new("/var/data")));
        assert!(matches!(url("redis://:pw@cache:6379/2"), Ok(StoreUrl::Redis(RedisTarget::Single(_)))));
        assert!(matches!(url("rediss://[::1]:6380"), Ok(StoreUrl::Redis(RedisTarget::Single(_)))));
        let Ok(StoreUrl::Redis(RedisTarget::Cluster(nodes))) = url("redis+cluster://me:pw@a:1,b:2,[::1]:3") else {
            panic!()
        };
        let nodes: Vec<&str> = nodes.iter().map(Secret::expose).collect();
        assert_eq!(nodes, ["redis://me:pw@a:1", "redis://me:pw@b:2", "redis://me:pw@[::1]:3"]);
        let sentinel = url("rediss+sentinel://me:pw@a:1,[::1]:2/main/3");
        let Ok(StoreUrl::Redis(RedisTarget::Sentinel(target))) = sentinel else { panic!() };
        let sentinels: Vec<&str> = target.sentinels.iter().map(Secret::expose).collect();
        assert_eq!(sentinels, ["rediss://a:1", "rediss://[::1]:2"]);
        assert_eq!((target.service.as_str(), target.master.expose()), ("main", "rediss://me:pw@master/3"));
    }

    #[test]
    fn what_is_no_store_url_is_refused_without_being_shown() {
        for (text, part) in [
            ("file:", "a folder"),
            ("data", "must start with"),
            ("postgres://marker@h", "must start with"),
            ("redis://", "no valid host"),
            ("redis://:mar/ker@h:1", "no valid host"),
            ("redis://:mark@er@h:1", "`%40`"),
            ("redis://h:marker", "port"),
            ("redis+cluster://a:1,,b:2", "no valid host"),
            ("redis+sentinel://a:1", "what the Sentinels call the master"),
            ("redis+sentinel://a:1/", "what the Sentinels call the master"),
            ("redis+sentinel://a:1/main/marker", "the number of a database"),
            ("redis+sentinel://:mar/ker@a:1/main", "no valid host"),
        ] {
            let message = store_url(text, Path::new("")).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
            assert!(!message.contains("mark"), "{message}");
        }
    }
}
