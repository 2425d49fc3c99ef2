//! Vocabulary: what a connection's other side may cost a listener when it takes nothing, or sends what nobody wants.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_io_timeout::TimeoutWriter;

/// How long what is not wanted is read away.
pub const LINGER: Duration = Duration::from_secs(1);
/// How much of it.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A connection that ends with an error when its peer takes no bytes for so long while there are some for it.
pub type Bounded<S> = Pin<Box<TimeoutWriter<S>>>;

/// Bounds a connection.
pub fn bounded<S: AsyncWrite>(stream: S, write_timeout: Duration) -> Bounded<S> {
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(write_timeout));
    Box::pin(stream)
}

/// Reads away what a peer still sends while it is told to go: closed over unread bytes a connection is reset, and the
/// peer may never read why.
pub struct Linger {
    until: Pin<Box<Sleep>>,
    left_bytes: usize,
}

impl Linger {
    /// From now on.
    pub fn begin() -> Self {
        Self { until: Box::pin(sleep_until(Instant::now() + LINGER)), left_bytes: LINGER_BYTES_MAX }
    }

    /// Ready when the peer has ended, has sent too much or takes too long.
    pub fn poll(&mut self, stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        let mut unwanted = [0; 8 * 1024];
        while self.left_bytes > 0 && self.until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut unwanted);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.left_bytes = self.left_bytes.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(())
    }
}
