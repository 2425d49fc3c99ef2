//! Where logs go (standard error) and what they look like: text on a terminal, a JSON object a line otherwise.
//!
//! A thread of its own writes them: no stage ever waits for a log, and what the disk or terminal can't take is dropped, never piled up.

mod lines; // A line as a JSON object.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use super::{Error, panics};
use crate::config::{Log, LogFormat};

/// How much is written at once at the most.
const LINES_BYTES: usize = 64 * 1024;

/// How long lines gather after some were written.
const GATHER: Duration = Duration::from_millis(5);

/// Lines that wait to be written at the most, over a second's at full load. Their queue's room, 32 bytes each, is taken at the start.
const LINES_MAX: usize = 32 * 1024;

/// A writer that takes a moment after each flush. The thread flushes when its queue is empty; without the moment it would
/// be woken for each of a busy router's lines, and write it alone.
struct Unhurried<W>(W);

impl<W: Write> Write for Unhurried<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
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
    let lines = Unhurried(io::BufWriter::with_capacity(LINES_BYTES, io::stderr()));
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).finish(lines);
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
