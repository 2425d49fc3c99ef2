//! HTTP for the commands that talk to a router: one request, one bounded answer, and a sentence for people where it is no success.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::secret::Secret;
use crate::tls;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From a request to the head of its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of an answer is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How many of a problem's errors are shown.
const ERRORS_SHOWN_MAX: usize = 20;

/// Whom a command believes that talks to a router.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Trust {
    /// Believe the certificates that those of this PEM file vouch for, instead of the public authorities'.
    #[arg(long, env = "BRANCHLINE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// A client of one router. Cloning shares the connections.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    key: Option<HeaderValue>,
}

/// A whole answer.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// `Retry-After` in seconds; a date is read as none.
    pub retry_after: Option<Duration>,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody listens there, or the name has no address.
    #[error("no router answers at {0}: {1}")]
    Unreachable(String, String),
    /// The connection was made, and then something went wrong.
    #[error("{0} did not answer as a router does: {1}")]
    Broken(String, String),
}

/// A problem of RFC 9457, as far as people are shown it.
#[derive(Deserialize)]
pub struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    /// What is wrong with single events.
    #[serde(default)]
    pub errors: Vec<ProblemError>,
}

/// One thing that is wrong.
#[derive(Clone, Deserialize, serde::Serialize)]
pub struct ProblemError {
    /// Where; empty where that is no place in what was sent.
    #[serde(default)]
    pub pointer: String,
    /// What.
    pub detail: String,
    /// In which event of a batch, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

impl Client {
    /// A client that shows `key` as `Authorization: Bearer`. The error is a sentence for people.
    pub fn new(key: Option<&Secret>, trust: &Trust) -> Result<Self, String> {
        let tls = tls::client(trust.ca.as_deref()).map_err(|error| format!("`--ca`: {error}"))?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls);
        let mut sockets = HttpConnector::new();
        sockets.set_connect_timeout(Some(CONNECT_TIMEOUT));
        sockets.enforce_http(false);
        let connector = connector.https_or_http().enable_http1().wrap_connector(sockets);
        let key = key.map(|key| HeaderValue::try_from(format!("Bearer {}", key.expose()))).transpose();
        let mut key = key.map_err(|_| "the key has a character that no `Authorization: Bearer` header can carry")?;
        if let Some(key) = &mut key {
            key.set_sensitive(true);
        }
        Ok(Self { pool: Pool::builder(TokioExecutor::new()).build(connector), key })
    }

    /// Sends a request and reads the whole answer.
    pub async fn request(&self, method: Method, uri: &Uri, body: Option<Bytes>) -> Result<Answer, NoAnswer> {
        let response = self.open(method, uri, body).await?;
        self.read(uri, response).await
    }

    /// Reads the whole answer of what was [opened](Self::open).
    pub async fn read(&self, uri: &Uri, response: Response<Incoming>) -> Result<Answer, NoAnswer> {
        let (head, body) = response.into_parts();
        let broken = |error: String| NoAnswer::Broken(place(uri), error);
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect();
        let body = tokio::time::timeout(ANSWER_TIMEOUT, body).await;
        let body = body.map_err(|_| broken(format!("its answer did not end within {ANSWER_TIMEOUT:?}")))?;
        let body = body.map_err(|error| broken(error.to_string()))?.to_bytes();
        let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Answer { status: head.status, retry_after: seconds.map(Duration::from_secs), body })
    }

    /// Sends a request and waits for the head of the answer, whose body may go on for ever.
    pub async fn open(&self, method: Method, uri: &Uri, body: Option<Bytes>) -> Result<Response<Incoming>, NoAnswer> {
        let mut request = Request::new(Full::new(body.clone().unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        if body.is_some() {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(key) = &self.key {
            request.headers_mut().insert(AUTHORIZATION, key.clone());
        }
        match tokio::time::timeout(ANSWER_TIMEOUT, self.pool.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() && is_of_tls(&error) => {
                let mut why = innermost(&error);
                if why.contains("certificate") {
                    why.push_str("; `--ca FILE` names who vouches for it");
                }
                Err(NoAnswer::Broken(place(uri), why))
            }
            Ok(Err(error)) if error.is_connect() => Err(NoAnswer::Unreachable(place(uri), innermost(&error))),
            Ok(Err(error)) => Err(NoAnswer::Broken(place(uri), innermost(&error))),
            Err(_) => Err(NoAnswer::Broken(place(uri), format!("nothing came within {ANSWER_TIMEOUT:?}"))),
        }
    }
}

impl Answer {
    /// The problem that it is, if its body is one.
    pub fn problem(&self) -> Option<Problem> {
        serde_json::from_slice(&self.body).ok()
    }

    /// What a person is told of an answer that is no success.
    pub fn describe(&self) -> String {
        let Some(problem) = self.problem() else { return format!("the answer is {}", self.status) };
        let mut text = match (problem.title.as_str(), problem.detail.as_str()) {
            ("", "") => format!("the answer is {}", self.status),
            ("", detail) => format!("{}: {detail}", self.status.as_u16()),
            (title, "") => format!("{}: {title}", self.status.as_u16()),
            (title, detail) => format!("{}: {title}: {detail}", self.status.as_u16()),
        };
        for error in problem.errors.iter().take(ERRORS_SHOWN_MAX) {
            let place = if error.pointer.is_empty() { String::new() } else { format!("{}: ", error.pointer) };
            text.push_str(&format!("\n  {place}{}", error.detail));
        }
        if problem.errors.len() > ERRORS_SHOWN_MAX {
            text.push_str(&format!("\n  and {} more", problem.errors.len() - ERRORS_SHOWN_MAX));
        }
        text
    }
}

/// Scheme, host and port: a path or a query may hold a token.
fn place(uri: &Uri) -> String {
    format!("{}://{}", uri.scheme_str().unwrap_or("http"), uri.authority().map_or("", |authority| authority.as_str()))
}

/// Whether it was TLS that failed, on a connection that was made.
fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(cause) = error {
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData) {
            return true;
        }
        // `source` of an io::Error leaves out what it wraps.
        error = match io.and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn std::error::Error + 'static)),
            None => cause.source(),
        };
    }
    false
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
