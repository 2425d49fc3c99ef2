//! One version of a plugin in place of another: by a reload, when its fixtures hold, and never in the middle of an event.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;

use crate::support::components::Guest;
use crate::support::eventually;
use crate::support::receiver::Receiver;
use crate::support::router::RouterProcess;

const PATIENCE: Duration = Duration::from_secs(30);

/// One event to `/x` through the plugin, and to `/plain` without one. `keys` are the plugin's.
fn config(receiver: &Receiver, plugin: &Path, keys: &str) -> String {
    format!(
        r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
[endpoints.x]
url = "{x}"
[endpoints.plain]
url = "{plain}"
[plugins.p]
path = "{plugin}"
deadline = "10s"
{keys}
[[routes]]
name = "all"
events = ["**"]
subscriptions = [
  {{ name = "x", endpoint = "x", plugins = ["p"] }},
  {{ name = "plain", endpoint = "plain" }},
]
"#,
        x = receiver.url("/x"),
        plain = receiver.url("/plain"),
        plugin = plugin.display(),
    )
}

struct Case {
    receiver: Receiver,
    router: RouterProcess,
    _folder: tempfile::TempDir,
    plugin: PathBuf,
}

impl Case {
    /// A router with a plugin `NAME.wasm`, which has not started.
    async fn new(name: &str, guest: &Guest) -> Self {
        let receiver = Receiver::start().await;
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join(format!("{name}.wasm"));
        std::fs::write(&plugin, guest.build()).unwrap();
        let router = RouterProcess::new("file:{folder}/data", &config(&receiver, &plugin, ""));
        Self { receiver, router, _folder: folder, plugin }
    }

    /// Writes a fixture into a folder beside the component.
    fn fixture(&self, folder: &str, name: &str, verdict: &str) {
        let folder = self.plugin.with_file_name(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!(r#"{{"event": {{"eventType": "a.b", "payload": "marker"}}, "verdict": {verdict}}}"#);
        std::fs::write(folder.join(format!("{name}.json")), text).unwrap();
    }

    async fn reload(&self, guest: &Guest) -> (StatusCode, String) {
        std::fs::write(&self.plugin, guest.build()).unwrap();
        self.router.post_admin("/api/v1/reload").await
    }

    async fn send(&self, id: &str) {
        let event = format!(r#"{{"id":"{id}","eventType":"order.created","payload":1}}"#);
        let (status, answer) = self.router.post("application/json", event).await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }

    async fn arrived(&self, path: &str, count: usize) {
        eventually(path, PATIENCE, async || (self.receiver.count(path) >= count).then_some(())).await;
    }

    /// The last body that came through the plugin.
    fn body(&self) -> String {
        String::from_utf8(self.receiver.received("/x").last().unwrap().body.to_vec()).unwrap()
    }
}

fn says(text: &str) -> Guest {
    Guest::send(&[], "text/plain", text)
}

/// As [`says`], after so much work.
fn says_slowly(text: &str, rounds: u32) -> Guest {
    let quick = says(text);
    let send = quick.instructions().to_owned();
    let work = Guest::works(rounds).instructions().replace("(i32.const 1024)", "");
    quick.with_function("(global $n (mut i32) (i32.const 0))").with_body(format!("{work} {send}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_fixtures_do_not_hold_does_not_replace_the_one_in_use() {
    let mut case = Case::new("greeter", &says("old")).await;
    case.fixture(
        "greeter/fixtures",
        "greeting",
        r#"{"send": {"headers": [], "contentType": "text/plain", "body": "old"}}"#,
    );
    case.router.start().await;

    // Another body, and another verdict.
    for (guest, part) in [
        (says("new"), "`greeting`: another `send` came than must"),
        (Guest::drop("no"), "`greeting`: `send` must come, and `drop` came"),
    ] {
        let (status, answer) = case.reload(&guest).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        let (_, shown) = case.router.get("/api/v1/config").await.unwrap();
        for text in [&answer, &shown] {
            assert!(text.contains(part) && text.contains("branchline.toml:"), "`{part}` is not in\n{text}");
            assert!(text.contains("branchline plugin test") && !text.contains("marker"), "{text}");
        }
        assert!(shown.contains("\"generation\":1"), "{shown}");
    }
    case.send("evt_1").await;
    case.arrived("/x", 1).await;
    assert_eq!(case.body(), "old");

    // With the fixture that goes with it, the new one is taken, and its trial is no call of a delivery.
    case.fixture("greeter/fixtures", "greeting", r#"{"drop": "no"}"#);
    let (status, answer) = case.reload(&Guest::drop("no")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (_, shown) = case.router.get("/api/v1/config").await.unwrap();
    assert!(shown.contains("\"generation\":2") && !shown.contains("lastFault"), "{shown}");
    let (_, metrics) = case.router.get("/metrics").await.unwrap();
    let calls: Vec<_> = metrics.lines().filter(|line| line.starts_with("branchline_plugin_calls_total{")).collect();
    assert_eq!(calls, [r#"branchline_plugin_calls_total{plugin="p",verdict="send"} 1"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_does_not_start_with_a_plugin_whose_fixtures_do_not_hold() {
    for (keys, folder, place, starts) in [
        ("", "fixtures", "branchline.toml:", true), // Beside another file than `plugin.wasm` it may be anybody's.
        ("", "greeter/fixtures", "path = ", false),
        ("fixtures = \"KEPT\"", "kept", "fixtures = ", false),
        ("fixtures = \"KEPT\"", "greeter/fixtures", "can't read the fixtures in", false),
        ("fixtures = \"\"", "greeter/fixtures", "", true),
    ] {
        let mut case = Case::new("greeter", &says("hello")).await;
        let kept = case.plugin.with_file_name("kept").display().to_string();
        case.router.write_config(&config(&case.receiver, &case.plugin, &keys.replace("KEPT", &kept)));
        case.fixture(folder, "first", r#""pass""#);
        if starts {
            case.router.start().await;
            continue;
        }
        case.router.spawn();
        let status = case.router.ended().await;
        let log = case.router.log();
        assert_eq!(status.code(), Some(78), "{keys} {folder}: {log}");
        // A key is shown as the file's place of it; what stands before the plugin's table is not this test's.
        let place = match place.ends_with("= ") {
            true => {
                let text = std::fs::read_to_string(case.router.folder().join("branchline.toml")).unwrap();
                let table = text.lines().position(|line| line == "[plugins.p]").unwrap();
                let line = table + text.lines().skip(table).position(|line| line.starts_with(place)).unwrap() + 1;
                format!("branchline.toml:{line}:{}", place.len() + 1)
            }
            false => place.to_owned(),
        };
        assert!(log.contains(&place), "{keys} {folder}: `{place}` is not in\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_file_in_place_of_a_pinned_one_is_not_taken() {
    let mut case = Case::new("greeter", &says("old")).await;
    let digest = {
        use sha2::{Digest, Sha256};
        Sha256::digest(std::fs::read(&case.plugin).unwrap())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    case.router.write_config(&config(&case.receiver, &case.plugin, &format!("sha256 = \"{digest}\"")));
    case.router.start().await;
    let (status, answer) = case.reload(&says("new")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.contains(&digest) && answer.contains("change `sha256`"), "{answer}");
    case.send("evt_1").await;
    case.arrived("/x", 1).await;
    assert_eq!(case.body(), "old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_sends_the_bytes_of_the_first_attempt_whatever_the_plugin_would_make_now() {
    let mut case = Case::new("greeter", &says("old")).await;
    let config = config(&case.receiver, &case.plugin, "");
    case.router.write_config(&config.replace(r#"plugins = ["p"]"#, r#"plugins = ["p"], retry = ["3s"]"#));
    case.receiver.answers("/x", &[500, 200]);
    case.router.start().await;
    case.send("evt_1").await;
    case.arrived("/x", 1).await;
    let (status, answer) = case.reload(&says("new")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(case.receiver.count("/x"), 1, "it has not been tried again yet");
    case.arrived("/x", 2).await;
    assert_eq!(case.body(), "old");
    case.send("evt_2").await;
    case.arrived("/x", 3).await;
    assert_eq!(case.body(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_ends_on_the_version_it_began_with() {
    /// How much work each try takes. It must last longer than a reload, and end before the event is taken up again, since a plugin
    /// of which nothing is known yet works on one event at a time; how much that is differs by machine. Other tries say nothing.
    const TRIES: [u32; 6] = [1_000_000_000, 700_000_000, 500_000_000, 350_000_000, 1_400_000_000, 250_000_000];

    for rounds in TRIES {
        let mut case = Case::new("greeter", &says_slowly("old", rounds)).await;
        let first = case.plugin.with_file_name("first.wasm");
        std::fs::write(&first, Guest::pass().build()).unwrap();
        let config = config(&case.receiver, &case.plugin, &format!("[plugins.first]\npath = \"{}\"", first.display()));
        case.router.write_config(&config.replace(r#"plugins = ["p"]"#, r#"plugins = ["first", "p"]"#));
        case.router.start().await;
        case.send("evt_1").await;
        // An event does not wait that long for plugins: it is parked, and they run again for the delivery. What is in flight
        // is the second run, once the first plugin has passed it on.
        eventually("the second run has begun", PATIENCE, async || {
            let (_, metrics) = case.router.get("/metrics").await?;
            metrics.contains(r#"branchline_plugin_calls_total{plugin="first",verdict="pass"} 2"#).then_some(())
        })
        .await;
        let (status, answer) = case.reload(&says("new")).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let was_in_flight = case.receiver.count("/x") == 0;
        case.arrived("/x", 1).await;
        let ended_on = case.body();
        // What comes from then on is the new one's.
        case.send("evt_2").await;
        case.arrived("/x", 2).await;
        assert_eq!(case.body(), "new");
        if was_in_flight && ended_on == "old" {
            return;
        }
    }
    panic!("nothing that was in flight ended on the old version, in {} tries", TRIES.len());
}
