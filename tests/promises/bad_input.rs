//! What producers may send, sound and unsound, as raw bytes, and what they are told. The numbers are those of
//! the list of bad inputs that the router was designed against; at the end stands which of them don't apply.

use std::time::{Duration, Instant};

use branchline::config::Ingest;

use self::rows::{GOOD, Row, bodies, body, framing, heads, line, post, problem, with};
use crate::support::door::{Door, settings};

mod rows; // What is sent, and the statuses that come back.

/// Sends every row on a connection of its own; a good request after it shows that nothing was harmed.
async fn holds(rows: Vec<Row>) {
    let door = Door::open(settings()).await;
    let mut wrong = Vec::new();
    println!("{} cases", rows.len());
    for (name, bytes, expected) in rows {
        let answers = door.exchange(&bytes).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        if statuses != expected {
            wrong.push(format!("{name}: wanted {expected:?}, got {answers:?}"));
        }
        for answer in answers.iter().filter(|answer| answer.status >= 400) {
            let is_right = answer.header("content-type") == Some("application/problem+json")
                && answer.json()["status"] == answer.status
                && answer.json()["type"] == format!("/problems/{}", problem(name, answer.status));
            if !is_right {
                wrong.push(format!("{name}: not the problem: {answer:?}"));
            }
            if answer.status == 405 && answer.header("allow") != Some("POST") {
                wrong.push(format!("{name}: no Allow: {answer:?}"));
            }
        }
        assert_eq!(door.post("", GOOD).await.status, 202, "after {name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    door.no_connection_is_left().await;
}

#[tokio::test]
async fn every_framing_has_its_one_reading() {
    holds(framing()).await;
}

#[tokio::test]
async fn every_bad_head_is_refused_with_its_status() {
    holds(heads()).await;
}

#[tokio::test]
async fn every_bad_body_is_refused_with_its_status() {
    holds(bodies()).await;
}

/// What never becomes a request is told what is wrong as any other, and its connection ends.
#[tokio::test]
async fn what_can_not_be_read_as_a_request_is_refused_with_a_problem() {
    let door = Door::open(settings()).await;
    for (bytes, status, kind) in [
        ([body(GOOD), with("X y: z")].concat(), 400, "/problems/bad-request"),
        (with("A: b\r\n".repeat(70).trim_end()), 431, "/problems/head-too-large"),
        (line(&format!("POST /{} HTTP/1.1", "y".repeat(40_000))), 431, "/problems/head-too-large"),
    ] {
        let answers = door.exchange(&bytes).await;
        let answer = answers.last().expect("it is answered");
        assert_eq!((answer.status, answer.json()["type"].as_str()), (status, Some(kind)), "{answer:?}");
        assert_eq!((answer.header("connection"), answer.header("date").is_some()), (Some("close"), true));
    }
}

/// Whatever the bytes are, every connection comes to its end with whole answers, and the next request is served.
#[tokio::test]
async fn mutated_requests_harm_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let door = Door::open(settings()).await;
    let rows: Vec<Vec<u8>> = [framing(), heads(), bodies()].concat().into_iter().map(|row| row.1).collect();
    let rows: Vec<_> = rows.into_iter().filter(|bytes| (1..4_096).contains(&bytes.len())).collect();
    for _ in 0..500 {
        let mut bytes = random.choice(&rows).unwrap().clone();
        for _ in 0..random.usize(1..4) {
            let place = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[place] = random.u8(..),
                1 => bytes.insert(place, *random.choice(b"\r\n:, 0{\"\\").unwrap()),
                2 if bytes.len() > 1 => drop(bytes.remove(place)),
                _ => bytes.extend_from_within(place..),
            }
        }
        door.exchange(&bytes).await;
    }
    assert_eq!(door.post("", GOOD).await.status, 202);
    door.no_connection_is_left().await;
}

/// Row 11: nobody waits for a body that is too large.
#[tokio::test]
async fn a_declared_length_over_the_limit_is_answered_at_once_and_closed() {
    let door = Door::open(settings()).await;
    let mut client = door.connect().await;
    client.send(&post("Content-Length: 262145", "")).await;
    let answers = client.rest().await;
    assert_eq!((answers.len(), answers[0].status, answers[0].header("connection")), (1, 413, Some("close")));
}

/// A refusal is not lost to a reset while the producer still sends.
#[tokio::test]
async fn a_producer_that_goes_on_sending_reads_its_refusal() {
    let door = Door::open(settings()).await;
    for _ in 0..20 {
        let mut client = door.connect().await;
        client.send(&post("Content-Length: 2000000", &"x".repeat(2_000_000))).await;
        assert_eq!(client.answer().await.unwrap().status, 413);
    }
}

/// Rows 60 to 63: a peer that does not come to the point.
#[tokio::test]
async fn a_slow_peer_is_closed_and_a_slow_body_is_answered_408() {
    let hasty =
        Ingest { head_timeout: Duration::from_millis(300), body_timeout: Duration::from_millis(300), ..settings() };
    let door = Door::open(hasty).await;
    let cases: [(&str, Vec<u8>, &[u16]); 6] = [
        ("60 connect, nothing", Vec::new(), &[]),
        ("61 PRI and nothing", b"PRI * HTTP".to_vec(), &[]),
        ("62 half a head", b"POST /v1/events HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), &[]),
        ("63 no body", post("Content-Length: 7", ""), &[408]),
        ("63 half a body", post("Content-Length: 7", "{\"a"), &[408]),
        ("idle after an answer", body(GOOD), &[202]),
    ];
    for (name, bytes, expected) in cases {
        let started = Instant::now();
        let mut client = door.connect().await;
        client.send(&bytes).await;
        let statuses: Vec<_> = client.rest().await.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, expected, "{name}");
        assert!(started.elapsed() < Duration::from_secs(5), "{name}");
    }
    // Row 62: one byte at a time does not put the end off.
    let started = Instant::now();
    let client = door.connect().await;
    while started.elapsed() < Duration::from_secs(5) && client.stream.try_write(b"X").is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(5), "the head may not take for ever");
    door.no_connection_is_left().await;
}

// Rows of the list that have no meaning here, since the router has no such thing: 96 and 106 (topics and scopes),
// 99 to 101 (signatures of providers), 103 to 105 (`Idempotency-Key`; an event's `id` is the key), 107's tenants,
// expired and revoked keys of 95. Rows 110 to 113 (quota, backlog, store, draining) are in `accept.rs`.
// Where the list wants 400 for an event that is JSON but no event (89, 102, 108, 109), the contract has 422.
