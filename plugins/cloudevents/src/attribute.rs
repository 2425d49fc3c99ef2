//! What CloudEvents 1.0 allow as the name and the value of an attribute: names of lower-case letters and
//! digits; texts without control characters, integers of 32 bits, true and false.

use branchline_plugin::serde_json::{Map, Value};
use branchline_plugin::text;
use serde::Deserialize;

/// The specification's advice.
const NAME_CHARACTERS_MAX: usize = 20;
const EXTENSIONS_MAX: usize = 32;
const VALUE_CHARACTERS_MAX: usize = 1024;

/// Attributes that the plugin writes itself, or that would be read as the payload.
const TAKEN: [&str; 10] =
    ["data", "data_base64", "datacontenttype", "dataschema", "id", "source", "specversion", "subject", "time", "type"];

/// Names of attributes, each with a JSON pointer into the metadata.
#[derive(Default, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct Extensions(Vec<(String, String)>);

impl Extensions {
    /// The attributes for this metadata. One that is missing, null, a list or an object is left out.
    pub fn values(&self, metadata: &Map<String, Value>) -> impl Iterator<Item = (&str, Value)> {
        let found = self.0.iter().map(|(name, pointer)| (name.as_str(), find(metadata, pointer)));
        found.filter_map(|(name, found)| Some((name, value(found?)?)))
    }
}

/// `Value::pointer` for an object that is not in a value.
fn find<'metadata>(metadata: &'metadata Map<String, Value>, pointer: &str) -> Option<&'metadata Value> {
    let rest = pointer.strip_prefix('/')?;
    let first = rest.split('/').next()?;
    metadata.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(&rest[first.len()..])
}

impl TryFrom<Map<String, Value>> for Extensions {
    type Error = String;

    fn try_from(extensions: Map<String, Value>) -> Result<Self, String> {
        if extensions.len() > EXTENSIONS_MAX {
            return Err(format!("`extensions` has {} attributes; {EXTENSIONS_MAX} are allowed", extensions.len()));
        }
        let mut checked = Vec::with_capacity(extensions.len());
        for (name, pointer) in extensions {
            if !is_name(&name) {
                return Err(format!(
                    "`extensions.{name}` is not a name of a CloudEvents attribute: 1 to {NAME_CHARACTERS_MAX} lower-case letters and digits"
                ));
            }
            if TAKEN.contains(&name.as_str()) {
                return Err(format!("`extensions.{name}` is an attribute that every CloudEvent has"));
            }
            match pointer {
                Value::String(pointer) if pointer.starts_with('/') => checked.push((name, pointer)),
                _ => {
                    return Err(format!(
                        "`extensions.{name}` is a JSON pointer into the metadata such as `/region`; it starts with `/`"
                    ));
                }
            }
        }
        Ok(Self(checked))
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_CHARACTERS_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn value(found: &Value) -> Option<Value> {
    match found {
        Value::Bool(_) => Some(found.clone()),
        Value::Number(number) if number.as_str().parse::<i32>().is_ok() => Some(found.clone()),
        // A number that the specification does not have goes as text, with all of its digits.
        Value::Number(number) => Some(Value::String(number.as_str().to_owned())),
        Value::String(found) => Some(Value::String(text::truncate(&text::one_line(found), VALUE_CHARACTERS_MAX))),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Not empty, and none of the characters that no URI has.
pub fn is_uri_reference(text: &str) -> bool {
    let forbidden =
        |character: char| character.is_whitespace() || character.is_control() || "<>\"{}|\\^`".contains(character);
    !text.is_empty() && !text.contains(forbidden)
}
