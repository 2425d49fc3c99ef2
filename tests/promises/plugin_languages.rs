//! A plugin in each language, from `plugin new` to a delivered message, with the real tools; and the guide's commands as
//! they stand in it. What is missing is fetched by `plugin build` itself, by the language's own package manager; a language
//! whose tools can't be had fails. `BRANCHLINE_TEST_LANGUAGES=rust,js` limits the set.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use crate::support::eventually;
use crate::support::receiver::Receiver;
use crate::support::router::{RouterProcess, free_port};

const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a language is in the set.
fn is_wanted(language: &str) -> bool {
    match std::env::var("BRANCHLINE_TEST_LANGUAGES") {
        Ok(set) => {
            let wanted = set.split(',').any(|name| name.trim() == language);
            if !wanted {
                eprintln!("left out by BRANCHLINE_TEST_LANGUAGES={set}: {language}");
            }
            wanted
        }
        Err(_) => true,
    }
}

/// Runs `branchline plugin …` and gives what it printed; it must succeed.
fn plugin(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_branchline"))
        .arg("plugin")
        .args(arguments)
        // The compiled dependencies are kept from run to run.
        .env("CARGO_TARGET_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/plugin-languages"))
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success(), "plugin {arguments:?}: {status}\n{stdout}\n{stderr}");
    stdout
}

/// From nothing to a delivered message.
async fn is_delivered(language: &str) {
    if !is_wanted(language) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let within = place.path().to_str().unwrap();
    let folder = place.path().join("order-alert");
    let folder = folder.to_str().unwrap();
    plugin(&["new", "order-alert", "--lang", language, "--within", within]);
    let built: Value = serde_json::from_str(&plugin(&["build", folder, "--json"])).unwrap();
    let tested: Value = serde_json::from_str(&plugin(&["test", folder, "--deadline", "5s", "--json"])).unwrap();
    let results: Vec<_> = tested["fixtures"].as_array().unwrap().iter().map(|case| case["result"].as_str()).collect();
    assert_eq!(results, [Some("passed"); 3], "{tested:#}");
    eprintln!("{language}: {} bytes, {}", built["bytes"], built["toolchain"]);

    let receiver = Receiver::start().await;
    let config = format!(
        r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
[endpoints.slack]
url = "{url}"
[plugins.order-alert]
path = "{folder}/plugin.wasm"
deadline = "5s"
[[routes]]
name = "orders"
events = ["order.*"]
subscriptions = [
  {{ name = "tell-sales", endpoint = "slack", plugins = [{{ use = "order-alert", config = {{ atLeast = 10000 }} }}] }},
]
"#,
        url = receiver.url("/slack"),
    );
    let mut router = RouterProcess::new("file:{folder}/data", &config);
    router.start().await;
    for (id, amount) in [("evt_small", 9_999), ("evt_large", 10_000)] {
        let event = format!(
            r#"{{"id":"{id}","eventType":"order.completed","aggregateId":"{id}","payload":{{"amount":{amount},"currency":"KRW"}}}}"#
        );
        let (status, answer) = router.post("application/json", event).await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }
    let message = eventually("the message arrives", PATIENCE, async || receiver.received("/slack").pop()).await;
    let body: Value = serde_json::from_slice(&message.body).unwrap();
    assert_eq!(body, serde_json::json!({ "text": "Order evt_large: 10000 KRW" }));
    assert!(router.stop().await.success());
    assert_eq!(receiver.count("/slack"), 1, "the small order was dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_plugin_in_rust_is_built_tested_and_its_message_delivered() {
    is_delivered("rust").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_plugin_in_javascript_is_built_tested_and_its_message_delivered() {
    is_delivered("js").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_plugin_in_typescript_is_built_tested_and_its_message_delivered() {
    is_delivered("ts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_plugin_in_python_is_built_tested_and_its_message_delivered() {
    is_delivered("python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_plugin_in_c_is_built_tested_and_its_message_delivered() {
    is_delivered("c").await;
}

/// The blocks of a kind in a page.
fn blocks<'a>(page: &'a str, kind: &'a str) -> impl Iterator<Item = &'a str> {
    let fence = format!("```{kind}\n");
    page.split("```")
        .filter_map(move |block| format!("```{block}").strip_prefix(&fence).map(|_| &block[kind.len() + 1..]))
}

fn page(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_commands_of_the_guide_work_as_they_stand_there() {
    if !is_wanted("js") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    // Other tests listen too: the guide's ports become free ones.
    let (ingest, admin, receiver) = (free_port().to_string(), free_port().to_string(), free_port().to_string());
    let guide = page("docs/plugins.md").replace(":8080", &format!(":{ingest}")).replace("9000", &receiver);
    for kind in ["toml", "python"] {
        for block in blocks(&guide, kind) {
            let Some(name) = block.lines().next().and_then(|line| line.strip_prefix("# ")) else { continue };
            let ports = format!("[ingest]\nlisten = \"127.0.0.1:{ingest}\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n");
            let text = if kind == "toml" { ports + block } else { block.to_owned() };
            std::fs::write(place.path().join(name), text).unwrap();
        }
    }
    let mut script = "set -e\ntrap 'kill $(jobs -p)' EXIT\n".to_owned();
    for line in blocks(&guide, "console").flat_map(str::lines) {
        script += line.strip_prefix("$ ").expect("the guide's console blocks are commands");
        script.push('\n');
        if line.contains("receiver.py") {
            // A person types slower than Python starts; an event that came first would be tried again after a minute.
            script += &format!(
                "for turn in $(seq 300); do curl -s http://127.0.0.1:{receiver} > probe.log && break; sleep 0.1; done\n"
            );
        }
    }
    script += "for turn in $(seq 300); do grep -q '\"Order order_1042: 39000 KRW\"' received.log && exit 0; sleep 0.1; done\n";
    script += "cat received.log receiver.log router.log; exit 1\n";
    let programs = Path::new(env!("CARGO_BIN_EXE_branchline")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash").args(["-c", &script]).current_dir(&place).env("PATH", path).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}\n{script}", String::from_utf8_lossy(&text));
}

#[test]
fn the_filter_of_the_guide_is_the_one_that_the_sdk_compiles() {
    let (guide, readme) = (page("docs/plugins.md"), page("plugins/sdk/README.md"));
    let filter = blocks(&guide, "rust").next().unwrap();
    assert_eq!(Some(filter), blocks(&readme, "rust").next());
}

#[test]
fn a_filter_is_under_10_lines_and_slack_under_80() {
    let slack = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/slack/src");
    let files: Vec<_> = std::fs::read_dir(slack).unwrap().map(|entry| entry.unwrap().path()).collect();
    let slack: usize = files.iter().map(|file| lines_of_code(&std::fs::read_to_string(file).unwrap())).sum();
    assert!((1..80).contains(&slack), "slack has {slack} lines");
    let filter = lines_of_code(blocks(&page("docs/plugins.md"), "rust").next().unwrap());
    assert!((1..10).contains(&filter), "the filter has {filter} lines");
}

/// Without comments, blank lines and the tests at a file's end. The lines are those of rustfmt, which is run over the plugins too.
fn lines_of_code(source: &str) -> usize {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default().lines().map(str::trim);
    code.filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}
