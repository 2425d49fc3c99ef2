//! What values are, as far as that is known whatever the event, and which of them operators and functions take.

/// What a value is, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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
    pub(super) const fn as_str(self) -> &'static str {
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

    /// Whether something can be looked up in it.
    const fn is_container(self) -> bool {
        matches!(self, Self::List | Self::Map)
    }
}

/// What an operator gives, or why it can't give anything. What truths are for, `&&` and its like, is not asked here.
pub(super) fn operator(name: &str, sides: &[Option<Kind>]) -> Result<Option<Kind>, String> {
    let shown = name.trim_matches('_');
    let misfit =
        |[left, right]: [Kind; 2]| Err(format!("`{shown}` does not fit {} and {}", left.as_str(), right.as_str()));
    let only_numbers = |sides: &[Option<Kind>]| match sides.iter().flatten().find(|kind| **kind != Kind::Number) {
        Some(kind) => Err(format!("`{shown}` is for numbers, not for {}", kind.as_str())),
        None => Ok(sides.iter().any(Option::is_some).then_some(Kind::Number)),
    };
    match (name, sides) {
        ("_==_" | "_!=_", [Some(left), Some(right)])
            if left != right && *left != Kind::Null && *right != Kind::Null =>
        {
            misfit([*left, *right])
        }
        ("_<_" | "_<=_" | "_>_" | "_>=_", [Some(left), Some(right)]) if left != right => misfit([*left, *right]),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [Some(kind), _] | [_, Some(kind)])
            if kind.is_container() || matches!(kind, Kind::Null | Kind::Type) =>
        {
            Err(format!("`{shown}` can't compare {}", kind.as_str()))
        }
        ("@in", [_, Some(kind)]) if !kind.is_container() => {
            Err(format!("`in` is for a list or a map, not for {}", kind.as_str()))
        }
        ("_[_]", [Some(kind), _]) if !kind.is_container() => {
            Err(format!("`[…]` is for a list or a map, not for {}", kind.as_str()))
        }
        ("_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" | "@in" | "@not_strictly_false", _) => Ok(Some(Kind::Truth)),
        ("_+_" | "_-_", [Some(Kind::Time | Kind::Length), _] | [_, Some(Kind::Time | Kind::Length)]) => Ok(None),
        // The library takes a map's keys for a list.
        ("_+_", [Some(Kind::List) | None, Some(Kind::Map)]) => Ok(Some(Kind::List)),
        ("_+_", [Some(left), Some(right)])
            if left != right || !matches!(left, Kind::Number | Kind::Text | Kind::Bytes | Kind::List) =>
        {
            misfit([*left, *right])
        }
        ("_+_", [Some(kind), _] | [_, Some(kind)]) => Ok(Some(*kind)),
        ("_-_" | "_*_" | "_/_" | "_%_" | "-_", sides) => only_numbers(sides),
        _ => Ok(None),
    }
}

/// How far a name may be from the one that is meant.
const SLIPS_MAX: usize = 2;

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

const TEXT: &[Kind] = &[Kind::Text];
const TIME: &[Kind] = &[Kind::Time];
const SIZED: &[Kind] = &[Kind::Text, Kind::Bytes, Kind::List, Kind::Map];
const TIME_OR_LENGTH: &[Kind] = &[Kind::Time, Kind::Length];
const NUMBERS: &[Kind] = &[Kind::Number, Kind::Text];
const ANYTHING: &[Kind] = &[];

/// A way to call a function.
struct Form {
    names: &'static [&'static str],
    /// `value.function(…)`: the value is the first of what it takes.
    is_member: bool,
    takes: &'static [&'static [Kind]],
}

/// The standard functions, as the library has them; a test asks it. Of what is not here nothing is said.
const FORMS: [Form; 17] = [
    form(&["startsWith", "endsWith", "contains", "matches"], true, &[TEXT, TEXT]),
    form(&["matches"], false, &[TEXT, TEXT]),
    form(&["size"], true, &[SIZED]),
    form(&["size"], false, &[SIZED]),
    form(&["getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate", "getDayOfWeek"], true, &[TIME]),
    form(&["getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate", "getDayOfWeek"], true, &[TIME, TEXT]),
    form(&["getHours", "getMinutes", "getSeconds", "getMilliseconds"], true, &[TIME_OR_LENGTH]),
    form(&["getHours", "getMinutes", "getSeconds", "getMilliseconds"], true, &[TIME, TEXT]),
    form(&["bool"], false, &[&[Kind::Truth, Kind::Text]]),
    form(&["bytes"], false, &[&[Kind::Text, Kind::Bytes]]),
    form(&["double", "uint"], false, &[NUMBERS]),
    form(&["int"], false, &[&[Kind::Number, Kind::Text, Kind::Time]]),
    form(&["string"], false, &[&[Kind::Truth, Kind::Number, Kind::Text, Kind::Bytes, Kind::Time, Kind::Length]]),
    form(&["timestamp"], false, &[&[Kind::Text, Kind::Time, Kind::Number]]),
    form(&["duration"], false, &[&[Kind::Text, Kind::Length]]),
    form(&["dyn"], false, &[ANYTHING]),
    form(&["type"], false, &[ANYTHING]),
];

const fn form(names: &'static [&'static str], is_member: bool, takes: &'static [&'static [Kind]]) -> Form {
    Form { names, is_member, takes }
}

fn accepts(taken: &[Kind], given: Option<Kind>) -> bool {
    taken.is_empty() || given.is_none_or(|kind| taken.contains(&kind))
}

/// Whether there are forms of such a call.
pub(super) fn is_known(name: &str, is_member: bool) -> bool {
    FORMS.iter().any(|form| form.is_member == is_member && form.names.contains(&name))
}

/// What a function gives, or why it can't be called with this. `given` begins with the value that a member is called on.
pub(super) fn function(name: &str, is_member: bool, given: &[Option<Kind>]) -> Result<Option<Kind>, String> {
    let forms = || FORMS.iter().filter(|form| form.is_member == is_member && form.names.contains(&name));
    let fitting = || forms().filter(|form| form.takes.len() == given.len());
    if forms().next().is_some() {
        if fitting().next().is_none() {
            return Err(wrong_count(
                name,
                forms().map(|form| form.takes.len() - usize::from(is_member)),
                given.len() - usize::from(is_member),
            ));
        }
        let fits = |form: &Form| form.takes.iter().zip(given).all(|(taken, given)| accepts(taken, *given));
        if !fitting().any(fits) {
            let unfit = |place: &usize| fitting().all(|form| !accepts(form.takes[*place], given[*place]));
            let place = (0..given.len()).find(unfit).unwrap_or_default();
            let wanted: Vec<_> = fitting().flat_map(|form| form.takes[place]).map(|kind| kind.as_str()).collect();
            let (wanted, found) = (wanted.join(" or "), given[place].map_or("this", Kind::as_str));
            return Err(match is_member && place == 0 {
                true => format!("`{name}` is for {wanted}, not for {found}"),
                false => format!("`{name}` takes {wanted}, not {found}"),
            });
        }
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

fn wrong_count(name: &str, counts: impl Iterator<Item = usize>, given: usize) -> String {
    let mut counts: Vec<_> = counts.collect();
    counts.sort_unstable();
    counts.dedup();
    let shown: Vec<_> = counts.iter().map(ToString::to_string).collect();
    let plural = if counts == [1] { "" } else { "s" };
    format!("`{name}` takes {} argument{plural}, not {given}", shown.join(" or "))
}

/// The function that is probably meant.
pub(super) fn nearest_function(name: &str) -> Option<&'static str> {
    nearest(name, &FUNCTIONS)
}

/// The known name that is probably meant.
pub(super) fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let distance = |known: &&'static str| strsim::damerau_levenshtein(known, name);
    known.iter().copied().filter(|known| distance(known) <= SLIPS_MAX).min_by_key(distance)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cel::{Context, ExecutionError, Value};

    use super::super::super::condition::ENVIRONMENT;
    use super::super::constants::is_function;
    use super::*;

    const SAMPLES: [(Kind, &str); 10] = [
        (Kind::Truth, "true"),
        (Kind::Number, "1"),
        (Kind::Text, "'1'"),
        (Kind::Bytes, "b'1'"),
        (Kind::List, "[1]"),
        (Kind::Map, "{'a': 1}"),
        (Kind::Null, "null"),
        (Kind::Time, "timestamp('2026-01-01T00:00:00Z')"),
        (Kind::Length, "duration('1h')"),
        (Kind::Type, "int"),
    ];

    fn result(expression: &str) -> Result<Value, ExecutionError> {
        let program = ENVIRONMENT.compile(expression).unwrap();
        program.execute(&Context::with_env(Arc::clone(&ENVIRONMENT)))
    }

    /// Whether the library has a form of the call for these types.
    fn is_taken(expression: &str) -> bool {
        !matches!(result(expression), Err(ExecutionError::NoSuchOverload(_) | ExecutionError::UndeclaredReference(_)))
    }

    #[test]
    fn functions_take_what_the_library_takes_and_nothing_else() {
        let names = FORMS.iter().flat_map(|form| form.names.iter().map(|name| (*name, form.is_member)));
        for (name, is_member) in names {
            for (first, shown) in SAMPLES {
                for second in [None, Some(SAMPLES[1]), Some(SAMPLES[2])] {
                    let argument = second.map_or("", |(_, shown)| shown);
                    let text = match (is_member, second) {
                        (true, _) => format!("{shown}.{name}({argument})"),
                        (false, None) => format!("{name}({shown})"),
                        (false, Some(_)) => format!("{name}({shown}, {argument})"),
                    };
                    let given: Vec<_> = [Some(first)].into_iter().chain(second.map(|(kind, _)| Some(kind))).collect();
                    let said = function(name, is_member, &given);
                    assert_eq!(said.is_ok(), is_taken(&text), "{text}: {said:?}");
                }
            }
        }
    }

    #[test]
    fn operators_that_are_refused_are_refused_by_the_library() {
        for name in ["<", "<=", ">", ">=", "+", "-", "*", "/", "%", "in"] {
            for (left, left_shown) in SAMPLES {
                for (right, right_shown) in SAMPLES {
                    let own = if name == "in" { "@in".to_owned() } else { format!("_{name}_") };
                    let said = operator(&own, &[Some(left), Some(right)]);
                    let text = format!("{left_shown} {name} {right_shown}");
                    assert!(said.is_ok() || result(&text).is_err(), "{text}: {said:?}");
                }
            }
        }
        for (kind, shown) in SAMPLES {
            let said = operator("_[_]", &[Some(kind), None]);
            let is_looked_into = ["0", "'a'"].iter().any(|key| result(&format!("{shown}[{key}]")).is_ok());
            assert_eq!(said.is_ok(), is_looked_into, "{shown}[…]");
            assert_eq!(operator("-_", &[Some(kind)]).is_ok(), result(&format!("-{shown}")).is_ok(), "-{shown}");
        }
    }

    #[test]
    fn every_function_that_is_suggested_is_one() {
        for name in FUNCTIONS {
            assert!(is_function(name, true) || is_function(name, false), "{name}");
        }
        assert!(!is_function("lower", true) && !is_function("lower", false));
    }
}
