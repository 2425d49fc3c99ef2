//! What the store in Redis does with what is large or refused: many large deliveries, large events, broken keys.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use branchline::delivery::{Delivery, DeliveryId, Outcome, Request, Work};
use branchline::event::Event;
use branchline::secret::Secret;
use branchline::store::redis::RedisTarget;
use branchline::store::{
    DeliverySettlement, Error, EventClaim, EventSettlement, Hold, NextState, ScheduledDelivery, Settled,
};
use futures_util::future::join_all;

use crate::redis_faults::open;
use crate::store_contract::{
    PATIENCE, all_dead_letters, all_outcomes, append, claim, claim_due_within, claim_within, dead_letter, delivered,
    delivery, event, events, nothing_to_claim, outcome_of, rescheduled, settle,
};
use crate::support::eventually;
use crate::support::fault_proxy::FaultProxy;
use crate::support::redis_server::RedisServer;

const HOUR: Duration = Duration::from_secs(3600);

/// `count` deliveries of one event, each with a body of its own content of `bytes`.
fn large_deliveries(claim: &EventClaim, count: usize, bytes: usize) -> Vec<Delivery> {
    let body: bytes::Bytes = vec![b'x'; bytes].into();
    let request = Arc::new(Request { content_type: "text/plain".to_owned(), headers: vec![], body });
    let one = |n: usize| {
        let subscription = format!("large_{n}");
        let id = DeliveryId::derive(&claim.event, &subscription);
        Delivery { id, work: Work::Send(Arc::clone(&request)), ..delivery(claim, &subscription) }
    };
    (0..count).map(one).collect()
}

/// The settlement of an event with many large deliveries: every other one goes on being held.
fn large_settlement(claim: EventClaim, count: usize, bytes: usize) -> EventSettlement {
    let deliveries = large_deliveries(&claim, count, bytes).into_iter().enumerate();
    let hold = |n| if n % 2 == 0 { Hold::Claimed } else { Hold::Wait(HOUR) };
    let scheduled = deliveries.map(|(n, delivery)| ScheduledDelivery { delivery, hold: hold(n) }).collect();
    EventSettlement { scheduled, ..delivered(claim) }
}

fn large_event(id: &str, bytes: usize) -> Event {
    Event { payload: format!("\"{}\"", "x".repeat(bytes)).into(), ..event(id) }
}

fn pending(server: &RedisServer) -> usize {
    let count = |n| server.cli(&["xpending", &format!("{{bl:{n}}}:events"), "g"]).lines().next().map(str::to_owned);
    (0..4).filter_map(count).filter_map(|count| count.trim().parse::<usize>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_large_deliveries_are_scheduled_while_other_events_settle() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    // One aggregate, so that all are in one partition.
    let of_one = |event: Event| Event { aggregate_id: "order_1".into(), ..event };
    append(&store, events("evt", 41).into_iter().map(of_one).collect()).await;
    let mut claims = claim(&store, 41).await;
    let large = large_settlement(claims.remove(0), 300, 256 * 1024);
    let expected: Vec<_> = large.scheduled.iter().step_by(2).map(|entry| entry.delivery.clone()).collect();
    let settling = tokio::spawn({
        let store = Arc::clone(&store);
        async move { settle(&store, large).await }
    });
    let some = || server.cli(&["dbsize"]).trim().parse::<usize>().unwrap() > 30;
    eventually("some records are written", PATIENCE, async || some().then_some(())).await;
    for claim in claims {
        let started = Instant::now();
        settle(&store, delivered(claim)).await;
        assert!(started.elapsed() < Duration::from_secs(1), "it waited for {:?}", started.elapsed());
    }
    let held = tokio::time::timeout(PATIENCE, settling).await.expect("it is settled").unwrap();
    assert_eq!(held.iter().map(|claim| &claim.delivery).collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.backlog, stats.scheduled), (0, 300));
    let ids: HashSet<_> =
        store.scheduled(400).await.unwrap().into_iter().map(|(_, delivery)| delivery.subscription).collect();
    assert_eq!(ids.len(), 300, "each record is there");
    for key in server.cli(&["--scan", "--pattern", "*:d:*"]).lines().take(20) {
        assert_eq!(server.cli(&["ttl", key]).trim(), "-1", "no record expires");
    }
    for claim in held.into_iter().take(3) {
        let outcome = outcome_of(&claim.delivery, Outcome::Delivered);
        let settlement = DeliverySettlement { claim, outcome: Some(outcome), next: NextState::Ended };
        assert_eq!(store.settle_delivery(settlement).await.unwrap(), Settled::Written(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_settlement_that_is_begun_anew_writes_everything_once() {
    let server = RedisServer::start("no");
    let proxy = FaultProxy::before(server.port()).await;
    let store = open(RedisTarget::Single(Secret::new(format!("redis://127.0.0.1:{}", proxy.port())))).await;
    append(&store, vec![event("evt")]).await;
    let settlement = |claim: EventClaim| {
        let dead_letters = large_deliveries(&claim, 200, 32 * 1024).into_iter().map(dead_letter).collect();
        EventSettlement { dead_letters, ..large_settlement(claim, 100, 32 * 1024) }
    };
    let begun = settlement(claim(&store, 1).await.remove(0));
    let settling = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.settle_event(begun).await }
    });
    let some = || server.cli(&["--scan", "--pattern", "*:letters:*"]).contains("letters");
    eventually("some dead letters are written", PATIENCE, async || some().then_some(())).await;
    // It ends as a crash does.
    settling.abort();
    let _ = settling.await;
    drop(store);
    let store = open(RedisTarget::Single(Secret::new(format!("redis://127.0.0.1:{}", proxy.port())))).await;
    let claims = eventually("it comes again, unless it was settled in time", PATIENCE, async || {
        let claims = store.claim_events(1, Duration::from_millis(200)).await.ok()?;
        (!claims.is_empty() || pending(&server) == 0).then_some(claims)
    })
    .await;
    for claim in claims {
        proxy.lose_answers(3);
        settle(&store, settlement(claim)).await;
    }
    let letters = eventually("the last answer is lost", PATIENCE, async || {
        let (page, _) = store.dead_letters(None, 1000).await.ok()?;
        Some(page)
    })
    .await;
    let ids: HashSet<_> = letters.iter().map(|letter| letter.delivery.id.clone()).collect();
    assert_eq!((letters.len(), ids.len()), (200, 200), "each dead letter is written once");
    assert_eq!(store.stats().await.unwrap().scheduled, 100);
    assert_eq!(server.cli(&["--scan", "--pattern", "*:letters:*"]).trim(), "", "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_ahead_and_is_gone_is_written_anew() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    append(&store, vec![event("evt")]).await;
    let large = large_settlement(claim(&store, 1).await.remove(0), 200, 128 * 1024);
    let settling = tokio::spawn({
        let store = Arc::clone(&store);
        async move { settle(&store, large).await }
    });
    let first = eventually("a record is written", PATIENCE, async || {
        let keys = server.cli(&["--scan", "--pattern", "*:d:*"]);
        keys.lines().next().map(str::to_owned)
    })
    .await;
    // Unless everything is settled already: then it does not expire.
    let gone = "if redis.call('TTL', KEYS[1]) > 0 then return redis.call('DEL', KEYS[1]) end";
    server.cli(&["eval", gone, "1", &first]);
    tokio::time::timeout(PATIENCE, settling).await.expect("it is settled").unwrap();
    assert_eq!(store.scheduled(400).await.unwrap().len(), 200, "each record is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_do_not_wait_behind_thirty_megabytes_of_settlement() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    append(&store, vec![event("evt")]).await;
    let large = large_settlement(claim(&store, 1).await.remove(0), 30, 1024 * 1024);
    let settling = tokio::spawn({
        let store = Arc::clone(&store);
        async move { settle(&store, large).await }
    });
    let mut stored = 0;
    while !settling.is_finished() || stored == 0 {
        let started = Instant::now();
        append(&store, vec![event(&format!("during_{stored}"))]).await;
        assert!(started.elapsed() < Duration::from_secs(1), "it took {:?}", started.elapsed());
        stored += 1;
    }
    assert_eq!(settling.await.unwrap().len(), 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_are_claimed_a_few_at_a_time() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    for n in 0..40 {
        append(&store, vec![large_event(&format!("evt_{n}"), 1024 * 1024)]).await;
    }
    let first = store.claim_events(1200, Duration::from_secs(1)).await.unwrap();
    assert!((1..=8).contains(&first.len()), "{} were claimed at once", first.len());
    assert!(pending(&server) <= 8, "{} are held", pending(&server));
    drop((store, first));
    // So are those of a process that is gone.
    let store = open(server.target()).await;
    let mut claims = Vec::new();
    let started = Instant::now();
    while claims.len() < 40 {
        assert!(started.elapsed() < PATIENCE, "{} of 40 were claimed", claims.len());
        let more = store.claim_events(1200, Duration::from_millis(500)).await.unwrap();
        assert!(more.len() <= 8, "{} were claimed at once", more.len());
        claims.extend(more);
    }
    for claim in claims {
        settle(&store, delivered(claim)).await;
    }
    // Small ones come in large numbers again.
    append(&store, events("small", 1000)).await;
    for claim in claim_within(&store, 1000, PATIENCE).await {
        settle(&store, delivered(claim)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_that_is_refused_takes_no_other_with_it_and_does_not_come_again_at_once() {
    let server = RedisServer::start("no");
    let store = open(server.target()).await;
    append(&store, events("evt", 60)).await;
    let claims = claim(&store, 60).await;
    // A key of the wrong kind: what has a dead letter is refused.
    for partition in 0..4 {
        server.cli(&["set", &format!("{{bl:{partition}}}:dead"), "not a stream"]);
    }
    let settlements = claims.into_iter().enumerate().map(|(n, claim)| {
        let dead_letters = if n == 30 { vec![dead_letter(delivery(&claim, "warehouse"))] } else { vec![] };
        EventSettlement { dead_letters, ..rescheduled(claim, "warehouse", Hold::Wait(Duration::ZERO)) }
    });
    let answers = join_all(settlements.map(|settlement| store.settle_event(settlement))).await;
    let refused = answers.iter().filter(|answer| matches!(answer, Err(Error::Unusable(_)))).count();
    let written = answers.iter().filter(|answer| matches!(answer, Ok(Settled::Written(_)))).count();
    assert_eq!((refused, written), (1, 59));
    assert_eq!(pending(&server), 1, "it stays pending");

    // The refused one's delivery is in the schedule as well: what can be repeated was written before it was refused.
    let due = claim_due_within(&store, 59, PATIENCE).await;
    let settlements = due.into_iter().enumerate().map(|(n, claim)| {
        let outcome = Some(outcome_of(&claim.delivery, Outcome::Delivered));
        let next = if n == 30 { NextState::Dead(dead_letter(claim.delivery.clone())) } else { NextState::Ended };
        DeliverySettlement { claim, outcome, next }
    });
    let answers = join_all(settlements.map(|settlement| store.settle_delivery(settlement))).await;
    let refused = answers.iter().filter(|answer| matches!(answer, Err(Error::Unusable(_)))).count();
    let written = answers.iter().filter(|answer| matches!(answer, Ok(Settled::Written(())))).count();
    assert_eq!((refused, written), (1, answers.len() - 1));
    assert_eq!(all_outcomes(&store).await.len(), 59 + written, "nothing of what was written is lost");

    // The pending list is looked through every five seconds.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(7) {
        nothing_to_claim(&store).await;
    }
    assert_eq!(pending(&server), 1);
    for partition in 0..4 {
        server.cli(&["del", &format!("{{bl:{partition}}}:dead")]);
    }
    assert!(all_dead_letters(&store).await.is_empty());
}

/// By hand, since such a call waits in the network for as long as a settlement takes.
#[test]
fn what_is_written_ahead_too_late_is_not_written() {
    let server = RedisServer::start("no");
    let script = include_str!("../../src/store/redis/scripts/write_ahead.lua");
    let write = || {
        let keys = ["6", "owner", "due", "dead", "set", "letters", "events"];
        let arguments = ["60000", "g", "1-1", "dlv_1", "a letter"];
        server.cli(&[&["eval", script], &keys[..], &arguments[..]].concat()).trim().to_owned()
    };
    for command in [
        &["hset", "owner", "events", "1"][..],
        &["xadd", "events", "1-1", "e", "x"],
        &["xgroup", "create", "events", "g", "0"],
        &["xreadgroup", "group", "g", "c", "streams", "events", ">"],
    ] {
        server.cli(command);
    }
    assert_eq!((write(), write()), ("WRITTEN".to_owned(), "WRITTEN".to_owned()));
    assert_eq!(server.cli(&["xlen", "dead"]).trim(), "1", "once however often it is asked");
    server.cli(&["del", "set"]);
    server.cli(&["xack", "events", "g", "1-1"]);
    assert_eq!(write(), "SETTLED");
    assert_eq!(server.cli(&["xlen", "dead"]).trim(), "1", "and not after the settlement");
}
