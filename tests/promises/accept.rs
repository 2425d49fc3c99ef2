//! HTTP in: 2xx means stored, a refusal says what is wrong, and no producer takes more than its share.

use std::time::{Duration, Instant};

use branchline::accept::Closure;

use crate::support::door::{Answer, Door, request, settings};

const ENVELOPE: &str = r#"{"id":"evt_1","eventType":"user.created","aggregateType":"User","aggregateId":"user_1",
  "payload": {"email":"new@example.com", "n": 1.000},"occurredAt":"2025-01-15T10:30:00Z","metadata":{"tenant":"a"}}"#;

fn envelope(id: &str) -> String {
    format!(r#"{{"id":"{id}","eventType":"order.created","payload":{{"amount":1}}}}"#)
}

#[tokio::test]
async fn a_202_means_that_the_event_is_in_the_store() {
    let door = Door::open(settings()).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = door.post(&format!("traceparent: {trace}\r\n"), ENVELOPE).await;
    assert_eq!((answer.status, answer.body.as_str()), (202, r#"{"id":"evt_1","status":"accepted"}"#));
    let event = door.stored("evt_1").await.unwrap();
    assert_eq!((&*event.source, &*event.event_type), ("events", "user.created"));
    assert_eq!((&*event.aggregate_type, &*event.aggregate_id), ("User", "user_1"));
    assert_eq!(&*event.payload, r#"{"email":"new@example.com", "n": 1.000}"#);
    assert_eq!((&*event.occurred_at, &*event.metadata), ("2025-01-15T10:30:00Z", r#"{"tenant":"a"}"#));
    assert_eq!(event.traceparent, trace);
    assert!(event.accepted_at.as_millis() > 1_700_000_000_000);
    assert!(door.metrics.render().contains(r#"branchline_accepted_events_total{source="events"} 1"#));
}

/// Whatever JSON allows: the payload's bytes are the producer's.
#[tokio::test]
async fn unusual_but_sound_payloads_are_stored_byte_for_byte() {
    let door = Door::open(settings()).await;
    for (n, json) in [
        "18446744073709551616",
        r#"{"a":1,"a":2}"#,
        "-0.0",
        "1E+2",
        r#"{ "b" : [ 1.10 , null ] , "" : "" }"#,
        r#""\u0000\ud83d\ude00\/""#,
        "0.1000000000000000055511151231257827021181583404541015625",
    ]
    .into_iter()
    .enumerate()
    {
        let answer = door.post("", &format!(r#"{{"id":"e{n}","eventType":"a","payload": {json} }}"#)).await;
        assert_eq!(answer.status, 202, "{json}");
        assert_eq!(&*door.stored(&format!("e{n}")).await.unwrap().payload, json);
    }
}

#[tokio::test]
async fn an_event_without_an_id_gets_one_and_the_time_of_acceptance() {
    let door = Door::open(settings()).await;
    let answer = door.post("", r#"{"eventType":"a","payload":null}"#).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert!(answer.status == 202 && id.starts_with("evt_") && id.len() == 36, "{answer:?}");
    let event = door.stored(&id).await.unwrap();
    assert_eq!(event.occurred_at, event.accepted_at.to_string());
    assert_eq!((&*event.payload, &*event.metadata, &*event.traceparent), ("null", "{}", ""));
}

#[tokio::test]
async fn the_same_id_again_is_a_duplicate_and_stored_once() {
    let door = Door::open(settings()).await;
    assert_eq!(door.post("", &envelope("a")).await.status, 202);
    let again = door.post("", &envelope("a")).await;
    assert_eq!((again.status, again.body.as_str()), (200, r#"{"id":"a","status":"duplicate"}"#));
    assert_eq!(door.backlog().await, 1);
    assert!(door.metrics.render().contains(r#"branchline_duplicate_events_total{source="events"} 1"#));
}

#[tokio::test]
async fn a_batch_is_answered_with_each_events_status_in_order() {
    let door = Door::open(settings()).await;
    assert_eq!(door.post("", &envelope("b")).await.status, 202);
    let array = door.post("", &format!("[{}, {}]", envelope("a"), envelope("b"))).await;
    let expected = r#"{"events":[{"id":"a","status":"accepted"},{"id":"b","status":"duplicate"}]}"#;
    assert_eq!((array.status, array.body.as_str()), (202, expected));
    let lines = format!("{}\r\n\n  \n{}", envelope("c"), envelope("d"));
    let lines = door.post("Content-Type: application/x-ndjson\r\n", &lines).await;
    let expected = r#"{"events":[{"id":"c","status":"accepted"},{"id":"d","status":"accepted"}]}"#;
    assert_eq!((lines.status, lines.body.as_str()), (202, expected));
    assert_eq!(door.post("", &format!("[{}]", envelope("c"))).await.status, 202, "also when all are duplicates");
    assert_eq!(door.backlog().await, 4);
}

#[tokio::test]
async fn one_bad_event_refuses_the_whole_batch_with_every_fault() {
    let door = Door::open(settings()).await;
    let bad = r#"{"eventType":"","payload":1,"secretKey":"hunter2"}"#;
    let answer = door.post("", &format!("[{},{bad},7,{}]", envelope("a"), envelope("b"))).await;
    let at = |pointer: &str, index| (pointer.to_owned(), Some(index));
    assert_eq!(answer.faults(), [at("/1/secretKey", 1), at("/1/eventType", 1), at("/2", 2)]);
    assert!(!answer.body.contains("hunter2"));
    let lines = format!("{}\n\n{bad}\n", envelope("a"));
    let answer = door.post("Content-Type: application/x-ndjson\r\n", &lines).await;
    assert_eq!(answer.faults(), [at("/secretKey", 1), at("/eventType", 1)]);
    assert_eq!(door.backlog().await, 0);
}

#[tokio::test]
async fn cloud_events_come_in_all_three_modes() {
    let door = Door::open(settings()).await;
    let cloud_event = |id: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/shop","type":"com.example.order","subject":"o-1","time":"2025-01-15T10:30:00Z","data":{{"n":1.0}},"traceid":"t"}}"#
        )
    };
    let structured = door.post("Content-Type: application/cloudevents+json\r\n", &cloud_event("a")).await;
    assert_eq!((structured.status, structured.body.as_str()), (202, r#"{"id":"a","status":"accepted"}"#));
    let batch = format!("[{},{}]", cloud_event("a"), cloud_event("b"));
    let batch = door.post("Content-Type: application/cloudevents-batch+json\r\n", &batch).await;
    let expected = r#"{"events":[{"id":"a","status":"duplicate"},{"id":"b","status":"accepted"}]}"#;
    assert_eq!((batch.status, batch.body.as_str()), (202, expected));
    let headers = "ce-specversion: 1.0\r\nce-id: c\r\nce-source: /shop\r\nce-type: com.example.order\r\n\
                   ce-subject: o-1\r\nce-time: 2025-01-15T10:30:00Z\r\nce-traceid: t\r\n";
    assert_eq!(door.post(headers, r#"{"n":1.0}"#).await.status, 202);
    for id in ["a", "b", "c"] {
        let event = door.stored(id).await.unwrap();
        assert_eq!((&*event.event_type, &*event.aggregate_type), ("com.example.order", "/shop"), "{id}");
        assert_eq!((&*event.aggregate_id, &*event.occurred_at), ("o-1", "2025-01-15T10:30:00Z"));
        assert_eq!((&*event.payload, &*event.metadata), (r#"{"n":1.0}"#, r#"{"traceid":"t"}"#));
    }
}

#[tokio::test]
async fn only_a_key_of_the_source_lets_in_and_every_other_gets_the_same_text() {
    let door = Door::open(settings()).await;
    let with = async |target: &str, headers: &str| {
        let mut answers = door.exchange(request(target, headers, &envelope("a")).as_bytes()).await;
        answers.remove(0)
    };
    for key in ["Bearer key-one", "bearer key-two"] {
        let answer = with("/v1/keyed", &format!("Authorization: {key}\r\n")).await;
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
    }
    let mut texts = Vec::new();
    for headers in
        ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic a2V5\r\n", "Authorization: Bearer \r\n"]
    {
        let answer = with("/v1/keyed", headers).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{headers}");
        texts.push(answer.body);
    }
    texts.push(with("/v1/keyed?key=key-one&access_token=key-one", "").await.body);
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(door.metrics.render().contains(r#"branchline_refused_requests_total{source="keyed",status="401"} 5"#));
}

#[tokio::test]
async fn many_requests_share_a_connection_and_are_answered_in_order() {
    let door = Door::open(settings()).await;
    let mut client = door.connect().await;
    let requests: String = (0..100).map(|n| request("/v1/events", "", &envelope(&format!("e{n}")))).collect();
    client.send(requests.as_bytes()).await;
    for n in 0..100 {
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.json()["id"].as_str().unwrap()), (202, format!("e{n}").as_str()));
    }
    // A refusal with a short body costs no connection.
    client.send(request("/nowhere", "", &envelope("x")).as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 404);
    client.send(request("/v1/events", "", &envelope("y")).as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 202);
}

#[tokio::test]
async fn a_shut_gate_is_answered_503_with_when_to_come_back() {
    let door = Door::open(settings()).await;
    for (closure, name) in
        [(Closure::Backlog, "backlog-full"), (Closure::StoreAway, "store-away"), (Closure::Draining, "stopping")]
    {
        door.intake.gate().set(closure, true);
        let answer = door.post("", &envelope("a")).await;
        assert_eq!(
            (answer.status, answer.json()["type"].as_str().unwrap()),
            (503, format!("/problems/{name}").as_str())
        );
        assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
        assert_eq!(answer.header("connection") == Some("close"), closure == Closure::Draining);
        door.intake.gate().set(closure, false);
    }
    assert_eq!(door.post("", &envelope("a")).await.status, 202);
}

#[tokio::test]
async fn a_closed_store_is_answered_503() {
    let door = Door::open(settings()).await;
    door.store.close().await.unwrap();
    let answer = door.post("", &envelope("a")).await;
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{answer:?}");
    assert!(answer.body.contains("it is unknown whether the events are stored"), "{answer:?}");
}

#[tokio::test]
async fn all_bodies_together_have_a_bound() {
    let door = Door::open(branchline::config::Ingest { bodies_bytes_max: 1_000, ..settings() }).await;
    let mut holder = door.connect().await;
    let body = format!(r#"{{"id":"held","eventType":"a","payload":"{}"}}"#, "x".repeat(900));
    let whole = request("/v1/events", "", &body);
    let (first, last) = whole.split_at(whole.len() - 1);
    holder.send(first.as_bytes()).await;
    // The second body is refused while most of the first is held, whenever that has been read.
    let refused = crate::support::eventually("the budget is used up", Duration::from_secs(10), async || {
        let answer = door.post("", &format!(r#"{{"eventType":"a","payload":"{}"}}"#, "y".repeat(100))).await;
        (answer.status == 503).then_some(answer)
    });
    let refused = refused.await;
    assert!(refused.body.contains("/problems/bodies-full") && refused.header("retry-after").is_some(), "{refused:?}");
    holder.send(last.as_bytes()).await;
    assert_eq!(holder.answer().await.unwrap().status, 202);
    assert_eq!(door.post("", &envelope("a")).await.status, 202);
}

#[tokio::test]
async fn large_bodies_are_taken_in_pieces_and_in_chunks() {
    let door = Door::open(branchline::config::Ingest { body_bytes_max: 2 << 20, ..settings() }).await;
    let payload = format!("\"{}\"", "é".repeat(400_000));
    let body = |id: &str| format!(r#"{{"id":"{id}","eventType":"a","payload":{payload}}}"#);
    assert_eq!(door.post("", &body("declared")).await.status, 202);
    let mut chunked =
        "POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_owned()
            .into_bytes();
    for piece in body("chunked").as_bytes().chunks(60_000) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    // A second request behind the chunks shows that their end was found.
    chunked.extend_from_slice(request("/v1/events", "", &envelope("behind")).as_bytes());
    let statuses: Vec<_> = door.exchange(&chunked).await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [202, 202]);
    for id in ["declared", "chunked"] {
        assert_eq!(&*door.stored(id).await.unwrap().payload, payload, "{id}");
    }
}

#[tokio::test]
async fn an_address_over_its_connections_is_told_503_and_the_others_go_on() {
    let door = Door::open(branchline::config::Ingest { connections_per_address_max: 2, ..settings() }).await;
    let mut first = door.connect().await;
    let second = door.connect().await;
    let mut third = door.connect().await;
    let told: Vec<Answer> = third.rest().await;
    assert_eq!((told.len(), told[0].status, told[0].header("retry-after")), (1, 503, Some("1")), "{told:?}");
    first.send(request("/v1/events", "", &envelope("a")).as_bytes()).await;
    assert_eq!(first.answer().await.unwrap().status, 202);
    drop((first, second));
    door.no_connection_is_left().await;
    assert_eq!(door.post("", &envelope("b")).await.status, 202);
}

#[tokio::test]
async fn a_producer_that_reads_no_answers_is_given_up() {
    let door = Door::open(branchline::config::Ingest { body_timeout: Duration::from_millis(300), ..settings() }).await;
    let client = door.connect().await;
    let refused = request("/nowhere", "", "{}").repeat(100);
    // Sends without reading until the router, whose answers nobody takes, stops reading and then closes.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) {
        match client.stream.try_write(refused.as_bytes()) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(_) => break,
        }
    }
    door.no_connection_is_left().await;
}

#[tokio::test]
async fn stopping_answers_what_is_under_way_and_closes_the_rest() {
    let door = Door::open(settings()).await;
    let mut idle = door.connect().await;
    idle.send(request("/v1/events", "", &envelope("a")).as_bytes()).await;
    assert_eq!(idle.answer().await.unwrap().status, 202);
    let mut busy = door.connect().await;
    let whole = request("/v1/events", "Expect: 100-continue\r\n", &envelope("b"));
    let (head, body) = whole.split_at(whole.find("\r\n\r\n").unwrap() + 4);
    busy.send(head.as_bytes()).await;
    // `100 Continue` shows that the request is under way.
    assert_eq!(busy.answer().await.unwrap().status, 100);
    door.shutdown.send(true).unwrap();
    assert!(idle.answer().await.is_none(), "an idle connection is closed");
    busy.send(body.as_bytes()).await;
    let answer = busy.answer().await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (202, Some("close")));
    assert!(busy.answer().await.is_none());
    drop(busy);
    tokio::time::timeout(Duration::from_secs(10), door.served).await.expect("it ends by itself").unwrap();
    assert!(tokio::net::TcpStream::connect(door.address).await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn stopping_waits_no_longer_than_its_grace() {
    let door = Door::open_with_grace(settings(), Duration::from_millis(200)).await;
    let mut stuck = door.connect().await;
    stuck.send(b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(stuck.answer().await.unwrap().status, 100);
    door.shutdown.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(10), door.served).await.expect("it ends after its grace").unwrap();
    assert!(stuck.answer().await.is_none());
}

#[tokio::test]
async fn a_source_over_its_quota_is_told_429_and_when_to_come_back_and_a_batch_goes_whole_or_not_at_all() {
    let door = Door::open(settings()).await;
    let key = "Authorization: Bearer key-one\r\n";
    let post = async |body: &str| {
        let mut answers = door.exchange(request("/v1/metered", key, body).as_bytes()).await;
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    };
    let batch = |first: usize, count: usize| {
        let events: Vec<_> = (first..first + count).map(|number| envelope(&format!("evt_{number}"))).collect();
        format!("[{}]", events.join(","))
    };
    assert_eq!(post(&batch(0, 3)).await.status, 202, "four at once are within the quota");
    let refused = post(&batch(3, 2)).await;
    assert_eq!((refused.status, refused.json()["type"].as_str()), (429, Some("/problems/over-quota")), "{refused:?}");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "one of the two is there already, the other comes within half a minute: {wait}");
    assert_eq!(door.backlog().await, 3, "nothing of a refused batch is stored");
    assert_eq!(post(&envelope("evt_5")).await.status, 202, "a refusal uses nothing up");
    let refused = post(&envelope("evt_6")).await;
    assert_eq!(refused.status, 429);
    // Over the quota nobody waits for the body; without a key nobody learns of the quota; others are not meant.
    let mut client = door.connect().await;
    client.send(format!("POST /v1/metered HTTP/1.1\r\nHost: a\r\n{key}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n").as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 429);
    assert_eq!(door.exchange(request("/v1/metered", "", "{}").as_bytes()).await[0].status, 401);
    assert_eq!(door.post("", &envelope("evt_7")).await.status, 202);
    assert!(door.metrics.render().contains(r#"branchline_refused_requests_total{source="metered",status="429"} 3"#));
}
