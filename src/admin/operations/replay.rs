//! Deliveries made again: one by one, or a selection in bounded steps.
//!
//! A step goes on where the last one ended in the order in which events or dead letters are stored, so that none is
//! left out and none comes twice, whatever is stored, retried or replayed meanwhile. Asking twice is harmless: a delivery is
//! never twice in the schedule, and a dead letter is replayed once.

mod step; // A step under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::step::Step;
use super::choice::Skip;
use super::deliveries::WhyWaiting;
use super::pairs::Status;
use super::times::Time;
use super::{Caller, Error, LIMIT_MAX, audit, dead_letters, subscription_of};
use crate::delivery::DeliveryId;
use crate::dispatch::Snapshot;
use crate::store::Store;

/// How many deliveries one step makes again when nothing is said.
pub const STEP_DEFAULT: usize = 100;

/// Which deliveries. What is listed is exclusive; the other criteria must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selection {
    /// Of these events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_ids: Option<Vec<String>>,
    /// Of these dead letters, by the ids of their deliveries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<Vec<DeliveryId>>,
    /// Of events accepted from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Of events accepted before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Of events of this type; `order.*` and `order.**` as in routes.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Of events of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// To this subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// That stand like this now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// One step of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayRequest {
    /// Which deliveries; the same in every step.
    #[serde(default)]
    pub selection: Selection,
    /// How many at most in this step, about: an event's deliveries stay together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Also those that have succeeded, or were discarded.
    #[serde(default)]
    pub all: bool,
    /// Through today's plugins, whatever was sent before. Without it a dead letter and what waits is sent as the bytes that
    /// are kept, and what has arrived or was discarded only where no plugin had made it; what was never sent goes through
    /// today's plugins in any case.
    #[serde(default)]
    pub rerun: bool,
    /// Only counts.
    #[serde(default)]
    pub dry_run: bool,
    /// Where the last step ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayStep {
    /// How many deliveries were selected.
    pub matched: usize,
    /// How many of them are due now; of a dry run, none.
    pub replayed: usize,
    /// How many were looked at and left as they are, by why.
    pub skipped: BTreeMap<Skip, usize>,
    /// Those that were selected.
    pub deliveries: Vec<ReplayedDelivery>,
    /// How far a selection has been looked through: when the last event was accepted, or the last dead letter given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached_at: Option<Time>,
    /// Where the next step goes on; null at the end.
    pub cursor: Option<String>,
}

/// A delivery that was selected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayedDelivery {
    /// Its id.
    pub delivery_id: DeliveryId,
    /// Its event.
    pub event_id: String,
    /// Its subscription.
    pub subscription: Arc<str>,
    /// How it stood.
    pub status: Status,
    /// What became of it.
    pub result: ReplayResult,
    /// Why it waits although it is due, where its endpoint is left alone: `endpoint-disabled`, `-paused` or `-failing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<WhyWaiting>,
}

/// What became of a delivery that was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplayResult {
    /// Nothing: it was a dry run.
    WouldReplay,
    /// It is in the schedule, due now.
    Scheduled,
    /// It was in the schedule, and is due now.
    Hastened,
    /// It was left as it is.
    Skipped(Skip),
}

/// Makes one step.
pub async fn step(
    store: &dyn Store,
    snapshot: &Arc<Snapshot>,
    caller: &Caller,
    request: &ReplayRequest,
) -> Result<ReplayStep, Error> {
    let limit = match request.limit {
        None => STEP_DEFAULT,
        Some(limit @ 1..=LIMIT_MAX) => limit,
        Some(limit) => return Err(Error::Invalid(format!("`limit` must be from 1 to {LIMIT_MAX}, not {limit}"))),
    };
    let selection = &request.selection;
    if let Some(name) = &selection.subscription {
        subscription_of(snapshot, name)?;
    }
    let mut step = Step { store, snapshot, request, now: caller.now, limit, done: ReplayStep::default() };
    let stepped = match (&selection.event_ids, &selection.dead_letters) {
        (Some(_), Some(_)) => {
            return Err(Error::Invalid("`selection` has both `eventIds` and `deadLetters`; give one".to_owned()));
        }
        (Some(ids), None) => step.listed_events(ids).await,
        (None, Some(ids)) => step.listed_letters(ids).await,
        (None, None) if *selection == Selection::default() => {
            return Err(Error::Invalid(
                "`selection` is empty; say which: `eventIds`, `deadLetters`, or some of `since`, `until`, `type`, \
                 `source`, `subscription`, `status`"
                    .to_owned(),
            ));
        }
        (None, None) if selection.status == Some(Status::DeadLetter) => step.letters().await,
        (None, None) => step.events().await,
    };
    let done = step.done;
    if done.replayed > 0 {
        let target = serde_json::to_string(selection).expect("a selection has string keys only");
        let how = if request.rerun { ", through today's plugins" } else { "" };
        let detail = format!("{} of {} selected deliveries are due now{how}", done.replayed, done.matched);
        audit::note(store, caller, "replay", &target, detail).await;
    }
    // After the note: what was made again before the store failed is made again all the same.
    stepped.map(|()| done)
}

/// Replays one dead letter.
pub async fn dead_letter(
    store: &dyn Store,
    snapshot: &Arc<Snapshot>,
    caller: &Caller,
    id: &DeliveryId,
    rerun: bool,
) -> Result<ReplayedDelivery, Error> {
    let Some((place, letter)) = store.dead_letter(id).await? else {
        return Err(dead_letters::missing(id));
    };
    let request = ReplayRequest { rerun, ..ReplayRequest::default() };
    let done = ReplayStep::default();
    let mut step = Step { store, snapshot, request: &request, now: caller.now, limit: 1, done };
    let replayed = step.letter(place, letter).await?;
    let subscription = &replayed.subscription;
    match replayed.result {
        ReplayResult::Skipped(skip) => Err(Error::Conflict(match skip {
            Skip::SubscriptionGone => {
                format!("the config has no subscription `{subscription}`: add it, or discard the dead letter")
            }
            Skip::EventGone => {
                "its event is no longer kept, so it can't go through today's plugins; replay it without `rerun`"
                    .to_owned()
            }
            skip => format!("it was left as it is: {}", skip.as_str()),
        })),
        ReplayResult::WouldReplay | ReplayResult::Scheduled | ReplayResult::Hastened => {
            let how = if rerun { "through today's plugins" } else { "as it was" };
            audit::note(store, caller, "replay", id.as_str(), how.to_owned()).await;
            Ok(replayed)
        }
    }
}
