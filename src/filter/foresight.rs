//! What is wrong with an expression whatever the event: names that no event has, functions that there are not, types that
//! can't fit, texts that can't be read. The `cel` crate has no type checker; this one knows literals, the event's fields and the
//! standard functions, and says nothing of what depends on the payload.
//!
//! CEL makes up for a part that fails where another part decides (`true || 1 / 0 == 1`). So a fault refuses the expression only
//! where it keeps the whole from being true; elsewhere it is a doubt. A name that there is not is a fault wherever it stands.

mod constants; // Parts that say nothing of the event, asked of the library.
mod kinds; // What values are, and what operators and functions take.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, SelectExpr, SourceInfo};
use cel::parser::Expression;
use cel::{Context, Program};

use super::condition::{ConditionError, ENVIRONMENT, VARIABLES};
use kinds::Kind;

/// What can be told of an expression that can be used.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    /// Parts that can't work, where another may make up for them.
    pub doubts: Vec<ConditionError>,
    /// What the event must have for the expression to be true.
    pub demands: Vec<Demand>,
}

/// `eventType == 'order.created'`, alone or joined to the rest by `&&`.
#[derive(Debug)]
pub(super) struct Demand {
    pub variable: String,
    pub value: String,
    /// The literal's place, in bytes.
    pub part: Option<Range<usize>>,
}

/// Finds everything that is wrong, in the order of the places.
pub(super) fn look(program: &Program) -> Result<Foresight, Vec<ConditionError>> {
    let expression = program.expression();
    let mut look = Look {
        places: program.source_info(),
        constants: constants::constants(expression),
        in_constant: false,
        bound: Vec::new(),
        unknown: Vec::new(),
        faults: Vec::new(),
        doubts: Vec::new(),
    };
    if let Some(other) = look.kind(expression, Weight::Truth).filter(|kind| *kind != Kind::Truth) {
        look.tell(Weight::Truth, None, format!("gives {}, and must give true or false", other.as_str()));
    }
    let mut demands = Vec::new();
    look.demands(expression, &mut demands);
    let mut faults = look.unknown;
    faults.extend(look.faults);
    faults.sort_by_key(|fault| fault.part.as_ref().map(|part| part.start));
    if faults.is_empty() { Ok(Foresight { doubts: look.doubts, demands }) } else { Err(faults) }
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

/// What it means for the whole expression that a part of it fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// The whole is not true, and neither is it if the part is not.
    Truth,
    /// The whole is not true.
    Value,
    /// Perhaps nothing.
    Doubt,
}

struct Look<'e> {
    places: &'e SourceInfo,
    constants: HashSet<u64>,
    /// Whether what is looked at is part of a larger constant.
    in_constant: bool,
    /// The names that macros around a part have bound (`exists(t, …)`).
    bound: Vec<&'e str>,
    /// Names and functions that there are not.
    unknown: Vec<ConditionError>,
    faults: Vec<ConditionError>,
    doubts: Vec<ConditionError>,
}

impl<'e> Look<'e> {
    fn tell(&mut self, weight: Weight, part: Option<Range<usize>>, message: String) {
        let told = ConditionError { message, suggestion: None, part };
        if weight == Weight::Doubt { &mut self.doubts } else { &mut self.faults }.push(told);
    }

    fn told(&self) -> usize {
        self.unknown.len() + self.faults.len() + self.doubts.len()
    }

    /// What the expression gives; `None` where that depends on the event, or something in it is wrong.
    fn kind(&mut self, expression: &'e Expression, weight: Weight) -> Option<Kind> {
        let told = self.told();
        let begins_constant = !self.in_constant && self.constants.contains(&expression.id);
        self.in_constant |= begins_constant;
        let kind = self.kind_of(expression, weight);
        self.in_constant &= !begins_constant;
        if begins_constant
            && self.told() == told
            && let Some(failure) = constants::failure(expression)
        {
            self.tell(weight, self.place(failure.part), failure.message);
        }
        kind.filter(|_| self.told() == told)
    }

    fn kind_of(&mut self, expression: &'e Expression, weight: Weight) -> Option<Kind> {
        // What only one of several parts is, or the whole is made of, must give something, whatever that is.
        let inner = if weight == Weight::Truth { Weight::Value } else { weight };
        match &expression.expr {
            Expr::Literal(literal) => Some(match literal {
                LiteralValue::Boolean(_) => Kind::Truth,
                LiteralValue::Bytes(_) => Kind::Bytes,
                LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Kind::Number,
                LiteralValue::Null => Kind::Null,
                LiteralValue::String(_) => Kind::Text,
            }),
            Expr::Ident(name) => self.name(name, expression),
            Expr::Select(_) if self.is_type(expression) => Some(Kind::Type),
            Expr::Select(select) => {
                match self.kind(&select.operand, inner) {
                    None | Some(Kind::Map) => {}
                    Some(kind) => {
                        let place = self.field(select, expression);
                        self.tell(weight, place, format!("`.{}`: {} has no fields", select.field, kind.as_str()));
                    }
                }
                select.test.then_some(Kind::Truth)
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.kind(element, inner);
                }
                Some(Kind::List)
            }
            Expr::Map(map) => {
                map.entries.iter().for_each(|entry| self.entry(&entry.expr, inner));
                Some(Kind::Map)
            }
            Expr::Struct(fields) => {
                fields.entries.iter().for_each(|entry| self.entry(&entry.expr, inner));
                None
            }
            Expr::Call(call) => self.call(call, expression, weight),
            Expr::Comprehension(c) => {
                self.kind(&c.iter_range, inner);
                let begins_as = self.kind(&c.accu_init, inner);
                let outer = self.bound.len();
                self.bound.extend(
                    [Some(&c.iter_var), Some(&c.accu_var), c.iter_var2.as_ref()].into_iter().flatten().map(|v| &**v),
                );
                let (step, step_weight) = match (&c.accu_init.expr, &c.loop_step.expr) {
                    // `exists` is true only if its last part is so of something; the others may have nothing to go through.
                    (Expr::Literal(LiteralValue::Boolean(begins)), Expr::Call(step))
                        if !begins.inner() && step.func_name == "_||_" && step.args.len() == 2 =>
                    {
                        (&step.args[1], if weight == Weight::Truth { weight } else { Weight::Doubt })
                    }
                    _ => (&c.loop_step, Weight::Doubt),
                };
                self.kind(step, step_weight);
                for part in [&c.loop_cond, &c.result] {
                    self.kind(part, Weight::Doubt);
                }
                self.bound.truncate(outer);
                // `all` and `exists` begin with a truth, `map` and `filter` with a list; `exists_one` counts.
                begins_as.filter(|kind| matches!(kind, Kind::Truth | Kind::List))
            }
            Expr::Unspecified => None,
        }
    }

    fn entry(&mut self, entry: &'e EntryExpr, weight: Weight) {
        match entry {
            EntryExpr::StructField(field) => {
                self.kind(&field.value, weight);
            }
            EntryExpr::MapEntry(entry) => {
                self.kind(&entry.key, weight);
                self.kind(&entry.value, weight);
            }
        }
    }

    /// Whether the name is one of the event's, or of a macro's.
    fn is_named(&self, name: &str) -> bool {
        VARIABLES.contains(&name) || self.bound.contains(&name)
    }

    /// Whether it is a type's long name, as `google.protobuf.Timestamp` is.
    fn is_type(&self, expression: &Expression) -> bool {
        let mut root = expression;
        while let Expr::Select(SelectExpr { operand, test: false, .. }) = &root.expr {
            root = operand;
        }
        matches!(&root.expr, Expr::Ident(name) if !self.is_named(name)) && constants::value(expression).is_ok()
    }

    fn name(&mut self, name: &str, expression: &Expression) -> Option<Kind> {
        match name {
            _ if name.starts_with('@') || self.bound.contains(&name) => None,
            "payload" => None,
            "metadata" => Some(Kind::Map),
            _ if VARIABLES.contains(&name) => Some(Kind::Text),
            // `type(x) == int` names a type as if it were a variable.
            _ if constants::value(expression).is_ok() => Some(Kind::Type),
            _ => {
                let message = format!("`{name}` is not known; an expression may use {}", VARIABLES.join(", "));
                let (suggestion, part) = (kinds::nearest(name, &VARIABLES), self.place(expression));
                self.unknown.push(ConditionError { message, suggestion, part });
                None
            }
        }
    }

    fn call(&mut self, call: &'e CallExpr, expression: &'e Expression, weight: Weight) -> Option<Kind> {
        let inner = if weight == Weight::Truth { Weight::Value } else { weight };
        match (call.func_name.as_str(), call.args.as_slice()) {
            // `false && x` is false, whatever is wrong with `x`; where that may be what is wanted, nothing is sure.
            (name @ "_&&_", sides) => {
                let weight = if weight == Weight::Truth { weight } else { Weight::Doubt };
                sides.iter().for_each(|side| self.truth(name, side, expression, weight));
                Some(Kind::Truth)
            }
            (name @ "_||_", sides) => {
                self.any_of(sides, |look, side| look.truth(name, side, expression, weight));
                Some(Kind::Truth)
            }
            (name @ "!_", [side]) => {
                self.truth(name, side, expression, inner);
                Some(Kind::Truth)
            }
            ("_?_:_", [condition, either @ ..]) => {
                if let Some(kind) = self.kind(condition, inner).filter(|kind| *kind != Kind::Truth) {
                    let message = format!("what stands before `?` gives {}, not true or false", kind.as_str());
                    self.tell(weight, self.place(condition), message);
                }
                let mut kinds = Vec::new();
                self.any_of(either, |look, side| kinds.push(look.kind(side, weight)));
                kinds.iter().all(|kind| *kind == kinds[0]).then_some(kinds[0]).flatten()
            }
            (name, _) => self.plain_call(name, call, expression, (weight, inner)),
        }
    }

    /// A call that fails where any of its parts does.
    fn plain_call(
        &mut self,
        name: &str,
        call: &'e CallExpr,
        expression: &'e Expression,
        (weight, inner): (Weight, Weight),
    ) -> Option<Kind> {
        let told = self.told();
        // `optional.of(…)` is a function with a long name, and no call on a value.
        if let Some(Expr::Ident(space)) = call.target.as_deref().map(|target| &target.expr)
            && !self.is_named(space)
            && constants::is_function(&format!("{space}.{name}"), false)
        {
            for argument in &call.args {
                self.kind(argument, inner);
            }
            return None;
        }
        let parts = call.target.as_deref().into_iter().chain(&call.args);
        let given: Vec<_> = parts.map(|part| self.kind(part, inner)).collect();
        if !name.starts_with(|c: char| c.is_alphabetic()) {
            // Two of different kinds are not the same, which is a fault only where they should be.
            let weight = match name {
                "_==_" if weight != Weight::Truth => Weight::Doubt,
                "_!=_" => Weight::Doubt,
                _ => weight,
            };
            let place = self.place(expression);
            return self.kind_or_tell(kinds::operator(name, &given), weight, place, call, told);
        }
        let (place, is_member) = (self.function(expression, name), call.target.is_some());
        if kinds::is_known(name, is_member) || constants::is_function(name, is_member) {
            return self.kind_or_tell(kinds::function(name, is_member, &given), weight, place, call, told);
        }
        let (message, suggestion) = match (constants::is_function(name, !is_member), is_member) {
            (true, false) => (format!("the function `{name}` is called on a value, as in `payload.x.{name}(…)`"), None),
            (true, true) => (format!("the function `{name}` is not called on a value: write `{name}(…)`"), None),
            (false, _) => (format!("there is no function `{name}`"), kinds::nearest_function(name)),
        };
        self.unknown.push(ConditionError { message, suggestion, part: place });
        None
    }

    fn kind_or_tell(
        &mut self,
        said: Result<Option<Kind>, String>,
        weight: Weight,
        place: Option<Range<usize>>,
        call: &'e CallExpr,
        told: usize,
    ) -> Option<Kind> {
        match said {
            Ok(kind) => {
                // Of a constant the whole is asked; here, what is between a constant and the event.
                let is_asked = self.told() == told && !self.in_constant;
                let last = call.args.last().filter(|last| is_asked && self.constants.contains(&last.id));
                if let Some(failure) = last.and_then(|_| constants::argument_failure(call)) {
                    self.tell(weight, self.place(failure.part), failure.message);
                }
                kind
            }
            Err(message) => {
                self.tell(weight, place, message);
                None
            }
        }
    }

    /// A side of an operator that is for true and false.
    fn truth(&mut self, name: &str, side: &'e Expression, whole: &'e Expression, weight: Weight) {
        if let Some(kind) = self.kind(side, weight).filter(|kind| *kind != Kind::Truth) {
            let message = format!("`{}` is for true and false, not for {}", name.trim_matches('_'), kind.as_str());
            self.tell(weight, self.place(whole), message);
        }
    }

    /// Looks at parts of which one is enough: what is wrong with some of them is a doubt.
    fn any_of(&mut self, sides: &'e [Expression], mut look: impl FnMut(&mut Self, &'e Expression)) {
        let before = self.faults.len();
        let mut every_one_fails = true;
        for side in sides {
            let faults = self.faults.len();
            look(self, side);
            every_one_fails &= self.faults.len() > faults;
        }
        if !every_one_fails {
            let doubted = self.faults.split_off(before);
            self.doubts.extend(doubted);
        }
    }

    fn demands(&self, expression: &Expression, found: &mut Vec<Demand>) {
        let Expr::Call(call) = &expression.expr else { return };
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("_&&_", sides) => sides.iter().for_each(|side| self.demands(side, found)),
            ("_==_", [left, right]) => {
                for (name, literal) in [(left, right), (right, left)] {
                    if let (Expr::Ident(name), Expr::Literal(LiteralValue::String(text))) = (&name.expr, &literal.expr)
                    {
                        let (variable, value) = (name.clone(), text.inner().to_owned());
                        found.push(Demand { variable, value, part: self.place(literal) });
                    }
                }
            }
            _ => {}
        }
    }

    /// Where a name, a literal or an operator stands, in bytes.
    fn place(&self, expression: &Expression) -> Option<Range<usize>> {
        let (first, last) = self.places.offset_for(expression.id)?;
        let (start, last) = (usize::try_from(first).ok()?, usize::try_from(last).ok()?);
        self.places.source.get(start..=last).map(|_| start..last + 1)
    }

    /// Where a call's function stands: before the bracket, which is the call's own place.
    fn function(&self, call: &Expression, name: &str) -> Option<Range<usize>> {
        let bracket = self.place(call)?.start;
        let before = self.places.source[..bracket].trim_end();
        before.ends_with(name).then(|| before.len() - name.len()..before.len())
    }

    /// Where a field's name stands: after what it is a field of, and after the dot, which is its own place unless a macro made it.
    fn field(&self, select: &SelectExpr, expression: &Expression) -> Option<Range<usize>> {
        let begins = self.place(&select.operand)?.end.max(self.place(expression)?.start);
        let start = begins + self.places.source.get(begins..)?.find(&select.field)?;
        Some(start..start + select.field.len())
    }
}

#[cfg(test)]
mod tests;
