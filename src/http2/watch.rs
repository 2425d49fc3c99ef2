//! What the frames that a peer sends cost. Pure: bytes in, a sum out. It judges the frames' heads alone; what is in
//! them is the HTTP library's business.

const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const HEAD_BYTES: usize = 9;
/// A head's fields in as many bytes are more than any request may have.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// In this many frames at most: the largest that are allowed have 16 KiB.
const BLOCK_FRAMES_MAX: u32 = 16;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A head that goes on for longer than any may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndlessHead;

/// Follows a connection's bytes from frame to frame.
#[derive(Debug)]
pub(super) struct FrameWatch {
    /// Bytes that are not looked at: the preface, then each frame's content.
    skip: usize,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    block: Block,
}

/// The fields of the head that is being sent.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    bytes: usize,
    frames: u32,
}

impl FrameWatch {
    pub(super) fn new() -> Self {
        Self { skip: PREFACE_BYTES, head: [0; HEAD_BYTES], head_bytes: 0, block: Block::default() }
    }

    /// Takes in what was read; gives what the frames that began in it cost.
    pub(super) fn observe(&mut self, mut bytes: &[u8]) -> Result<i64, EndlessHead> {
        let mut cost = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD_BYTES - self.head_bytes).min(bytes.len());
            self.head[self.head_bytes..][..taken].copy_from_slice(&bytes[..taken]);
            self.head_bytes += taken;
            bytes = &bytes[taken..];
            if self.head_bytes < HEAD_BYTES {
                return Ok(cost);
            }
            self.head_bytes = 0;
            cost += self.begin()?;
        }
    }

    /// The frame whose head is complete.
    fn begin(&mut self) -> Result<i64, EndlessHead> {
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.skip = length;
        if matches!(kind, HEADERS | CONTINUATION) {
            if kind == HEADERS {
                self.block = Block::default();
            }
            self.block.bytes += length;
            self.block.frames += 1;
            if self.block.bytes > BLOCK_BYTES_MAX || self.block.frames > BLOCK_FRAMES_MAX {
                return Err(EndlessHead);
            }
            if flags & END_HEADERS != 0 {
                self.block = Block::default();
            }
        }
        Ok(match kind {
            // What a body's bytes may cost is bounded by its size and its time.
            DATA if length > 0 => 0,
            // Settings are cheap to send and are worked off one by one.
            _ => 1 + i64::try_from(length / 256).expect("a frame's length has 24 bits"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [.., a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1], vec![0; length].as_slice()].concat()
    }

    /// What the frames cost, whatever the pieces in which they come.
    fn cost(frames: &[Vec<u8>]) -> Result<i64, EndlessHead> {
        let bytes = [PREFACE, &frames.concat()].concat();
        let costs = [1, 3, 8, bytes.len()].map(|size| {
            let mut watch = FrameWatch::new();
            bytes.chunks(size).try_fold(0, |sum, piece| Ok(sum + watch.observe(piece)?))
        });
        assert!(costs.windows(2).all(|pair| pair[0] == pair[1]), "{costs:?}");
        costs[0]
    }

    #[test]
    fn what_carries_a_body_is_free_and_everything_else_costs() {
        for (frames, expected) in [
            (vec![], 0),
            (vec![frame(DATA, 0, 1), frame(DATA, 1, 16_384)], 0),
            (vec![frame(DATA, 0, 0), frame(DATA, 1, 0)], 2),
            (vec![frame(HEADERS, END_HEADERS, 40), frame(DATA, 1, 9)], 1),
            (vec![frame(3, 0, 4), frame(4, 0, 0), frame(6, 0, 8), frame(8, 0, 4), frame(2, 0, 5), frame(99, 0, 0)], 6),
            (vec![frame(4, 0, 1_536)], 7),
        ] {
            assert_eq!(cost(&frames), Ok(expected), "{frames:?}");
        }
    }

    #[test]
    fn a_head_may_be_long_and_not_endless() {
        let begun = frame(HEADERS, 0, 16_384);
        let next = frame(CONTINUATION, 0, 16_384);
        let whole = vec![begun.clone(), next.clone(), next.clone(), frame(CONTINUATION, END_HEADERS, 16_384)];
        assert!(cost(&[whole.clone(), whole].concat()).is_ok());
        assert_eq!(cost(&[begun, next.clone(), next.clone(), next.clone(), next]), Err(EndlessHead));
        let empty = [vec![frame(HEADERS, 0, 1)], vec![frame(CONTINUATION, 0, 0); 16]].concat();
        assert!(cost(&empty[..16]).is_ok());
        assert_eq!(cost(&empty), Err(EndlessHead));
    }
}
