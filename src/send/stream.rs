//! A connection to an endpoint, plain or TLS, that an answer without end breaks.
//!
//! What comes in after the last byte of a request is counted, whatever it is: interim (1xx) answers,
//! heads, chunk sizes, trailers. So no part of HTTP needs a bound of its own to keep an answer finite.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

/// A connection's past.
#[derive(Debug)]
pub(super) struct Past {
    /// When it was made.
    pub connected_at: Instant,
    /// Whether an answer has come over it.
    answered: AtomicBool,
    /// Bytes read since something was last written.
    answer_bytes: AtomicUsize,
    /// HTTP/2, many answers at a time: the counts say nothing about one of them.
    shared: bool,
}

impl Past {
    /// An answer has come over the connection.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether it can carry many requests at a time.
    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }

    /// Whether the connection, which has ended, had been used before and gave not one byte of an answer
    /// to the last request: then the other side closed it as idle while the request was on its way.
    pub(super) fn ended_idle(&self) -> bool {
        !self.shared && self.answered.load(Ordering::Relaxed) && self.answer_bytes.load(Ordering::Relaxed) == 0
    }
}

/// The endpoint sent more than an answer may have.
#[derive(Debug, thiserror::Error)]
#[error("the answer has no end within the limit")]
pub(super) struct AnswerTooLong;

/// A connection.
pub(super) struct Stream {
    transport: Transport,
    past: Arc<Past>,
    /// The most bytes that may come after a request; HTTP/2 has limits of its own.
    answer_bytes_max: usize,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Calls a method of whichever transport it is.
macro_rules! forward {
    ($this:expr, $method:ident($($argument:expr),*)) => {
        match &mut $this.transport {
            Transport::Plain(tcp) => Pin::new(tcp).$method($($argument),*),
            Transport::Tls(tls) => Pin::new(&mut **tls).$method($($argument),*),
        }
    };
}

impl Stream {
    /// A connection without TLS, over which an answer may have `answer_bytes_max` bytes in all.
    pub(super) fn plain(tcp: TcpStream, answer_bytes_max: usize) -> Self {
        Self::new(Transport::Plain(tcp), false, answer_bytes_max)
    }

    /// A connection with TLS.
    pub(super) fn tls(tls: TlsStream<TcpStream>, answer_bytes_max: usize) -> Self {
        let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Self::new(Transport::Tls(Box::new(tls)), is_http2, if is_http2 { usize::MAX } else { answer_bytes_max })
    }

    fn new(transport: Transport, shared: bool, answer_bytes_max: usize) -> Self {
        let past = Past {
            connected_at: Instant::now(),
            answered: AtomicBool::new(false),
            answer_bytes: AtomicUsize::new(0),
            shared,
        };
        Self { transport, past: Arc::new(past), answer_bytes_max }
    }

    /// Its past, which others may look at while it goes on.
    pub(super) fn past(&self) -> Arc<Past> {
        Arc::clone(&self.past)
    }

    /// Something is being written: what comes next is an answer to it.
    fn asks(&self) {
        self.past.answer_bytes.store(0, Ordering::Relaxed);
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = forward!(self, poll_read(cx, buf));
        let read = buf.filled().len() - before;
        if self.past.answer_bytes.fetch_add(read, Ordering::Relaxed).saturating_add(read) > self.answer_bytes_max {
            return Poll::Ready(Err(io::Error::other(AnswerTooLong)));
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.asks();
        forward!(self, poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.asks();
        forward!(self, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(tcp) => tcp.is_write_vectored(),
            Transport::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_shutdown(cx))
    }
}
