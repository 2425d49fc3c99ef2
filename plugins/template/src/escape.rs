//! What a value becomes where a template prints it. In JSON a text is escaped as a part of a text in
//! quotes, so that `"hello {{ payload.name }}"` is right whatever the name is; `{{ payload.name | tojson }}`
//! brings its own quotes.

use branchline_plugin::{form, serde_json, text};
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Output, Value};

use crate::context::Node;

/// The nesting of a value that a template made itself.
const DEPTH_MAX: usize = 64;

/// How values are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Not at all.
    Nothing,
    /// As a part of a text in quotes.
    Json,
    /// As text of HTML or XML.
    Html,
    /// As a name or a value of a form.
    Form,
}

impl Escape {
    /// What this type of content asks for.
    pub fn for_content_type(content_type: &str) -> Self {
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/json" => Self::Json,
            "text/html" | "text/xml" | "application/xml" => Self::Html,
            form::FORM => Self::Form,
            other if other.ends_with("+json") => Self::Json,
            other if other.ends_with("+xml") => Self::Html,
            _ => Self::Nothing,
        }
    }

    /// Prints a value. What is safe has been escaped before, or is JSON.
    pub fn print(self, out: &mut Output<'_>, value: &Value) -> Result<(), Error> {
        let escaped = match (self, value.kind()) {
            (_, ValueKind::Undefined) => return Ok(()),
            (_, _) if value.is_safe() => value.to_string(),
            (Self::Json, ValueKind::None) => "null".to_owned(),
            (_, ValueKind::None) => return Ok(()),
            (Self::Nothing, _) => show(value),
            (Self::Json, _) => {
                let quoted = quote(&show(value));
                quoted[1..quoted.len() - 1].to_owned()
            }
            (Self::Html, _) => text::escape_html(&show(value)),
            (Self::Form, _) => {
                let mut encoded = String::new();
                form::encode(&show(value), &mut encoded);
                encoded
            }
        };
        out.write_str(&escaped).map_err(Error::from)
    }
}

/// `tojson`: the value as JSON. A part of the event is as it came, with all of its digits.
pub fn to_json(value: &Value) -> Result<Value, Error> {
    let mut json = String::new();
    write_json(value, &mut json, 0)?;
    Ok(Value::from_safe_string(json))
}

/// `thousands`: a number as people read it.
pub fn thousands(value: &Value) -> String {
    branchline_plugin::value::group_digits(&value.to_string())
}

/// `urlencode`: a text as a part of an address.
pub fn url_encode(value: &Value) -> String {
    form::percent_encode(&value.to_string())
}

/// The engine would show truth values, lists and objects as Python does.
fn show(value: &Value) -> String {
    match value.kind() {
        ValueKind::Bool | ValueKind::Seq | ValueKind::Map => {
            let mut json = String::new();
            if write_json(value, &mut json, 0).is_ok() { json } else { value.to_string() }
        }
        _ => value.to_string(),
    }
}

fn write_json(value: &Value, json: &mut String, depth: usize) -> Result<(), Error> {
    let fault = |text: &'static str| Error::new(ErrorKind::BadSerialization, text);
    if depth > DEPTH_MAX {
        return Err(fault("nested too deeply for JSON"));
    }
    if let Some(node) = value.downcast_object_ref::<Node>() {
        json.push_str(&serde_json::to_string(node).map_err(|_| fault("not a value of JSON"))?);
        return Ok(());
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => json.push_str("null"),
        ValueKind::Bool => json.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            let digits = value.to_string();
            // A float that is no number has no JSON.
            if digits.ends_with(|last: char| !last.is_ascii_digit()) {
                return Err(fault("not a number of JSON"));
            }
            json.push_str(&digits);
        }
        ValueKind::String => json.push_str(&quote(value.as_str().unwrap_or_default())),
        ValueKind::Seq | ValueKind::Iterable => {
            json.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write_json(&item, json, depth + 1)?;
            }
            json.push(']');
        }
        ValueKind::Map => {
            json.push('{');
            for (index, name) in value.try_iter()?.enumerate() {
                if index > 0 {
                    json.push(',');
                }
                json.push_str(&quote(&name.to_string()));
                json.push(':');
                write_json(&value.get_item(&name)?, json, depth + 1)?;
            }
            json.push('}');
        }
        _ => return Err(fault("not a value of JSON")),
    }
    Ok(())
}

fn quote(text: &str) -> String {
    // Text always can be said in JSON.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}
