//! Where logs go (standard error) and what they look like: text on a terminal, a JSON object a line otherwise.
//!
//! A thread of its own writes them: no stage ever waits for a log, and what the disk or terminal can't take is dropped, never piled up, and
//! a line says how many there were.

mod lines; // A line as a JSON object.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use super::{Error, panics};
use crate::config::{Log, LogFormat};

/// How much is written at once at the most.
const LINES_BYTES: usize = 64 * 1024;

/// How long lines gather after some were written.
const GATHER: Duration = Duration::from_millis(5);

/// Lines that wait to be written at the most, over a second's at full load. Their queue's room, 32 bytes each, is taken at the start.
const LINES_MAX: usize = 32 * 1024;

/// A writer that takes a moment after each flush, and says what is missing before it. The thread flushes when its queue is empty;
/// without the moment it would be woken for each of a busy router's lines, and write it alone.
struct Unhurried<W> {
    lines: W,
    /// Counts what found no room in the queue. Set when logging has started.
    dropped: Arc<OnceLock<ErrorCounter>>,
    /// How many of them have been spoken of.
    said: usize,
}

impl<W: Write> Write for Unhurried<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lines.flush()?;
        let dropped = self.dropped.get().map_or(0, ErrorCounter::dropped_lines);
        if dropped > self.said {
            self.said = dropped;
            // All of them so far: where the queue has filled up again meanwhile, this line is one of them.
            tracing::warn!(
                lines = dropped,
                "lines of this log are missing: they came faster than they could be written"
            );
        }
        std::thread::sleep(GATHER);
        Ok(())
    }
}

/// Starts logging, panics included. What is in the queue is written when the guard is dropped.
pub fn start(settings: &Log) -> Result<WorkerGuard, Error> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| {
        Error::Config(format!("`log.level` is not a filter such as `info` or `branchline=debug,info`: {error}"))
    })?;
    // At `trace` it prints whole frames, and with them paths that may hold a token.
    let filter = filter.add_directive("h2=error".parse().expect("a directive"));
    let dropped = Arc::new(OnceLock::new());
    let lines = Unhurried {
        lines: io::BufWriter::with_capacity(LINES_BYTES, io::stderr()),
        dropped: Arc::clone(&dropped),
        said: 0,
    };
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).finish(lines);
    dropped.set(writer.error_counter()).expect("it is set here only");
    let is_terminal = io::stderr().is_terminal();
    let as_text = match settings.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    if as_text {
        builder.with_ansi(is_terminal).with_target(false).init();
    } else {
        builder.event_format(lines::JsonLines).init();
    }
    panics::log_them();
    Ok(guard)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// Tells the process that it is the one to log.
    const LOGGING: &str = "BRANCHLINE_TEST_LOGGING";

    /// Not a promise: what the test below starts. It logs more than the queue and a pipe hold, says so, and ends at the end of
    /// its standard input.
    #[test]
    fn the_process_that_logs_too_much() {
        if std::env::var_os(LOGGING).is_none() {
            return;
        }
        let _logs = start(&Log { level: "info".to_owned(), format: LogFormat::Json }).unwrap();
        for line in 0..2 * LINES_MAX {
            tracing::info!(line, "one of too many");
        }
        println!("\nlogged");
        io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
    }

    #[test]
    fn a_line_says_how_many_were_dropped() {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cli::logging::tests::the_process_that_logs_too_much", "--nocapture"])
            .env(LOGGING, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(stdout.any(|line| line.unwrap() == "logged"));
        // Nobody has read a line of the log so far.
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut written = 0;
        let missing = loop {
            let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            match line["lines"].as_u64() {
                Some(missing) => break missing,
                None => written += 1,
            }
        };
        // The first line that said so may have found no room either.
        assert!([0, 1].contains(&(written + missing - 2 * LINES_MAX as u64)), "{written} written, {missing} missing");
        drop(process.stdin.take());
        assert!(process.wait().unwrap().success());
    }
}
