//! How long each step takes: `cargo bench --bench steps`. Beside those of `cases`, a plugin's call and a round trip of each store.

mod cases;

use std::hint::black_box;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use branchline::clock::Clock;
use branchline::config::{PluginSpec, Sandbox};
use branchline::metrics::Metrics;
use branchline::plugin::PluginHost;
use branchline::secret::Secret;
use branchline::store::embedded::EmbeddedStore;
use branchline::store::redis::{RedisOptions, RedisStore, RedisTarget};
use branchline::store::{EventSettlement, Store, StoreOptions};
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_group!(benches, steps, plugin, stores);
criterion_main!(benches);

fn steps(criterion: &mut Criterion) {
    for case in cases::CASES {
        criterion.bench_function(case.name, |bencher| {
            let mut step = (case.prepare)();
            bencher.iter(&mut step);
        });
    }
}

/// With the way to the sandbox's thread and back.
fn plugin(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/slack.wasm");
    let spec = PluginSpec::new("slack", path);
    let (host, plugin) = runtime.block_on(async {
        let settings = Sandbox { threads: 1, cache: None };
        let host = PluginHost::start(&settings, Metrics::default()).expect("the sandbox starts");
        let plugin = host.load(&spec).await.expect("the plugin loads");
        (host, plugin)
    });
    let event = Arc::new(cases::event(1));
    criterion.bench_function("call a plugin (slack)", |bencher| {
        bencher.iter(|| {
            let call = host.call_once(&plugin, r##"{"channel":"#bench"}"##, Arc::clone(&event), "bench");
            let report = runtime.block_on(call);
            assert!(report.verdict.is_ok(), "{:?}", report.verdict);
        });
    });
}

fn stores(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let embedded =
        runtime.block_on(EmbeddedStore::open(&folder.path().join("data"), StoreOptions::default(), Clock::system()));
    round_trip(criterion, &runtime, "embedded store", &embedded.expect("the store opens"));
    let Some((_server, port)) = redis(folder.path()) else {
        eprintln!("redis-server is not installed: its round trip is left out");
        return;
    };
    let target = RedisTarget::Single(Secret::new(format!("redis://127.0.0.1:{port}")));
    let redis = runtime.block_on(RedisStore::open(target, RedisOptions::default()));
    round_trip(criterion, &runtime, "Redis store", &redis.expect("the store opens"));
}

/// One event alone: stored durably, claimed, settled.
fn round_trip(criterion: &mut Criterion, runtime: &Runtime, name: &str, store: &dyn Store) {
    let mut number = 0;
    criterion.bench_function(&format!("append, claim and settle, {name}"), |bencher| {
        bencher.iter(|| {
            number += 1;
            runtime.block_on(async {
                store.append(vec![cases::event(number)]).await.expect("the event is stored");
                let claims = store.claim_events(1, Duration::from_secs(5)).await.expect("the store answers");
                let claim = claims.into_iter().next().expect("the event is claimed");
                let settlement = EventSettlement { claim, outcomes: vec![], scheduled: vec![], dead_letters: vec![] };
                black_box(store.settle_event(settlement).await.expect("the event is settled"));
            });
        });
    });
    runtime.block_on(store.close()).expect("the store closes");
}

/// A server that ends with the benchmark.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn redis(folder: &Path) -> Option<(Server, u16)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).ok()?.port();
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--port", &port.to_string()]);
    let server = Server(command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?);
    let listens = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    listens.then_some((server, port))
}
