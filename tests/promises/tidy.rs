//! The tree guards itself: imports point down the path of an event, each outside crate stays where it belongs, files stay readable.

use std::path::{Path, PathBuf};

/// The stages, in the order of the path. One imports only what stands below it.
const STAGES: [&str; 8] = ["accept", "admin", "dispatch", "filter", "plugin", "send", "settle", "store"];

/// What every stage may import: the vocabulary and the settings.
const VOCABULARY: [&str; 16] = [
    "addresses",
    "attempt",
    "breaker",
    "clock",
    "config",
    "delivery",
    "endpoint",
    "event",
    "http2",
    "metrics",
    "peer",
    "rate",
    "route",
    "secret",
    "tail",
    "tls",
];

/// What a part of the vocabulary may import beyond the vocabulary, and why.
const EXCEPTIONS: [(&str, &str); 2] = [
    ("config", "store"),  // The settings of a store are the store's to define.
    ("metrics", "store"), // So are its figures.
];

/// Outside crates that only some modules may know.
const CRATES: [(&str, &[&str]); 19] = [
    ("anstream", &["src/cli"]),
    ("anstyle", &["src/cli"]),
    ("cel", &["src/filter"]),
    ("clap", &["src/cli"]),
    ("figment", &["src/config"]),
    ("hyper_rustls", &["src/cli"]),
    ("indicatif", &["src/cli"]),
    ("prometheus_client", &["src/metrics.rs"]),
    ("quick_xml", &["src/cli"]),
    ("redis", &["src/store/redis", "src/cli/bench/durable_pipe.rs"]), // The pipe is what the store is compared with.
    ("rusqlite", &["src/store/embedded"]),
    ("rustls", &["src/send", "src/tls.rs", "src/tls/"]),
    ("tokio_io_timeout", &["src/peer.rs"]),
    ("tracing_subscriber", &["src/cli"]),
    ("unicode_width", &["src/cli"]),
    ("wasmparser", &["src/plugin"]),
    ("wasmtime", &["src/plugin"]),
    ("wit_component", &["src/plugin"]),
    ("x509_parser", &["src/tls.rs", "src/tls"]),
];

/// Files that may be longer than [`LINES_MAX`], each with its reason.
const LONG: [(&str, &str); 1] = [("src/plugin/lanes.rs", "one decision, who runs next; half of it are its tests")];

/// A file longer than this is probably two ideas.
const LINES_MAX: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of `src`, `tests` and `benches`, with its path from the root.
fn files() -> Vec<(String, String)> {
    let mut folders = ["src", "tests", "benches"].map(|folder| root().join(folder)).to_vec();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                files.push((name, std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// The top-level module a file of `src` belongs to.
fn module(file: &str) -> Option<&str> {
    let rest = file.strip_prefix("src/")?;
    Some(rest.split('/').next()?.trim_end_matches(".rs"))
}

/// The top-level modules of this crate that a text names after `crate::`.
fn imports(text: &str) -> impl Iterator<Item = &str> {
    text.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn imports_point_down_the_path_of_an_event() {
    let mut faults = Vec::new();
    for (file, text) in files() {
        let Some(own) = module(&file) else { continue };
        let stage = STAGES.iter().position(|name| *name == own);
        let is_vocabulary = VOCABULARY.contains(&own);
        if stage.is_none() && !is_vocabulary {
            continue;
        }
        // Tests beside the code may use whatever they need.
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for import in imports(code) {
            let target = STAGES.iter().position(|name| *name == import);
            let allowed = import == own
                || VOCABULARY.contains(&import)
                || EXCEPTIONS.contains(&(own, import))
                || matches!((stage, target), (Some(from), Some(to)) if from < to);
            let is_module = target.is_some() || matches!(import, "app" | "cli") || VOCABULARY.contains(&import);
            if is_module && !allowed {
                faults.push(format!("{file} imports crate::{import}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn outside_crates_stay_where_they_belong() {
    let mut faults = Vec::new();
    for (file, text) in files().into_iter().filter(|(file, _)| file.starts_with("src/")) {
        for (name, places) in CRATES {
            let named = text.lines().any(|line| {
                let line = line.trim_start();
                let used = line.strip_prefix("use ").is_some_and(|rest| {
                    rest.strip_prefix(name).is_some_and(|rest| rest.starts_with("::") || rest.starts_with(';'))
                });
                used || (!line.starts_with("//") && line.contains(&format!(" ::{name}::")))
            });
            if named && !places.iter().any(|place| file.starts_with(place)) {
                faults.push(format!("{file} uses {name}, which belongs in {places:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_file_says_what_it_is_for_and_stays_short_and_finished() {
    let mut faults = Vec::new();
    // Put together here, so that this file is not found by its own search.
    let markers = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    for (file, text) in files() {
        if !text.starts_with("//!") {
            faults.push(format!("{file} does not open with `//!`"));
        }
        if let Some(marker) = markers.iter().find(|marker| text.contains(marker.as_str())) {
            faults.push(format!("{file} has `{marker}…)`"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX && !LONG.iter().any(|(long, _)| *long == file) {
            faults.push(format!("{file} has {lines} lines: split it by idea, or put it on the list with its reason"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let mut faults = Vec::new();
    let marker = ["/ro", "ot/"].concat();
    for (file, text) in files() {
        if text.contains(&marker) {
            faults.push(file);
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
