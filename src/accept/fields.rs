//! Rules for an event's fields, whatever they came in, and the event made of them.

use std::sync::Mutex;

use bytestring::ByteString;
use uuid::timestamp::context::ContextV7;

use crate::clock::Timestamp;
use crate::event::Event;

/// Characters of an event type, an aggregate's type and an aggregate's id.
const NAME_CHARS_MAX: usize = 256;
/// Characters of a producer's id.
const ID_CHARS_MAX: usize = 128;
/// Bytes of a time: a date, a time, nine digits of a second and an offset take 35.
const TIME_BYTES_MAX: usize = 40;

/// An event as its request gives it: every field that is there was checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) id: Option<ByteString>,
    pub(super) event_type: ByteString,
    pub(super) aggregate_type: ByteString,
    pub(super) aggregate_id: ByteString,
    pub(super) occurred_at: Option<ByteString>,
    pub(super) payload: ByteString,
    pub(super) metadata: ByteString,
}

impl Draft {
    /// The event, accepted now.
    pub(super) fn into_event(self, source: &ByteString, traceparent: &str, now: Timestamp, ids: &Ids) -> Event {
        Event {
            id: self.id.unwrap_or_else(|| ids.next(now).into()),
            source: source.clone(),
            event_type: self.event_type,
            aggregate_type: self.aggregate_type,
            aggregate_id: self.aggregate_id,
            occurred_at: self.occurred_at.unwrap_or_else(|| now.to_string().into()),
            accepted_at: now,
            payload: self.payload,
            metadata: self.metadata,
            traceparent: traceparent.into(),
        }
    }
}

/// Makes ids: `evt_` and a UUID of version 7, so that those of one router sort in the order they were made.
#[derive(Debug, Default)]
pub(super) struct Ids(Mutex<ContextV7>);

impl Ids {
    fn next(&self, now: Timestamp) -> String {
        let nanoseconds = u32::try_from(now.as_millis() % 1_000 * 1_000_000).expect("less than a second");
        let time = uuid::Timestamp::from_unix(&self.0, now.as_secs(), nanoseconds);
        let mut buffer = uuid::Uuid::encode_buffer();
        let digits = uuid::Uuid::new_v7(time).as_simple().encode_lower(&mut buffer);
        let mut id = String::with_capacity(36);
        id.push_str("evt_");
        id.push_str(digits);
        id
    }
}

/// What is wrong with an event type, if anything.
///
/// Segments of `A-Z a-z 0-9 _ - / : +` between dots. There is no `*`: it means something in patterns.
pub(super) fn event_type_fault(text: &str) -> Option<&'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/' | b':' | b'+' | b'.');
    if text.is_empty() || text.len() > NAME_CHARS_MAX {
        Some("must have 1 to 256 characters")
    } else if !text.bytes().all(allowed) {
        Some("may have only the characters `A-Z a-z 0-9 _ - / : +`, in segments between dots")
    } else if text.split('.').any(str::is_empty) {
        Some("has an empty segment: a dot must stand between two segments")
    } else {
        None
    }
}

/// What is wrong with an id, if anything.
pub(super) fn id_fault(text: &str) -> Option<&'static str> {
    let good = (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    (!good).then_some("must be 1 to 128 printable ASCII characters without a space; leave it out to have one made")
}

/// What is wrong with an aggregate's type or id, if anything.
pub(super) fn name_fault(text: &str) -> Option<&'static str> {
    // Bytes first: counting characters is for the few that are long.
    if text.len() > NAME_CHARS_MAX && text.chars().count() > NAME_CHARS_MAX {
        Some("must have at most 256 characters")
    } else if text.chars().any(char::is_control) {
        Some("may have no control characters")
    } else {
        None
    }
}

/// What is wrong with a time, if anything. Only RFC 3339: what consumers have to read.
pub(super) fn time_fault(text: &str) -> Option<&'static str> {
    let exists = is_rfc_3339(text.as_bytes()) && text.parse::<jiff::Timestamp>().is_ok();
    (!exists).then_some("must be a time of RFC 3339, for example `2025-01-15T10:30:00Z`")
}

/// The grammar, since the parser takes other forms of ISO 8601 too; the parser knows the calendar.
fn is_rfc_3339(text: &[u8]) -> bool {
    let follows = |text: &[u8], pattern: &[u8]| {
        text.len() == pattern.len()
            && text.iter().zip(pattern).all(|(byte, wanted)| match wanted {
                b'0' => byte.is_ascii_digit(),
                b'T' => matches!(byte, b'T' | b't'),
                b'+' => matches!(byte, b'+' | b'-'),
                _ => byte == wanted,
            })
    };
    const SECONDS: &[u8] = b"0000-00-00T00:00:00";
    if text.len() > TIME_BYTES_MAX || text.len() <= SECONDS.len() {
        return false;
    }
    let (seconds, mut rest) = text.split_at(SECONDS.len());
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return false;
        }
        rest = &fraction[digits..];
    }
    follows(seconds, SECONDS) && (matches!(rest, b"Z" | b"z") || follows(rest, b"+00:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_are_segments_between_dots() {
        let long = "a".repeat(256);
        for good in ["order.completed", "a", "com.github.pull_request/opened-2", "A:b+c", &long] {
            assert_eq!(event_type_fault(good), None, "{good}");
        }
        let longer = "a".repeat(257);
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "é", "a\n", "a\0", &longer] {
            assert!(event_type_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn ids_are_printable_ascii_without_space() {
        let long = "~".repeat(128);
        for good in ["e", "evt_1", "a.b|c", "!\"\\", &long] {
            assert_eq!(id_fault(good), None, "{good}");
        }
        let longer = "a".repeat(129);
        for bad in ["", " ", "a b", "é", "a\u{7f}", "a\n", &longer] {
            assert!(id_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn aggregate_names_are_any_text_without_control_characters() {
        let long = "é".repeat(256);
        for good in ["", "User", "/a b/é", &long] {
            assert_eq!(name_fault(good), None, "{good}");
        }
        let longer = "é".repeat(257);
        for bad in ["a\0", "a\u{85}", "\u{1b}[31m", &longer] {
            assert!(name_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn times_are_those_of_rfc_3339_that_exist() {
        for good in [
            "2025-01-15T10:30:00Z",
            "2025-01-15t10:30:00z",
            "2025-01-15T10:30:00.123456789+05:30",
            "2024-02-29T23:59:60-00:00",
            "1985-04-12T23:20:50.52Z",
        ] {
            assert_eq!(time_fault(good), None, "{good}");
        }
        for bad in [
            "",
            "now",
            "2025-01-15",
            "2025-01-15T10:30Z",
            "2025-01-15T10:30:00",
            "2025-01-15 10:30:00Z",
            "2025-02-30T10:30:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-15T24:00:00Z",
            "2025-01-15T10:30:00.Z",
            "2025-01-15T10:30:00+0530",
            "2025-01-15T10:30:00+05:30[Asia/Kolkata]",
            "20250115T103000Z",
            "+002025-01-15T10:30:00Z",
            "2025-01-15T10:30:00.1234567890123456789012Z",
            "２025-01-15T10:30:00Z",
        ] {
            assert!(time_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn made_ids_are_unique_and_in_order() {
        let ids = Ids::default();
        let now = Timestamp::from_millis(1_736_937_000_007);
        let mut made: Vec<_> = (0..5_000).map(|n| ids.next(now.plus(std::time::Duration::from_micros(n)))).collect();
        assert!(made.iter().all(|id| id.len() == 36 && id_fault(id).is_none()));
        assert!(made.is_sorted());
        made.dedup();
        assert_eq!(made.len(), 5_000);
    }
}
