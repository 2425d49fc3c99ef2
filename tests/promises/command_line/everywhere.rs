//! What all commands have in common: the config they find, the exit code of a wrong question, an end when nobody reads any more; and
//! that to look changes nothing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use crate::support::eventually;
use crate::support::program::branchline_in;
use crate::support::router::RouterProcess;

const PATIENCE: Duration = Duration::from_secs(30);

/// Commands that print, each with what is printed of the config or the store in the folder.
const PRINTING: [&[&str]; 9] = [
    &["schema"],
    &["man"],
    &["completions", "bash"],
    &["check"],
    &["test"],
    &["events", "list"],
    &["events", "list", "--json"],
    &["explain", "evt_1"],
    &["plan", "--from", "branchline.toml"],
];

const ROUTE: &str = r#"
[endpoints.x]
url = "https://x.example.com/hook"
[endpoints.spare]
url = "https://spare.example.com/hook"
[[routes]]
name = "orders"
events = ["order.*"]
subscriptions = [{ name = "x", endpoint = "x" }]
[[tests]]
name = "a user is nobody's"
event = { eventType = "user.created", payload = 1 }
expect.x = "not matched"
"#;

/// A router that has stored an event that no route wants, and has stopped.
async fn stopped() -> RouterProcess {
    let mut router = RouterProcess::new("file:data", ROUTE);
    router.start().await;
    let event = json!({ "id": "evt_1", "eventType": "user.created", "payload": 1 });
    let (status, answer) = router.post("application/json", event.to_string()).await.unwrap();
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    eventually("it is settled", PATIENCE, async || {
        let (_, event) = router.get("/api/v1/events/evt_1").await?;
        event.contains("unmatched").then_some(())
    })
    .await;
    assert!(router.stop().await.success());
    router
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_finds_the_config_that_serve_would_use_here() {
    let router = stopped().await;
    for arguments in PRINTING {
        let ended = branchline_in(&router.folder(), arguments);
        assert!(ended.code == 0 && !ended.stdout.is_empty(), "{arguments:?}: {ended:?}");
    }
    // An event that no route wanted is told as such.
    let shown = branchline_in(&router.folder(), &["explain", "evt_1"]);
    assert!(shown.stdout.contains("recorded     unmatched, at 20"), "{shown:?}");
    let told = branchline_in(&router.folder(), &["explain", "evt_1", "--json"]).json();
    assert_eq!(told["recorded"]["last"]["outcome"], "unmatched", "{told:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_output_nobody_reads_ends_quietly() {
    let router = stopped().await;
    for arguments in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut program = Command::new(env!("CARGO_BIN_EXE_branchline"));
        program.args(arguments).current_dir(router.folder()).env_remove("BRANCHLINE_CONFIG").stdout(writer);
        let output = program.env("TEST_KEY", "a-key-of-the-tests").output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_question_that_is_none_ends_with_2_and_to_look_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        format!("[sources.app]\npath = \"/v1/events\"\nauth = \"none\"\n[admin]\nlisten = \"127.0.0.1:1\"\n{ROUTE}");
    std::fs::write(folder.path().join("branchline.toml"), text).unwrap();
    for (arguments, code, part) in [
        (&["replay"][..], 2, "which deliveries?"),
        (&["replay", "--dry-run"], 2, "which deliveries?"),
        (&["backtest", "--subscription", "x"], 2, "say what is to be otherwise"),
        (&["backtest", "--subscription", "x", "--where", "true", "--since", "soon"], 2, "--since"),
        (&["events", "list", "--url", "no url"], 2, "`--url` is not a URL"),
        (&["explain", "nope.json"], 1, "there is no file `nope.json`"),
        (&["explain", "./orders/4711"], 1, "there is no file `./orders/4711`"),
        (&["explain", "evt_1"], 1, "there is no store in `data` yet"),
        (&["events", "list"], 1, "there is no store in `data` yet"),
    ] {
        let ended = branchline_in(folder.path(), arguments);
        assert!(ended.code == code && ended.stderr.contains(part), "{arguments:?}: {ended:?}");
        assert!(!folder.path().join("data").exists(), "{arguments:?} has made a store");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_none_ends_with_2_in_the_store_and_through_a_router() {
    let mut router = stopped().await;
    let all: [&[&str]; 3] = [
        &["replay", "--since", "yesterday"],
        &["events", "list", "--since", "yesterday"],
        &["dead-letters", "list", "--since", "yesterday"],
    ];
    for is_running in [false, true] {
        if is_running {
            router.start().await;
        }
        for arguments in all {
            let ended = branchline_in(Path::new(&router.folder()), arguments);
            assert!(ended.code == 2 && ended.stderr.contains("since"), "{arguments:?}: {ended:?}");
        }
    }
}
