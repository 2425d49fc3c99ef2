//! Settings by event type, exact or as a pattern: of several that fit, the one that says most about the
//! type is taken. A pattern that could never fit is refused with the config.

use std::fmt::{self, Display};
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// Settings by event type: `order.completed` exactly, `*` for one segment, `**` for any number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByType<Setting>(Vec<(String, Setting)>);

impl<Setting> ByType<Setting> {
    /// The setting for this event type.
    pub fn find(&self, event_type: &str) -> Option<&Setting> {
        self.0
            .iter()
            .filter(|(pattern, _)| matches(pattern, event_type))
            .max_by_key(|(pattern, _)| precision(pattern))
            .map(|(_, setting)| setting)
    }

    /// All patterns and their settings.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.0.iter().map(|(pattern, setting)| (pattern.as_str(), setting))
    }
}

impl<Setting> Default for ByType<Setting> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'text, Setting: Deserialize<'text>> Deserialize<'text> for ByType<Setting> {
    fn deserialize<From: Deserializer<'text>>(from: From) -> Result<Self, From::Error> {
        from.deserialize_map(Settings(PhantomData))
    }
}

struct Settings<Setting>(PhantomData<Setting>);

impl<'text, Setting: Deserialize<'text>> Visitor<'text> for Settings<Setting> {
    type Value = ByType<Setting>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a table by event type")
    }

    fn visit_map<From: MapAccess<'text>>(self, mut map: From) -> Result<Self::Value, From::Error> {
        let mut settings = Vec::new();
        while let Some(pattern) = map.next_key::<String>()? {
            if !is_pattern(&pattern) {
                return Err(From::Error::custom(not_a_pattern(&pattern)));
            }
            let setting = map
                .next_value()
                .map_err(|fault| From::Error::custom(format_args!("for the event type `{pattern}`: {fault}")))?;
            settings.push((pattern, setting));
        }
        Ok(ByType(settings))
    }
}

fn not_a_pattern(pattern: &str) -> impl Display {
    format!("`{pattern}` is not an event type or pattern, such as `order.completed`, `order.*` or `**`")
}

/// Segments joined by dots; a star stands for whole segments only.
fn is_pattern(pattern: &str) -> bool {
    let whole = |segment: &str| matches!(segment, "*" | "**") || !segment.contains('*');
    pattern.split('.').all(|segment| !segment.is_empty() && whole(segment))
}

/// Whether `*` as one segment and `**` as any number of them make `pattern` the event type.
fn matches(pattern: &str, event_type: &str) -> bool {
    fn fits(pattern: &[&str], segments: &[&str]) -> bool {
        match (pattern.split_first(), segments.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), None) => fits(rest, segments),
            (Some((&"**", rest)), Some((_, after))) => fits(rest, segments) || fits(pattern, after),
            (Some((&wanted, rest)), Some((&segment, after))) => {
                (wanted == "*" || wanted == segment) && fits(rest, after)
            }
            _ => false,
        }
    }
    let pattern: Vec<&str> = pattern.split('.').collect();
    let segments: Vec<&str> = event_type.split('.').collect();
    fits(&pattern, &segments)
}

/// Literal segments count first, then segments of a known number.
fn precision(pattern: &str) -> (usize, usize) {
    let literal = pattern.split('.').filter(|segment| !segment.contains('*'));
    let single = pattern.split('.').filter(|segment| *segment != "**");
    (literal.count(), single.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_says_most_is_chosen() {
        let settings: ByType<String> = serde_json::from_str(
            r#"{"**":"any","order.*":"one","order.**":"many","order.completed":"exact","*.refunded":"kind"}"#,
        )
        .expect("settings");
        let table = [
            ("order.completed", "exact"),
            ("order.cancelled", "one"),
            ("order.item.added", "many"),
            ("payment.refunded", "kind"),
            ("user.created", "any"),
        ];
        for (event_type, setting) in table {
            assert_eq!(settings.find(event_type).map(String::as_str), Some(setting), "{event_type}");
        }
        assert_eq!(ByType::<String>::default().find("order.completed"), None);
    }

    #[test]
    fn a_pattern_is_made_of_whole_segments() {
        for pattern in ["", "order.", "ord*", "order..x"] {
            let text = format!(r#"{{"{pattern}":"x"}}"#);
            let fault = serde_json::from_str::<ByType<String>>(&text).expect_err(pattern);
            assert!(fault.to_string().contains("is not an event type or pattern"), "{fault}");
        }
    }

    #[test]
    fn a_fault_names_the_event_type() {
        let fault = serde_json::from_str::<ByType<u8>>(r#"{"order.*": "x"}"#).expect_err("not a number");
        assert_eq!(
            fault.to_string(),
            "for the event type `order.*`: invalid type: string \"x\", expected u8 at line 1 column 15"
        );
    }
}
