//! What is kept of an answer: the status decides, `Retry-After` may lengthen the wait, and the first
//! bytes of a failure are for people. The rest of the body is read only so that the connection can be used again.

use std::time::{Duration, UNIX_EPOCH};

use http::Response;
use http::header::{HeaderMap, RETRY_AFTER};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::clock::Timestamp;
use crate::delivery::{ANSWER_BYTES_MAX, AttemptResult};

/// A `Retry-After` beyond this is taken as this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How long a success's body is waited for: it changes nothing, and a new connection soon costs less than the wait.
const SUCCESS_BODY_WAIT_MAX: Duration = Duration::from_millis(250);

/// What is kept.
pub(super) struct Answer {
    pub(super) result: AttemptResult,
    /// The first bytes of a failure.
    pub(super) text: Option<String>,
    /// Whether the body was read to its end: only then is the connection free for another request.
    pub(super) is_whole: bool,
}

/// Reads what is worth reading of an answer.
///
/// The head decides: once it is here the attempt has been answered, and a body that drips, breaks
/// off or never ends changes nothing. At most `body_bytes_max` (and the rest of the piece that
/// passes it) are read, until `deadline`.
pub(super) async fn read(
    response: Response<Incoming>,
    now: Timestamp,
    body_bytes_max: usize,
    deadline: Instant,
) -> Answer {
    let (head, mut body) = response.into_parts();
    let result = answered(head.status.as_u16(), &head.headers, now);
    let is_success = head.status.is_success();
    let (keep_max, until) = if is_success {
        (0, deadline.min(Instant::now() + SUCCESS_BODY_WAIT_MAX))
    } else {
        (ANSWER_BYTES_MAX, deadline)
    };
    let mut kept = Vec::new();
    let is_whole = if body.is_end_stream() {
        true
    } else if is_success && body.size_hint().lower() > body_bytes_max as u64 {
        false
    } else {
        let reading = collect(&mut body, keep_max, body_bytes_max, &mut kept);
        timeout_at(until, reading).await.unwrap_or(false)
    };
    Answer { result, text: printable(&kept, ANSWER_BYTES_MAX), is_whole }
}

/// What the head of an answer says.
pub fn answered(status: u16, headers: &HeaderMap, now: Timestamp) -> AttemptResult {
    let retry_after_ms = if matches!(status, 429 | 503) { retry_after(headers, now) } else { None };
    AttemptResult::Answered { status, retry_after_ms }
}

/// Reads up to about `read_max` bytes and keeps the first `keep_max` of them. Tells whether that was all.
async fn collect(body: &mut Incoming, keep_max: usize, read_max: usize, kept: &mut Vec<u8>) -> bool {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let Some(data) = frame.data_ref() else { continue };
        let room = keep_max - kept.len();
        kept.extend_from_slice(&data[..room.min(data.len())]);
        read += data.len();
        if read > read_max {
            return false;
        }
    }
    true
}

/// Bytes from outside as text that a terminal and a log can show: at most `bytes_max` long, without
/// characters that control or reorder what is around them. Nothing when there is nothing to show.
pub(super) fn printable(bytes: &[u8], bytes_max: usize) -> Option<String> {
    let mut text = String::with_capacity(bytes.len().min(bytes_max));
    for character in String::from_utf8_lossy(bytes).chars() {
        let shown = match character {
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => ' ',
            character if character.is_control() => ' ',
            character => character,
        };
        if text.len() + shown.len_utf8() > bytes_max {
            break;
        }
        text.push(shown);
    }
    text.truncate(text.trim_end().len());
    (!text.is_empty()).then_some(text)
}

/// `Retry-After` in milliseconds from now: seconds, or an HTTP date. Anything else asks for nothing.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits without end are a number too, only a large one.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        Timestamp::default().plus(date).since(now)
    };
    u64::try_from(wait.min(RETRY_AFTER_MAX).as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        // Wed, 15 Jan 2025 10:30:00 GMT
        let now = Timestamp::from_millis(1_736_937_000_000);
        let week = 7 * 86_400_000;
        for (text, wait) in [
            ("0", Some(0)),
            ("1", Some(1_000)),
            (" 120 ", Some(120_000)),
            ("007", Some(7_000)),
            ("604800", Some(week)),
            ("604801", Some(week)),
            ("18446744073709551615", Some(week)),
            ("99999999999999999999999999999999999999", Some(week)),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1e3", None),
            ("", None),
            ("soon", None),
            ("120, 240", None),
            ("Wed, 15 Jan 2025 10:30:30 GMT", Some(30_000)),
            ("Wednesday, 15-Jan-25 10:30:30 GMT", Some(30_000)),
            ("Wed Jan 15 10:30:30 2025", Some(30_000)),
            ("Wed, 15 Jan 2025 10:29:00 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(week)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 15 Jan 2025 25:61:61 GMT", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            assert_eq!(retry_after(&headers, now), wait, "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(retry_after(&headers, now), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn answers_are_kept_as_text_that_controls_nothing() {
        for (bytes, text) in [
            (&b"no such hook"[..], Some("no such hook")),
            (b"a\r\nb\x1b[31mc\0", Some("a  b [31mc")),
            ("caf\u{e9} \u{202e}evil".as_bytes(), Some("caf\u{e9}  evil")),
            (b"\xff\xfeok", Some("\u{fffd}\u{fffd}ok")),
            (b"", None),
            (b" \r\n", None),
        ] {
            assert_eq!(printable(bytes, 512).as_deref(), text);
        }
        assert_eq!(printable(&[0xff; 512], 512).unwrap().len(), 510, "replaced bytes are longer, and still bounded");
        assert_eq!(printable("\u{e9}".repeat(4).as_bytes(), 5).unwrap(), "\u{e9}\u{e9}");
    }
}
