//! A connection that requests go over: HTTP/1.1 carries one at a time, HTTP/2 many at once.
//!
//! A task of its own moves the bytes, and ends when nothing holds the connection any more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;

use super::stream::{Past, Stream};
use crate::endpoint::EndpointUrl;

/// The head of an answer.
pub(super) const ANSWER_HEAD_BYTES_MAX: usize = 32 * 1024;
/// HTTP/2: how much of a body may come before we have read it, per answer and per connection.
const ANSWER_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2: a connection with answers outstanding that leaves a ping unanswered is given up, since all attempts share it.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What goes over a connection.
pub(super) type Outgoing = Request<Full<Bytes>>;

/// A connection, or a share in one.
pub(super) struct Connection {
    protocol: Protocol,
    past: Arc<Past>,
}

enum Protocol {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Speaks the HTTP that was agreed on.
    pub(super) async fn over(stream: Stream) -> hyper::Result<Self> {
        let past = stream.past();
        let protocol = if past.is_shared() {
            let (sender, connection) = http2().handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Protocol::Http2(sender)
        } else {
            let (sender, connection) =
                http1::Builder::new().max_buf_size(ANSWER_HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Protocol::Http1(sender)
        };
        Ok(Self { protocol, past })
    }

    /// Sends a request to `url` and waits for the head of the answer. The error has the request where nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        mut request: Outgoing,
        url: &EndpointUrl,
    ) -> Result<Response<Incoming>, TrySendError<Outgoing>> {
        let response = match &mut self.protocol {
            Protocol::Http1(sender) => {
                *request.uri_mut() = url.uri().path_and_query().cloned().map(Uri::from).unwrap_or_default();
                request.headers_mut().insert(HOST, url.host().clone());
                sender.try_send_request(request).await?
            }
            Protocol::Http2(sender) => {
                // The request may have been meant for a connection with HTTP/1.1 before.
                *request.uri_mut() = url.uri().clone();
                request.headers_mut().remove(HOST);
                sender.try_send_request(request).await?
            }
        };
        self.past.answered();
        Ok(response)
    }

    /// The same connection for another request at the same time, where it can carry several.
    pub(super) fn share(&self) -> Option<Self> {
        match &self.protocol {
            Protocol::Http1(_) => None,
            Protocol::Http2(sender) => {
                Some(Self { protocol: Protocol::Http2(sender.clone()), past: Arc::clone(&self.past) })
            }
        }
    }

    /// Whether it can carry several requests at the same time.
    pub(super) fn is_shared(&self) -> bool {
        self.past.is_shared()
    }

    /// Whether it can take a request now.
    pub(super) fn is_ready(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(sender) => sender.is_ready(),
            Protocol::Http2(sender) => sender.is_ready(),
        }
    }

    /// Whether it has ended.
    pub(super) fn is_closed(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(sender) => sender.is_closed(),
            Protocol::Http2(sender) => sender.is_closed(),
        }
    }

    /// When it was made.
    pub(super) fn connected_at(&self) -> Instant {
        self.past.connected_at
    }

    /// See [`Past::ended_idle`].
    pub(super) fn ended_idle(&self) -> bool {
        self.past.ended_idle()
    }
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(ANSWER_HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(ANSWER_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
