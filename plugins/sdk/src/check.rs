//! Checks of a config's values, for the `check` of `plugin!(handle, check)`: each names the key and says what
//! would be right, for the operator who wrote it. A value that was left out is right; serde refuses a config
//! that lacks what it needs.
//!
//! ```
//! use branchline_plugin::check;
//!
//! struct Config {
//!     channel: Option<String>,
//!     avatar_url: Option<String>,
//!     recipient: String,
//! }
//!
//! fn check(config: &Config) -> Result<(), String> {
//!     check::not_blank("channel", config.channel.as_deref())?;
//!     check::https_url("avatar_url", config.avatar_url.as_deref())?;
//!     check::pointer("recipient", &config.recipient)
//! }
//!
//! let config = Config { channel: Some(" ".into()), avatar_url: None, recipient: "/email".into() };
//! assert_eq!(check(&config).unwrap_err(), "`channel` is empty; leave it out instead");
//! ```

use crate::text;

/// A text that is there has something in it.
pub fn not_blank(key: &str, text: Option<&str>) -> Result<(), String> {
    match text {
        Some(text) if text.trim().is_empty() => Err(format!("`{key}` is empty; leave it out instead")),
        _ => Ok(()),
    }
}

/// A text has something in it, and at most so many characters, counted as [`text::length`] does.
pub fn length(key: &str, text: Option<&str>, characters_max: usize) -> Result<(), String> {
    match text {
        Some(text) if !(1..=characters_max).contains(&text::length(text.trim())) => {
            Err(format!("`{key}` must have 1 to {characters_max} characters"))
        }
        _ => Ok(()),
    }
}

/// The address of something on the web that others fetch.
pub fn https_url(key: &str, url: Option<&str>) -> Result<(), String> {
    let is_url = |url: &str| {
        let host = url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', '#']).next());
        host.is_some_and(|host| !host.is_empty()) && !url.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    match url {
        Some(url) if !is_url(url) => {
            Err(format!("`{key}` must start with `https://` and a host, and have no spaces in it"))
        }
        _ => Ok(()),
    }
}

/// A place in the payload, as [`Event::text_at`](crate::Event::text_at) takes it.
pub fn pointer(key: &str, pointer: &str) -> Result<(), String> {
    if pointer.starts_with('/') {
        return Ok(());
    }
    Err(format!("`{key}` is a JSON pointer such as `/customer/email`; it starts with `/`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_right() {
        assert_eq!(not_blank("x", None), Ok(()));
        assert_eq!(length("x", None, 80), Ok(()));
        assert_eq!(https_url("x", None), Ok(()));
    }

    #[test]
    fn a_blank_text_is_told_from_one_left_out() {
        assert_eq!(not_blank("channel", Some("#sales")), Ok(()));
        for text in ["", " \t"] {
            assert_eq!(not_blank("channel", Some(text)), Err("`channel` is empty; leave it out instead".to_owned()));
        }
    }

    #[test]
    fn a_length_has_both_its_ends() {
        for text in ["a", "가나다", " 가나다 "] {
            assert_eq!(length("name", Some(text), 3), Ok(()), "{text}");
        }
        for text in ["", "  ", "가나다라", "👋👋"] {
            assert_eq!(length("name", Some(text), 3), Err("`name` must have 1 to 3 characters".to_owned()), "{text}");
        }
    }

    #[test]
    fn only_what_can_be_fetched_is_a_url() {
        for url in ["https://example.com", "https://example.com/a.png?b#c", "https://예시.kr/"] {
            assert_eq!(https_url("avatar_url", Some(url)), Ok(()), "{url}");
        }
        for url in ["", "http://example.com/a.png", "https://", "https:///a", "https://a b", "https://a/\n", "a.png"] {
            let fault = https_url("avatar_url", Some(url)).expect_err(url);
            assert!(fault.starts_with("`avatar_url` must start with `https://`"), "{fault}");
        }
    }

    #[test]
    fn a_pointer_starts_with_a_slash() {
        assert_eq!(pointer("recipient", "/customer/email"), Ok(()));
        for text in ["", "email", "payload.email"] {
            let fault = pointer("recipient", text).expect_err(text);
            assert!(fault.starts_with("`recipient` is a JSON pointer"), "{fault}");
        }
    }
}
