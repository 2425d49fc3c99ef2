//! The endpoint: answers at once and counts. A GET is answered with what it has counted.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::load::DUE;
use super::process::monotonic_nanos;
use super::run::percentile_ms;
use crate::cli::Error;

/// What is sent here is answered 500, and not counted.
pub const FAILING_PATH: &str = "/fails";
/// A GET of it tells how long events took to arrive.
const ARRIVALS_PATH: &str = "/arrivals";
/// How often the count is asked for.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Events that told when they were due, and how long after that they arrived.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Arrivals {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

#[derive(Default)]
struct Counts {
    arrived: AtomicU64,
    took: Mutex<Vec<Duration>>,
}

/// Receives until it is killed.
pub async fn run(port: u16) -> Result<(), Error> {
    let failed = |error| Error::Failed(format!("the receiver can't listen: {error}"));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(failed)?;
    let counts = Arc::new(Counts::default());
    loop {
        let (stream, _) = listener.accept().await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let counts = Arc::clone(&counts);
                async move { Ok::<_, Infallible>(counts.answer(request).await) }
            });
            // A connection that breaks is the sender's to notice.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Counts {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if request.method() == Method::GET {
            let text = if path == ARRIVALS_PATH {
                serde_json::to_string(&self.arrivals()).expect("three numbers have names as keys")
            } else {
                self.arrived.load(Ordering::Relaxed).to_string()
            };
            return Response::new(Full::new(Bytes::from(text)));
        }
        let fails = path == FAILING_PATH;
        let body = request.into_body().collect().await;
        let mut response = Response::new(Full::new(Bytes::new()));
        match body {
            Ok(body) if !fails => {
                if let Some(due) = due(&body.to_bytes()) {
                    let took = Duration::from_nanos(monotonic_nanos().saturating_sub(due));
                    self.took.lock().unwrap_or_else(PoisonError::into_inner).push(took);
                }
                self.arrived.fetch_add(1, Ordering::Relaxed);
            }
            _ => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        }
        response
    }

    fn arrivals(&self) -> Arrivals {
        let mut took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        took.sort_unstable();
        Arrivals { count: took.len() as u64, p50_ms: percentile_ms(&took, 0.5), p99_ms: percentile_ms(&took, 0.99) }
    }
}

/// When the event was due, if it says so: near the beginning of its payload.
fn due(body: &[u8]) -> Option<u64> {
    let head = &body[..body.len().min(512)];
    let start = head.windows(DUE.len()).position(|bytes| bytes == DUE.as_bytes())? + DUE.len();
    let digits = head[start..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.copied().map(char::from).collect::<String>().parse().ok()
}

/// How many events the receiver on `port` has counted.
pub async fn count(port: u16) -> Result<u64, Error> {
    ask(&client(), port, "/").await
}

/// Waits until the receiver on `port` has counted `count` events; more than that is an error.
pub async fn wait_for_count(port: u16, count: u64) -> Result<(), Error> {
    let client = client();
    loop {
        let counted: u64 = ask(&client, port, "/").await?;
        if counted > count {
            return Err(Error::Failed(format!("{counted} events arrived, {count} were sent")));
        }
        if counted == count {
            return Ok(());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// How long events that told when they were due took to arrive.
pub async fn arrivals(port: u16) -> Result<Arrivals, Error> {
    ask(&client(), port, ARRIVALS_PATH).await
}

type HttpClient = Client<HttpConnector, Full<Bytes>>;

fn client() -> HttpClient {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn ask<Answer: DeserializeOwned>(client: &HttpClient, port: u16, path: &str) -> Result<Answer, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Failed(format!("the receiver can't be asked: {error}"));
    let uri: http::Uri = format!("http://127.0.0.1:{port}{path}").parse().map_err(|error| failed(&error))?;
    let response = client.get(uri).await.map_err(|error| failed(&error))?;
    let body = response.into_body().collect().await.map_err(|error| failed(&error))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_says_when_it_was_due_is_understood() {
        assert_eq!(due(br#"{"payload":{"dueNanos":1234,"orderId":"o"}}"#), Some(1234));
        assert_eq!(due(br#"{"payload":{"orderId":"o"}}"#), None);
        assert_eq!(due(b""), None);
    }
}
