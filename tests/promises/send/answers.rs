//! Receivers that answer, well or badly.

use std::time::{Duration, Instant};

use branchline::clock::Timestamp;
use branchline::delivery::{ANSWER_BYTES_MAX, AttemptResult, SendErrorKind};
use branchline::endpoint::SigningKey;
use branchline::send::body_for;
use tokio::io::AsyncWriteExt;

use super::receiver::{Receiver, reset};
use super::{attempt, attempt_with, endpoint, event, failure, sender, status};

/// How much later than its bound something may end on a busy machine.
const SLACK: Duration = Duration::from_millis(900);
const EMPTY_OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn a_delivery_arrives_signed_by_the_standard_and_with_its_headers() {
    let receiver = Receiver::answering("HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\n\r\nthank").await;
    let (sender, metrics) = sender();
    let mut endpoint = endpoint(&receiver.url());
    let current = vec![7; 32];
    endpoint.signing_keys = vec![SigningKey::Hmac(current.clone().into()), SigningKey::Hmac(vec![8; 24].into())];
    let attempt = attempt_with(&sender, &endpoint, 4, &body_for(&event(), endpoint.format)).await;
    assert_eq!((status(&attempt), attempt.number, attempt.answer), (202, 4, None));

    let [request] = &receiver.requests()[..] else { panic!("one request") };
    assert_eq!(request.line, "POST /hook?token=hidden HTTP/1.1");
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["user-agent"], concat!("branchline/", env!("CARGO_PKG_VERSION")));
    assert_eq!(request.headers["branchline-event"], "evt_1");
    assert_eq!(request.headers["branchline-event-type"], "order.created");
    assert_eq!(request.headers["branchline-subscription"], "warehouse");
    assert_eq!(request.headers["branchline-attempt"], "4");
    assert!(request.headers["webhook-id"].to_str().unwrap().starts_with("dlv_"));
    assert_eq!(request.headers["host"], format!("127.0.0.1:{}", receiver.port()));
    for key in [current, vec![8; 24]] {
        let webhook = standardwebhooks::Webhook::from_bytes(key).unwrap();
        webhook.verify(&request.body, &request.headers).unwrap();
    }
    let text = metrics.render();
    assert!(text.contains(r#"branchline_attempts_total{endpoint="test",result="2xx"} 1"#), "{text}");
    assert!(text.contains("branchline_attempts_in_flight 0"), "{text}");
}

#[tokio::test]
async fn a_failure_is_kept_with_the_first_bytes_of_its_answer() {
    let body = format!("no \x1b[31m{}", "x".repeat(2_000));
    let receiver =
        Receiver::answering(format!("HTTP/1.1 500 Oops\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    let (sender, metrics) = sender();
    let attempt = attempt(&sender, &endpoint(&receiver.url())).await;
    assert_eq!(status(&attempt), 500);
    let answer = attempt.answer.unwrap();
    assert!(answer.starts_with("no  [31mxxx") && answer.len() == ANSWER_BYTES_MAX, "{answer}");
    assert!(metrics.render().contains(r#"branchline_attempts_total{endpoint="test",result="5xx"} 1"#));
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let target = Receiver::answering(EMPTY_OK).await;
    for code in [301, 302, 303, 307, 308] {
        let receiver = Receiver::answering(format!(
            "HTTP/1.1 {code} Moved\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
            target.url()
        ))
        .await;
        assert_eq!(status(&attempt(&sender().0, &endpoint(&receiver.url())).await), code);
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_is_cut_off_at_the_timeout() {
    let receiver = Receiver::start(|mut socket, _, log| async move {
        log.read_request(&mut socket).await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut endpoint = endpoint(&receiver.url());
    endpoint.timeout = Duration::from_millis(300);
    let (sender, metrics) = sender();
    let started = Instant::now();
    let attempt = attempt(&sender, &endpoint).await;
    let took = started.elapsed();
    assert_eq!(
        failure(&attempt),
        (SendErrorKind::Timeout, &*format!("http://127.0.0.1:{}: no answer within 300ms", receiver.port()))
    );
    assert!(took >= endpoint.timeout && took < endpoint.timeout + SLACK, "{took:?}");
    assert!(attempt.duration_ms >= 300);
    assert!(metrics.render().contains("branchline_attempts_in_flight 0"));
}

#[tokio::test]
async fn an_attempt_that_is_dropped_leaves_no_trace_in_flight() {
    let receiver = Receiver::start(|mut socket, _, log| async move {
        log.read_request(&mut socket).await;
        std::future::pending::<()>().await;
    })
    .await;
    let (sender, metrics) = sender();
    let endpoint = endpoint(&receiver.url());
    let cut = tokio::time::timeout(Duration::from_millis(100), attempt(&sender, &endpoint)).await;
    assert!(cut.is_err());
    assert!(metrics.render().contains("branchline_attempts_in_flight 0"));
}

#[tokio::test]
async fn a_success_counts_when_its_head_is_here_whatever_its_body_does() {
    for (what, head, end) in [
        ("drips", "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", End::Drip),
        ("hangs", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", End::Hang),
        ("is cut", "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nab", End::Close),
        ("lies about its chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nab\r\n", End::Hang),
        (
            "has too large a chunk",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            End::Hang,
        ),
    ] {
        let receiver = ending(head, end).await;
        let started = Instant::now();
        let attempt = attempt(&sender().0, &endpoint(&receiver.url())).await;
        assert_eq!(status(&attempt), 200, "a body that {what}");
        assert!(started.elapsed() < Duration::from_millis(250) + SLACK, "a body that {what}");
    }
}

#[tokio::test]
async fn a_failure_whose_body_drips_ends_at_the_timeout_as_what_its_head_said() {
    let receiver = ending("HTTP/1.1 503 Busy\r\ncontent-length: 1000\r\n\r\nwait", End::Drip).await;
    let mut endpoint = endpoint(&receiver.url());
    endpoint.timeout = Duration::from_millis(500);
    let started = Instant::now();
    let attempt = attempt(&sender().0, &endpoint).await;
    assert_eq!(status(&attempt), 503);
    assert!(attempt.answer.unwrap().starts_with("wait"));
    assert!(started.elapsed() < endpoint.timeout + SLACK);
}

enum End {
    Drip,
    Hang,
    Close,
}

async fn ending(head: &'static str, end: End) -> Receiver {
    let end = std::sync::Arc::new(end);
    Receiver::start(move |mut socket, _, log| {
        let end = std::sync::Arc::clone(&end);
        async move {
            log.read_request(&mut socket).await;
            log.write(&mut socket, head.as_bytes()).await;
            match *end {
                End::Drip => {
                    while log.write(&mut socket, b".").await {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                End::Hang => std::future::pending().await,
                End::Close => socket.shutdown().await.unwrap(),
            }
        }
    })
    .await
}

/// What may be on its way in the system's buffers when we stop reading.
const BUFFERED_BYTES: usize = 16 << 20;

#[tokio::test]
async fn an_endless_answer_is_read_only_so_far() {
    const KIB: &[u8] = &[b'x'; 1024];
    for (what, head, more, result) in [
        ("body of a success", &b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"[..], KIB, Ok(200)),
        ("body of a failure", b"HTTP/1.1 500 Oops\r\n\r\n", KIB, Ok(500)),
        ("declared body", b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n", KIB, Ok(200)),
        ("chunked body", b"HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n", b"5\r\nabcde\r\n", Ok(500)),
        ("chunk extension", b"HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n5;", KIB, Ok(500)),
        ("trailer", b"HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n", Ok(500)),
        ("list of headers", b"HTTP/1.1 200 OK\r\n", b"x-more: more\r\n", Err(SendErrorKind::BadAnswer)),
        ("header", b"HTTP/1.1 200 OK\r\nx-long: ", KIB, Err(SendErrorKind::BadAnswer)),
        ("reason", b"HTTP/1.1 200 ", KIB, Err(SendErrorKind::BadAnswer)),
        ("row of interim answers", b"", b"HTTP/1.1 103 Early\r\nx: y\r\n\r\n", Err(SendErrorKind::BadAnswer)),
        ("row of continues", b"", b"HTTP/1.1 100 Continue\r\n\r\n", Err(SendErrorKind::BadAnswer)),
        ("row of blank lines", b"", b"\r\n", Err(SendErrorKind::BadAnswer)),
    ] {
        let receiver = Receiver::endless(head, more).await;
        let mut endpoint = endpoint(&receiver.url());
        endpoint.timeout = Duration::from_secs(5);
        let started = Instant::now();
        let attempt = attempt(&sender().0, &endpoint).await;
        match result {
            Ok(expected) => assert_eq!(status(&attempt), expected, "an endless {what}"),
            Err(expected) => assert_eq!(failure(&attempt).0, expected, "an endless {what}: {attempt:?}"),
        }
        assert!(started.elapsed() < Duration::from_secs(4), "an endless {what} took {:?}", started.elapsed());
        assert!(receiver.sent_bytes() < BUFFERED_BYTES, "an endless {what} sent {}", receiver.sent_bytes());
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_bad_answer() {
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "hello\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
    ] {
        let receiver = Receiver::answering(answer).await;
        let attempt = attempt(&sender().0, &endpoint(&receiver.url())).await;
        let (kind, detail) = failure(&attempt);
        assert_eq!(kind, SendErrorKind::BadAnswer, "{answer:?}: {detail}");
        assert!(!detail.contains("token"), "{detail}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_before_the_answer_is_broken() {
    for before in ["", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\ncontent-len"] {
        for reset_it in [false, true] {
            let receiver = Receiver::start(move |mut socket, _, log| async move {
                log.read_request(&mut socket).await;
                log.write(&mut socket, before.as_bytes()).await;
                if reset_it {
                    reset(socket);
                }
            })
            .await;
            let attempt = attempt(&sender().0, &endpoint(&receiver.url())).await;
            assert_eq!(failure(&attempt).0, SendErrorKind::Broken, "{before:?} {reset_it} {attempt:?}");
        }
    }
}

#[tokio::test]
async fn a_refused_connection_says_so_without_path_or_query() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let attempt = attempt(&sender().0, &endpoint(&format!("http://127.0.0.1:{port}/hook?token=hidden"))).await;
    assert_eq!(
        failure(&attempt),
        (SendErrorKind::Connect, &*format!("http://127.0.0.1:{port}: the connection was refused"))
    );
}

#[tokio::test]
async fn retry_after_is_read_for_429_and_503() {
    let now = branchline::clock::Clock::system().now();
    let date = |after: u64| {
        let at = std::time::UNIX_EPOCH + Duration::from_millis(Timestamp::as_millis(now)) + Duration::from_secs(after);
        httpdate::fmt_http_date(at)
    };
    for (code, text, least, most) in [
        (429, "120".to_owned(), Some(120_000), 120_000),
        (503, "0".to_owned(), Some(0), 0),
        (503, date(100), Some(90_000), 100_000),
        (429, "999999999999".to_owned(), Some(7 * 86_400_000), 7 * 86_400_000),
        (429, "-5".to_owned(), None, 0),
        (503, "soon".to_owned(), None, 0),
        (500, "120".to_owned(), None, 0),
        (301, "120".to_owned(), None, 0),
        (200, "120".to_owned(), None, 0),
    ] {
        let receiver =
            Receiver::answering(format!("HTTP/1.1 {code} X\r\nretry-after: {text}\r\ncontent-length: 0\r\n\r\n")).await;
        let attempt = attempt(&sender().0, &endpoint(&receiver.url())).await;
        let AttemptResult::Answered { status, retry_after_ms } = attempt.result else { panic!("{attempt:?}") };
        assert_eq!(status, code);
        match least {
            Some(least) => assert!((least..=most).contains(&retry_after_ms.unwrap()), "{text}: {retry_after_ms:?}"),
            None => assert_eq!(retry_after_ms, None, "{code} {text}"),
        }
    }
}

#[tokio::test]
async fn a_request_that_can_t_be_made_is_not_sent() {
    let receiver = Receiver::answering(EMPTY_OK).await;
    let endpoint = endpoint(&receiver.url());
    let mut request = body_for(&event(), endpoint.format);
    request.headers.push(("x-split".to_owned(), "a\r\nb: c".to_owned()));
    let attempt = attempt_with(&sender().0, &endpoint, 1, &request).await;
    assert_eq!(failure(&attempt).0, SendErrorKind::BadRequest);
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn interim_answers_are_passed_over_up_to_a_limit() {
    let receiver = Receiver::answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 201 Made\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(status(&attempt(&sender().0, &endpoint(&receiver.url())).await), 201);
}
