//! Why an event fits a route or does not, for people: the first thing that kept it away, with the value it met. Matching
//! itself never comes here; what decides is the same patterns and conditions.

use std::sync::Arc;

use cel::Context;
use cel::common::ast::{EntryExpr, Expr, LiteralValue, operators};
use cel::parser::Expression;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::condition::{Condition, ENVIRONMENT, VARIABLES, Variables};
use super::{CompiledRoute, RouteTable};
use crate::event::Event;
use crate::route::Subscription;

/// How much of a field's value is shown, in characters.
const VALUE_CHARS_MAX: usize = 120;
/// Fields of one condition whose values are shown.
const FIELDS_MAX: usize = 16;

/// Whether a route wants an event, or the first thing that kept the event away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fit", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Fit {
    /// It wants it.
    Matched {
        /// The first pattern that fits.
        pattern: String,
        /// Its `where`, if it has one: it was true.
        #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
        condition: Option<Judged>,
    },
    /// None of its patterns fits the event's type.
    EventType {
        /// Where each of them differs.
        patterns: Vec<Misfit>,
    },
    /// It takes events from other sources only.
    Source {
        /// Those.
        wanted: Vec<String>,
        /// The event's.
        saw: String,
    },
    /// Its `where` was not true.
    Where {
        /// What it met.
        #[serde(rename = "where")]
        condition: Judged,
    },
}

/// The first segment in which a pattern and an event type differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Misfit {
    /// The pattern.
    pub pattern: String,
    /// Which segment, from 1.
    pub segment: usize,
    /// What the pattern has there; absent where it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// What the type has there; absent where it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saw: Option<String>,
}

/// A `where` over one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// The expression.
    pub expression: String,
    /// Why it keeps the event away; absent when it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The first of the parts joined by `&&` that is not true, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The fields of the event that it (or the part) reads.
    pub fields: Vec<Field>,
}

/// A field of an event that an expression reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// As an expression names it: `payload.user.tags`.
    pub name: String,
    /// Its value as JSON, cut; absent when the event does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl RouteTable {
    /// Every subscription in the order of the config, with whether its route wants the event: what [`RouteTable::matches`] says, with the reasons.
    pub fn explain(&self, event: &Event) -> Vec<(Arc<Subscription>, Fit)> {
        let variables = Variables::of(event);
        let mut explained = Vec::new();
        for route in &self.routes {
            let fit = fit(route, event, &variables);
            explained.extend(route.subscriptions.iter().map(|subscription| (Arc::clone(subscription), fit.clone())));
        }
        explained
    }
}

fn fit(route: &CompiledRoute, event: &Event, variables: &Variables<'_>) -> Fit {
    let mut misfits = Vec::new();
    for pattern in &route.patterns {
        match pattern.misfit(&event.event_type) {
            Some(misfit) => misfits.push(misfit),
            None => {
                if !route.takes_from(&event.source) {
                    let wanted = route.sources.iter().map(ToString::to_string).collect();
                    return Fit::Source { wanted, saw: event.source.to_string() };
                }
                let condition = route.condition.as_ref().map(|condition| judge(condition, event, variables));
                return match condition {
                    Some(condition) if condition.reason.is_some() => Fit::Where { condition },
                    condition => Fit::Matched { pattern: pattern.to_string(), condition },
                };
            }
        }
    }
    Fit::EventType { patterns: misfits }
}

fn judge(condition: &Condition, event: &Event, variables: &Variables<'_>) -> Judged {
    let reason = condition.refuses(variables).map(|reason| reason.to_string());
    let expression = condition.text.to_string();
    let whole = condition.program.expression();
    let mut parts = Vec::new();
    conjuncts(whole, &mut parts);
    // Only then is it known which part of the text is which part of the expression.
    let texts = split_at_and(&expression).filter(|texts| texts.len() == parts.len() && parts.len() > 1);
    let failing = match (&reason, texts) {
        (Some(_), Some(texts)) => {
            let mut parts = parts.into_iter().zip(texts);
            parts.find(|(part, _)| !is_true(part, variables)).map(|(part, text)| (part, text.to_owned()))
        }
        (_, _) => None,
    };
    let mut fields = Vec::new();
    reads(failing.as_ref().map_or(whole, |(part, _)| part), &mut Vec::new(), &mut fields);
    fields.truncate(FIELDS_MAX);
    let fields = fields.iter().map(|path| Field { name: named(path), value: value(event, path) }).collect();
    Judged { expression, reason, part: failing.map(|(_, text)| text), fields }
}

/// Whether a part of a condition is true by itself.
fn is_true(part: &Expression, variables: &Variables<'_>) -> bool {
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    context.set_variable_resolver(variables);
    matches!(cel::Value::resolve(part, &context), Ok(cel::Value::Bool(true)))
}

/// The parts of `a && b && c`, in their order.
fn conjuncts<'e>(expression: &'e Expression, parts: &mut Vec<&'e Expression>) {
    match &expression.expr {
        Expr::Call(call) if call.func_name == operators::LOGICAL_AND => {
            call.args.iter().for_each(|part| conjuncts(part, parts));
        }
        _ => parts.push(expression),
    }
}

/// The text between the `&&` that stand in no brackets and no quotes. None where quotes are of a kind that is not looked into.
fn split_at_and(text: &str) -> Option<Vec<&str>> {
    if text.contains('\\') || text.contains("\"\"\"") || text.contains("'''") {
        return None;
    }
    let (mut parts, mut begin, mut depth, mut quote) = (Vec::new(), 0, 0_usize, None);
    for (place, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, '&') if depth == 0 && text[place..].starts_with("&&") => {
                parts.push(text[begin..place].trim());
                begin = place + 2;
            }
            (None, _) => {}
        }
    }
    parts.push(text[begin..].trim());
    Some(parts)
}

/// A step from a value to one within it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Place(usize),
}

/// The fields of the event that an expression reads, each once.
fn reads<'e>(expression: &'e Expression, bound: &mut Vec<&'e str>, fields: &mut Vec<Vec<Step>>) {
    if let Some(path) = path(expression) {
        let is_events = matches!(&path[0], Step::Key(root) if VARIABLES.contains(&root.as_str()) && !bound.contains(&root.as_str()));
        if is_events && !fields.contains(&path) {
            fields.push(path);
        }
        return;
    }
    let mut visit_all = |expressions: &mut dyn Iterator<Item = &'e Expression>| {
        expressions.for_each(|expression| reads(expression, bound, fields));
    };
    match &expression.expr {
        Expr::Call(call) => visit_all(&mut call.target.as_deref().into_iter().chain(&call.args)),
        Expr::Select(select) => visit_all(&mut std::iter::once(&*select.operand)),
        Expr::List(list) => visit_all(&mut list.elements.iter()),
        Expr::Map(map) => visit_all(&mut map.entries.iter().flat_map(|entry| within(&entry.expr))),
        Expr::Struct(fields) => visit_all(&mut fields.entries.iter().flat_map(|entry| within(&entry.expr))),
        Expr::Comprehension(c) => {
            visit_all(&mut [&c.iter_range, &c.accu_init].into_iter());
            let outer = bound.len();
            bound.extend(
                [Some(&c.iter_var), Some(&c.accu_var), c.iter_var2.as_ref()].into_iter().flatten().map(|v| &**v),
            );
            for inner in [&c.loop_cond, &c.loop_step, &c.result] {
                reads(inner, bound, fields);
            }
            bound.truncate(outer);
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn within(entry: &EntryExpr) -> Vec<&Expression> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// `payload.user['name'].parts[0]`, if the expression is nothing but such a path.
fn path(expression: &Expression) -> Option<Vec<Step>> {
    match &expression.expr {
        Expr::Ident(name) => Some(vec![Step::Key(name.clone())]),
        Expr::Select(select) => {
            let mut path = path(&select.operand)?;
            path.push(Step::Key(select.field.clone()));
            Some(path)
        }
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let mut operands = call.target.as_deref().into_iter().chain(&call.args);
            let mut path = path(operands.next()?)?;
            path.push(match &operands.next()?.expr {
                Expr::Literal(LiteralValue::String(key)) => Step::Key(key.inner().to_owned()),
                Expr::Literal(LiteralValue::Int(place)) => Step::Place(usize::try_from(*place.inner()).ok()?),
                _ => return None,
            });
            Some(path)
        }
        _ => None,
    }
}

fn named(path: &[Step]) -> String {
    let mut name = String::new();
    for step in path {
        match step {
            Step::Key(key) if key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(key);
            }
            Step::Key(key) => name.push_str(&format!("['{key}']")),
            Step::Place(place) => name.push_str(&format!("[{place}]")),
        }
    }
    name
}

/// The value of a field as JSON, cut.
fn value(event: &Event, path: &[Step]) -> Option<String> {
    let Some((Step::Key(root), steps)) = path.split_first() else { return None };
    let parsed = |json: &str| serde_json::from_str::<Value>(json).ok();
    let root = match root.as_str() {
        "eventType" => (&*event.event_type).into(),
        "aggregateType" => (&*event.aggregate_type).into(),
        "aggregateId" => (&*event.aggregate_id).into(),
        "occurredAt" => (&*event.occurred_at).into(),
        "source" => (&*event.source).into(),
        "payload" => parsed(&event.payload)?,
        "metadata" => parsed(&event.metadata)?,
        _ => return None,
    };
    let found = steps.iter().try_fold(&root, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Place(place) => value.get(place),
    })?;
    let text = found.to_string();
    let mut shown: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::super::tests::route;
    use super::*;
    use crate::event;

    fn explained(patterns: &[&str], sources: &[&str], condition: Option<&str>, payload: &str) -> Fit {
        let table = RouteTable::compile(&[route("r", patterns, sources, condition)]).unwrap();
        let event = event::sample("evt_1", "order.created", payload);
        let fit = table.explain(&event).remove(0).1;
        let wanted = table.matches(&event).iter().any(|found| found.is_wanted());
        assert_eq!(matches!(fit, Fit::Matched { .. }), wanted, "matching and explaining say the same");
        fit
    }

    fn field(name: &str, value: Option<&str>) -> Field {
        Field { name: name.to_owned(), value: value.map(str::to_owned) }
    }

    #[test]
    fn the_first_thing_that_kept_the_event_away_is_told_with_what_it_met() {
        let misfit = |pattern: &str, segment, wanted: Option<&str>, saw: Option<&str>| Misfit {
            pattern: pattern.to_owned(),
            segment,
            wanted: wanted.map(str::to_owned),
            saw: saw.map(str::to_owned),
        };
        assert_eq!(
            explained(&["order.completed", "user.*", "order", "order.created.late.**"], &[], None, "{}"),
            Fit::EventType {
                patterns: vec![
                    misfit("order.completed", 2, Some("completed"), Some("created")),
                    misfit("user.*", 1, Some("user"), Some("order")),
                    misfit("order", 2, None, Some("created")),
                    misfit("order.created.late.**", 3, Some("late"), None),
                ]
            }
        );
        assert_eq!(
            explained(&["user.*", "order.*"], &["shop"], None, "{}"),
            Fit::Source { wanted: vec!["shop".to_owned()], saw: "app".to_owned() }
        );
        assert!(
            matches!(explained(&["user.*", "order.*"], &["app"], None, "{}"), Fit::Matched { pattern, .. } if pattern == "order.*")
        );
    }

    #[test]
    fn a_where_shows_the_part_that_is_not_true_and_the_values_it_reads() {
        let payload = r#"{"amount":9999,"user":{"tags":["a","b"],"name":"김"},"x-y":[{"z":null}]}"#;
        let judged = |expression: &str| match explained(&["**"], &[], Some(expression), payload) {
            Fit::Where { condition } | Fit::Matched { condition: Some(condition), .. } => condition,
            other => panic!("{other:?}"),
        };
        let where_is_false = Some("where is false".to_owned());
        let both = judged("source == 'app' && payload.amount >= 10000");
        assert_eq!(both.reason, where_is_false);
        assert_eq!(both.part.as_deref(), Some("payload.amount >= 10000"));
        assert_eq!(both.fields, [field("payload.amount", Some("9999"))]);
        for (expression, fields) in [
            (
                "payload.user.tags.exists(t, t == 'vip' && payload.amount > 1)",
                vec![("payload.user.tags", Some(r#"["a","b"]"#)), ("payload.amount", Some("9999"))],
            ),
            ("payload['x-y'][0].z != null", vec![("payload['x-y'][0].z", Some("null"))]),
            ("has(payload.company)", vec![("payload.company", None)]),
            (
                "payload.company.size > 1 || payload.amount < 5",
                vec![("payload.company.size", None), ("payload.amount", Some("9999"))],
            ),
            ("(payload.amount > 1 && payload.amount > 10000) && true", vec![("payload.amount", Some("9999"))]),
            ("payload.user.name == '&&' && true", vec![("payload.user.name", Some("\"김\""))]),
            ("eventType == 'a' && \"\\n\" == ''", vec![("eventType", Some("\"order.created\""))]),
            ("payload.amount == 9999", vec![("payload.amount", Some("9999"))]),
        ] {
            let fields: Vec<_> = fields.into_iter().map(|(name, value)| field(name, value)).collect();
            assert_eq!(judged(expression).fields, fields, "{expression}");
        }
        assert_eq!(judged("payload.missing > 1").reason.unwrap(), "where failed: no such key: missing");
    }
}
