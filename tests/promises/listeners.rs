//! What whoever can connect can do to the two listeners: nothing that others notice. Slow requests, floods of headers and of
//! HTTP/2 frames, too many connections; and TLS where it is configured.

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::eventually;
use crate::support::router::{KEY, RouterProcess};

mod clients; // Clients' certificates.
mod http2; // HTTP/2, where TLS is.
mod tls; // Certificates.

const PATIENCE: Duration = Duration::from_secs(30);
/// What a router may grow by under any of these floods.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// More than what lies between two sockets: of a flood of this size somebody reads on and on.
const FLOOD_BYTES_MAX: usize = 256 << 20;

const EVENT: &str = r#"{"eventType":"a","payload":1}"#;

async fn router(ingest: &str) -> RouterProcess {
    let mut router = RouterProcess::new("file:{folder}/data", ingest);
    router.start().await;
    // Warm: what it takes for its work is not counted as a flood's.
    serves(&router).await;
    router
}

/// Both listeners answer others at once.
async fn serves(router: &RouterProcess) {
    let began = Instant::now();
    let (status, _) = router.post("application/json", EVENT).await.expect("ingest answers");
    assert_eq!(status, StatusCode::ACCEPTED);
    let other = TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(([127, 0, 0, 1], router.admin).into()).await.unwrap();
    other.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, other.read_to_string(&mut answer)).await.expect("admin answers").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(5), "others wait for {:?}", began.elapsed());
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// Writes as much as the other side takes until it closes, `bytes_max` at most; gives what it answered.
async fn flood(port: u16, begin: &[u8], again: &[u8]) -> String {
    let mut stream = connect(port).await;
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let writing = async {
        let mut written = begin.len();
        if write.write_all(begin).await.is_err() {
            return;
        }
        while write.write_all(again).await.is_ok() {
            written += again.len();
            assert!(written < FLOOD_BYTES_MAX, "nobody ended a flood of {written} bytes");
        }
    };
    let both = futures_util::future::join(writing, read.read_to_end(&mut answer));
    // A reset ends the reading as well as an end does.
    let (_, _) = timeout(PATIENCE, both).await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_requests_are_closed_in_time_and_delay_nobody() {
    let mut router = RouterProcess::new("file:{folder}/data", "");
    router.write_config_with("head_timeout = \"2s\"", "");
    router.start().await;
    serves(&router).await;
    let began = Instant::now();
    let mut slow = Vec::new();
    for port in [router.ingest, router.admin] {
        for number in 0..64 {
            let mut stream = connect(port).await;
            // Nothing, a part of the first line, or of the head.
            let parts: [&[u8]; 3] = [b"", b"POST /v1", b"POST /v1/events HTTP/1.1\r\nhost: a\r\nx-slow: "];
            stream.write_all(parts[number % 3]).await.unwrap();
            slow.push(stream);
        }
    }
    serves(&router).await;
    // A byte now and then does not put the end off.
    let closing = slow.into_iter().map(|mut stream| async move {
        let mut rest = Vec::new();
        let (mut read, mut write) = stream.split();
        let trickle = async {
            while write.write_all(b"y").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! { _ = read.read_to_end(&mut rest) => {}, () = trickle => {} }
    });
    timeout(PATIENCE, futures_util::future::join_all(closing)).await.expect("all are closed");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    serves(&router).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_headers_end_with_431_and_take_no_memory() {
    let router = router("").await;
    let before = router.memory_peak().unwrap();
    for port in [router.ingest, router.admin] {
        let endless: [&[u8]; 4] = [b"x: y\r\n", &[b'x'; 1000], b"x: y\r\n y\r\n", b"\r\n"];
        for again in endless {
            let begin: &[u8] = if again == b"\r\n" { b"" } else { b"POST /v1/events HTTP/1.1\r\nhost: a\r\n" };
            let answers = (0..16).map(|_| flood(port, begin, again));
            for answer in futures_util::future::join_all(answers).await {
                let refused = ["HTTP/1.1 431", "HTTP/1.1 400"].iter().any(|status| answer.starts_with(status));
                assert!(refused || answer.is_empty(), "{answer}");
            }
        }
        serves(&router).await;
    }
    let growth = router.memory_peak().unwrap().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes");
}

/// A frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// In clear text neither listener speaks HTTP/2, so its floods end with the first bytes.
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_http2_frames_in_clear_text_end_at_once() {
    let router = router("").await;
    let before = router.memory_peak().unwrap();
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
    // GET / with indexed fields, then its reset; a head that never ends; settings; pings.
    let resets: Vec<u8> = (0..500_u32)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            [frame(1, 0x5, stream, &[0x82, 0x84, 0x86]), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .collect();
    let continuations = [frame(1, 0, 1, &[0x82]), frame(9, 0, 1, &[0x40, 1, b'a', 1, b'b'].repeat(500))].concat();
    let settings = frame(4, 0, 0, &[]).repeat(500);
    let pings = frame(6, 0, 0, &[0; 8]).repeat(500);
    for port in [router.ingest, router.admin] {
        for again in [&resets, &continuations, &settings, &pings] {
            let began = Instant::now();
            let floods = (0..16).map(|_| flood(port, &preface, again));
            for answer in futures_util::future::join_all(floods).await {
                assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
            }
            assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        }
        serves(&router).await;
    }
    let growth = router.memory_peak().unwrap().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_one_address_nor_all_together_have_more_connections_than_they_may() {
    let mut router = RouterProcess::new("file:{folder}/data", "");
    router.write_config_with("connections_max = 40\nconnections_per_address_max = 30", "");
    router.start().await;
    let open_from = async |port: u16, address: [u8; 4], count: usize| {
        let mut open = Vec::new();
        for _ in 0..count {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((address, 0).into()).unwrap();
            open.push(socket.connect(([127, 0, 0, 1], port).into()).await.unwrap());
        }
        open
    };
    /// How many are still open, once the others have been closed.
    async fn left(open: &mut [TcpStream]) -> usize {
        let silent = open.iter_mut().map(async |stream| {
            // Those over the limit are told so, or closed, at once; the others say nothing for ten seconds.
            timeout(Duration::from_secs(1), stream.read(&mut [0; 1024])).await.is_err()
        });
        futures_util::future::join_all(silent).await.into_iter().filter(|is_silent| *is_silent).count()
    }
    let mut first = open_from(router.ingest, [127, 0, 0, 3], 35).await;
    assert_eq!(left(&mut first).await, 30, "one address");
    let mut second = open_from(router.ingest, [127, 0, 0, 4], 15).await;
    let second_left = left(&mut second).await;
    // The test's own client may hold a connection or two.
    assert!((8..=10).contains(&second_left), "all addresses together: {second_left}");
    drop((first, second));
    eventually("places are given back", PATIENCE, async || {
        (router.post("application/json", EVENT).await?.0 == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    let mut admin = open_from(router.admin, [127, 0, 0, 3], 70).await;
    assert_eq!(left(&mut admin).await, 64, "one address at the admin listener");
    serves(&router).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_opens_to_its_tokens_alone() {
    let mut router = RouterProcess::new("file:{folder}/data", "");
    router.ask_for_tokens(&["marker-token-one", "marker-token-two"]);
    router.write_config("");
    router.start().await;
    let ask = async |line: &str| {
        let mut stream = connect(router.admin).await;
        let request = format!("GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{line}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    };
    let header = |token: &str| format!("authorization: {token}\r\n");
    for good in ["Bearer marker-token-one", "Bearer marker-token-two"] {
        assert!(ask(&header(good)).await.starts_with("HTTP/1.1 200"), "{good}");
    }
    let mut told = Vec::new();
    for bad in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer marker-token-on",
        "Bearer marker-token-one1",
        "Basic marker-token-one",
        "marker-token-one",
    ] {
        let answer = ask(&if bad.is_empty() { String::new() } else { header(bad) }).await;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("www-authenticate: Bearer"), "{bad}: {answer}");
        assert!(!answer.contains("marker-token"), "{answer}");
        told.push(answer.split_once("\r\n\r\n").unwrap().1.to_owned());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "every refusal has the same text");
    let probe = router.get("/healthz").await.unwrap();
    assert_eq!(probe.0, StatusCode::OK, "probes need no token");
    assert_eq!(router.post_admin("/api/v1/reload").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(router.get("/api/v1/endpoints").await.unwrap().0, StatusCode::UNAUTHORIZED);
    assert_eq!(router.get("/api/v1/config").await.unwrap().0, StatusCode::UNAUTHORIZED);
}
