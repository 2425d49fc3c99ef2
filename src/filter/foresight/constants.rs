//! The parts of an expression that say nothing of the event: what they give is known beforehand, and whether they give anything.
//! The library itself is asked, so that what is refused here is what it would refuse at every event.

use std::collections::HashSet;
use std::sync::Arc;

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};
use cel::parser::Expression;
use cel::{Context, ExecutionError, IdedExpr, Value};

use super::super::condition::{ENVIRONMENT, describe};

/// How much of a text is shown in a message.
const SHOWN_CHARS_MAX: usize = 60;

/// The numbers of all parts that neither name anything nor loop.
pub(super) fn constants(expression: &Expression) -> HashSet<u64> {
    let mut found = HashSet::new();
    is_constant(expression, &mut found);
    found
}

fn is_constant(expression: &Expression, found: &mut HashSet<u64>) -> bool {
    // Each child is looked at, also after one that is not constant.
    let mut all = |parts: &mut dyn Iterator<Item = &Expression>| {
        parts.map(|part| is_constant(part, found)).fold(true, |all, one| all & one)
    };
    let is = match &expression.expr {
        Expr::Literal(_) => true,
        Expr::Comprehension(c) => {
            all(&mut [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result].into_iter());
            false
        }
        Expr::Ident(_) | Expr::Unspecified => false,
        Expr::Struct(_) => {
            all(&mut children(expression).into_iter());
            false
        }
        Expr::Call(_) | Expr::Select(_) | Expr::List(_) | Expr::Map(_) => all(&mut children(expression).into_iter()),
    };
    if is {
        found.insert(expression.id);
    }
    is
}

fn entry(entry: &EntryExpr) -> Vec<&Expression> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

fn children(expression: &Expression) -> Vec<&Expression> {
    match &expression.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|own| entry(&own.expr)).collect(),
        Expr::Struct(fields) => fields.entries.iter().flat_map(|own| entry(&own.expr)).collect(),
        Expr::Literal(_) | Expr::Ident(_) | Expr::Comprehension(_) | Expr::Unspecified => Vec::new(),
    }
}

/// Whether there is a function of this name, by asking the library: a call that fits no form of a function that there is
/// fails otherwise than a call of one that there is not.
pub(super) fn is_function(name: &str, is_member: bool) -> bool {
    let text = if is_member { format!("null.{name}()") } else { format!("{name}()") };
    let Ok(program) = ENVIRONMENT.compile(&text) else { return true };
    let context = Context::with_env(Arc::clone(&ENVIRONMENT));
    !matches!(program.execute(&context), Err(ExecutionError::UndeclaredReference(_)))
}

/// A part that fails at every event, and why.
pub(super) struct Failure<'e> {
    pub part: &'e Expression,
    pub message: String,
}

/// What a constant gives.
pub(super) fn value(constant: &Expression) -> Result<Value, ExecutionError> {
    Value::resolve(constant, &Context::with_env(Arc::clone(&ENVIRONMENT)))
}

/// Why a constant gives nothing, and the smallest part of it that does not.
pub(super) fn failure(constant: &Expression) -> Option<Failure<'_>> {
    let error = value(constant).err()?;
    let within = children(constant).into_iter().find_map(failure);
    within.or_else(|| {
        let call = match &constant.expr {
            Expr::Call(call) => Some(call),
            _ => None,
        };
        Some(match (call, &error) {
            (Some(call), ExecutionError::FunctionError { .. }) => {
                unreadable(call, call.args.last().or(call.target.as_deref()).unwrap_or(constant), &error)
            }
            _ => Failure { part: constant, message: format!("always fails: {}", describe(&error)) },
        })
    })
}

/// Why a call fails whatever the event, because of its last argument, which is a constant.
pub(super) fn argument_failure(call: &CallExpr) -> Option<Failure<'_>> {
    let (name, argument) = (call.func_name.as_str(), call.args.last()?);
    let stand_in = match name {
        "matches" => literal(""),
        _ if name.starts_with("get") => {
            let args = vec![literal("2026-01-01T00:00:00Z")];
            expression(Expr::Call(CallExpr { func_name: "timestamp".to_owned(), target: None, args }))
        }
        "_/_" | "_%_" => {
            let is_zero = matches!(value(argument), Ok(Value::Int(0) | Value::UInt(0)));
            return is_zero.then(|| Failure { part: argument, message: "always fails: division by zero".to_owned() });
        }
        _ => return None,
    };
    let args = vec![argument.clone()];
    let call_of = CallExpr { func_name: name.to_owned(), target: Some(Box::new(stand_in)), args };
    let error = value(&expression(Expr::Call(call_of))).err()?;
    matches!(error, ExecutionError::FunctionError { .. }).then(|| unreadable(call, argument, &error))
}

fn expression(expr: Expr) -> Expression {
    IdedExpr { id: 0, expr }
}

fn literal(text: &str) -> Expression {
    expression(Expr::Literal(LiteralValue::String(text.to_owned().into())))
}

/// A text on one line, and not all of a long one.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        short.push('…');
    }
    format!("`{short}`")
}

/// A function does not know what to do with an argument of the right kind.
fn unreadable<'e>(call: &CallExpr, argument: &'e Expression, error: &ExecutionError) -> Failure<'e> {
    let shown = match value(argument) {
        Ok(Value::String(text)) => shown(&text),
        Ok(_) | Err(_) => "its argument".to_owned(),
    };
    let message = match (call.func_name.as_str(), error) {
        ("timestamp", _) => format!("{shown} is no timestamp, for example `2026-01-31T12:00:00Z`"),
        ("duration", _) => format!("{shown} is no duration, for example `1h30m`"),
        ("matches", ExecutionError::FunctionError { message, .. }) => {
            let why = message.lines().last().unwrap_or_default();
            format!("{shown} is no regular expression: {}", why.trim_start_matches("error: "))
        }
        (name, _) => format!("`{name}` can't read {shown}"),
    };
    Failure { part: argument, message }
}
