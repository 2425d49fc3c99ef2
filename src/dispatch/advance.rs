//! One step of a delivery: run its plugins, wait for its turn, make an attempt, decide.
//!
//! Both an event's first attempts and the schedule's later ones go this way; they differ only in how
//! the conclusion is written.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::passage::Parked;
use super::snapshot::{Consumer, EndpointState};
use super::{Context, Means};
use crate::clock::Timestamp;
use crate::delivery::{
    Attempt, AttemptResult, DeadLetter, DeadLetterReason, Delivery, DeliveryId, EventHead, Outcome, OutcomeRecord,
    PluginNote, Provenance, Request, Waiting, Work,
};
use crate::endpoint::BodyFormat;
use crate::event::Event;
use crate::plugin::{ChainEnd, ChainRun};
use crate::send::body_for;
use crate::settle::{self, Decision};
use crate::store::{EndpointMark, MarkKind};
use crate::tail::{Happening, What};

/// How far apart deliveries come back whose plugins could not run. A plugin that can't keep up must not cost the store
/// more than a few hundred claims a second.
const PLUGIN_RETURN_STEP: Duration = Duration::from_millis(5);

/// What a delivery is, apart from its state.
#[derive(Clone)]
pub(super) struct Duty {
    pub id: DeliveryId,
    pub event: EventHead,
    pub consumer: Arc<Consumer>,
    pub bodies: Arc<Bodies>,
}

/// An event's body in each format, made once for all subscriptions that send the event as it is.
#[derive(Default)]
pub(super) struct Bodies([OnceLock<Arc<Request>>; 3]);

impl Bodies {
    fn of(&self, event: &Event, format: BodyFormat) -> Arc<Request> {
        let place = match format {
            BodyFormat::Envelope => 0,
            BodyFormat::Payload => 1,
            BodyFormat::CloudEvents => 2,
        };
        Arc::clone(self.0[place].get_or_init(|| Arc::new(body_for(event, format))))
    }
}

/// What a step came to.
pub(super) struct Conclusion {
    pub outcome: Outcome,
    /// All attempts so far, this step's included.
    pub attempts: Vec<Attempt>,
    /// What plugins did in this step that was not applied.
    pub notes: Vec<PluginNote>,
    /// What it was concluded with, where no attempt of this step says so.
    pub by: Option<Arc<Provenance>>,
    pub rest: Rest,
}

/// What is left of the delivery.
pub(super) enum Rest {
    /// Nothing.
    Ended,
    /// This work, after this long.
    Waits(Work, Duration),
    /// A dead letter.
    Dead(Work, DeadLetterReason, String),
}

impl Duty {
    /// The record of what became of the delivery.
    pub fn record(
        &self,
        outcome: Outcome,
        attempts: Vec<Attempt>,
        notes: Vec<PluginNote>,
        by: Option<Arc<Provenance>>,
        at: Timestamp,
    ) -> OutcomeRecord {
        OutcomeRecord {
            event_id: self.event.id.clone(),
            position: self.event.position,
            subscription: Some(Arc::clone(&self.consumer.subscription.name)),
            outcome: Some(outcome),
            attempts,
            notes,
            by,
            at,
        }
    }

    /// The delivery as the schedule holds it.
    pub fn delivery(&self, attempts: Vec<Attempt>, work: Work) -> Delivery {
        let subscription = Arc::clone(&self.consumer.subscription.name);
        Delivery { id: self.id.clone(), event: self.event.clone(), subscription, attempts, work }
    }

    /// The delivery as a dead letter.
    pub fn dead_letter(
        &self,
        attempts: Vec<Attempt>,
        work: Work,
        reason: DeadLetterReason,
        detail: String,
        at: Timestamp,
    ) -> DeadLetter {
        DeadLetter { delivery: self.delivery(attempts, work), reason, detail, at }
    }
}

/// How far a step is: asked by the event it belongs to, when that has waited long enough.
pub(super) struct Progress(Mutex<Stage>);

#[derive(Clone)]
enum Stage {
    /// Nothing is on the wire: the work can be parked as it is.
    Before(Work),
    /// The request is under way.
    Sending(Arc<Request>),
    /// The event has taken the work away; nothing may be sent any more.
    Taken,
}

/// What an event finds when it asks.
pub(super) enum Taken {
    /// Nothing was sent; the step will end without sending.
    Parked(Work),
    /// The request is under way; the step goes on.
    Detached(Arc<Request>),
}

impl Progress {
    pub fn new(work: Work) -> Self {
        Self(Mutex::new(Stage::Before(work)))
    }

    fn stage(&self) -> std::sync::MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_request(&self, request: &Arc<Request>) {
        let mut stage = self.stage();
        if let Stage::Before(work) = &mut *stage {
            *work = Work::Send(Arc::clone(request));
        }
    }

    /// False when the event has taken the work away.
    fn begin_sending(&self, request: &Arc<Request>) -> bool {
        let mut stage = self.stage();
        let mine = matches!(*stage, Stage::Before(_));
        if mine {
            *stage = Stage::Sending(Arc::clone(request));
        }
        mine
    }

    /// Takes the work from a step that is not yet sending, or leaves it to one that is.
    pub fn take(&self) -> Taken {
        let mut stage = self.stage();
        match std::mem::replace(&mut *stage, Stage::Taken) {
            Stage::Before(work) => Taken::Parked(work),
            Stage::Sending(request) => {
                *stage = Stage::Sending(Arc::clone(&request));
                Taken::Detached(request)
            }
            Stage::Taken => unreachable!("an event asks each of its steps once"),
        }
    }
}

/// Makes one step, and marks the endpoint where it asks for nothing more. `None` when the event took the work away before
/// anything was sent.
pub(super) async fn advance(
    context: &Context,
    duty: &Duty,
    attempts: Vec<Attempt>,
    work: Work,
    progress: Option<&Progress>,
) -> Option<Conclusion> {
    let conclusion = step(&context.means, duty, attempts, work, progress).await?;
    if let Rest::Dead(_, DeadLetterReason::Gone, detail) = &conclusion.rest {
        disable(context, &duty.consumer.endpoint, detail).await;
    }
    Some(conclusion)
}

/// The step itself: everything but the store.
pub(super) async fn step(
    means: &Means,
    duty: &Duty,
    attempts: Vec<Attempt>,
    work: Work,
    progress: Option<&Progress>,
) -> Option<Conclusion> {
    let number = attempts.last().map_or(1, |last| last.number + 1);
    let (prepared, notes, by) = match work {
        Work::Send(request) => {
            let by = Provenance { generation: duty.consumer.by.generation, plugins: vec![] };
            (Prepared::Request(request), vec![], Arc::new(by))
        }
        Work::Run(event) => {
            let (prepared, notes) = run_plugins(means, duty, event, number).await;
            (prepared, notes, Arc::clone(&duty.consumer.by))
        }
    };
    let request = match prepared {
        Prepared::Request(request) => request,
        Prepared::Concluded(outcome, rest) => {
            // What only waits was not run yet.
            let by = (!matches!(rest, Rest::Waits(..))).then_some(by);
            return Some(Conclusion { outcome, attempts, notes, by, rest });
        }
        Prepared::Failed(event, attempt) => {
            let attempt = Attempt { by: Some(by), ..attempt };
            log_attempt(means, duty, &attempt);
            return Some(conclude(means, duty, attempts, attempt, notes, Work::Run(event)));
        }
    };
    if let Some(progress) = progress {
        progress.has_request(&request);
    }
    let endpoint = &duty.consumer.endpoint;
    let parked = |attempts, notes, after, why| {
        let (outcome, rest) = waits(means, Work::Send(Arc::clone(&request)), after, why);
        Some(Conclusion { outcome, attempts, notes, by: None, rest })
    };
    let leave = match endpoint.admit(progress.is_some()).await {
        Ok(leave) => leave,
        Err(Parked { why, after }) => return parked(attempts, notes, after, why),
    };
    let Ok(_under_way) = means.attempts.try_acquire() else {
        return parked(attempts, notes, endpoint.gate.time_to_return(), Waiting::Parked);
    };
    if progress.is_some_and(|progress| !progress.begin_sending(&request)) {
        return None;
    }
    let subscription = &duty.consumer.subscription.name;
    let attempt =
        means.transport.attempt(&endpoint.endpoint, &duty.id, &duty.event, subscription, number, &request).await;
    endpoint.ended(leave, &attempt.result, &means.metrics);
    let attempt = Attempt { by: Some(by), ..attempt };
    log_attempt(means, duty, &attempt);
    Some(conclude(means, duty, attempts, attempt, notes, Work::Send(request)))
}

/// What plugins, or their absence, made of an event.
enum Prepared {
    Request(Arc<Request>),
    Concluded(Outcome, Rest),
    Failed(Arc<Event>, Attempt),
}

async fn run_plugins(means: &Means, duty: &Duty, event: Arc<Event>, number: u32) -> (Prepared, Vec<PluginNote>) {
    let format = duty.consumer.endpoint.endpoint.format;
    let Some(chain) = &duty.consumer.chain else {
        return (Prepared::Request(duty.bodies.of(&event, format)), vec![]);
    };
    let at = means.clock.now();
    let ChainRun { end, notes } = means.plugins.run(chain, Arc::clone(&event)).await;
    let parked = |work, after: Duration, why| {
        let after = after.max(duty.consumer.plugin_row.place(PLUGIN_RETURN_STEP));
        let (outcome, rest) = waits(means, work, with_jitter(means, after), why);
        Prepared::Concluded(outcome, rest)
    };
    let prepared = match end {
        ChainEnd::Event { event, changed: false } => Prepared::Request(duty.bodies.of(&event, format)),
        ChainEnd::Event { event, changed: true } => Prepared::Request(Arc::new(body_for(&event, format))),
        ChainEnd::Send(request) => Prepared::Request(Arc::new(request)),
        ChainEnd::Dropped { plugin, reason } => {
            Prepared::Concluded(Outcome::Dropped { plugin: plugin.to_string(), reason }, Rest::Ended)
        }
        ChainEnd::DeadLetter { plugin, reason } => {
            let detail = format!("plugin `{plugin}`: {reason}");
            let outcome = Outcome::DeadLetter { reason: DeadLetterReason::Plugin, detail: detail.clone() };
            Prepared::Concluded(outcome, Rest::Dead(Work::Run(event), DeadLetterReason::Plugin, detail))
        }
        ChainEnd::Busy => parked(Work::Run(event), Duration::ZERO, Waiting::Parked),
        ChainEnd::Open { after, .. } => parked(Work::Run(event), after, Waiting::Breaker),
        ChainEnd::Fault { plugin, kind, detail, retryable } => {
            let result = AttemptResult::PluginFailed { plugin: plugin.to_string(), error: kind, detail, retryable };
            let duration = means.clock.now().since(at);
            let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            Prepared::Failed(event, Attempt { number, at, duration_ms, result, answer: None, by: None })
        }
    };
    (prepared, notes)
}

/// A delivery that could not start, and comes back after a while.
pub(super) fn waits(means: &Means, work: Work, after: Duration, why: Waiting) -> (Outcome, Rest) {
    (Outcome::Scheduled { next: means.clock.now().plus(after), why }, Rest::Waits(work, after))
}

fn conclude(
    means: &Means,
    duty: &Duty,
    mut attempts: Vec<Attempt>,
    attempt: Attempt,
    notes: Vec<PluginNote>,
    work: Work,
) -> Conclusion {
    let now = means.clock.now();
    let decision = settle::decide(&attempt, &duty.consumer.subscription.retry, (means.chance)());
    attempts.reserve_exact(1); // Most deliveries have one.
    attempts.push(attempt);
    match decision {
        Decision::Delivered => {
            means.metrics.delivered(now.since(duty.event.accepted_at));
            Conclusion { outcome: Outcome::Delivered, attempts, notes, by: None, rest: Rest::Ended }
        }
        Decision::Retry { after } => {
            let outcome = Outcome::Scheduled { next: now.plus(after), why: Waiting::Retry };
            Conclusion { outcome, attempts, notes, by: None, rest: Rest::Waits(work, after) }
        }
        Decision::GiveUp { reason, detail } => {
            let outcome = Outcome::DeadLetter { reason, detail: detail.clone() };
            Conclusion { outcome, attempts, notes, by: None, rest: Rest::Dead(work, reason, detail) }
        }
    }
}

async fn disable(context: &Context, endpoint: &EndpointState, reason: &str) {
    if endpoint.set_mark(MarkKind::Disabled, true) {
        return;
    }
    let name = endpoint.endpoint.name.to_string();
    tracing::warn!(endpoint = %name, reason, "endpoint disabled; its deliveries wait until it is enabled or gets another URL");
    let mark = EndpointMark {
        name,
        kind: MarkKind::Disabled,
        target: endpoint.target.clone(),
        reason: reason.to_owned(),
        at: context.means.clock.now(),
    };
    if let Err(error) = context.store.mark_endpoint(mark).await {
        // The next 410 tries again; until then the mark holds in this process only.
        endpoint.set_mark(MarkKind::Disabled, false);
        tracing::error!(%error, endpoint = %endpoint.endpoint.name, "the endpoint could not be marked as disabled");
    }
}

fn with_jitter(means: &Means, wait: Duration) -> Duration {
    wait.mul_f64(1.0 + settle::JITTER_SHARE * (means.chance)())
}

/// One line per attempt: its message reads alone, its fields are the same everywhere. Never a body, never a secret.
fn log_attempt(means: &Means, duty: &Duty, attempt: &Attempt) {
    let (event, subscription) = (&duty.event, &duty.consumer.subscription.name);
    let endpoint = &duty.consumer.endpoint.endpoint.name;
    means.metrics.tail().tell(|| {
        let (subscription, endpoint) = (Arc::clone(subscription), Arc::clone(endpoint));
        let what = What::Attempt { subscription, endpoint, attempt: attempt.clone() };
        Happening { at: means.clock.now(), event: event.into(), what }
    });
    let (number, duration_ms) = (attempt.number, attempt.duration_ms);
    match &attempt.result {
        AttemptResult::Answered { status: status @ 200..=299, .. } => tracing::info!(
            event.id = %event.id, event.type = %event.event_type, %subscription, %endpoint, attempt = number,
            http.status = status, duration_ms, "delivered"
        ),
        AttemptResult::Answered { status, .. } => tracing::warn!(
            event.id = %event.id, event.type = %event.event_type, %subscription, %endpoint, attempt = number,
            http.status = status, duration_ms, "attempt failed: the endpoint answered {status}"
        ),
        AttemptResult::Failed { error, detail } => tracing::warn!(
            event.id = %event.id, event.type = %event.event_type, %subscription, %endpoint, attempt = number,
            error = error.as_str(), duration_ms, "attempt failed: {detail}"
        ),
        AttemptResult::PluginFailed { plugin, error, detail, .. } => tracing::warn!(
            event.id = %event.id, event.type = %event.event_type, %subscription, %endpoint, attempt = number,
            plugin, error = error.as_str(), duration_ms, "attempt failed in plugin `{plugin}`: {detail}"
        ),
    }
}
