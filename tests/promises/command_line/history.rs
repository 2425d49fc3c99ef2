//! What became of events, and making deliveries again: asked of a running router, and of the store of one that does not run; on
//! both stores.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::components::Guest;
use crate::support::eventually;
use crate::support::program::{Ended, branchline};
use crate::support::receiver::Receiver;
use crate::support::redis_server::RedisServer;
use crate::support::router::{KEY, RouterProcess};
use crate::support::stores::{Kind, on_both_stores};

const PATIENCE: Duration = Duration::from_secs(30);

struct Case {
    receiver: Receiver,
    router: RouterProcess,
    _redis: Option<RedisServer>,
}

impl Case {
    /// A router with a subscription whose endpoint answers 410 once and another whose plugin drops everything.
    async fn start(kind: Kind) -> Self {
        let receiver = Receiver::start().await;
        let rest = format!(
            r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
[endpoints.x]
url = "{}"
breaker = "off"
[endpoints.y]
url = "{}"
[plugins.p]
path = "p.wasm"
[[routes]]
name = "all"
events = ["order.*"]
subscriptions = [
  {{ name = "x", endpoint = "x", retry = [] }},
  {{ name = "y", endpoint = "y", plugins = [{{ use = "p" }}] }},
]
"#,
            receiver.url("/x"),
            receiver.url("/y"),
        );
        let (url, redis) = kind.open();
        let mut router = RouterProcess::new(&url, &rest);
        std::fs::write(router.folder().join("p.wasm"), Guest::drop("no address").build()).unwrap();
        router.start().await;
        Self { receiver, router, _redis: redis }
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        let config = self.router.folder().join("branchline.toml");
        let mut all = arguments.to_vec();
        all.extend(["--config", config.to_str().unwrap()]);
        branchline(&all, "").await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
        ended.json()
    }

    /// Sends events, and waits until the router has settled all of them.
    async fn send(&self, count: u32) {
        for number in 0..count {
            let event = format!(r#"{{"id":"evt_{number}","eventType":"order.created","payload":{{"n":{number}}}}}"#);
            self.router.post("application/json", event).await.unwrap();
        }
        eventually("they are settled", PATIENCE, async || {
            let (_, stats) = self.router.get("/api/v1/stats").await?;
            (serde_json::from_str::<Value>(&stats).ok()?["backlog"] == 0).then_some(())
        })
        .await;
    }
}

async fn a_consumer_that_got_nothing_is_explained_and_given_it_once_the_fault_is_mended(kind: Kind) {
    let case = Case::start(kind).await;
    case.receiver.answers("/x", &[500, 200]);
    case.send(1).await;

    let explained = case.run(&["explain", "evt_0"]).await;
    assert_eq!(explained.code, 0, "{explained:?}");
    for part in [
        "recorded     dead-letter",
        "attempt 1, ",
        "answered 500",
        "\"told so\"",
        "recorded     dropped by plugin `p`: no address",
    ] {
        assert!(explained.stdout.contains(part), "`{part}` is not in\n{}", explained.stdout);
    }
    assert!(!explained.stdout.contains("differs"), "{}", explained.stdout);

    // The plugin is mended, so today's answer is another than the recorded one.
    std::fs::write(case.router.folder().join("p.wasm"), Guest::pass().build()).unwrap();
    assert_eq!(case.router.post_admin("/api/v1/reload").await.0, 200);
    let explained = case.run(&["explain", "evt_0", "-s", "y"]).await;
    let then = "differs      then plugin `p` dropped it: no address; today it would be sent\n";
    assert!(
        explained.stdout.contains(then) && explained.stdout.contains("the plugins were p@"),
        "{}",
        explained.stdout
    );

    let counted = case.json(&["replay", "--since", "1h", "--dry-run", "--rerun"]).await;
    assert_eq!((&counted["subscriptions"]["x"], &counted["subscriptions"]["y"]), (&1.into(), &1.into()), "{counted:#}");
    let statuses = json!({"x": {"dead-letter": 1}, "y": {"dropped": 1}});
    assert_eq!(counted["statuses"], statuses, "{counted:#}");
    let counted = case.run(&["replay", "--since", "1h", "--dry-run", "--rerun"]).await;
    let table = "2 deliveries would be made again\n  x  1  dead-letter\n  y  1  dropped\n";
    assert_eq!((&*counted.stdout, &*counted.stderr), (table, ""), "and no bar, since standard error is no terminal");
    assert_eq!((case.receiver.count("/x"), case.receiver.count("/y")), (1, 0), "a dry run changes nothing");
    let replayed = case.run(&["replay", "--since", "1h", "--rerun"]).await;
    assert!(replayed.code == 0 && replayed.stdout.starts_with("2 deliveries are due now\n"), "{replayed:?}");
    eventually("both arrive", PATIENCE, async || {
        (case.receiver.count("/x") == 2 && case.receiver.count("/y") == 1).then_some(())
    })
    .await;
    eventually("both are delivered", PATIENCE, async || {
        let event = case.json(&["events", "show", "evt_0"]).await;
        event["outcomes"].as_array()?.iter().all(|pair| pair["status"] == "delivered").then_some(())
    })
    .await;
    let again = case.json(&["replay", "evt_0"]).await;
    assert_eq!((&again["replayed"], &again["skipped"]["delivered"]), (&0.into(), &2.into()), "{again:#}");

    // What no plugin had made is the event itself, so that it can be sent again as it was. Of what a plugin made no bytes are
    // kept, so that it is only made again when today's plugins are asked for.
    let all = case.run(&["replay", "evt_0", "--all"]).await;
    let is_told = all.stdout.contains("output-not-kept  1\n") && all.stdout.contains("--rerun makes it again");
    assert!(all.stdout.starts_with("1 delivery is due now\n") && is_told, "{all:?}");
    eventually("it arrives again", PATIENCE, async || (case.receiver.count("/x") == 3).then_some(())).await;
    let requests = case.receiver.received("/x");
    assert!(requests.iter().all(|request| request.body == requests[0].body), "{requests:?}");
    let all = case.run(&["replay", "evt_0", "--all", "-s", "y", "--rerun"]).await;
    assert!(all.stdout.starts_with("1 delivery is due now\n") && !all.stdout.contains("--rerun"), "{all:?}");
    eventually("so does that", PATIENCE, async || (case.receiver.count("/y") == 2).then_some(())).await;
}

async fn what_can_not_be_made_again_is_said(kind: Kind) {
    let case = Case::start(kind).await;
    for (arguments, part) in [
        (&["replay", "--subscription", "warehouse", "--since", "1h"][..], "the config has no subscription `warehouse`"),
        (&["replay", "--dead-letter", "msg_nosuch"], "msg_nosuch"),
        (&["replay", "evt_nosuch"], "evt_nosuch"),
        (&["tail", "--subscription", "z"], "the config has no subscription `z`"),
    ] {
        let ended = case.run(arguments).await;
        assert!(ended.code == 1 && ended.stderr.contains(part) && ended.stdout.is_empty(), "{arguments:?}: {ended:?}");
    }
    let ended = case.run(&["replay", "evt_nosuch", "evt_other"]).await;
    assert!(ended.code == 1 && ended.stdout.contains("event-gone  2"), "{ended:?}");

    // What would be sent waits, since its endpoint is held; that is said, too, and what was tried before is still there.
    case.send(1).await;
    assert_eq!(case.router.post_admin("/api/v1/endpoints/x/pause").await.0, 200);
    let replayed = case.run(&["replay", "evt_0", "--all", "--subscription", "x"]).await;
    assert!(replayed.stdout.contains("1 of them: its endpoint is paused"), "{replayed:?}");
    for command in [&["explain", "evt_0", "-s", "x"][..], &["events", "show", "evt_0"]] {
        let shown = case.run(command).await;
        let parts = ["due ", "(its endpoint is paused: it waits until somebody resumes it)", "attempt 1, "];
        assert!(parts.iter().all(|part| shown.stdout.contains(part)), "{command:?}: {shown:?}");
    }
    let explained = case.run(&["explain", "evt_0", "-s", "x"]).await;
    assert!(explained.stdout.contains("\n  before       delivered, at "), "{explained:?}");
}

async fn dead_letters_are_listed_shown_replayed_and_thrown_away(kind: Kind) {
    let case = Case::start(kind).await;
    case.receiver.answers("/x", &[500, 500, 200]);
    case.send(2).await;
    let listed = case.json(&["dead-letters", "list", "--subscription", "x", "--reason", "exhausted"]).await;
    let letters = listed["deadLetters"].as_array().unwrap();
    assert_eq!(letters.len(), 2, "{listed:#}");
    let id = |place: usize| letters[place]["deliveryId"].as_str().unwrap();
    let shown = case.run(&["dead-letters", "show", id(0)]).await;
    assert!(shown.stdout.contains("answered 500") && shown.stdout.contains(r#""payload":{"n":"#), "{shown:?}");
    assert_eq!(case.run(&["dead-letters", "replay", id(0)]).await.code, 0);
    eventually("it arrives", PATIENCE, async || (case.receiver.count("/x") == 3).then_some(())).await;
    let discarded = case.run(&["dead-letters", "discard", id(1), "--reason", "asked by the shop"]).await;
    assert_eq!(discarded.code, 0, "{discarded:?}");
    let left = case.run(&["dead-letters", "list"]).await;
    assert_eq!(left.stdout.lines().count(), 1, "only the head is left: {left:?}");
    let missing = case.run(&["dead-letters", "show", id(1)]).await;
    assert!(missing.code == 1 && missing.stderr.contains(id(1)), "{missing:?}");
}

async fn without_a_router_the_store_itself_is_asked_and_an_interrupted_list_goes_on(kind: Kind) {
    let mut case = Case::start(kind).await;
    case.send(3).await;
    case.router.stop().await;
    let first = case.json(&["events", "list", "--type", "order.*", "--limit", "2"]).await;
    let ids = |page: &Value| -> Vec<String> {
        page["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&first), ["evt_2", "evt_1"]);
    let rest = case.json(&["events", "list", "--cursor", first["cursor"].as_str().unwrap()]).await;
    assert_eq!(ids(&rest), ["evt_0"]);
    let explained = case.json(&["explain", "evt_1"]).await;
    assert_eq!(explained["subscriptions"][0]["recorded"]["status"], "delivered", "{explained:#}");
    let replayed = case.json(&["replay", "evt_1", "--all", "--subscription", "x"]).await;
    assert_eq!(replayed["replayed"], 1, "{replayed:#}");
    let unknown = case.run(&["explain", "evt_9"]).await;
    assert!(unknown.code == 1 && unknown.stderr.contains("no event `evt_9` is kept"), "{unknown:?}");
    case.router.start().await;
    eventually("it arrives again", PATIENCE, async || (case.receiver.count("/x") == 4).then_some(())).await;
    let nobody = branchline(&["events", "list", "--url", "http://127.0.0.1:9"], "").await;
    assert!(nobody.code == 1 && nobody.stderr.contains("no router answers at http://127.0.0.1:9"), "{nobody:?}");
}

async fn what_happens_is_watched_as_it_happens(kind: Kind) {
    let case = Case::start(kind).await;
    let refused = case.run(&["tail", "--type", "order..x"]).await;
    assert!(refused.code == 2 && refused.stderr.contains("a segment is empty"), "{refused:?}");
    let mut watching = Command::new(env!("CARGO_BIN_EXE_branchline"))
        .args(["tail", "--subscription", "x", "--json", "--url", &format!("http://127.0.0.1:{}", case.router.admin)])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (lines, mut seen) = tokio::sync::mpsc::channel(64);
    let stdout = BufReader::new(watching.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| lines.blocking_send(line).is_ok()));
    // Whoever comes late sees only what happens from then on, so events are sent until one is seen.
    let line = eventually("an attempt is seen", PATIENCE, async || {
        case.router.post("application/json", r#"{"eventType":"order.created","payload":1}"#).await.unwrap();
        seen.try_recv().ok()
    });
    let line: Value = serde_json::from_str(&line.await).unwrap();
    assert_eq!(line["subscription"], "x", "{line:#}");
    watching.kill().unwrap();
    watching.wait().unwrap();
}

async fn an_interrupted_replay_goes_on_from_its_cursor_and_each_delivery_is_made_again_once(kind: Kind) {
    const COUNT: usize = 60;
    let case = Case::start(kind).await;
    let mut answers = vec![500; COUNT];
    answers.push(200);
    case.receiver.answers("/x", &answers);
    case.send(COUNT as u32).await;
    assert_eq!(case.receiver.count("/x"), COUNT);

    let config = case.router.folder().join("branchline.toml");
    let selection = ["replay", "--since", "1h", "--subscription", "x", "--status", "dead-letter"];
    let replaying = Command::new(env!("CARGO_BIN_EXE_branchline"))
        .args(selection)
        .args(["--rate", "10", "--config"])
        .arg(&config)
        .env("TEST_KEY", KEY)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("some were made again", PATIENCE, async || (case.receiver.count("/x") > COUNT).then_some(())).await;
    kill_process(Pid::from_raw(i32::try_from(replaying.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    let interrupted = tokio::task::spawn_blocking(|| replaying.wait_with_output().unwrap()).await.unwrap();
    let [stdout, stderr] = [interrupted.stdout, interrupted.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(interrupted.status.code(), Some(1), "{stdout}{stderr}");
    let made: usize = stdout.split(' ').next().unwrap().parse().unwrap();
    assert!((1..COUNT).contains(&made), "{stdout}{stderr}");
    let cursor = stderr.split("interrupted; the same with `--cursor ").nth(1).and_then(|rest| rest.split('`').next());
    let cursor = cursor.unwrap_or_else(|| panic!("{stderr}"));
    assert!(stdout.contains(cursor), "{stdout}");

    let rest = case.json(&[&selection[..], &["--cursor", cursor]].concat()).await;
    assert_eq!((&rest["replayed"], &rest["cursor"]), (&json!(COUNT - made), &Value::Null), "{rest:#}");
    eventually("all have come again", PATIENCE, async || (case.receiver.count("/x") >= 2 * COUNT).then_some(())).await;
    let mut counts: HashMap<String, usize> = HashMap::new();
    for request in case.receiver.received("/x") {
        *counts.entry(request.header("webhook-id").to_owned()).or_default() += 1;
    }
    assert!(counts.len() == COUNT && counts.values().all(|count| *count == 2), "none left out, none twice: {counts:?}");
    let left = case.json(&selection).await;
    assert_eq!(left["matched"], 0, "{left:#}");
}

on_both_stores!([
    a_consumer_that_got_nothing_is_explained_and_given_it_once_the_fault_is_mended
    what_can_not_be_made_again_is_said
    dead_letters_are_listed_shown_replayed_and_thrown_away
    without_a_router_the_store_itself_is_asked_and_an_interrupted_list_goes_on
    what_happens_is_watched_as_it_happens
    an_interrupted_replay_goes_on_from_its_cursor_and_each_delivery_is_made_again_once
]);
