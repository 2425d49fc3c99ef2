//! What operators ask over HTTP: from a request to one of the operations, and back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::State;
use super::answers::{self, Answer, json_answer, problem};
use super::explain::{self, Question};
use super::operations::{self, Caller, audit, dead_letters, deliveries, events, replay, stats};
use super::route::Operation;

/// How large a request's body may be: a replay names a thousand events at most.
const BODY_BYTES_MAX: usize = 1 << 20;

/// How long it may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The query of one event.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventQuery {
    pub(super) source: Option<String>,
}

/// The body of replaying one dead letter.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HowReplayed {
    #[serde(default)]
    rerun: bool,
}

/// The body of discarding one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyDiscarded {
    reason: String,
}

/// Why something that was asked is not carried out.
pub(super) enum Fault {
    /// What the operation says.
    Operation(operations::Error),
    /// The body can't be read.
    Body(StatusCode, String),
}

impl From<operations::Error> for Fault {
    fn from(error: operations::Error) -> Self {
        Self::Operation(error)
    }
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Operation(error) => answers::refused(&error),
            Fault::Body(status, detail) => problem(status, &detail),
        }
    }
}

impl State {
    /// Carries out what is asked.
    pub(super) async fn operate(
        &self,
        operation: Operation,
        query: Option<&str>,
        body: Incoming,
        caller: &Caller,
    ) -> Answer {
        match self.carry_out(operation, query, body, caller).await {
            Ok(answer) => answer,
            Err(fault) => fault.into(),
        }
    }

    /// What the config says, beside the secrets of whoever asks.
    pub(super) async fn comparison(&self, body: Incoming) -> Answer {
        match read_body(body).await.and_then(|body| read_json(&body)) {
            Ok(prints) => json_answer(&(self.compare)(&prints)),
            Err(fault) => fault.into(),
        }
    }

    async fn carry_out(
        &self,
        operation: Operation,
        query: Option<&str>,
        body: Incoming,
        caller: &Caller,
    ) -> Result<Answer, Fault> {
        let (store, now) = (&*self.store, caller.now);
        Ok(match operation {
            Operation::Events => {
                let query: events::EventsQuery = read_query(query)?;
                if query.payload {
                    json_answer(&events::whole(store, &query, now).await?)
                } else {
                    json_answer(&events::list(store, &query, now).await?)
                }
            }
            Operation::Event(id) => {
                let EventQuery { source } = read_query(query)?;
                json_answer(&events::one(store, &self.snapshot.load_full(), &id, source.as_deref()).await?)
            }
            Operation::Explain(id) => {
                let (snapshot, question) = (self.snapshot.load_full(), read_query(query)?);
                json_answer(&explain::explain_stored(store, &snapshot, &self.plugins, &id, &question, now).await?)
            }
            Operation::ExplainGiven => {
                let question: Question = read_query(query)?;
                let body = read_body(body).await?;
                let text = std::str::from_utf8(&body);
                let text = text.map_err(|_| operations::Error::Invalid("the body is not UTF-8".to_owned()))?;
                let event = (self.read_event)(text, question.source.as_deref(), now);
                let event = event.map_err(operations::Error::Invalid)?;
                let (snapshot, event) = (self.snapshot.load_full(), Arc::new(event));
                let explained = explain::explain(&snapshot, &self.plugins, &event, None, &question, now);
                json_answer(&explained.await?)
            }
            Operation::DeadLetters => json_answer(&dead_letters::list(store, &read_query(query)?, now).await?),
            Operation::DeadLetter(id) => json_answer(&dead_letters::one(store, &id).await?),
            Operation::ReplayDeadLetter(id) => {
                let body = read_body(body).await?;
                let HowReplayed { rerun } = if body.is_empty() { HowReplayed::default() } else { read_json(&body)? };
                let replayed = replay::dead_letter(store, &self.snapshot.load_full(), caller, &id, rerun).await?;
                (self.schedule_changed)();
                json_answer(&replayed)
            }
            Operation::DiscardDeadLetter(id) => {
                let WhyDiscarded { reason } = read_json(&read_body(body).await?)?;
                json_answer(&dead_letters::discard(store, caller, &id, &reason).await?)
            }
            Operation::Deliveries => {
                json_answer(&deliveries::list(store, &self.snapshot.load_full(), &read_query(query)?).await?)
            }
            Operation::Replay => {
                let request = read_json(&read_body(body).await?)?;
                let step = replay::step(store, &self.snapshot.load_full(), caller, &request).await?;
                if step.replayed > 0 {
                    (self.schedule_changed)();
                }
                json_answer(&step)
            }
            Operation::Audit => json_answer(&audit::list(store, &read_query(query)?).await?),
            Operation::Stats => json_answer(&stats::stats(store).await?),
        })
    }
}

/// Reads a query: each key once, none that is not known.
pub(super) fn read_query<Query: DeserializeOwned>(query: Option<&str>) -> Result<Query, operations::Error> {
    serde_urlencoded::from_str(query.unwrap_or_default())
        .map_err(|error| operations::Error::Invalid(format!("the query can't be read: {error}")))
}

/// The whole body, if it is not too large and comes in time.
async fn read_body(body: Incoming) -> Result<Bytes, Fault> {
    let (status, detail) = match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await
    {
        Ok(Ok(body)) => return Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            (StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {BODY_BYTES_MAX} bytes"))
        }
        Ok(Err(_)) => (StatusCode::BAD_REQUEST, "the body did not come whole".to_owned()),
        Err(_elapsed) => (StatusCode::REQUEST_TIMEOUT, format!("the body took longer than {BODY_TIMEOUT:?}")),
    };
    Err(Fault::Body(status, detail))
}

pub(super) fn read_json<Body: DeserializeOwned>(body: &[u8]) -> Result<Body, Fault> {
    let unreadable = |error| Fault::Body(StatusCode::BAD_REQUEST, format!("the body can't be read: {error}"));
    serde_json::from_slice(body).map_err(unreadable)
}
