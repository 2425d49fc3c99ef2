//! Deadline, memory, stack, output and log. Each limit has its own fault, so that the operator knows which one to look at.

use std::time::{Duration, Instant};

use branchline::delivery::PluginFaultKind;
use branchline::plugin::ChainEnd;

use super::{Bench, event};
use crate::support::components::{Guest, RESULT};

/// Far more than a deadline of 50 ms and its tick, for a machine that runs other tests.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_ends_at_its_deadline() {
    let bench = Bench::new();
    for guest in [Guest::spins(), Guest::pass().starting_with("(loop $again (br $again))")] {
        let started = Instant::now();
        let (kind, detail) = bench.fault_of(&guest, |spec| spec.deadline = Duration::from_millis(50)).await;
        assert_eq!(kind, PluginFaultKind::Deadline, "{detail}");
        assert!(detail.contains("50 ms"), "{detail}");
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(50) && took < SOON, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_bomb_ends_at_its_memory_limit() {
    let bench = Bench::new();
    let grows = Guest::new("(loop $again (drop (memory.grow (i32.const 16))) (br $again)) (unreachable)");
    let (kind, detail) = bench.fault_of(&grows, |spec| spec.memory_bytes_max = 2 << 20).await;
    assert_eq!(kind, PluginFaultKind::Memory);
    assert!(detail.contains("2097152"), "{detail}");
    // At once is no better than step by step.
    let (kind, _) = bench.fault_of(&Guest::new("(drop (memory.grow (i32.const 60000))) (unreachable)"), |_| {}).await;
    assert_eq!(kind, PluginFaultKind::Memory);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recursion_that_does_not_end_runs_out_of_stack() {
    let bench = Bench::new();
    let guest = Guest::new("(call $down (i32.const 0))").with_function(
        "(func $down (param i32) (result i32) (i32.add (i32.const 1) (call $down (i32.add (local.get 0) (i32.const 1)))))",
    );
    assert_eq!(bench.fault_of(&guest, |_| {}).await.0, PluginFaultKind::Stack);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_told_with_its_reason() {
    let bench = Bench::new();
    for (body, part) in [
        ("(unreachable)", "unreachable"),
        ("(i32.div_u (i32.const 1) (i32.const 0))", "divide by zero"),
        ("(i32.load (i32.const -8))", "out of bounds"),
    ] {
        let (kind, detail) = bench.fault_of(&Guest::new(body), |_| {}).await;
        assert_eq!(kind, PluginFaultKind::Trap);
        assert!(detail.contains(part), "{part} is not in: {detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_over_its_limit_is_refused() {
    let bench = Bench::new();
    // A reason of 3 MiB, most of it zeros of the guest's memory.
    let body = format!(
        "(i32.store8 (i32.const {}) (i32.const 3)) (i32.store (i32.const {}) (i32.const 0))
         (i32.store (i32.const {}) (i32.const 3145728)) (i32.const {RESULT})",
        RESULT + 4,
        RESULT + 8,
        RESULT + 12
    );
    let huge = Guest::new(body).with_pages(64);
    let (kind, detail) = bench.fault_of(&huge, |spec| spec.output_bytes_max = 1 << 20).await;
    assert_eq!(kind, PluginFaultKind::BadOutput);
    assert!(detail.contains("1048576"), "{detail}");
    let (kind, detail) = bench.fault_of(&Guest::drop("0123456789"), |spec| spec.output_bytes_max = 9).await;
    assert_eq!((kind, detail.contains("10 bytes")), (PluginFaultKind::BadOutput, true), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_read_is_the_plugins_fault() {
    let bench = Bench::new();
    let reason_at = |pointer: i32, length: i32| {
        format!(
            "(i32.store8 (i32.const {}) (i32.const 3)) (i32.store (i32.const {}) (i32.const {pointer}))
             (i32.store (i32.const {}) (i32.const {length})) (i32.const {RESULT})",
            RESULT + 4,
            RESULT + 8,
            RESULT + 12
        )
    };
    let not_utf8 = format!("(i32.store8 (i32.const 512) (i32.const 255)) {}", reason_at(512, 1));
    for body in [
        "(i32.const 1026)".to_owned(), // Not aligned.
        "(i32.const -64)".to_owned(),  // Outside of its memory.
        format!("(i32.store8 (i32.const {RESULT}) (i32.const 9)) (i32.const {RESULT})"), // Neither ok nor err.
        reason_at(-16, 8),
        reason_at(0, -1),
        not_utf8,
    ] {
        let (kind, detail) = bench.fault_of(&Guest::new(body.clone()), |_| {}).await;
        assert_eq!(kind, PluginFaultKind::BadOutput, "{body}: {detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_logs_no_more_than_64_lines_of_a_kibibyte() {
    let bench = Bench::new();
    let plugin = bench.load("logs", &Guest::logs(&"x".repeat(2000), 500)).await;
    let report = bench.host.call_once(&plugin, "{}", event("{}"), "warehouse").await;
    assert!(report.verdict.is_ok());
    assert!(report.log.iter().all(|line| line.message.len() <= 1024));
    assert_eq!(report.log.iter().map(|line| line.message.len()).sum::<usize>(), 16 << 10);
    let plugin = bench.load("logs", &Guest::logs("x", 500)).await;
    assert_eq!(bench.host.call_once(&plugin, "{}", event("{}"), "warehouse").await.log.len(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_call_is_left_for_the_next_one() {
    let bench = Bench::with_threads(1);
    // Passes when its memory is as it was written, and marks it; an instance that was used before would drop.
    let guest = Guest::new(format!(
        "(if (i32.load (i32.const 60000)) (then (i32.store8 (i32.const {}) (i32.const 3))))
         (i32.store (i32.const 60000) (i32.const 1)) (i32.store (i32.const 200000) (i32.const 1))
         (if (i32.eqz (i32.load (i32.const 200000))) (then (unreachable)))
         (i32.const {RESULT})",
        RESULT + 4
    ));
    let plugin = bench.load("guest", &guest).await;
    for _ in 0..200 {
        let end = bench.run(&[&plugin], &event("{}")).await;
        assert!(matches!(end, ChainEnd::Event { .. }), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_failed_is_called_again_as_if_nothing_had_been() {
    let bench = Bench::new();
    let plugin =
        bench.load_with("some", &Guest::spins_on_demand(), |spec| spec.deadline = Duration::from_millis(50)).await;
    for _ in 0..3 {
        assert!(matches!(
            bench.run(&[&plugin], &event("1")).await,
            ChainEnd::Fault { kind: PluginFaultKind::Deadline, .. }
        ));
        assert!(matches!(bench.run(&[&plugin], &event("2")).await, ChainEnd::Event { .. }));
    }
}
