//! JSON by hand, where a library costs more than what it reads or writes: where a text has to stop being just text.

/// How many bytes are looked at together.
const STEP_BYTES: usize = 8;
const ONES: u64 = u64::from_le_bytes([1; STEP_BYTES]);

/// How many bytes at the beginning of `text` stand for themselves between quotes: up to the first quote, backslash or
/// control character.
pub fn plain_bytes(text: &[u8]) -> usize {
    let (steps, rest) = text.as_chunks::<STEP_BYTES>();
    for (step, bytes) in steps.iter().enumerate() {
        let specials = specials(u64::from_le_bytes(*bytes));
        if specials != 0 {
            return step * STEP_BYTES + specials.trailing_zeros() as usize / 8;
        }
    }
    let is_plain = |byte: &&u8| **byte >= 0x20 && **byte != b'"' && **byte != b'\\';
    text.len() - rest.len() + rest.iter().take_while(is_plain).count()
}

/// The highest bit of the first of eight bytes that does not stand for itself, and of bytes after it, or nothing.
fn specials(bytes: u64) -> u64 {
    // What is subtracted borrows from the next byte only where it was found.
    let below = |bytes: u64, bound: u8| bytes.wrapping_sub(ONES * u64::from(bound)) & !bytes;
    let equal = |byte: u8| below(bytes ^ (ONES * u64::from(byte)), 1);
    (below(bytes, 0x20) | equal(b'"') | equal(b'\\')) & (ONES << 7)
}

/// Appends `text` as a JSON string.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    if plain_bytes(text.as_bytes()) < text.len() {
        serde_json::to_writer(out, text).expect("a text is always a JSON string");
        return;
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_written_as_a_serializer_would() {
        for text in ["", "evt_1", "주문", "a\"b", "a\\b", "a\nb", "\u{0}", "\u{1f}", "\u{7f}", "\u{2028}"] {
            let mut out = Vec::new();
            push_text(&mut out, text);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(text).unwrap());
        }
    }

    #[test]
    fn the_first_byte_that_is_not_plain_is_found_wherever_it_stands() {
        let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
        for around in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
            for byte in 0..=255 {
                for place in 0..2 * STEP_BYTES + 3 {
                    let mut text = [around; 2 * STEP_BYTES + 3];
                    text[place] = byte;
                    // What comes after it is not to be seen before it.
                    text[place + 1..].iter_mut().step_by(2).for_each(|after| *after = b'"');
                    let first = text.iter().position(|byte| !is_plain(*byte)).unwrap_or(text.len());
                    assert_eq!(plain_bytes(&text), first, "{byte} at {place} among {around}");
                }
            }
        }
    }
}
