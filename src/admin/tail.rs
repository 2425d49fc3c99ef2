//! What happens, as it happens: a line of JSON each, until the reader goes away or the router stops.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::answers::{Answer, problem};
use super::operations::{self, events, views::AttemptView};
use crate::delivery::Outcome;
use crate::tail::{Happening, Seen, Tail, Watch, What};

/// How many may watch at a time: each takes one of the listener's connections for as long as it likes.
pub(super) const WATCHERS_MAX: usize = 16;

/// How many bytes of lines go out in one piece, about.
const CHUNK_BYTES: usize = 64 << 10;

/// How long nothing is said at most: a reader that has vanished is noticed when a line can't be brought to it.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What of all that happens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TailQuery {
    /// About events of this type; `order.*` and `order.**` as in routes.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// About events of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// For this subscription; then nothing is told of events as such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
}

/// Begins to tell.
pub(super) fn answer(
    tail: &Tail,
    query: TailQuery,
    places: &Arc<Semaphore>,
    stop: CancellationToken,
) -> Result<Answer, operations::Error> {
    let fits_type = events::type_filter(query.event_type.as_deref())?;
    let Ok(place) = Arc::clone(places).try_acquire_owned() else {
        let full = format!("{WATCHERS_MAX} watch already; that is the limit");
        return Ok(problem(StatusCode::SERVICE_UNAVAILABLE, &full));
    };
    let wanted = move |happening: &Happening| {
        fits_type(&happening.event.event_type)
            && query.source.as_ref().is_none_or(|source| happening.event.source == *source)
            && query.subscription.as_deref().is_none_or(|name| subscription_of(happening) == Some(name))
    };
    let lines = Lines { watch: tail.watch(), wanted: Box::new(wanted), stop, _place: place };
    let frames = stream::unfold(lines, |mut lines| async move {
        let bytes = lines.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), lines))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

struct Lines {
    watch: Watch,
    wanted: Box<dyn Fn(&Happening) -> bool + Send>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Lines {
    /// What has happened since, as lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut lines = Vec::new();
        while lines.is_empty() {
            let mut seen = tokio::select! {
                seen = self.watch.next() => seen?,
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(SILENCE_MAX) => return Some(Bytes::from_static(b"{\"kind\":\"idle\"}\n")),
            };
            loop {
                self.write(&mut lines, &seen);
                if lines.len() >= CHUNK_BYTES {
                    break;
                }
                match self.watch.next_now() {
                    Some(next) => seen = next,
                    None => break,
                }
            }
        }
        Some(lines.into())
    }

    fn write(&self, lines: &mut Vec<u8>, seen: &Seen) {
        let line = match seen {
            Seen::Missed(count) => json!({"kind": "missed", "count": count}),
            Seen::Happening(happening) if (self.wanted)(happening) => line_of(happening),
            Seen::Happening(_) => return,
        };
        serde_json::to_writer(&mut *lines, &line).expect("a line has string keys only");
        lines.push(b'\n');
    }
}

fn subscription_of(happening: &Happening) -> Option<&str> {
    match &happening.what {
        What::Accepted => None,
        What::Attempt { subscription, .. } => Some(subscription),
        What::Outcome { subscription, .. } => subscription.as_deref(),
    }
}

fn line_of(happening: &Happening) -> Value {
    let event = &happening.event;
    let mut line = json!({
        "at": happening.at.to_string(),
        "event": {"id": event.id, "source": event.source, "eventType": event.event_type},
    });
    match &happening.what {
        What::Accepted => line["kind"] = "accepted".into(),
        What::Attempt { subscription, endpoint, attempt } => {
            line["kind"] = "attempt".into();
            line["subscription"] = (**subscription).into();
            line["endpoint"] = (**endpoint).into();
            // Without what the endpoint said: that is kept in the store, for who asks for it.
            let view = AttemptView { answer: None, ..AttemptView::of(attempt) };
            line["attempt"] = serde_json::to_value(view).expect("a view has string keys only");
        }
        What::Outcome { subscription, outcome } => {
            line["kind"] = "outcome".into();
            line["outcome"] = outcome.as_ref().map_or("unmatched", Outcome::as_str).into();
            if let Some(subscription) = subscription {
                line["subscription"] = (**subscription).into();
            }
            match outcome {
                Some(Outcome::Filtered { reason } | Outcome::Dropped { reason, .. }) => {
                    line["reason"] = reason.as_str().into()
                }
                Some(Outcome::DeadLetter { reason, .. }) => line["reason"] = reason.as_str().into(),
                Some(Outcome::Scheduled { next, why }) => {
                    line["next"] = next.to_string().into();
                    line["why"] = serde_json::to_value(why).expect("a word");
                }
                Some(Outcome::Delivered | Outcome::Discarded { .. }) | None => {}
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::tail::HappeningEvent;

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_now_and_then_and_what_is_not_wanted_breaks_none() {
        let (tail, places) = (Tail::default(), Arc::new(Semaphore::new(1)));
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let wanted = Box::new(|happening: &Happening| happening.event.id == "evt_2");
        let mut lines = Lines { watch: tail.watch(), wanted, stop: CancellationToken::new(), _place: place };
        for id in ["evt_1", "evt_2", "evt_3"] {
            let event = HappeningEvent { id: id.into(), source: "app".into(), event_type: "order.created".into() };
            tail.tell(|| Happening { at: Timestamp::from_millis(0), event, what: What::Accepted });
        }
        let text = async |lines: &mut Lines| String::from_utf8(lines.next().await.unwrap().to_vec()).unwrap();
        let line = text(&mut lines).await;
        assert!(line.contains("evt_2") && line.matches('\n').count() == 1, "{line}");
        assert_eq!(text(&mut lines).await, "{\"kind\":\"idle\"}\n");
        lines.stop.cancel();
        assert_eq!(lines.next().await, None);
    }
}
