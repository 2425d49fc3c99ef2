//! `branchline explain`: the reason, for each subscription, by the same filter and plugins that `serve` has.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::components::Guest;
use crate::support::program::{Ended, branchline};

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
