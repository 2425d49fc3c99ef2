//! A panic is a line of the log like any other: as JSON where logs are, with place and thread, and never with an event's payload
//! or a secret.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

/// Has panics logged instead of printed. Logging must have been started.
pub(super) fn log_them() {
    std::panic::set_hook(Box::new(log));
}

fn log(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    // A message that was put together when it panicked may hold whatever was at hand: a payload in an assertion's two sides, a
    // secret in a `Debug` form. One that stands in the program as it is holds nothing; of the others the place says enough.
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not logged: it may hold data)");
    // Names of functions and places in files, no values; only where `RUST_BACKTRACE` asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        panic.place = place,
        panic.message = message,
        panic.thread = thread,
        panic.backtrace = backtrace,
        "this program panicked at {place}, which is a bug of it"
    );
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use crate::cli::logging;
    use crate::config::{Log, LogFormat};

    /// Tells the process that it is the one to panic, and in which format it logs.
    const PANICKING: &str = "BRANCHLINE_TEST_PANICKING";

    /// Not a promise: what the tests below start. It logs as `serve` does, on the same kind of runtime.
    #[test]
    fn the_process_that_panics() {
        let Some(format) = std::env::var_os(PANICKING) else { return };
        let format = if format == "json" { LogFormat::Json } else { LogFormat::Text };
        let _logs = logging::start(&Log { level: "info".to_owned(), format }).unwrap();
        tokio::runtime::Builder::new_multi_thread().thread_name("walker").build().unwrap().block_on(async {
            let payload = std::env::args().next().map(|_| "a-customer's-address").unwrap();
            let data = tokio::spawn(async move { panic!("cannot deliver {payload}") });
            assert!(data.await.is_err());
            assert!(tokio::spawn(async { panic!("a walk has no end\nthis one has two lines") }).await.is_err());
        });
    }

    /// The lines that the process leaves on standard error.
    fn logged(format: &str) -> Vec<String> {
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cli::panics::tests::the_process_that_panics", "--nocapture"])
            .env(PANICKING, format)
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        assert!(ended.status.success(), "{ended:?}");
        String::from_utf8(ended.stderr).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_panic_is_one_line_of_the_log_in_its_format_and_shows_no_data() {
        for format in ["json", "text"] {
            let lines = logged(format);
            assert_eq!(lines.len(), 2, "one for each panic, and nothing else: {lines:#?}");
            assert!(lines.iter().all(|line| line.contains("src/cli/panics.rs:")), "{lines:#?}");
            assert!(!lines.concat().contains("customer"), "{lines:#?}");
            assert!(lines[0].contains("it may hold data") && lines[1].contains("a walk has no end"), "{lines:#?}");
        }
        for line in logged("json") {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            assert_eq!((&line["level"], &line["panic.thread"]), (&"ERROR".into(), &"walker".into()), "{line}");
            let place = line["panic.place"].as_str().unwrap();
            assert!(line["message"].as_str().unwrap().contains(place), "{line}");
        }
    }
}
