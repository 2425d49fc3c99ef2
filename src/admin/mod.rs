//! The operator's door, on a listener of its own: health, readiness, metrics, disabled endpoints.
//!
//! Takes requests from the operator's network only (loopback by default); never serves producers. The
//! probes need no token, everything else needs one where tokens are configured.

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

use crate::config;
use crate::dispatch::Snapshot;
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::store::{self, Store};

/// Connections served at one time: a scraper, probes and a few people.
const CONNECTIONS_MAX: usize = 64;

/// From the connection, or the last answer, to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How many waiting deliveries one step of enabling an endpoint makes due.
const HASTEN_BATCH_MAX: usize = 10_000;

/// What the admin listener shows and changes.
pub struct State {
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Why the router is not ready; `None` when it is.
    pub not_ready: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Where endpoints are marked as disabled.
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
            ["api", "v1", "endpoints", _, "enable"] | ["api", "v1", "reload"] => Method::POST,
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
            ["api", "v1", "endpoints", name, "enable"] => self.enable(name).await,
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

    async fn endpoints(&self) -> Response<Full<Bytes>> {
        let disabled = match self.store.disabled_endpoints().await {
            Ok(disabled) => disabled,
            Err(error) => return store_problem(&error),
        };
        let snapshot = self.snapshot.load();
        let mut rows: Vec<_> = snapshot
            .endpoints()
            .map(|state| {
                let name = &state.endpoint.name;
                let mark = disabled.iter().find(|mark| *mark.name == **name && mark.target == state.target);
                json!({
                    "name": &**name,
                    "url": state.endpoint.url.to_string(),
                    "disabled": mark.map(|mark| json!({"reason": mark.reason, "at": mark.at.to_string()})),
                })
            })
            .collect();
        rows.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        json_answer(&json!({ "endpoints": rows }))
    }

    async fn enable(&self, name: &str) -> Response<Full<Bytes>> {
        let snapshot = self.snapshot.load_full();
        let Some(endpoint) = snapshot.endpoints().find(|state| *state.endpoint.name == *name) else {
            return problem(StatusCode::NOT_FOUND, "no subscription uses an endpoint of this name");
        };
        let was_disabled = match self.store.enable_endpoint(name).await {
            Ok(was_disabled) => was_disabled,
            Err(error) => return store_problem(&error),
        };
        endpoint.enable();
        let subscriptions = snapshot.subscriptions_of(name);
        let mut due = 0;
        loop {
            match self.store.hasten(&subscriptions, HASTEN_BATCH_MAX).await {
                Ok(0) => break,
                Ok(step) => due += step,
                Err(error) => return store_problem(&error),
            }
        }
        tracing::info!(endpoint = name, due, "endpoint enabled");
        json_answer(&json!({ "name": name, "wasDisabled": was_disabled, "deliveriesDue": due }))
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
