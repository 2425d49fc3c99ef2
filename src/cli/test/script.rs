//! Endpoints that answer from a list instead of the network. What would have been sent is made as `serve` makes it, signature
//! included, and kept; a timeout moves the clock by as much as it would have taken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::RETRY_AFTER;

use crate::clock::{Clock, Timestamp};
use crate::config::{Answer, RouteTest};
use crate::delivery::{Attempt, AttemptResult, DeliveryId, EventHead, Request, SendErrorKind};
use crate::dispatch::Transport;
use crate::endpoint::Endpoint;
use crate::send::{Heading, answered};

/// What each subscription's endpoint answers, and what it was sent.
pub struct Script {
    answers: HashMap<Arc<str>, Vec<Answer>>,
    sent: Mutex<HashMap<Arc<str>, Vec<Sent>>>,
}

/// What would have gone out in one attempt.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The attempt's number: attempts that plugins failed count, and send nothing.
    pub number: u32,
    pub at: Timestamp,
    pub request: http::Request<Bytes>,
}

/// The script as the transport of one delivery.
pub struct OnStage {
    script: Arc<Script>,
    clock: Clock,
}

impl Script {
    /// The answers of a test.
    pub fn new(test: &RouteTest) -> Self {
        let answers = test.expected.iter().map(|own| (Arc::clone(&own.subscription), own.answers.clone())).collect();
        Self { answers, sent: Mutex::default() }
    }

    /// The transport of a delivery with its own clock.
    pub fn at(self: &Arc<Self>, clock: Clock) -> OnStage {
        OnStage { script: Arc::clone(self), clock }
    }

    /// What a subscription's endpoint was sent, attempt by attempt.
    pub fn sent(&self, subscription: &str) -> Vec<Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).get(subscription).cloned().unwrap_or_default()
    }

    /// Takes a request, and gives the answer to it: the last of the list goes on for ever.
    fn answer(&self, subscription: &str, request: Sent) -> Answer {
        let mut all = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = all.entry(subscription.into()).or_default();
        let answers = self.answers.get(subscription).map_or(&[][..], Vec::as_slice);
        let answer = answers.get(sent.len()).or(answers.last()).cloned();
        sent.push(request);
        answer.unwrap_or(Answer::Status { status: 200, retry_after: None })
    }
}

#[async_trait]
impl Transport for OnStage {
    async fn attempt(
        &self,
        endpoint: &Endpoint,
        delivery: &DeliveryId,
        event: &EventHead,
        subscription: &str,
        number: u32,
        request: &Request,
    ) -> Attempt {
        let at = self.clock.now();
        let heading = Heading { endpoint, delivery, event, subscription, number, at, span: 1, request };
        let composed = match heading.request() {
            Ok(composed) => composed,
            Err(fault) => {
                let result = AttemptResult::Failed { error: SendErrorKind::BadRequest, detail: fault.to_string() };
                return Attempt { number, at, duration_ms: 0, result, answer: None, by: None };
            }
        };
        let result = match self.script.answer(subscription, Sent { number, at, request: composed }) {
            Answer::Status { status, retry_after } => {
                let headers = retry_after.into_iter().map(|value| (RETRY_AFTER, value)).collect();
                answered(status, &headers, at)
            }
            Answer::Timeout => {
                tokio::time::advance(endpoint.timeout).await;
                let detail = format!("no answer within {:?}", endpoint.timeout);
                AttemptResult::Failed { error: SendErrorKind::Timeout, detail }
            }
            Answer::Refused => {
                let detail = "the connection was refused".to_owned();
                AttemptResult::Failed { error: SendErrorKind::Connect, detail }
            }
        };
        let duration_ms = u64::try_from(self.clock.now().since(at).as_millis()).unwrap_or(u64::MAX);
        Attempt { number, at, duration_ms, result, answer: None, by: None }
    }
}
