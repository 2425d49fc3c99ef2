//! With one of 50 endpoints hanging and one refusing, how long do deliveries to the 48 others take? Two routers get the same events
//! at the same moments, and only in one of them the two are bad: what else the machine does meets both alike.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::support::eventually;
use crate::support::receiver::{HANG, Receiver};
use crate::support::redis_server::RedisServer;
use crate::support::router::{RouterProcess, free_port};
use crate::support::stores::{Kind, on_both_stores};

on_both_stores!([
    with_one_of_50_endpoints_hanging_and_one_refusing_the_others_latency_is_what_it_was
    without_breakers_too
]);

const HEALTHY: usize = 48;
/// In one series; of five events one is for each of the two that may be bad.
const EVENTS: usize = 800;
/// Where one misses, the next is added to it, so that only what stays true fails.
const SERIES_MAX: usize = 4;
/// How many attempts to a hanging endpoint without a breaker are under way: more events come in its timeout.
const TURNS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);

/// A router, and when its healthy endpoints' events were sent to it.
struct Side {
    name: &'static str,
    router: RouterProcess,
    sent: HashMap<String, Instant>,
    _server: Option<RedisServer>,
}

impl Side {
    /// 50 endpoints, each with a type of its own: 48 that answer, and two at these URLs.
    async fn start(
        name: &'static str,
        store: Kind,
        receiver: &Receiver,
        bad: &str,
        hanging: &str,
        refusing: &str,
    ) -> Self {
        let mut text = "[delivery]\nallow_networks = [\"127.0.0.0/8\"]\n".to_owned();
        let mut add = |name: &str, url: &str, more: &str| {
            let _ = write!(
                text,
                "[endpoints.{name}]\nurl = \"{url}\"\n{more}\n[[routes]]\nname = \"{name}\"\nevents = [\"{name}\"]\n\
                 subscriptions = [{{ name = \"{name}\", endpoint = \"{name}\" }}]\n"
            );
        };
        for number in 0..HEALTHY {
            add(&format!("healthy-{number}"), &receiver.url(&format!("/{name}")), "");
        }
        add("hanging", hanging, bad);
        add("refusing", refusing, bad);
        let (url, server) = store.open();
        let mut router = RouterProcess::new(&url, &text);
        router.start().await;
        Self { name, router, sent: HashMap::new(), _server: server }
    }

    async fn send(&self, id: &str, event_type: &str) -> Instant {
        let at = Instant::now();
        let event = format!(r#"{{"id":"{id}","eventType":"{event_type}","payload":1}}"#);
        assert_eq!(self.router.post("application/json", event).await.unwrap().0, StatusCode::ACCEPTED);
        at
    }

    /// The 99th percentile of how long deliveries to the healthy endpoints took, once all are there.
    async fn latency(&self, receiver: &Receiver) -> Duration {
        let mut took = Vec::new();
        eventually("the healthy endpoints have all", PATIENCE, async || {
            took = receiver
                .received(&format!("/{}", self.name))
                .iter()
                .filter_map(|request| {
                    let event: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
                    Some(request.at - *self.sent.get(event["id"].as_str()?)?)
                })
                .collect();
            (took.len() >= self.sent.len()).then_some(())
        })
        .await;
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }

    async fn attempts_under_way(&self) -> usize {
        let (_, metrics) = self.router.get("/metrics").await.unwrap();
        let figure = metrics.lines().find_map(|line| line.strip_prefix("branchline_attempts_in_flight "));
        figure.unwrap().parse().unwrap()
    }
}

/// Sends both the same until their latencies are as near as promised. Gives the most attempts that were seen under way in the
/// router with the bad endpoints.
async fn compare(store: Kind, receiver: &Receiver, bad: &str) -> usize {
    receiver.answers("/hanging", &[HANG]);
    let (hanging, refusing) = (receiver.url("/hanging"), format!("http://127.0.0.1:{}/", free_port()));
    let other = receiver.url("/other");
    let mut with = Side::start("with", store, receiver, bad, &hanging, &refusing).await;
    let mut without = Side::start("without", store, receiver, bad, &other, &other).await;
    let (mut ratios, mut under_way) = (Vec::new(), 0);
    for series in 0..SERIES_MAX {
        for number in 0..EVENTS {
            let id = format!("{series}-{number}");
            let event_type = match number % 5 {
                0 => "hanging".to_owned(),
                1 => "refusing".to_owned(),
                _ => format!("healthy-{}", number % HEALTHY),
            };
            // Each is the first in turn.
            let (of_with, of_without) = if number % 2 == 0 {
                tokio::join!(biased; with.send(&id, &event_type), without.send(&id, &event_type))
            } else {
                let (of_without, of_with) =
                    tokio::join!(biased; without.send(&id, &event_type), with.send(&id, &event_type));
                (of_with, of_without)
            };
            if number % 5 > 1 {
                with.sent.insert(id.clone(), of_with);
                without.sent.insert(id, of_without);
            }
            if number % 50 == 49 {
                under_way = under_way.max(with.attempts_under_way().await);
            }
        }
        let (of_with, of_without) = (with.latency(receiver).await, without.latency(receiver).await);
        let ratio = of_with.as_secs_f64() / of_without.as_secs_f64();
        println!(
            "{store:?}: 99th percentile of {} deliveries without {of_without:.1?}, with {of_with:.1?}: {ratio:.2}",
            with.sent.len()
        );
        if ratio <= 1.2 {
            assert!(receiver.count("/hanging") > 0, "the hanging endpoint was never tried");
            return under_way;
        }
        ratios.push(ratio);
    }
    panic!("beside the bad endpoints the others' 99th percentile grew by more than a fifth: {ratios:.2?}");
}

async fn with_one_of_50_endpoints_hanging_and_one_refusing_the_others_latency_is_what_it_was(store: Kind) {
    let receiver = Receiver::start().await;
    compare(store, &receiver, "").await;
}

/// No breaker takes the hanging endpoint out of the way: attempts hold all its turns, and what finds none comes back.
async fn without_breakers_too(store: Kind) {
    let receiver = Receiver::start().await;
    let bad = format!("breaker = \"off\"\ntimeout = \"10s\"\nmax_in_flight = {TURNS}");
    let under_way = compare(store, &receiver, &bad).await;
    println!(
        "{store:?}: {under_way} attempts under way, {} to the hanging endpoint in all",
        receiver.count("/hanging")
    );
    assert!(under_way >= TURNS, "the hanging endpoint held all its turns: {under_way}");
}
