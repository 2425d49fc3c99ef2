//! JSON written by hand, where a serializer costs more than what it writes: texts between quotes.

/// Appends `text` as a JSON string.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    // All bytes, whatever the first ones are: without an early end the loop takes many at a time.
    let has_escapes = text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == b'"') | (byte == b'\\'));
    if has_escapes {
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
}
