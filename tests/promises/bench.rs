//! `branchline bench` runs as the README shows it, and says what it found in each of its forms.

use std::process::Command;

use serde_json::Value;

fn bench(arguments: &[&str]) -> (Value, tempfile::TempDir) {
    let out = tempfile::tempdir().unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_branchline"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["bench", "--quick", "--json", "--events", "3000", "--connections", "8", "--out"])
        .arg(out.path())
        .args(arguments)
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    (serde_json::from_slice(&ended.stdout).unwrap(), out)
}

#[test]
fn the_bench_counts_every_event_and_compares_with_the_pipe() {
    let (report, out) = bench(&["--scenario", "stores", "--only", "embedded + slack"]);
    let scenarios = report["scenarios"].as_array().unwrap();
    let names: Vec<_> = scenarios.iter().map(|row| row["scenario"].as_str().unwrap()).collect();
    assert_eq!(names, ["bare pipe", "embedded + slack"]);
    let rate = |place: usize| scenarios[place]["deliveriesPerSecond"].as_f64().unwrap();
    assert!(rate(1) > 0.0);
    assert!((scenarios[1]["ofThePipe"].as_f64().unwrap() - rate(1) / rate(0)).abs() < 1e-9);
    let written: Value = serde_json::from_slice(&std::fs::read(out.path().join("bench.json")).unwrap()).unwrap();
    assert_eq!(written, report);
    let picture = std::fs::read_to_string(out.path().join("bench.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("embedded + slack"), "{picture}");
}

#[test]
fn what_grows_is_measured_and_drawn_and_waits_in_the_store_beforehand() {
    let (report, out) = bench(&["--scenario", "backlog", "--scenario", "retries", "--only", "00", "--held", "50000"]);
    let rows = report["scenarios"].as_array().unwrap();
    let at: Vec<_> = rows.iter().filter_map(|row| Some((row["group"].as_str()?, row["at"].as_u64()?))).collect();
    assert_eq!(at, [("Backlog", 500), ("Backlog", 5000), ("Retries", 500), ("Retries", 5000)]);
    assert!(rows.iter().all(|row| row["eventsPerSecond"].as_f64().unwrap() > 0.0), "{rows:#?}");
    assert_eq!(rows[1]["scenario"], "durable pipe, everysec");
    assert_eq!(report["redis"], serde_json::json!(["auto-aof-rewrite-min-size 1gb"]));
    let of_durable = rows[4]["eventsPerSecond"].as_f64().unwrap() / rows[1]["eventsPerSecond"].as_f64().unwrap();
    assert!((rows[4]["ofTheDurablePipe"].as_f64().unwrap() - of_durable).abs() < 1e-9);
    let picture = std::fs::read_to_string(out.path().join("bench.svg")).unwrap();
    assert!(picture.contains("events/s by deliveries that wait for a retry"), "{picture}");
}

#[test]
fn a_setting_that_redis_does_not_know_is_said() {
    let arguments =
        ["bench", "--quick", "--events", "1000", "--only", "redis everysec", "--redis", "no-such-setting 1"];
    let ended = Command::new(env!("CARGO_BIN_EXE_branchline")).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("redis-server ended at once:") && said.contains("no-such-setting"), "{said}");
}

#[test]
fn one_failing_endpoint_of_ten_and_a_router_at_rest_are_measured() {
    let (report, _out) = bench(&["--scenario", "failing", "--scenario", "rest", "--only", "one fails"]);
    let failing = report["scenarios"].as_array().unwrap().last().unwrap();
    assert_eq!(failing["scenario"], "10 endpoints, one fails");
    let (events, deliveries) = (&failing["eventsPerSecond"], &failing["deliveriesPerSecond"]);
    assert!((deliveries.as_f64().unwrap() / events.as_f64().unwrap() - 9.0).abs() < 1e-6, "{failing}");
    assert!(report["rest"]["memoryMib"].as_f64().unwrap() > 1.0);
}

#[test]
fn plugin_calls_on_two_threads_are_compared_with_those_of_two_processes() {
    // `--only` leaves out every scenario of events but the pipe.
    let (report, _out) = bench(&["--scenario", "host", "--only", "none"]);
    let calls = report["host"].as_array().unwrap();
    assert_eq!(calls.len(), 3);
    for call in calls {
        // How much depends on what else runs on the machine.
        for figure in ["medianMicros", "bareMedianMicros", "twoThreads", "twoProcesses"] {
            assert!(call[figure].as_f64().unwrap() > 0.0, "{figure} of {call:#}");
        }
    }
}
