//! Text for services that set limits. Lengths are counted in UTF-16 units: services differ in what
//! they count, and by this count a text is never longer than by theirs. Hangul counts one each.

/// What stands where something was cut off.
pub const ELLIPSIS: char = '…';

/// The length of `text` in UTF-16 units.
pub fn length(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// `text` cut so that its length is at most `limit`, with `…` at its end where something is missing.
/// It never cuts inside a character.
pub fn truncate(text: &str, limit: usize) -> String {
    truncate_whole(text, limit, |_| true)
}

/// As [`truncate`], for a text that is escaped already: what is kept is shortened further until it
/// `is_whole`, so that no half of an `&amp;` or of a `\*` is left at its end.
pub fn truncate_whole(text: &str, limit: usize, is_whole: impl Fn(&str) -> bool) -> String {
    // No text has fewer bytes than it has units.
    if text.len() <= limit || length(text) <= limit {
        return text.to_owned();
    }
    let mut room = limit.saturating_sub(ELLIPSIS.len_utf16());
    let fits = |(_, character): &(usize, char)| {
        let left = room.checked_sub(character.len_utf16());
        room = left.unwrap_or(0);
        left.is_some()
    };
    let end = text.char_indices().take_while(fits).last().map_or(0, |(at, character)| at + character.len_utf8());
    let mut kept = &text[..end];
    while let Some((at, _)) = kept.char_indices().next_back().filter(|_| !is_whole(kept)) {
        kept = &kept[..at];
    }
    let mut cut = kept.to_owned();
    if limit > 0 {
        cut.push(ELLIPSIS);
    }
    cut
}

/// `text` with line breaks and other control characters made spaces, for a subject or a title.
pub fn one_line(text: &str) -> String {
    // The controls above ASCII, U+0080 to U+009F, begin with this byte.
    if !text.bytes().any(|byte| byte.is_ascii_control() || byte == 0xc2) {
        return text.to_owned();
    }
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// `text` with other text for some characters of ASCII: what `instead` has for them.
pub fn escape(text: &str, instead: impl Fn(u8) -> Option<&'static str>) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii()) {
        if let Some(instead) = instead(byte) {
            escaped.push_str(&text[from..at]);
            escaped.push_str(instead);
            from = at + 1;
        }
    }
    escaped.push_str(&text[from..]);
    escaped
}

/// `text` as text of HTML, where all of its characters mean themselves; in an attribute's quotes too.
pub fn escape_html(text: &str) -> String {
    escape(text, |byte| match byte {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'"' => Some("&quot;"),
        b'\'' => Some("&#39;"),
        _ => None,
    })
}

/// A title for people from an event type: `order.completed` becomes `Order completed`.
pub fn title(event_type: &str) -> String {
    let words = escape(&one_line(event_type), |byte| matches!(byte, b'.' | b'_' | b'-').then_some(" "));
    let mut title = words.trim().to_owned();
    if title.is_empty() {
        return "Event".to_owned();
    }
    // Event types are ASCII in practice; the tables for all scripts would cost 4 KB a plugin.
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_within_its_limit_is_left_alone() {
        assert_eq!(truncate("주문 완료", 5), "주문 완료");
    }

    #[test]
    fn a_cut_falls_between_characters() {
        assert_eq!(truncate("주문이 완료되었습니다", 5), "주문이 …");
        assert_eq!(truncate("👋👋👋", 5), "👋👋…");
        assert_eq!(truncate("👋👋👋", 4), "👋…");
        assert_eq!(truncate("abc", 1), "…");
        assert_eq!(truncate("abc", 0), "");
    }

    #[test]
    fn a_cut_goes_back_to_what_is_whole() {
        let even = |text: &str| text.len().is_multiple_of(2);
        assert_eq!(truncate_whole("abcdef", 6, even), "abcdef");
        assert_eq!(truncate_whole("abcdefg", 6, even), "abcd…");
        assert_eq!(truncate_whole("abcdefg", 5, even), "abcd…");
        assert_eq!(truncate_whole("abcdefg", 5, |_| false), "…");
    }

    #[test]
    fn a_control_is_a_space_in_a_line() {
        assert_eq!(one_line("a\tb\u{7f}c\u{85}d"), "a b c d");
        assert_eq!(one_line("가·나"), "가·나");
    }

    #[test]
    fn html_has_no_markup_of_a_value() {
        assert_eq!(escape_html("<b title='\"'>가&"), "&lt;b title=&#39;&quot;&#39;&gt;가&amp;");
    }

    #[test]
    fn a_title_is_the_event_type_in_words() {
        assert_eq!(title("order.completed"), "Order completed");
        assert_eq!(title("invoice.sent_late"), "Invoice sent late");
        assert_eq!(title("주문.완료"), "주문 완료");
        assert_eq!(title(""), "Event");
    }
}
