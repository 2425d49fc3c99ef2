//! The operator's door, on a listener of its own: health, readiness, metrics, endpoints, and what operators ask and do.
//!
//! Takes requests from the operator's network only (loopback by default); never serves producers. The
//! probes need no token, everything else needs one where tokens are configured. A web page can't change anything.

mod answers; // JSON, text, problem documents.
mod api; // From a request to an operation, and back.
mod endpoints; // Endpoints: held and released.
pub mod explain; // Why an event went where it went.
#[cfg(test)]
mod fuzz;
pub mod operations; // What an operator can ask and do.
mod route; // Which path is what.
mod site; // Requests that a web page makes.
mod tail; // What happens, as it happens.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::answers::{Answer, json_answer, problem, text};
use self::operations::Caller;
use self::route::Route;
use crate::addresses::Addresses;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::dispatch::Snapshot;
use crate::event::Event;
use crate::http2::{self, Unfit};
use crate::metrics::Metrics;
use crate::peer::bounded;
use crate::plugin::PluginHost;
use crate::secret::Secret;
use crate::store::{MarkKind, Store};
use crate::tls::Identity;

pub use self::tail::TailQuery;

/// Connections served at one time, in all and for each address: a scraper, probes and a few people. One that is over is closed
/// at once: whoever fills an address's places with slow requests must not make others wait.
const CONNECTIONS_MAX: usize = 256;
const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;

/// Header lines of a request, and bytes of its head.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// From the connection, or the last answer, to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take no bytes of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the admin listener shows and changes.
pub struct State {
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Why the router is not ready; `None` when it is.
    pub not_ready: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// When marks are set.
    pub clock: Clock,
    /// Where endpoints are marked.
    pub store: Arc<dyn Store>,
    /// Which endpoints there are.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Any of these opens the door; with none, whoever can connect may.
    pub tokens: Vec<Secret>,
    /// Reads the config anew for someone, and notes that in the audit log. Gives what is to be shown.
    pub reload: Box<dyn Fn(String) -> Reloading + Send + Sync>,
    /// Which generation of the config is in use.
    pub config_status: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// What it says, and which secrets are others than those that whoever asks has.
    pub compare: Box<dyn Fn(&config::SecretPrints) -> config::Comparison + Send + Sync>,
    /// The sandbox, in which an explanation runs plugins.
    pub plugins: Arc<PluginHost>,
    /// An envelope as the event that a source (the only one, unless it is named) would make of it; the error is for people.
    pub read_event: ReadEvent,
    /// Tells that something in the schedule has become due.
    pub schedule_changed: Box<dyn Fn() + Send + Sync>,
}

/// What a request came by.
struct Visit {
    /// The other side's address.
    peer: IpAddr,
    /// When the listener stops.
    stop: CancellationToken,
    /// Places for those who watch.
    watchers: Arc<Semaphore>,
}

/// Makes an event of an envelope, without storing it.
pub type ReadEvent = Box<dyn Fn(&str, Option<&str>, Timestamp) -> Result<Event, String> + Send + Sync>;

/// A reload under way.
pub type Reloading = Pin<Box<dyn Future<Output = Result<serde_json::Value, Refused>> + Send>>;

/// A config that was not taken.
pub struct Refused {
    /// What is wrong, in a sentence.
    pub detail: String,
    /// What stays in use.
    pub status: serde_json::Value,
    /// All that is wrong.
    pub faults: Vec<config::Fault>,
}

/// Why the listener can't do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address can't be listened on.
    #[error("admin: can't listen on `{address}`: {reason}; is another program using it?")]
    Bind {
        /// The address of the config.
        address: SocketAddr,
        /// What the system said.
        reason: std::io::Error,
    },
}

/// A bound listener.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Identity>>,
}

impl Listener {
    /// Binds the address of `[admin]`, with TLS where there is an identity.
    pub async fn bind(settings: &config::Admin, tls: Option<Arc<Identity>>) -> Result<Self, Error> {
        let failed = |reason| Error::Bind { address: settings.listen, reason };
        let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, tls })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`.
    pub async fn serve(self, state: Arc<State>, stop: CancellationToken) {
        let watchers = Arc::new(Semaphore::new(tail::WATCHERS_MAX));
        let addresses = Addresses::new(CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX);
        loop {
            let (stream, peer) = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => (stream, peer.ip()),
                    Err(error) => {
                        tracing::warn!(%error, "admin: a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let Some(place) = addresses.enter(peer) else { continue };
            let (state, stop, tls) = (Arc::clone(&state), stop.clone(), self.tls.clone());
            let addresses = Arc::clone(&addresses);
            let visit = Arc::new(Visit { peer, stop: stop.clone(), watchers: Arc::clone(&watchers) });
            tokio::spawn(async move {
                let serving = async {
                    match tls {
                        None => serve_connection(&state, &visit, stream).await,
                        Some(identity) => match identity.handshake(stream, HEAD_TIMEOUT).await {
                            Ok(shaken) if shaken.is_http2 => serve_http2(state, visit, shaken.stream, addresses).await,
                            Ok(shaken) => serve_connection(&state, &visit, shaken.stream).await,
                            Err(error) => tracing::debug!(%error, "admin: a TLS handshake failed"),
                        },
                    }
                };
                tokio::select! {
                    () = serving => {}
                    () = stop.cancelled() => {}
                }
                drop(place);
            });
        }
    }
}

async fn serve_connection(state: &Arc<State>, visit: &Arc<Visit>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(|request| {
        let (state, visit) = (Arc::clone(state), Arc::clone(visit));
        async move { Ok::<_, Infallible>(state.answer(request, &visit).await) }
    });
    // A connection that breaks concerns the other side alone.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(bounded(stream, WRITE_TIMEOUT)), service)
        .await;
}

/// The same in HTTP/2. The listener's end ends it, as it does in HTTP/1.1.
async fn serve_http2(
    state: Arc<State>,
    visit: Arc<Visit>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    addresses: Arc<Addresses>,
) {
    let limits = http2::Limits {
        headers_max: HEADERS_MAX,
        head_bytes_max: HEAD_BYTES_MAX,
        idle: HEAD_TIMEOUT,
        write_timeout: WRITE_TIMEOUT,
    };
    let peer = visit.peer;
    let answer = move |request, unfit| {
        let (state, visit) = (Arc::clone(&state), Arc::clone(&visit));
        async move {
            match unfit {
                None => state.answer(request, &visit).await,
                Some(Unfit::NoPlace) => {
                    problem(StatusCode::SERVICE_UNAVAILABLE, "there are as many requests under way as there may be")
                }
                Some(Unfit::HeadTooLarge) => {
                    problem(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head is too large")
                }
            }
        }
    };
    http2::serve(stream, limits, addresses, peer, answer, std::future::pending()).await;
}

impl State {
    fn tail(&self, query: Option<&str>, visit: &Visit) -> Result<Answer, operations::Error> {
        let query: TailQuery = api::read_query(query)?;
        if let Some(name) = &query.subscription {
            operations::subscription_of(&self.snapshot.load(), name)?;
        }
        tail::answer(self.metrics.tail(), query, &visit.watchers, visit.stop.clone())
    }

    async fn answer(&self, request: Request<Incoming>, visit: &Visit) -> Answer {
        let Some(route) = Route::of(request.uri().path()) else {
            return problem(StatusCode::NOT_FOUND, "nothing is served at this path");
        };
        if request.method() != route.method() {
            return answers::wrong_method(&route.method());
        }
        let Some(who) = self.who(request.headers(), visit.peer).or(route.is_probe().then(String::new)) else {
            return answers::no_token();
        };
        if !route.is_probe()
            && let Err(why) = site::check(request.headers(), !self.tokens.is_empty())
        {
            return problem(StatusCode::FORBIDDEN, why);
        }
        let caller = Caller { who, now: self.clock.now() };
        let (parts, body) = request.into_parts();
        let query = parts.uri.query();
        match route {
            Route::Healthz => text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
            Route::Readyz => match (self.not_ready)() {
                None => text(StatusCode::OK, "text/plain; charset=utf-8", "ready\n"),
                Some(reason) => {
                    text(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", format!("{reason}\n"))
                }
            },
            Route::Metrics => text(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                self.metrics.render(),
            ),
            Route::Endpoints => self.endpoints().await,
            Route::Enable(name) => self.release(&caller, &name, MarkKind::Disabled).await,
            Route::Pause(name) => self.pause(&caller, &name).await,
            Route::Resume(name) => self.release(&caller, &name, MarkKind::Paused).await,
            Route::Config => json_answer(&(self.config_status)()),
            Route::Comparison => self.comparison(body).await,
            Route::Reload => self.reload(&caller).await,
            Route::Tail => self.tail(query, visit).unwrap_or_else(|error| answers::refused(&error)),
            Route::Operation(operation) => self.operate(operation, query, body, &caller).await,
        }
    }

    async fn reload(&self, caller: &Caller) -> Answer {
        match (self.reload)(caller.who.clone()).await {
            Ok(status) => json_answer(&status),
            Err(refused) => answers::not_reloaded(&refused),
        }
    }

    /// Who asks: the place of the token in the config, or where the caller came from when none is configured; `None` when he may not.
    fn who(&self, headers: &HeaderMap, peer: IpAddr) -> Option<String> {
        if self.tokens.is_empty() {
            return Some(if peer.is_loopback() { "loopback".to_owned() } else { peer.to_string() });
        }
        let token = headers.get(AUTHORIZATION)?.as_bytes().strip_prefix(b"Bearer ")?;
        // Every token is compared, so that the time does not tell which one is near.
        let known = self.tokens.iter().enumerate();
        let found = known.fold(None, |found, (place, known)| if known.matches(token) { Some(place) } else { found });
        found.map(|place| format!("admin.tokens[{place}]"))
    }
}
