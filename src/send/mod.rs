//! One attempt: signs, connects (never to an address the operator has not allowed), and returns what
//! happened as data.
//!
//! It takes a request and gives an [`Attempt`], whatever the endpoint does: a webhook that answers 500
//! is no error of ours. It never retries by a schedule, decides, stores or logs.

pub mod address; // Which addresses deliveries may go to.
mod answer; // What is kept of an answer.
mod body; // The request when no plugin made one.
mod connect; // A connection, to a judged address only.
mod connection; // Requests over a connection.
mod fault; // Why there was no answer.
#[cfg(test)]
mod fuzz;
mod headers; // The headers of an attempt.
mod pool; // Connections that wait for a request.
mod reach; // A connection, and no request.
mod resolve; // A name in, addresses out.
pub mod sign; // Standard Webhooks signatures.
mod stream; // Bytes of a connection, counted.
mod ways; // The pools, by where they lead.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
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

use connection::{ANSWER_HEAD_BYTES_MAX, Connection};
use pool::Pool;
use ways::Ways;

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
    ways: Arc<Ways>,
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
        let Self { allowed, connection_age_max, resolver, roots, metrics, clock, .. } = self;
        let ways = Ways::new(allowed, resolver, answer_bytes_max, roots, connection_age_max).map_err(Error::Tls)?;
        Ok(Sender { ways: Arc::new(ways), answer_bytes_max, metrics, clock })
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
        self.ways.keep_only(endpoints);
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
    /// A request that an idle connection swallowed (see [`Connection::ended_idle`]) is sent again at once,
    /// since the receiver meant the connection and not the request. Should it have read the request all
    /// the same, the answer is lost, and `webhook-id` tells it that this one is the same.
    async fn exchange(&self, heading: &Heading<'_>, deadline: Instant) -> (AttemptResult, Option<String>) {
        let pool = match self.ways.pool(heading.endpoint) {
            Ok(pool) => pool,
            Err(error) => return (fault::bad_request(&error, &heading.endpoint.url), None),
        };
        let mut resent = 0;
        loop {
            match send(&pool, heading, deadline).await {
                Sent::Answered(response, connection) => {
                    let now = self.clock.of_the_machine();
                    let answer = answer::read(response, now, self.answer_bytes_max, deadline).await;
                    if answer.is_whole {
                        pool.give_back(connection);
                    }
                    return (answer.result, answer.text);
                }
                Sent::Swallowed(_) if resent < RESENDS_MAX => resent += 1,
                Sent::Swallowed(failed) | Sent::Failed(failed) => return (failed, None),
            }
        }
    }
}

/// What became of a request.
enum Sent {
    /// The head of an answer is here.
    Answered(Response<Incoming>, Connection),
    /// The receiver closed an idle connection while the request was on its way.
    Swallowed(AttemptResult),
    /// There is no answer.
    Failed(AttemptResult),
}

/// Sends the request and waits for the head of the answer.
async fn send(pool: &Arc<Pool>, heading: &Heading<'_>, deadline: Instant) -> Sent {
    let Endpoint { url, timeout, connect_timeout, .. } = heading.endpoint;
    let mut request = match heading.request() {
        Ok(request) => request.map(Full::new),
        Err(fault) => return Sent::Failed(fault::bad_request(&fault, url)),
    };
    loop {
        let pooled = pool.take();
        let is_new = pooled.is_none();
        let mut connection = match pooled {
            Some(connection) => connection,
            // Boxed: it is rare, and half of what every attempt would be made of.
            None => match timeout_at(deadline, Box::pin(pool.connect(url.uri(), *connect_timeout))).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => return Sent::Failed(fault::of(&error, url)),
                Err(_) => return Sent::Failed(fault::timed_out(*timeout, false, url)),
            },
        };
        let mut error = match timeout_at(deadline, connection.send(request, url)).await {
            Ok(Ok(response)) => return Sent::Answered(response, connection),
            Ok(Err(error)) => error,
            Err(_) => return Sent::Failed(fault::timed_out(*timeout, true, url)),
        };
        match error.take_message() {
            // The pooled connection ended before any of it was sent.
            Some(unsent) if !is_new => request = unsent,
            _ => {
                let failed = fault::of(&error.into_error().into(), url);
                let is_broken = matches!(failed, AttemptResult::Failed { error: SendErrorKind::Broken, .. });
                return if is_broken && connection.ended_idle() {
                    Sent::Swallowed(failed)
                } else {
                    Sent::Failed(failed)
                };
            }
        }
    }
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
