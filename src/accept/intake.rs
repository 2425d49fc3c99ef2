//! One request → one answer: its head, its body, its events, the store. 2xx comes after the store's word only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use http::header::{CONTENT_TYPE, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Body;
use serde::Serialize;
use tokio::time::Instant;

use super::admission::{self, Admitted, Refused};
use super::body::{self, Budget, Share};
use super::cloud_event;
use super::envelope::{self, Array, Parsed, Unreadable};
use super::fault::Faults;
use super::fields::Ids;
use super::framing::HeadFault;
use super::gate::Gate;
use super::media_type::BodyKind;
use super::refusal::Refusal;
use super::sources::{Sources, Way};
use super::trace_context;
use crate::clock::Clock;
use crate::config::{Ingest, Source};
use crate::event::{Event, apart};
use crate::metrics::Metrics;
use crate::store::{self, Appended, Store};
use crate::tail::{Happening, HappeningEvent, What};

/// A body of this size or more is read by a thread of its own, so that it delays no other request.
const OWN_THREAD_BYTES_MIN: usize = 256 * 1024;
/// An unwanted body of at most this size is read away, so that its connection can go on.
const DISCARD_BYTES_MAX: usize = 64 * 1024;
/// And within this time.
const DISCARD_WITHIN: Duration = Duration::from_millis(250);
/// How often the log says that the store fails. The metrics count all of it.
const STORE_WARNING_EVERY: Duration = Duration::from_secs(1);

/// Takes events in. One for the router, shared by all connections.
pub struct Intake {
    store: Arc<dyn Store>,
    sources: Sources,
    settings: Ingest,
    metrics: Metrics,
    clock: Clock,
    gate: Gate,
    budget: Arc<Budget>,
    ids: Ids,
    store_warned_ms: AtomicU64,
    /// What metrics have for a request that is for no source.
    no_source: Arc<str>,
}

/// What became of one event.
#[derive(Serialize)]
struct Taken {
    id: ByteString,
    status: &'static str,
}

#[derive(Serialize)]
struct TakenBatch {
    events: Vec<Taken>,
}

impl Intake {
    /// An intake for these sources, with an open gate.
    pub fn new(
        settings: &Ingest,
        sources: &[Arc<Source>],
        store: Arc<dyn Store>,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            sources: Sources::new(sources),
            settings: settings.clone(),
            metrics,
            clock,
            gate: Gate::default(),
            budget: Budget::new(settings.bodies_bytes_max),
            ids: Ids::default(),
            store_warned_ms: AtomicU64::new(0),
            no_source: Arc::from(""),
        }
    }

    /// Replaces all sources. Requests under way keep theirs.
    pub fn replace_sources(&self, sources: &[Arc<Source>]) {
        self.sources.replace(sources);
    }

    /// The names of the sources in use.
    pub(super) fn source_names(&self) -> Vec<Arc<str>> {
        self.sources.now().values().map(|way| Arc::clone(&way.source.name)).collect()
    }

    /// Whether events are taken at all.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A request was answered before it could be read as one.
    pub(super) fn count_unreadable(&self, status: StatusCode) {
        self.metrics.refused(&self.no_source, status.as_u16());
        tracing::debug!(http.status = status.as_u16(), "refused what is no request");
    }

    /// Answers a request of HTTP/2 that is not to be looked at.
    pub(super) fn turn_away(&self, refusal: Refusal) -> Response<Full<Bytes>> {
        self.count_unreadable(refusal.status());
        refusal.response(false)
    }

    /// Answers a request. `hidden` is what is wrong with its head that its parts don't show.
    ///
    /// `names` are those of the client's certificate.
    pub(super) async fn answer<B>(
        &self,
        request: Request<B>,
        hidden: Option<HeadFault>,
        names: &[String],
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, mut body) = request.into_parts();
        let Refused { source, refusal } = match self.take(&head, &mut body, hidden, names).await {
            Ok(answer) => return answer,
            Err(refused) => refused,
        };
        let source = source.as_ref().map_or(&self.no_source, |source| &source.name);
        let status = refusal.status().as_u16();
        self.metrics.refused(source, status);
        tracing::debug!(%source, http.status = status, problem = refusal.name(), "refused a request");
        // In HTTP/2 a body that nobody wants is in no other request's way.
        if head.version == Version::HTTP_2 {
            return refusal.response(false);
        }
        // Whoever waits for `100 Continue` must not get it together with a refusal.
        let close = refusal.closes()
            || !body.is_end_stream()
                && (head.headers.contains_key(EXPECT)
                    || !body::discard(&mut body, DISCARD_BYTES_MAX, DISCARD_WITHIN).await);
        refusal.response(close)
    }

    async fn take<B>(
        &self,
        head: &Parts,
        body: &mut B,
        hidden: Option<HeadFault>,
        names: &[String],
    ) -> Result<Response<Full<Bytes>>, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Admitted { way, kind, length } = admission::admit(head, hidden, names, &self.sources.now())?;
        match self.take_for(&way, kind, length, head, body).await {
            Ok(answer) => Ok(answer),
            Err(refusal) => Err(Refused { source: Some(way.source), refusal }),
        }
    }

    async fn take_for<B>(
        &self,
        way: &Way,
        kind: BodyKind,
        length: Option<usize>,
        head: &Parts,
        body: &mut B,
    ) -> Result<Response<Full<Bytes>>, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if let Some(closure) = self.gate.closure() {
            return Err(Refusal::Shut(closure));
        }
        let Way { source, name, limit } = way;
        // Whoever is over the quota already is told before a body is read; how many events it has shows later.
        if let Some(wait) =
            limit.as_ref().map(|limit| limit.wait(Instant::now().into_std())).filter(|wait| !wait.is_zero())
        {
            return Err(Refusal::OverQuota { wait });
        }
        // Held until the answer is made: the events share the body's bytes.
        let mut share = Share::none(&self.budget);
        let limits = body::Limits { body_bytes_max: source.body_bytes_max, body_timeout: self.settings.body_timeout };
        let bytes = body::read(body, length, limits, &mut share).await?;
        let parsed = self.parse(kind, &head.headers, bytes).await?;
        if !parsed.faults.is_empty() {
            return Err(Refusal::NotAnEnvelope(parsed.faults));
        }
        if let Some(limit) = limit {
            let count = u32::try_from(parsed.drafts.len()).unwrap_or(u32::MAX);
            limit.take(count, Instant::now().into_std()).map_err(|wait| Refusal::OverQuota { wait })?;
        }
        let traceparent = trace_context::traceparent(&head.headers);
        let now = self.clock.now();
        let events: Vec<_> =
            parsed.drafts.into_iter().map(|draft| draft.into_event(name, traceparent, now, &self.ids)).collect();
        let ids: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
        let told = self.metrics.tail().is_watched().then(|| happening(&events));
        let appended = in_time(self.settings.store_timeout, self.store.append(events)).await;
        let appended = appended.map_err(|error| self.refuse_for_store(&error))?;
        for (happening, appended) in told.into_iter().flatten().zip(&appended) {
            if matches!(appended, Appended::Stored(_)) {
                self.metrics.tail().tell(|| happening);
            }
        }
        Ok(self.answer_taken(source, ids, &appended, parsed.batch))
    }

    async fn parse(&self, kind: BodyKind, headers: &HeaderMap, bytes: Bytes) -> Result<Parsed, Refusal> {
        let events_max = self.settings.batch_events_max;
        let parsed = if bytes.len() < OWN_THREAD_BYTES_MIN {
            parse_body(kind, headers, bytes, events_max)
        } else {
            let headers = headers.clone();
            let parsing = tokio::task::spawn_blocking(move || parse_body(kind, &headers, bytes, events_max));
            parsing.await.map_err(|error| {
                tracing::error!(panicked = error.is_panic(), "reading a body failed; this is a bug");
                Refusal::Internal
            })?
        };
        parsed.map_err(|unreadable| match unreadable {
            Unreadable::NotJson(what) => Refusal::NotJson(what.into()),
            Unreadable::TooManyEvents => Refusal::TooManyEvents { batch_events_max: events_max },
            Unreadable::Empty => {
                let mut faults = Faults::new();
                faults.add("", || "a batch has at least one event".to_owned());
                Refusal::NotAnEnvelope(faults)
            }
        })
    }

    fn answer_taken(
        &self,
        source: &Source,
        ids: Vec<ByteString>,
        appended: &[Appended],
        batch: bool,
    ) -> Response<Full<Bytes>> {
        let stored = appended.iter().filter(|one| matches!(one, Appended::Stored(_))).count();
        let duplicates = appended.len() - stored;
        if stored > 0 {
            self.metrics.accepted(&source.name, stored as u64);
        }
        if duplicates > 0 {
            self.metrics.duplicates(&source.name, duplicates as u64);
        }
        let mut taken = ids.into_iter().zip(appended).map(|(id, appended)| match appended {
            Appended::Stored(_) => Taken { id, status: "accepted" },
            Appended::Duplicate => Taken { id, status: "duplicate" },
        });
        // A batch is answered one way whatever was in it; one event's status says at once what became of it.
        match (batch, duplicates) {
            (true, _) => json_answer(StatusCode::ACCEPTED, &TakenBatch { events: taken.collect() }),
            (false, 0) => json_answer(StatusCode::ACCEPTED, &taken.next()),
            (false, _) => json_answer(StatusCode::OK, &taken.next()),
        }
    }

    fn refuse_for_store(&self, error: &store::Error) -> Refusal {
        let now = self.clock.now().as_millis();
        let warned = self.store_warned_ms.load(Ordering::Relaxed);
        if now.saturating_sub(warned) >= STORE_WARNING_EVERY.as_millis() as u64
            && self.store_warned_ms.compare_exchange(warned, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            tracing::warn!(%error, "the store did not take events; producers are told to try again");
        }
        match error {
            store::Error::Full(_) => Refusal::StoreFull,
            store::Error::Away(_) | store::Error::Closed | store::Error::Unusable(_) | store::Error::Damaged { .. } => {
                Refusal::StoreUnsure
            }
        }
    }
}

/// What is told of events once they are stored.
fn happening(events: &[Event]) -> Vec<Happening> {
    let of = |event: &Event| Happening {
        at: event.accepted_at,
        event: HappeningEvent {
            id: apart(&event.id),
            source: apart(&event.source),
            event_type: apart(&event.event_type),
        },
        what: What::Accepted,
    };
    events.iter().map(of).collect()
}

/// The store's word, or that there was none in time: then nobody knows whether the events are stored.
async fn in_time<T>(limit: Duration, word: impl Future<Output = Result<T, store::Error>>) -> Result<T, store::Error> {
    let late = |_| Err(store::Error::Away("it did not answer in time".to_owned()));
    tokio::time::timeout(limit, word).await.unwrap_or_else(late)
}

pub(super) fn parse_body(
    kind: BodyKind,
    headers: &HeaderMap,
    bytes: Bytes,
    events_max: usize,
) -> Result<Parsed, Unreadable> {
    let body = ByteString::try_from(bytes).map_err(|_| Unreadable::NotJson("the body is not UTF-8".to_owned()))?;
    if body.is_empty() && kind != BodyKind::CloudEventData {
        return Err(Unreadable::NotJson("the body is empty".to_owned()));
    }
    match kind {
        BodyKind::Envelopes => envelope::parse(&body, Array::Allowed, events_max, envelope::read_envelope),
        BodyKind::Lines => envelope::parse_lines(&body, events_max),
        BodyKind::CloudEvent => envelope::parse(&body, Array::Refused, events_max, cloud_event::read_structured),
        BodyKind::CloudEventBatch => envelope::parse(&body, Array::Required, events_max, cloud_event::read_structured),
        BodyKind::CloudEventData => cloud_event::parse_binary(headers, body),
    }
}

fn json_answer(status: StatusCode, answer: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(answer).expect("an answer has string keys only");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_waited_for_so_long_and_no_longer() {
        let limit = Duration::from_secs(10);
        let slow = in_time(limit, async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Ok(7)
        });
        assert_eq!(slow.await.unwrap(), 7);
        let hanging = in_time(limit, std::future::pending::<Result<(), _>>());
        assert!(matches!(hanging.await, Err(store::Error::Away(_))));
    }
}
