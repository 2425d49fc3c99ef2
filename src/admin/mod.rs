//! The operator's door, on a listener of its own: health, readiness, metrics, holding and releasing endpoints.
//!
//! Takes requests from the operator's network only (loopback by default); never serves producers. The
//! probes need no token, everything else needs one where tokens are configured. A web page can't change anything.

mod endpoints; // Endpoints: held and released.
pub mod operations; // What an operator can ask and do.
mod site; // Posts that a web page makes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config;
use crate::dispatch::Snapshot;
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::store::{self, MarkKind, Store};

/// Connections served at one time: a scraper, probes and a few people.
const CONNECTIONS_MAX: usize = 64;

/// From the connection, or the last answer, to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Reads the config anew. Gives whether it is in use now, and what is to be shown.
    pub reload: Box<dyn Fn() -> Reloading + Send + Sync>,
    /// Which generation of the config is in use.
    pub config_status: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
}

/// A reload under way.
pub type Reloading = Pin<Box<dyn Future<Output = (bool, serde_json::Value)> + Send>>;

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
}

impl Listener {
    /// Binds the address of `[admin]`.
    pub async fn bind(settings: &config::Admin) -> Result<Self, Error> {
        let failed = |reason| Error::Bind { address: settings.listen, reason };
        let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`.
    pub async fn serve(self, state: Arc<State>, stop: CancellationToken) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let permit = Arc::clone(&connections).acquire_owned().await.expect("the semaphore is never closed");
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "admin: a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (state, stop) = (Arc::clone(&state), stop.clone());
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(state.answer(&request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    // A connection that breaks concerns the other side alone.
                    _ = connection => {}
                    () = stop.cancelled() => {}
                }
                drop(permit);
            });
        }
    }
}

impl State {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let known = match segments[..] {
            ["healthz" | "readyz" | "metrics"] | ["api", "v1", "endpoints" | "config"] => Method::GET,
            ["api", "v1", "endpoints", _, "enable" | "pause" | "resume"] | ["api", "v1", "reload"] => Method::POST,
            _ => return problem(StatusCode::NOT_FOUND, "nothing is served at this path"),
        };
        if request.method() != known {
            let mut refused = problem(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method; see `allow`");
            refused.headers_mut().insert(ALLOW, known.as_str().parse().expect("a method is a header value"));
            return refused;
        }
        let is_probe = matches!(segments[..], ["healthz" | "readyz"]);
        if !is_probe && !self.may_enter(request) {
            let mut refused =
                problem(StatusCode::UNAUTHORIZED, "send one of `admin.tokens` as `Authorization: Bearer …`");
            refused.headers_mut().insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
            return refused;
        }
        if known == Method::POST
            && let Err(why) = site::check(request.headers(), !self.tokens.is_empty())
        {
            return problem(StatusCode::FORBIDDEN, why);
        }
        match segments[..] {
            ["healthz"] => text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned()),
            ["readyz"] => match (self.not_ready)() {
                None => text(StatusCode::OK, "text/plain; charset=utf-8", "ready\n".to_owned()),
                Some(reason) => {
                    text(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", format!("{reason}\n"))
                }
            },
            ["metrics"] => text(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                self.metrics.render(),
            ),
            ["api", "v1", "endpoints"] => self.endpoints().await,
            ["api", "v1", "endpoints", name, "enable"] => self.release(name, MarkKind::Disabled).await,
            ["api", "v1", "endpoints", name, "pause"] => self.pause(name).await,
            ["api", "v1", "endpoints", name, "resume"] => self.release(name, MarkKind::Paused).await,
            ["api", "v1", "config"] => json_answer(&(self.config_status)()),
            ["api", "v1", "reload"] => match (self.reload)().await {
                (true, status) => json_answer(&status),
                (false, status) => text(StatusCode::UNPROCESSABLE_ENTITY, "application/json", status.to_string()),
            },
            _ => unreachable!("every known path is matched above"),
        }
    }

    fn may_enter(&self, request: &Request<Incoming>) -> bool {
        if self.tokens.is_empty() {
            return true;
        }
        let given = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
        let Some(token) = given.and_then(|value| value.strip_prefix(b"Bearer ")) else { return false };
        // Every token is compared, so that the time does not tell which one is near.
        self.tokens.iter().fold(false, |found, known| found | known.matches(token))
    }
}

fn store_problem(error: &store::Error) -> Response<Full<Bytes>> {
    problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}

fn problem(status: StatusCode, detail: &str) -> Response<Full<Bytes>> {
    let body = json!({
        "title": status.canonical_reason().unwrap_or("error"), "status": status.as_u16(), "detail": detail,
    });
    text(status, "application/problem+json", body.to_string())
}

fn json_answer(body: &serde_json::Value) -> Response<Full<Bytes>> {
    text(StatusCode::OK, "application/json", body.to_string())
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
