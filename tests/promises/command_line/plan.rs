//! `branchline plan`: what a config would change, told before it does, and true when it has.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::components::Guest;
use crate::support::eventually;
use crate::support::program::{Ended, branchline};
use crate::support::receiver::Receiver;
use crate::support::router::RouterProcess;

const PATIENCE: Duration = Duration::from_secs(30);

/// A router with three deliveries that wait for their second attempt.
struct Case {
    router: RouterProcess,
    receiver: Receiver,
}

impl Case {
    async fn start(retry: &str) -> Self {
        let receiver = Receiver::start().await;
        receiver.answers("/x", &[500, 500, 500, 200]);
        let mut router = RouterProcess::new("file:{folder}/data", "");
        std::fs::write(router.folder().join("p.wasm"), Guest::pass().build()).unwrap();
        router.write_config(&Self::config(&receiver, retry));
        router.start().await;
        for number in 0..3 {
            let event = json!({ "id": format!("evt_{number}"), "eventType": "order.created", "payload": number });
            router.post("application/json", event.to_string()).await.unwrap();
        }
        eventually("all wait", PATIENCE, async || {
            let (_, stats) = router.get("/api/v1/stats").await?;
            (serde_json::from_str::<Value>(&stats).ok()?["scheduled"] == 3).then_some(())
        })
        .await;
        Self { router, receiver }
    }

    fn config(receiver: &Receiver, retry: &str) -> String {
        format!(
            r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
[endpoints.x]
url = "{}"
headers = {{ x-key = "marker-1", x-other = {{ env = "TEST_KEY" }} }}
[endpoints.y]
url = "{}"
[plugins.p]
path = "p.wasm"
[[routes]]
name = "all"
events = ["order.*"]
subscriptions = [
  {{ name = "warehouse", endpoint = "x", retry = ["{retry}"] }},
  {{ name = "quiet", endpoint = "y", plugins = ["p"] }},
]
"#,
            receiver.url("/x"),
            receiver.url("/y"),
        )
    }

    /// Writes a config beside the one in use: without `warehouse`, and with another header.
    fn write_new(&self) -> String {
        let text = std::fs::read_to_string(self.router.folder().join("branchline.toml")).unwrap();
        let without: String =
            text.lines().filter(|line| !line.contains("warehouse")).map(|l| format!("{l}\n")).collect();
        let path = self.router.folder().join("new.toml");
        std::fs::write(&path, without.replace("marker-1", "marker-2")).unwrap();
        path.display().to_string()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.router.admin)
    }
}

fn has(ended: &Ended, parts: &[&str]) {
    for part in parts {
        assert!(ended.stdout.contains(part), "`{part}` is not in\n{}{}", ended.stdout, ended.stderr);
    }
    assert!(!ended.stdout.contains("marker") && !ended.stderr.contains("marker"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_config_would_change_is_told_before_it_does() {
    let case = Case::start("1h").await;
    let old = case.router.folder().join("branchline.toml").display().to_string();
    let same = branchline(&["plan", &old, "--detailed-exitcode"], "").await;
    assert_eq!((same.code, same.stdout.starts_with("no changes, compared with generation 1")), (0, true), "{same:?}");

    // The same, written otherwise: a duration in another unit, a default, a plugin as a table.
    let text = std::fs::read_to_string(&old).unwrap();
    let text = text
        .replace(r#"["1h"]"#, r#"["60m"]"#)
        .replace(r#"plugins = ["p"]"#, r#"plugins = [{ use = "p", mode = "apply" }]"#);
    let otherwise = case.router.folder().join("otherwise.toml").display().to_string();
    std::fs::write(&otherwise, text.replace("[endpoints.y]", "[endpoints.y]\ntimeout = \"3000ms\"")).unwrap();
    let same = branchline(&["plan", &otherwise, "--detailed-exitcode"], "").await;
    assert_eq!((same.code, same.stdout.starts_with("no changes, compared with generation 1")), (0, true), "{same:?}");

    let new = case.write_new();
    std::fs::write(case.router.folder().join("p.wasm"), Guest::drop("no").build()).unwrap();
    let planned = branchline(&["plan", &new, "--against", &case.url()], "").await;
    assert_eq!(planned.code, 0, "{planned:?}");
    has(
        &planned,
        &[
            "~ endpoint `x`\n    headers.x-key: *** (changed, not shown)\n",
            "~ plugin `p`\n    component: ",
            "- subscription `warehouse`\n  → removing `warehouse` leaves 3 scheduled deliveries: they will be dead-lettered as \
             `subscription-removed`, each when it falls due\n",
            "\n0 to add, 2 to change, 1 to remove, compared with generation 1 of the router at http://127.0.0.1:",
        ],
    );
    let planned = branchline(&["plan", &new, "--json", "--detailed-exitcode"], "").await;
    assert_eq!(planned.code, 3, "{planned:?}");
    let changes = planned.json()["changes"].clone();
    assert_eq!(changes[2]["waiting"], json!({ "count": 3 }), "{changes:#}");
    assert_eq!(changes[0]["keys"][0]["secret"], true, "{changes:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_removed_subscription_is_a_dead_letter_once_it_is_due() {
    let case = Case::start("5s").await;
    std::fs::copy(case.write_new(), case.router.folder().join("branchline.toml")).unwrap();
    assert_eq!(case.router.post_admin("/api/v1/reload").await.0, 200);
    eventually("they are dead letters", PATIENCE, async || {
        let (_, letters) = case.router.get("/api/v1/dead-letters?reason=subscription-removed").await?;
        let letters: Value = serde_json::from_str(&letters).ok()?;
        (letters["deadLetters"].as_array()?.len() == 3).then_some(())
    })
    .await;
    assert_eq!(case.receiver.count("/x"), 3, "none of them was tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_is_asked_which_secrets_differ_and_gives_none_away() {
    let case = Case::start("1h").await;
    let old = case.router.folder().join("branchline.toml").display().to_string();
    let question = json!({ "key": "drawn", "prints": { "endpoints.x.headers.x-key": "00", "endpoints.x.no": "00" } });
    let (status, answer) = case.router.call("POST", "/api/v1/config/comparison", question.to_string(), &[]).await;
    assert_eq!((status.as_u16(), &answer["differing"]), (200, &json!(["endpoints.x.headers.x-key"])), "{answer:#}");
    assert_eq!(answer["description"]["endpoints"]["x"]["headers.x-key"], "***");
    for secret in ["marker", crate::support::router::KEY] {
        assert!(!answer.to_string().contains(secret), "{answer:#}");
    }
    let (status, _) = case.router.call("POST", "/api/v1/config/comparison", "{}", &[]).await;
    assert_eq!(status, 400);

    // The same words, with another secret behind them.
    let text = std::fs::read_to_string(&old).unwrap().replace("env = \"TEST_KEY\"", "env = \"TEST_SECRET\"");
    let new = case.router.folder().join("new.toml");
    std::fs::write(&new, text).unwrap();
    let planned = branchline(&["plan", new.to_str().unwrap()], "").await;
    has(&planned, &["auth.bearer[0].env: TEST_KEY → TEST_SECRET (changed, not shown)\n"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_router_a_config_is_compared_with_another_and_its_store_counted() {
    let mut case = Case::start("1h").await;
    let (old, new) = (case.router.folder().join("branchline.toml").display().to_string(), case.write_new());
    case.router.stop().await;
    let nobody = branchline(&["plan", &new], "").await;
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(!nobody.stderr.contains("--config") && nobody.stderr.contains("`--from PATH`"), "{nobody:?}");
    assert!(nobody.stderr.contains("no router answers at") && nobody.stderr.contains("--from PATH"), "{nobody:?}");
    let planned = branchline(&["plan", &new, "--from", &old], "").await;
    has(&planned, &["leaves 3 scheduled deliveries", "compared with `", "headers.x-key: *** (changed, not shown)"]);

    let back = branchline(&["plan", &old, "--from", &new], "").await;
    has(&back, &["+ subscription `warehouse`\n    endpoint: x\n", "1 to add, 1 to change, 0 to remove"]);
    let elsewhere = case.router.folder().join("elsewhere.toml");
    let text = std::fs::read_to_string(&old).unwrap().replace("/data\"", "/nowhere\"");
    std::fs::write(&elsewhere, text).unwrap();
    let planned = branchline(&["plan", &new, "--from", elsewhere.to_str().unwrap()], "").await;
    has(
        &planned,
        &["removing `warehouse` leaves no scheduled delivery\n", "what waits in the store of before stays there"],
    );
    assert!(!case.router.folder().join("nowhere").exists(), "to look is not to make");

    std::fs::write(&elsewhere, "[endpoints.x]\nurl = \"nonsense\"\n").unwrap();
    let invalid = branchline(&["plan", elsewhere.to_str().unwrap(), "--from", &old], "").await;
    assert_eq!(invalid.code, 78, "{invalid:?}");
    assert_eq!(branchline(&["plan", &new, "--from", &old, "--against", "http://x"], "").await.code, 2);
}
