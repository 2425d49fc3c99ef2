//! What an endpoint answers in a test, and how a delivery must end: `429 Retry-After: 120`, `dead-letter: exhausted`. Pure.

use http::HeaderValue;

use super::{Answer, ExpectedEnd};
use crate::config::values::quoted;
use crate::delivery::DeadLetterReason;

/// The reasons that a rehearsal can come to: a subscription that was removed is in no config.
const REASONS: [DeadLetterReason; 4] =
    [DeadLetterReason::Exhausted, DeadLetterReason::Gone, DeadLetterReason::Plugin, DeadLetterReason::NotRetryable];

/// `delivered`, `dropped: not for us`, `dead-letter: exhausted`, `dead-letter: plugin: no such customer`.
pub(super) fn end(text: &str) -> Result<ExpectedEnd, String> {
    let (word, more) = match text.split_once(':') {
        Some((word, more)) => (word.trim_end(), Some(more.trim().to_owned())),
        None => (text, None),
    };
    match (word, more) {
        ("not matched", None) => Ok(ExpectedEnd::NotMatched),
        ("filtered", None) => Ok(ExpectedEnd::Filtered),
        ("delivered", None) => Ok(ExpectedEnd::Delivered),
        ("dropped", reason) => Ok(ExpectedEnd::Dropped(reason)),
        ("dead-letter", None) => Ok(ExpectedEnd::DeadLetter(None, None)),
        ("dead-letter", Some(more)) => dead_letter(&more),
        _ => Err(format!(
            "must be `not matched`, `filtered`, `delivered`, `dropped`, `dropped: REASON`, `dead-letter` or \
             `dead-letter: REASON`, not {}",
            quoted(text)
        )),
    }
}

fn dead_letter(text: &str) -> Result<ExpectedEnd, String> {
    let (word, detail) = match text.split_once(':') {
        Some((word, detail)) => (word.trim_end(), Some(detail.trim().to_owned())),
        None => (text, None),
    };
    match REASONS.into_iter().find(|reason| reason.as_str() == word) {
        Some(reason) => Ok(ExpectedEnd::DeadLetter(Some(reason), detail)),
        None => {
            let known = REASONS.map(|reason| format!("`{}`", reason.as_str())).join(", ");
            Err(format!("names no reason of dead letters: {}; there are {known}", quoted(word)))
        }
    }
}

/// `200`, `429 Retry-After: 120`, `timeout`, `refused`.
pub(super) fn answer(text: &str) -> Result<Answer, String> {
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (200..=599).contains(status));
    let answer = match text.split_once(' ') {
        None if text == "timeout" => Some(Answer::Timeout),
        None if text == "refused" => Some(Answer::Refused),
        None => status(text).map(|status| Answer::Status { status, retry_after: None }),
        Some((first, header)) => status(first).and_then(|status| {
            let (name, value) = header.split_once(':')?;
            let is_it = name.trim().eq_ignore_ascii_case("retry-after");
            let retry_after = HeaderValue::from_str(value.trim()).ok().filter(|_| is_it)?;
            Some(Answer::Status { status, retry_after: Some(retry_after) })
        }),
    };
    answer.ok_or_else(|| {
        let found = quoted(text);
        format!("must be a status from 200 to 599, `429 Retry-After: 120`, `timeout` or `refused`, not {found}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_people_write_them() {
        let status = |status, wait: Option<&'static str>| {
            Ok(Answer::Status { status, retry_after: wait.map(HeaderValue::from_static) })
        };
        for (text, expected) in [
            ("200", status(200, None)),
            ("429 Retry-After: 120", status(429, Some("120"))),
            ("503 retry-after: Wed, 15 Jan 2025 10:30:30 GMT", status(503, Some("Wed, 15 Jan 2025 10:30:30 GMT"))),
            ("timeout", Ok(Answer::Timeout)),
            ("refused", Ok(Answer::Refused)),
        ] {
            assert_eq!(answer(text), expected, "{text}");
        }
        for text in ["", "2000", "99", "429 later", "429 Wait: 5", "slow"] {
            assert!(answer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ends_are_read_as_people_write_them() {
        let dead = |reason, detail: Option<&str>| Ok(ExpectedEnd::DeadLetter(reason, detail.map(str::to_owned)));
        for (text, expected) in [
            ("not matched", Ok(ExpectedEnd::NotMatched)),
            ("filtered", Ok(ExpectedEnd::Filtered)),
            ("delivered", Ok(ExpectedEnd::Delivered)),
            ("dropped", Ok(ExpectedEnd::Dropped(None))),
            ("dropped: no: not us", Ok(ExpectedEnd::Dropped(Some("no: not us".to_owned())))),
            ("dead-letter", dead(None, None)),
            ("dead-letter: gone", dead(Some(DeadLetterReason::Gone), None)),
            ("dead-letter: plugin: no id", dead(Some(DeadLetterReason::Plugin), Some("no id"))),
        ] {
            assert_eq!(end(text), expected, "{text}");
        }
        for text in
            ["", "gone", "delivered: yes", "not-matched", "dead-letter: tired", "dead-letter: subscription-removed"]
        {
            assert!(end(text).is_err(), "{text}");
        }
    }
}
