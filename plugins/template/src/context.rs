//! The event as a template sees it: `payload.items`, `eventType`. Objects keep the order of their members;
//! a whole one printed as JSON keeps the digits of its numbers too.

use std::fmt;
use std::sync::Arc;

use branchline_plugin::Event;
use branchline_plugin::serde_json::{self, Number, Value as Json};
use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// A value of JSON whose parts can be handed out without copying them.
#[derive(Debug)]
pub enum Node {
    /// Null, a truth value, a number or a text.
    Scalar(Json),
    /// In its order.
    List(Vec<Arc<Node>>),
    /// In its order.
    Object(Vec<(String, Arc<Node>)>),
}

/// What the names at the outermost level of a template mean.
pub fn of(event: Event) -> Value {
    let text = |text: String| Arc::new(Node::Scalar(Json::String(text)));
    let members = [
        ("id", text(event.id)),
        ("eventType", text(event.event_type)),
        ("aggregateType", text(event.aggregate_type)),
        ("aggregateId", text(event.aggregate_id)),
        ("payload", Node::new(event.payload)),
        ("occurredAt", text(event.occurred_at)),
        ("metadata", Node::new(Json::Object(event.metadata))),
    ];
    let members = members.into_iter().map(|(name, node)| (name.to_owned(), node));
    Arc::new(Node::Object(members.collect())).value()
}

impl Node {
    fn new(json: Json) -> Arc<Self> {
        Arc::new(match json {
            Json::Array(items) => Self::List(items.into_iter().map(Self::new).collect()),
            Json::Object(members) => {
                Self::Object(members.into_iter().map(|(name, member)| (name, Self::new(member))).collect())
            }
            scalar => Self::Scalar(scalar),
        })
    }

    fn value(self: &Arc<Self>) -> Value {
        match &**self {
            Self::Scalar(Json::Null) => Value::from(()),
            Self::Scalar(Json::Bool(answer)) => Value::from(*answer),
            Self::Scalar(Json::Number(number)) => number_value(number),
            Self::Scalar(Json::String(text)) => Value::from(text.as_str()),
            Self::Scalar(Json::Array(_) | Json::Object(_)) | Self::List(_) | Self::Object(_) => {
                Value::from_dyn_object(self.clone())
            }
        }
    }
}

/// Whole numbers are exact as far as 128 bits go; the others are floats, as templates count with them.
fn number_value(number: &Number) -> Value {
    let digits = number.as_str();
    match (digits.parse::<i64>(), digits.parse::<i128>(), digits.parse::<f64>()) {
        (Ok(whole), _, _) => Value::from(whole),
        (_, Ok(whole), _) => Value::from(whole),
        (_, _, Ok(float)) if float.is_finite() => Value::from(float),
        // Too large for a float; its digits are better than infinity.
        _ => Value::from(digits),
    }
}

impl Object for Node {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        match **self {
            Self::Scalar(_) => ObjectRepr::Plain,
            Self::List(_) => ObjectRepr::Seq,
            Self::Object(_) => ObjectRepr::Map,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match &**self {
            Self::Scalar(_) => None,
            Self::List(items) => items.get(key.as_usize()?).map(Self::value),
            Self::Object(_) => self.get_value_by_str(key.as_str()?),
        }
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match &**self {
            Self::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, node)| node.value()),
            Self::Scalar(_) | Self::List(_) => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match &**self {
            Self::Scalar(_) => Enumerator::NonEnumerable,
            Self::List(items) => Enumerator::Seq(items.len()),
            Self::Object(members) => {
                let names: Vec<Value> = members.iter().map(|(name, _)| Value::from(name.as_str())).collect();
                Enumerator::Values(names)
            }
        }
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&serde_json::to_string(&**self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Node {
    fn serialize<Writer: Serializer>(&self, writer: Writer) -> Result<Writer::Ok, Writer::Error> {
        match self {
            Self::Scalar(json) => json.serialize(writer),
            Self::List(items) => writer.collect_seq(items.iter().map(|item| &**item)),
            Self::Object(members) => {
                let mut map = writer.serialize_map(Some(members.len()))?;
                for (name, member) in members {
                    map.serialize_entry(name, &**member)?;
                }
                map.end()
            }
        }
    }
}
