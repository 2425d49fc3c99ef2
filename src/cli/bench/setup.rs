//! The processes of one run: receiver, store, and the system that is measured, on free ports in a folder of their own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::process::{self, Child, Folder, free_port};
use super::scenario::{System, Work};
use super::{fill, load, receiver};
use crate::cli::Error;
use crate::cli::demo::SLACK_COMPONENT;

/// Everything a run needs, started. Dropping it ends all of it.
pub struct Setup {
    /// The pipe, or the routers.
    pub systems: Vec<Child>,
    pub redis: Option<Child>,
    /// Where producers send to, for each of the systems.
    pub ports: Vec<u16>,
    pub receiver_port: u16,
    /// From the start of the last of the systems until it took connections.
    pub started_in: Duration,
    _receiver: Child,
    folder: Folder,
}

impl Setup {
    /// Starts a system for some work. Of `plugins`, a folder, a router loads all, and `slack` in any case. `redis` are settings
    /// of its server.
    pub async fn start(system: System, work: &Work, plugins: Option<&Path>, redis: &[String]) -> Result<Self, Error> {
        let folder = Folder::create()?;
        let receiver_port = free_port()?;
        let receiver = Child::of_bench(["receiver", &receiver_port.to_string()], folder.path())?;
        process::wait_for_port(receiver_port).await?;
        let (store, redis) = match system.fsync() {
            Some(fsync) => {
                let port = free_port()?;
                let mut redis = Child::redis(port, fsync, redis, folder.path())?;
                redis.redis_listens(port, folder.path()).await?;
                (format!("redis://127.0.0.1:{port}"), Some(redis))
            }
            None => (format!("file:{}", folder.path().join("data").display()), None),
        };
        let mut setup = Self {
            systems: Vec::new(),
            redis,
            ports: Vec::new(),
            receiver_port,
            started_in: Duration::ZERO,
            _receiver: receiver,
            folder,
        };
        fill::fill(&store, work).await?;
        for _ in 0..work.routers {
            setup.start_one(system, &store, work, plugins).await?;
        }
        Ok(setup)
    }

    async fn start_one(
        &mut self,
        system: System,
        store: &str,
        work: &Work,
        plugins: Option<&Path>,
    ) -> Result<(), Error> {
        let (port, receiver_port) = (free_port()?, self.receiver_port);
        let folder = self.folder.path().join(format!("system-{}", self.systems.len()));
        std::fs::create_dir(&folder).map_err(|error| Error::Failed(format!("`{}`: {error}", folder.display())))?;
        let [to, on, copies] = [port.to_string(), receiver_port.to_string(), work.wanting.to_string()];
        let config = Config { store, port, receiver_port, work, plugins: shipped(plugins)? }.write(&folder)?;
        let began = Instant::now();
        let system = match system {
            System::Pipe => Child::of_bench(["pipe", &to, &on, &copies], &folder)?,
            System::DurablePipe(_) => Child::of_bench(["durable-pipe", &to, &on, store], &folder)?,
            System::Redis(_) | System::Embedded => Child::serve(&config, &folder)?,
        };
        process::wait_for_port(port).await?;
        self.started_in = began.elapsed();
        self.systems.push(system);
        self.ports.push(port);
        Ok(())
    }
}

/// What a router's config is made of.
struct Config<'a> {
    store: &'a str,
    port: u16,
    receiver_port: u16,
    work: &'a Work,
    plugins: Vec<PathBuf>,
}

/// The components of a folder.
fn shipped(folder: Option<&Path>) -> Result<Vec<PathBuf>, Error> {
    let Some(folder) = folder else { return Ok(vec![]) };
    let failed = |error| Error::Failed(format!("`{}`, the folder of the plugins: {error}", folder.display()));
    let mut components = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.and_then(|entry| std::path::absolute(entry.path())).map_err(failed)?;
        if path.extension().is_some_and(|extension| extension == "wasm") {
            components.push(path);
        }
    }
    components.sort();
    Ok(components)
}

impl Config<'_> {
    fn write(&self, folder: &Path) -> Result<PathBuf, Error> {
        let failed = |error| Error::Failed(format!("the bench's config could not be written: {error}"));
        std::fs::write(folder.join("slack.wasm"), SLACK_COMPONENT).map_err(failed)?;
        let path = folder.join("bench.toml");
        std::fs::write(&path, self.text(free_port()?)).map_err(failed)?;
        Ok(path)
    }

    fn text(&self, admin: u16) -> String {
        let Self { store, port, receiver_port, work, plugins } = self;
        let (source, backlog_max) = (load::SOURCE, 1_000_000 + work.backlog + work.waiting);
        let mut text = format!(
            r#"
[ingest]
listen = "127.0.0.1:{port}"
backlog_events_max = {backlog_max}
[admin]
listen = "127.0.0.1:{admin}"
[store]
url = "{store}"
[delivery]
allow_networks = ["127.0.0.0/8"]
[log]
level = "info"
[sources.{source}]
path = "/v1/events"
auth = {{ bearer = [{{ env = "BENCH_KEY" }}] }}
[plugins.slack]
path = "slack.wasm"
"#
        );
        let mut wanting = Vec::new();
        for number in 0..work.wanting {
            let path = if number < work.failing { receiver::FAILING_PATH } else { "/" };
            text.push_str(&endpoint(number, *receiver_port, path));
            wanting.push(format!(r#"{{ name = "wanting-{number}", endpoint = "{number}"{} }}"#, chain(work.plugins)));
        }
        for path in plugins {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            if name != "slack" {
                writeln!(text, "[plugins.{name}]\npath = \"{}\"", path.display())
                    .expect("writing to a string does not fail");
            }
        }
        let condition = if work.condition { "where = 'payload.amount >= 1000'\n" } else { "" };
        text.push_str(&route("wanting", "order.*", condition, &wanting));
        for number in 0..work.others {
            let subscription = format!(r#"{{ name = "other-{number}", endpoint = "0" }}"#);
            text.push_str(&route(&format!("other-{number}"), &format!("tenant-{number}.*"), "", &[subscription]));
        }
        text
    }
}

fn endpoint(name: usize, port: u16, path: &str) -> String {
    format!(
        "[endpoints.{name}]\nurl = \"http://127.0.0.1:{port}{path}\"\nsecret = {{ env = \"BENCH_SECRET\" }}\nmax_in_flight = 256\nretry = [\"1h\"]\n"
    )
}

fn chain(plugins: usize) -> String {
    let mut links = vec![r#"{ use = "sample", config = { share = 1.0 } }"#; plugins.saturating_sub(1)];
    match plugins {
        0 => return String::new(),
        _ => links.push(r##"{ use = "slack", config = { channel = "#bench" } }"##),
    }
    format!(", plugins = [{}]", links.join(", "))
}

fn route(name: &str, events: &str, condition: &str, subscriptions: &[String]) -> String {
    format!(
        "[[routes]]\nname = \"{name}\"\nevents = [\"{events}\"]\n{condition}subscriptions = [{}]\n",
        subscriptions.join(", ")
    )
}
