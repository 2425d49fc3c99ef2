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
    /// The field's name.
    fn key(&mut self, field: &Field) {
        let name = field.name();
        self.json.push(b',');
        push_text(&mut self.json, name.strip_prefix("r#").unwrap_or(name));
        self.json.push(b':');
    }

    /// A value whose text is JSON as it stands.
    fn plain(&mut self, field: &Field, value: &str) {
        self.key(field);
        self.json.extend_from_slice(value.as_bytes());
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.key(field);
        self.text.clear();
        if write!(self.text, "{value:?}").is_err() {
            self.text.push_str("(it could not be formatted)");
        }
        push_text(&mut self.json, &self.text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.key(field);
        push_text(&mut self.json, value);
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
        self.key(field);
        serde_json::to_writer(&mut self.json, &value).expect("a number is written, or null for what is none");
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

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
            tracing::info!(r#type = "word", small = 1e-7, smaller = 0.00001, whole = 1.0, "");
            // As a library does that knows nothing of `tracing`.
            let record = tracing_log::log::Record::builder()
                .args(format_args!("said by a \"library\""))
                .level(tracing_log::log::Level::Info)
                .target("library::part")
                .module_path(Some("library::part"))
                .file(Some("part.rs"))
                .line(Some(7))
                .build();
            tracing_log::format_trace(&record).unwrap();
        });
        let times_cut = lines.map(|lines| {
            let cut = |line: &str| {
                let (time, rest) = line.strip_prefix("{\"timestamp\":\"").unwrap().split_once('"').unwrap();
                assert_eq!(time.len(), "2026-11-30T16:04:12.123456Z".len(), "{time}");
                time.parse::<jiff::Timestamp>().unwrap();
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
                rest.to_owned()
            };
            lines.lines().map(cut).collect::<Vec<_>>()
        });
        assert_eq!(times_cut[0], times_cut[1]);
        assert_eq!(times_cut[0].len(), 5);
    }
}
