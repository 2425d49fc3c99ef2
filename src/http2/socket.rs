//! A connection's bytes on their way to the HTTP library and back: its frames are counted, a peer that does not read
//! is given up, and what a peer still sends while it is told to go is read away, so that it reads why.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::LINGER;
use super::activity::Activity;
use super::watch::FrameWatch;

/// How much is read away.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) struct Socket<S> {
    stream: S,
    watch: FrameWatch,
    activity: Arc<Activity>,
    write_timeout: Duration,
    /// Set while the peer takes no bytes.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set once nothing of what the peer sends is wanted.
    lingering: Option<Linger>,
}

struct Linger {
    until: Pin<Box<Sleep>>,
    left_bytes: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// `write_timeout` is how long the peer may take no bytes at all while there are some for it.
    pub(super) fn new(stream: S, activity: Arc<Activity>, write_timeout: Duration) -> Self {
        Self { stream, watch: FrameWatch::new(), activity, write_timeout, stalled: None, lingering: None }
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

    /// Reads away what comes, until the peer ends, sends too much or takes too long.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { stream, lingering, .. } = self;
        let linger = lingering.get_or_insert_with(|| Linger {
            until: Box::pin(sleep_until(Instant::now() + LINGER)),
            left_bytes: LINGER_BYTES_MAX,
        });
        let mut unwanted = [0; 8 * 1024];
        while linger.left_bytes > 0 && linger.until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut unwanted);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            linger.left_bytes = linger.left_bytes.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
            let cost = self.watch.observe(&buffer.filled()[before..]);
            if cost.is_ok_and(|cost| self.activity.spend(cost)) {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
            self.activity.tell_flood();
        }
        // The end, as far as the HTTP library sees.
        self.poll_linger(cx).map(Ok)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bound(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        ready!(self.bound(cx, shut))?;
        self.poll_linger(cx).map(Ok)
    }
}
