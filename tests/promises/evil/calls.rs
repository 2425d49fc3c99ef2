//! Plugins that load and do harm when they are called. Each has a router of its own, with a healthy subscription on the
//! same events; the same number of events without the evil one, just before, is what its latencies are compared with.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::guests::{self, Case, End};
use super::{ALONE, Latency, MEMORY_BYTES_MAX, Row, compiling, is_unaffected, print};
use crate::support::components::Guest;
use crate::support::eventually;
use crate::support::receiver::Receiver;
use crate::support::router::RouterProcess;

/// Events of each kind.
const EVENTS: usize = 30;
/// Between two events.
const PACE: Duration = Duration::from_millis(4);
/// How many times a pair of measurements is made at most. What other tests do to the machine passes; what a plugin does stays.
const ROUNDS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(20);
/// What a router may log about an evil plugin.
const LOG_BYTES_MAX: usize = 1 << 20;

/// `calm.*` goes to the healthy subscription alone, `evil.*` to both.
fn routes(receiver: &Receiver, plugins: &Path, cache: &Path) -> String {
    format!(
        r#"
[sandbox]
threads = 2
cache = "{cache}"
[delivery]
allow_networks = ["127.0.0.0/8"]
[endpoints.healthy]
url = "{healthy}"
[endpoints.evil]
url = "{evil}"
[plugins.healthy]
path = "{plugins}/healthy.wasm"
deadline = "5s"
[plugins.evil]
path = "{plugins}/evil.wasm"
[[routes]]
name = "calm"
events = ["calm.*"]
subscriptions = [{{ name = "calm", endpoint = "healthy", plugins = [{{ use = "healthy" }}] }}]
[[routes]]
name = "evil"
events = ["evil.*"]
subscriptions = [
    {{ name = "healthy", endpoint = "healthy", plugins = [{{ use = "healthy" }}] }},
    {{ name = "evil", endpoint = "evil", plugins = [{{ use = "evil" }}], retry = ["1h"] }},
]
"#,
        healthy = receiver.url("/healthy"),
        evil = receiver.url("/evil"),
        plugins = plugins.display(),
        cache = cache.display(),
    )
}

/// Sends events of one kind at a steady pace; gives how long each took to arrive at the healthy endpoint.
async fn deliver(router: &RouterProcess, receiver: &Receiver, kind: &str, round: usize) -> Latency {
    let mut sent = HashMap::new();
    for number in 0..EVENTS {
        let id = format!("evt_{kind}_{round}_{number}");
        let body = format!(r#"{{"id":"{id}","eventType":"{kind}.happened","payload":{{"n":{number}}}}}"#);
        sent.insert(id, Instant::now());
        let answer = router.post("application/json", body).await;
        assert_eq!(answer.expect("the router answers").0, StatusCode::ACCEPTED);
        tokio::time::sleep(PACE).await;
    }
    let arrived = eventually("the healthy subscription's events arrive", PATIENCE, async || {
        let mut arrived = HashMap::new();
        for received in receiver.received("/healthy") {
            let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
            let id = body["id"].as_str().unwrap().to_owned();
            if sent.contains_key(&id) {
                arrived.entry(id).or_insert(received.at);
            }
        }
        (arrived.len() == EVENTS).then_some(arrived)
    });
    let arrived = arrived.await;
    Latency::of(arrived.iter().map(|(id, at)| at.saturating_duration_since(sent[id])).collect())
}

/// Whether the evil plugin's calls ended so at least once, and in no other way.
async fn ended(router: &RouterProcess, receiver: &Receiver, end: &End) -> Option<()> {
    let (_, metrics) = router.get("/metrics").await?;
    let verdicts: Vec<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("branchline_plugin_calls_total{")?.split_once('}'))
        .filter(|(labels, _)| labels.contains(r#"plugin="evil""#))
        .filter_map(|(labels, _)| labels.split("verdict=\"").nth(1)?.strip_suffix('"'))
        .collect();
    match end {
        End::Fault(kind, part) => {
            assert!(verdicts.iter().all(|verdict| verdict == kind), "expected {kind}, found {verdicts:?}");
            (!verdicts.is_empty() && router.log().contains(part)).then_some(())
        }
        End::Sent(length) => {
            assert!(verdicts.iter().all(|verdict| ["send", "pass"].contains(verdict)), "found {verdicts:?}");
            let received = receiver.received("/evil");
            assert!(length.is_none_or(|length| received.iter().all(|received| received.body.len() == length)));
            (!received.is_empty()).then_some(())
        }
    }
}

async fn run(case: &Case, folder: &Path) -> Row {
    std::fs::write(folder.join("evil.wasm"), &case.component).unwrap();
    let receiver = Receiver::start().await;
    let mut router = RouterProcess::new("file:{folder}/data", &routes(&receiver, folder, &folder.join("cache")));
    router.start().await;

    let mut others = Vec::new();
    let mut took = Duration::ZERO;
    for round in 0..ROUNDS {
        let without = deliver(&router, &receiver, "calm", round).await;
        let began = Instant::now();
        let with = deliver(&router, &receiver, "evil", round).await;
        eventually(case.name, PATIENCE, async || ended(&router, &receiver, &case.end).await).await;
        took = began.elapsed();
        others.push([without, with]);
        if is_unaffected([without, with]) {
            break;
        }
    }
    let others = others.pop().filter(|pair| is_unaffected(*pair)).unwrap_or_else(|| {
        panic!("{}: the others were delayed in each of {ROUNDS} rounds", case.name);
    });

    let (status, _) = router.get("/readyz").await.expect("the router is alive");
    assert_eq!(status, StatusCode::OK, "{}: the router is not ready", case.name);
    let memory_bytes = router.memory_peak().expect("the router is alive");
    assert!(memory_bytes <= MEMORY_BYTES_MAX, "{}: the router had {memory_bytes} bytes", case.name);
    let log = router.log();
    assert!(log.len() <= LOG_BYTES_MAX, "{}: the router logged {} bytes", case.name, log.len());
    assert!(!log.contains('\u{1b}') && !log.contains("panicked"), "{}: {log}", case.name);
    router.kill();
    let end = match &case.end {
        End::Fault(kind, part) => format!("{kind}: {part}"),
        End::Sent(None) => "delivered".to_owned(),
        End::Sent(Some(length)) => format!("delivered, {length} bytes"),
    };
    Row { case: case.name, end, took, memory_bytes: Some(memory_bytes), others: Some(others) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evil_plugin_ends_in_a_named_fault_and_costs_the_others_nothing() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("healthy.wasm"), Guest::pass().build()).unwrap();
    let mut rows = Vec::new();
    for case in guests::that_load() {
        rows.push(run(&case, folder.path()).await);
    }
    print("evil when called", &rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compile_bomb_in_a_reload_leaves_the_router_delivering_with_the_old_plugin() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    for name in ["healthy", "evil"] {
        std::fs::write(folder.path().join(format!("{name}.wasm")), Guest::pass().build()).unwrap();
    }
    let receiver = Receiver::start().await;
    let config = routes(&receiver, folder.path(), &folder.path().join("cache"));
    let mut router = RouterProcess::new("file:{folder}/data", &config);
    router.start().await;
    let without = deliver(&router, &receiver, "calm", 0).await;

    std::fs::write(folder.path().join("evil.wasm"), compiling::bomb()).unwrap();
    let began = Instant::now();
    let reload = async {
        let (status, answer) = router.post_admin("/api/v1/reload").await;
        (status, answer, began.elapsed())
    };
    let (with, (status, answer, took)) = tokio::join!(deliver(&router, &receiver, "evil", 0), reload);
    let part = "compiling needed more memory than";
    assert!(!status.is_success() && answer.contains(part), "{status} {answer}");
    eventually("the old plugin still delivers", PATIENCE, async || (receiver.count("/evil") == EVENTS).then_some(()))
        .await;
    assert_eq!(router.get("/readyz").await.expect("the router is alive").0, StatusCode::OK);
    let memory_bytes = router.memory_peak().expect("the router is alive");
    assert!(memory_bytes <= MEMORY_BYTES_MAX, "the router had {memory_bytes} bytes");
    print(
        "evil when reloaded",
        &[Row {
            case: "compile bomb in a reload",
            end: part.to_owned(),
            took,
            memory_bytes: Some(memory_bytes),
            others: Some([without, with]),
        }],
    );
    assert!(with.p99 <= without.p99 * 2 + Duration::from_millis(500), "{:?} → {:?}", without.p99, with.p99);
}
