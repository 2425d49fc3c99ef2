//! Paths: JSON pointers in which `*` stands for every member or element, and one `**` for any depth.
//! They find places; what happens there is decided elsewhere.

use branchline_plugin::serde_json::Value;
use serde::Deserialize;

const STEPS_MAX: usize = 32;

/// A path to any number of places.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Every,
    AnyDepth,
}

/// What is done where a path leads.
#[derive(Clone, Copy)]
pub enum Action<'change> {
    Remove,
    Change(&'change dyn Fn(&mut Value)),
}

impl Path {
    /// Does it at every place that the path names.
    pub fn apply(&self, value: &mut Value, action: Action<'_>) {
        apply(&self.0, value, action);
    }
}

impl TryFrom<String> for Path {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("the path `{text}` is not one such as `/card/number`; it starts with `/`"));
        };
        let steps: Vec<Step> = rest.split('/').map(parse_step).collect::<Option<_>>().ok_or_else(|| {
            format!("the path `{text}` has a `~`; it is written `~0` there, and a `/` in a name is written `~1`")
        })?;
        if steps.len() > STEPS_MAX {
            return Err(format!("the path `{text}` has {} steps; {STEPS_MAX} are allowed", steps.len()));
        }
        if steps.iter().filter(|step| **step == Step::AnyDepth).count() > 1 {
            return Err(format!("the path `{text}` has several `**`; one is allowed"));
        }
        if steps.last() == Some(&Step::AnyDepth) {
            return Err(format!("the path `{text}` ends in `**`; a name or `*` is needed after it"));
        }
        Ok(Self(steps))
    }
}

fn parse_step(text: &str) -> Option<Step> {
    match text {
        "*" => Some(Step::Every),
        "**" => Some(Step::AnyDepth),
        text => {
            let escapes = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
            escapes.then(|| Step::Name(text.replace("~1", "/").replace("~0", "~")))
        }
    }
}

/// Goes as deep as the value does, and the parser bounds that. With one `**` at most, no place is
/// reached twice.
fn apply(steps: &[Step], value: &mut Value, action: Action<'_>) {
    let Some((step, rest)) = steps.split_first() else {
        return;
    };
    match (step, rest.is_empty()) {
        (Step::AnyDepth, _) => {
            apply(rest, value, action);
            for child in children(value) {
                apply(steps, child, action);
            }
        }
        (Step::Every, false) => {
            for child in children(value) {
                apply(rest, child, action);
            }
        }
        (Step::Every, true) => match (action, value) {
            (Action::Remove, Value::Object(members)) => members.clear(),
            (Action::Remove, Value::Array(items)) => items.clear(),
            (Action::Remove, _) => {}
            (Action::Change(change), value) => children(value).into_iter().for_each(change),
        },
        (Step::Name(name), false) => {
            if let Some(child) = child(value, name) {
                apply(rest, child, action);
            }
        }
        (Step::Name(name), true) => match (action, value) {
            // Not `remove`, which moves the last member into the gap.
            (Action::Remove, Value::Object(members)) => drop(members.shift_remove(name)),
            (Action::Remove, Value::Array(items)) => {
                if let Some(index) = index(name, items.len()) {
                    items.remove(index);
                }
            }
            (Action::Remove, _) => {}
            (Action::Change(change), value) => {
                if let Some(child) = child(value, name) {
                    change(child);
                }
            }
        },
    }
}

fn children(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Object(members) => members.values_mut().collect(),
        Value::Array(items) => items.iter_mut().collect(),
        _ => Vec::new(),
    }
}

fn child<'value>(value: &'value mut Value, name: &str) -> Option<&'value mut Value> {
    match value {
        Value::Object(members) => members.get_mut(name),
        Value::Array(items) => {
            let index = index(name, items.len())?;
            items.get_mut(index)
        }
        _ => None,
    }
}

/// A list's index as RFC 6901 writes it: no sign, no zeros before it.
fn index(name: &str, length: usize) -> Option<usize> {
    let plain = name == "0" || !name.starts_with(['0', '+']);
    name.parse().ok().filter(|index| plain && *index < length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use branchline_plugin::serde_json;

    fn path(text: &str) -> Path {
        Path::try_from(text.to_owned()).unwrap_or_else(|fault| panic!("{fault}"))
    }

    #[test]
    fn paths_find_their_places() {
        let whole = r#"{"a":{"x":1,"y":2},"b":[{"x":3},{"x":4,"z":{"x":5}}],"c/d":6,"e~f":7,"x":8}"#;
        let table = [
            ("/a/x", r#"{"a":{"y":2},"b":[{"x":3},{"x":4,"z":{"x":5}}],"c/d":6,"e~f":7,"x":8}"#),
            ("/b/*/x", r#"{"a":{"x":1,"y":2},"b":[{},{"z":{"x":5}}],"c/d":6,"e~f":7,"x":8}"#),
            ("/b/0", r#"{"a":{"x":1,"y":2},"b":[{"x":4,"z":{"x":5}}],"c/d":6,"e~f":7,"x":8}"#),
            ("/*/x", r#"{"a":{"y":2},"b":[{"x":3},{"x":4,"z":{"x":5}}],"c/d":6,"e~f":7,"x":8}"#),
            ("/a/*", r#"{"a":{},"b":[{"x":3},{"x":4,"z":{"x":5}}],"c/d":6,"e~f":7,"x":8}"#),
            ("/c~1d", r#"{"a":{"x":1,"y":2},"b":[{"x":3},{"x":4,"z":{"x":5}}],"e~f":7,"x":8}"#),
            ("/e~0f", r#"{"a":{"x":1,"y":2},"b":[{"x":3},{"x":4,"z":{"x":5}}],"c/d":6,"x":8}"#),
            ("/**/x", r#"{"a":{"y":2},"b":[{},{"z":{}}],"c/d":6,"e~f":7}"#),
            ("/b/**/x", r#"{"a":{"x":1,"y":2},"b":[{},{"z":{}}],"c/d":6,"e~f":7,"x":8}"#),
            ("/**/z/*", r#"{"a":{"x":1,"y":2},"b":[{"x":3},{"x":4,"z":{}}],"c/d":6,"e~f":7,"x":8}"#),
            ("/*", "{}"),
            ("/none/such", whole),
            ("/x/deeper", whole),
            ("/b/00", whole),
            ("/b/-", whole),
            ("/b/9", whole),
        ];
        for (text, left) in table {
            let mut value: Value = serde_json::from_str(whole).expect("it is JSON");
            path(text).apply(&mut value, Action::Remove);
            assert_eq!(value.to_string(), left, "{text}");
        }
    }

    #[test]
    fn no_place_is_changed_twice() {
        let mut value: Value = serde_json::from_str(r#"{"n":{"n":[1,{"n":2}]},"m":{"n":3}}"#).expect("it is JSON");
        let change = |value: &mut Value| {
            if let Value::Number(number) = value {
                *value = Value::String(format!("({number})"));
            }
        };
        path("/**/n").apply(&mut value, Action::Change(&change));
        path("/**/*").apply(
            &mut value,
            Action::Change(&|value| {
                if let Value::String(text) = value {
                    *text = format!("<{text}>");
                }
            }),
        );
        assert_eq!(value.to_string(), r#"{"n":{"n":[1,{"n":"<(2)>"}]},"m":{"n":"<(3)>"}}"#);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let deep = "/a".repeat(33);
        for (text, part) in [
            ("", "starts with `/`"),
            ("card", "starts with `/`"),
            ("/a~", "written `~0`"),
            ("/a~2", "written `~0`"),
            ("/**", "ends in `**`"),
            ("/**/a/**/b", "several `**`"),
            (deep.as_str(), "33 steps"),
        ] {
            let fault = Path::try_from(text.to_owned()).expect_err(text);
            assert!(fault.contains(part), "{text}: {fault}");
        }
    }
}
