//! Times, sizes and counts as people read them, and limits as they write them.

use std::time::Duration;

const UNITS: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// `412 µs`, `3.1 ms`, `2.0 s`.
pub fn time(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    match micros {
        ..10.0 => format!("{micros:.1} µs"),
        10.0..1_000.0 => format!("{micros:.0} µs"),
        1_000.0..1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

/// `1.6 MiB`.
#[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
pub fn bytes(bytes: usize) -> String {
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `64MiB`, `512 KiB`, `1048576`.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit))).unwrap_or((text, 1));
    number
        .trim()
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "must be a size, for example `32MiB`".to_owned())
}

/// `50ms`, `2s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "must be a duration, for example `50ms`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sizes_and_counts_are_short() {
        assert_eq!(time(Duration::from_nanos(1_234)), "1.2 µs");
        assert_eq!(time(Duration::from_micros(412)), "412 µs");
        assert_eq!(time(Duration::from_micros(3_140)), "3.1 ms");
        assert_eq!(time(Duration::from_secs(2)), "2.0 s");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_632_216), "1.6 MiB");
        assert_eq!(count(7), "7");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        for (text, size) in [("1048576", Some(1 << 20)), ("64MiB", Some(64 << 20)), ("512 KiB", Some(512 << 10))] {
            assert_eq!(parse_bytes(text).ok(), size, "{text}");
        }
        for text in ["", "MiB", "1.5MiB", "-1", "99999999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
