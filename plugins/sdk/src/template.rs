//! Texts with places in them: `{payload.amount}` is replaced by what the event has there. They are
//! parsed with the config, so that a mistake is found before the first event; once parsed they
//! never fail: what an event does not have is shown as a dash.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::by_type::ByType;
use crate::{Error, Event, value, verdict};

/// A text with places.
///
/// | place | gives |
/// |---|---|
/// | `{id}` `{eventType}` `{aggregateType}` `{aggregateId}` `{occurredAt}` | that part of the event |
/// | `{payload}` `{payload.items.0.name}` | the payload, or what is in it; lists by number |
/// | `{metadata.region}` | the same in the metadata |
/// | `{price}` | the payload's `amount` and `currency`: `39,000 KRW` |
/// | `{payload.count:,}` | a number with thousands separators |
/// | `{{` and `}}` | a brace |
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place { source: Source, grouped: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Id,
    EventType,
    AggregateType,
    AggregateId,
    OccurredAt,
    Price,
    Payload(Vec<String>),
    Metadata(Vec<String>),
}

impl Template {
    /// Reads a template; the error says what is wrong with it, for the operator who wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("a template is empty; leave it out instead".to_owned());
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..at + 1];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let (place, after) = match rest.split_once('}') {
                Some(found) if brace == "{" => found,
                _ => {
                    return Err(format!(
                        "a `{brace}` without its partner in the template `{text}`; write `{brace}{brace}` for a brace"
                    ));
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(parse_place(place)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// A template that the plugin brings along.
    ///
    /// # Panics
    ///
    /// Where it is none, which the plugin's own tests see.
    pub fn built_in(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// The text for this event. `escape` is applied to every value, and to nothing else: what the
    /// operator wrote is meant as it stands, what an event holds is not to be trusted.
    pub fn render(&self, event: &Event, escape: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Place { source, grouped } => {
                    let shown = show(source, event);
                    let shown = if *grouped { value::group_digits(&shown) } else { shown };
                    text.push_str(&escape(&shown));
                }
            }
        }
        text
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

fn parse_place(place: &str) -> Result<Part, String> {
    let (path, grouped) = match place.strip_suffix(":,") {
        Some(path) => (path, true),
        None => (place, false),
    };
    let mut segments = path.split('.').map(str::to_owned);
    let root = segments.next().unwrap_or_default();
    let segments: Vec<String> = segments.collect();
    let source = match (root.as_str(), segments.is_empty()) {
        ("id", true) => Source::Id,
        ("eventType", true) => Source::EventType,
        ("aggregateType", true) => Source::AggregateType,
        ("aggregateId", true) => Source::AggregateId,
        ("occurredAt", true) => Source::OccurredAt,
        ("price", true) => Source::Price,
        ("payload", _) => Source::Payload(segments),
        ("metadata", _) => Source::Metadata(segments),
        _ => {
            return Err(format!(
                "unknown placeholder `{{{place}}}`; known are `{{payload.…}}`, `{{metadata.…}}`, `{{price}}`, `{{id}}`, `{{eventType}}`, `{{aggregateType}}`, `{{aggregateId}}`, `{{occurredAt}}`"
            ));
        }
    };
    Ok(Part::Place { source, grouped })
}

fn show(source: &Source, event: &Event) -> String {
    let text = match source {
        Source::Id => &event.id,
        Source::EventType => &event.event_type,
        Source::AggregateType => &event.aggregate_type,
        Source::AggregateId => &event.aggregate_id,
        Source::OccurredAt => &event.occurred_at,
        Source::Price => return value::price(&event.payload),
        Source::Payload(path) => return show_at(path, Some(&event.payload)),
        Source::Metadata(path) => {
            let Some((first, rest)) = path.split_first() else {
                return serde_json::to_string(&event.metadata).unwrap_or_default();
            };
            // The names of what is found, so that `metadata.amount` is shown like `payload.amount`.
            let found = event.metadata.get(first);
            return match rest {
                [] => value::show_named(first, found),
                rest => show_at(rest, found),
            };
        }
    };
    if text.is_empty() { value::MISSING.to_owned() } else { text.clone() }
}

fn show_at(path: &[String], from: Option<&Value>) -> String {
    let found = from.and_then(|from| path.iter().try_fold(from, step));
    value::show_named(path.last().map_or("", String::as_str), found)
}

/// One step into an object by name, or into a list by number.
fn step<'value>(value: &'value Value, segment: &String) -> Option<&'value Value> {
    match value {
        Value::Object(members) => members.get(segment),
        Value::Array(items) => items.get(segment.parse::<usize>().ok()?),
        _ => None,
    }
}

/// The event for a template that a service keeps, which names its parts in its own way: `{{payload.email}}`,
/// `{{price}}`, `{{eventType}}`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are those of `Event`, and the price as `{price}` shows it")]
pub struct Variables<'event> {
    pub id: &'event str,
    pub event_type: &'event str,
    pub aggregate_type: &'event str,
    pub aggregate_id: &'event str,
    pub occurred_at: &'event str,
    pub price: String,
    pub payload: &'event Value,
}

impl<'event> Variables<'event> {
    /// The variables of this event.
    pub fn of(event: &'event Event) -> Self {
        Self {
            id: &event.id,
            event_type: &event.event_type,
            aggregate_type: &event.aggregate_type,
            aggregate_id: &event.aggregate_id,
            occurred_at: &event.occurred_at,
            price: value::price(&event.payload),
            payload: &event.payload,
        }
    }

    /// The same as JSON text, for a service that wants it in a form.
    pub fn to_json(&self) -> Result<String, Error> {
        verdict::json(self)
    }
}

/// Templates by event type, exact or as a pattern: `order.completed`, `order.*`, `**`.
pub type Templates = ByType<Template>;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(payload: &str) -> Event {
        Event {
            id: "evt_1".into(),
            event_type: "order.completed".into(),
            aggregate_type: "Order".into(),
            aggregate_id: String::new(),
            occurred_at: "2025-01-15T10:30:00Z".into(),
            payload: serde_json::from_str(payload).expect("it is JSON"),
            metadata: serde_json::from_str(r#"{"region":{"name":"서울"},"amount":1000}"#).expect("it is JSON"),
        }
    }

    fn render(template: &str, payload: &str) -> String {
        let template = Template::parse(template).expect("a template");
        template.render(&event(payload), str::to_owned)
    }

    #[test]
    fn places_are_filled_from_the_event() {
        let payload = r#"{"amount":39000,"currency":"KRW","items":[{"name":"책"}],"n":1234567}"#;
        assert_eq!(render("{price}: {payload.items.0.name}", payload), "39,000 KRW: 책");
        assert_eq!(render("{payload.amount} {payload.n} {payload.n:,}", payload), "39,000 1234567 1,234,567");
        assert_eq!(render("{metadata.region.name} {metadata.amount}", payload), "서울 1,000");
        assert_eq!(render("{eventType} {aggregateType} {id}", payload), "order.completed Order evt_1");
    }

    #[test]
    fn what_is_missing_is_a_dash() {
        assert_eq!(render("{payload.a.b} {payload.0} {aggregateId} {price}", r#"["x"]"#), "– x – –");
        assert_eq!(render("{payload.a.b}", r#"{"a":"text"}"#), "–");
        assert_eq!(render("{metadata.no.such}", "null"), "–");
    }

    #[test]
    fn doubled_braces_are_braces() {
        assert_eq!(render("{{payload}} {{{id}}}", "null"), "{payload} {evt_1}");
    }

    #[test]
    fn only_values_are_escaped() {
        let template = Template::parse("<{payload}>").expect("a template");
        let text = template.render(&event(r#""<b>""#), |value| value.replace('<', "&lt;"));
        assert_eq!(text, "<&lt;b>>");
    }

    #[test]
    fn a_service_gets_the_event_in_the_contracts_words() {
        let event = event(r#"{"amount":1000.50,"currency":"KRW"}"#);
        assert_eq!(
            Variables::of(&event).to_json().expect("it is written"),
            concat!(
                r#"{"id":"evt_1","eventType":"order.completed","aggregateType":"Order","aggregateId":"","#,
                r#""occurredAt":"2025-01-15T10:30:00Z","price":"1,000.50 KRW","payload":{"amount":1000.50,"currency":"KRW"}}"#
            )
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (template, message) in [
            ("{payloads.x}", "unknown placeholder `{payloads.x}`"),
            ("{id.x}", "unknown placeholder"),
            ("{}", "unknown placeholder `{}`"),
            ("{payload", "a `{` without its partner"),
            (" ", "a template is empty"),
            ("payload}", "a `}` without its partner"),
        ] {
            let fault = Template::parse(template).expect_err(template);
            assert!(fault.contains(message), "{template}: {fault}");
        }
    }
}
