//! What becomes of deliveries whose plugin breaks or only watches: breaker, `on_error`, shadow mode; with the real program.

use std::path::Path;
use std::time::Duration;

use branchline::clock::Clock;
use branchline::delivery::{DeadLetterReason, NoteKind, Outcome, OutcomeRecord};
use branchline::store::embedded::EmbeddedStore;
use branchline::store::{Store, StoreOptions};
use http::StatusCode;

use crate::support::components::Guest;
use crate::support::eventually;
use crate::support::receiver::Receiver;
use crate::support::router::RouterProcess;

const PATIENCE: Duration = Duration::from_secs(30);

/// A subscription `x` through a plugin of the file `plugin.wasm`, with these keys, and one beside it without a plugin.
fn config(receiver: &Receiver, plugin: &Path, subscription: &str, plugin_use: &str) -> String {
    format!(
        r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
[endpoints.x]
url = "{x}"
[endpoints.healthy]
url = "{healthy}"
[plugins.p]
path = "{plugin}"
[[routes]]
name = "all"
events = ["**"]
subscriptions = [
  {{ name = "x", endpoint = "x", retry = ["1h"]{subscription}, plugins = [{{ use = "p"{plugin_use} }}] }},
  {{ name = "healthy", endpoint = "healthy" }},
]
"#,
        x = receiver.url("/x"),
        healthy = receiver.url("/healthy"),
        plugin = plugin.display(),
    )
}

struct Case {
    receiver: Receiver,
    router: RouterProcess,
    _folder: tempfile::TempDir,
    plugin: std::path::PathBuf,
}

impl Case {
    async fn start(guest: &Guest, subscription: &str, plugin_use: &str) -> Self {
        let receiver = Receiver::start().await;
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("plugin.wasm");
        std::fs::write(&plugin, guest.build()).unwrap();
        let config = config(&receiver, &plugin, subscription, plugin_use);
        let mut router = RouterProcess::new("file:{folder}/data", &config);
        router.start().await;
        Self { receiver, router, _folder: folder, plugin }
    }

    async fn send(&self, from: u32, to: u32) {
        for number in from..to {
            let event = format!(r#"{{"id":"evt_{number}","eventType":"order.created","payload":{number}}}"#);
            let (status, answer) = self.router.post("application/json", event).await.unwrap();
            assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        }
    }

    async fn arrived(&self, path: &str, count: usize) {
        eventually(path, PATIENCE, async || (self.receiver.count(path) >= count).then_some(())).await;
    }

    async fn metric(&self, name: &str) -> u64 {
        let (_, metrics) = self.router.get("/metrics").await.unwrap();
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
    }

    /// Stops the router and reads what it recorded for the subscription `x`.
    async fn outcomes(mut self) -> Vec<OutcomeRecord> {
        self.router.stop().await;
        let folder = self.router.folder().join("data");
        let store = EmbeddedStore::open(&folder, StoreOptions::default(), Clock::system()).await.unwrap();
        let (records, _) = store.outcomes(None, 10_000).await.unwrap();
        records.into_iter().filter(|record| record.subscription.as_deref() == Some("x")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_keeps_breaking_is_left_alone_until_it_is_mended_and_nothing_is_lost() {
    let case = Case::start(&Guest::new("unreachable"), "", "").await;
    case.send(0, 5).await;
    eventually("the breaker opens", PATIENCE, async || {
        (case.metric(r#"branchline_plugin_breaker_open{plugin="p"}"#).await == 1).then_some(())
    })
    .await;
    case.send(5, 100).await;
    case.arrived("/healthy", 100).await;
    eventually("the deliveries wait", PATIENCE, async || {
        (case.metric("branchline_scheduled_deliveries").await == 100).then_some(())
    })
    .await;
    let calls = case.metric(r#"branchline_plugin_calls_total{plugin="p",verdict="trap"}"#).await;
    assert!((5..20).contains(&calls), "100 deliveries made {calls} calls");

    // The mended file is another component, so it starts without the other's faults.
    std::fs::write(&case.plugin, Guest::pass().build()).unwrap();
    let (status, answer) = case.router.post_admin("/api/v1/reload").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let waited = 100 - usize::try_from(calls).unwrap();
    case.arrived("/x", waited).await;
    let ids: std::collections::BTreeSet<_> =
        case.receiver.received("/x").iter().map(|r| r.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), case.receiver.count("/x"), "each arrives once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_with_a_file_that_is_no_plugin_leaves_the_old_one_in_use() {
    let case = Case::start(&Guest::pass(), "", "").await;
    std::fs::write(&case.plugin, b"no plugin").unwrap();
    let (status, answer) = case.router.post_admin("/api/v1/reload").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.contains("branchline.toml:") && answer.contains("plugin.wasm"), "{answer}");
    std::fs::write(&case.plugin, Guest::pass().refusing_configs("no config is good enough").build()).unwrap();
    case.send(0, 3).await;
    case.arrived("/x", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_in_shadow_mode_changes_nothing_and_what_it_would_have_done_is_recorded() {
    for (guest, would) in [
        (Guest::drop("not wanted"), "drop: not wanted"),
        (Guest::send(&[], "text/plain", "other"), "send"),
        (Guest::new("unreachable"), "trap"),
    ] {
        let case = Case::start(&guest, "", r#", mode = "shadow""#).await;
        case.send(0, 1).await;
        case.arrived("/x", 1).await;
        let body = case.receiver.received("/x").remove(0).body;
        assert!(String::from_utf8_lossy(&body).contains(r#""payload":0"#));
        let record = case.outcomes().await.remove(0);
        assert_eq!(record.outcome, Some(Outcome::Delivered));
        assert_eq!((record.notes[0].plugin.as_str(), record.notes[0].kind), ("p", NoteKind::Shadow));
        assert!(record.notes[0].detail.starts_with(would), "{:?}", record.notes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_error_decides_what_a_fault_means() {
    let case = Case::start(&Guest::new("unreachable"), r#", on_error = "pass-through""#, "").await;
    case.send(0, 1).await;
    case.arrived("/x", 1).await;
    let record = case.outcomes().await.remove(0);
    assert_eq!((record.outcome, record.notes[0].kind), (Some(Outcome::Delivered), NoteKind::PassedThrough));

    let case = Case::start(&Guest::new("unreachable"), r#", on_error = "dead-letter""#, "").await;
    case.send(0, 1).await;
    eventually("it is given up", PATIENCE, async || {
        (case.metric(r#"branchline_outcomes_total{subscription="x",outcome="dead-letter"}"#).await == 1).then_some(())
    })
    .await;
    let outcome = case.outcomes().await.remove(0).outcome;
    assert!(matches!(outcome, Some(Outcome::DeadLetter { reason: DeadLetterReason::NotRetryable, .. })), "{outcome:?}");
}
