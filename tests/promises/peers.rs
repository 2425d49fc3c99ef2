//! What breaks a leading open-source webhook server does not break this router: a test a case, with its default limits
//! and the real program. Some cases have their test elsewhere:
//!
//! | what was done there | the test here |
//! |---|---|
//! | a 200 whose body drips or never ends | `send::answers`, and `drips_and_endless_bodies_hold_nobody_up` |
//! | many messages for a hanging endpoint | `messages_for_a_hanging_endpoint_cost_another_no_time` |
//! | a limit that is accepted and not enforced | `a_limit_on_attempts_at_one_time_is_kept`, and of rates in `endpoints` |
//! | `Retry-After` ignored | `life::retry_after_lengthens_a_wait_and_an_endpoint_that_recovers_gets_its_delivery` |
//! | bulk recovery that forgets some and repeats others | `a_bulk_recovery_brings_each_delivery_once` |
//! | the store away during an accept | `an_accept_while_redis_is_away_is_answered_and_its_id_can_be_sent_again` |
//! | the store's data flushed | `after_a_flush_the_router_goes_on_without_a_restart` |
//! | `kill -9` with one of three endpoints slow | `a_kill_with_one_slow_endpoint_repeats_nothing_that_had_ended` |
//! | retries late by a second | `retries_are_made_when_they_are_due` |
//! | an idle router that is slow to stop | `an_idle_router_stops_at_once` |

use std::collections::HashSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::support::eventually;
use crate::support::hostile::Hostile;
use crate::support::receiver::{HANG, Receiver};
use crate::support::redis_server::RedisServer;
use crate::support::router::RouterProcess;

const PATIENCE: Duration = Duration::from_secs(60);

/// A config with these endpoints (name, URL, further keys), each with a subscription for everything.
fn config(endpoints: &[(&str, &str, &str)]) -> String {
    let mut text = String::from("[delivery]\nallow_networks = [\"127.0.0.0/8\"]\n");
    let mut subscriptions = Vec::new();
    for (name, url, keys) in endpoints {
        let _ = write!(text, "[endpoints.{name}]\nurl = \"{url}\"\n{keys}\n");
        subscriptions.push(format!("{{ name = \"{name}\", endpoint = \"{name}\" }}"));
    }
    let subscriptions = subscriptions.join(", ");
    text + &format!("[[routes]]\nname = \"all\"\nevents = [\"**\"]\nsubscriptions = [{subscriptions}]\n")
}

fn event(id: &str) -> String {
    format!(r#"{{"id":"{id}","eventType":"order.created","payload":{{}}}}"#)
}

async fn send(router: &RouterProcess, ids: impl IntoIterator<Item = String>) {
    for id in ids {
        let (status, answer) = router.post("application/json", event(&id)).await.expect("it answers");
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }
}

fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}_{number}")).collect()
}

async fn arrived(receiver: &Receiver, path: &str, count: usize) {
    eventually("deliveries arrive", PATIENCE, async || (receiver.count(path) >= count).then_some(())).await;
}

/// The events that arrived at a path, one entry a request.
fn events_at(receiver: &Receiver, path: &str) -> Vec<String> {
    receiver.received(path).iter().map(|received| received.header("branchline-event").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn drips_and_endless_bodies_hold_nobody_up() {
    let receiver = Receiver::start().await;
    let hostile = Hostile::start().await;
    let config = config(&[
        ("dripping", &hostile.url("/drip"), ""),
        ("endless", &hostile.url("/endless"), ""),
        ("good", &receiver.url("/good"), ""),
    ]);
    let mut router = RouterProcess::new("file:{folder}/data", &config);
    router.start().await;
    let at_rest = router.memory_peak().expect("it runs");
    send(&router, ids("evt", 600)).await;
    arrived(&receiver, "/good", 600).await;
    let (_, metrics) = router.get("/metrics").await.expect("it answers");
    for endpoint in ["dripping", "endless"] {
        let tried = format!("branchline_attempts_total{{endpoint=\"{endpoint}\"");
        assert!(metrics.contains(&tried), "`{endpoint}` was not tried: {metrics}");
    }
    // The kernel counts a process's pages in batches: the most may be read as a little less than before.
    let grown = router.memory_peak().expect("it runs").saturating_sub(at_rest);
    assert!(grown < 128 << 20, "600 bodies without an end took {} MiB", grown >> 20);
    let began = Instant::now();
    assert!(router.stop().await.success());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?} to stop", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_a_hanging_endpoint_cost_another_no_time() {
    let receiver = Receiver::start().await;
    receiver.answers("/hanging", &[HANG]);
    let hanging = receiver.url("/hanging");
    let good = receiver.url("/good");
    let mut text = config(&[("hanging", &hanging, "")]).replace("events = [\"**\"]", "events = [\"hang.*\"]");
    let _ = write!(
        text,
        "[endpoints.good]\nurl = \"{good}\"\n[[routes]]\nname = \"good\"\nevents = [\"order.*\"]\nsubscriptions = [{{ name = \"good\", endpoint = \"good\" }}]\n"
    );
    let mut router = RouterProcess::new("file:{folder}/data", &text);
    router.start().await;
    let events: Vec<String> =
        (0..500).map(|number| format!(r#"{{"id":"hang_{number}","eventType":"hang.on","payload":{{}}}}"#)).collect();
    for batch in 0..3 {
        let batch = format!("[{}]", events.join(",").replace("hang_", &format!("hang_{batch}_")));
        assert_eq!(router.post("application/json", batch).await.expect("it answers").0, StatusCode::ACCEPTED);
    }
    arrived(&receiver, "/hanging", 10).await;
    let mut took = Vec::new();
    for number in 0..50 {
        let sent = Instant::now();
        send(&router, [format!("evt_{number}")]).await;
        arrived(&receiver, "/good", number + 1).await;
        took.push(sent.elapsed());
    }
    took.sort();
    println!("p50 {:?}, worst {:?} beside 1,500 messages for an endpoint that hangs", took[25], took[49]);
    assert!(took[25] < Duration::from_millis(300), "p50 {:?}", took[25]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_attempts_at_one_time_is_kept() {
    let hostile = Hostile::start().await;
    let config = config(&[("slow", &hostile.url("/slow"), "max_in_flight = 3")]);
    let mut router = RouterProcess::new("file:{folder}/data", &config);
    router.start().await;
    send(&router, ids("evt", 60)).await;
    eventually("all arrive", PATIENCE, async || (hostile.answered() >= 60).then_some(())).await;
    assert_eq!(hostile.most_at_one_time(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_recovery_brings_each_delivery_once() {
    let receiver = Receiver::start().await;
    // Each delivery fails once to three times, and then the endpoint says that it is gone.
    receiver.answers("/x", &[&[500; 400][..], &[410, 500]].concat());
    let config = config(&[(
        "x",
        &receiver.url("/x"),
        "retry = [\"200ms\", \"400ms\", \"800ms\", \"1h\", \"1h\"]\nbreaker = \"off\"",
    )]);
    let mut router = RouterProcess::new("file:{folder}/data", &config);
    router.start().await;
    send(&router, ids("evt", 250)).await;
    eventually("the endpoint is disabled", PATIENCE, async || {
        router.get("/api/v1/endpoints").await?.1.contains("410").then_some(())
    })
    .await;
    eventually("no attempt is under way", PATIENCE, async || {
        let (_, metrics) = router.get("/metrics").await?;
        metrics.contains("branchline_attempts_in_flight 0\n").then_some(())
    })
    .await;
    let failed = receiver.count("/x");
    let given_up = events_at(&receiver, "/x").swap_remove(400);
    receiver.answers("/x", &[200]);
    let (status, answer) = router.post_admin("/api/v1/endpoints/x/enable").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    arrived(&receiver, "/x", failed + 249).await;
    // Whatever else there may be to come has come when nothing waits.
    eventually("nothing waits", PATIENCE, async || {
        let (_, metrics) = router.get("/metrics").await?;
        metrics.contains("branchline_scheduled_deliveries 0\n").then_some(())
    })
    .await;
    let recovered = events_at(&receiver, "/x").split_off(failed);
    let distinct: HashSet<String> = recovered.iter().cloned().collect();
    assert_eq!((recovered.len(), distinct.len()), (249, 249), "each once");
    assert!(!distinct.contains(&given_up), "what the endpoint said it no longer wants is a dead letter");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accept_while_redis_is_away_is_answered_and_its_id_can_be_sent_again() {
    let receiver = Receiver::start().await;
    let redis = RedisServer::start("always");
    let mut router = RouterProcess::new(redis.url().expose(), &config(&[("x", &receiver.url("/x"), "")]));
    router.start().await;
    redis.signal("STOP");
    let asked = Instant::now();
    let (status, answer) = router.post("application/json", event("evt_1")).await.expect("it answers");
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    redis.signal("CONT");
    eventually("the same id is taken", PATIENCE, async || {
        let (status, _) = router.post("application/json", event("evt_1")).await?;
        status.is_success().then_some(())
    })
    .await;
    arrived(&receiver, "/x", 1).await;
    send(&router, ["evt_2".to_owned()]).await;
    arrived(&receiver, "/x", 2).await;
    assert_eq!(events_at(&receiver, "/x"), ["evt_1", "evt_2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_the_router_goes_on_without_a_restart() {
    let receiver = Receiver::start().await;
    let redis = RedisServer::start("no");
    let mut router = RouterProcess::new(redis.url().expose(), &config(&[("x", &receiver.url("/x"), "")]));
    router.start().await;
    send(&router, ["before".to_owned()]).await;
    arrived(&receiver, "/x", 1).await;
    redis.cli(&["flushall"]);
    eventually("events are taken", PATIENCE, async || {
        let (status, _) = router.post("application/json", event("after")).await?;
        status.is_success().then_some(())
    })
    .await;
    arrived(&receiver, "/x", 2).await;
    eventually("it is ready", PATIENCE, async || (router.get("/readyz").await?.0 == StatusCode::OK).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_with_one_slow_endpoint_repeats_nothing_that_had_ended() {
    let receiver = Receiver::start().await;
    receiver.answers("/slow", &[HANG]);
    let config = config(&[
        ("one", &receiver.url("/one"), ""),
        ("two", &receiver.url("/two"), ""),
        ("slow", &receiver.url("/slow"), "timeout = \"20s\""),
    ]);
    let mut router = RouterProcess::new("file:{folder}/data", &config);
    router.start().await;
    send(&router, ids("evt", 20)).await;
    for path in ["/one", "/two", "/slow"] {
        arrived(&receiver, path, 20).await;
    }
    // After a quarter of a second the events end without the slow deliveries, which go on by themselves.
    eventually("the events have ended", PATIENCE, async || {
        let (_, metrics) = router.get("/metrics").await?;
        metrics.contains("branchline_scheduled_deliveries 20\n").then_some(())
    })
    .await;
    router.kill();
    receiver.answers("/slow", &[200]);
    let killed = Instant::now();
    router.start().await;
    send(&router, ["after".to_owned()]).await;
    for path in ["/one", "/two", "/slow"] {
        let after = async || events_at(&receiver, path).contains(&"after".to_owned()).then_some(());
        eventually("a new event arrives", PATIENCE, after).await;
    }
    assert!(killed.elapsed() < Duration::from_secs(10), "it paused for {:?}", killed.elapsed());
    assert_eq!((receiver.count("/one"), receiver.count("/two")), (21, 21), "nothing that had ended is repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_made_when_they_are_due() {
    let receiver = Receiver::start().await;
    let redis = RedisServer::start("no");
    receiver.answers("/x", &[&[500; 40][..], &[200]].concat());
    let config = config(&[("x", &receiver.url("/x"), "retry = [\"500ms\"]\nbreaker = \"off\"")]);
    let mut router = RouterProcess::new(redis.url().expose(), &config);
    router.start().await;
    send(&router, ids("evt", 40)).await;
    arrived(&receiver, "/x", 80).await;
    let received = receiver.received("/x");
    let mut late: Vec<Duration> = Vec::new();
    for first in &received[..40] {
        let again = received[40..].iter().find(|again| again.header("webhook-id") == first.header("webhook-id"));
        // The wait is lengthened by up to a tenth, at random.
        late.push(again.expect("each comes again").at.duration_since(first.at) - Duration::from_millis(500));
    }
    late.sort();
    println!("retries after 500 ms (up to 550): p50 {:?} late, worst {:?}", late[20], late[39]);
    assert!(late[20] < Duration::from_millis(200), "p50 {:?} late", late[20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_router_stops_at_once() {
    let receiver = Receiver::start().await;
    let redis = RedisServer::start("no");
    for store in [redis.url().expose(), "file:{folder}/data"] {
        let mut router = RouterProcess::new(store, &config(&[("x", &receiver.url("/x"), "")]));
        router.start().await;
        let began = Instant::now();
        assert!(router.stop().await.success());
        assert!(began.elapsed() < Duration::from_secs(3), "{:?} to stop", began.elapsed());
    }
}
