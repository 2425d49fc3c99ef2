//! `where`: a CEL expression over the event. It must be `true`; anything else, an error included, keeps the event away, and says so.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};

use cel::common::ast::{EntryExpr, Expr};
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::parser::Expression;
use cel::{Context, Env, Program};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::foresight::{self, Foresight};
use crate::event::Event;

/// How long a reason may be, in characters: a reason may quote a key of the payload.
const REASON_CHARS_MAX: usize = 200;

/// How many steps nested macros may take. CEL has no budget of its own, and `a.all(x, b.all(y, …))` takes the square of
/// what a producer sends.
const STEPS_MAX: u64 = 1_000_000;

/// Up to these sizes a payload is parsed, or looped over once, within a few milliseconds.
const PARSE_QUICK_BYTES_MAX: usize = 256 * 1024;
const LOOP_QUICK_BYTES_MAX: usize = 16 * 1024;

/// What an expression may name.
pub(super) const VARIABLES: [&str; 7] =
    ["eventType", "aggregateType", "aggregateId", "payload", "metadata", "occurredAt", "source"];

pub(super) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled `where`.
pub struct Condition {
    pub(super) program: Program,
    pub(super) text: Box<str>,
    /// What is known of it whatever the event.
    pub(super) foresight: Foresight,
    /// How deep its macros are nested; one that builds a list counts twice, since it may copy what it visits.
    nesting: u32,
    /// The longest list that stands in the expression itself.
    list_length: usize,
}

/// Why an expression can't be used, or a part of it can't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionError {
    /// What is wrong.
    pub message: String,
    /// The known name that is nearest to one that is not known.
    pub suggestion: Option<&'static str>,
    /// The part of the expression that is at fault, in bytes, where it can be told.
    pub part: Option<Range<usize>>,
}

impl std::error::Error for ConditionError {}

impl fmt::Display for ConditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.suggestion.map_or(Ok(()), |suggestion| write!(f, "; did you mean `{suggestion}`?"))
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

impl Condition {
    /// Compiles an expression and looks for what can't work; of one that is no CEL only the first mistake is told.
    pub fn compile(text: &str) -> Result<Self, Vec<ConditionError>> {
        let program = ENVIRONMENT.compile(text).map_err(|errors| vec![syntax_error(&errors, text)])?;
        let foresight = foresight::look(&program)?;
        Ok(Self { foresight, ..Self::unforeseen(program, text) })
    }

    /// A program of which nothing is asked beforehand.
    pub(super) fn unforeseen(program: Program, text: &str) -> Self {
        let (mut nesting, mut list_length) = (0, 0);
        measure(program.expression(), 0, &mut nesting, &mut list_length);
        Self { program, text: text.into(), foresight: Foresight::default(), nesting, list_length }
    }

    /// Whether it may take more than a few milliseconds over a payload of this size.
    pub(super) fn takes_long(&self, payload_bytes: usize) -> bool {
        let quick_bytes_max = match self.nesting {
            0 => PARSE_QUICK_BYTES_MAX,
            1 => LOOP_QUICK_BYTES_MAX,
            _ => 0,
        };
        payload_bytes > quick_bytes_max
    }

    /// Why the event is kept away; `None` when the expression is true.
    pub(super) fn refuses(&self, variables: &Variables<'_>) -> Option<Arc<str>> {
        if self.nesting > 1 {
            let widest = u64::try_from(variables.widest().max(self.list_length)).unwrap_or(u64::MAX);
            if widest.saturating_pow(self.nesting) > STEPS_MAX {
                return Some(format!("where failed: too much work, nested macros over a list of {widest}").into());
            }
        }
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(variables);
        match self.program.execute(&context) {
            Ok(cel::Value::Bool(true)) => None,
            Ok(cel::Value::Bool(false)) => Some("where is false".into()),
            Ok(other) => Some(cut(&format!("where is not true or false but a {}", other.type_of()))),
            // Some of these errors print the values they met, and a reason must not carry the payload.
            Err(error) => Some(cut(&format!("where failed: {}", describe(&error)))),
        }
    }
}

/// The parser's first complaint, with the place that it gives as line and column.
fn syntax_error(errors: &cel::ParseErrors, text: &str) -> ConditionError {
    let Some(first) = errors.errors.first() else {
        return ConditionError { message: errors.to_string(), suggestion: None, part: None };
    };
    let (line, column) = (usize::try_from(first.pos.0).unwrap_or(1), usize::try_from(first.pos.1).unwrap_or(1));
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let in_line = text[before..].char_indices().nth(column.saturating_sub(1)).map_or(text.len() - before, |(at, _)| at);
    let at = before + in_line;
    let part = at..at + text[at..].chars().next().map_or(0, char::len_utf8);
    ConditionError { message: format!("{} (column {column})", first.msg), suggestion: None, part: Some(part) }
}

/// Finds the deepest nesting of macros and the longest list literal.
fn measure(expression: &Expression, depth: u32, nesting: &mut u32, list_length: &mut usize) {
    *nesting = (*nesting).max(depth);
    let mut visit = |expression: &Expression, depth| measure(expression, depth, nesting, list_length);
    match &expression.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).for_each(|e| visit(e, depth)),
        Expr::Select(select) => visit(&select.operand, depth),
        Expr::List(list) => {
            list.elements.iter().for_each(|element| visit(element, depth));
            *list_length = (*list_length).max(list.elements.len());
        }
        Expr::Map(map) => map.entries.iter().for_each(|entry| measure_entry(&entry.expr, depth, nesting, list_length)),
        Expr::Struct(fields) => {
            fields.entries.iter().for_each(|entry| measure_entry(&entry.expr, depth, nesting, list_length));
        }
        Expr::Comprehension(c) => {
            let builds_a_list = matches!(c.accu_init.expr, Expr::List(_));
            let inside = depth + 1 + u32::from(builds_a_list);
            visit(&c.iter_range, depth);
            [&c.accu_init, &c.loop_cond, &c.loop_step, &c.result].into_iter().for_each(|e| visit(e, inside));
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn measure_entry(entry: &EntryExpr, depth: u32, nesting: &mut u32, list_length: &mut usize) {
    match entry {
        EntryExpr::StructField(field) => measure(&field.value, depth, nesting, list_length),
        EntryExpr::MapEntry(entry) => {
            measure(&entry.key, depth, nesting, list_length);
            measure(&entry.value, depth, nesting, list_length);
        }
    }
}

pub(super) fn describe(error: &cel::ExecutionError) -> String {
    use cel::ExecutionError as E;
    match error {
        E::NoSuchKey(key) => format!("no such key: {key}"),
        E::UndeclaredReference(name) => format!("`{name}` is not known"),
        E::DivisionByZero(_) => "division by zero".to_owned(),
        E::RemainderByZero(_) => "remainder by zero".to_owned(),
        E::Overflow(..) => "a number or a time is out of range".to_owned(),
        E::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        E::FunctionError { function, .. } => format!("`{function}` failed"),
        E::InvalidArgumentCount { expected, actual } => format!("a function takes {expected} arguments, not {actual}"),
        E::UnsupportedBinaryOperator(operator, ..) => format!("`{operator}` does not fit the types of its sides"),
        E::ValuesNotComparable(..) => "two values can't be compared".to_owned(),
        _ => "an operation does not fit the type of a value".to_owned(),
    }
}

fn cut(text: &str) -> Arc<str> {
    text.chars().take(REASON_CHARS_MAX).collect::<String>().into()
}

/// The event as variables. Payload and metadata are parsed when first asked for, and once for all conditions.
pub(super) struct Variables<'event> {
    event: &'event Event,
    payload: OnceLock<Parsed>,
    metadata: OnceLock<Parsed>,
}

/// A JSON text as a value, and the length of its longest list or map.
struct Parsed {
    value: Box<dyn Val>,
    widest: usize,
}

impl<'event> Variables<'event> {
    pub(super) fn of(event: &'event Event) -> Self {
        Self { event, payload: OnceLock::new(), metadata: OnceLock::new() }
    }

    fn payload(&self) -> &Parsed {
        self.payload.get_or_init(|| parse(&self.event.payload))
    }

    fn metadata(&self) -> &Parsed {
        self.metadata.get_or_init(|| parse(&self.event.metadata))
    }

    /// The length of the longest list or map that an expression can meet.
    fn widest(&self) -> usize {
        self.payload().widest.max(self.metadata().widest)
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let text = |text: &'b str| Some(CowVal::owned(CelString::from(text)));
        match variable {
            "eventType" => text(&self.event.event_type),
            "aggregateType" => text(&self.event.aggregate_type),
            "aggregateId" => text(&self.event.aggregate_id),
            "occurredAt" => text(&self.event.occurred_at),
            "source" => text(&self.event.source),
            "payload" => Some(CowVal::Borrowed(&*self.payload().value)),
            "metadata" => Some(CowVal::Borrowed(&*self.metadata().value)),
            _ => None,
        }
    }
}

/// JSON as a CEL value. Accepted JSON always parses; a record that was damaged since reads as null.
fn parse(json: &str) -> Parsed {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let widest = Cell::new(0);
    let value = ValueSeed(&widest).deserialize(&mut deserializer).unwrap_or_else(|_| Box::new(CelNull));
    Parsed { value, widest: widest.get() }
}

/// Reads any JSON value: whole numbers are `int` (or `uint` above its range), others `double`.
#[derive(Clone, Copy)]
struct ValueSeed<'widest>(&'widest Cell<usize>);

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Box<dyn Val>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Box<dyn Val>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Box::new(CelBool::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Box::new(CelInt::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => Box::new(CelInt::from(value)),
            Err(_) => Box::new(CelUInt::from(value)),
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Box::new(CelDouble::from(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Box::new(CelString::from(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Box::new(CelNull))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(self)? {
            values.push(value);
        }
        self.0.set(self.0.get().max(values.len()));
        Ok(Box::new(CelList::from(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values: HashMap<CelMapKey, Box<dyn Val>> = HashMap::new();
        while let Some(key) = map.next_key::<String>()? {
            values.insert(CelMapKey::String(CelString::from(key)), map.next_value_seed(self)?);
        }
        self.0.set(self.0.get().max(values.len()));
        Ok(Box::new(CelMap::from(values)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event;

    fn reason(expression: &str, payload: &str) -> Option<String> {
        let mut event = event::sample("evt_1", "order.created", payload);
        event.metadata = r#"{"tenant":"blue"}"#.into();
        event.aggregate_id = "order_1".into();
        Condition::compile(expression).unwrap().refuses(&Variables::of(&event)).map(|reason| reason.to_string())
    }

    #[test]
    fn expressions_see_every_field_of_the_event() {
        for expression in [
            "payload.amount >= 10000",
            "payload.amount * 2 == 20000",
            "payload['amount'] > 9999.5",
            "has(payload.user) && !has(payload.nothing)",
            "payload.user.tags.exists(t, t == 'vip')",
            "size(payload.user.tags) == 2",
            "payload.user.name.startsWith('김')",
            "metadata.tenant == 'blue' && source == 'app' && aggregateId == 'order_1'",
            "eventType in ['order.created', 'order.completed']",
            "timestamp(occurredAt) < timestamp('2026-01-01T00:00:00Z')",
            "payload.big == 18446744073709551615u",
            "payload.none == null && type(payload.amount) == int",
        ] {
            let payload = r#"{"amount":10000,"user":{"name":"김철수","tags":["new","vip"]},"big":18446744073709551615,"none":null}"#;
            assert_eq!(reason(expression, payload), None, "{expression}");
        }
    }

    #[test]
    fn what_is_not_true_keeps_the_event_away_and_says_why_without_quoting_the_payload() {
        let payload = r#"{"amount":"marker","none":0}"#;
        assert_eq!(reason("payload.amount == 'x'", payload).unwrap(), "where is false");
        assert_eq!(reason("payload.missing > 1", payload).unwrap(), "where failed: no such key: missing");
        assert!(reason("payload.amount", payload).unwrap().starts_with("where is not true or false"));
        for expression in
            ["payload.amount > 10", "payload.amount.x == 1", "1 / payload.none == 1", "size(payload.none) == 1"]
        {
            let reason = reason(expression, payload).unwrap();
            assert!(reason.starts_with("where failed: ") && !reason.contains("marker"), "{reason}");
        }
    }

    #[test]
    fn nested_macros_over_long_lists_are_not_begun() {
        let list = |length: usize| format!(r#"{{"items":[{}]}}"#, vec!["1"; length].join(","));
        let nested = "payload.items.all(x, payload.items.exists(y, x == y))";
        assert_eq!(reason(nested, &list(1_000)), None);
        for (expression, length) in [
            (nested, 1_001),
            ("payload.items.all(x, payload.items.all(y, payload.items.all(z, x == z)))", 101),
            ("size(payload.items.map(x, payload.items)) > 0", 1_001),
            ("payload.items.all(x, {'a': [1].all(y, payload.items.exists(z, z == x))}.a)", 101),
        ] {
            let reason = reason(expression, &list(length)).unwrap();
            assert!(reason.starts_with("where failed: too much work"), "{expression}: {reason}");
        }
        assert_eq!(reason("payload.items.all(x, x == 1)", &list(50_000)), None, "one loop may be long");
    }

    #[test]
    fn unknown_names_and_bad_syntax_are_refused_when_compiled() {
        let errors = Condition::compile("paylod.amount > 1").unwrap_err();
        assert_eq!((errors.len(), errors[0].suggestion), (1, Some("payload")), "{errors:?}");
        assert!(Condition::compile("payload.amount >").is_err());
    }
}
