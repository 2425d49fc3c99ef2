//! What single texts mean: durations, sizes, addresses, networks, names, patterns. Pure. An error goes on
//! where the key ends: "must be a duration such as `3s`, not `3`".

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::rate::Rate;

const NAME_CHARACTERS_MAX: usize = 64;
const PATTERN_BYTES_MAX: usize = 256;
const RATE_MAX: u32 = 1_000_000;
const SHOWN_CHARACTERS_MAX: usize = 60;

/// 1 KiB.
pub(super) const KIB: usize = 1024;
/// 1 MiB.
pub(super) const MIB: usize = 1024 * KIB;
/// 1 GiB.
pub(super) const GIB: usize = 1024 * MIB;
/// 1 millisecond, the shortest time that can be set.
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);

/// Seconds.
pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Days of 24 hours.
pub(super) const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

/// A text for a message: its beginning if it is long, on one line.
pub(super) fn shortened(text: &str) -> String {
    let plain: String = text.chars().take(SHOWN_CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    let plain = plain.replace("\\\"", "\"").replace("\\'", "'");
    if text.chars().count() > SHOWN_CHARACTERS_MAX { format!("{plain}…") } else { plain }
}

/// The same in backticks.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", shortened(text))
}

/// What kind of value it is.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// A number as it is, or what kind of value it is instead.
pub(super) fn number_or_kind(value: &Value) -> String {
    value.as_number().map_or_else(|| kind(value).to_owned(), ToString::to_string)
}

/// Whether a value is of a kind that no secret is: a number, `true`, a duration, or a list of them.
pub(super) fn is_plain(value: &Value) -> bool {
    match value {
        Value::Number(_) | Value::Bool(_) => true,
        Value::String(text) => humantime::parse_duration(text).is_ok(),
        Value::Array(items) => items.iter().all(is_plain),
        Value::Null | Value::Object(_) => false,
    }
}

/// A duration in humantime's words: `3s`, `1m 30s`, `7d`.
pub(super) fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| format!("must be a duration such as `500ms`, `3s`, `5m`, `2h` or `7d`, not {}", quoted(text)))?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    let (low, high) = (show_duration(*range.start()), show_duration(*range.end()));
    Err(format!("must be from {low} to {high}, not {}", quoted(text)))
}

/// A duration for a message.
pub(super) fn show_duration(duration: Duration) -> String {
    let days = duration.as_secs() / 86_400;
    if days > 0 && duration == self::days(days) {
        return format!("{days}d");
    }
    humantime::format_duration(duration).to_string()
}

/// A rate such as `5/s`.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let parsed = text.split_once('/').and_then(|(count, unit)| {
        let per = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return None,
        };
        let count = count.trim().parse().ok().filter(|count| (1..=RATE_MAX).contains(count))?;
        Some(Rate::new(count, seconds(per)))
    });
    parsed.ok_or_else(|| {
        format!("must be a rate from `1/h` to `{RATE_MAX}/s` such as `5/s`, `90/m` or `1000/h`, not {}", quoted(text))
    })
}

/// A size: digits and a unit, for example `256KiB`. `None` when it is none, or larger than any.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// A size for a message.
pub(super) fn show_bytes(bytes: usize) -> String {
    for (unit, name) in [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes} B")
}

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).unwrap_or(8080);
        format!("must be an IP address and a port such as `127.0.0.1:{port}` or `[::]:{port}`, not {}", quoted(text))
    })
}

/// A time of RFC 3339.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    let parsed = text.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_millisecond()).ok());
    parsed
        .map(Timestamp::from_millis)
        .ok_or_else(|| format!("must be a time such as `2025-01-15T10:30:00Z`, not {}", quoted(text)))
}

/// A network such as `10.0.0.0/8`.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>().map(|network| network.trunc()).map_err(|_| {
        let example = text.parse::<IpAddr>().map_or_else(|_| "10.0.0.0/8".to_owned(), |ip| IpNet::from(ip).to_string());
        format!("must be a network such as `{example}`, not {}", quoted(text))
    })
}

/// The name of a source, endpoint, plugin, route or subscription.
pub(super) fn name(text: &str) -> Result<String, String> {
    let fits = (1..=NAME_CHARACTERS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits {
        return Ok(text.to_owned());
    }
    Err(format!("must be a name: 1 to {NAME_CHARACTERS_MAX} characters of `A-Z a-z 0-9 _ -`"))
}

/// An event-type pattern: `order.completed`, `order.*`, `order.**`, `**`.
pub(super) fn pattern(text: &str) -> Result<String, String> {
    let fault = |why: &str| Err(format!("is not a pattern: {why} in {}", quoted(text)));
    if text.len() > PATTERN_BYTES_MAX {
        return fault(&format!("there are more than {PATTERN_BYTES_MAX} bytes"));
    }
    let segments: Vec<&str> = text.split('.').collect();
    for (number, segment) in segments.iter().enumerate() {
        match *segment {
            "" => return fault("a segment is empty"),
            "**" if number + 1 < segments.len() => return fault("`**` can only come last"),
            "*" | "**" => {}
            _ if segment.contains('*') => return fault("`*` stands for a whole segment only"),
            _ if segment.chars().any(|c| c.is_whitespace() || c.is_control()) => {
                return fault("a segment has a blank or a control character, which no event type has");
            }
            _ => {}
        }
    }
    Ok(text.to_owned())
}

/// The path of a source.
pub(super) fn request_path(text: &str) -> Result<String, String> {
    let fits = text.starts_with('/')
        && text.len() <= 256
        && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'"' | b'<' | b'>'));
    if fits {
        return Ok(text.to_owned());
    }
    Err(format!("must be a path such as `/v1/events`, without query and blanks, not {}", quoted(text)))
}

/// A SHA-256 digest; lower case comes out.
pub(super) fn sha256(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("must be a SHA-256 digest of 64 hexadecimal digits, not {}", quoted(text)))
}

/// A filter for logs: a level, or `target=level`, several with commas between them.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let fault = |found: &str| {
        Err(format!(
            "must be a level (`error`, `warn`, `info`, `debug`, `trace` or `off`) or a list such as \
                     `branchline=debug,info`, not {}",
            quoted(found)
        ))
    };
    for directive in text.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).trim();
        let target = directive.rsplit_once('=').is_none_or(|(target, _)| !target.trim().is_empty());
        if !target || !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            return fault(text);
        }
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512B", Some(512)),
            ("256KiB", Some(262_144)),
            ("1 MiB", Some(1_048_576)),
            ("1mib", Some(1_048_576)),
            ("2GB", Some(2_000_000_000)),
            ("99999999999GiB", None),
            ("1.5MiB", None),
            ("MiB", None),
            ("-1", None),
            ("1 Mi", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
        assert_eq!(
            [show_bytes(MIB), show_bytes(64 * KIB), show_bytes(1), show_bytes(1500)],
            ["1MiB", "64KiB", "1 B", "1500 B"]
        );
    }

    #[test]
    fn rates_have_a_unit() {
        for (text, shown) in [("5/s", "5/s"), ("90 / m", "90/m"), ("1/h", "1/h")] {
            assert_eq!(rate(text).map(|rate| rate.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for bad in ["", "5", "5/", "/s", "0/s", "-1/s", "1.5/s", "5/sec", "5/d", "1000001/s", "5/s/s"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_are_whole_segments() {
        for good in ["order.completed", "order.*", "order.**", "**", "*", "*.created", "Order-2.x_y"] {
            assert!(pattern(good).is_ok(), "{good}");
        }
        for bad in ["", "order.", ".order", "order..x", "ord*", "order.***", "**.created", "a b", "a.\n"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_is_written_with_its_length_and_loses_the_bits_below_it() {
        assert_eq!(network("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("10.1.2.3").unwrap_err(), "must be a network such as `10.1.2.3/32`, not `10.1.2.3`");
        assert!(network("fd00::/8").is_ok());
    }

    #[test]
    fn log_filters_are_levels_and_targets_with_levels() {
        for good in ["info", "DEBUG", "branchline=debug,info", "branchline::send=trace", "off"] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "branchline", "branchline=loud", "=info"] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_message_shows_is_short_and_on_one_line() {
        assert_eq!(quoted("a\nb'\""), "`a\\nb'\"`");
        assert_eq!(shortened(&"x".repeat(100)).chars().count(), 61);
    }
}
