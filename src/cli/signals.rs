//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends the process at once.
//!
//! They are received on a thread and a runtime of their own, so that the process can be ended by them also when
//! all threads of the command's runtime are busy with something that never gives way.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Error;

/// The exit code after a second signal: what was in flight is taken up again later.
const EXIT_INTERRUPTED: i32 = 130;

/// A token that is cancelled by the first signal; the second ends the process. Call it outside of any runtime.
pub(super) fn stop_on_signal() -> Result<CancellationToken, Error> {
    let failed = |error: std::io::Error| Error::Failed(format!("signals can't be received: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    // Before the thread runs: no signal that comes from here on is missed.
    let (mut terminate, mut interrupt) = {
        let _within = runtime.enter();
        let listen = |kind| signal(kind).map_err(failed);
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?)
    };
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let receive = async move {
        let mut signals = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            signals += 1;
            if signals == 2 {
                std::process::exit(EXIT_INTERRUPTED);
            }
            stopped.cancel();
        }
    };
    let named = std::thread::Builder::new().name("signals".to_owned());
    named.spawn(move || runtime.block_on(receive)).map_err(failed)?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    /// Tells the process that it is the one to be stopped.
    const STOPPED: &str = "BRANCHLINE_TEST_STOPPED";

    /// Not a promise: what the test below starts and stops. Its runtime never gets to anything else.
    #[test]
    fn the_process_that_is_stopped() {
        if std::env::var_os(STOPPED).is_none() {
            return;
        }
        let stop = stop_on_signal().unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            println!("\nlistening");
            while !stop.is_cancelled() {
                std::hint::spin_loop();
            }
            println!("\ntold to stop");
            loop {
                std::hint::spin_loop();
            }
        });
    }

    #[test]
    fn a_router_that_is_stuck_is_ended_by_the_second_signal() {
        let mut stopped = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cli::signals::tests::the_process_that_is_stopped", "--nocapture"])
            .env(STOPPED, "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let id = Pid::from_raw(i32::try_from(stopped.id()).unwrap()).unwrap();
        let mut lines = BufReader::new(stopped.stdout.take().unwrap()).lines().map_while(Result::ok);
        for (line, signal) in [("listening", Signal::TERM), ("told to stop", Signal::INT)] {
            assert!(lines.any(|said| said == line), "it never said `{line}`");
            kill_process(id, signal).unwrap();
        }
        assert_eq!(stopped.wait().unwrap().code(), Some(EXIT_INTERRUPTED));
    }
}
