//! A request's body, read within a time, a size, and a budget that all requests share. Memory follows what
//! has arrived, never what was declared.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;

use super::refusal::Refusal;

/// How much is made room for before it has arrived.
const FIRST_ROOM_BYTES_MAX: usize = 64 * 1024;

/// The bytes of all bodies that are being read or stored.
#[derive(Debug)]
pub(super) struct Budget {
    used_bytes: AtomicUsize,
    bytes_max: usize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { used_bytes: AtomicUsize::new(0), bytes_max })
    }
}

/// What one body takes of the budget, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    pub(super) fn none(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        // Counted before it is compared: two that grow at once may both be refused, never both let through.
        let used = self.budget.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if used.saturating_add(bytes) > self.budget.bytes_max { Err(Refusal::BodiesFull) } else { Ok(()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Limits on one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) body_bytes_max: usize,
    pub(super) body_timeout: Duration,
}

/// Reads a whole body; `length` is what was declared. A body that came in one piece is not copied.
pub(super) async fn read<B>(
    body: &mut B,
    length: Option<usize>,
    limits: Limits,
    share: &mut Share,
) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let Limits { body_bytes_max, body_timeout } = limits;
    let whole = async {
        let Some(first) = next(body).await? else { return Ok(Bytes::new()) };
        share.grow(first.len())?;
        if Some(first.len()) == length && first.len() <= body_bytes_max {
            return Ok(first);
        }
        let mut whole =
            BytesMut::with_capacity(length.unwrap_or(0).clamp(first.len(), FIRST_ROOM_BYTES_MAX.max(first.len())));
        let mut piece = Some(first);
        while let Some(bytes) = piece {
            if whole.len() + bytes.len() > body_bytes_max {
                return Err(Refusal::TooLarge { body_bytes_max });
            }
            whole.extend_from_slice(&bytes);
            piece = next(body).await?;
            share.grow(piece.as_ref().map_or(0, Bytes::len))?;
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(body_timeout, whole).await.unwrap_or(Err(Refusal::SlowBody { body_timeout }))
}

/// Reads what is left of a short body that nobody wants, so that the connection can go on; whether it can.
pub(super) async fn discard<B>(body: &mut B, bytes_max: usize, within: Duration) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    let rest = async {
        let mut bytes = 0;
        loop {
            match next(body).await {
                Ok(None) => return true,
                Err(_) => return false,
                Ok(Some(piece)) => bytes += piece.len(),
            }
            if bytes > bytes_max {
                return false;
            }
        }
    };
    tokio::time::timeout(within, rest).await.unwrap_or(false)
}

/// The next piece of data; trailers are skipped, since nothing reads them.
async fn next<B>(body: &mut B) -> Result<Option<Bytes>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(_)) => return Err(Refusal::BrokenBody),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    fn pieces(pieces: &[&'static [u8]]) -> impl Body<Data = Bytes> + Unpin + use<> {
        let frames: Vec<_> = pieces.iter().map(|p| Ok::<_, Infallible>(Frame::data(Bytes::from_static(p)))).collect();
        StreamBody::new(stream::iter(frames))
    }

    const LIMITS: Limits = Limits { body_bytes_max: 8, body_timeout: Duration::from_secs(15) };

    async fn read_with(budget: &Arc<Budget>, parts: &[&'static [u8]], length: Option<usize>) -> Result<Bytes, Refusal> {
        read(&mut pieces(parts), length, LIMITS, &mut Share::none(budget)).await
    }

    #[tokio::test]
    async fn bodies_are_read_up_to_the_limit() {
        let budget = Budget::new(100);
        assert_eq!(read_with(&budget, &[b"1234", b"5678"], None).await.unwrap(), "12345678");
        assert_eq!(
            read_with(&budget, &[b"1234", b"5678", b"9"], None).await,
            Err(Refusal::TooLarge { body_bytes_max: 8 })
        );
        assert_eq!(read_with(&budget, &[b"123456789"], Some(9)).await, Err(Refusal::TooLarge { body_bytes_max: 8 }));
        assert_eq!(read_with(&budget, &[], None).await.unwrap(), "");
        assert_eq!(budget.used_bytes.load(Ordering::Relaxed), 0, "every share was given back");
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_not_copied() {
        let bytes = Bytes::from_static(b"{}");
        let budget = Budget::new(100);
        let read = read(&mut Full::new(bytes.clone()), Some(2), LIMITS, &mut Share::none(&budget)).await.unwrap();
        assert_eq!(read.as_ptr(), bytes.as_ptr());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up() {
        let mut stalled = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let budget = Budget::new(100);
        let read = read(&mut stalled, Some(2), LIMITS, &mut Share::none(&budget)).await;
        assert_eq!(read, Err(Refusal::SlowBody { body_timeout: LIMITS.body_timeout }));
        assert!(!discard(&mut stalled, 10, Duration::from_millis(250)).await);
    }

    #[tokio::test]
    async fn all_bodies_together_stay_within_the_budget() {
        let budget = Budget::new(10);
        let mut held = Share::none(&budget);
        read(&mut pieces(&[b"12345678"]), Some(8), LIMITS, &mut held).await.unwrap();
        assert_eq!(read_with(&budget, &[b"123"], Some(3)).await, Err(Refusal::BodiesFull));
        assert_eq!(read_with(&budget, &[b"12"], Some(2)).await.unwrap(), "12");
        drop(held);
        assert_eq!(read_with(&budget, &[b"123"], Some(3)).await.unwrap(), "123");
    }
}
