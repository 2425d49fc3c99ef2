//! What happened: the event as a plugin sees it, with its payload in the plugin's own type, and the
//! raw event with the texts that cross the boundary.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, text};

/// An event with its payload as `Payload`, any type that serde can read.
///
/// As a [`Value`] the payload keeps the digits of its numbers and the order of its keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<Payload = Value> {
    /// The producer's id, or `evt_…`.
    pub id: String,
    /// For example `order.completed`.
    pub event_type: String,
    /// Empty when the producer gave none.
    pub aggregate_type: String,
    /// Empty when the producer gave none.
    pub aggregate_id: String,
    /// When it happened, in RFC 3339.
    pub occurred_at: String,
    /// What the producer says about it.
    pub payload: Payload,
    /// What came along with it.
    pub metadata: Map<String, Value>,
}

/// An event as it crosses the boundary: payload and metadata are JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `Event`")]
pub struct RawEvent {
    pub id: String,
    pub event_type: String,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub occurred_at: String,
    pub payload: String,
    pub metadata: String,
}

impl<Payload> Event<Payload> {
    /// Which event this is, on one line: `order.completed · Order order_1 · evt_1`.
    pub fn origin(&self) -> String {
        let aggregate = [&*self.aggregate_type, " ", &self.aggregate_id].concat();
        let parts = [&self.event_type, aggregate.trim(), &self.id];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts.map(text::one_line).collect::<Vec<_>>().join(" · ")
    }

    /// The same event with another payload, perhaps of another type.
    pub fn with_payload<Other>(self, payload: Other) -> Event<Other> {
        Event {
            id: self.id,
            event_type: self.event_type,
            aggregate_type: self.aggregate_type,
            aggregate_id: self.aggregate_id,
            occurred_at: self.occurred_at,
            payload,
            metadata: self.metadata,
        }
    }
}

impl Event {
    /// The text at a JSON pointer in the payload, such as `/customer/email`, without spaces around it. The error, of this
    /// `code` and permanent, says where the text should be, not what stands there.
    pub fn text_at(&self, pointer: &str, code: &str) -> Result<&str, Error> {
        match self.payload.pointer(pointer) {
            Some(Value::String(text)) => Ok(text.trim()),
            Some(Value::Null) | None => Err(Self::unfit(pointer, code, "is missing")),
            Some(_) => Err(Self::unfit(pointer, code, "is not text")),
        }
    }

    /// The error of a place in the payload where something else should be: ``the payload's `/email` is missing``.
    pub fn unfit(pointer: &str, code: &str, fault: &str) -> Error {
        Error::permanent(code, format!("the payload's `{pointer}` {fault}"))
    }
}

impl<Payload: DeserializeOwned> Event<Payload> {
    /// Reads the payload and the metadata.
    pub fn parse(raw: RawEvent) -> Result<Self, Error> {
        Ok(Self {
            payload: read("payload", &raw.payload)?,
            metadata: read("metadata", &raw.metadata)?,
            id: raw.id,
            event_type: raw.event_type,
            aggregate_type: raw.aggregate_type,
            aggregate_id: raw.aggregate_id,
            occurred_at: raw.occurred_at,
        })
    }
}

impl<Payload: Serialize> Event<Payload> {
    /// Writes the payload and the metadata as JSON text.
    pub fn into_raw(self) -> Result<RawEvent, Error> {
        Ok(RawEvent {
            payload: crate::verdict::json(&self.payload)?,
            metadata: crate::verdict::json(&self.metadata)?,
            id: self.id,
            event_type: self.event_type,
            aggregate_type: self.aggregate_type,
            aggregate_id: self.aggregate_id,
            occurred_at: self.occurred_at,
        })
    }
}

/// Says where the text does not fit, but never what stands there: serde's own message quotes values,
/// and an error text must hold nothing of a payload.
fn read<Target: DeserializeOwned>(part: &str, text: &str) -> Result<Target, Error> {
    serde_json::from_str(text).map_err(|fault| {
        Error::permanent(
            format!("invalid-{part}"),
            format!(
                "the event's {part} is not what this plugin expects (line {}, column {})",
                fault.line(),
                fault.column()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(payload: &str) -> RawEvent {
        RawEvent {
            id: "evt_1".into(),
            event_type: "order.completed".into(),
            aggregate_type: String::new(),
            aggregate_id: String::new(),
            occurred_at: "2025-01-15T10:30:00Z".into(),
            payload: payload.into(),
            metadata: "{}".into(),
        }
    }

    #[test]
    fn digits_and_key_order_survive_a_round_trip() {
        let payload = r#"{"z":1.10,"a":123456789012345678901234567890,"m":[0.1000]}"#;
        let event: Event = Event::parse(raw(payload)).expect("it parses");
        assert_eq!(event.into_raw().expect("it is written").payload, payload);
    }

    #[test]
    fn a_text_is_found_or_its_place_is_named() {
        let event: Event =
            Event::parse(raw(r#"{"to":{"email":" a@b.kr "},"name":null,"secret":1}"#)).expect("it parses");
        assert_eq!(event.text_at("/to/email", "no-mail"), Ok("a@b.kr"));
        for (pointer, fault) in [("/name", "is missing"), ("/no/such", "is missing"), ("/secret", "is not text")] {
            let expected = Error::permanent("no-mail", format!("the payload's `{pointer}` {fault}"));
            assert_eq!(event.text_at(pointer, "no-mail"), Err(expected));
        }
    }

    #[test]
    fn a_payload_that_does_not_fit_is_not_quoted() {
        #[derive(serde::Deserialize, Debug)]
        struct Strict {
            #[expect(dead_code, reason = "only its type matters here")]
            amount: u64,
        }
        let fault = Event::<Strict>::parse(raw(r#"{"amount":"secret"}"#)).expect_err("not a number");
        assert_eq!(fault.code, "invalid-payload");
        assert!(!fault.message.contains("secret"), "{}", fault.message);
        assert!(!fault.retryable);
    }
}
