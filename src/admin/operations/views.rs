//! Records as they are shown: times as text, and no more than a person or a page needs.

use std::sync::Arc;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::times::Time;
use crate::delivery::{
    Attempt, AttemptResult, EventHead, Outcome, OutcomeRecord, PluginNote, Provenance, Request, Waiting, Work,
};
use crate::event::{Event, Position, apart};
use crate::settle;

/// An event without what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventSummary {
    /// Its id.
    pub id: ByteString,
    /// The source it came in by.
    pub source: ByteString,
    /// Its type.
    pub event_type: ByteString,
    /// Absent when the producer gave none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub aggregate_type: ByteString,
    /// Absent when the producer gave none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub aggregate_id: ByteString,
    /// As the producer wrote it.
    pub occurred_at: ByteString,
    /// When it was accepted.
    pub accepted_at: Time,
    /// Where it stands in the store.
    pub position: String,
}

impl EventSummary {
    /// The summary of an event.
    pub fn of(event: &Event, position: Position) -> Self {
        Self {
            id: apart(&event.id),
            source: apart(&event.source),
            event_type: apart(&event.event_type),
            aggregate_type: apart(&event.aggregate_type),
            aggregate_id: apart(&event.aggregate_id),
            occurred_at: apart(&event.occurred_at),
            accepted_at: Time(event.accepted_at),
            position: position.to_string(),
        }
    }
}

/// A whole event.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Its id.
    pub id: ByteString,
    /// The source it came in by.
    pub source: ByteString,
    /// Its type.
    pub event_type: ByteString,
    /// Absent when the producer gave none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub aggregate_type: ByteString,
    /// Absent when the producer gave none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub aggregate_id: ByteString,
    /// As the producer wrote it.
    pub occurred_at: ByteString,
    /// When it was accepted.
    pub accepted_at: Time,
    /// Where it stands in the store.
    pub position: String,
    /// The producer's JSON, byte for byte.
    pub payload: Box<RawValue>,
    /// The producer's JSON, byte for byte.
    pub metadata: Box<RawValue>,
}

impl EventView {
    /// The view of an event.
    pub fn of(event: &Event, position: Position) -> Self {
        let raw = |json: &str| {
            // It was checked when it was accepted; a store that gives something else back is told of as null.
            RawValue::from_string(json.to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
        };
        let summary = EventSummary::of(event, position);
        Self {
            id: summary.id,
            source: summary.source,
            event_type: summary.event_type,
            aggregate_type: summary.aggregate_type,
            aggregate_id: summary.aggregate_id,
            occurred_at: summary.occurred_at,
            accepted_at: summary.accepted_at,
            position: summary.position,
            payload: raw(&event.payload),
            metadata: raw(&event.metadata),
        }
    }
}

impl EventView {
    /// The event; its trace context is not shown, so it has none.
    pub fn into_event(self) -> Event {
        Event {
            id: self.id,
            source: self.source,
            event_type: self.event_type,
            aggregate_type: self.aggregate_type,
            aggregate_id: self.aggregate_id,
            occurred_at: self.occurred_at,
            accepted_at: self.accepted_at.0,
            payload: self.payload.get().to_owned().into(),
            metadata: self.metadata.get().to_owned().into(),
            traceparent: ByteString::new(),
        }
    }
}

/// What a delivery or a dead letter knows of its event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventOfDelivery {
    /// Its id.
    pub id: ByteString,
    /// The source it came in by.
    pub source: ByteString,
    /// Its type.
    pub event_type: ByteString,
    /// When it was accepted.
    pub accepted_at: Time,
}

impl EventOfDelivery {
    /// The same of a head.
    pub fn of(head: &EventHead) -> Self {
        Self {
            id: head.id.clone(),
            source: head.source.clone(),
            event_type: head.event_type.clone(),
            accepted_at: Time(head.accepted_at),
        }
    }
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    /// From 1.
    pub number: u32,
    /// When it began.
    pub at: Time,
    /// How long it took.
    pub duration_ms: u64,
    /// How it ended, in a few words.
    pub summary: String,
    /// The HTTP status, when there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The kind of error, when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long the endpoint asked to be left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The first bytes of an answer that was no success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// What it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<Provenance>>,
}

impl AttemptView {
    /// The view of an attempt.
    pub fn of(attempt: &Attempt) -> Self {
        let (status, error, retry_after_ms) = match &attempt.result {
            AttemptResult::Answered { status, retry_after_ms } => (Some(*status), None, *retry_after_ms),
            AttemptResult::Failed { error, .. } => (None, Some(error.as_str().to_owned()), None),
            AttemptResult::PluginFailed { error, .. } => (None, Some(format!("plugin-{}", error.as_str())), None),
        };
        Self {
            number: attempt.number,
            at: Time(attempt.at),
            duration_ms: attempt.duration_ms,
            summary: settle::describe(attempt),
            status,
            error,
            retry_after_ms,
            answer: attempt.answer.clone(),
            by: attempt.by.clone(),
        }
    }
}

/// What was recorded of a pair at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutcomeView {
    /// One of the words of outcomes, or `unmatched`.
    pub outcome: String,
    /// When it was decided.
    pub at: Time,
    /// When the next attempt was to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Time>,
    /// Why it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Waiting>,
    /// Why it was filtered, dropped, given up or discarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The plugin that dropped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The attempts made by then, of this round.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptView>,
    /// What plugins did that was not applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<PluginNote>,
    /// What it was decided with, where no attempt says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<Provenance>>,
}

impl OutcomeView {
    /// The view of a record.
    pub fn of(record: &OutcomeRecord) -> Self {
        let mut view = Self {
            outcome: record.outcome.as_ref().map_or("unmatched", Outcome::as_str).to_owned(),
            at: Time(record.at),
            next: None,
            why: None,
            reason: None,
            plugin: None,
            detail: String::new(),
            attempts: record.attempts.iter().map(AttemptView::of).collect(),
            notes: record.notes.clone(),
            by: record.by.clone(),
        };
        match &record.outcome {
            None | Some(Outcome::Delivered) => {}
            Some(Outcome::Scheduled { next, why }) => (view.next, view.why) = (Some(Time(*next)), Some(*why)),
            Some(Outcome::Filtered { reason } | Outcome::Discarded { reason }) => view.reason = Some(reason.clone()),
            Some(Outcome::Dropped { plugin, reason }) => {
                (view.plugin, view.reason) = (Some(plugin.clone()), Some(reason.clone()));
            }
            Some(Outcome::DeadLetter { reason, detail }) => {
                (view.reason, view.detail) = (Some(reason.as_str().to_owned()), detail.clone());
            }
        }
        view
    }
}

/// What is left to do for a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkView {
    /// Whether the bytes to send are kept; else the plugins are still to run.
    pub has_bytes: bool,
    /// The `content-type` header of the bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Headers that a plugin asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// How many bytes the body, or the event's payload, has.
    pub body_bytes: usize,
    /// The body as text, where it is asked for and is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl WorkView {
    /// The view of what is left to do; with the body or without.
    pub fn of(work: &Work, with_body: bool) -> Self {
        match work {
            Work::Run(event) => Self {
                has_bytes: false,
                content_type: None,
                headers: vec![],
                body_bytes: event.payload.len(),
                body: None,
            },
            Work::Send(request) => {
                let Request { content_type, headers, body } = &**request;
                let text = || std::str::from_utf8(body).ok().map(str::to_owned);
                Self {
                    has_bytes: true,
                    content_type: Some(content_type.clone()),
                    headers: headers.clone(),
                    body_bytes: body.len(),
                    body: if with_body { text() } else { None },
                }
            }
        }
    }
}
