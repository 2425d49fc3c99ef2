//! One attempt: signs, connects (never to an address the operator has not allowed), and returns what
//! happened as data.
//!
//! It takes a request and gives an [`Attempt`], whatever the endpoint does: a webhook that answers 500
//! is no error of ours. It never retries by a schedule, decides, stores or logs.

pub mod address; // Which addresses deliveries may go to.
mod answer; // What is kept of an answer.
mod body; // The request when no plugin made one.
mod clients; // The pooled connections.
mod connect; // A connection, to a judged address only.
mod fault; // Why there was no answer.
#[cfg(test)]
mod fuzz;
mod headers; // The headers of an attempt.
mod reach; // A connection, and no request.
mod resolve; // A name in, addresses out.
pub mod sign; // Standard Webhooks signatures.
mod stream; // Bytes of a connection, counted.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};

use crate::clock::Clock;
use crate::config::DeliverySettings;
use crate::delivery::{Attempt, AttemptResult, DeliveryId, EventHead, Request, SendErrorKind};
use crate::endpoint::Endpoint;
use crate::metrics::Metrics;

pub use answer::answered;
pub use body::body_for;
pub use connect::refusal;
pub use headers::{
    HeaderFault, Heading, PLUGIN_HEADER_BYTES_MAX, PLUGIN_HEADERS_MAX, check_plugin_headers, endpoint_may_set,
    may_be_secret,
};
pub use reach::Unreached;
pub use resolve::{Resolve, SystemResolver};

use clients::{ANSWER_HEAD_BYTES_MAX, Clients};
use connect::CONNECT_BOUND;
use stream::Past;

/// See [`SenderBuilder::connection_age_max`].
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// How often an attempt's request is sent again at once where idle connections end under it.
const RESENDS_MAX: u32 = 2;
/// What a connection may bring in all for one answer, for every byte of body that is read: an
/// honest body in chunks of one byte is six times as long.
const ANSWER_OVERHEAD: usize = 8;

/// Why there is no [`Sender`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A root certificate can't be used.
    #[error("a root certificate can't be used: {0}")]
    Root(rustls::Error),
    /// The TLS library refuses its own defaults.
    #[error(transparent)]
    Tls(crate::tls::Error),
}

/// Makes attempts. Cloning shares the connections.
#[derive(Clone)]
pub struct Sender {
    clients: Arc<Clients>,
    connection_age_max: Duration,
    answer_bytes_max: usize,
    metrics: Metrics,
    clock: Clock,
}

/// A [`Sender`] to be.
pub struct SenderBuilder {
    allowed: Arc<[ipnet::IpNet]>,
    connection_age_max: Duration,
    answer_bytes_max: usize,
    resolver: Arc<dyn Resolve>,
    roots: RootCertStore,
    metrics: Metrics,
    clock: Clock,
}

impl SenderBuilder {
    /// Trusts certificates of these authorities as well.
    pub fn extra_roots(
        mut self,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, Error> {
        for certificate in certificates {
            self.roots.add(certificate).map_err(Error::Root)?;
        }
        Ok(self)
    }

    /// Looks names up by `resolver` instead of the operating system.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Gives a connection up for new requests when it is older than this (60 s unless set), however busy
    /// it is, so that a change of the name's address is followed.
    pub fn connection_age_max(mut self, age: Duration) -> Self {
        self.connection_age_max = age;
        self
    }

    /// The sender.
    pub fn build(self) -> Result<Sender, Error> {
        let answer_bytes_max =
            self.answer_bytes_max.saturating_mul(ANSWER_OVERHEAD).saturating_add(2 * ANSWER_HEAD_BYTES_MAX);
        let clients = Clients::new(self.allowed, self.resolver, answer_bytes_max, self.roots).map_err(Error::Tls)?;
        let Self { connection_age_max, answer_bytes_max, metrics, clock, .. } = self;
        Ok(Sender { clients: Arc::new(clients), connection_age_max, answer_bytes_max, metrics, clock })
    }
}

impl Sender {
    /// A sender that keeps to `settings`.
    pub fn new(settings: &DeliverySettings, metrics: Metrics, clock: Clock) -> Result<Self, Error> {
        Self::builder(settings, metrics, clock).build()
    }

    /// The same, with something else than the defaults.
    pub fn builder(settings: &DeliverySettings, metrics: Metrics, clock: Clock) -> SenderBuilder {
        SenderBuilder {
            allowed: settings.allow_networks.as_slice().into(),
            connection_age_max: CONNECTION_AGE_MAX,
            answer_bytes_max: settings.answer_bytes_max,
            resolver: Arc::new(SystemResolver::default()),
            roots: RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
            metrics,
            clock,
        }
    }

    /// Gives up connections that lead to none of these endpoints. What is under way on one still ends well.
    pub fn keep_connections_of<'e>(&self, endpoints: impl Iterator<Item = &'e Endpoint>) {
        self.clients.keep_only(endpoints);
    }

    /// Makes the attempt `number` to bring `request` to `endpoint`. Ends within the endpoint's timeout.
    ///
    /// Once a head is here the attempt is answered, whatever becomes of the body.
    pub async fn attempt(
        &self,
        endpoint: &Endpoint,
        delivery: &DeliveryId,
        event: &EventHead,
        subscription: &str,
        number: u32,
        request: &Request,
    ) -> Attempt {
        let at = self.clock.now();
        let started = Instant::now();
        let in_flight = self.metrics.attempt_begins();
        let span = fastrand::u64(1..);
        // Receivers compare it with their own clocks, and refuse what is a few minutes off.
        let signed_at = self.clock.of_the_machine();
        let heading = Heading { endpoint, delivery, event, subscription, number, at: signed_at, span, request };
        let (result, answer) = self.exchange(&heading, started + endpoint.timeout).await;
        drop(in_flight);
        let took = started.elapsed();
        self.metrics.attempt(&endpoint.name, result_name(&result), took);
        Attempt {
            number,
            at,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            result,
            answer,
            by: None,
        }
    }

    /// Sends the request and reads the answer.
    ///
    /// A request that an idle connection swallowed (see [`Past::ended_idle`]) is sent again at once,
    /// since the receiver meant the connection and not the request. Should it have read the request all
    /// the same, the answer is lost, and `webhook-id` tells it that this one is the same.
    async fn exchange(&self, heading: &Heading<'_>, deadline: Instant) -> (AttemptResult, Option<String>) {
        let mut resent = 0;
        loop {
            match self.send(heading, deadline).await {
                Sent::Answered(response) => {
                    return answer::read(response, self.clock.of_the_machine(), self.answer_bytes_max, deadline).await;
                }
                Sent::Swallowed(_) if resent < RESENDS_MAX => resent += 1,
                Sent::Swallowed(failed) | Sent::Failed(failed) => return (failed, None),
            }
        }
    }

    /// Sends the request and waits for the head of the answer.
    async fn send(&self, heading: &Heading<'_>, deadline: Instant) -> Sent {
        let endpoint = heading.endpoint;
        let url = &endpoint.url;
        let mut outgoing = match heading.request() {
            Ok(request) => request.map(Full::new),
            Err(fault) => return Sent::Failed(fault::bad_request(&fault, url)),
        };
        let connection = capture_connection(&mut outgoing);
        let answering = match self.clients.request(endpoint, outgoing) {
            Ok(answering) => CONNECT_BOUND.scope(endpoint.connect_timeout, answering),
            Err(error) => return Sent::Failed(fault::bad_request(&error, url)),
        };
        match timeout_at(deadline, answering).await {
            Ok(Ok(response)) => {
                if let Some(past) = response.extensions().get::<Arc<Past>>() {
                    past.answered();
                    if past.connected_at.elapsed() > self.connection_age_max
                        && let Some(connection) = &*connection.connection_metadata()
                    {
                        connection.poison();
                    }
                }
                Sent::Answered(response)
            }
            Ok(Err(error)) => match fault::of(&error, url) {
                broken @ AttemptResult::Failed { error: SendErrorKind::Broken, .. } if ended_idle(&connection) => {
                    Sent::Swallowed(broken)
                }
                failed => Sent::Failed(failed),
            },
            Err(_) => {
                let connected = connection.connection_metadata().is_some();
                Sent::Failed(fault::timed_out(endpoint.timeout, connected, url))
            }
        }
    }
}

/// What became of a request.
enum Sent {
    /// The head of an answer is here.
    Answered(Response<Incoming>),
    /// The receiver closed an idle connection while the request was on its way.
    Swallowed(AttemptResult),
    /// There is no answer.
    Failed(AttemptResult),
}

fn ended_idle(connection: &CaptureConnection) -> bool {
    let mut extras = http::Extensions::new();
    if let Some(connection) = &*connection.connection_metadata() {
        connection.get_extras(&mut extras);
    }
    extras.get::<Arc<Past>>().is_some_and(|past| past.ended_idle())
}

/// The word in metrics.
fn result_name(result: &AttemptResult) -> &'static str {
    match result {
        AttemptResult::Answered { status, .. } => match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        },
        AttemptResult::Failed { error, .. } => error.as_str(),
        AttemptResult::PluginFailed { error, .. } => error.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::endpoint::EndpointUrl;
    use crate::event::{self, Position};

    pub(super) fn endpoint(url: &str) -> Endpoint {
        let connect_timeout = Duration::from_secs(1);
        Endpoint { connect_timeout, ..Endpoint::new("test", EndpointUrl::parse(url).unwrap()) }
    }

    pub(super) fn head() -> EventHead {
        EventHead::of(&event::sample("evt_1", "order.created", "{}"), Position { partition: 0, major: 1, minor: 0 })
    }

    pub(super) fn request(body: &str) -> Request {
        Request {
            content_type: body::JSON.to_owned(),
            headers: Vec::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }
}
