//! `branchline backtest`: what a change would have done to thousands of stored events, with a router at work and without one.

use std::time::Instant;

use branchline::clock::Clock;
use branchline::store::embedded::EmbeddedStore;
use branchline::store::{Store, StoreOptions};
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::components::Guest;
use crate::support::program::{Ended, branchline, branchline_in};
use crate::support::receiver::Receiver;
use crate::support::router::RouterProcess;

const EVENTS: usize = 3_000;

/// A router that has stored the events: a third each of `order.created`, `order.paid` and `user.created`.
pub(super) struct Case {
    router: RouterProcess,
    receiver: Receiver,
    pub folder: std::path::PathBuf,
}

impl Case {
    pub async fn new() -> Self {
        let receiver = Receiver::start().await;
        let mut router = RouterProcess::new("file:{folder}/data", "");
        let folder = router.folder();
        let write = |name: &str, guest: Guest| std::fs::write(folder.join(name), guest.build()).unwrap();
        write("old.wasm", Guest::send(&[], "application/json", r#"{"text": "old", "same": 1}"#));
        write("new.wasm", Guest::send(&[], "application/json", r#"{"same": 1, "text": "new"}"#));
        write("drops.wasm", Guest::drop("not wanted any more"));
        write("breaks.wasm", Guest::new("unreachable"));
        router.write_config(&Self::config(&receiver, "payload.amount >= 0"));
        router.start().await;
        for from in (0..EVENTS).step_by(1_000) {
            let events: Vec<_> = (from..from + 1_000)
                .map(|number| {
                    let event_type = ["order.created", "order.paid", "user.created"][number % 3];
                    json!({ "id": format!("evt_{number}"), "eventType": event_type, "payload": { "amount": number } })
                })
                .collect();
            let (status, answer) = router.post("application/json", json!(events).to_string()).await.unwrap();
            assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        }
        Self { router, receiver, folder }
    }

    fn config(receiver: &Receiver, condition: &str) -> String {
        format!(
            r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
[endpoints.x]
url = "{url}"
[plugins.p]
path = "old.wasm"
deadline = "1s"
[[routes]]
name = "orders"
events = ["order.*"]
where = "{condition}"
subscriptions = [{{ name = "tell", endpoint = "x", plugins = ["p"] }}]
"#,
            url = receiver.url("/x"),
        )
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    async fn backtest(&self, arguments: &[&str]) -> Ended {
        let config = self.path("branchline.toml");
        let mut all = vec!["backtest", "--config", &config, "--subscription", "tell"];
        all.extend(arguments);
        branchline(&all, "").await
    }

    async fn report(&self, arguments: &[&str]) -> Value {
        let ended = self.backtest(&[arguments, &["--json"]].concat()).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        serde_json::from_str(&ended.stdout).unwrap()
    }
}

/// The counts that are not zero.
fn counts(report: &Value) -> Value {
    let counts = report["counts"].as_object().unwrap();
    counts.iter().filter(|(_, count)| **count != json!(0)).map(|(name, count)| (name.clone(), count.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_judged_by_thousands_of_stored_events_and_nothing_is_sent() {
    let mut case = Case::new().await;
    // First through the router that holds the store, then through the store itself.
    for is_running in [true, false] {
        if !is_running {
            assert!(case.router.stop().await.success());
        }
        let sent = case.receiver.count("/x");
        let report = case.report(&["--plugin", &case.path("new.wasm"), "--since", "1h"]).await;
        assert_eq!(
            (&report["events"], counts(&report)),
            (&json!(EVENTS), json!({ "unmatched": 1000, "changed": 2000 }))
        );
        assert!(report["microsPerEvent"]["new"].as_f64().unwrap() > 0.0, "{report:#}");
        let samples = report["samples"].as_array().unwrap();
        assert_eq!(samples.len(), 3, "{report:#}");
        let lines = samples[0]["diff"].as_array().unwrap();
        // The newest event first; of JSON that is written in another order only what differs.
        assert_eq!((&samples[0]["event"], &samples[0]["difference"]), (&json!("evt_2998"), &json!("changed")));
        assert!(lines.contains(&json!("-   \"text\": \"old\"")) && lines.contains(&json!("+   \"text\": \"new\"")));
        assert!(!lines.iter().any(|line| line.as_str().unwrap().contains("+   \"same\"")), "{lines:?}");

        let report = case.report(&["--plugin", &case.path("drops.wasm"), "--where", "payload.amount >= 1500"]).await;
        let expected = json!({ "unmatched": 1000, "newlyUnmatched": 1000, "newlyDropped": 1000 });
        assert_eq!(counts(&report), expected);

        // A plugin that breaks is run for every event: no breaker hides the others.
        let report = case.report(&["--plugin", &case.path("breaks.wasm"), "--limit", "300"]).await;
        assert_eq!((&report["events"], &report["errors"]), (&json!(300), &json!({ "old": 0, "new": 200 })));
        assert_eq!(counts(&report), json!({ "unmatched": 100, "newlyFailing": 200 }));
        assert_eq!(report["limited"], true, "2,700 are older");

        // One that breaks and whose subscription passes the event on is counted as broken all the same.
        let passing = Case::config(&case.receiver, "payload.amount >= 0")
            .replace("old.wasm", "breaks.wasm")
            .replace("endpoint = \"x\"", "endpoint = \"x\", on_error = \"pass-through\"");
        std::fs::write(case.path("passing.toml"), passing).unwrap();
        let report = case.report(&["--new-config", &case.path("passing.toml")]).await;
        assert_eq!((&report["errors"]["new"], &report["limited"]), (&json!(2000), &json!(false)));
        assert_eq!(counts(&report), json!({ "unmatched": 1000, "changed": 2000 }));

        // What goes elsewhere is another request, although what differs of its URL is not shown.
        let elsewhere = Case::config(&case.receiver, "payload.amount >= 0").replace("/x\"", "/marker\"");
        std::fs::write(case.path("elsewhere.toml"), elsewhere).unwrap();
        let report = case.report(&["--new-config", &case.path("elsewhere.toml")]).await;
        assert_eq!(counts(&report), json!({ "unmatched": 1000, "changed": 2000 }));
        assert!(
            report.to_string().contains("which is not shown") && !report.to_string().contains("marker"),
            "{report:#}"
        );

        // The same plugin and the whole config anew.
        let anew = Case::config(&case.receiver, "payload.amount >= 0").replace("order.*", "**");
        std::fs::write(case.path("new.toml"), anew).unwrap();
        let report = case.report(&["--new-config", &case.path("new.toml")]).await;
        assert_eq!(counts(&report), json!({ "unchanged": 2000, "newlyMatched": 1000 }));
        if !is_running {
            assert_eq!(case.receiver.count("/x"), sent, "something was sent");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backtest_says_for_people_what_differs_and_what_is_wrong_with_the_question() {
    let mut case = Case::new().await;
    assert!(case.router.stop().await.success());
    let ended = case.backtest(&["--plugin", &case.path("drops.wasm"), "--samples", "1"]).await;
    for part in [
        "3,000 events",
        "newly dropped               2,000",
        "- sends 26 bytes",
        "+ dropped by `p`: not wanted any more",
    ] {
        assert!(ended.stdout.contains(part), "`{part}` is not in {ended:?}");
    }
    let new = case.path("new.wasm");
    let ended = case.backtest(&["--plugin", &new, "--limit", "10"]).await;
    assert!(
        ended.stdout.contains("10 events") && ended.stdout.contains("`--limit` leaves out older ones"),
        "{ended:?}"
    );
    for (arguments, code, part) in [
        (vec![], 2, "--plugin"),
        (vec!["--plugin", "missing.wasm"], 78, "branchline: `--plugin`: plugin `p` (`missing.wasm`): "),
        (vec!["--where", "paylod.amount > 1"], 78, "did you mean `payload`"),
        (vec!["--plugin", &new, "--since", "yesterday"], 2, "--since"),
        (vec!["--plugin", &new, "--url", "http://127.0.0.1:1"], 1, "no router answers"),
    ] {
        let ended = case.backtest(&arguments).await;
        assert!(ended.code == code && ended.stderr.contains(part), "{arguments:?}: {ended:?}");
    }
    let config = case.path("branchline.toml");
    // Alone, `--config` is the new config, compared with the one that a router here would run by.
    std::fs::write(case.path("new.toml"), Case::config(&case.receiver, "payload.amount >= 1500")).unwrap();
    let ended = branchline_in(&case.folder, &["backtest", "--subscription", "tell", "--config", "new.toml", "--json"]);
    assert_eq!(counts(&ended.json()), json!({ "unmatched": 1000, "unchanged": 1000, "newlyUnmatched": 1000 }));
    let ended = branchline(&["backtest", "--config", &config, "--subscription", "tel", "--plugin", &new], "").await;
    assert!(ended.code == 1 && ended.stderr.contains("did you mean `tell`"), "{ended:?}");
}

/// Fills a store through its own code, as `branchline bench` does, and has it walked: every event is counted, and the figure told.
async fn all_are_counted(events: usize) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, guest: Guest| std::fs::write(folder.path().join(name), guest.build()).unwrap();
    write("old.wasm", Guest::send(&[], "application/json", r#"{"text": "old"}"#));
    write("new.wasm", Guest::send(&[], "application/json", r#"{"text": "new"}"#));
    let config = Case::config(&Receiver::start().await, "payload.amount >= 0");
    let config =
        format!("[sources.app]\npath = \"/v1/events\"\nauth = \"none\"\n[admin]\nlisten = \"127.0.0.1:1\"\n{config}");
    std::fs::write(folder.path().join("branchline.toml"), config).unwrap();

    let began = Instant::now();
    let clock = Clock::system();
    let store = EmbeddedStore::open(&folder.path().join("data"), StoreOptions::default(), clock).await.unwrap();
    for first in (0..events).step_by(500) {
        let batch = (first..events.min(first + 500)).map(|number| {
            let event_type = if number % 4 == 0 { "user.created" } else { "order.created" };
            let text = format!(r#"{{"id":"evt_{number}","eventType":"{event_type}","payload":{{"amount":{number}}}}}"#);
            branchline::accept::read_event(&text, "app", clock.now()).unwrap()
        });
        store.append(batch.collect()).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let filled = began.elapsed();

    let began = Instant::now();
    let ended = branchline_in(folder.path(), &["backtest", "--subscription", "tell", "--plugin", "new.wasm", "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let report = ended.json();
    assert_eq!(report["events"], json!(events));
    assert_eq!(counts(&report), json!({ "unmatched": events / 4, "changed": events - events / 4 }));
    println!("{events} events: {filled:.1?} to fill the store, {:.1?} to backtest", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_many_pages_is_counted() {
    all_are_counted(10_000).await;
}

/// What is promised is well under a minute on two cores; in a build without optimisation it takes longer.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes long in a build without optimisation: `cargo test --release --test promises -- --ignored --nocapture a_hundred_thousand`"]
async fn a_hundred_thousand_events_are_counted() {
    all_are_counted(100_000).await;
}
