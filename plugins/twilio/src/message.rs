//! How long a text message is. It travels in parts: of 160 characters where all of them are in the old
//! alphabet of phones (GSM 7-bit), else of 70, and a few fewer where there are several parts. One
//! character outside of the alphabet more than doubles the price of a text.

const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿\
    abcdefghijklmnopqrstuvwxyzäöñüà";
/// These take the place of two.
const EXTENDED: &str = "\u{c}^{}\\[~]|€";

/// How a text is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alphabet {
    /// Seven bits a character.
    Gsm,
    /// Sixteen.
    Unicode,
}

impl Alphabet {
    fn of(text: &str) -> Self {
        if text.chars().all(|character| width(character).is_some()) { Self::Gsm } else { Self::Unicode }
    }

    /// The place that a character takes.
    fn width(self, character: char) -> usize {
        match self {
            Self::Gsm => width(character).unwrap_or(1),
            Self::Unicode => character.len_utf16(),
        }
    }

    /// The place in one part that is alone, and in each of several.
    const fn room(self) -> (usize, usize) {
        match self {
            Self::Gsm => (160, 153),
            Self::Unicode => (70, 67),
        }
    }

    /// What stands where something was cut off: `…` would change the alphabet.
    const fn ellipsis(self) -> &'static str {
        match self {
            Self::Gsm => "...",
            Self::Unicode => "…",
        }
    }
}

fn width(character: char) -> Option<usize> {
    match character {
        character if BASIC.contains(character) => Some(1),
        character if EXTENDED.contains(character) => Some(2),
        _ => None,
    }
}

/// The text, cut between characters so that it takes at most `parts_max` parts.
pub fn fit(text: &str, parts_max: usize) -> String {
    let text = plain(text.trim());
    let alphabet = Alphabet::of(&text);
    let (alone, each) = alphabet.room();
    let place: usize = text.chars().map(|character| alphabet.width(character)).sum();
    if place <= alone {
        return text;
    }
    let each = if parts_max == 1 { alone } else { each };
    let ellipsis = alphabet.ellipsis();
    let (mut parts, mut used, mut end) = (1, 0, 0);
    for (at, character) in text.char_indices() {
        // All characters of the ellipsis take one place, so that they may stand in two parts.
        let left = (parts_max - parts) * each + (each - used);
        if left >= ellipsis.chars().count() {
            end = at;
        }
        used += alphabet.width(character);
        // A character that takes two places is never split over two parts.
        if used > each {
            (parts, used) = (parts + 1, alphabet.width(character));
        }
        if parts > parts_max {
            return format!("{}{ellipsis}", text[..end].trim_end());
        }
    }
    text
}

/// With quotes and dashes as typewriters had them, where that is all that keeps a text from the old
/// alphabet; the dash that templates have for what is missing is one of these.
fn plain(text: &str) -> String {
    if Alphabet::of(text) == Alphabet::Gsm {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '–' | '—' | '‐' | '‑' => plain.push('-'),
            '‘' | '’' => plain.push('\''),
            '“' | '”' => plain.push('"'),
            '…' => plain.push_str("..."),
            '\u{a0}' | '\t' => plain.push(' '),
            other => plain.push(other),
        }
    }
    if Alphabet::of(&plain) == Alphabet::Gsm { plain } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::fit;

    #[test]
    fn a_text_that_fits_is_left_alone() {
        let ascii = "a".repeat(160);
        let hangul = "가".repeat(70);
        assert_eq!(fit(&ascii, 1), ascii);
        assert_eq!(fit(&hangul, 1), hangul);
        let hangul = "가".repeat(134);
        assert_eq!(fit(&hangul, 2), hangul);
    }

    #[test]
    fn a_longer_one_is_cut_to_the_parts() {
        assert_eq!(fit(&"a".repeat(161), 1), format!("{}...", "a".repeat(157)));
        assert_eq!(fit(&"a".repeat(307), 2), format!("{}...", "a".repeat(303)));
        assert_eq!(fit(&"가".repeat(71), 1), format!("{}…", "가".repeat(69)));
        assert_eq!(fit(&"👋".repeat(36), 1), format!("{}…", "👋".repeat(34)));
        assert_eq!(fit(&"€".repeat(81), 1), format!("{}...", "€".repeat(78)));
        // One place is left over at the end of each part.
        assert_eq!(fit(&"👋".repeat(66), 2), "👋".repeat(66));
        assert_eq!(fit(&"👋".repeat(67), 2), format!("{}…", "👋".repeat(66)));
        assert_eq!(fit(&"a".repeat(5000), 10).chars().count(), 1530);
    }

    #[test]
    fn a_dash_does_not_change_the_alphabet() {
        assert_eq!(fit("“Kim”’s order – 3…", 1), "\"Kim\"'s order - 3...");
        assert_eq!(fit("주문 – 3", 1), "주문 – 3");
    }
}
