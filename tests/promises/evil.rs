//! Plugins that mean harm, against the real router: each ends in a named fault or refusal, in bounded time and memory,
//! with the deliveries of others unaffected and the process alive. The tables of results are printed (`--nocapture`).

mod calls; // What they do when they are called.
mod compiling; // What they do to the compiler.
mod files; // What is refused when it is loaded.
mod guests; // The plugins.

use std::fmt::Write;
use std::time::Duration;

use tokio::sync::Mutex;

/// The most memory that a router may have had at any time. A debug build with its sandbox starts with about 50 MiB.
const MEMORY_BYTES_MAX: u64 = 128 << 20;

/// One of these at a time: they measure.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A line of a table of results.
struct Row {
    case: &'static str,
    /// The name of its end.
    end: String,
    /// From the first event, or the start of the process, to that end.
    took: Duration,
    /// The router's peak, where there is one.
    memory_bytes: Option<u64>,
    /// The other subscription's 50th and 99th percentile without and with the evil plugin.
    others: Option<[Latency; 2]>,
}

#[derive(Clone, Copy)]
struct Latency {
    median: Duration,
    p99: Duration,
}

impl Latency {
    fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |share: usize| samples[(samples.len() - 1) * share / 100];
        Self { median: at(50), p99: at(99) }
    }
}

fn print(title: &str, rows: &[Row]) {
    let mut text = format!(
        "\n{title}\n{:<44} {:<62} {:>8} {:>8}   {}\n",
        "case", "ends in", "ms", "peak MiB", "others, p50/p99 ms: without → with"
    );
    for Row { case, end, took, memory_bytes, others } in rows {
        let end: String = end.chars().take(62).collect();
        let memory = memory_bytes.map_or("-".to_owned(), |bytes| (bytes >> 20).to_string());
        write!(text, "{case:<44} {end:<62} {:>8} {:>8}", took.as_millis(), memory).unwrap();
        if let Some(latencies) = others {
            let [before, with] = latencies.map(|latency| {
                format!("{:.1}/{:.1}", latency.median.as_secs_f64() * 1e3, latency.p99.as_secs_f64() * 1e3)
            });
            write!(text, "   {before} → {with}").unwrap();
        }
        text.push('\n');
    }
    println!("{text}");
}

/// Others may be twice as slow beside an evil plugin, and as much as a busy machine's scheduler takes on top.
fn is_unaffected([without, with]: [Latency; 2]) -> bool {
    const NOISE: Duration = Duration::from_millis(100);
    with.p99 <= without.p99 * 2 + NOISE
}
