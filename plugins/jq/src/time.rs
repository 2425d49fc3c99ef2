//! Times in the form of RFC 3339, as seconds since 1970 and back. By hand, since a library for dates
//! would be larger than all else in this plugin.

const DAY_SECONDS: i64 = 86_400;
/// Days from the first of March of the year 0 to 1970.
const EPOCH_DAYS: i64 = 719_468;
/// The Gregorian calendar repeats itself after this many days, or 400 years.
const ERA_DAYS: i64 = 146_097;

/// `2025-01-15T10:30:00Z` for seconds since 1970, fractions cut off; `None` outside of the years 0 to 9999.
pub fn write(seconds: f64) -> Option<String> {
    // What is no number at all becomes 0 below.
    if seconds.is_nan() {
        return None;
    }
    // Well outside of the years that are allowed, so that nothing overflows.
    let seconds = seconds.floor().clamp(-1e15, 1e15) as i64;
    let (days, second) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
    let (year, month, day) = civil(days);
    if !(0..=9999).contains(&year) {
        return None;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

/// Seconds since 1970 for `2025-01-15T10:30:00Z`, with a fraction or an offset from UTC too.
pub fn read(text: &str) -> Option<f64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let at = |index: usize, allowed: &[u8]| allowed.contains(text.as_bytes().get(index)?).then_some(());
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    at(4, b"-").and(at(7, b"-")).and(at(10, b"Tt ")).and(at(13, b":")).and(at(16, b":"))?;
    let days = days(year, month, day);
    // A day that the month has comes back as itself. RFC 3339 allows a leap second.
    if civil(days) != (year, month, day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[19..];
    let mut fraction = 0.0;
    if rest.starts_with('.') {
        let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
        fraction = if digits == 0 { None } else { rest[..=digits].parse().ok() }?;
        rest = &rest[1 + digits..];
    }
    let offset = match rest.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let start = text.len() - 5;
            let (hours, minutes) = (number(start, start + 2)?, number(start + 3, start + 5)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    Some((days * DAY_SECONDS + hour * 3600 + minute * 60 + second - offset) as f64 + fraction)
}

/// Days since 1970 of a date, counting years from March, so that a leap day is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100 + of_year - EPOCH_DAYS
}

/// The date that is this many days after 1970: year, month, day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let era = days.div_euclid(ERA_DAYS);
    let of_era = days.rem_euclid(ERA_DAYS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::{read, write};

    #[test]
    fn times_are_read_and_written() {
        let table = [
            (0.0, "1970-01-01T00:00:00Z"),
            (1_736_937_000.0, "2025-01-15T10:30:00Z"),
            (951_782_400.0, "2000-02-29T00:00:00Z"),
            (-1.0, "1969-12-31T23:59:59Z"),
            (253_402_300_799.0, "9999-12-31T23:59:59Z"),
            (-62_167_219_200.0, "0000-01-01T00:00:00Z"),
        ];
        for (seconds, text) in table {
            assert_eq!(write(seconds).as_deref(), Some(text));
            assert_eq!(read(text), Some(seconds), "{text}");
        }
        assert_eq!(write(1.9).as_deref(), Some("1970-01-01T00:00:01Z"));
        assert_eq!(read("2025-01-15T19:30:00.25+09:00"), Some(1_736_937_000.25));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2025-01-15",
            "2025-02-30T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-15T24:00:00Z",
            "2025-01-15T10:30:00",
            "2025-01-15T10:30:00.Z",
            "2025-01-15T10:30:00+9",
            "2025-01-15T10:30:00+24:00",
            "+025-01-15T10:30:00Z",
            "이천이십오년일월일일오전 열시",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        for seconds in [f64::NAN, f64::INFINITY, 253_402_300_800.0, -62_167_219_201.0, 1e300] {
            assert_eq!(write(seconds), None, "{seconds}");
        }
    }
}
