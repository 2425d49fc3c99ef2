//! One bad endpoint costs the others nothing: breaker, pause and resume, rate; with the real program.

use std::time::{Duration, Instant};

use http::StatusCode;

use crate::support::eventually;
use crate::support::receiver::{HANG, Receiver};
use crate::support::redis_server::RedisServer;
use crate::support::router::RouterProcess;

mod isolation; // The others' latencies beside a hanging and a refusing endpoint.

const PATIENCE: Duration = Duration::from_secs(60);

/// One route for everything to an endpoint at `/x`, with `extra` keys for endpoint and subscription.
fn config(receiver: &Receiver, path: &str, endpoint: &str, subscription: &str) -> String {
    let url = receiver.url(path);
    format!(
        r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
[endpoints.x]
url = "{url}"
{endpoint}
[[routes]]
name = "all"
events = ["**"]
subscriptions = [{{ name = "x", endpoint = "x"{subscription} }}]
"#
    )
}

async fn send(router: &RouterProcess, count: usize) {
    for number in 0..count {
        let event = format!(r#"{{"eventType":"order.created","payload":{number}}}"#);
        let (status, answer) = router.post("application/json", event).await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }
}

async fn metric(router: &RouterProcess, line: &str) {
    let shown = async || router.get("/metrics").await?.1.contains(&format!("{line}\n")).then_some(());
    eventually(line, PATIENCE, shown).await;
}

/// What the list of endpoints says of the only one.
async fn listed(router: &RouterProcess) -> serde_json::Value {
    let (_, body) = router.get("/api/v1/endpoints").await.unwrap();
    serde_json::from_str::<serde_json::Value>(&body).unwrap()["endpoints"][0].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_keeps_failing_is_left_alone_until_a_probe_finds_it_back() {
    let receiver = Receiver::start().await;
    receiver.answers("/x", &[500, 500, 500, 503, 200]);
    let extra = "breaker = 3\nmax_in_flight = 1";
    // Two retries, as many as one delivery can meet failures here: if waiting used up attempts, some would end as dead letters.
    let config = config(&receiver, "/x", extra, ", retry = [\"100ms\", \"100ms\"]");
    let mut router = RouterProcess::new("file:{folder}/data", &config);
    router.start().await;
    send(&router, 30).await;
    metric(&router, "branchline_endpoint_breaker_open{endpoint=\"x\"} 1").await;
    metric(&router, "branchline_outcomes_total{subscription=\"x\",outcome=\"delivered\"} 30").await;
    metric(&router, "branchline_endpoint_breaker_open{endpoint=\"x\"} 0").await;
    let received = receiver.received("/x");
    let pause = |number: usize| received[number].at - received[number - 1].at;
    assert!(pause(3) >= Duration::from_millis(950), "nothing was sent before the probe: {:?}", pause(3));
    assert!(
        pause(4) >= Duration::from_millis(1_900),
        "after a failed probe the pause is twice as long: {:?}",
        pause(4)
    );
    assert_eq!(received.len(), 4 + 30, "no attempt but the three, the failed probe and one for each delivery");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_outlives_a_reload_that_leaves_the_endpoint_as_it_was_and_no_other() {
    let receiver = Receiver::start().await;
    receiver.answers("/x", &[500]);
    let extra = "breaker = 2";
    let mut router = RouterProcess::new("file:{folder}/data", &config(&receiver, "/x", extra, ""));
    router.start().await;
    send(&router, 4).await;
    metric(&router, "branchline_endpoint_breaker_open{endpoint=\"x\"} 1").await;
    router.write_config(&config(&receiver, "/x", &format!("{extra}\ntimeout = \"9s\""), ""));
    assert_eq!(router.post_admin("/api/v1/reload").await.0, StatusCode::OK);
    let sent = receiver.count("/x");
    send(&router, 20).await;
    assert!(receiver.count("/x") <= sent + 2, "a probe or two at most");
    router.write_config(&config(&receiver, "/y", extra, ""));
    assert_eq!(router.post_admin("/api/v1/reload").await.0, StatusCode::OK);
    assert_eq!(listed(&router).await["breakerOpen"], false, "another URL is another endpoint");
    send(&router, 1).await;
    eventually("it is sent", PATIENCE, async || (receiver.count("/y") > 0).then_some(())).await;
    router.write_config(&config(&receiver, "/x", "breaker = \"off\"", ""));
    assert_eq!(router.post_admin("/api/v1/reload").await.0, StatusCode::OK);
    let sent = receiver.count("/x");
    send(&router, 20).await;
    eventually("all are sent", PATIENCE, async || (receiver.count("/x") >= sent + 20).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_a_paused_endpoint_is_held_over_a_restart_and_goes_when_it_is_resumed() {
    let receiver = Receiver::start().await;
    let mut router = RouterProcess::new("file:{folder}/data", &config(&receiver, "/x", "", ""));
    router.start().await;
    let (status, answer) = router.post_admin("/api/v1/endpoints/x/pause").await;
    assert_eq!((status, answer.as_str()), (StatusCode::OK, r#"{"name":"x","wasPaused":false}"#));
    send(&router, 5).await;
    metric(&router, "branchline_scheduled_deliveries 5").await;
    assert_eq!(listed(&router).await["paused"]["reason"], "paused by the operator");
    router.stop().await;
    router.start().await;
    send(&router, 5).await;
    metric(&router, "branchline_scheduled_deliveries 10").await;
    // To enable it is not to resume it.
    let (_, answer) = router.post_admin("/api/v1/endpoints/x/enable").await;
    assert!(answer.contains("\"wasDisabled\":false") && answer.contains("\"deliveriesDue\":0"), "{answer}");
    assert_eq!(receiver.count("/x"), 0, "nothing is sent to a paused endpoint");
    let (status, answer) = router.post_admin("/api/v1/endpoints/x/resume").await;
    assert_eq!(status, StatusCode::OK);
    assert!(answer.contains("\"wasPaused\":true") && answer.contains("\"deliveriesDue\":10"), "{answer}");
    eventually("all arrive", PATIENCE, async || (receiver.count("/x") >= 10).then_some(())).await;
    metric(&router, "branchline_scheduled_deliveries 0").await;
    assert!(receiver.received("/x").iter().all(|request| request.header("branchline-attempt") == "1"));
    assert_eq!(listed(&router).await["paused"], serde_json::Value::Null);
    assert_eq!(router.post_admin("/api/v1/endpoints/nobody/pause").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_counts_for_every_router_and_so_does_its_end() {
    let redis = RedisServer::start("no");
    let receiver = Receiver::start().await;
    let config = config(&receiver, "/x", "", "");
    let start = async || {
        let mut router = RouterProcess::new(redis.url().expose(), &config);
        router.start().await;
        router
    };
    let (one, other) = (start().await, start().await);
    assert_eq!(one.post_admin("/api/v1/endpoints/x/pause").await.0, StatusCode::OK);
    let is_held = async || (listed(&other).await["held"] == "paused").then_some(());
    eventually("the other router holds it", PATIENCE, is_held).await;
    send(&other, 10).await;
    metric(&one, "branchline_scheduled_deliveries 10").await;
    assert_eq!(receiver.count("/x"), 0);
    assert_eq!(other.post_admin("/api/v1/endpoints/x/resume").await.0, StatusCode::OK);
    // The first router may park some once more; it is told within two seconds, not after five minutes.
    eventually("all arrive", PATIENCE, async || (receiver.count("/x") >= 10).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_sent_no_more_than_its_rate_and_loses_nothing_by_it() {
    let receiver = Receiver::start().await;
    let mut router = RouterProcess::new("file:{folder}/data", &config(&receiver, "/x", "rate = \"10/s\"", ""));
    router.start().await;
    let began = Instant::now();
    send(&router, 40).await;
    eventually("all arrive", PATIENCE, async || (receiver.count("/x") >= 40).then_some(())).await;
    assert!(began.elapsed() >= Duration::from_millis(3_800), "40 at 10/s take 4 s: {:?}", began.elapsed());
    let received = receiver.received("/x");
    assert!(received.iter().all(|request| request.header("branchline-attempt") == "1"), "waiting is no attempt");
    // Over any second: ten, one at its edge, and what a busy machine held up for a moment.
    for window in received.windows(16) {
        let span = window[15].at - window[0].at;
        assert!(span >= Duration::from_secs(1), "16 within {span:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_endpoint_with_a_long_queue_costs_few_attempts() {
    let receiver = Receiver::start().await;
    receiver.answers("/x", &[HANG]);
    let extra = "timeout = \"500ms\"\nmax_in_flight = 8\nbreaker = 8";
    let mut router = RouterProcess::new("file:{folder}/data", &config(&receiver, "/x", extra, ""));
    router.start().await;
    send(&router, 300).await;
    metric(&router, "branchline_endpoint_breaker_open{endpoint=\"x\"} 1").await;
    metric(&router, "branchline_scheduled_deliveries 300").await;
    // Pauses of 1, 2, 4 s and the attempts' own half second: one attempt at a time, and not 8 each half second.
    let sent = receiver.count("/x");
    eventually("it is probed", PATIENCE, async || (receiver.count("/x") >= sent + 3).then_some(())).await;
    let probes = &receiver.received("/x")[sent..];
    let between = probes[2].at - probes[0].at;
    assert!(between >= Duration::from_millis(2_900), "three attempts within {between:?}");
    assert_eq!(router.get("/readyz").await.unwrap().0, StatusCode::OK);
}
