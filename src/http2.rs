//! HTTP/2 with limits, as both listeners speak it where a TLS handshake has chosen it.
//!
//! hyper speaks it; this bounds what hyper does not: how long a connection may do nothing, what frames may cost that
//! carry nothing, how long a head may go on, how many requests an address may have under way.
//! A request that arrives is what it would be in HTTP/1.1, so that nothing behind this knows the difference.

mod activity; // What goes on on a connection.
#[cfg(test)]
mod fuzz;
mod socket; // Its bytes.
mod watch; // What its frames cost.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use self::activity::{Activity, Turn};
use self::socket::Socket;
use crate::addresses::Addresses;
use crate::peer::LINGER;

/// How the two sides name it in a handshake (ALPN).
pub const ALPN: &[u8] = b"h2";

/// Requests under way on one connection.
const STREAMS_MAX: u32 = 100;
/// Bytes of one body, and of all of a connection, that are taken before anybody reads them.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 128 * 1024;
/// Bytes of an answer that wait for the peer.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// Requests that the peer takes back before they have begun, and faulty ones, before the connection ends.
const RESETS_MAX: usize = 20;
const ERRORS_MAX: usize = 100;
/// How often a silent peer is asked whether it is there, and how long it may think about it.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// The listener's own limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Header lines of a request.
    pub headers_max: usize,
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
    /// How long a connection may have no request under way.
    pub idle: Duration,
    /// How long the peer may take no bytes while there are some for it.
    pub write_timeout: Duration,
}

/// Why a request is not to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The listener, or the peer's address, has as many connections and requests as it may.
    NoPlace,
    /// The head is larger than it may be.
    HeadTooLarge,
}

/// Serves one connection until it ends, or `stop` does and all that is under way is answered.
pub async fn serve<S, A, F, B>(
    stream: S,
    limits: Limits,
    addresses: Arc<Addresses>,
    peer: IpAddr,
    answer: A,
    stop: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Incoming>, Option<Unfit>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static,
{
    let activity = Activity::new();
    let socket = Socket::new(stream, Arc::clone(&activity), limits.write_timeout);
    let service = service_fn(|mut request: Request<Incoming>| {
        let place = addresses.enter(peer);
        let unfit = match &place {
            None => Some(Unfit::NoPlace),
            Some(_) => (!fits(&request, &limits)).then_some(Unfit::HeadTooLarge),
        };
        let mut turn = activity.begin(place);
        as_in_http1(&mut request);
        let answering = answer(request, unfit);
        async move {
            let response = answering.await;
            turn.answered();
            Ok::<_, Infallible>(response.map(|body| Answer { body, turn }))
        }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(ERRORS_MAX)
        // Above the listener's own limit, so that a head is refused in the listener's words.
        .max_header_list_size(u32::try_from(limits.head_bytes_max * 2).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    tokio::select! {
        biased;
        // What broke concerns the other side alone.
        _ = connection.as_mut() => return,
        () = stop => {}
        () = activity.flooded() => tracing::debug!("a connection sent more frames than its requests are worth"),
        () = activity.quiet(limits.idle) => {}
    }
    connection.as_mut().graceful_shutdown();
    activity.touch();
    tokio::select! {
        _ = connection => {}
        () = activity.quiet(LINGER) => {}
    }
}

/// Whether the head is within the limits that HTTP/1.1 has.
fn fits<T>(request: &Request<T>, limits: &Limits) -> bool {
    let fields = request.headers();
    let bytes: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    fields.len() <= limits.headers_max && bytes + target + authority <= limits.head_bytes_max
}

/// `:authority` becomes `host`, and the target a path. Where the two contradict each other, both are there.
fn as_in_http1<T>(request: &mut Request<T>) {
    let uri = request.uri();
    let (Some(authority), Some(path)) = (uri.authority().cloned(), uri.path_and_query().cloned()) else { return };
    *request.uri_mut() = Uri::from(path);
    let Ok(host) = HeaderValue::try_from(authority.as_str()) else { return };
    let headers = request.headers_mut();
    if !headers.get_all(HOST).iter().any(|known| *known == host) {
        headers.append(HOST, host);
    }
}

/// An answer's body on its way.
struct Answer<B> {
    body: B,
    turn: Turn,
}

impl<B: Body<Data = Bytes, Error = Infallible> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // Whoever asks for more has taken what there was.
        self.turn.set_ours(true);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.turn.sent();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_becomes_what_it_would_be_in_http1() {
        for (uri, host, path, hosts) in [
            ("https://a.example/v1?x=y", None, "/v1?x=y", &["a.example"][..]),
            ("https://a.example:8443/", Some("a.example:8443"), "/", &["a.example:8443"]),
            ("https://a.example/", Some("b.example"), "/", &["b.example", "a.example"]),
            ("/", Some("b.example"), "/", &["b.example"]),
            ("/", None, "/", &[]),
            ("a.example:80", None, "a.example:80", &[]),
        ] {
            let mut request = Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let mut request = request.body(()).unwrap();
            as_in_http1(&mut request);
            assert_eq!(request.uri().to_string(), path);
            let found: Vec<_> = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap()).collect();
            assert_eq!(found, hosts, "{uri}");
        }
    }

    #[test]
    fn a_head_has_the_limits_of_http1() {
        let limits = Limits { headers_max: 2, head_bytes_max: 40, idle: Duration::ZERO, write_timeout: Duration::ZERO };
        let fits = |request: http::request::Builder| fits(&request.body(()).unwrap(), &limits);
        let get = |path: &str| Request::get(format!("https://a.example{path}"));
        assert!(fits(get("/").header("a", "b").header("c", "d")));
        assert!(!fits(get("/").header("a", "b").header("a", "b").header("a", "b")));
        assert!(!fits(get("/").header("a", "x".repeat(40))));
        assert!(!fits(get(&format!("/{}", "x".repeat(40)))));
    }
}
