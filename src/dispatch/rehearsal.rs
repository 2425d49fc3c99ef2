//! One event's deliveries from their first attempt to their end, by the steps that `serve` makes: same filter, plugins, passage and
//! decision. Only clock, chance and transport are others, and there is no store. Needs tokio's clock to be paused: a delivery's
//! 26½ hours take no time.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::advance::{Conclusion, Duty, Rest, step};
use super::event::MATCHING_PANICKED;
use super::{Means, Snapshot, Transport};
use crate::clock::Clock;
use crate::delivery::{
    Attempt, AttemptResult, DeadLetterReason, DeliveryId, EventHead, Outcome, PluginFaultKind, PluginNote, Work,
};
use crate::event::{Event, Position};
use crate::filter::Wish;
use crate::metrics::Metrics;
use crate::plugin::PluginHost;

/// A delivery that has made so many steps is left as it stands: a schedule has 50 waits at most, the rest was parked.
const STEPS_MAX: usize = 1_000;

/// How often a step is made whose plugin runs past its deadline: on a busy machine that may not be the plugin's doing, and the
/// same event gives the same verdict.
const TRIES: usize = 3;

/// What became of the event for one subscription whose route takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// The subscription.
    pub subscription: Arc<str>,
    /// How it ended.
    pub outcome: Outcome,
    /// Every attempt.
    pub attempts: Vec<Attempt>,
    /// What plugins did that was not applied.
    pub notes: Vec<PluginNote>,
}

/// Walks an event by a snapshot, each delivery by itself from the event's acceptance on, by a clock of its own that
/// `transport` is given.
pub async fn rehearse(
    snapshot: &Snapshot,
    plugins: &Arc<PluginHost>,
    event: &Arc<Event>,
    transport: impl Fn(Clock) -> Arc<dyn Transport>,
) -> Vec<Rehearsed> {
    let metrics = Metrics::default();
    let mut ends = Vec::new();
    for found in snapshot.routes.matches(event) {
        let subscription = Arc::clone(&found.subscription.name);
        let unwanted = match found.wish {
            Wish::Wanted => None,
            Wish::Filtered(reason) => Some(Outcome::Filtered { reason: reason.to_string() }),
            Wish::Unknown => {
                let (reason, detail) = (DeadLetterReason::Panicked, MATCHING_PANICKED.to_owned());
                Some(Outcome::DeadLetter { reason, detail })
            }
        };
        if let Some(outcome) = unwanted {
            ends.push(Rehearsed { subscription, outcome, attempts: vec![], notes: vec![] });
            continue;
        }
        let consumer = snapshot
            .consumer(&subscription)
            .expect("a snapshot is made with a consumer for each subscription of its routes");
        let clock = Clock::starting_at(event.accepted_at);
        let means = Means {
            transport: transport(clock),
            plugins: Arc::clone(plugins),
            clock,
            metrics: metrics.clone(),
            attempts: Semaphore::new(1),
            chance: || 0.0,
        };
        let duty = Duty {
            id: DeliveryId::derive(event, &subscription),
            // Where it is stored has no part in what is sent.
            event: EventHead::of(event, Position { partition: 0, major: 0, minor: 0 }),
            consumer: Arc::new(consumer.afresh()),
            bodies: Arc::default(),
        };
        ends.push(live(&means, &duty, Arc::clone(event)).await);
    }
    ends
}

/// Makes steps until the delivery ends.
async fn live(means: &Means, duty: &Duty, event: Arc<Event>) -> Rehearsed {
    let (mut attempts, mut work, mut all_notes) = (vec![], Work::Run(event), vec![]);
    let mut steps = 0;
    loop {
        steps += 1;
        let conclusion = step_patiently(means, duty, &attempts, &work).await;
        let Conclusion { outcome, attempts: made, notes, rest, .. } = conclusion;
        all_notes.extend(notes);
        match rest {
            Rest::Waits(next, after) if steps < STEPS_MAX => {
                tokio::time::advance(after).await;
                (attempts, work) = (made, next);
            }
            Rest::Waits(..) | Rest::Ended | Rest::Dead(..) => {
                let subscription = Arc::clone(&duty.consumer.subscription.name);
                return Rehearsed { subscription, outcome, attempts: made, notes: all_notes };
            }
        }
    }
}

async fn step_patiently(means: &Means, duty: &Duty, attempts: &[Attempt], work: &Work) -> Conclusion {
    let mut tries = 1;
    loop {
        let conclusion = step(means, duty, attempts.to_vec(), work.clone(), None).await;
        let conclusion = conclusion.expect("only an event takes work away");
        let made = &conclusion.attempts[attempts.len()..];
        let is_late = made.iter().any(|attempt| {
            matches!(attempt.result, AttemptResult::PluginFailed { error: PluginFaultKind::Deadline, .. })
        });
        if !is_late || tries == TRIES {
            return conclusion;
        }
        tries += 1;
    }
}
