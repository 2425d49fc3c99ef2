//! The shipped plugins run their fixtures in the router's own sandbox. The components are taken from the folder that
//! `BRANCHLINE_PLUGINS_BUILT` names, or from `plugins/`; the fixtures from beside them, or from `plugins/`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use branchline::clock::Timestamp;
use branchline::event::Event;
use branchline::plugin::{Plugin, Verdict};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Bench, spec};

#[tokio::test(flavor = "multi_thread")]
async fn shipped_plugins_give_what_their_fixtures_say() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    let built = std::env::var_os("BRANCHLINE_PLUGINS_BUILT").map_or_else(|| sources.clone(), PathBuf::from);
    let bench = Bench::new();
    let mut faults = Vec::new();
    for component in files(&built, "wasm") {
        let name = component.file_stem().unwrap().to_str().unwrap();
        let plugin = bench.host.load(&spec(name, component.clone())).await.unwrap();
        let folder =
            [&built, &sources].map(|folder| folder.join(name).join("fixtures")).into_iter().find(|it| it.is_dir());
        let Some(folder) = folder else { continue };
        for fixture in files(&folder, "json") {
            if let Err(fault) = run(&bench, &plugin, &fixture).await {
                faults.push(format!("{}: {fault}", fixture.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// The files of a folder with an extension, in order; none where there is no folder.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    paths
}

async fn run(bench: &Bench, plugin: &Arc<Plugin>, fixture: &Path) -> Result<(), String> {
    let text = std::fs::read(fixture).unwrap();
    let raw: Fixture = serde_json::from_slice(&text).map_err(|fault| fault.to_string())?;
    let fixture: Value = serde_json::from_slice(&text).map_err(|fault| fault.to_string())?;
    let config = fixture.get("config").map_or("{}".to_owned(), Value::to_string);
    let checked = plugin.validate_config(&config).await;
    if let Some(part) = fixture["configError"].as_str() {
        return match checked {
            Err(text) if text.contains(part) => Ok(()),
            other => Err(format!("expected the config to be refused with `{part}`, but: {other:?}")),
        };
    }
    checked.map_err(|text| format!("the config is refused: {text}"))?;
    let report = bench.host.call_once(plugin, &config, event(&fixture["event"], &raw), "fixture").await;
    let given = match report.verdict {
        Ok(verdict) => json!({ "verdict": describe(verdict) }),
        Err(fault) => json!({ "error": { "detail": fault.detail, "retryable": fault.retryable } }),
    };
    let expected = match (fixture.get("verdict"), fixture.get("error")) {
        (Some(verdict), None) => json!({ "verdict": verdict }),
        (None, Some(error)) => {
            let detail =
                format!("{}: {}", error["code"].as_str().unwrap_or(""), error["message"].as_str().unwrap_or(""));
            json!({ "error": { "detail": detail, "retryable": error["retryable"] } })
        }
        _ => return Err("exactly one of `verdict`, `error` and `configError` is needed".to_owned()),
    };
    if given == expected { Ok(()) } else { Err(format!("expected\n{expected:#}\nbut the plugin gave\n{given:#}")) }
}

/// What of a fixture must reach the plugin byte for byte: numbers keep their digits.
#[derive(serde::Deserialize)]
struct Fixture<'a> {
    #[serde(borrow)]
    event: Option<Envelope<'a>>,
}

#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
}

fn event(envelope: &Value, raw: &Fixture<'_>) -> Arc<Event> {
    let text = |key: &str| envelope[key].as_str().unwrap_or("").to_owned();
    Arc::new(Event {
        id: text("id"),
        source: "app".to_owned(),
        event_type: text("eventType"),
        aggregate_type: text("aggregateType"),
        aggregate_id: text("aggregateId"),
        occurred_at: text("occurredAt"),
        accepted_at: Timestamp::from_millis(1_736_937_000_000),
        payload: raw.event.as_ref().map_or("null", |event| event.payload.get()).to_owned().into(),
        metadata: envelope.get("metadata").map_or("{}".to_owned(), Value::to_string).into(),
        traceparent: String::new(),
    })
}

/// A verdict in the fixtures' words.
fn describe(verdict: Verdict) -> Value {
    match verdict {
        Verdict::Pass => json!("pass"),
        Verdict::Replace(event) => json!({ "replace": {
            "id": event.id,
            "eventType": event.event_type,
            "aggregateType": event.aggregate_type,
            "aggregateId": event.aggregate_id,
            "occurredAt": event.occurred_at,
            "payload": parsed(event.payload.as_bytes()),
            "metadata": parsed(event.metadata.as_bytes()),
        }}),
        Verdict::Send(request) => json!({ "send": {
            "headers": request.headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect::<Vec<_>>(),
            "contentType": request.content_type,
            "body": parsed(&request.body),
        }}),
        Verdict::Drop(reason) => json!({ "drop": reason }),
        Verdict::DeadLetter(reason) => json!({ "deadLetter": reason }),
    }
}

fn parsed(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(text).into_owned()))
}
