//! What happens, as it happens: a line each, for who wants it, without waiting for anybody.

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::{Kind, World};

/// One who watches.
struct Watcher {
    body: Incoming,
    read: Vec<u8>,
}

impl Watcher {
    async fn begin(world: &World, query: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let uri = format!("http://127.0.0.1:{}/api/v1/tail{query}", world.router.admin);
        let response = client.request(Request::get(uri).body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Self { body: response.into_body(), read: Vec::new() }
    }

    /// The next line; none when the router has ended it.
    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line is JSON"));
            }
            let frame = tokio::time::timeout(Duration::from_secs(30), self.body.frame()).await.expect("a line comes");
            self.read.extend(frame?.ok()?.into_data().expect("there are no trailers"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_of_events_attempts_and_outcomes_that_are_wanted() {
    let mut world = World::start(Kind::Embedded).await;
    let mut all = Watcher::begin(&world, "").await;
    let mut bad = Watcher::begin(&world, "?subscription=bad&type=order.*").await;
    world.send("evt_0", "user.created", 1).await;
    world.send("evt_1", "order.created", 1).await;
    let (mut seen, mut ended) = (Vec::new(), 0);
    while ended < 5 {
        let line = all.line().await.expect("the router goes on");
        let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        ended += usize::from(line["kind"] == "outcome");
        seen.push(format!("{} {} {}", word("kind"), word("subscription"), word("outcome")));
    }
    for expected in [
        "accepted  ",
        "attempt ok ",
        "outcome ok delivered",
        "attempt bad ",
        "outcome bad dead-letter",
        "outcome later scheduled",
        "outcome big filtered",
        "outcome  unmatched",
    ] {
        assert!(seen.iter().any(|line| line == expected), "`{expected}` is not in {seen:?}");
    }
    let line = bad.line().await.unwrap();
    assert_eq!((&line["kind"], &line["attempt"]["status"]), (&"attempt".into(), &500.into()), "{line}");
    assert!(!line.to_string().contains("told so"), "what an endpoint said is not told");
    let line = bad.line().await.unwrap();
    assert_eq!((&line["kind"], &line["reason"]), (&"outcome".into(), &"exhausted".into()), "{line}");
    world.router.stop().await;
    assert_eq!(bad.line().await, None, "the end of the router is the end of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_watch_than_the_limit_and_who_goes_away_makes_room() {
    let world = World::start(Kind::Embedded).await;
    let mut watchers = Vec::new();
    for _ in 0..16 {
        watchers.push(Watcher::begin(&world, "").await);
    }
    let (status, problem) = world.router.call("GET", "/api/v1/tail", "", &[]).await;
    assert_eq!(status, 503, "{problem}");
    watchers.pop();
    crate::support::eventually("there is room again", super::PATIENCE, async || {
        // Nobody is waited for: the place is free when the router has noticed.
        let uri = format!("http://127.0.0.1:{}/api/v1/tail", world.router.admin);
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let response = client.request(Request::get(uri).body(Empty::new()).unwrap()).await.unwrap();
        (response.status() == 200).then_some(())
    })
    .await;
}
