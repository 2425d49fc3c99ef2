//! A fixture: an event, a config, and what must come of them, in one JSON file. The format is told in `docs/plugins.md`.
//! One runner for authors, for reloads and for the shipped plugins' own test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytestring::ByteString;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::call::Report;
use super::host::{Plugin, PluginHost};
use super::verdict::{Fault, Verdict};
use crate::clock::Timestamp;
use crate::delivery::PluginFaultKind;
use crate::event::Event;

/// The largest fixture that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// How often a case is called whose call runs past its deadline.
const TRIES: u32 = 3;
/// Keys that say what must come.
const EXPECTATIONS: [&str; 3] = ["verdict", "error", "configError"];

/// One case, read.
#[derive(Debug)]
pub struct Fixture {
    /// Its file.
    pub path: PathBuf,
    event: Option<Arc<Event>>,
    /// JSON text, as it stands in the file.
    config: String,
    /// What must come, as `{"verdict": …}`, `{"error": …}` or `{"configError": …}`; none where the file has none yet.
    pub expected: Option<Value>,
    /// The file's keys in their order, for writing it again.
    entries: Vec<(String, Box<RawValue>)>,
}

/// A fixture, run.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What came.
    pub given: Given,
    /// The call, where there was one.
    pub report: Option<Report>,
}

/// What came.
#[derive(Clone, Debug)]
pub enum Given {
    /// The plugin decided.
    Verdict(Verdict),
    /// The plugin said that it failed.
    Error {
        /// Its word for it.
        code: String,
        /// Its sentence.
        message: String,
        /// Whether a later attempt may succeed.
        retryable: bool,
    },
    /// The config was refused.
    ConfigRefused(String),
    /// The config was accepted, and there is no event to go on with.
    ConfigAccepted,
    /// The call failed otherwise.
    Failed {
        /// How.
        kind: PluginFaultKind,
        /// A sentence for people.
        detail: String,
    },
}

impl Fixture {
    /// Reads a case.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = read_text(path)?;
        let Entries(entries) = serde_json::from_str(&text).map_err(|error| format!("not a fixture: {error}"))?;
        for (key, _) in &entries {
            if key != "event" && key != "config" && !EXPECTATIONS.contains(&key.as_str()) {
                return Err(format!("not a fixture: unknown key `{key}`"));
            }
        }
        let find = |key: &str| entries.iter().find(|(name, _)| name == key).map(|(_, value)| value.get());
        let mut expected = None;
        for key in EXPECTATIONS {
            let Some(value) = find(key) else { continue };
            let value: Value = serde_json::from_str(value).map_err(|error| error.to_string())?;
            if expected.replace(json!({ key: value })).is_some() {
                return Err("not a fixture: it has more than one of `verdict`, `error` and `configError`".to_owned());
            }
        }
        let event = find("event").map(event).transpose()?;
        let config = find("config").unwrap_or("{}").to_owned();
        if event.is_none() && find("configError").is_none() {
            return Err("not a fixture: it has no `event`".to_owned());
        }
        Ok(Self { path: path.to_owned(), event, config, expected, entries })
    }

    /// The file's name without its extension.
    pub fn name(&self) -> String {
        self.path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Asks the plugin about the config, and calls it if it accepts. A call that runs past its deadline is made again: on a
    /// busy machine that may not be the plugin's doing, and the same event gives the same verdict.
    pub async fn run(&self, host: &PluginHost, plugin: &Arc<Plugin>) -> Trial {
        let given = |given| Trial { given, report: None };
        if let Err(text) = plugin.validate_config(&self.config).await {
            return given(Given::ConfigRefused(text));
        }
        let Some(event) = &self.event else { return given(Given::ConfigAccepted) };
        let mut tries = 1;
        loop {
            let report = host.call_once(plugin, &self.config, Arc::clone(event), "fixture").await;
            let is_late = report.verdict.as_ref().is_err_and(|fault| fault.kind == PluginFaultKind::Deadline);
            if is_late && tries < TRIES {
                tries += 1;
                continue;
            }
            let given = match &report.verdict {
                Ok(verdict) => Given::Verdict(verdict.clone()),
                Err(fault) => Given::from_fault(fault.clone()),
            };
            return Trial { given, report: Some(report) };
        }
    }

    /// In one word, as [`Given::word`], what must come; none where the file does not say.
    pub fn expects(&self) -> Option<&str> {
        let (key, value) = self.expected.as_ref()?.as_object()?.iter().next()?;
        Some(match (key.as_str(), value) {
            ("configError", _) => "config refused",
            ("verdict", Value::String(word)) => word,
            ("verdict", Value::Object(verdict)) => match verdict.keys().next().map(String::as_str) {
                Some("deadLetter") => "dead-letter",
                other => other.unwrap_or("verdict"),
            },
            _ => key,
        })
    }

    /// Whether what came is what must come.
    pub fn holds(&self, given: &Given) -> bool {
        self.expected.as_ref().is_some_and(|expected| given.meets(expected))
    }

    /// The file with what came as what must come.
    pub fn updated(&self, given: &Given) -> String {
        let mut members: Vec<(String, String)> = self
            .entries
            .iter()
            .filter(|(key, _)| !EXPECTATIONS.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.get().to_owned()))
            .collect();
        if let Some(expectation) = given.describe().as_object() {
            members.extend(
                expectation.iter().map(|(key, value)| (key.clone(), format!("{value:#}").replace('\n', "\n  "))),
            );
        }
        let members: Vec<_> =
            members.iter().map(|(key, value)| format!("  {}: {value}", Value::from(key.as_str()))).collect();
        format!("{{\n{}\n}}\n", members.join(",\n"))
    }
}

impl Given {
    /// From a call that gave no verdict.
    fn from_fault(fault: Fault) -> Self {
        if fault.kind != PluginFaultKind::Error {
            return Self::Failed { kind: fault.kind, detail: fault.detail };
        }
        let (code, message) = match fault.detail.split_once(": ") {
            Some((code, message)) => (code.to_owned(), message.to_owned()),
            None => (fault.detail, String::new()),
        };
        Self::Error { code, message, retryable: fault.retryable }
    }

    /// In the words of fixtures; what no fixture can ask for has words of its own.
    pub fn describe(&self) -> Value {
        match self {
            Self::Verdict(verdict) => json!({ "verdict": describe(verdict) }),
            Self::Error { code, message, retryable } => {
                json!({ "error": { "code": code, "message": message, "retryable": retryable } })
            }
            Self::ConfigRefused(text) => json!({ "configError": text }),
            Self::ConfigAccepted => json!({ "configAccepted": true }),
            Self::Failed { kind, detail } => json!({ "fault": { "kind": kind.as_str(), "detail": detail } }),
        }
    }

    /// Of a refused config a part of the text is enough.
    fn meets(&self, expected: &Value) -> bool {
        if let (Self::ConfigRefused(text), Some(part)) = (self, expected["configError"].as_str()) {
            return text.contains(part);
        }
        self.describe() == *expected
    }

    /// Whether a fixture can ask for it.
    pub fn can_be_expected(&self) -> bool {
        match self {
            Self::Verdict(_) | Self::Error { .. } | Self::ConfigRefused(_) => true,
            Self::ConfigAccepted | Self::Failed { .. } => false,
        }
    }

    /// One word for a table.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Verdict(verdict) => verdict.as_str(),
            Self::Error { .. } => "error",
            Self::ConfigRefused(_) => "config refused",
            Self::ConfigAccepted => "config accepted",
            Self::Failed { kind, .. } => kind.as_str(),
        }
    }
}

/// Reads a file of text, of a bounded size.
pub fn read_text(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let size = std::fs::metadata(path).map_err(|error| format!("can't read `{shown}`: {error}"))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("`{shown}` is larger than {FILE_BYTES_MAX} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("can't read `{shown}`: {error}"))
}

/// Reads a file with an envelope; see [`Fixture`] for what it may leave out.
pub fn read_event(path: &Path) -> Result<Arc<Event>, String> {
    event(&read_text(path)?).map_err(|fault| format!("`{}`: {fault}", path.display()))
}

/// An envelope as an event. What a producer may leave out has fixed values, so that a case always gives the same.
pub fn event(text: &str) -> Result<Arc<Event>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Envelope<'a> {
        id: Option<ByteString>,
        event_type: ByteString,
        #[serde(default)]
        aggregate_type: ByteString,
        #[serde(default)]
        aggregate_id: ByteString,
        occurred_at: Option<ByteString>,
        #[serde(borrow)]
        payload: &'a RawValue,
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
    }
    /// 2025-01-15T10:30:00Z, which `now-ms` gives.
    const ACCEPTED_AT_MS: u64 = 1_736_937_000_000;

    let envelope: Envelope<'_> =
        serde_json::from_str(text).map_err(|error| format!("the event is no envelope: {error}"))?;
    Ok(Arc::new(Event {
        id: envelope.id.unwrap_or_else(|| "evt_fixture".into()),
        source: "app".into(),
        event_type: envelope.event_type,
        aggregate_type: envelope.aggregate_type,
        aggregate_id: envelope.aggregate_id,
        occurred_at: envelope.occurred_at.unwrap_or_else(|| "2025-01-15T10:30:00Z".into()),
        accepted_at: Timestamp::from_millis(ACCEPTED_AT_MS),
        payload: envelope.payload.get().to_owned().into(),
        metadata: envelope.metadata.map_or("{}", RawValue::get).to_owned().into(),
        traceparent: ByteString::new(),
    }))
}

fn describe(verdict: &Verdict) -> Value {
    let parsed = |text: &[u8]| {
        serde_json::from_slice(text).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(text).into_owned()))
    };
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
        Verdict::Send(request) => {
            let headers: Vec<_> =
                request.headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
            json!({ "send": {
                "headers": headers,
                "contentType": request.content_type,
                "body": parsed(&request.body),
            }})
        }
        Verdict::Drop(reason) => json!({ "drop": reason }),
        Verdict::DeadLetter(reason) => json!({ "deadLetter": reason }),
    }
}

/// The members of a JSON object in their order, their text untouched.
struct Entries(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Entries;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object with `event`, `config` and what must come of them")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
