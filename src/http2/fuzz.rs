//! Fuzzing of what counts HTTP/2 frames: whatever the bytes and however they come in pieces, it gives what a reader of
//! whole frames gives, written anew from RFC 9113.

use super::watch::{EndlessHead, FrameWatch};
use crate::fuzz::fuzz;

/// Bytes of the preface that every connection begins with, and of a frame's head.
const PREFACE: usize = 24;
const HEAD: usize = 9;

fn watched<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<i64, EndlessHead> {
    let mut watch = FrameWatch::new();
    let mut sum = 0;
    for piece in pieces {
        let cost = watch.observe(piece)?;
        assert!(cost >= 0, "frames give nothing back");
        sum += cost;
    }
    Ok(sum)
}

/// The same from the whole: a frame is a length of 24 bits, a type, flags, a stream, and as many bytes.
fn counted(bytes: &[u8]) -> Result<i64, EndlessHead> {
    let mut rest = bytes.get(PREFACE..).unwrap_or_default();
    let (mut sum, mut fields, mut frames) = (0, 0_u64, 0);
    while let Some(&[a, b, c, kind, flags, ..]) = rest.get(..HEAD) {
        let length = u32::from_be_bytes([0, a, b, c]);
        sum += if kind == 0 && length > 0 { 0 } else { 1 + i64::from(length / 256) };
        if kind == 1 {
            (fields, frames) = (0, 0);
        }
        if kind == 1 || kind == 9 {
            (fields, frames) = (fields + u64::from(length), frames + 1);
            if fields > 65_536 || frames > 16 {
                return Err(EndlessHead);
            }
            if flags & 4 == 4 {
                (fields, frames) = (0, 0);
            }
        }
        rest = rest.get(HEAD + usize::try_from(length).unwrap()..).unwrap_or_default();
    }
    Ok(sum)
}

#[test]
fn frames() {
    let mut endless = 0;
    fuzz("frames", |input| {
        let expected = counted(input);
        endless += usize::from(expected.is_err());
        assert_eq!(watched(std::iter::once(input)), expected);
        assert_eq!(watched(input.chunks(1)), expected);
        assert_eq!(watched(input.chunks(7)), expected);
    });
    assert!(endless > 0, "no head went on for too long");
}
