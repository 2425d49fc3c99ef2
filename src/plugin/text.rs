//! Texts that a plugin wrote, made fit for logs, records and error messages: bounded, and without control characters.

/// `text` cut to `bytes_max` bytes, at a character's border, with control characters escaped.
///
/// A terminal must not obey what a plugin wrote, and a line must stay a line.
pub(super) fn tame(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    for character in text.chars() {
        let before = out.len();
        if character == '\t' || !is_unruly(character) {
            out.push(character);
        } else {
            out.extend(character.escape_default());
        }
        if out.len() > bytes_max {
            out.truncate(before);
            break;
        }
    }
    out
}

/// Control characters, and those that turn the direction of text around.
fn is_unruly(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_a_character_and_control_characters_are_escaped() {
        for (text, bytes_max, expected) in [
            ("plain", 10, "plain"),
            ("plain", 3, "pla"),
            ("größe", 3, "gr"),
            ("größe", 4, "grö"),
            ("a\tb", 10, "a\tb"),
            ("a\u{1b}[2Jb", 40, "a\\u{1b}[2Jb"),
            ("two\nlines\r", 40, "two\\nlines\\r"),
            ("\u{1b}", 4, ""),
            ("\u{202e}evil", 40, "\\u{202e}evil"),
            ("", 0, ""),
        ] {
            assert_eq!(tame(text, bytes_max), expected, "{text:?}");
        }
    }
}
