//! What the router offers a plugin. In a native build there are stand-ins, so that a plugin's logic
//! can be tested without a router: the log goes to standard error, time stands still, and chance is
//! a fixed sequence.

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[cfg(target_arch = "wasm32")]
mod router {
    use super::Level;
    use crate::bindings::branchline::plugin::host;

    pub fn log(level: Level, message: &str) {
        let level = match level {
            Level::Debug => host::Level::Debug,
            Level::Info => host::Level::Info,
            Level::Warn => host::Level::Warn,
            Level::Error => host::Level::Error,
        };
        host::log(level, message);
    }

    pub fn config() -> String {
        host::config()
    }

    pub fn now_ms() -> u64 {
        host::now_ms()
    }

    pub fn random(length: u32) -> Vec<u8> {
        host::random(length)
    }

    /// Without this a panic is only a trap, and nobody learns where. The standard library's own hook
    /// writes to a standard error that a component does not have.
    pub fn report_panics() {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("no message");
            let line = match panic.location() {
                Some(place) => {
                    format!("plugin panicked at {}:{}:{}: {message}", place.file(), place.line(), place.column())
                }
                None => format!("plugin panicked: {message}"),
            };
            log(Level::Error, &line);
        }));
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod router {
    use super::Level;

    /// 2025-01-15T10:30:00Z.
    const STILL_MS: u64 = 1_736_937_000_000;

    pub fn log(level: Level, message: &str) {
        eprintln!("{level:?}: {message}");
    }

    pub fn now_ms() -> u64 {
        STILL_MS
    }

    pub fn random(length: u32) -> Vec<u8> {
        (0..length.min(super::RANDOM_BYTES_MAX)).map(|index| (index % 251) as u8).collect()
    }
}

/// The most bytes that one call of [`random`] gives.
pub const RANDOM_BYTES_MAX: u32 = 4096;

/// Writes a line to the router's log. Never put anything of the payload in it.
pub fn log(level: Level, message: &str) {
    router::log(level, message);
}

/// Milliseconds since the Unix epoch at which the event was accepted: the same at every run.
pub fn now_ms() -> u64 {
    router::now_ms()
}

/// Up to [`RANDOM_BYTES_MAX`] bytes: the same at every run, different at every call within a run.
/// Not for secrets.
pub fn random(length: u32) -> Vec<u8> {
    router::random(length)
}

#[cfg(target_arch = "wasm32")]
pub(crate) use router::{config, report_panics};
