//! The duty to bring one event to one subscription's endpoint, and what became of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use crate::attempt::{ANSWER_BYTES_MAX, Attempt, AttemptResult, PluginFaultKind, Provenance, SendErrorKind};
use crate::clock::Timestamp;
use crate::event::{Event, Position};

/// `dlv_` and 32 hex digits, made from the event and the subscription, so that every attempt, redelivery and replay has the same.
///
/// It is what `webhook-id` carries; the Standard Webhooks specification forbids a full stop in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(Arc<str>);

impl DeliveryId {
    /// The id of the delivery of `event` to `subscription`.
    ///
    /// The time of acceptance takes part because a producer may use an id again after the dedupe window.
    pub fn derive(event: &Event, subscription: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [event.source.as_bytes(), event.id.as_bytes(), subscription.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(event.accepted_at.as_millis().to_le_bytes());
        let mut text = String::with_capacity(36);
        text.push_str("dlv_");
        for byte in &hash.finalize()[..16] {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        Self(text.into())
    }

    /// An id read back from the store.
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is sent: content type, headers besides Branchline's own, and the body. A retry sends the same bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The `content-type` header.
    pub content_type: String,
    /// Headers that a plugin asked for, names in lower case, already checked.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        let shown = (&self.content_type, names, self.body.len());
        f.debug_tuple("Request").field(&shown).finish()
    }
}

/// What a delivery needs to know of its event when only the request is left to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventHead {
    /// The event's id.
    pub id: ByteString,
    /// The source it came in by.
    pub source: ByteString,
    /// Its type.
    pub event_type: ByteString,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Where it stands in the store.
    pub position: Position,
    /// The producer's trace context, or empty.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub traceparent: ByteString,
}

impl EventHead {
    /// The head of `event`, which stands at `position`.
    pub fn of(event: &Event, position: Position) -> Self {
        Self {
            id: event.id.clone(),
            source: event.source.clone(),
            event_type: event.event_type.clone(),
            accepted_at: event.accepted_at,
            position,
            traceparent: event.traceparent.clone(),
        }
    }
}

/// What is left to do for a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Run the plugins, then send: a plugin failed, or the delivery was parked before its plugins ran.
    Run(Arc<Event>),
    /// Send exactly this.
    Send(Arc<Request>),
}

/// A delivery that outlives its first attempt, as the schedule holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id, the same for every attempt.
    pub id: DeliveryId,
    /// The event it brings.
    pub event: EventHead,
    /// The subscription it serves.
    pub subscription: Arc<str>,
    /// The attempts made so far, oldest first.
    pub attempts: Vec<Attempt>,
    /// What is left to do.
    pub work: Work,
}

impl Delivery {
    /// The number of the next attempt, from 1.
    pub fn next_attempt(&self) -> u32 {
        self.attempts.last().map_or(1, |last| last.number + 1)
    }
}

/// What became of one (event, subscription), or what stands for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The endpoint answered 2xx. Final.
    Delivered,
    /// It waits in the schedule.
    #[serde(rename_all = "camelCase")]
    Scheduled {
        /// When it falls due.
        next: Timestamp,
        /// Why it waits.
        why: Waiting,
    },
    /// The route's `where` was not true for it. Final.
    Filtered {
        /// The value or error that the expression gave.
        reason: String,
    },
    /// A plugin dropped it. Final.
    Dropped {
        /// The plugin's name.
        plugin: String,
        /// The plugin's reason.
        reason: String,
    },
    /// It was given up and is kept. Final until it is replayed.
    DeadLetter {
        /// Why.
        reason: DeadLetterReason,
        /// A sentence for people; no payload, no secret.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        detail: String,
    },
    /// It was given up, and an operator has thrown it away. Final.
    Discarded {
        /// The operator's reason.
        reason: String,
    },
}

impl Outcome {
    /// Whether nothing more will happen by itself.
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Scheduled { .. })
    }

    /// The word in metrics, logs and records.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Scheduled { .. } => "scheduled",
            Self::Filtered { .. } => "filtered",
            Self::Dropped { .. } => "dropped",
            Self::DeadLetter { .. } => "dead-letter",
            Self::Discarded { .. } => "discarded",
        }
    }
}

/// Why a delivery waits in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waiting {
    /// An attempt failed.
    Retry,
    /// It could not start soon: the endpoint or the plugin was at its limit.
    Parked,
    /// The operator has paused its endpoint.
    Paused,
    /// Its endpoint is disabled.
    Disabled,
    /// Its endpoint keeps failing.
    EndpointBreaker,
    /// A plugin of it keeps breaking.
    Breaker,
    /// Its first attempt takes long and goes on without its event.
    Detached,
    /// An operator has asked for it again.
    Replay,
    /// Something that a later version of this program has a word for.
    #[serde(other)]
    Unknown,
}

/// Why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeadLetterReason {
    /// Every wait of the schedule was used.
    Exhausted,
    /// The endpoint answered 410.
    Gone,
    /// A plugin gave the verdict `dead-letter`.
    Plugin,
    /// A plugin failed in a way that it said no retry can mend.
    NotRetryable,
    /// The subscription is no longer in the config.
    SubscriptionRemoved,
    /// This program panicked whenever it tried: a bug of it.
    Panicked,
    /// Something that a later version of this program has a word for; the detail beside it still says what.
    #[serde(other)]
    Unknown,
}

impl DeadLetterReason {
    /// The word in metrics, logs and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Gone => "gone",
            Self::Plugin => "plugin",
            Self::NotRetryable => "not-retryable",
            Self::SubscriptionRemoved => "subscription-removed",
            Self::Panicked => "panicked",
            Self::Unknown => "unknown",
        }
    }
}

/// What the outcomes' record keeps of one (event, subscription) at one settlement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutcomeRecord {
    /// The event's id.
    pub event_id: ByteString,
    /// Where the event stands.
    pub position: Position,
    /// The subscription; absent in the one record of an event that no route wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<Arc<str>>,
    /// What became of it; absent with the subscription.
    #[serde(flatten)]
    pub outcome: Option<Outcome>,
    /// The attempts made so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// What plugins did that was not applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<PluginNote>,
    /// What it was decided with, where no attempt says so: no subscription wanted the event, or nothing was to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<Provenance>>,
    /// When it was decided, by the router's clock.
    pub at: Timestamp,
}

/// What a plugin did, or would have done, that was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginNote {
    /// The plugin's name.
    pub plugin: String,
    /// Why it was not applied.
    pub kind: NoteKind,
    /// A verdict or fault in a few words.
    pub detail: String,
}

/// Why a plugin's verdict or fault was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteKind {
    /// It runs in shadow mode.
    Shadow,
    /// It broke, and the subscription says `on_error = "pass-through"`.
    PassedThrough,
    /// Something that a later version of this program has a word for.
    #[serde(other)]
    Unknown,
}

/// A delivery given up, kept with its reason, attempts and bytes until replayed or discarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The delivery as it was when it was given up.
    pub delivery: Delivery,
    /// Why.
    pub reason: DeadLetterReason,
    /// A sentence for people; no payload, no secret.
    pub detail: String,
    /// When.
    pub at: Timestamp,
}

/// A wait as whole milliseconds; at least one, so that a wait is never none.
pub fn whole_millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event;

    #[test]
    fn a_delivery_id_depends_on_event_and_subscription_and_has_no_full_stop() {
        let event = event::sample("evt_1", "order.created", "{}");
        let id = DeliveryId::derive(&event, "warehouse");
        assert_eq!(id, DeliveryId::derive(&event, "warehouse"));
        assert_ne!(id, DeliveryId::derive(&event, "tell-sales"));
        assert!(id.as_str().starts_with("dlv_") && id.as_str().len() == 36);
        assert!(id.as_str()[4..].bytes().all(|b| b.is_ascii_alphanumeric()));
    }

    #[test]
    fn outcomes_are_read_back_from_their_json() {
        let record = OutcomeRecord {
            event_id: "evt_1".into(),
            position: Position { partition: 0, major: 1, minor: 0 },
            subscription: Some("warehouse".into()),
            outcome: Some(Outcome::DeadLetter { reason: DeadLetterReason::Gone, detail: String::new() }),
            attempts: vec![Attempt {
                number: 1,
                at: Timestamp::from_millis(7),
                duration_ms: 3,
                result: AttemptResult::Answered { status: 410, retry_after_ms: None },
                answer: Some("gone".into()),
                by: Some(Arc::new(Provenance { generation: 3, plugins: vec!["slack@0123456789ab".into()] })),
            }],
            notes: vec![PluginNote { plugin: "slack".into(), kind: NoteKind::Shadow, detail: "pass".into() }],
            by: None,
            at: Timestamp::from_millis(10),
        };
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<OutcomeRecord>(&json).unwrap(), record);
        let unmatched = OutcomeRecord { subscription: None, outcome: None, attempts: vec![], ..record };
        let json = serde_json::to_string(&unmatched).unwrap();
        assert_eq!(serde_json::from_str::<OutcomeRecord>(&json).unwrap(), unmatched);
    }

    #[test]
    fn records_of_before_provenance_are_read_and_provenance_takes_few_bytes() {
        let old = r#"{"eventId":"evt_019abcde0123456789abcdef01234567","position":{"partition":0,"major":1764066000000,"minor":0},"subscription":"warehouse","outcome":"delivered","attempts":[{"number":1,"at":1764066000100,"durationMs":3,"result":"answered","status":200}],"at":1764066000200}"#;
        let mut record: OutcomeRecord = serde_json::from_str(old).unwrap();
        assert_eq!((record.attempts[0].by.as_ref(), record.by.as_ref()), (None, None));
        let bytes = |record: &OutcomeRecord| serde_json::to_string(record).unwrap().len();
        assert_eq!(bytes(&record), old.len());
        record.attempts[0].by = Some(Arc::new(Provenance { generation: 3, plugins: vec![] }));
        assert_eq!(bytes(&record) - old.len(), 22);
        record.attempts[0].by =
            Some(Arc::new(Provenance { generation: 3, plugins: vec!["slack@0123456789ab".into()] }));
        assert_eq!(bytes(&record) - old.len(), 22 + 33);
    }
}
