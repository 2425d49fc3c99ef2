//! A reload takes the place of a config as a whole: under load no event is lost, repeated, or matched against a mixture of two.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::support::eventually;
use crate::support::receiver::Receiver;
use crate::support::router::RouterProcess;

const PATIENCE: Duration = Duration::from_secs(60);
const PRODUCERS: usize = 8;
const EVENTS_OF_A_PRODUCER: usize = 150;
const RELOADS: usize = 12;
/// A key of `[admin]`.
const WATCH: &str = "watch = true";

/// Two routes with two subscriptions each; one of them takes the events. Both are there in both configs, so that what waits
/// over a reload still has its subscription.
fn config(receiver: &Receiver, taken_by: char) -> String {
    let mut text = format!(
        "[delivery]\nallow_networks = [\"127.0.0.0/8\"]\n[endpoints.x]\nurl = \"{}\"\nmax_in_flight = 1000\n",
        receiver.url("/x")
    );
    for name in ['a', 'b'] {
        let events = if name == taken_by { "load.*" } else { "never.*" };
        text.push_str(&format!(
            "[[routes]]\nname = \"{name}\"\nevents = [\"{events}\"]\nsubscriptions = [{{ name = \"{name}1\", endpoint = \"x\" }}, \
             {{ name = \"{name}2\", endpoint = \"x\" }}]\n"
        ));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_no_event_is_lost_repeated_or_matched_against_a_mixture() {
    let receiver = Receiver::start().await;
    let mut router = RouterProcess::new("file:{folder}/data", &config(&receiver, 'a'));
    router.start().await;
    let router = Arc::new(router);
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let router = Arc::clone(&router);
            tokio::spawn(async move {
                for number in 0..EVENTS_OF_A_PRODUCER {
                    let event = format!(r#"{{"id":"evt_{producer}_{number}","eventType":"load.made","payload":1}}"#);
                    let (status, answer) = router.post("application/json", event).await.unwrap();
                    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
                }
            })
        })
        .collect();
    let mut digests = Vec::new();
    for reload in 0..RELOADS {
        router.write_config(&config(&receiver, if reload % 2 == 0 { 'b' } else { 'a' }));
        let (status, answer) = router.post_admin("/api/v1/reload").await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let status: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(status["generation"], reload + 2, "{status}");
        digests.push(status["digest"].as_str().unwrap().to_owned());
    }
    for producer in producers {
        producer.await.unwrap();
    }
    assert!(digests[0] != digests[1] && digests[0] == digests[2], "the digest is that of what the config says");

    let events = PRODUCERS * EVENTS_OF_A_PRODUCER;
    eventually("everything arrives", PATIENCE, async || (receiver.count("/x") >= 2 * events).then_some(())).await;
    let mut by_event: HashMap<String, Vec<String>> = HashMap::new();
    for received in receiver.received("/x") {
        let subscription = received.header("branchline-subscription").to_owned();
        by_event.entry(received.header("branchline-event").to_owned()).or_default().push(subscription);
    }
    assert_eq!(by_event.len(), events, "none is lost");
    let mut taken_by = HashMap::new();
    for (event, mut subscriptions) in by_event {
        subscriptions.sort();
        assert!(subscriptions == ["a1", "a2"] || subscriptions == ["b1", "b2"], "{event}: {subscriptions:?}");
        *taken_by.entry(subscriptions[0].clone()).or_insert(0) += 1;
    }
    assert_eq!(taken_by.len(), 2, "the reloads fell into the load: {taken_by:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_files_is_read_by_itself_where_that_is_asked_for() {
    let receiver = Receiver::start().await;
    let watching = |path: &str| {
        format!(
            "[delivery]\nallow_networks = [\"127.0.0.0/8\"]\n[endpoints.x]\nurl = \"{}\"\n[[routes]]\nname = \"r\"\nevents = [\"**\"]\n\
             subscriptions = [{{ name = \"x\", endpoint = \"x\" }}]\n",
            receiver.url(path)
        )
    };
    let mut router = RouterProcess::new("file:{folder}/data", &watching("/first"));
    router.write_sections("", WATCH, &watching("/first"));
    router.start().await;
    router.write_sections("", WATCH, &watching("/the-second"));
    let generation = async |wanted: &str| {
        eventually("the change is read", PATIENCE, async || {
            let (_, shown) = router.get("/api/v1/config").await?;
            shown.contains(wanted).then_some(shown)
        })
        .await
    };
    generation("\"generation\":2").await;
    let event = r#"{"id":"evt_1","eventType":"a.b","payload":1}"#;
    assert_eq!(router.post("application/json", event).await.unwrap().0, StatusCode::ACCEPTED);
    eventually("it goes to the new endpoint", PATIENCE, async || (receiver.count("/the-second") == 1).then_some(()))
        .await;
    // A bad one is seen, too, and told, and does not take its place.
    router.write_sections("", WATCH, "[endpoint.x]\n");
    let shown = generation("lastFault").await;
    assert!(shown.contains("\"generation\":2"), "{shown}");
}

/// A receiver that answers and counts its connections: those made, and those that are open.
async fn counting() -> (String, Arc<[AtomicUsize; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let shared = Arc::clone(&counts);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counts = Arc::clone(&shared);
            for count in &*counts {
                count.fetch_add(1, Ordering::SeqCst);
            }
            tokio::spawn(async move {
                let answer = service_fn(|request: Request<Incoming>| async move {
                    request.into_body().collect().await?;
                    Ok::<_, hyper::Error>(Response::new(String::new()))
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                counts[1].fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (url, counts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_closes_the_connections_of_endpoints_that_are_gone_and_no_others() {
    let ((stays, of_stays), (goes, of_goes)) = (counting().await, counting().await);
    let config = |urls: &[(&str, &str)]| {
        let mut text = "[delivery]\nallow_networks = [\"127.0.0.0/8\"]\n".to_owned();
        for (name, url) in urls {
            text.push_str(&format!(
                "[endpoints.{name}]\nurl = \"{url}\"\n[[routes]]\nname = \"{name}\"\nevents = [\"**\"]\n\
                 subscriptions = [{{ name = \"{name}\", endpoint = \"{name}\" }}]\n"
            ));
        }
        text
    };
    let mut router = RouterProcess::new("file:{folder}/data", &config(&[("stays", &stays), ("goes", &goes)]));
    router.start().await;
    let open = |counts: &[AtomicUsize; 2]| counts[1].load(Ordering::SeqCst);
    router.post("application/json", r#"{"eventType":"a.b","payload":1}"#).await.unwrap();
    eventually("both have a connection", PATIENCE, async || {
        (open(&of_stays) == 1 && open(&of_goes) == 1).then_some(())
    })
    .await;
    router.write_config(&config(&[("stays", &stays)]));
    assert_eq!(router.post_admin("/api/v1/reload").await.0, StatusCode::OK);
    eventually("one is closed", PATIENCE, async || (open(&of_goes) == 0).then_some(())).await;
    router.post("application/json", r#"{"eventType":"a.b","payload":2}"#).await.unwrap();
    eventually("all is delivered", PATIENCE, async || {
        let (_, metrics) = router.get("/metrics").await?;
        metrics.contains("branchline_outcomes_total{subscription=\"stays\",outcome=\"delivered\"} 2").then_some(())
    })
    .await;
    assert_eq!(of_stays[0].load(Ordering::SeqCst), 1, "by the same connection as before");
}

/// A receiver that answers when it is told to: what has come in, and the permits to answer.
async fn holding() -> (String, Arc<AtomicUsize>, Arc<Semaphore>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (came, permits) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let shared = (Arc::clone(&came), Arc::clone(&permits));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shared = shared.clone();
            tokio::spawn(async move {
                let answer = service_fn(|request: Request<Incoming>| async {
                    request.into_body().collect().await?;
                    shared.0.fetch_add(1, Ordering::SeqCst);
                    shared.1.acquire().await.unwrap().forget();
                    Ok::<_, hyper::Error>(Response::new(String::new()))
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    (url, came, permits)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_stays_keeps_its_limits_over_a_reload() {
    let (held, came, permits) = holding().await;
    let receiver = Receiver::start().await;
    let config = |more: &str| {
        format!(
            "{more}[delivery]\nallow_networks = [\"127.0.0.0/8\"]\n\
             [endpoints.one]\nurl = \"{held}\"\nmax_in_flight = 1\ntimeout = \"60s\"\n\
             [endpoints.rated]\nurl = \"{}\"\nrate = \"1/h\"\n\
             [[routes]]\nname = \"all\"\nevents = [\"**\"]\n\
             subscriptions = [{{ name = \"one\", endpoint = \"one\" }}, {{ name = \"rated\", endpoint = \"rated\" }}]\n",
            receiver.url("/rated")
        )
    };
    let mut router = RouterProcess::new("file:{folder}/data", &config(""));
    router.start().await;
    router.post("application/json", r#"{"id":"evt_1","eventType":"a.b","payload":1}"#).await.unwrap();
    eventually("both are at their limit", PATIENCE, async || {
        (came.load(Ordering::SeqCst) == 1 && receiver.count("/rated") == 1).then_some(())
    })
    .await;
    router.write_config(&config("[endpoints.more]\nurl = \"https://example.com/\"\n"));
    assert_eq!(router.post_admin("/api/v1/reload").await.0, StatusCode::OK);
    router.post("application/json", r#"{"id":"evt_2","eventType":"a.b","payload":2}"#).await.unwrap();
    eventually("the second event waits for both", PATIENCE, async || {
        let (_, answer) = router.get("/api/v1/deliveries").await?;
        let answer: serde_json::Value = serde_json::from_str(&answer).ok()?;
        let waiting = answer["deliveries"].as_array()?.iter().filter(|delivery| delivery["event"]["id"] == "evt_2");
        let mut waiting: Vec<_> = waiting.filter_map(|delivery| delivery["subscription"].as_str()).collect();
        waiting.sort_unstable();
        (waiting == ["one", "rated"]).then_some(())
    })
    .await;
    assert_eq!((came.load(Ordering::SeqCst), receiver.count("/rated")), (1, 1), "neither was asked for more");
    permits.add_permits(2);
    eventually("the one place is free again", PATIENCE, async || (came.load(Ordering::SeqCst) == 2).then_some(()))
        .await;
}
