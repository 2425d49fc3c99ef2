//! What is wrong with an expression whatever the event: names that no event has, functions that there are not, types that
//! can't fit. The `cel` crate has no type checker; this one knows literals, the event's fields and the standard functions, and
//! says nothing of what depends on the payload.

use std::sync::Arc;

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};
use cel::parser::Expression;
use cel::{Context, ExecutionError};

use super::condition::{ConditionError, ENVIRONMENT, VARIABLES};

/// Functions that may be meant by a name that is none.
const FUNCTIONS: [&str; 17] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getFullYear",
    "getHours",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
];
/// How far a name may be from the one that is meant.
const SLIPS_MAX: usize = 2;

/// What a value is, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Truth,
    Number,
    Text,
    Bytes,
    List,
    Map,
    Null,
    Time,
    Length,
    Type,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Truth => "true or false",
            Self::Number => "a number",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Null => "null",
            Self::Time => "a timestamp",
            Self::Length => "a duration",
            Self::Type => "a type",
        }
    }
}

/// Finds the first thing that is wrong.
pub(super) fn check(expression: &Expression) -> Result<(), ConditionError> {
    let kind = Scope::default().kind(expression)?;
    match kind {
        None | Some(Kind::Truth) => Ok(()),
        Some(other) => Err(ConditionError::Type(format!("gives {}, and must give true or false", other.as_str()))),
    }
}

/// What an expression that says nothing of the event always gives, if that is true or false.
pub fn constant(text: &str) -> Option<bool> {
    if VARIABLES.iter().any(|name| text.contains(name)) {
        return None;
    }
    let program = ENVIRONMENT.compile(text).ok()?;
    match program.execute(&Context::with_env(Arc::clone(&ENVIRONMENT))) {
        Ok(cel::Value::Bool(always)) => Some(always),
        Ok(_) | Err(_) => None,
    }
}

/// The names that macros around an expression have bound (`exists(t, …)`).
#[derive(Default)]
struct Scope<'e>(Vec<&'e str>);

impl<'e> Scope<'e> {
    /// What the expression gives; `None` where that depends on the event.
    fn kind(&mut self, expression: &'e Expression) -> Result<Option<Kind>, ConditionError> {
        Ok(match &expression.expr {
            Expr::Literal(literal) => Some(match literal {
                LiteralValue::Boolean(_) => Kind::Truth,
                LiteralValue::Bytes(_) => Kind::Bytes,
                LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Kind::Number,
                LiteralValue::Null => Kind::Null,
                LiteralValue::String(_) => Kind::Text,
            }),
            Expr::Ident(name) => self.name(name)?,
            Expr::Select(select) => {
                self.kind(&select.operand)?;
                select.test.then_some(Kind::Truth)
            }
            Expr::List(list) => {
                list.elements.iter().try_for_each(|element| self.kind(element).map(drop))?;
                Some(Kind::List)
            }
            Expr::Map(map) => {
                map.entries.iter().try_for_each(|entry| self.entry(&entry.expr))?;
                Some(Kind::Map)
            }
            Expr::Struct(fields) => {
                fields.entries.iter().try_for_each(|entry| self.entry(&entry.expr))?;
                None
            }
            Expr::Call(call) => self.call(call)?,
            Expr::Comprehension(c) => {
                self.kind(&c.iter_range)?;
                let begins_as = self.kind(&c.accu_init)?;
                let outer = self.0.len();
                self.0.extend(
                    [Some(&c.iter_var), Some(&c.accu_var), c.iter_var2.as_ref()].into_iter().flatten().map(|v| &**v),
                );
                [&c.loop_cond, &c.loop_step, &c.result].into_iter().try_for_each(|e| self.kind(e).map(drop))?;
                self.0.truncate(outer);
                // `all` and `exists` begin with a truth, `map` and `filter` with a list; `exists_one` counts.
                begins_as.filter(|kind| matches!(kind, Kind::Truth | Kind::List))
            }
            Expr::Unspecified => None,
        })
    }

    fn entry(&mut self, entry: &'e EntryExpr) -> Result<(), ConditionError> {
        match entry {
            EntryExpr::StructField(field) => self.kind(&field.value).map(drop),
            EntryExpr::MapEntry(entry) => {
                self.kind(&entry.key)?;
                self.kind(&entry.value).map(drop)
            }
        }
    }

    fn name(&self, name: &str) -> Result<Option<Kind>, ConditionError> {
        if name.starts_with('@') || self.0.contains(&name) {
            return Ok(None);
        }
        match name {
            "payload" => Ok(None),
            "metadata" => Ok(Some(Kind::Map)),
            _ if VARIABLES.contains(&name) => Ok(Some(Kind::Text)),
            _ if is_type_name(name) => Ok(Some(Kind::Type)),
            _ => Err(ConditionError::Unknown { name: name.to_owned(), suggestion: nearest(name, &VARIABLES) }),
        }
    }

    fn call(&mut self, call: &'e CallExpr) -> Result<Option<Kind>, ConditionError> {
        let target = call.target.as_deref().map(|target| self.kind(target)).transpose()?.flatten();
        let arguments = call.args.iter().map(|argument| self.kind(argument)).collect::<Result<Vec<_>, _>>()?;
        let name = call.func_name.as_str();
        let is_operator = !name.starts_with(|c: char| c.is_alphabetic());
        if is_operator {
            return operator(name, &arguments);
        }
        if !is_function(name, call.target.is_some()) {
            return Err(ConditionError::Function { name: name.to_owned(), suggestion: nearest(name, &FUNCTIONS) });
        }
        if let ("startsWith" | "endsWith" | "contains" | "matches", Some(target)) = (name, target)
            && target != Kind::Text
        {
            return Err(ConditionError::Type(format!("`{name}` is for text, not for {}", target.as_str())));
        }
        Ok(match name {
            "size" | "int" | "uint" | "double" => Some(Kind::Number),
            "startsWith" | "endsWith" | "contains" | "matches" | "bool" => Some(Kind::Truth),
            "string" => Some(Kind::Text),
            "bytes" => Some(Kind::Bytes),
            "timestamp" => Some(Kind::Time),
            "duration" => Some(Kind::Length),
            "type" => Some(Kind::Type),
            _ if name.starts_with("get") => Some(Kind::Number),
            _ => None,
        })
    }
}

/// What an operator gives, and whether it fits the kinds of its sides.
fn operator(name: &str, sides: &[Option<Kind>]) -> Result<Option<Kind>, ConditionError> {
    let shown = name.trim_matches('_');
    let misfit = |kinds: [Kind; 2]| {
        let [left, right] = kinds.map(Kind::as_str);
        Err(ConditionError::Type(format!("`{shown}` does not fit {left} and {right}")))
    };
    match (name, sides) {
        ("_&&_" | "_||_" | "!_", sides) => match sides.iter().flatten().find(|kind| **kind != Kind::Truth) {
            Some(kind) => {
                Err(ConditionError::Type(format!("`{shown}` is for true and false, not for {}", kind.as_str())))
            }
            None => Ok(Some(Kind::Truth)),
        },
        ("_==_" | "_!=_", [Some(left), Some(right)])
            if left != right && *left != Kind::Null && *right != Kind::Null =>
        {
            misfit([*left, *right])
        }
        ("_<_" | "_<=_" | "_>_" | "_>=_", [Some(left), Some(right)]) if left != right => misfit([*left, *right]),
        ("_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" | "@in" | "@not_strictly_false", _) => Ok(Some(Kind::Truth)),
        ("_+_" | "_-_", [Some(Kind::Time | Kind::Length), _] | [_, Some(Kind::Time | Kind::Length)]) => Ok(None),
        ("_+_", [Some(left), Some(right)])
            if left != right || !matches!(left, Kind::Number | Kind::Text | Kind::Bytes | Kind::List) =>
        {
            misfit([*left, *right])
        }
        ("_+_", [Some(kind), _] | [_, Some(kind)]) => Ok(Some(*kind)),
        ("_-_" | "_*_" | "_/_" | "_%_", [left, right]) => {
            match [left, right].into_iter().flatten().find(|kind| **kind != Kind::Number) {
                Some(kind) => Err(ConditionError::Type(format!("`{shown}` is for numbers, not for {}", kind.as_str()))),
                None => Ok((left.is_some() || right.is_some()).then_some(Kind::Number)),
            }
        }
        ("_?_:_", [condition, yes, no]) => match condition {
            Some(kind) if *kind != Kind::Truth => {
                Err(ConditionError::Type(format!("what stands before `?` gives {}, not true or false", kind.as_str())))
            }
            Some(_) | None => Ok(if yes == no { *yes } else { None }),
        },
        _ => Ok(None),
    }
}

/// Whether there is a function of this name, by asking the library: a call that fits no form of a function that there is
/// fails otherwise than a call of one that there is not.
fn is_function(name: &str, is_member: bool) -> bool {
    let text = if is_member { format!("null.{name}()") } else { format!("{name}()") };
    let Ok(program) = ENVIRONMENT.compile(&text) else { return true };
    let context = Context::with_env(Arc::clone(&ENVIRONMENT));
    !matches!(program.execute(&context), Err(ExecutionError::UndeclaredReference(_)))
}

/// `type(x) == int` names a type as if it were a variable.
fn is_type_name(name: &str) -> bool {
    matches!(
        name,
        "bool" | "int" | "uint" | "double" | "string" | "bytes" | "list" | "map" | "null_type" | "type" | "dyn"
    )
}

fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let distance = |known: &&'static str| strsim::damerau_levenshtein(known, name);
    known.iter().copied().filter(|known| distance(known) <= SLIPS_MAX).min_by_key(distance)
}

#[cfg(test)]
mod tests {
    use super::super::Condition;
    use super::*;

    #[test]
    fn what_can_never_work_is_told_before_an_event_comes() {
        for (expression, part) in [
            ("payloda.amount > 1", "`payloda` is not known, did you mean `payload`"),
            ("eventType.startWith('order')", "there is no function `startWith`, did you mean `startsWith`?"),
            ("lower(eventType) == 'x'", "there is no function `lower`"),
            ("payload.amount + 1", "gives a number, and must give true or false"),
            ("'order.created'", "gives text, and must"),
            ("eventType == 5", "`==` does not fit text and a number"),
            ("size(payload.items) > '3'", "`>` does not fit a number and text"),
            ("eventType && payload.x", "`&&` is for true and false, not for text"),
            ("metadata.startsWith('x')", "`startsWith` is for text, not for a map"),
            ("payload.items.exists(i, i.n == 1) == 'yes'", "`==` does not fit true or false and text"),
            ("aggregateId * 2 == payload.x", "`*` is for numbers, not for text"),
            ("occurredAt > timestamp('2026-01-01T00:00:00Z')", "`>` does not fit text and a timestamp"),
        ] {
            let text = Condition::compile(expression).unwrap_err().to_string();
            assert!(text.contains(part), "{expression}: {text}");
        }
    }

    #[test]
    fn what_may_work_is_let_through() {
        for expression in [
            "payload.amount * 2 + 1 > 3 && eventType in ['a', 'b']",
            "payload.a == null || source != null",
            "payload.tags.filter(source, source == 1).size() > 0",
            "payload.tags.exists_one(t, t == 'vip')",
            "timestamp(occurredAt) - duration('1h') < timestamp('2026-01-01T00:00:00Z')",
            "timestamp(occurredAt).getHours() < 12",
            "type(payload.amount) == int",
            "payload.flag ? payload.a : source == 'app'",
            "(payload.name + '!').matches('^a.*')",
            "bool(payload.flag)",
        ] {
            assert!(Condition::compile(expression).is_ok(), "{expression}: {:?}", Condition::compile(expression).err());
        }
    }

    #[test]
    fn every_function_that_is_suggested_is_one() {
        for name in FUNCTIONS {
            assert!(is_function(name, true) || is_function(name, false), "{name}");
        }
        assert!(!is_function("lower", true) && !is_function("lower", false));
    }

    #[test]
    fn the_part_at_fault_is_found_as_a_word() {
        let part = |text: &str| {
            let error = Condition::compile(text).map(drop).unwrap_err();
            error.part(text).map(|range| text[range].to_owned())
        };
        assert_eq!(part("payload.amounts > 1 && amount > 1").as_deref(), Some("amount"));
        assert_eq!(part("payload.amount >").as_deref(), Some(""));
    }
}
