//! What an author is told by `branchline plugin …`: exit codes, refusals, differences. No guest compiler takes part.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::components::Guest;

/// Runs `branchline plugin …`; gives the exit code and what it printed.
fn plugin(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_branchline")).arg("plugin").args(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A folder with a component that passes everything, and one fixture.
fn folder(fixture: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plugin.wasm"), Guest::pass().build()).unwrap();
    std::fs::create_dir(folder.path().join("fixtures")).unwrap();
    std::fs::write(folder.path().join("fixtures/case.json"), fixture).unwrap();
    folder
}

const EVENT: &str = r#"{ "eventType": "order.created", "payload": {"amount": 1.500, "b": [1,  2]} }"#;

#[test]
fn a_new_plugin_never_overwrites_and_its_name_is_checked() {
    let place = tempfile::tempdir().unwrap();
    let within = place.path().to_str().unwrap();
    for language in ["rust", "js", "ts", "python", "c"] {
        assert_eq!(plugin(&["new", &format!("it-{language}"), "--lang", language, "--within", within]).0, 0);
    }
    let manifest = place.path().join("it-rust/Cargo.toml");
    assert!(std::fs::read_to_string(&manifest).unwrap().contains("name = \"it-rust\""));
    std::fs::write(&manifest, "mine").unwrap();
    let (code, _, stderr) = plugin(&["new", "it-rust", "--lang", "rust", "--within", within]);
    assert_eq!((code, std::fs::read_to_string(&manifest).unwrap().as_str()), (1, "mine"), "{stderr}");
    for wrong in [&["new", "Not_A_Name", "--lang", "js"][..], &["new", "a", "--lang", "cobol"], &["new", "a"]] {
        assert_eq!(plugin(wrong).0, 2, "{wrong:?}");
    }
}

#[test]
fn a_mismatch_is_shown_and_can_be_accepted_without_touching_the_event() {
    let folder = folder(&format!(r#"{{"event": {EVENT}, "verdict": {{"drop": "no"}}}}"#));
    let path = folder.path().to_str().unwrap();
    let (code, stdout, stderr) = plugin(&["test", path]);
    assert_eq!(code, 1, "{stdout}{stderr}");
    for part in ["FAILED", "-   \"verdict\": {", "+   \"verdict\": \"pass\"", "0 passed, 1 failed"] {
        assert!(stdout.contains(part), "{part} is not in\n{stdout}");
    }
    assert_eq!(plugin(&["test", path, "--update"]).0, 0);
    let written = std::fs::read_to_string(folder.path().join("fixtures/case.json")).unwrap();
    assert_eq!(written, format!("{{\n  \"event\": {EVENT},\n  \"verdict\": \"pass\"\n}}\n"));
    let (code, stdout, _) = plugin(&["test", path, "--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["fixtures"][0]["result"]), (0, &json!("passed")), "{report:#}");
    assert!(report["fixtures"][0]["instructions"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn instructions_are_the_same_at_every_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plugin.wasm"), Guest::works(1000).build()).unwrap();
    std::fs::create_dir(folder.path().join("fixtures")).unwrap();
    let text = format!(r#"{{"event": {EVENT}, "verdict": "pass"}}"#);
    for name in ["a.json", "b.json"] {
        std::fs::write(folder.path().join("fixtures").join(name), &text).unwrap();
    }
    let (_, stdout, _) = plugin(&["test", folder.path().to_str().unwrap(), "--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let counted = |case: usize| report["fixtures"][case]["instructions"].as_u64().unwrap();
    assert!(counted(0) > 4000 && counted(0) == counted(1), "{report:#}");
}

#[test]
fn a_fixture_that_is_none_and_a_call_that_never_ends_fail_with_their_reason() {
    for (fixture, part) in [
        (r#"{"event": 1, "verdict": "pass"}"#, "the event is no envelope"),
        (r#"{"verdict": "pass"}"#, "it has no `event`"),
        (r#"{"events": {}, "verdict": "pass"}"#, "unknown key `events`"),
        (r#"{"verdict": "pass", "error": {}, "event": {"eventType": "a", "payload": 1}}"#, "more than one of"),
        ("[", "not a fixture"),
    ] {
        let folder = folder(fixture);
        let (code, stdout, _) = plugin(&["test", folder.path().to_str().unwrap(), "--update"]);
        assert!(code == 1 && stdout.contains(part), "{part} is not in\n{stdout}");
        assert_eq!(std::fs::read_to_string(folder.path().join("fixtures/case.json")).unwrap(), fixture);
    }
    let folder = folder(&format!(r#"{{"event": {EVENT}, "verdict": "pass"}}"#));
    std::fs::write(folder.path().join("plugin.wasm"), Guest::spins().build()).unwrap();
    let (code, stdout, _) = plugin(&["test", folder.path().to_str().unwrap(), "--update"]);
    assert!(code == 1 && stdout.contains("past its deadline"), "{stdout}");
}

#[test]
fn what_a_router_would_refuse_is_refused_with_the_same_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("it.wasm");
    for (bytes, part) in [
        (b"\0asm\x01\0\0\0".to_vec(), "a core WebAssembly module, not a component"),
        (b"hello".to_vec(), "not a WebAssembly file"),
        (Guest::pass().with_pages(300).build(), "starts with 19660800 bytes of memory"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let (code, _, stderr) = plugin(&["inspect", file.to_str().unwrap()]);
        assert!(code == 1 && stderr.contains(part), "{part} is not in\n{stderr}");
    }
    std::fs::write(&file, Guest::pass().build()).unwrap();
    let (code, stdout, _) = plugin(&["inspect", file.to_str().unwrap(), "--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["world"]), (0, &json!("branchline:plugin/plugin@0.1.0")), "{report:#}");
    assert_eq!(plugin(&["inspect", "no-such-file.wasm"]).0, 1);
}

#[test]
fn what_is_not_there_is_told_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let missing = folder.path().join("nothing");
    let missing = missing.to_str().unwrap();
    std::fs::write(folder.path().join("event.json"), "{").unwrap();
    let event = folder.path().join("event.json");
    let event = event.to_str().unwrap();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/sample");
    for (arguments, part) in [
        (vec!["build", missing], format!("there is no folder `{missing}`")),
        (vec!["build", path], "it has none of `Cargo.toml`, `plugin.js`".to_owned()),
        (vec!["inspect", missing], format!("there is no `{missing}`; a component")),
        (vec!["inspect", path], format!("build it first: `branchline plugin build {path}`")),
        (vec!["test", missing], format!("there is no `{missing}`; a component")),
        (vec!["test", path], format!("build it first: `branchline plugin build {path}`")),
        (vec!["bench", shipped, "--event", missing], format!("can't read `{missing}`")),
        (vec!["bench", shipped, "--event", event], format!("`{event}`: the event is no envelope")),
    ] {
        let (code, _, stderr) = plugin(&arguments);
        assert!(code == 1 && stderr.contains(&part), "{arguments:?}: {part} is not in\n{stderr}");
    }
    assert_eq!(plugin(&["inspect", shipped]).0, 0, "a folder with its component beside it");
}

#[test]
fn a_shipped_plugin_passes_its_fixtures_and_is_measured() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (code, stdout, stderr) = plugin(&["test", root.join("plugins/slack").to_str().unwrap(), "-k", "order."]);
    assert!(code == 0 && stdout.contains("0 failed"), "{stdout}{stderr}");
    let event = root.join("plugins/examples/common/event.json");
    let component = root.join("plugins/slack.wasm");
    let (code, stdout, stderr) = plugin(&[
        "bench",
        component.to_str().unwrap(),
        "--event",
        event.to_str().unwrap(),
        "--duration",
        "50ms",
        "--json",
    ]);
    assert_eq!(code, 0, "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let measured = report["measurements"].as_array().unwrap();
    assert_eq!(measured.len(), 3);
    for row in measured {
        assert!(row["call"]["medianMicros"].as_f64().unwrap() > 0.0 && row["callsPerSecond"].as_u64().unwrap() > 0);
    }
}
