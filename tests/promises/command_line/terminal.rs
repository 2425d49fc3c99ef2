//! Long work at a terminal: a bar on it while it lasts, and nothing of it left in what is printed.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::backtest::Case;
use crate::support::router::KEY;

/// What `branchline` writes to a terminal, which `script` gives it; only Linux's takes these options.
fn at_a_terminal(folder: &Path, arguments: &[&str]) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let program = [env!("CARGO_BIN_EXE_branchline")].iter().chain(arguments).map(|text| quoted(text));
    let line = program.collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(folder);
    script.env("TERM", "xterm").env("TEST_KEY", KEY).env_remove("NO_COLOR");
    let output = script.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{line}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(target_os = "linux"), ignore = "`script` is another one here")]
async fn long_work_shows_how_far_it_is_on_a_terminal() {
    let case = Case::new().await;
    let lines: Vec<_> = (0..2_000).map(|number| json!({ "eventType": "a.b", "payload": number }).to_string()).collect();
    std::fs::write(case.path("events.ndjson"), lines.join("\n")).unwrap();
    let (config, new) = (case.path("branchline.toml"), case.path("new.wasm"));
    for (arguments, told) in [
        (&["send", "events.ndjson", "--config", &config][..], "2000"),
        (&["replay", "--since", "1h", "--all", "--dry-run", "--config", &config], "would be made again"),
        (&["backtest", "--subscription", "tell", "--plugin", &new, "--config", &config], "5,000 events"),
    ] {
        let shown = at_a_terminal(&case.folder, arguments);
        assert!(shown.contains('━') && shown.contains(told), "{arguments:?}: {shown:?}");
        // It is wiped before the result is printed.
        let after_the_bar = &shown[shown.rfind('━').unwrap()..];
        assert!(after_the_bar.contains("\u{1b}[2K"), "{arguments:?}: {shown:?}");
    }
}
