//! What was given up: listed newest first, shown whole, or thrown away with a reason.

use std::sync::Arc;

use serde::de::value::StrDeserializer;
use serde::de::{Error as _, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use super::times::Time;
use super::views::{AttemptView, EventOfDelivery, WorkView};
use super::{Caller, Error, audit, events, limit_of, pages};
use crate::clock::Timestamp;
use crate::delivery::{DeadLetter, DeadLetterReason, DeliveryId, Outcome, OutcomeRecord};
use crate::store::{Order, Store};

/// How long the reason of a discard may be, in characters.
const REASON_CHARS_MAX: usize = 500;

/// Which dead letters. Times are of when they were given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLettersQuery {
    /// Of this subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// Given up for this reason.
    #[serde(default, deserialize_with = "known_reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadLetterReason>,
    /// Of events of this type; `order.*` and `order.**` as in routes.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// From then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How many a page has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLettersPage {
    /// The dead letters.
    pub dead_letters: Vec<DeadLetterView>,
    /// Where to go on; null at the end. A page may be empty and still not be the last.
    pub cursor: Option<String>,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterView {
    /// What it goes by.
    pub delivery_id: DeliveryId,
    /// Its event.
    pub event: EventOfDelivery,
    /// Its subscription.
    pub subscription: Arc<str>,
    /// Why it was given up.
    pub reason: DeadLetterReason,
    /// The same as a sentence.
    pub detail: String,
    /// When.
    pub at: Time,
    /// The attempts made, oldest first.
    pub attempts: Vec<AttemptView>,
    /// What would be sent.
    pub work: WorkView,
}

impl DeadLetterView {
    fn of(letter: &DeadLetter, with_body: bool) -> Self {
        let delivery = &letter.delivery;
        Self {
            delivery_id: delivery.id.clone(),
            event: EventOfDelivery::of(&delivery.event),
            subscription: Arc::clone(&delivery.subscription),
            reason: letter.reason,
            detail: letter.detail.clone(),
            at: Time(letter.at),
            attempts: delivery.attempts.iter().map(AttemptView::of).collect(),
            work: WorkView::of(&delivery.work, with_body),
        }
    }
}

/// What is said of a reason that is none.
pub const REASONS: &str =
    "must be `exhausted`, `gone`, `plugin`, `not-retryable`, `subscription-removed` or `panicked`";

/// What is stored may have a word of a later version; a question with one is a slip of the pen.
fn known_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DeadLetterReason>, D::Error> {
    let word = String::deserialize(deserializer)?;
    let read: StrDeserializer<'_, D::Error> = word.as_str().into_deserializer();
    match DeadLetterReason::deserialize(read)? {
        DeadLetterReason::Unknown => Err(D::Error::custom(format!("`reason` {REASONS}, not `{word}`"))),
        known => Ok(Some(known)),
    }
}

/// A page of dead letters, newest first.
pub async fn list(store: &dyn Store, query: &DeadLettersQuery, now: Timestamp) -> Result<DeadLettersPage, Error> {
    let limit = limit_of(query.limit)?;
    let scan = events::span(query.since.as_deref(), query.until.as_deref(), now, Order::NewestFirst)?;
    let fits_type = events::type_filter(query.event_type.as_deref())?;
    let cursor = query.cursor.as_deref().map(str::parse).transpose()?;
    let wanted = |letter: &DeadLetter| {
        fits_type(&letter.delivery.event.event_type)
            && query.subscription.as_ref().is_none_or(|name| **name == *letter.delivery.subscription)
            && query.reason.is_none_or(|reason| reason == letter.reason)
    };
    let found = pages::find(
        |cursor, limits| store.scan_dead_letters(&scan, cursor, limits),
        cursor,
        limit,
        |_, letter: DeadLetter| wanted(&letter).then(|| DeadLetterView::of(&letter, false)),
    );
    let found = found.await?;
    Ok(DeadLettersPage { dead_letters: found.items, cursor: found.next.map(|next| next.to_string()) })
}

/// One dead letter, with what would be sent.
pub async fn one(store: &dyn Store, id: &DeliveryId) -> Result<DeadLetterView, Error> {
    match store.dead_letter(id).await? {
        Some((_, letter)) => Ok(DeadLetterView::of(&letter, true)),
        None => Err(missing(id)),
    }
}

/// A dead letter that was thrown away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Discarded {
    /// What it went by.
    pub delivery_id: DeliveryId,
    /// The operator's reason.
    pub reason: String,
}

/// Throws a dead letter away.
pub async fn discard(store: &dyn Store, caller: &Caller, id: &DeliveryId, reason: &str) -> Result<Discarded, Error> {
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX {
        return Err(Error::Invalid(format!(
            "`reason` must have 1 to {REASON_CHARS_MAX} characters: it is what is left of the dead letter"
        )));
    }
    let Some((place, letter)) = store.dead_letter(id).await? else { return Err(missing(id)) };
    let delivery = &letter.delivery;
    let outcome = OutcomeRecord {
        event_id: delivery.event.id.clone(),
        position: delivery.event.position,
        subscription: Some(Arc::clone(&delivery.subscription)),
        outcome: Some(Outcome::Discarded { reason: reason.to_owned() }),
        attempts: delivery.attempts.clone(),
        notes: vec![],
        by: None,
        at: caller.now,
    };
    if !store.discard(place, id, outcome).await? {
        return Err(missing(id));
    }
    audit::note(store, caller, "discard", id.as_str(), reason.to_owned()).await;
    Ok(Discarded { delivery_id: id.clone(), reason: reason.to_owned() })
}

pub(super) fn missing(id: &DeliveryId) -> Error {
    Error::NotFound(format!(
        "there is no dead letter `{id}`: it was replayed or discarded, or it is older than the store's `retention`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_reasons_that_are_known_although_records_may_have_others() {
        let read = serde_urlencoded::from_str::<DeadLettersQuery>;
        assert_eq!(read("reason=panicked").unwrap().reason, Some(DeadLetterReason::Panicked));
        assert_eq!(read("").unwrap(), DeadLettersQuery::default());
        let refused = read("reason=tired").unwrap_err().to_string();
        assert!(refused.contains("`tired`") && refused.contains("`exhausted`"), "{refused}");
    }
}
