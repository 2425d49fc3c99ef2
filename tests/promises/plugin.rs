//! What a plugin can do, and what it can't: verdicts, limits, what is refused at load, and that no plugin costs another
//! anything. Plugins are WebAssembly text; no guest compiler takes part.

mod built; // The shipped plugins run their fixtures in the router's sandbox.
mod caching; // Compiled plugins are kept, and never trusted blindly.
mod fairness; // A plugin that misbehaves delays nobody else.
mod limits; // Deadline, memory, stack, output, log.
mod loading; // What is refused, and what the refusal says.
mod verdicts; // What a chain makes of an event.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use branchline::clock::Timestamp;
use branchline::config::{PluginFixtures, PluginSpec, Sandbox};
use branchline::delivery::PluginFaultKind;
use branchline::event::Event;
use branchline::metrics::Metrics;
use branchline::plugin::{Chain, ChainEnd, Error, Link, Plugin, PluginHost};

use crate::support::components::Guest;

/// A sandbox of two threads, and a folder for its plugins.
pub struct Bench {
    pub host: Arc<PluginHost>,
    pub metrics: Metrics,
    folder: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self::with_threads(2)
    }

    pub fn with_threads(threads: usize) -> Self {
        Self::with(threads, None)
    }

    pub fn with(threads: usize, cache: Option<&Path>) -> Self {
        let metrics = Metrics::default();
        let settings = Sandbox { threads, cache: cache.map(Path::to_owned) };
        let host = Arc::new(PluginHost::start(&settings, metrics.clone()).unwrap());
        Self { host, metrics, folder: tempfile::tempdir().unwrap() }
    }

    /// Writes a plugin's file; limits are wide enough for a machine that is busy with other tests.
    pub fn spec(&self, name: &str, bytes: &[u8]) -> PluginSpec {
        let path = self.folder.path().join(format!("{name}.wasm"));
        std::fs::write(&path, bytes).unwrap();
        spec(name, path)
    }

    pub async fn load_bytes(&self, name: &str, bytes: &[u8]) -> Result<Arc<Plugin>, Error> {
        self.host.load(&self.spec(name, bytes)).await
    }

    pub async fn load(&self, name: &str, guest: &Guest) -> Arc<Plugin> {
        self.load_bytes(name, &guest.build()).await.unwrap()
    }

    pub async fn load_with(&self, name: &str, guest: &Guest, change: impl FnOnce(&mut PluginSpec)) -> Arc<Plugin> {
        let mut spec = self.spec(name, &guest.build());
        change(&mut spec);
        self.host.load(&spec).await.unwrap()
    }

    pub async fn run(&self, plugins: &[&Arc<Plugin>], event: &Arc<Event>) -> ChainEnd {
        self.host.run(&chain(plugins), Arc::clone(event)).await.end
    }

    /// What becomes of an event in a chain of this one plugin.
    pub async fn run_guest(&self, guest: &Guest) -> ChainEnd {
        let plugin = self.load("guest", guest).await;
        self.run(&[&plugin], &event("{}")).await
    }

    /// The fault's kind and detail; it must be one that is tried again.
    pub async fn fault_of(&self, guest: &Guest, change: impl FnOnce(&mut PluginSpec)) -> (PluginFaultKind, String) {
        let plugin = self.load_with("guest", guest, change).await;
        match self.run(&[&plugin], &event("{}")).await {
            ChainEnd::Fault { plugin, kind, detail, retryable: true } if &*plugin == "guest" => (kind, detail),
            other => panic!("no fault that is tried again: {other:?}"),
        }
    }
}

pub fn spec(name: &str, path: PathBuf) -> PluginSpec {
    PluginSpec {
        name: name.into(),
        path,
        sha256: None,
        fixtures: PluginFixtures::Off,
        deadline: Duration::from_secs(5),
        memory_bytes_max: 16 << 20,
        output_bytes_max: 1 << 20,
    }
}

pub fn chain(plugins: &[&Arc<Plugin>]) -> Arc<Chain> {
    let link = |plugin: &&Arc<Plugin>| Link::new(plugin, "{}");
    Arc::new(Chain::new(&"warehouse".into(), plugins.iter().map(link).collect::<Vec<_>>()))
}

pub fn event(payload: &str) -> Arc<Event> {
    Arc::new(Event {
        id: "evt_1".into(),
        source: "app".into(),
        event_type: "order.created".into(),
        aggregate_type: "Order".into(),
        aggregate_id: "order_7".into(),
        occurred_at: "2025-01-15T10:30:00Z".into(),
        accepted_at: Timestamp::from_millis(1_736_937_000_000),
        payload: payload.to_owned().into(),
        metadata: "{}".into(),
        traceparent: "".into(),
    })
}
