//! Servers, folders and waiting. Everything started here is stopped when it is dropped.

pub mod components; // Plugins written as text.
pub mod door; // The ingest listener, and a client that sends raw bytes.
#[allow(dead_code, reason = "two test crates share it; this one may use a part")]
pub mod fault_proxy; // A network that fails.
pub mod hostile; // A receiver whose answers don't end.
pub mod program; // The real program, as an operator runs it.
pub mod receiver; // An endpoint that remembers and answers as it is told.
pub mod redis_sentinel; // A real master with replicas and Sentinels.
pub mod redis_server; // A real Redis, alone or as a Cluster.
pub mod router; // The real program, as a process.
pub mod secrets; // What nothing may show.
#[allow(unused_imports, unused_macros, dead_code, reason = "two test crates share it; this one may use a part")]
pub mod stores; // Promises that hold on both stores.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The signing secret in the tests' configs.
pub const SECRET: &str = "whsec_dGVzdC10ZXN0LXRlc3QtdGVzdC10ZXN0LXRlc3Q=";

/// Says that something can't be shown here; `tests/run` repeats it at its end, since the output of tests that pass is not seen.
pub fn left_out(what: &str) {
    println!("left out: {what}");
    if let Some(path) = std::env::var_os("BRANCHLINE_LEFT_OUT") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(format!("{what}\n").as_bytes())).expect("it can be written");
    }
}

/// A port of `range` that nobody listens on, and that was not given out here lately.
///
/// Connections get theirs from 32,768 up: none of them takes one below while the server that has it is started again.
pub fn port_from(range: Range<u16>) -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    if given.len() > 3_000 {
        given.clear();
    }
    loop {
        let port = fastrand::u16(range.clone());
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && given.insert(port) {
            return port;
        }
    }
}

/// Calls `probe` until it gives a value, and fails the test after `limit`.
pub async fn eventually<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(started.elapsed() < limit, "gave up waiting after {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
