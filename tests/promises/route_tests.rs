//! Tests that stand beside the routes run as `serve` would, on a clock of their own: they pass where it would do what they say,
//! and where it would not they say what differs and where the test stands. No store, no network, no secret takes part.

use std::path::Path;
use std::process::Command;

use base64::Engine;
use quick_xml::events::Event;
use serde_json::Value;

use super::support::SECRET;
use super::support::components::Guest;
use super::support::program::Ended;

const BASE: &str = r#"[sources.app]
path = "/v1/events"
auth = { bearer = [{ env = "APP_KEY" }] }
[endpoints.x]
url = { env = "X_URL" }
secret = { file = "x.secret" }
headers = { x-key = { env = "X_KEY" } }
[[routes]]
name = "orders"
events = ["order.*"]
where = "payload.amount >= 100"
subscriptions = [{ name = "x", endpoint = "x" }]
"#;

/// A folder with a config.
struct Place(tempfile::TempDir);

impl Place {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("app.toml"), text).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn test(&self, arguments: &[&str]) -> Ended {
        run(self.0.path(), &[&["app.toml"], arguments].concat())
    }
}

fn run(folder: &Path, arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_branchline"))
        .arg("test")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", std::env::temp_dir())
        // No test may see them.
        .env("X_URL", "https://real.example.com/marker")
        .env("X_KEY", "marker")
        .output()
        .unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A test of an order of this amount.
fn order(name: &str, amount: u32, rest: &str) -> String {
    format!(
        "[[tests]]\nname = \"{name}\"\nevent = {{ id = \"evt_1\", eventType = \"order.created\", payload = {{ amount = {amount} }} }}\n{rest}\n"
    )
}

#[test]
fn the_tests_of_the_example_pass() {
    let ran = run(Path::new(env!("CARGO_MANIFEST_DIR")), &["config/example.toml", "--json"]);
    assert_eq!((ran.code, &ran.json()["failed"]), (0, &Value::from(0)), "{ran:?}");
    assert!(ran.json()["passed"].as_u64() >= Some(3), "{ran:?}");
}

#[test]
fn the_test_of_the_readme_passes() {
    let readme = include_str!("../../README.md");
    let blocks: Vec<_> = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let block = |part: &str| *blocks.iter().find(|block| block.contains(part)).unwrap();
    let place = Place::new(&(block("[sources.app]").to_owned() + block("[[tests]]")));
    let ran = place.test(&["--update"]);
    assert_eq!((ran.code, ran.stdout.contains("1 passed, 0 failed, 1 updated")), (0, true), "{ran:?}");
    assert_eq!(place.test(&[]).code, 0);
}

#[test]
fn a_whole_life_with_its_request_signature_and_times_takes_milliseconds() {
    let expected = format!(
        "secrets = {{ X_URL = \"https://x.example.com/hook?a=1\", \"x.secret\" = \"{SECRET}\", X_KEY = \"its-key\" }}\n\
         [tests.expect.x]\nmethod = \"POST\"\nurl = \"https://x.example.com/hook?a=1\"\n\
         headers = {{ content-type = \"application/json\", branchline-attempt = \"1\", webhook-timestamp = \"1736937000\", x-key = \"its-key\" }}\n\
         signature = [{}]\nbody = {{ id = \"evt_1\", eventType = \"order.created\", payload = {{ amount = 100 }}, occurredAt = \"2025-01-15T10:30:00.000Z\", metadata = {{}} }}\n\
         answers = [500, \"429 Retry-After: 600\", \"timeout\", \"refused\", \"503 Retry-After: 5\", 200]\n\
         attempts = [\"0s\", \"1m\", \"11m\", \"41m 3s\", \"2h 41m 3s\", \"26h 41m 3s\"]\n",
        [0, 60, 660, 2_463, 9_663, 96_063].map(|after| format!("\"{}\"", signature(after))).join(", ")
    );
    let place = Place::new(&(BASE.to_owned() + &order("a long life", 100, &expected)));
    let ran = place.test(&["--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let micros = ran.json()["tests"][0]["micros"].as_u64().unwrap();
    assert!(micros < 2_000_000, "26 hours took {micros} µs");
}

/// What the reference implementation of Standard Webhooks makes of a request so many seconds after the first.
fn signature(after: i64) -> String {
    let body = r#"{"id":"evt_1","eventType":"order.created","payload":{"amount":100},"occurredAt":"2025-01-15T10:30:00.000Z","metadata":{}}"#;
    let accepted_at_ms: u64 = 1_736_937_000_000;
    let mut hashed = Vec::new();
    for part in ["app", "evt_1", "x"] {
        hashed.extend((part.len() as u64).to_le_bytes());
        hashed.extend(part.as_bytes());
    }
    hashed.extend(accepted_at_ms.to_le_bytes());
    let digest = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&hashed));
    let id: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let key = base64::engine::general_purpose::STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
    let reference = standardwebhooks::Webhook::from_bytes(key).unwrap();
    reference.sign(&format!("dlv_{id}"), 1_736_937_000 + after, body.as_bytes()).unwrap()
}

#[test]
fn every_way_that_an_event_can_end_can_be_asked_for() {
    let guests = [
        ("dropping", Guest::drop("not for us")),
        ("refusing", Guest::dead_letter("no such customer")),
        ("failing", Guest::error("upstream", "later", true)),
        ("hopeless", Guest::error("no-email", "there is none", false)),
        ("sending", Guest::send(&[("x-made-by", "guest")], "text/plain", "hello")),
    ];
    let mut text = BASE.to_owned() + "[endpoints.y]\nurl = \"https://y.example.com/\"\nretry = [\"5s\", \"10s\"]\n";
    for (name, _) in &guests {
        text += &format!("[plugins.{name}]\npath = \"{name}.wasm\"\n");
    }
    text += "[[routes]]\nname = \"all\"\nevents = [\"order.*\", \"user.*\"]\nsubscriptions = [{ name = \"plain\", endpoint = \"y\" },\n";
    for (name, _) in &guests {
        text += &format!("{{ name = \"{name}\", endpoint = \"y\", plugins = [\"{name}\"] }},\n");
    }
    text += "]\n";
    let by_plugins = "dropping = \"dropped: not for us\", refusing = \"dead-letter: plugin: no such customer\", hopeless = \"dead-letter: not-retryable: no-email\"";
    text += &order(
        "small",
        99,
        &format!(
            "only = true\n[tests.expect]\n{}\nx = \"filtered\"\nplain = \"delivered\"\nfailing = {{ outcome = \"dead-letter: exhausted: upstream\", attempts = [\"0s\", \"5s\", \"15s\"] }}\nsending = {{ headers = {{ x-made-by = \"guest\", content-type = \"text/plain\" }}, body_file = \"hello.txt\" }}",
            by_plugins.replace(", ", "\n")
        ),
    );
    text += &order(
        "large",
        100,
        "only = false\n[tests.expect.x]\noutcome = \"dead-letter: gone\"\nanswers = [410]\nattempts = [\"0s\"]\n[tests.expect.plain]\noutcome = \"dead-letter\"\nanswers = [500]\nattempts = [\"0s\", \"5s\", \"15s\"]",
    );
    text += "[[tests]]\nname = \"a user\"\nevent_file = \"user.json\"\nonly = false\nexpect = { x = \"not matched\", plain = \"delivered\" }\n";
    text += "[[tests]]\nname = \"a stranger\"\nevent = { eventType = \"stranger\", payload = 1 }\nexpect = {}\nonly = true\n";
    let place = Place::new(&text);
    for (name, guest) in guests {
        std::fs::write(place.path(&format!("{name}.wasm")), guest.build()).unwrap();
    }
    std::fs::write(place.path("user.json"), r#"{"id": "evt_2", "eventType": "user.deleted", "payload": {}}"#).unwrap();
    std::fs::write(place.path("hello.txt"), "hello").unwrap();
    let ran = place.test(&[]);
    assert_eq!((ran.code, ran.stdout.contains("4 passed, 0 failed")), (0, true), "{}\n{}", ran.stdout, ran.stderr);
}

const WRONG: &str = "only = true
[tests.expect.x]
outcome = \"filtered\"
url = \"https://other.example.com/\"
body = { id = \"evt_1\" }
attempts = [\"0s\", \"1m\"]
headers = { x-team = \"shop\", x-key = \"shop\" }
signature = \"v1,x\"";

#[test]
fn what_differs_is_shown_with_the_place_of_the_test() {
    let text = BASE.to_owned()
        + &order("wrong", 100, WRONG)
        + &order("good", 100, "expect.x = \"delivered\"")
        + &order("others", 100, "expect = {}");
    let place = Place::new(&text);
    let ran = place.test(&[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    for part in [
        "FAILED   wrong",
        "ok       good",
        "app.toml:17:1: `x` must end as `filtered` and ended as `delivered`",
        "app.toml:19:7: `url` is another\n           - https://other.example.com/\n           + https://x-url.invalid/\n",
        "app.toml:20:8: the body is another\n",
        "+   \"eventType\": \"order.created\",",
        "app.toml:21:12: the attempts are made at other times\n             0s\n           - 1m\n",
        "app.toml:22:11: the header `x-team` is another\n           - shop\n           + (none)\n",
        "the header `x-key` is another\n           - shop\n           + (not shown: it may be a secret)\n",
        "app.toml:23:13: `signature` of request 1 is another\n           - v1,x\n           + v1,",
        "`x` gets the event too: add `expect.x`, or `only = false` where others may",
        "1 passed, 2 failed",
    ] {
        assert!(ran.stdout.contains(part), "`{part}` is not in\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("marker"), "a test sees no secret but its own:\n{}", ran.stdout);
    assert!(ran.stderr.contains("2 of 3 tests failed"), "{ran:?}");
    // Standard output is no terminal here.
    assert!(!ran.stdout.contains('\u{1b}'), "{ran:?}");
}

#[test]
fn who_gets_the_event_without_being_named_fails_a_test_that_does_not_say_only_false() {
    let both = BASE.replace(
        "[{ name = \"x\", endpoint = \"x\" }]",
        "[{ name = \"x\", endpoint = \"x\" }, { name = \"also\", endpoint = \"x\" }]",
    );
    let expect = "expect.x = \"delivered\"\n";
    let place = Place::new(
        &(both
            + &order("strict", 100, expect)
            + &order("lax", 100, &format!("only = false\n{expect}"))
            + &order("small", 1, "expect.x = \"filtered\"")),
    );
    let ran = place.test(&[]);
    assert_eq!((ran.code, ran.stdout.contains("2 passed, 1 failed")), (1, true), "{ran:?}");
    let message = "`also` gets the event too: add `expect.also`, or `only = false` where others may";
    assert!(ran.stdout.contains("FAILED   strict") && ran.stdout.contains(message), "{ran:?}");
}

#[test]
fn a_url_that_the_config_writes_out_is_compared_and_not_printed() {
    let base = BASE.replace("{ env = \"X_URL\" }", "\"https://x.example.com/token-T00\"");
    let right = order("right", 100, "expect.x = { url = \"https://x.example.com/token-T00\" }");
    let wrong = order("wrong", 100, "expect.x = { url = \"https://x.example.com/other\" }");
    let place = Place::new(&(base + &right + &wrong));
    let ran = place.test(&[]);
    assert!(ran.stdout.contains("ok       right") && ran.stdout.contains("FAILED   wrong"), "{ran:?}");
    assert!(!ran.stdout.contains("T00"), "{ran:?}");
}

#[test]
fn tests_are_chosen_by_a_part_of_their_name_and_that_there_is_none_is_a_failure() {
    let place = Place::new(
        &(BASE.to_owned()
            + &order("wrong", 1, "expect.x = \"delivered\"")
            + &order("good", 100, "expect.x = \"delivered\"")),
    );
    let ran = place.test(&["-k", "goo"]);
    assert_eq!((ran.code, ran.stdout.contains("1 passed, 0 failed")), (0, true), "{ran:?}");
    let ran = place.test(&["-k", "neither"]);
    assert_eq!((ran.code, ran.stderr.contains("no test's name contains `neither`")), (1, true), "{ran:?}");
    let ran = Place::new(BASE).test(&[]);
    assert_eq!((ran.code, ran.stderr.contains("there is no test")), (1, true), "{ran:?}");
    assert_eq!(place.test(&["--no-such-option"]).code, 2);
}

#[test]
fn the_report_for_ci_has_each_test_with_its_place_and_what_differs() {
    let place = Place::new(
        &(BASE.to_owned()
            + &order("<wrong> & \\\"bad\\\"", 100, WRONG)
            + &order("good", 100, "expect.x = \"delivered\"")),
    );
    assert_eq!(place.test(&["--junit", "report.xml"]).code, 1);
    let text = std::fs::read_to_string(place.path("report.xml")).unwrap();
    let mut reader = quick_xml::Reader::from_str(&text);
    let mut found = Vec::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => break,
            Event::Start(tag) | Event::Empty(tag) => {
                let value = |name: &str| {
                    tag.try_get_attribute(name)
                        .unwrap()
                        .map(|a| a.normalized_value(quick_xml::XmlVersion::Implicit1_0).unwrap().into_owned())
                };
                let name = tag.name().as_ref().to_owned();
                found.push((name, value("name"), value("failures"), value("line"), value("message")));
            }
            _ => {}
        }
    }
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(found[1], ("testsuite".to_owned(), text("app.toml"), text("1"), None, None));
    assert_eq!(found[2], ("testcase".to_owned(), text("<wrong> & \"bad\""), None, text("14"), None));
    let message = "`x` must end as `filtered` and ended as `delivered`";
    assert_eq!(found[3], ("failure".to_owned(), None, None, None, text(message)));
    assert_eq!(found.last().unwrap().1, text("good"));
}

#[test]
fn a_body_can_be_kept_in_a_file_that_is_written_when_asked() {
    let place = Place::new(&(BASE.to_owned() + &order("kept", 100, "expect.x = { body_file = \"bodies/x.json\" }")));
    let ran = place.test(&[]);
    assert_eq!((ran.code, ran.stdout.contains("`--update` writes it")), (1, true), "{}", ran.stdout);
    let ran = place.test(&["--update"]);
    assert_eq!((ran.code, ran.stdout.contains("1 passed, 0 failed, 1 updated")), (0, true), "{}", ran.stdout);
    let ran = place.test(&["--update"]);
    assert_eq!((ran.code, ran.stdout.contains("updated")), (0, false), "nothing is written twice: {}", ran.stdout);
    assert_eq!(place.test(&[]).code, 0);
    let file = place.path("bodies/x.json");
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace("100", "101")).unwrap();
    let ran = place.test(&[]);
    let shown = "-     \"amount\": 101\n           +     \"amount\": 100";
    assert!(ran.code == 1 && ran.stdout.contains(shown), "{}", ran.stdout);
}

#[test]
fn a_mistake_in_a_test_is_one_of_the_config_for_every_command() {
    let mistakes = "source = \"apps\"\nonyl = true\n[tests.expect]\ny = \"delivered\"\nx = { outcome = \"arrived\", answers = [\"slow\", 99], attempts = [\"soon\"] }";
    let place = Place::new(&(BASE.to_owned() + &order("typo", 100, mistakes)));
    let ran = place.test(&[]);
    assert_eq!(ran.code, 78, "{ran:?}");
    for part in [
        "app.toml:16:10: `tests[0].source` names no source of this config: `apps`; did you mean `app`?",
        "app.toml:17:1: unknown key `onyl` in `tests[0]`; did you mean `only`?",
        "app.toml:20:17: `tests[0].expect.x.outcome` must be `not matched`, `filtered`",
        "`tests[0].expect.x.answers[0]` must be a status from 200 to 599, `429 Retry-After: 120`, `timeout` or `refused`, not `slow`",
        "`tests[0].expect.x.answers[1]` must be a status",
        "`tests[0].expect.x.attempts[0]` must be a duration",
    ] {
        assert!(ran.stderr.contains(part), "`{part}` is not in\n{}", ran.stderr);
    }
    for command in ["check", "serve"] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_branchline"));
        program.arg(command).args(if command == "serve" { &["--config", "app.toml"][..] } else { &["app.toml"] });
        let output = program.current_dir(place.0.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{command}");
    }
    let place = Place::new(&(BASE.to_owned() + &order("typo", 100, "[tests.expect]\ny = \"delivered\"")));
    let ran = place.test(&[]);
    let message = "app.toml:17:5: `tests[0].expect.y` names no subscription of this config";
    assert_eq!((ran.code, ran.stderr.contains(message)), (78, true), "{ran:?}");
}

#[test]
fn an_event_that_no_producer_could_send_fails_its_test() {
    let place =
        Place::new(&(BASE.to_owned() + &order("bad", 1, "expect = {}").replace("order.created", "order created")));
    let ran = place.test(&[]);
    let message = "app.toml:13:1: the event is refused: /eventType: ";
    assert_eq!((ran.code, ran.stdout.contains(message)), (1, true), "{}", ran.stdout);
}
