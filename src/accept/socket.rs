//! A connection's bytes on their way to hyper and back: the heads are watched, hyper's own bare refusals become
//! problems, a peer that does not read its answers is given up, and what a peer still sends while it is being
//! refused is read away, so that the refusal reaches it rather than a reset.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{FirstFault, HeadWatch};
use super::unreadable::answer_instead_of;
use crate::peer::{Bounded, Linger, bounded};

/// A producer's connection.
pub(super) struct Socket<S> {
    stream: Bounded<S>,
    watch: HeadWatch,
    /// The answer that goes out in place of hyper's own.
    instead: Option<Instead>,
    lingering: Option<Linger>,
}

struct Instead {
    answer: Vec<u8>,
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// `write_timeout` is how long the peer may take no bytes at all while there are some for it.
    pub(super) fn new(stream: S, write_timeout: Duration) -> Self {
        Self { stream: bounded(stream, write_timeout), watch: HeadWatch::new(), instead: None, lingering: None }
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
            let count = ready!(self.stream.as_mut().poll_write(cx, &answer[*written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += count;
            if *written == answer.len() {
                self.instead = None;
            }
        }
        Poll::Ready(Ok(bytes))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.stream.as_mut().poll_read(cx, buffer))?;
        self.watch.observe(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.begin_instead_of(bytes) {
            return self.poll_write_instead(cx, bytes.len());
        }
        self.stream.as_mut().poll_write(cx, bytes)
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
        self.stream.as_mut().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(this.stream.as_mut().poll_shutdown(cx))?;
            if this.watch.at_rest() {
                return Poll::Ready(Ok(()));
            }
        }
        this.lingering.get_or_insert_with(Linger::begin).poll(&mut this.stream, cx).map(Ok)
    }
}
