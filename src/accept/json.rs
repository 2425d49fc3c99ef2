//! Strict JSON without building values: the shape of a document's outermost level, and a check of the rest.
//!
//! Raw values skip what they hold without looking at surrogates, ranges of numbers or depth, so whatever is
//! passed on is checked here by the parser that every later stage uses: what is accepted can be read again.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::scan;
use crate::json::plain_bytes;

/// Members of one object that are kept; an envelope has seven, a CloudEvent may have extensions.
pub(super) const MEMBERS_MAX: usize = 128;

/// Why a text is not JSON. Never quotes the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Error(String);

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        match error.classify() {
            // These texts are serde_json's own: a rule, a line and a column.
            Category::Syntax | Category::Eof => Self(error.to_string()),
            // These may quote a value.
            Category::Data | Category::Io => {
                Self(format!("unexpected value at line {} column {}", error.line(), error.column()))
            }
        }
    }
}

/// What stands at a place where an object is wanted.
#[derive(Debug)]
pub(super) enum Shape<'a> {
    /// An object.
    Object(Object<'a>),
    /// Any other value.
    Other,
}

/// An object's members in their order, repeated ones included; their values unread.
#[derive(Debug, Default)]
pub(super) struct Object<'a> {
    /// Name and JSON text of the first [`MEMBERS_MAX`] members.
    pub(super) members: Vec<(Cow<'a, str>, &'a str)>,
    /// Whether there were more.
    pub(super) cut: bool,
    /// Whether all values stand the strict [`check`] already.
    pub(super) checked: bool,
}

/// What a whole document is.
#[derive(Debug)]
pub(super) enum Document<'a> {
    /// One value that is no array.
    One(Shape<'a>),
    /// An array's elements.
    Many(Vec<Shape<'a>>),
    /// An array of more elements than allowed.
    TooMany,
}

/// Reads a document's outermost level; an array's elements count up to `elements_max`.
pub(super) fn document(text: &str, elements_max: usize) -> Result<Document<'_>, Error> {
    if !text.trim_ascii_start().starts_with('[') {
        return shape(text).map(Document::One);
    }
    if let Some(objects) = scan::objects(text, elements_max) {
        return Ok(Document::Many(objects.into_iter().map(Shape::Object).collect()));
    }
    let mut too_many = false;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let elements = deserializer.deserialize_seq(Elements { max: elements_max, too_many: &mut too_many });
    if too_many {
        return Ok(Document::TooMany);
    }
    let elements = elements?;
    deserializer.end()?;
    Ok(Document::Many(elements))
}

/// Reads one value's outermost level.
pub(super) fn shape(text: &str) -> Result<Shape<'_>, Error> {
    match scan::object(text) {
        Some(object) => Ok(Shape::Object(object)),
        None => parsed_shape(text),
    }
}

/// The same, by the parser.
pub(super) fn parsed_shape(text: &str) -> Result<Shape<'_>, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let shape = ShapeSeed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(shape)
}

/// Checks a whole value: nesting of at most 127, numbers within the range of a double, whole surrogate pairs.
pub(super) fn check(text: &str) -> Result<(), Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(())
}

/// The text of a JSON string, borrowed where it has no escapes; `None` when it is another value. `raw` is a value's JSON text.
pub(super) fn string(raw: &str) -> Result<Option<Cow<'_, str>>, Error> {
    let Some(opened) = raw.strip_prefix('"') else { return Ok(None) };
    let is_plain = |text: &&str| plain_bytes(text.as_bytes()) == text.len();
    Ok(Some(match opened.strip_suffix('"').filter(is_plain) {
        Some(plain) => Cow::Borrowed(plain),
        None => Cow::Owned(serde_json::from_str(raw)?),
    }))
}

struct Elements<'f> {
    max: usize,
    too_many: &'f mut bool,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = Vec<Shape<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element_seed(ShapeSeed)? {
            if elements.len() == self.max {
                *self.too_many = true;
                return Err(A::Error::custom("too many elements"));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

struct ShapeSeed;

impl<'de> DeserializeSeed<'de> for ShapeSeed {
    type Value = Shape<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ShapeSeed {
    type Value = Shape<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = Object { members: Vec::with_capacity(8), cut: false, checked: false };
        while let Some(name) = map.next_key_seed(Name)? {
            let value = map.next_value::<&'de RawValue>()?;
            if object.members.len() < MEMBERS_MAX {
                object.members.push((name, value.get()));
            } else {
                object.cut = true;
            }
        }
        Ok(Shape::Object(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        // Nothing of it is read again, so it is checked here: broken JSON is told as that.
        Strict.visit_seq(seq)?;
        Ok(Shape::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Shape::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Shape::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Shape::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Shape::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Shape::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Shape::Other)
    }
}

/// A member's name, borrowed where it has no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// Reads a value in full, by the parser's strict side, and keeps nothing.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // `IgnoredAny` asks for `deserialize_ignored_any`, which skips as a raw value does; this does not.
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Strict)?.is_some() {
            map.next_value_seed(Strict)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Strict)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_strict_check_takes_and_refuses() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let digits = "9".repeat(100_000);
        for (text, good) in [
            ("{}", true),
            (" [1, 2.50, -0, 1e5] ", true),
            ("18446744073709551616", true),
            ("1e308", true),
            ("1e-999", true),
            (r#""\u0000 \ud83d\ude00""#, true),
            (r#"{"a":1,"a":2}"#, true),
            ("null", true),
            (nested(127).as_str(), true),
            (nested(128).as_str(), false),
            (nested(100_000).as_str(), false),
            ("1e999", false),
            ("-1e999", false),
            (digits.as_str(), false),
            ("01", false),
            ("NaN", false),
            ("Infinity", false),
            (r#""\ud83d""#, false),
            (r#""\udc00""#, false),
            (r#"{"\ud83d":1}"#, false),
            ("\"\0\"", false),
            ("\"a\nb\"", false),
            ("\u{feff}{}", false),
            ("[1,]", false),
            ("{}{}", false),
            ("{} x", false),
            ("'a'", false),
            ("", false),
        ] {
            assert_eq!(check(text).is_ok(), good, "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn what_is_accepted_can_be_read_as_a_value() {
        for text in [r#"{"a":[1,2.5,"\u00e9",null,true]}"#, "18446744073709551616", r#""\u0000""#] {
            assert!(check(text).is_ok() && serde_json::from_str::<serde_json::Value>(text).is_ok());
        }
    }

    #[test]
    fn error_texts_never_quote_the_text() {
        let text = check(r#"{"card":"4111", "secret": tru}"#).unwrap_err().to_string();
        assert_eq!(text, "expected ident at line 1 column 30");
        assert!(!shape(r#"{"card" "4111"}"#).unwrap_err().to_string().contains("4111"));
    }

    #[test]
    fn a_string_is_borrowed_where_it_says_what_it_means() {
        for (raw, text) in [("\"\"", ""), ("\"evt_1\"", "evt_1"), ("\"주문\"", "주문")] {
            assert!(matches!(string(raw), Ok(Some(Cow::Borrowed(plain))) if plain == text), "{raw}");
        }
        for (raw, text) in [(r#""\u0041""#, "A"), (r#""a\"b""#, "a\"b"), (r#""\\""#, "\\")] {
            assert!(matches!(string(raw), Ok(Some(Cow::Owned(read))) if read == text), "{raw}");
        }
        for raw in ["\"", "\"a", r#""\""#, "\"a\"b\"", "\"a\nb\"", r#""\ud83d""#] {
            assert!(string(raw).is_err(), "{raw}");
        }
        assert!(matches!(string("7"), Ok(None)));
    }

    #[test]
    fn members_are_kept_in_order_and_unread() {
        let Shape::Object(object) = shape(r#"{"a": 1.00 ,"\u0062":{ },"a":null}"#).unwrap() else {
            panic!("it is an object")
        };
        assert_eq!(
            object.members,
            [(Cow::Borrowed("a"), "1.00"), (Cow::Borrowed("b"), "{ }"), (Cow::Borrowed("a"), "null")]
        );
    }

    #[test]
    fn elements_and_members_beyond_the_limits_are_not_kept() {
        assert!(matches!(document("[1,2,3]", 2), Ok(Document::TooMany)));
        assert!(matches!(document("[1,{}]", 2).unwrap(), Document::Many(elements) if elements.len() == 2));
        assert!(document("[1,2", 2).is_err() && document("[1] 2", 2).is_err());
        let many = format!("{{{}\"last\":0}}", "\"a\":1,".repeat(MEMBERS_MAX));
        let Shape::Object(object) = shape(&many).unwrap() else { panic!("it is an object") };
        assert!(object.cut && object.members.len() == MEMBERS_MAX);
    }
}
