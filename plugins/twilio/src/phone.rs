//! Phone numbers: from what people write, `010-1234-5678` or `+82 (0)10 1234 5678`, to the one form that
//! every service takes, `+821012345678` (E.164). What is not surely a number is refused, since a message
//! to a wrong number goes to somebody else.

use serde::Deserialize;

/// Digits of a number with its country, without the `+`.
const DIGITS_MIN: usize = 8;
const DIGITS_MAX: usize = 15;

/// A country whose numbers may be written without it, by its code of ISO 3166.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Country {
    Au,
    Ca,
    Cn,
    De,
    Fr,
    Gb,
    Hk,
    In,
    Jp,
    Kr,
    Sg,
    Th,
    Tw,
    Us,
    Vn,
}

/// How a country writes its numbers.
struct Plan {
    code: &'static str,
    /// What stands before a number only within the country.
    trunk: &'static str,
    /// Whether a number may lack that.
    bare: bool,
    /// How many digits are left without it.
    digits: std::ops::RangeInclusive<usize>,
}

impl Country {
    const fn plan(self) -> Plan {
        let (code, trunk, bare, digits) = match self {
            Self::Au => ("61", "0", false, 9..=9),
            Self::Ca | Self::Us => ("1", "1", true, 10..=10),
            // Mobile numbers have no 0 there.
            Self::Cn => ("86", "0", true, 10..=11),
            Self::De => ("49", "0", false, 7..=11),
            Self::Fr => ("33", "0", false, 9..=9),
            Self::Gb => ("44", "0", false, 9..=10),
            Self::Hk => ("852", "", true, 8..=8),
            Self::In => ("91", "0", true, 10..=10),
            Self::Jp => ("81", "0", false, 9..=10),
            // From 02-123-4567 to 0507-1234-5678.
            Self::Kr => ("82", "0", false, 8..=11),
            Self::Sg => ("65", "", true, 8..=8),
            Self::Th => ("66", "0", false, 8..=9),
            Self::Tw => ("886", "0", false, 8..=9),
            Self::Vn => ("84", "0", false, 9..=10),
        };
        Plan { code, trunk, bare, digits }
    }
}

/// The number in E.164, if it is one. `country` is that of a number without one.
pub fn normalise(written: &str, country: Option<Country>) -> Option<String> {
    let written = written.trim();
    let (international, rest) = match written.strip_prefix('+') {
        Some(rest) => (true, rest),
        None => (false, written),
    };
    if !rest.chars().all(|character| character.is_ascii_digit() || " -().\u{a0}".contains(character)) {
        return None;
    }
    let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
    let number = match (international, country) {
        (true, Some(country)) => without_trunk(digits, &country.plan()),
        (true, None) => digits,
        (false, Some(country)) => with_country(&digits, &country.plan())?,
        (false, None) => return None,
    };
    let fits = (DIGITS_MIN..=DIGITS_MAX).contains(&number.len()) && !number.starts_with('0');
    fits.then(|| format!("+{number}"))
}

fn with_country(digits: &str, plan: &Plan) -> Option<String> {
    let national = match digits.strip_prefix(plan.trunk) {
        Some(rest) if plan.digits.contains(&rest.len()) => rest,
        _ if plan.bare => digits,
        _ => return None,
    };
    let fits = plan.digits.contains(&national.len()) && !national.starts_with('0');
    fits.then(|| format!("{}{national}", plan.code))
}

/// `+82 010-1234-5678`, which many write, has both the country and what stands in its place.
fn without_trunk(digits: String, plan: &Plan) -> String {
    let national = digits.strip_prefix(plan.code).and_then(|rest| rest.strip_prefix('0'));
    match national {
        Some(national) if plan.trunk == "0" => format!("{}{national}", plan.code),
        _ => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::{Country, normalise};

    #[test]
    fn numbers_become_e164() {
        let table = [
            ("010-1234-5678", Country::Kr, "+821012345678"),
            ("01012345678", Country::Kr, "+821012345678"),
            (" 010.1234.5678 ", Country::Kr, "+821012345678"),
            ("011-234-5678", Country::Kr, "+82112345678"),
            ("02-123-4567", Country::Kr, "+8221234567"),
            ("0507-1234-5678", Country::Kr, "+8250712345678"),
            ("+82 10-1234-5678", Country::Kr, "+821012345678"),
            ("+82 (0)10-1234-5678", Country::Kr, "+821012345678"),
            ("+82 010-1234-5678", Country::Kr, "+821012345678"),
            ("+1 (202) 555-0123", Country::Kr, "+12025550123"),
            ("(202) 555-0123", Country::Us, "+12025550123"),
            ("1 202 555 0123", Country::Us, "+12025550123"),
            ("090-1234-5678", Country::Jp, "+819012345678"),
            ("07400 123456", Country::Gb, "+447400123456"),
            ("138 0013 8000", Country::Cn, "+8613800138000"),
            ("9123 4567", Country::Sg, "+6591234567"),
        ];
        for (written, country, number) in table {
            assert_eq!(normalise(written, Some(country)).as_deref(), Some(number), "{written}");
        }
        assert_eq!(normalise("+821012345678", None).as_deref(), Some("+821012345678"));
    }

    #[test]
    fn what_may_be_another_number_is_refused() {
        for written in [
            "",
            "+",
            "없음",
            "010-1234-567x",
            "1012345678",
            "821012345678",
            "00821012345678",
            "010-1234-56789012",
            "112",
            "+0821012345678",
            "+82 10 1234 5678 9012 34",
            "+8210",
            "０１０-1234-5678",
            "010-1234-5678, 010-8765-4321",
            "010/1234/5678",
        ] {
            assert_eq!(normalise(written, Some(Country::Kr)), None, "{written}");
        }
        assert_eq!(normalise("010-1234-5678", None), None, "without a country");
        assert_eq!(normalise("12025550123456", Some(Country::Us)), None);
    }
}
