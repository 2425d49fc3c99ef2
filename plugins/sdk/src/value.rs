//! How JSON values are shown to people: numbers with the digits they came with, prices with
//! thousands separators, and a dash for what is missing.

use serde_json::Value;

use crate::text;

/// What stands where there is nothing to show.
pub const MISSING: &str = "–";

// What is still pleasant to read in a channel.
const LIST_FIELDS_MAX: usize = 20;
const LIST_VALUE_CHARACTERS_MAX: usize = 300;

/// A value in words. Text is shown as it is, lists with commas, objects as JSON.
pub fn show(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => MISSING.to_owned(),
        Some(Value::String(text)) if text.trim().is_empty() => MISSING.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(answer)) => answer.to_string(),
        Some(Value::Number(number)) => number.as_str().to_owned(),
        Some(Value::Array(items)) if items.is_empty() => MISSING.to_owned(),
        Some(Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|item| show(Some(item))).collect();
            items.join(", ")
        }
        // Not `to_string()`, which would bring a second serialiser of some kilobytes along.
        Some(Value::Object(members)) => serde_json::to_string(members).unwrap_or_default(),
    }
}

/// As [`show`], for a value whose field has a name: a number in a field that names money, such as
/// `amount` or `unitPrice`, gets thousands separators; an order's number or a year does not.
pub fn show_named(name: &str, value: Option<&Value>) -> String {
    match value {
        Some(Value::Number(number)) if names_money(name) => group_digits(number.as_str()),
        value => show(value),
    }
}

/// The payload's `amount` and `currency`: `39,000 KRW`.
pub fn price(payload: &Value) -> String {
    let amount = match payload.get("amount") {
        Some(Value::Number(number)) => group_digits(number.as_str()),
        Some(Value::String(text)) if !text.trim().is_empty() => group_digits(text),
        _ => return MISSING.to_owned(),
    };
    match payload.get("currency").and_then(Value::as_str) {
        Some(currency) if !currency.trim().is_empty() => format!("{amount} {currency}"),
        _ => amount,
    }
}

/// `1234567.50` becomes `1,234,567.50`. What is not a plain decimal number is left as it is.
pub fn group_digits(number: &str) -> String {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !fraction.is_none_or(plain) {
        return number.to_owned();
    }
    let mut grouped = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if let Some(fraction) = fraction {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

/// The payload's own fields, for an event nothing more is known about: `None` where the payload is
/// not an object. Fields whose name says that they hold a secret are left out.
pub fn fields(payload: &Value) -> Option<Vec<(&str, &Value)>> {
    let fields = payload.as_object()?.iter();
    Some(fields.filter(|(name, _)| !names_secret(name)).map(|(name, value)| (name.as_str(), value)).collect())
}

/// A message to people of an event nothing more is known about: `line` of each of the payload's first
/// [`fields`], with its name and its value as [`show_named`] has it, cut where it is long. `escape` is applied to both
/// before `line` has them, and to a payload that has no fields.
pub fn list(payload: &Value, escape: fn(&str) -> String, line: impl Fn(&str, &str) -> String) -> String {
    let Some(fields) = fields(payload) else {
        return escape(&show(Some(payload)));
    };
    let shown = |name, value| text::truncate(&show_named(name, Some(value)), LIST_VALUE_CHARACTERS_MAX);
    let first = fields.iter().take(LIST_FIELDS_MAX);
    let mut lines: Vec<_> = first.map(|(name, value)| line(&escape(name), &escape(&shown(name, value)))).collect();
    if let Some(more) = fields.len().checked_sub(LIST_FIELDS_MAX).filter(|more| *more > 0) {
        lines.push(format!("… and {more} more"));
    }
    if lines.is_empty() { MISSING.to_owned() } else { lines.join("\n") }
}

fn names_money(name: &str) -> bool {
    let name = name.as_bytes();
    let ends_with = |word: &&str| {
        let end = name.len().checked_sub(word.len()).and_then(|start| name.get(start..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(word.as_bytes()))
    };
    ["amount", "price", "total"].iter().any(ends_with)
}

/// A message to a chat room is read by many; better a field too few than a password.
fn names_secret(name: &str) -> bool {
    let mut name = name.to_ascii_lowercase();
    name.retain(|character| !matches!(character, '_' | '-'));
    // Names are short: `contains` would spend more on getting ready for each word than this on looking.
    let holds = |word: &&str| name.as_bytes().windows(word.len()).any(|part| part == word.as_bytes());
    ["password", "passwd", "secret", "token", "apikey", "privatekey"].iter().any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).expect("it is JSON")
    }

    #[test]
    fn numbers_keep_their_digits() {
        let payload = parsed(r#"{"a":1.50,"b":123456789012345678901234567890,"c":1e400}"#);
        assert_eq!(show(payload.get("a")), "1.50");
        assert_eq!(show(payload.get("b")), "123456789012345678901234567890");
        assert_eq!(show(payload.get("c")), "1e+400");
    }

    #[test]
    fn whole_digits_are_grouped_in_threes() {
        let table = [
            ("0", "0"),
            ("999", "999"),
            ("1000", "1,000"),
            ("-1234567", "-1,234,567"),
            ("1234.5670", "1,234.5670"),
            ("123456789012345678901", "123,456,789,012,345,678,901"),
            ("1e9", "1e9"),
            ("12a", "12a"),
            ("", ""),
            ("-", "-"),
            ("1.", "1."),
        ];
        for (number, grouped) in table {
            assert_eq!(group_digits(number), grouped, "{number}");
        }
    }

    #[test]
    fn a_price_is_an_amount_and_perhaps_a_currency() {
        assert_eq!(price(&json!({"amount": 39000, "currency": "KRW"})), "39,000 KRW");
        assert_eq!(price(&json!({"amount": "39000"})), "39,000");
        assert_eq!(price(&json!({"currency": "KRW"})), MISSING);
        assert_eq!(price(&json!(null)), MISSING);
    }

    #[test]
    fn only_money_is_grouped_by_name() {
        let number = json!(20250115);
        assert_eq!(show_named("orderNumber", Some(&number)), "20250115");
        assert_eq!(show_named("totalAmount", Some(&number)), "20,250,115");
    }

    #[test]
    fn nothing_is_shown_as_a_dash() {
        for value in [json!(null), json!(""), json!("  "), json!([])] {
            assert_eq!(show(Some(&value)), MISSING);
        }
        assert_eq!(show(None), MISSING);
        assert_eq!(show(Some(&json!(["a", null, 2]))), "a, –, 2");
    }

    #[test]
    fn a_list_has_a_line_for_each_field() {
        let list =
            |payload: &Value| list(payload, |text| text.replace('<', "&lt;"), |name, value| format!("{name}={value}"));
        assert_eq!(list(&json!({"a<": "<b>", "amount": 1000, "token": "x"})), "a&lt;=&lt;b>\namount=1,000");
        assert_eq!(list(&json!("<b>")), "&lt;b>");
        assert_eq!(list(&json!({"token": "x"})), MISSING);
        let many: serde_json::Map<_, _> =
            (0..22).map(|number| (format!("f{number}"), json!("가".repeat(301)))).collect();
        let many = list(&Value::Object(many));
        assert_eq!(many.lines().count(), 21);
        assert_eq!(many.lines().next(), Some(format!("f0={}…", "가".repeat(299)).as_str()));
        assert_eq!(many.lines().last(), Some("… and 2 more"));
    }

    #[test]
    fn secrets_are_not_listed() {
        let payload = json!({"email": "a@b.kr", "passwordHash": "x", "api_key": "y", "resetToken": "z"});
        let fields = fields(&payload).expect("an object");
        assert_eq!(fields.iter().map(|field| field.0).collect::<Vec<_>>(), ["email"]);
    }
}
