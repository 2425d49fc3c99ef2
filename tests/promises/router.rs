//! What an operator relies on: shutdown, disabled endpoints, isolation, exit codes, probes; with the real program.

use std::process::Command;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::support::receiver::{HANG, Receiver};
use crate::support::router::{KEY, RouterProcess};
use crate::support::{SECRET, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// One route for everything to an endpoint at `/x`, with `extra` keys for endpoint and subscription.
fn one_endpoint(receiver: &Receiver, delivery: &str, endpoint: &str, subscription: &str) -> String {
    format!(
        r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
{delivery}
[endpoints.x]
url = "{url}"
secret = {{ env = "TEST_SECRET" }}
{endpoint}
[[routes]]
name = "all"
events = ["**"]
subscriptions = [{{ name = "x", endpoint = "x"{subscription} }}]
"#,
        url = receiver.url("/x?token=marker-in-the-url"),
    )
}

fn event(id: &str) -> String {
    format!(r#"{{"id":"{id}","eventType":"order.created","payload":{{"card":"marker-in-the-payload"}}}}"#)
}

async fn send(router: &RouterProcess, id: &str) {
    let (status, answer) = router.post("application/json", event(id)).await.unwrap();
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
}

async fn arrived(receiver: &Receiver, path: &str, count: usize) {
    eventually("deliveries arrive", PATIENCE, async || (receiver.count(path) >= count).then_some(())).await;
}

#[test]
fn the_demo_ends_as_expected() {
    let output = Command::new(env!("CARGO_BIN_EXE_branchline")).args(["demo", "--once"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in ["dead-letter", "filtered", "dropped", "attempt 2", "All 21 outcomes are as expected."] {
        assert!(text.contains(line), "`{line}` is not in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_what_is_in_flight_is_finished_and_the_exit_code_is_0() {
    let receiver = Receiver::start().await;
    let mut router = RouterProcess::new("file:{folder}/data", &one_endpoint(&receiver, "", "", ""));
    router.start().await;
    for number in 0..200 {
        send(&router, &format!("evt_{number}")).await;
    }
    let status = router.stop().await;
    assert!(status.success(), "{status}");
    let before = receiver.count("/x");
    router.start().await;
    arrived(&receiver, "/x", 200).await;
    router.stop().await;
    assert_eq!(receiver.count("/x"), 200, "{before} had arrived before the restart; nothing is lost, nothing repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_in_time_is_handed_back_and_taken_up_after_a_restart() {
    let receiver = Receiver::start().await;
    receiver.answers("/x", &[HANG, 200]);
    let config = one_endpoint(&receiver, "shutdown_grace = \"300ms\"", "timeout = \"20s\"", "");
    let mut router = RouterProcess::new("file:{folder}/data", &config);
    router.start().await;
    send(&router, "evt_1").await;
    arrived(&receiver, "/x", 1).await;
    let began = Instant::now();
    let status = router.stop().await;
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(15), "the hanging attempt did not hold the shutdown up");
    router.start().await;
    arrived(&receiver, "/x", 2).await;
    let requests = receiver.received("/x");
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    assert_eq!(requests[0].body, requests[1].body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_router_at_once() {
    let receiver = Receiver::start().await;
    receiver.answers("/x", &[HANG]);
    let mut router = RouterProcess::new("file:{folder}/data", &one_endpoint(&receiver, "", "timeout = \"30s\"", ""));
    router.start().await;
    send(&router, "evt_1").await;
    arrived(&receiver, "/x", 1).await;
    router.terminate();
    eventually("the first signal is heard", PATIENCE, async || {
        (router.get("/readyz").await?.0 == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    router.terminate();
    assert_eq!(router.ended().await.code(), Some(130));
}

async fn is_disabled(router: &RouterProcess) -> bool {
    router.get("/api/v1/endpoints").await.is_some_and(|(_, body)| body.contains("410"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_410_disables_the_endpoint_and_its_deliveries_wait_until_it_is_enabled() {
    let receiver = Receiver::start().await;
    receiver.answers("/x", &[410, 200]);
    let mut router = RouterProcess::new("file:{folder}/data", &one_endpoint(&receiver, "", "", ""));
    router.start().await;
    send(&router, "evt_gone").await;
    eventually("the endpoint is disabled", PATIENCE, async || is_disabled(&router).await.then_some(())).await;
    for number in 0..3 {
        send(&router, &format!("evt_{number}")).await;
    }
    eventually("the deliveries wait", PATIENCE, async || {
        let (_, metrics) = router.get("/metrics").await?;
        metrics.contains("branchline_scheduled_deliveries 3\n").then_some(())
    })
    .await;
    assert_eq!(receiver.count("/x"), 1, "nothing is sent to a disabled endpoint");
    // The mark is in the store: a restart does not lift it.
    router.stop().await;
    router.start().await;
    assert!(is_disabled(&router).await);
    let (status, answer) = router.post_admin("/api/v1/endpoints/x/enable").await;
    assert_eq!((status, answer.contains("\"deliveriesDue\":3")), (StatusCode::OK, true), "{answer}");
    arrived(&receiver, "/x", 4).await;
}

/// Two endpoints for everything: one that hangs and may have two attempts under way, and a healthy one.
fn hanging_and_healthy(receiver: &Receiver) -> String {
    format!(
        r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
[endpoints.hanging]
url = "{hanging}"
max_in_flight = 2
[endpoints.healthy]
url = "{healthy}"
[[routes]]
name = "all"
events = ["**"]
subscriptions = [{{ name = "hanging", endpoint = "hanging" }}, {{ name = "healthy", endpoint = "healthy" }}]
"#,
        hanging = receiver.url("/hanging"),
        healthy = receiver.url("/healthy"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_endpoint_does_not_hold_up_another() {
    let receiver = Receiver::start().await;
    receiver.answers("/hanging", &[HANG]);
    let mut router = RouterProcess::new("file:{folder}/data", &hanging_and_healthy(&receiver));
    router.start().await;
    let began = Instant::now();
    for number in 0..500 {
        send(&router, &format!("evt_{number}")).await;
    }
    arrived(&receiver, "/healthy", 500).await;
    // With two at a time and 3 s each, waiting for the hanging endpoint would have taken twelve minutes.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(receiver.count("/hanging") < 100, "{}", receiver.count("/hanging"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_where_that_would_take_for_ever_filters_the_event_and_says_so() {
    let receiver = Receiver::start().await;
    let condition = "where = \"payload.items.all(x, payload.items.exists(y, y.ref == x.id))\"\nsubscriptions";
    let config = one_endpoint(&receiver, "", "", "").replace("subscriptions", condition);
    let mut router = RouterProcess::new("file:{folder}/data", &config);
    router.start().await;
    let items: Vec<String> = (0..20_000).map(|n| format!(r#"{{"id":{n},"ref":{n}}}"#)).collect();
    for id in ["evt_1", "evt_2", "evt_3"] {
        let event = format!(r#"{{"id":"{id}","eventType":"a.b","payload":{{"items":[{}]}}}}"#, items.join(","));
        assert_eq!(router.post("application/json", event).await.unwrap().0, StatusCode::ACCEPTED);
    }
    let small = r#"{"id":"evt_4","eventType":"a.b","payload":{"items":[{"id":1,"ref":1}]}}"#;
    assert_eq!(router.post("application/json", small).await.unwrap().0, StatusCode::ACCEPTED);
    arrived(&receiver, "/x", 1).await;
    eventually("the large ones are filtered", PATIENCE, async || {
        let (_, metrics) = router.get("/metrics").await?;
        metrics.contains(r#"branchline_outcomes_total{subscription="x",outcome="filtered"} 3"#).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_metrics_and_logs_tell_what_happens_and_no_secret() {
    let receiver = Receiver::start().await;
    receiver.answers("/x", &[500, 200]);
    let mut router = RouterProcess::new("file:{folder}/data", &one_endpoint(&receiver, "", "", ", retry = [\"50ms\"]"));
    router.start().await;
    send(&router, "evt_1").await;
    let (status, _) = router.post("application/json", r#"{"eventType":1}"#).await.unwrap();
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    arrived(&receiver, "/x", 2).await;
    let metrics = eventually("the metrics have it", PATIENCE, async || {
        let (_, metrics) = router.get("/metrics").await?;
        metrics.contains(r#"branchline_outcomes_total{subscription="x",outcome="delivered"} 1"#).then_some(metrics)
    })
    .await;
    for line in [
        r#"branchline_accepted_events_total{source="app"} 1"#,
        r#"branchline_refused_requests_total{source="app",status="422"} 1"#,
        r#"branchline_attempts_total{endpoint="x",result="5xx"} 1"#,
        r#"branchline_attempts_total{endpoint="x",result="2xx"} 1"#,
        "branchline_delivery_age_seconds_count 1",
        "branchline_backlog_events ",
        "branchline_scheduled_deliveries ",
    ] {
        assert!(metrics.contains(line), "`{line}` is not in\n{metrics}");
    }
    assert_eq!(router.get("/healthz").await.unwrap().0, StatusCode::OK);
    assert_eq!(router.get("/nothing").await.unwrap().0, StatusCode::NOT_FOUND);
    router.stop().await;
    let log = router.log();
    assert!(log.contains("attempt failed: the endpoint answered 500"), "{log}");
    for secret in [KEY, SECRET, "marker-in-the-url", "marker-in-the-payload"] {
        assert!(!log.contains(secret) && !metrics.contains(secret), "{secret} is shown");
    }
}

/// A route for everything to a path of the receiver.
pub fn route_to(receiver: &Receiver, path: &str) -> String {
    let url = receiver.url(path);
    format!(
        "[delivery]\nallow_networks = [\"127.0.0.0/8\"]\n[endpoints.x]\nurl = \"{url}\"\n[[routes]]\nname = \"all\"\nevents = [\"**\"]\nsubscriptions = [{{ name = \"x\", endpoint = \"x\" }}]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_swaps_the_config_and_a_bad_one_never_replaces_a_good_one() {
    let receiver = Receiver::start().await;
    let mut router = RouterProcess::new("file:{folder}/data", &route_to(&receiver, "/first"));
    router.start().await;
    send(&router, "evt_1").await;
    arrived(&receiver, "/first", 1).await;

    router.write_config(&route_to(&receiver, "/second"));
    let (status, answer) = router.post_admin("/api/v1/reload").await;
    assert_eq!((status, answer.contains("\"generation\":2")), (StatusCode::OK, true), "{answer}");
    send(&router, "evt_2").await;
    arrived(&receiver, "/second", 1).await;

    router.write_config("[endpoint.x]\nurl = \"https://example.com/\"\n[[routes]]\n");
    let (status, answer) = router.post_admin("/api/v1/reload").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let problem: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&problem["status"], &problem["generation"]), (&422.into(), &2.into()), "{problem:#}");
    let errors = problem["errors"].as_array().unwrap();
    assert!(errors.len() > 1 && errors.iter().all(|error| error["line"].is_u64()), "{problem:#}");
    assert!(errors[0]["detail"].as_str().unwrap().contains("did you mean `endpoints`"), "{problem:#}");
    // The line is that of the fixture's own text before it; `config::mistakes` holds exact places.
    assert!(answer.contains("branchline.toml:") && answer.contains("did you mean `endpoints`"), "{answer}");
    let (_, shown) = router.get("/api/v1/config").await.unwrap();
    assert!(shown.contains("\"generation\":2") && shown.contains("lastFault"), "{shown}");
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(shown["loadedAt"].as_str().unwrap().ends_with('Z'), "{shown}");
    router.hang_up();
    let audit = eventually("both are in the audit log", PATIENCE, async || {
        let (_, audit) = router.get("/api/v1/audit?limit=3").await?;
        let audit: serde_json::Value = serde_json::from_str(&audit).unwrap();
        (audit["entries"].as_array()?.len() == 3).then_some(audit["entries"].clone())
    })
    .await;
    for (place, who) in [(0, "SIGHUP"), (1, "loopback")] {
        let entry = &audit[place];
        assert_eq!((&entry["who"], &entry["action"]), (&who.into(), &"reload".into()), "{audit:#}");
        let detail = entry["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("not reloaded, generation 2 stays in use: ") && detail.contains(".toml:"),
            "{audit:#}"
        );
    }
    assert_eq!(audit[2]["detail"], "generation 2 is in use", "{audit:#}");
    send(&router, "evt_3").await;
    arrived(&receiver, "/second", 2).await;

    router.write_config(&route_to(&receiver, "/third"));
    router.hang_up();
    eventually("the third generation is in use", PATIENCE, async || {
        let (_, shown) = router.get("/api/v1/config").await?;
        (shown.contains("\"generation\":3") && !shown.contains("lastFault")).then_some(())
    })
    .await;
    send(&router, "evt_4").await;
    arrived(&receiver, "/third", 1).await;
    assert_eq!((receiver.count("/first"), receiver.count("/second")), (1, 2));
}

#[test]
fn an_invalid_config_ends_with_78_and_names_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("branchline.toml");
    let serve = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_branchline")).args(["serve", "--config"]).arg(&path).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let source =
        "[sources.app]\npath = \"/v1/events\"\nauth = \"none\"\n[endpoints.x]\nurl = \"https://example.com/\"\n";
    let route = |extra: &str| {
        format!(
            "{source}[[routes]]\nname = \"r\"\nevents = [\"order.*\"]\n{extra}\nsubscriptions = [{{ name = \"s\", endpoint = \"x\" }}]\n"
        )
    };
    for (text, part) in [
        (format!("{source}\n[ingest]\nlisten_on = \"127.0.0.1:0\"\n"), "branchline.toml:8:1"),
        (format!("{source}\n[ingest]\nlisten_on = \"127.0.0.1:0\"\n"), "did you mean `listen`"),
        (route("where = \"paylod.amount > 1\""), "branchline.toml:9:"),
        (route("where = \"paylod.amount > 1\""), "did you mean `payload`"),
        (format!("{source}[plugins.p]\npath = \"missing.wasm\"\n"), "missing.wasm"),
    ] {
        let (code, message) = serve(&text);
        assert_eq!(code, Some(78), "{message}");
        assert!(message.contains(part), "`{part}` is not in\n{message}");
    }
    let wrong_usage = Command::new(env!("CARGO_BIN_EXE_branchline")).arg("serv").output().unwrap();
    assert_eq!(wrong_usage.status.code(), Some(2));
}
