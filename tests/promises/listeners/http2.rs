//! HTTP/2 on both listeners, where a TLS handshake chooses it: the answers of HTTP/1.1, its limits, and an end to every
//! flood of frames, told with GOAWAY.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::{Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::tls::{Authority, BOTH, get, post};
use super::{EVENT, FLOOD_BYTES_MAX, GROWTH_BYTES_MAX, KEY, PATIENCE, frame};
use crate::support::eventually;
use crate::support::router::RouterProcess;

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

type Body = BoxBody<Bytes, std::io::Error>;
/// What a flood sends in each turn.
type Frames = fn(u32) -> Vec<u8>;

/// A router that speaks TLS on both listeners.
struct Secured {
    authority: Authority,
    router: RouterProcess,
}

impl Secured {
    async fn start(of_ingest: &str) -> Self {
        let authority = Authority::new();
        let mut router = RouterProcess::new("file:{folder}/data", "");
        router.write_sections(of_ingest, "", BOTH);
        authority.issue(&router.folder());
        router.spawn();
        let secured = Self { authority, router };
        let ready = async || secured.asks_admin("/readyz").await.filter(|answer| answer.starts_with("HTTP/1.1 200"));
        eventually("the router is ready", PATIENCE, ready).await;
        secured.serves().await;
        secured
    }

    async fn asks_admin(&self, path: &str) -> Option<String> {
        Some(self.authority.ask(self.router.admin, &get(path)).await.ok()?.0)
    }

    /// Others get their answers at once.
    async fn serves(&self) {
        let began = Instant::now();
        let headers = format!("content-type: application/json\r\nauthorization: Bearer {KEY}\r\n");
        let (answer, _) =
            self.authority.ask(self.router.ingest, &post("/v1/events", &headers, EVENT)).await.expect("ingest answers");
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        let answer = self.asks_admin("/healthz").await.expect("admin answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(began.elapsed() < Duration::from_secs(5), "others wait for {:?}", began.elapsed());
    }

    /// A client of HTTP/2 on a connection of its own.
    async fn client(&self, port: u16) -> SendRequest<Body> {
        let stream = self.authority.connect(port, &[b"h2", b"http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "HTTP/2 is preferred");
        let (client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Writes raw frames as long as there are some and the other side takes them, which it must not for long; gives all that it
    /// sent until it closed.
    async fn flood(&self, port: u16, begin: &[u8], again: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
        let stream = self.authority.connect(port, &[b"h2"]).await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        let mut answer = Vec::new();
        let writing = async {
            let mut written = begin.len();
            if write.write_all(&[&opening(), begin].concat()).await.is_err() {
                return;
            }
            for turn in 0.. {
                let bytes = again(turn);
                written += bytes.len();
                assert!(written < FLOOD_BYTES_MAX, "nobody ended a flood of {written} bytes");
                if bytes.is_empty() || write.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _ = write.flush().await;
        };
        let both = futures_util::future::join(writing, read.read_to_end(&mut answer));
        // A reset ends the reading as well as an end does.
        let _ = timeout(PATIENCE, both).await.expect("the connection is closed");
        answer
    }
}

/// The preface, and settings that ask for nothing.
fn opening() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// The head of a `POST` of an event, as HPACK has it without its tables.
fn head() -> Vec<u8> {
    let field = |name: &str, value: &str| {
        let length = |text: &str| vec![u8::try_from(text.len()).unwrap()];
        [vec![0], length(name), name.as_bytes().to_vec(), length(value), value.as_bytes().to_vec()].concat()
    };
    [
        vec![0x83, 0x87], // :method POST, :scheme https
        field(":path", "/v1/events"),
        field(":authority", "localhost"),
        field("content-type", "application/json"),
        field("authorization", &format!("Bearer {KEY}")),
    ]
    .concat()
}

/// The kinds of the frames in what a listener sent.
fn kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        kinds.push(*kind);
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        bytes = rest.get(length..).unwrap_or_default();
    }
    kinds
}

fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed()
}

/// A body of which this comes, and then nothing more.
fn stalled(begin: &'static str) -> Body {
    let begun = stream::iter([Ok(Frame::data(Bytes::from_static(begin.as_bytes())))]);
    BoxBody::new(StreamBody::new(Box::pin(begun.chain(stream::pending()))))
}

/// A `POST` with the source's key.
fn request(path: &str) -> http::request::Builder {
    Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {KEY}"))
}

async fn send(client: &mut SendRequest<Body>, request: Request<Body>) -> (StatusCode, http::HeaderMap, Value) {
    let response = timeout(PATIENCE, client.send_request(request)).await.expect("an answer").expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_as_in_http1() {
    let secured = Secured::start("body_timeout = \"1s\"\nbody_bytes_max = \"64KiB\"").await;
    let client = &mut secured.client(secured.router.ingest).await;
    let identified = r#"{"id":"one","eventType":"a","payload":1}"#;
    let (status, _, answer) = send(client, request("/v1/events").body(whole(identified)).unwrap()).await;
    assert_eq!((status, answer["id"].as_str()), (StatusCode::ACCEPTED, Some("one")));
    // Without a length: the frames say which is the last.
    let pieces =
        [&identified[..7], &identified[7..]].map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
    let body = BoxBody::new(StreamBody::new(stream::iter(pieces)));
    let (status, _, answer) = send(client, request("/v1/events").body(body).unwrap()).await;
    assert_eq!((status, answer["status"].as_str()), (StatusCode::OK, Some("duplicate")));
    let many = (0..70).fold(request("/v1/events"), |request, number| request.header(format!("x-{number}"), "y"));
    let long = request("/v1/events").header("x-long", "y".repeat(33_000));
    let other_host = request("/v1/events").header("host", "elsewhere");
    let keyless = Request::post("https://localhost/v1/events").header("content-type", "application/json");
    for (request, status, kind) in [
        (request("/v1/elsewhere").body(whole(EVENT)), 404, "unknown-path"),
        (keyless.body(whole(EVENT)), 401, "unauthorized"),
        (request("/v1/events").method("PUT").body(whole(EVENT)), 405, "method-not-allowed"),
        (request("/v1/events").body(whole("{")), 400, "not-json"),
        (request("/v1/events").body(whole("")), 400, "not-json"),
        (request("/v1/events").body(whole(vec![b' '; 65_537])), 413, "too-large"),
        (request("/v1/events").body(stalled("{")), 408, "slow-body"),
        (many.body(whole(EVENT)), 431, "head-too-large"),
        (long.body(whole(EVENT)), 431, "head-too-large"),
        (other_host.body(whole(EVENT)), 400, "bad-request"),
    ] {
        let (got, headers, answer) = send(client, request.unwrap()).await;
        assert_eq!((got.as_u16(), answer["type"].as_str()), (status, Some(&*format!("/problems/{kind}"))), "{answer}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert!(!headers.contains_key("connection"), "{headers:?}");
    }
    let (status, ..) = send(client, request("/v1/events").body(whole(EVENT)).unwrap()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "the connection goes on after every refusal");

    let admin = &mut secured.client(secured.router.admin).await;
    let (status, ..) = send(admin, Request::get("https://localhost/healthz").body(whole("")).unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    let reload = Request::post("https://localhost/api/v1/reload").body(whole("")).unwrap();
    assert_eq!(send(admin, reload).await.0, StatusCode::OK);
    let page = Request::post("https://localhost/api/v1/reload").header("origin", "https://evil.example");
    assert_eq!(send(admin, page.body(whole("")).unwrap()).await.0, StatusCode::FORBIDDEN);
    let rebound = Request::post("https://evil.example/api/v1/reload").body(whole("")).unwrap();
    assert_eq!(send(admin, rebound).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_end_with_goaway_and_take_no_memory() {
    let secured = Arc::new(Secured::start("").await);
    let before = secured.router.memory_peak().unwrap();
    let resets = |turn: u32| {
        let pair = |number: u32| {
            let stream = 2 * (turn * 100 + number) + 1;
            [frame(HEADERS, END_HEADERS, stream, &head()), frame(RESET, 0, stream, &[0, 0, 0, 8])].concat()
        };
        (0..100).flat_map(pair).collect::<Vec<u8>>()
    };
    let endless_head = |turn: u32| match turn {
        0 => frame(HEADERS, 0, 1, &[0x82]),
        _ => frame(9, 0, 1, &[0x40, 1, b'a', 1, b'b'].repeat(500)),
    };
    let empty_continuations = |turn: u32| match turn {
        0 => frame(HEADERS, 0, 1, &[0x82]),
        _ => frame(9, 0, 1, &[]).repeat(100),
    };
    // Of one letter in the table of fields: a byte of these stands for a thousand.
    let bomb = |turn: u32| match turn {
        0 => [frame(HEADERS, 0, 1, &[0x82, 0x40, 1, b'a', 0x7f, 0x81, 0x1e]), Vec::new()].concat(),
        1 => frame(9, 0, 1, &[b'b'; 4_000]),
        _ => frame(9, 0, 1, &[0xbe; 16_000]),
    };
    let settings = |_| frame(SETTINGS, 0, 0, &[]).repeat(100);
    let pings = |_| frame(6, 0, 0, &[0; 8]).repeat(100);
    let priorities = |_| frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(100);
    let unknown = |_| frame(0xbb, 0, 0, &[]).repeat(100);
    let empty_data = |turn: u32| match turn {
        0 => frame(HEADERS, END_HEADERS, 1, &head()),
        _ => frame(0, 0, 1, &[]).repeat(100),
    };
    let floods: [(&str, Frames); 9] = [
        ("resets", resets),
        ("an endless head", endless_head),
        ("empty continuations", empty_continuations),
        ("a head that unpacks to much more", bomb),
        ("settings", settings),
        ("pings", pings),
        ("priorities", priorities),
        ("unknown frames", unknown),
        ("empty data", empty_data),
    ];
    for port in [secured.router.ingest, secured.router.admin] {
        for (name, again) in floods {
            let began = Instant::now();
            // Tasks of their own: the others' requests are not to wait for the floods in the test itself.
            let floods: Vec<_> = (0..8)
                .map(|_| {
                    let secured = Arc::clone(&secured);
                    tokio::spawn(async move { secured.flood(port, &[], again).await })
                })
                .collect();
            secured.serves().await;
            let answers: Vec<_> =
                futures_util::future::join_all(floods).await.into_iter().map(Result::unwrap).collect();
            // All have ended. Where a flood goes on after its end is told, a reset may take the last frames with it.
            let told = answers.iter().filter(|answer| kinds(answer).contains(&GO_AWAY)).count();
            assert!(told > 0, "{name}: none of {} connections was told", answers.len());
            assert!(began.elapsed() < Duration::from_secs(15), "{name}: {:?}", began.elapsed());
        }
    }
    let growth = secured.router.memory_peak().unwrap() - before;
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_nothing_or_takes_nothing_is_closed_in_time() {
    let secured = Secured::start("head_timeout = \"2s\"\nbody_timeout = \"2s\"").await;
    // Of what the peer gets nothing: no stream may send it a byte.
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &head());
    let begun = frame(HEADERS, END_HEADERS, 1, &head());
    let cases: [(&str, Vec<u8>); 5] = [
        ("nothing", Vec::new()),
        ("half a frame", begun[..20].to_vec()),
        ("half a head", frame(HEADERS, 0, 1, &[0x83])),
        ("half a request", begun),
        ("no window for the answer", [no_window, request].concat()),
    ];
    for port in [secured.router.ingest, secured.router.admin] {
        let all = cases.iter().map(async |(name, begin)| {
            let began = Instant::now();
            let answer = secured.flood(port, begin, |_| Vec::new()).await;
            // The admin listener's own time is 10 s.
            assert!(began.elapsed() < Duration::from_secs(20), "{name}: {:?}", began.elapsed());
            assert!(kinds(&answer).contains(&GO_AWAY), "{name}: {:?}", kinds(&answer));
        });
        futures_util::future::join(futures_util::future::join_all(all), secured.serves()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_counts_like_a_connection_of_its_address() {
    let secured = Secured::start("connections_per_address_max = 20\nbody_timeout = \"5s\"").await;
    let client = secured.client(secured.router.ingest).await;
    let asking = (0..100).map(|_| {
        let mut client = client.clone();
        async move { send(&mut client, request("/v1/events").body(stalled("{")).unwrap()).await }
    });
    let answers = futures_util::future::join_all(asking).await;
    let of = |status: u16| answers.iter().filter(|(got, ..)| got.as_u16() == status).count();
    // The connection itself has a place too.
    assert_eq!((of(408), of(503)), (19, 81));
    let refused = answers.iter().find(|(status, ..)| *status == StatusCode::SERVICE_UNAVAILABLE).unwrap();
    assert_eq!(refused.2["type"], "/problems/too-many-connections");
    assert_eq!(refused.1["retry-after"], "1");
    secured.serves().await;
}
