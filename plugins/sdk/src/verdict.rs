//! What becomes of an event for one subscription, and the request a plugin may make of it.

use serde::Serialize;

use crate::{Error, Event, RawEvent};

/// What becomes of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on with the event unchanged.
    Pass,
    /// Go on with this event instead: the next plugin of the chain sees it.
    Replace(RawEvent),
    /// Send exactly this. The chain ends.
    Send(Request),
    /// Do not deliver. The reason is recorded.
    Drop(String),
    /// Give the delivery up now. The reason is recorded.
    DeadLetter(String),
}

impl Verdict {
    /// Go on with `event` instead.
    pub fn replace<Payload: Serialize>(event: Event<Payload>) -> Result<Self, Error> {
        event.into_raw().map(Self::Replace)
    }

    /// Send `body` as JSON, with no headers besides the router's own and the endpoint's.
    pub fn send_json(body: &impl Serialize) -> Result<Self, Error> {
        Request::json(body).map(Self::Send)
    }

    /// Do not deliver, for a reason that people will read.
    pub fn drop(reason: impl Into<String>) -> Self {
        Self::Drop(reason.into())
    }

    /// Give the delivery up now, for a reason that people will read.
    pub fn dead_letter(reason: impl Into<String>) -> Self {
        Self::DeadLetter(reason.into())
    }
}

/// A POST to the subscription's endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Headers besides the router's own.
    pub headers: Vec<Header>,
    /// For example `application/json`.
    pub content_type: String,
    /// The body, sent as it is.
    pub body: Body,
}

impl Request {
    /// A request whose body is `body` as JSON.
    pub fn json(body: &impl Serialize) -> Result<Self, Error> {
        Ok(Self { headers: Vec::new(), content_type: "application/json".to_owned(), body: Body::Text(json(body)?) })
    }

    /// The same request with one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(Header { name: name.into(), value: value.into() });
        self
    }
}

/// One HTTP header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Header {
    pub name: String,
    pub value: String,
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Text, sent as UTF-8.
    Text(String),
    /// Any bytes.
    Binary(Vec<u8>),
}

/// Fails only for what JSON cannot say, such as a map whose keys are not text.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|_| Error::permanent("not-json", "the plugin made a value that JSON cannot say"))
}
