//! What a chain makes of an event.

use std::sync::Arc;

use branchline::delivery::PluginFaultKind;
use branchline::plugin::{Chain, ChainEnd, Link, Verdict};

use super::{Bench, event};
use crate::support::components::Guest;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_chain_and_one_that_passes_give_the_very_event() {
    let bench = Bench::new();
    let event = event(r#"{"n": 1.000}"#);
    let pass = bench.load("pass", &Guest::pass()).await;
    for plugins in [&[][..], &[&pass], &[&pass, &pass, &pass]] {
        let ChainEnd::Event { event: same, changed: false } = bench.run(plugins, &event).await else { panic!() };
        assert!(Arc::ptr_eq(&same, &event));
    }
    let text = bench.metrics.render();
    for line in [
        r#"branchline_plugin_calls_total{plugin="pass",verdict="pass"} 4"#,
        // Two chains were not empty, whatever the number of their plugins.
        r#"branchline_plugin_chain_seconds_count{subscription="warehouse"} 2"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_event_is_what_the_next_plugin_sees() {
    let bench = Bench::new();
    let event = event("{}");
    let first = bench.load("first", &Guest::replace(&[(1, "order.renamed"), (5, r#"{"n": 2.50}"#)])).await;
    let second = bench.load("second", &Guest::replace(&[(6, r#"{"by":"second"}"#), (3, "order_8")])).await;
    let ChainEnd::Event { event: new, changed: true } = bench.run(&[&first, &second], &event).await else { panic!() };
    assert_eq!(
        String::from_utf8(new.envelope()).unwrap(),
        r#"{"id":"evt_1","eventType":"order.renamed","aggregateType":"Order","aggregateId":"order_8","payload":{"n": 2.50},"occurredAt":"2025-01-15T10:30:00Z","metadata":{"by":"second"}}"#
    );
    assert_eq!((&new.source, new.accepted_at), (&event.source, event.accepted_at));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_changes_nothing_is_no_change() {
    let bench = Bench::new();
    let same = bench.load("same", &Guest::replace(&[])).await;
    let end = bench.run(&[&same], &event(r#"{"a": [1, 2]}"#)).await;
    assert!(matches!(end, ChainEnd::Event { changed: false, .. }), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn send_drop_and_dead_letter_end_the_chain() {
    let bench = Bench::new();
    let event = event("{}");
    let never = bench.load("never", &Guest::new("(unreachable)")).await;

    let send = bench.load("send", &Guest::send(&[("X-Kind", "a")], "text/plain", "hello")).await;
    let ChainEnd::Send(request) = bench.run(&[&send, &never], &event).await else { panic!() };
    assert_eq!((request.content_type.as_str(), &request.body[..]), ("text/plain", &b"hello"[..]));
    assert_eq!(request.headers, [("x-kind".to_owned(), "a".to_owned())]);

    let drops = bench.load("drops", &Guest::drop("not interesting")).await;
    let end = bench.run(&[&drops, &never], &event).await;
    assert_eq!(end, ChainEnd::Dropped { plugin: "drops".into(), reason: "not interesting".into() });

    let gives_up = bench.load("gives-up", &Guest::dead_letter("no such\u{1b} customer")).await;
    let end = bench.run(&[&gives_up, &never], &event).await;
    assert_eq!(end, ChainEnd::DeadLetter { plugin: "gives-up".into(), reason: "no such\\u{1b} customer".into() });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_itself_whether_to_try_again() {
    let bench = Bench::new();
    for retryable in [true, false] {
        let end = bench.run_guest(&Guest::error("missing-field", "there is no `amount`", retryable)).await;
        let expected = ChainEnd::Fault {
            plugin: "guest".into(),
            kind: PluginFaultKind::Error,
            detail: "missing-field: there is no `amount`".into(),
            retryable,
        };
        assert_eq!(end, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_returns_is_checked_before_it_is_used() {
    let bench = Bench::new();
    let many = vec![("x-a", "1"); 65];
    for (guest, part) in [
        (Guest::replace(&[(5, "{not json}")]), "`payload` that is not JSON"),
        (Guest::replace(&[(6, "[1]")]), "`metadata` that is not a JSON object"),
        (Guest::replace(&[(0, "evt_2")]), "`id`"),
        (Guest::replace(&[(1, "")]), "`event-type`"),
        (Guest::replace(&[(4, "soon")]), "`occurred-at`"),
        (Guest::send(&[("Host", "evil.example")], "text/plain", ""), "`Host`, which plugins may not set"),
        (Guest::send(&[("webhook-id", "1")], "text/plain", ""), "`webhook-id`, which plugins may not set"),
        (Guest::send(&[("a", "b\r\nc: d")], "text/plain", ""), "a value that is not valid"),
        (Guest::send(&many, "text/plain", ""), "65 headers"),
        (Guest::send(&[], "", ""), "`content-type`"),
    ] {
        let (kind, detail) = bench.fault_of(&guest, |_| {}).await;
        assert_eq!(kind, PluginFaultKind::BadOutput);
        assert!(detail.contains(part), "{part} is not in: {detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_gets_the_same_bytes_at_every_run_and_every_host() {
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let bench = Bench::new();
        let plugin = bench.load("echo", &Guest::echo_host()).await;
        let link = |config: &str| Link::new(&plugin, config);
        for subscription in ["warehouse", "warehouse", "sales"] {
            let chain = Arc::new(Chain::new(&subscription.into(), [link(r#"{"a":1}"#)]));
            let end = bench.host.run(&chain, event("{}")).await.end;
            let ChainEnd::Send(request) = end else { panic!("{end:?}") };
            bodies.push(request.body);
        }
    }
    let first = &bodies[0];
    assert_ne!(first[..32], first[32..64], "two calls of `random` in a run differ");
    assert_eq!(first[64..72], 1_736_937_000_000_u64.to_le_bytes());
    assert_eq!(&first[72..], br#"{"a":1}"#);
    assert!([&bodies[1], &bodies[3], &bodies[4]].iter().all(|body| *body == first));
    assert_ne!(bodies[2][..64], first[..64], "another subscription has other random bytes");
    assert_eq!(bodies[5], bodies[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn configs_are_checked_by_the_plugin_that_gets_them() {
    let bench = Bench::new();
    let plain = bench.load("plain", &Guest::pass()).await;
    assert!(!plain.validates_config());
    assert_eq!(plain.validate_config("anything").await, Ok(()));

    let strict = bench.load("strict", &Guest::pass().refusing_configs("unknown key\n`chanel`")).await;
    assert!(strict.validates_config());
    assert_eq!(strict.validate_config("{}").await, Ok(()));
    assert_eq!(strict.validate_config(r#"{"chanel":1}"#).await, Err("unknown key\\n`chanel`".to_owned()));
    // It is a plugin like any other.
    assert!(matches!(bench.run(&[&strict], &event("{}")).await, ChainEnd::Event { changed: false, .. }));

    let spins = Guest::pass().validating("(loop $again (br $again)) (unreachable)");
    let spins = bench.load_with("spins", &spins, |spec| spec.deadline = std::time::Duration::from_millis(20)).await;
    assert!(spins.validate_config("{}").await.unwrap_err().contains("deadline of 20 ms"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_can_be_looked_at_closely() {
    let bench = Bench::new();
    let plugin = bench.load("logs", &Guest::logs("here\u{7}", 2)).await;
    let report = bench.host.call_once(&plugin, "{}", event("{}"), "warehouse").await;
    assert_eq!(report.verdict, Ok(Verdict::Pass));
    assert_eq!(report.memory_bytes_peak, 4 * 65_536);
    assert_eq!(report.log.len(), 2);
    assert_eq!(report.log[1].message, "here\\u{7}");
    assert!(!report.duration.is_zero());
}
