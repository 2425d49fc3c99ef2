//! `branchline explain`: the reason, for each subscription, by the same filter and plugins that `serve` has.

use std::path::Path;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::components::Guest;
use crate::support::program::{Ended, branchline};
use crate::support::receiver::Receiver;
use crate::support::router::RouterProcess;

const EVENT: &str =
    r#"{"id":"evt_4711","eventType":"order.created","aggregateId":"4711","payload":{"amount":9999,"user":"김철수"}}"#;

/// A config with one subscription for each thing that can happen, and the event.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("drop.wasm", &Guest::drop("no address").build());
    write("trap.wasm", &Guest::new("unreachable").build());
    write("send.wasm", &Guest::send(&[("x-api-key", "plugin-secret"), ("x-a", "b")], "text/plain", "hello").build());
    write("event.json", EVENT.as_bytes());
    write(
        "branchline.toml",
        br#"
[sources.app]
path = "/v1/events"
auth = "none"
[endpoints.shop]
url = "https://shop.example.com/hooks/token-in-the-path?key=1"
secret = { env = "TEST_SECRET" }
headers = { x-shop = { env = "TEST_KEY" } }
[endpoints.inside]
url = "https://10.0.0.1/hooks/token-in-the-path"
[plugins.drop]
path = "drop.wasm"
[plugins.trap]
path = "trap.wasm"
[plugins.send]
path = "send.wasm"
[[routes]]
name = "all"
events = ["**"]
subscriptions = [
  { name = "plain", endpoint = "shop" },
  { name = "inside", endpoint = "inside" },
  { name = "made", endpoint = "shop", plugins = [{ use = "drop", mode = "shadow" }, { use = "send" }] },
  { name = "dropped", endpoint = "shop", plugins = [{ use = "drop" }] },
  { name = "broken", endpoint = "shop", plugins = [{ use = "trap" }] },
]
[[routes]]
name = "large"
events = ["user.*", "order.*"]
where = "eventType != '' && payload.amount >= 10000"
subscriptions = [{ name = "sales", endpoint = "shop" }]
[[routes]]
name = "users"
events = ["user.*", "order.completed"]
subscriptions = [{ name = "crm", endpoint = "shop" }]
"#,
    );
    folder
}

async fn explain(folder: &Path, more: &[&str]) -> Ended {
    let (event, config) = (folder.join("event.json"), folder.join("branchline.toml"));
    let mut arguments = vec!["explain", event.to_str().unwrap(), "--config", config.to_str().unwrap()];
    arguments.extend(more);
    branchline(&arguments, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_subscription_s_answer_is_told_with_the_first_thing_that_decided_it() {
    let folder = folder();
    let ended = explain(folder.path(), &["--json"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let explanation = ended.json();
    let of = |name: &str| {
        let all = explanation["subscriptions"].as_array().unwrap();
        all.iter().find(|one| one["subscription"] == name).unwrap_or_else(|| panic!("{name}: {explanation:#}")).clone()
    };
    assert_eq!(of("plain")["end"]["end"], "sends");
    assert_eq!(
        of("plain")["end"]["request"]["bodyBytes"],
        json!(EVENT.len() + r#","occurredAt":"2026-01-01T00:00:00.000Z","metadata":{}"#.len())
    );
    let made = of("made");
    assert_eq!(
        (&made["notes"][0]["kind"], &made["notes"][0]["detail"]),
        (&json!("shadow"), &json!("drop: no address"))
    );
    assert_eq!((&made["plugins"][1]["verdict"], &made["end"]["request"]["bodyBytes"]), (&json!("send"), &json!(5)));
    assert!(made["plugins"][1]["micros"].as_u64().unwrap() > 0);
    let dropped = of("dropped");
    assert_eq!(dropped["end"], json!({"end": "dropped", "plugin": "drop", "reason": "no address"}));
    assert_eq!(of("broken")["end"]["error"], "trap");
    let sales = of("sales");
    assert_eq!(sales["fit"], "where");
    assert_eq!(sales["where"]["part"], "payload.amount >= 10000");
    assert_eq!(sales["where"]["fields"], json!([{"name": "payload.amount", "value": "9999"}]));
    let crm = of("crm");
    assert_eq!(crm["patterns"][0], json!({"pattern": "user.*", "segment": 1, "wanted": "user", "saw": "order"}));
    assert_eq!(
        crm["patterns"][1],
        json!({"pattern": "order.completed", "segment": 2, "wanted": "completed", "saw": "created"})
    );
    assert!(crm["end"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_reads_the_reasons_and_nobody_reads_a_secret() {
    let folder = folder();
    let ended = explain(folder.path(), &[]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    for part in [
        "evt_4711  order.created from `app`, 34 B of payload",
        "sales  route `large`, endpoint `shop` at https://shop.example.com\n",
        "filtered     where is false: eventType != '' && payload.amount >= 10000",
        "in this part: payload.amount >= 10000",
        "payload.amount  9999",
        "not matched  the type is `order.created`: `user.*` wants `user` as segment 1, not `order`",
        "dropped      by plugin `drop`: no address",
        "fails        in plugin `trap`, trap: ",
        "shadow: not applied",
        "can't send   to https://10.0.0.1: 10.0.0.1 is private; `delivery.allow_networks`",
        "sends        POST https://shop.example.com, 5 B of text/plain",
    ] {
        assert!(ended.stdout.contains(part), "`{part}` is not in\n{}", ended.stdout);
    }
    assert!(!ended.stdout.contains('\u{1b}'), "colours are for terminals");
    let all = [
        ended.stdout,
        explain(folder.path(), &["-s", "made", "--body"]).await.stdout,
        explain(folder.path(), &["--json"]).await.stdout,
    ]
    .concat();
    assert!(all.contains("x-api-key") && all.contains("x-a  ") && all.contains("***"), "{all}");
    for secret in ["token-in-the-path", "plugin-secret", crate::support::router::KEY, "v1,"] {
        assert!(!all.contains(secret), "{secret} is in\n{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subscription_is_shown_with_headers_and_body_only_when_it_is_asked_for() {
    let folder = folder();
    let plain = explain(folder.path(), &["--subscription", "plain", "--json"]).await;
    assert!(!plain.stdout.contains("김철수"), "a body was not asked for: {}", plain.stdout);
    let whole = explain(folder.path(), &["--subscription", "plain", "--json", "--body"]).await.json();
    let request = &whole["subscriptions"][0]["end"]["request"];
    let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["payload"]["user"], whole["subscriptions"].as_array().unwrap().len()), (&json!("김철수"), 1));
    for wrong in [&["--subscription", "plane"][..], &["--source", "no-such-source"]] {
        let ended = explain(folder.path(), wrong).await;
        assert!(ended.code == 1 && ended.stderr.contains("the config has no"), "{ended:?}");
    }
    std::fs::write(folder.path().join("event.json"), r#"{"eventtype":"a","payload":1}"#).unwrap();
    let ended = explain(folder.path(), &[]).await;
    assert!(ended.code == 1 && ended.stderr.contains("did you mean `eventType`"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_router_explains_an_event_that_nobody_sent_and_keeps_nothing_of_it() {
    let receiver = Receiver::start().await;
    let rest = format!(
        r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
[endpoints.shop]
url = "{}"
[plugins.drop]
path = "drop.wasm"
[[routes]]
name = "all"
events = ["order.*"]
subscriptions = [{{ name = "plain", endpoint = "shop" }}, {{ name = "dropped", endpoint = "shop", plugins = ["drop"] }}]
[[routes]]
name = "large"
events = ["order.*"]
where = "payload.amount >= 10000"
subscriptions = [{{ name = "sales", endpoint = "shop" }}]
"#,
        receiver.url("/shop")
    );
    let mut router = RouterProcess::new("file:{folder}/data", &rest);
    std::fs::write(router.folder().join("drop.wasm"), Guest::drop("no address").build()).unwrap();
    router.start().await;

    let (status, explained) = router.call("POST", "/api/v1/explain?body=true", EVENT, &[]).await;
    let [plain, dropped, sales] = &explained["subscriptions"].as_array().unwrap()[..] else { panic!("{explained:#}") };
    assert_eq!(
        (status, &explained["event"]["id"], &plain["end"]["end"]),
        (StatusCode::OK, &json!("evt_4711"), &json!("sends"))
    );
    assert!(plain["end"]["request"]["body"].as_str().unwrap().contains("김철수"), "{plain:#}");
    assert_eq!(dropped["end"], json!({"end": "dropped", "plugin": "drop", "reason": "no address"}));
    assert_eq!((&sales["fit"], &sales["where"]["fields"][0]["value"]), (&json!("where"), &json!("9999")));
    assert!(explained["event"].get("position").is_none() && plain.get("recorded").is_none(), "{explained:#}");

    let (status, one) = router.call("POST", "/api/v1/explain?subscription=plain&source=app", EVENT, &[]).await;
    assert_eq!((status, one["subscriptions"].as_array().unwrap().len()), (StatusCode::OK, 1), "{one:#}");
    assert!(!one.to_string().contains("김철수"), "a body was not asked for: {one:#}");
    for (query, body, part) in [
        ("", r#"{"eventtype":"a","payload":1}"#, "did you mean `eventType`"),
        ("", "no JSON", "not JSON"),
        ("?source=nowhere", EVENT, "no source `nowhere`"),
        ("?sorce=app", EVENT, "sorce"),
    ] {
        let (status, problem) = router.call("POST", &format!("/api/v1/explain{query}"), body, &[]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    }

    // The command asks the same router for a file.
    let file = router.folder().join("event.json");
    std::fs::write(&file, EVENT).unwrap();
    let url = format!("http://127.0.0.1:{}", router.admin);
    let ended = branchline(&["explain", file.to_str().unwrap(), "--url", &url], "").await;
    assert!(ended.code == 0 && ended.stdout.contains("dropped      by plugin `drop`: no address"), "{ended:?}");

    assert_eq!(router.call("GET", "/api/v1/events/evt_4711", "", &[]).await.0, StatusCode::NOT_FOUND);
    assert_eq!(receiver.count("/shop"), 0, "nothing is sent");
}
