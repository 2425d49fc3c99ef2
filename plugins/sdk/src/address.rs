//! What counts as an email address: not all that the standards allow, but what mail services take. A
//! mail to a malformed address would fail at every attempt, so it had better fail here, once.

const ADDRESS_BYTES_MAX: usize = 254;
const LOCAL_BYTES_MAX: usize = 64;

/// Whether a mail can be sent there. The part before the `@` is ASCII, as they ask; the domain
/// may be in any script.
pub fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let local_fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte);
    let label_fits = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|character| character.is_alphanumeric() || character == '-')
    };
    text.len() <= ADDRESS_BYTES_MAX
        && (1..=LOCAL_BYTES_MAX).contains(&local.len())
        && local.bytes().all(local_fits)
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && domain.contains('.')
        && domain.split('.').all(label_fits)
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn ordinary_addresses_are_addresses() {
        for text in ["a@b.kr", "first.last+tag@mail.example.co.kr", "o'neil@example.com", "lee@한국.kr"] {
            assert!(is_address(text), "{text}");
        }
    }

    #[test]
    fn what_cannot_receive_mail_is_not() {
        let long = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "@",
            "a",
            "a@",
            "@b.kr",
            "a@b",
            "a@b..kr",
            "a@.kr",
            "a b@c.kr",
            "a@b@c.kr",
            "a@b.kr,c@d.kr",
            "<a@b.kr>",
            "a@b.kr\r\nBcc: x@y.kr",
            "홍길동@example.com",
            ".a@b.kr",
            "a.@b.kr",
            "a..b@c.kr",
            "a@-b.kr",
            long.as_str(),
        ] {
            assert!(!is_address(text), "{text}");
        }
    }
}
