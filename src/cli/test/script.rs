//! Endpoints that answer from a list instead of the network. What would have been sent is made as `serve` makes it, signature
//! included, and kept; a timeout moves the clock by as much as it would have taken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::RETRY_AFTER;

use crate::clock::Clock;
use crate::config::{Answer, RouteTest};
use crate::delivery::{Attempt, AttemptResult, DeliveryId, EventHead, Request, SendErrorKind};
use crate::dispatch::Transport;
use crate::endpoint::Endpoint;
use crate::send::{Heading, answered};

/// What each subscription's endpoint answers, and what it was sent.
pub struct Script {
    answers: HashMap<Arc<str>, Vec<Answer>>,
    sent: Mutex<HashMap<Arc<str>, Sent>>,
}

/// What would have gone out to one endpoint: a retry sends the bytes of the first attempt.
struct Sent {
    first: http::Request<Bytes>,
    count: usize,
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

    /// The first request that a subscription's endpoint was sent.
    pub fn sent(&self, subscription: &str) -> Option<http::Request<Bytes>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).get(subscription).map(|sent| sent.first.clone())
    }

    /// Takes a request, and gives the answer to it: the last of the list goes on for ever.
    fn answer(&self, subscription: &str, request: http::Request<Bytes>) -> Answer {
        let mut all = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = all.entry(subscription.into()).or_insert(Sent { first: request, count: 0 });
        sent.count += 1;
        let answers = self.answers.get(subscription).map_or(&[][..], Vec::as_slice);
        let answer = answers.get(sent.count - 1).or(answers.last()).cloned();
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
        let result = match self.script.answer(subscription, composed) {
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
