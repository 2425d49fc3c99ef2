//! Texts with places in them: `{payload.amount}` is replaced by what the event has there. They are
//! parsed with the config, so that a mistake is found before the first event; once parsed they
//! never fail: what an event does not have is shown as a dash.

use std::borrow::Cow;

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
    /// Taken apart each time it is rendered: a call renders a template once, and need not keep its parts.
    text: Cow<'static, str>,
}

#[derive(Clone, Copy, Debug)]
enum Part<'text> {
    Text(&'text str),
    Place { source: Source<'text>, grouped: bool },
}

/// A path is names with dots between them; none is the whole.
#[derive(Clone, Copy, Debug)]
enum Source<'text> {
    Id,
    EventType,
    AggregateType,
    AggregateId,
    OccurredAt,
    Price,
    Payload(Option<&'text str>),
    Metadata(Option<&'text str>),
}

impl Template {
    /// Reads a template; the error says what is wrong with it, for the operator who wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }

    /// A template that the plugin brings along. Rendering one that is none panics, which the plugin's own tests see.
    pub fn built_in(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into() }
    }

    /// The text for this event. `escape` is applied to every value, and to nothing else: what the
    /// operator wrote is meant as it stands, what an event holds is not to be trusted.
    pub fn render(&self, event: &Event, escape: impl Fn(&str) -> String) -> String {
        let mut text = String::with_capacity(2 * self.text.len());
        for part in parts(&self.text) {
            match part.unwrap_or_else(|fault| panic!("{fault}")) {
                Part::Text(literal) => text.push_str(literal),
                Part::Place { source, grouped } => {
                    let shown = show(source, event);
                    let shown = if grouped { value::group_digits(&shown) } else { shown };
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
        if text.trim().is_empty() {
            return Err("a template is empty; leave it out instead".to_owned());
        }
        parts(&text).try_for_each(|part| part.map(|_| ()))?;
        Ok(Self { text: text.into() })
    }
}

/// What a template is made of, in order; nothing follows a fault.
fn parts(text: &str) -> impl Iterator<Item = Result<Part<'_>, String>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let part = next_part(text, rest);
        rest = part.as_ref().map_or("", |(_, after)| *after);
        Some(part.map(|(part, _)| part))
    })
}

/// The part that `rest` begins with, and what comes after it.
fn next_part<'text>(text: &str, rest: &'text str) -> Result<(Part<'text>, &'text str), String> {
    let Some(at) = rest.bytes().position(|byte| matches!(byte, b'{' | b'}')) else {
        return Ok((Part::Text(rest), ""));
    };
    if at > 0 {
        return Ok((Part::Text(&rest[..at]), &rest[at..]));
    }
    let (brace, after) = rest.split_at(1);
    if let Some(after) = after.strip_prefix(brace) {
        return Ok((Part::Text(brace), after));
    }
    match after.split_once('}') {
        Some((place, after)) if brace == "{" => Ok((parse_place(place)?, after)),
        _ => {
            Err(format!("a `{brace}` without its partner in the template `{text}`; write `{brace}{brace}` for a brace"))
        }
    }
}

fn parse_place(place: &str) -> Result<Part<'_>, String> {
    let (path, grouped) = match place.strip_suffix(":,") {
        Some(path) => (path, true),
        None => (place, false),
    };
    let (root, path) = split_first(path);
    let source = match (root, path) {
        ("payload", path) => Source::Payload(path),
        ("metadata", path) => Source::Metadata(path),
        ("id", None) => Source::Id,
        ("eventType", None) => Source::EventType,
        ("aggregateType", None) => Source::AggregateType,
        ("aggregateId", None) => Source::AggregateId,
        ("occurredAt", None) => Source::OccurredAt,
        ("price", None) => Source::Price,
        _ => {
            return Err(format!(
                "unknown placeholder `{{{place}}}`; known are `{{payload.…}}`, `{{metadata.…}}`, `{{price}}`, `{{id}}`, `{{eventType}}`, `{{aggregateType}}`, `{{aggregateId}}`, `{{occurredAt}}`"
            ));
        }
    };
    Ok(Part::Place { source, grouped })
}

/// The first name of a path, and the rest of it.
fn split_first(path: &str) -> (&str, Option<&str>) {
    path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)))
}

fn show(source: Source, event: &Event) -> String {
    let text = match source {
        Source::Id => &event.id,
        Source::EventType => &event.event_type,
        Source::AggregateType => &event.aggregate_type,
        Source::AggregateId => &event.aggregate_id,
        Source::OccurredAt => &event.occurred_at,
        Source::Price => return value::price(&event.payload),
        Source::Payload(None) => return value::show(Some(&event.payload)),
        Source::Payload(Some(path)) => return show_at(path, Some(&event.payload)),
        Source::Metadata(None) => return serde_json::to_string(&event.metadata).unwrap_or_default(),
        Source::Metadata(Some(path)) => {
            let (first, rest) = split_first(path);
            let found = event.metadata.get(first);
            // The names of what is found, so that `metadata.amount` is shown like `payload.amount`.
            return rest.map_or_else(|| value::show_named(first, found), |rest| show_at(rest, found));
        }
    };
    if text.is_empty() { value::MISSING.to_owned() } else { text.clone() }
}

fn show_at(path: &str, from: Option<&Value>) -> String {
    let found = from.and_then(|from| path.split('.').try_fold(from, step));
    value::show_named(path.rsplit('.').next().unwrap_or_default(), found)
}

/// One step into an object by name, or into a list by number.
fn step<'value>(value: &'value Value, segment: &str) -> Option<&'value Value> {
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
