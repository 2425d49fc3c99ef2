//! `branchline demo`: the whole job on this machine with nothing installed.
//!
//! The embedded store in a temporary folder, `config/demo.toml`, a built-in receiver, one sample event
//! of each type by real HTTP. It is the same router that `serve` runs; only the surroundings are made here.

mod expected; // What must become of each sample event.
mod receiver; // Five endpoints, two of them with a fault.
mod table; // What happens, as it happens.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::signals::stop_on_signal;
use super::{Error, compiler, logging, runtime};
use crate::app::Router;
use crate::clock::Clock;
use crate::config::{Config, Environment};
use expected::Expectations;
use receiver::Receiver;
use table::Table;

/// How long everything may take to settle. The schedules of the demo take about two seconds.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the outcomes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const CONFIG: &str = include_str!("../../config/demo.toml");
const EVENTS: &str = include_str!("../../config/demo-events.json");
/// The `slack` plugin, for the bench too.
pub(super) const SLACK_COMPONENT: &[u8] = include_bytes!("../../plugins/slack.wasm");

const PLUGINS: [(&str, &[u8]); 3] = [
    ("slack.wasm", SLACK_COMPONENT),
    ("discord.wasm", include_bytes!("../../plugins/discord.wasm")),
    ("sendgrid.wasm", include_bytes!("../../plugins/sendgrid.wasm")),
];

/// What `branchline demo` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// End when every sample event has settled: 0 if all went as expected, 1 if not.
    #[arg(long)]
    once: bool,
}

/// Runs the demo.
pub fn run(options: &Options) -> Result<(), Error> {
    let folder = Folder::create()?;
    let stop = stop_on_signal()?;
    runtime()?.block_on(async {
        let receiver = Receiver::start().await?;
        let key = receiver::random_text()?;
        let (path, config) = write_config(&folder.0, &receiver, &key)?;
        let _logs = logging::start(&config.log)?;
        let clock = Clock::system();
        let router = Router::start(&path, &config, compiler()?, clock).await?;
        let (ingest, admin) = (router.ingest_address(), router.admin_address());
        let store = std::sync::Arc::clone(router.store());
        outln!("Branchline is up: events go to http://{ingest}/v1/events, the store is {}\n", folder.0.display());

        let running = CancellationToken::new();
        let router = tokio::spawn(router.run(running.clone()));
        let mut table = Table::new(store, clock.now());
        let shown = async {
            send_samples(ingest, &key, &mut table).await?;
            let verdict = settle(&mut table, &stop).await?;
            outln!("\n{}", table.summary());
            outln!("{verdict}");
            if !options.once && !stop.is_cancelled() {
                outln!("{}", invitation(ingest, admin, &key));
                while !stop.is_cancelled() {
                    table.print_news().await?;
                    tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(LOOK_EVERY) => {} }
                }
            }
            if verdict.is_as_expected() { Ok(()) } else { Err(Error::Failed(verdict.faults())) }
        }
        .await;
        running.cancel();
        let stopped = router.await.map_err(|error| Error::Failed(format!("the router ended badly: {error}")))?;
        shown.and(stopped.map_err(Error::from))
    })
}

/// A temporary folder that goes with the demo.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("branchline-demo-{}", std::process::id()));
        std::fs::create_dir(&path)
            .map_err(|error| Error::Failed(format!("`{}` could not be made: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What can't be removed is left to the system's own care for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Lays the config and the plugins out as they are in the repository, and loads them with the receiver's addresses.
fn write_config(folder: &Path, receiver: &Receiver, key: &str) -> Result<(PathBuf, Config), Error> {
    let write = |path: PathBuf, bytes: &[u8]| {
        let folder = path.parent().expect("the paths below have a folder");
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, bytes))
            .map_err(|error| Error::Failed(format!("`{}` could not be written: {error}", path.display())))
    };
    for (name, component) in PLUGINS {
        write(folder.join("plugins").join(name), component)?;
    }
    let path = folder.join("config").join("demo.toml");
    write(path.clone(), CONFIG.as_bytes())?;
    let mut variables: HashMap<String, String> = receiver.variables();
    variables.insert("DEMO_APP_KEY".into(), key.to_owned());
    variables.insert("DEMO_SENDGRID_AUTHORIZATION".into(), format!("Bearer {}", receiver::random_text()?));
    variables.insert("BRANCHLINE_STORE__URL".into(), format!("file:{}", folder.join("data").display()));
    for name in ["XDG_CACHE_HOME", "HOME"] {
        if let Ok(value) = std::env::var(name) {
            variables.insert(name.to_owned(), value);
        }
    }
    let config = Config::load_with_environment(&path, &variables.into_iter().collect::<Environment>())?;
    Ok((path, config))
}

async fn send_samples(ingest: SocketAddr, key: &str, table: &mut Table) -> Result<(), Error> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Error::Failed(format!("{what}: {error}"));
    let events: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(EVENTS).map_err(|error| failed("config/demo-events.json", &error))?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for event in events {
        let request = Request::post(format!("http://{ingest}/v1/events"))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {key}"))
            .body(Full::new(Bytes::copy_from_slice(event.get().as_bytes())))
            .map_err(|error| failed("a sample event", &error))?;
        let response = client.request(request).await.map_err(|error| failed("a sample event", &error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| failed("an answer", &error))?.to_bytes();
        if status != StatusCode::ACCEPTED {
            return Err(Error::Failed(format!(
                "a sample event was answered {status}: {}",
                String::from_utf8_lossy(&body)
            )));
        }
        table.print_news().await?;
    }
    Ok(())
}

/// Prints what happens until every expected pair has its final outcome.
async fn settle(table: &mut Table, stop: &CancellationToken) -> Result<expected::Verdict, Error> {
    let expectations = Expectations::of_the_samples();
    let started = Instant::now();
    loop {
        table.print_news().await?;
        let verdict = expectations.compare(table.finals());
        if verdict.is_complete() || stop.is_cancelled() || started.elapsed() > SETTLE_TIMEOUT {
            return Ok(verdict);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn invitation(ingest: SocketAddr, admin: SocketAddr, key: &str) -> String {
    format!(
        r#"
Send one yourself:

  curl http://{ingest}/v1/events -H 'authorization: Bearer {key}' -H 'content-type: application/json' \
    -d '{{"eventType":"order.created","payload":{{"amount":50000,"currency":"KRW"}}}}'

Metrics: http://{admin}/metrics    End with Ctrl-C.
"#
    )
}
