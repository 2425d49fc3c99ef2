//! Fixtures: an event, a config, and what must come of them, in one JSON file per case. A native
//! test runs them against a plugin's function; the router runs the same files against the built
//! component. The format is described in `plugins/README.md`.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::form::Form;
use crate::{Body, Error, Event, RawEvent, Verdict, entry};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Fixture {
    event: Option<Envelope>,
    #[serde(default)]
    config: Map<String, Value>,
    verdict: Option<Value>,
    error: Option<Value>,
    config_error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope {
    id: String,
    event_type: String,
    #[serde(default)]
    aggregate_type: String,
    #[serde(default)]
    aggregate_id: String,
    occurred_at: String,
    payload: Value,
    #[serde(default)]
    metadata: Map<String, Value>,
}

/// Runs every `fixtures/*.json` of the crate in `folder`, and panics with all that do not hold.
///
/// # Panics
///
/// Where a fixture does not hold or cannot be read, or there is none.
pub fn run_fixtures<Payload: DeserializeOwned, Config: DeserializeOwned>(
    folder: &str,
    handle: fn(Event<Payload>, Config) -> Result<Verdict, Error>,
    check: fn(&Config) -> Result<(), String>,
) {
    let folder = Path::new(folder).join("fixtures");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder `fixtures` exists")
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no fixtures in {}", folder.display());

    let mut faults = Vec::new();
    for path in &paths {
        let text = std::fs::read_to_string(path).expect("a fixture can be read");
        let outcome = serde_json::from_str(&text)
            .map_err(|fault| format!("not a fixture: {fault}"))
            .and_then(|fixture| run(fixture, handle, check));
        if let Err(fault) = outcome {
            faults.push(format!("{}: {fault}", path.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// Runs the example of the crate's README: of its `json` blocks the first is an event, the second a
/// config, the third the JSON body that is sent.
///
/// # Panics
///
/// Where the README has no such blocks, or they are not what the plugin does.
pub fn run_readme<Payload: DeserializeOwned, Config: DeserializeOwned>(
    folder: &str,
    handle: fn(Event<Payload>, Config) -> Result<Verdict, Error>,
    check: fn(&Config) -> Result<(), String>,
) {
    run_readme_as(
        folder,
        handle,
        check,
        |body| json!({ "send": { "headers": [], "contentType": "application/json", "body": body } }),
    );
}

/// As [`run_readme`], where the third block has the fields of the form that is sent.
///
/// # Panics
///
/// As [`run_readme`].
pub fn run_readme_form<Payload: DeserializeOwned, Config: DeserializeOwned>(
    folder: &str,
    handle: fn(Event<Payload>, Config) -> Result<Verdict, Error>,
    check: fn(&Config) -> Result<(), String>,
) {
    run_readme_as(folder, handle, check, |fields| {
        let fields = fields.as_object().expect("the third `json` block of the README is an object of fields");
        let form = fields.iter().fold(Form::default(), |form, (name, value)| {
            form.field(name, value.as_str().expect("a field of a form is text"))
        });
        describe(Verdict::Send(form.into_request()))
    });
}

/// As [`run_readme`], where the third block is the verdict in the fixtures' words.
///
/// # Panics
///
/// As [`run_readme`].
pub fn run_readme_verdict<Payload: DeserializeOwned, Config: DeserializeOwned>(
    folder: &str,
    handle: fn(Event<Payload>, Config) -> Result<Verdict, Error>,
    check: fn(&Config) -> Result<(), String>,
) {
    run_readme_as(folder, handle, check, Value::clone);
}

fn run_readme_as<Payload: DeserializeOwned, Config: DeserializeOwned>(
    folder: &str,
    handle: fn(Event<Payload>, Config) -> Result<Verdict, Error>,
    check: fn(&Config) -> Result<(), String>,
    verdict: fn(&Value) -> Value,
) {
    let readme = std::fs::read_to_string(Path::new(folder).join("README.md")).expect("the README can be read");
    let blocks: Vec<Value> = readme
        .split("```json\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .map(|block| serde_json::from_str(block).expect("a `json` block of the README is JSON"))
        .collect();
    let [event, config, outcome] = blocks.as_slice() else {
        panic!("the README has {} `json` blocks; event, config and what comes of it are wanted", blocks.len());
    };
    let fixture = json!({ "event": event, "config": config, "verdict": verdict(outcome) });
    let fixture = serde_json::from_value(fixture).expect("the README's event is an envelope");
    if let Err(fault) = run(fixture, handle, check) {
        panic!("the README's example does not hold: {fault}");
    }
}

fn run<Payload: DeserializeOwned, Config: DeserializeOwned>(
    fixture: Fixture,
    handle: fn(Event<Payload>, Config) -> Result<Verdict, Error>,
    check: fn(&Config) -> Result<(), String>,
) -> Result<(), String> {
    let config = Value::Object(fixture.config).to_string();
    let valid = entry::validate_config(handle, check, &config);
    let expected = match (fixture.verdict, fixture.error, fixture.config_error) {
        (Some(verdict), None, None) => json!({ "verdict": verdict }),
        (None, Some(error), None) => json!({ "error": error }),
        (None, None, Some(part)) => {
            return match valid {
                Err(message) if message.contains(&part) => Ok(()),
                Err(message) => Err(format!("expected `{part}` in the fault `{message}`")),
                Ok(()) => Err(format!("the config is accepted; expected the fault `{part}`")),
            };
        }
        _ => return Err("exactly one of `verdict`, `error`, `configError` is needed".to_owned()),
    };
    valid.map_err(|message| format!("the config is refused: {message}"))?;
    let event = fixture.event.ok_or("an `event` is needed")?;
    let event = event.into_raw();
    let given = match on_a_deep_stack(|| entry::handle(handle, event, &config)) {
        Ok(verdict) => json!({ "verdict": describe(verdict) }),
        Err(error) => json!({ "error": {
            "code": error.code, "message": error.message, "retryable": error.retryable,
        }}),
    };
    if given == expected {
        return Ok(());
    }
    Err(format!("expected\n{expected:#}\nbut the plugin gave\n{given:#}"))
}

/// Unoptimised native code takes many times the stack of the component that is shipped; what fits
/// into the component's own stack is for `branchline plugin test` to say.
fn on_a_deep_stack<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    const STACK_BYTES: usize = 256 * 1024 * 1024; // Reserved, not touched.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        match thread.spawn_scoped(scope, call).expect("a thread can be started").join() {
            Ok(given) => given,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Envelope {
    fn into_raw(self) -> RawEvent {
        RawEvent {
            id: self.id,
            event_type: self.event_type,
            aggregate_type: self.aggregate_type,
            aggregate_id: self.aggregate_id,
            occurred_at: self.occurred_at,
            payload: self.payload.to_string(),
            metadata: Value::Object(self.metadata).to_string(),
        }
    }
}

/// A verdict in the fixtures' words.
fn describe(verdict: Verdict) -> Value {
    let parsed = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    match verdict {
        Verdict::Pass => json!("pass"),
        Verdict::Replace(event) => json!({ "replace": {
            "id": event.id,
            "eventType": event.event_type,
            "aggregateType": event.aggregate_type,
            "aggregateId": event.aggregate_id,
            "occurredAt": event.occurred_at,
            "payload": parsed(event.payload),
            "metadata": parsed(event.metadata),
        }}),
        Verdict::Send(request) => json!({ "send": {
            "headers": request.headers.iter()
                .map(|header| json!({ "name": header.name, "value": header.value }))
                .collect::<Vec<_>>(),
            "contentType": request.content_type,
            "body": match request.body {
                Body::Text(text) => parsed(text),
                Body::Binary(bytes) => parsed(String::from_utf8_lossy(&bytes).into_owned()),
            },
        }}),
        Verdict::Drop(reason) => json!({ "drop": reason }),
        Verdict::DeadLetter(reason) => json!({ "deadLetter": reason }),
    }
}
