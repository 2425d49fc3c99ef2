//! What plugins log: bounded for each call and for each plugin, without control characters, and written to the router's
//! log when the call has ended.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::imports::Subject;
use super::text::tame;

/// The longest line that a plugin may log; the rest is cut.
const LINE_BYTES_MAX: usize = 1024;
/// Lines that one call may log; the rest is counted.
const CALL_LINES_MAX: usize = 64;
/// Bytes that one call may log in all.
const CALL_BYTES_MAX: usize = 16 << 10;
/// Lines that one plugin may log in a second over all of its calls; the rest is counted.
const SECOND_LINES_MAX: u64 = 1000;

/// How grave a line is that a plugin logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// For the plugin's author.
    Debug,
    /// What happened.
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    /// The word in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// A line that a plugin logged: at most 1 KiB, control characters escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How grave it is.
    pub level: LogLevel,
    /// The text.
    pub message: String,
}

/// The lines of one call. They are kept until it ends, so that a call costs the log nothing while it runs.
#[derive(Default)]
pub(super) struct CallLog {
    pub(super) lines: Vec<LogLine>,
    bytes: usize,
    /// Lines that came when a bound was reached.
    left_out: u64,
}

impl CallLog {
    pub(super) fn add(&mut self, level: LogLevel, message: &str) {
        let room = CALL_BYTES_MAX.saturating_sub(self.bytes).min(LINE_BYTES_MAX);
        if self.lines.len() >= CALL_LINES_MAX || room == 0 {
            self.left_out += 1;
            return;
        }
        let message = tame(message, room);
        self.bytes += message.len();
        self.lines.push(LogLine { level, message });
    }

    /// Writes the lines, as far as the plugin's budget allows.
    pub(super) fn write(&self, plugin: &str, subject: &Subject, budget: &LogBudget) {
        if self.lines.is_empty() {
            return;
        }
        let (allowed, left_out_before) = budget.take(self.lines.len() as u64, Instant::now());
        let event = subject.event.as_ref().map_or("", |event| &*event.id);
        let subscription = &*subject.standing.subscription;
        for LogLine { level, message } in self.lines.iter().take(allowed) {
            match level {
                LogLevel::Debug => {
                    tracing::debug!(target: "plugin", plugin, event.id = event, subscription, "{message}")
                }
                LogLevel::Info => tracing::info!(target: "plugin", plugin, event.id = event, subscription, "{message}"),
                LogLevel::Warn => tracing::warn!(target: "plugin", plugin, event.id = event, subscription, "{message}"),
                LogLevel::Error => {
                    tracing::error!(target: "plugin", plugin, event.id = event, subscription, "{message}")
                }
            }
        }
        let left_out = self.left_out + left_out_before;
        if left_out > 0 && allowed > 0 {
            tracing::warn!(target: "plugin", plugin, lines = left_out, "the plugin logs too much; lines were left out");
        }
    }
}

/// What a plugin may still log in this second.
pub(super) struct LogBudget(Mutex<Budget>);

struct Budget {
    since: Instant,
    lines: u64,
    left_out: u64,
}

impl LogBudget {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Budget { since: Instant::now(), lines: 0, left_out: 0 }))
    }

    /// How many of `lines` may be written, and how many were not since it was last said.
    fn take(&self, lines: u64, now: Instant) -> (usize, u64) {
        let mut budget = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(budget.since) >= Duration::from_secs(1) {
            budget.since = now;
            budget.lines = 0;
        }
        let allowed = lines.min(SECOND_LINES_MAX - budget.lines);
        budget.lines += allowed;
        budget.left_out += lines - allowed;
        let left_out = if allowed > 0 { std::mem::take(&mut budget.left_out) } else { 0 };
        (usize::try_from(allowed).unwrap_or(usize::MAX), left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;

    use super::super::imports::Standing;

    use crate::event;

    /// What a subscriber wrote.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_name_their_plugin_event_and_subscription_and_stay_lines() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let subject = Subject {
            event: Some(Arc::new(event::sample("evt_1", "order.created", r#"{"secret":1}"#))),
            standing: Standing::new(&"warehouse".into(), 0, &"{}".into()),
        };
        tracing::subscriber::with_default(subscriber, || {
            let mut log = CallLog::default();
            for _ in 0..70 {
                log.add(LogLevel::Warn, "one\n\u{1b}[31mtwo");
            }
            log.write("slack", &subject, &LogBudget::new());
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 65, "64, and one about those that were left out");
        for part in [
            "WARN plugin: one\\n\\u{1b}[31mtwo",
            "plugin=\"slack\"",
            "event.id=\"evt_1\"",
            "subscription=\"warehouse\"",
        ] {
            assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
        }
        assert!(lines[64].contains("lines=6"), "{}", lines[64]);
        assert!(!text.contains("secret"));
    }

    #[test]
    fn a_call_logs_no_more_than_its_bounds() {
        let mut log = CallLog::default();
        log.add(LogLevel::Info, &"x".repeat(5000));
        assert_eq!(log.lines[0].message.len(), LINE_BYTES_MAX);
        for _ in 0..100 {
            log.add(LogLevel::Info, &"y".repeat(1000));
        }
        assert!(log.lines.iter().map(|line| line.message.len()).sum::<usize>() <= CALL_BYTES_MAX);
        assert_eq!(log.lines.len() as u64 + log.left_out, 101);
        let mut log = CallLog::default();
        for _ in 0..100 {
            log.add(LogLevel::Info, "");
        }
        assert_eq!((log.lines.len(), log.left_out), (CALL_LINES_MAX, 36));
    }

    #[test]
    fn a_plugin_logs_a_thousand_lines_a_second() {
        let budget = LogBudget::new();
        let start = Instant::now();
        assert_eq!(budget.take(600, start), (600, 0));
        assert_eq!(budget.take(600, start), (400, 200));
        assert_eq!(budget.take(64, start), (0, 0));
        assert_eq!(budget.take(10, start + Duration::from_secs(2)), (10, 64));
    }
}
