//! A connection's bytes on their way to hyper and back: the heads are watched, hyper's own bare refusals become
//! problems, a peer that does not read its answers is given up, and what a peer still sends while it is being
//! refused is read away, so that the refusal reaches it rather than a reset.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::framing::{FirstFault, HeadWatch};
use super::unreadable::answer_instead_of;

/// How long an unwanted body is read away.
const LINGER: Duration = Duration::from_secs(1);
/// How much of it.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A producer's connection.
pub(super) struct Socket<S> {
    stream: S,
    watch: HeadWatch,
    write_timeout: Duration,
    /// Set while the peer takes no bytes.
    stalled: Option<Pin<Box<Sleep>>>,
    /// The answer that goes out in place of hyper's own.
    instead: Option<Instead>,
    lingering: Option<Linger>,
}

struct Instead {
    answer: Vec<u8>,
    written: usize,
}

struct Linger {
    until: Pin<Box<Sleep>>,
    left_bytes: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// `write_timeout` is how long the peer may take no bytes at all while there are some for it.
    pub(super) fn new(stream: S, write_timeout: Duration) -> Self {
        Self { stream, watch: HeadWatch::new(), write_timeout, stalled: None, instead: None, lingering: None }
    }

    /// What is wrong with this connection's heads.
    pub(super) fn first_fault(&self) -> FirstFault {
        self.watch.first_fault()
    }

    /// Whether another answer is to be written in place of these bytes.
    fn begin_instead_of(&mut self, bytes: &[u8]) -> bool {
        if self.instead.is_none() {
            self.instead = answer_instead_of(bytes).map(|answer| Instead { answer, written: 0 });
        }
        self.instead.is_some()
    }

    /// Writes the other answer. Only when all of it is written hyper learns that its `bytes` are.
    fn poll_write_instead(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
        while let Some(Instead { answer, written }) = &mut self.instead {
            let polled = Pin::new(&mut self.stream).poll_write(cx, &answer[*written..]);
            if let Poll::Ready(Ok(count)) = polled {
                *written += count;
                if *written == answer.len() {
                    self.instead = None;
                }
            }
            if ready!(self.bound(cx, polled))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(bytes))
    }

    fn bound<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let deadline = Instant::now() + self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.watch.observe(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.begin_instead_of(bytes) {
            return self.poll_write_instead(cx, bytes.len());
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bound(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A bare answer is a head alone, so it is never in several slices.
        if let [bytes] = slices
            && self.begin_instead_of(bytes)
        {
            return self.poll_write_instead(cx, bytes.len());
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.bound(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.bound(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if this.watch.at_rest() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.lingering.get_or_insert_with(|| Linger {
            until: Box::pin(sleep_until(Instant::now() + LINGER)),
            left_bytes: LINGER_BYTES_MAX,
        });
        let mut unwanted = [0; 8 * 1024];
        while linger.left_bytes > 0 && linger.until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut unwanted);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            linger.left_bytes = linger.left_bytes.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}
