//! A receiver that remembers every request and answers as it is told, by path.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// In a list of statuses: the request arrives and is never answered.
pub const HANG: u16 = 0;

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// When all of it had arrived.
    pub at: Instant,
}

impl Received {
    /// A header's text; empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A running receiver. It ends with its runtime.
#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    statuses: HashMap<String, Vec<u16>>,
}

impl Receiver {
    /// Listens on a free port. Every path answers 200 until told otherwise.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, state }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A path answers with these statuses, one a request; the last one goes on for ever. [`HANG`] never answers.
    pub fn answers(&self, path: &str, statuses: &[u16]) {
        let statuses = statuses.iter().rev().copied().collect();
        self.state.lock().unwrap().statuses.insert(path.to_owned(), statuses);
    }

    /// Everything that arrived at a path.
    pub fn received(&self, path: &str) -> Vec<Received> {
        self.state.lock().unwrap().received.iter().filter(|received| received.path == path).cloned().collect()
    }

    /// How many requests arrived at a path.
    pub fn count(&self, path: &str) -> usize {
        self.state.lock().unwrap().received.iter().filter(|received| received.path == path).count()
    }
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(Response::new(Full::default()));
    };
    let path = parts.uri.path().to_owned();
    let status = {
        let mut state = state.lock().unwrap();
        let status = match state.statuses.get_mut(&path) {
            None => 200,
            Some(statuses) if statuses.len() > 1 => statuses.pop().unwrap(),
            Some(statuses) => statuses[0],
        };
        state.received.push(Received { path, headers: parts.headers, body: body.to_bytes(), at: Instant::now() });
        status
    };
    if status == HANG {
        std::future::pending::<()>().await;
    }
    Ok(Response::builder().status(status).body(Full::new(Bytes::from_static(b"told so"))).unwrap())
}
