//! A connection's bytes on their way to the HTTP library and back: its frames are counted, a peer that does not read
//! is given up, and what a peer still sends while it is told to go is read away, so that it reads why.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::watch::FrameWatch;
use crate::peer::{Bounded, Linger, bounded};

pub(super) struct Socket<S> {
    stream: Bounded<S>,
    watch: FrameWatch,
    activity: Arc<Activity>,
    /// Set once nothing of what the peer sends is wanted.
    lingering: Option<Linger>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// `write_timeout` is how long the peer may take no bytes at all while there are some for it.
    pub(super) fn new(stream: S, activity: Arc<Activity>, write_timeout: Duration) -> Self {
        Self { stream: bounded(stream, write_timeout), watch: FrameWatch::new(), activity, lingering: None }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.lingering.get_or_insert_with(Linger::begin).poll(&mut self.stream, cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let before = buffer.filled().len();
            ready!(self.stream.as_mut().poll_read(cx, buffer))?;
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
        self.stream.as_mut().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.as_mut().poll_shutdown(cx))?;
        self.poll_linger(cx).map(Ok)
    }
}
