//! A log line as a JSON object, flat: time, level, the event's fields, target. The library's own formatter goes through a
//! serializer for each field and takes more than twice the instructions; a busy router writes a line for each attempt.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::json::push_text;

/// What most lines fit into.
const LINE_BYTES: usize = 384;

/// Writes events as lines.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Events of libraries that log without `tracing` have their level and target among their fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let mut line = Line { json: Vec::with_capacity(LINE_BYTES), text: String::new() };
        let written =
            write!(line.json, "{{\"timestamp\":\"{:.6}\",\"level\":\"{}\"", jiff::Timestamp::now(), metadata.level());
        written.expect("writing to memory does not fail");
        event.record(&mut line);
        line.json.extend_from_slice(b",\"target\":");
        push_text(&mut line.json, metadata.target());
        line.json.extend_from_slice(b"}\n");
        let json = String::from_utf8(line.json).map_err(|_| fmt::Error)?;
        writer.write_str(&json)
    }
}

/// A line that grows by fields.
struct Line {
    json: Vec<u8>,
    /// For values that have to be formatted before they are quoted.
    text: String,
}

impl Line {
    /// The field's name; false where it is not to be shown.
    fn key(&mut self, field: &Field) -> bool {
        let name = field.name();
        if name.starts_with("log.") {
            return false;
        }
        self.json.push(b',');
        push_text(&mut self.json, name.strip_prefix("r#").unwrap_or(name));
        self.json.push(b':');
        true
    }

    /// A value whose text is JSON as it stands.
    fn plain(&mut self, field: &Field, value: &str) {
        if self.key(field) {
            self.json.extend_from_slice(value.as_bytes());
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !self.key(field) {
            return;
        }
        self.text.clear();
        if write!(self.text, "{value:?}").is_err() {
            self.text.push_str("(it could not be formatted)");
        }
        push_text(&mut self.json, &self.text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if self.key(field) {
            push_text(&mut self.json, value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, itoa::Buffer::new().format(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, itoa::Buffer::new().format(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, if value { "true" } else { "false" });
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for what is no number.
        if value.is_finite() {
            self.plain(field, &format!("{value:?}"));
        } else {
            self.plain(field, "null");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `logging` runs, by this formatter and by the library's.
    fn written(logging: impl Fn()) -> [String; 2] {
        let (ours, theirs) = (Lines::default(), Lines::default());
        let (to_ours, to_theirs) = (ours.clone(), theirs.clone());
        let by_us = tracing_subscriber::fmt().event_format(JsonLines).with_writer(move || to_ours.clone()).finish();
        tracing::subscriber::with_default(by_us, &logging);
        let by_them = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(move || to_theirs.clone())
            .finish();
        tracing::subscriber::with_default(by_them, &logging);
        [ours, theirs].map(|lines| String::from_utf8(lines.0.lock().unwrap().clone()).unwrap())
    }

    #[test]
    fn a_line_says_what_the_library_s_would() {
        let lines = written(|| {
            let id = "evt_\"1\"\n주문";
            tracing::info!(event.id = %id, attempt = 1_u32, http.status = 200_u16, duration_ms = 3_u64, "delivered");
            tracing::warn!(text = id, list = ?["a", "b"], yes = true, below = -7_i64, share = 0.5, "said {id}");
            tracing::error!(error = &io::Error::other("no \\ more") as &dyn std::error::Error, none = f64::NAN);
            tracing::info!(r#type = "word", small = 1e-7, whole = 1.0, "");
        });
        let parsed = lines.clone().map(|lines| {
            let parse = |line: &str| {
                let mut value: Value = serde_json::from_str(line).unwrap();
                let timestamp = value["timestamp"].take();
                let timestamp = timestamp.as_str().unwrap();
                assert_eq!(timestamp.len(), "2026-11-30T16:04:12.123456Z".len(), "{timestamp}");
                timestamp.parse::<jiff::Timestamp>().unwrap();
                value
            };
            lines.lines().map(parse).collect::<Vec<_>>()
        });
        assert_eq!(parsed[0], parsed[1]);
        assert_eq!(parsed[0].len(), 4);
        let keys = |line: &str| {
            let object: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
            object.keys().cloned().collect::<Vec<_>>()
        };
        let [ours, theirs] = lines;
        for (ours, theirs) in ours.lines().zip(theirs.lines()) {
            assert_eq!(keys(ours), keys(theirs));
        }
    }
}
