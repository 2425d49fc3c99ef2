//! An event's first attempts, made while it is claimed; then one atomic step that acknowledges it.
//!
//! What is not over after [`DETACH_AFTER`] is written as a delivery: one that is on the wire goes on
//! under the schedule's lease, one that has not begun is parked. So a slow endpoint holds nobody up.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::advance::{Bodies, Conclusion, Duty, Progress, Rest, Taken, advance, waits};
use super::{Context, Snapshot, delivery};
use crate::clock::Timestamp;
use crate::delivery::{
    DeadLetterReason, Delivery, DeliveryId, EventHead, Outcome, OutcomeRecord, Provenance, Waiting, Work,
};
use crate::event::Event;
use crate::filter::{Match, Wish};
use crate::store::{DeliveryClaim, EventClaim, EventSettlement, Hold, ScheduledDelivery, Settled};

/// How long an event waits for its first attempts (design.md).
pub const DETACH_AFTER: Duration = Duration::from_millis(250);

/// What is said of a delivery that may not even be wanted.
pub(super) const MATCHING_PANICKED: &str =
    "whether it is wanted can't be told: the route's `where` made this program panic, which is a bug of it";

/// How long a delivery waits whose first step has panicked.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// How long a delivery that the router could not begin in time is parked.
const LATE_PARK: Duration = Duration::from_millis(500);

/// Walks a claimed event to its settlement, and what was detached from it to its own.
pub(super) async fn walk(context: Arc<Context>, claim: EventClaim, slot: OwnedSemaphorePermit) {
    let deadline = Instant::now() + DETACH_AFTER;
    let held = context.means.metrics.event_begins();
    let event = Arc::clone(&claim.event);
    let head = EventHead::of(&event, claim.position);
    let mut end = EventEnd::new(context.means.clock.now());

    let snapshot = context.snapshot.load_full();
    let by = Arc::clone(&snapshot.by);
    let bodies = Arc::new(Bodies::default());
    let all = matches(&context, &snapshot, &event).await;
    let mut duties: Vec<(Duty, Progress)> = Vec::with_capacity(all.len());
    end.outcomes.reserve_exact(all.len().max(1));
    for found in all {
        let consumer = snapshot
            .consumer(&found.subscription.name)
            .expect("a snapshot is made with a consumer for each subscription of its routes");
        let id = DeliveryId::derive(&event, &consumer.subscription.name);
        let duty = Duty { id, event: head.clone(), consumer: Arc::clone(consumer), bodies: Arc::clone(&bodies) };
        match found.wish {
            Wish::Filtered(reason) => {
                let outcome = Outcome::Filtered { reason: reason.to_string() };
                context.outcome(&head, &duty.consumer.subscription.name, &outcome);
                end.outcomes.push(duty.record(outcome, vec![], vec![], Some(Arc::clone(&by)), end.at));
            }
            Wish::Wanted => duties.push((duty, Progress::new(Work::Run(Arc::clone(&event))))),
            Wish::Unknown => {
                let name = &duty.consumer.subscription.name;
                end.give_up(&context, &head, &event, name, DeadLetterReason::Panicked, MATCHING_PANICKED);
            }
        }
    }
    drop(snapshot);

    let mut open = vec![true; duties.len()];
    let step = |number: usize| {
        let (context, event, (duty, progress)) = (&context, &event, &duties[number]);
        async move { (number, first_step(context, duty, event, progress).await) }
    };
    // One alone, which is the rule, needs no list of those that can go on.
    let steps = match duties.len() {
        1 => Either::Left(stream::once(step(0))),
        count => Either::Right((0..count).map(step).collect::<FuturesUnordered<_>>()),
    };
    let mut steps = pin!(steps);
    let mut late = pin!(tokio::time::sleep_until(deadline));
    loop {
        tokio::select! {
            biased;
            step = steps.next() => match step {
                None => break,
                Some((number, conclusion)) => {
                    open[number] = false;
                    let conclusion = conclusion.expect("the work is only taken away below");
                    end.add(&context, &duties[number].0, conclusion);
                }
            },
            () = &mut late => break,
        }
    }

    let detached = end.take_open(&context, &duties, &open);
    if duties.is_empty() && end.outcomes.is_empty() {
        context.tell_outcome(&head, None);
        end.outcomes.push(unmatched(&head, by, end.at));
    }
    let soonest = end.soonest_return();
    let event_id = head.id.clone();
    // Attempts that were detached go on while the event is settled.
    let mut settling = context.store.settle_event(end.settlement(claim));
    let mut ended: Vec<(usize, Conclusion)> = Vec::new();
    let settled = loop {
        tokio::select! {
            settled = &mut settling => break settled,
            Some((number, conclusion)) = steps.next() => {
                ended.extend(conclusion.map(|conclusion| (number, conclusion)));
            }
        }
    };
    let claims = match settled {
        Ok(Settled::Written(claims)) => claims,
        Ok(Settled::Lost) => {
            tracing::warn!(event.id = %event_id, "another router has taken the event over; it settles it");
            return;
        }
        Err(error) => {
            tracing::error!(event.id = %event_id, %error, "the event could not be settled; it will be claimed again");
            return;
        }
    };
    context.scheduled_in(soonest);
    drop((held, slot));

    // What is on the wire goes on without the event.
    let mut claims: Vec<(usize, Option<DeliveryClaim>)> =
        detached.into_iter().zip(claims.into_iter().map(Some)).collect();
    while !claims.is_empty() {
        let (number, conclusion) = match ended.pop() {
            Some(ended) => ended,
            None => match steps.next().await {
                Some((number, Some(conclusion))) => (number, conclusion),
                Some((_, None)) => continue,
                None => break,
            },
        };
        let held = claims.iter_mut().find(|(detached, _)| *detached == number).and_then(|(_, claim)| claim.take());
        claims.retain(|(_, claim)| claim.is_some());
        if let Some(claim) = held {
            // Boxed: it is rare, and half of what every walk would be made of.
            Box::pin(delivery::settle(&context, &duties[number].0, claim, conclusion)).await;
        }
    }
}

/// Makes a delivery's first step. One that panics costs the event's other deliveries nothing: it waits in the schedule.
async fn first_step(context: &Context, duty: &Duty, event: &Arc<Event>, progress: &Progress) -> Option<Conclusion> {
    let step = advance(context, duty, vec![], Work::Run(Arc::clone(event)), Some(progress));
    AssertUnwindSafe(step).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(
            event.id = %duty.event.id, subscription = %duty.consumer.subscription.name,
            "a delivery's step panicked, which is a bug of this program; it is made again in {PANIC_PAUSE:?}"
        );
        let (outcome, rest) = waits(&context.means, Work::Run(Arc::clone(event)), PANIC_PAUSE, Waiting::Parked);
        Some(Conclusion { outcome, attempts: vec![], notes: vec![], by: None, rest })
    })
}

/// Settles an event that can't be walked: a dead letter for each subscription that wants it, or may.
pub(super) async fn bury(context: &Context, claim: EventClaim, reason: DeadLetterReason, detail: &str) {
    let event = Arc::clone(&claim.event);
    let head = EventHead::of(&event, claim.position);
    let mut end = EventEnd::new(context.means.clock.now());
    let snapshot = context.snapshot.load_full();
    // It may be the matching that can't be done. Then nobody knows who wants the event, and everybody hears of it.
    let found = AssertUnwindSafe(matches(context, &snapshot, &event)).catch_unwind().await.unwrap_or_else(|_| {
        let all = snapshot.routes.subscriptions().map(Arc::clone);
        all.map(|subscription| Match { subscription, wish: Wish::Unknown }).collect()
    });
    for Match { subscription, wish } in found {
        let detail = match wish {
            Wish::Filtered(reason) => {
                let outcome = Outcome::Filtered { reason: reason.to_string() };
                context.outcome(&head, &subscription.name, &outcome);
                end.outcomes.push(OutcomeRecord {
                    subscription: Some(Arc::clone(&subscription.name)),
                    outcome: Some(outcome),
                    ..unmatched(&head, Arc::clone(&snapshot.by), end.at)
                });
                continue;
            }
            Wish::Wanted => detail,
            Wish::Unknown => MATCHING_PANICKED,
        };
        end.give_up(context, &head, &event, &subscription.name, reason, detail);
    }
    if end.outcomes.is_empty() {
        end.outcomes.push(unmatched(&head, Arc::clone(&snapshot.by), end.at));
    }
    match context.store.settle_event(end.settlement(claim)).await {
        Ok(Settled::Written(_)) => {}
        Ok(Settled::Lost) => tracing::warn!(event.id = %head.id, "another router has taken the event over"),
        Err(error) => {
            tracing::error!(event.id = %head.id, %error, "the event could not be settled; it will be claimed again")
        }
    }
}

/// The subscriptions whose routes fit the event. What may take long is kept away from the runtime's threads, two at a time.
async fn matches(context: &Context, snapshot: &Arc<Snapshot>, event: &Arc<Event>) -> Vec<Match> {
    let candidates = snapshot.routes.candidates(event);
    if !snapshot.routes.takes_long(&candidates, event) {
        return snapshot.routes.matches_among(&candidates, event);
    }
    let _turn = context.long_matches.acquire().await;
    let (routes, subject) = (Arc::clone(snapshot), Arc::clone(event));
    match tokio::task::spawn_blocking(move || routes.routes.matches_among(&candidates, &subject)).await {
        Ok(matches) => matches,
        // It panicked, and would again: better to match here and have it seen than to lose the event.
        Err(_) => snapshot.routes.matches(event),
    }
}

/// The record of an event that no subscription wanted: it must be seen that it came and went.
fn unmatched(head: &EventHead, by: Arc<Provenance>, at: Timestamp) -> OutcomeRecord {
    OutcomeRecord {
        event_id: head.id.clone(),
        position: head.position,
        subscription: None,
        outcome: None,
        attempts: vec![],
        notes: vec![],
        by: Some(by),
        at,
    }
}

/// What is to be written when the event is acknowledged.
struct EventEnd {
    at: Timestamp,
    outcomes: Vec<OutcomeRecord>,
    scheduled: Vec<ScheduledDelivery>,
    dead_letters: Vec<crate::delivery::DeadLetter>,
}

impl EventEnd {
    fn new(at: Timestamp) -> Self {
        Self { at, outcomes: vec![], scheduled: vec![], dead_letters: vec![] }
    }

    /// Gives a delivery up that has not begun.
    fn give_up(
        &mut self,
        context: &Context,
        head: &EventHead,
        event: &Arc<Event>,
        subscription: &Arc<str>,
        reason: DeadLetterReason,
        detail: &str,
    ) {
        let (id, work) = (DeliveryId::derive(event, subscription), Work::Run(Arc::clone(event)));
        let subscription = Arc::clone(subscription);
        let delivery = Delivery { id, event: head.clone(), subscription, attempts: vec![], work };
        let (dead, outcome) = delivery::dead_letter(context, delivery, reason, detail);
        self.dead_letters.push(dead);
        self.outcomes.push(outcome);
    }

    fn add(&mut self, context: &Context, duty: &Duty, conclusion: Conclusion) {
        let Conclusion { outcome, attempts, notes, by, rest } = conclusion;
        self.at = context.means.clock.now();
        match rest {
            Rest::Ended => {}
            Rest::Waits(work, after) => {
                let delivery = duty.delivery(attempts.clone(), work);
                self.scheduled.push(ScheduledDelivery { delivery, hold: Hold::Wait(after) });
            }
            Rest::Dead(work, reason, detail) => {
                self.dead_letters.push(duty.dead_letter(attempts.clone(), work, reason, detail, self.at));
            }
        }
        context.outcome(&duty.event, &duty.consumer.subscription.name, &outcome);
        self.outcomes.push(duty.record(outcome, attempts, notes, by, self.at));
    }

    /// Parks what has not begun and detaches what is on the wire; returns the numbers of the latter, in the order of their claims.
    fn take_open(&mut self, context: &Context, duties: &[(Duty, Progress)], open: &[bool]) -> Vec<usize> {
        let mut detached = Vec::new();
        for (number, (duty, progress)) in duties.iter().enumerate().filter(|(number, _)| open[*number]) {
            match progress.take() {
                Taken::Parked(work) => {
                    let outcome = Outcome::Scheduled { next: self.at.plus(LATE_PARK), why: Waiting::Parked };
                    let rest = Rest::Waits(work, LATE_PARK);
                    let conclusion = Conclusion { outcome, attempts: vec![], notes: vec![], by: None, rest };
                    self.add(context, duty, conclusion);
                }
                Taken::Detached(request) => {
                    let delivery = duty.delivery(vec![], Work::Send(request));
                    self.scheduled.push(ScheduledDelivery { delivery, hold: Hold::Claimed });
                    let outcome = Outcome::Scheduled { next: self.at, why: Waiting::Detached };
                    self.outcomes.push(duty.record(outcome, vec![], vec![], None, self.at));
                    detached.push(number);
                }
            }
        }
        detached
    }

    /// When the first of the deliveries written here falls due.
    fn soonest_return(&self) -> Option<Duration> {
        let waits = self.scheduled.iter().filter_map(|scheduled| match scheduled.hold {
            Hold::Wait(after) => Some(after),
            Hold::Claimed => None,
        });
        waits.min()
    }

    fn settlement(self, claim: EventClaim) -> EventSettlement {
        let Self { outcomes, scheduled, dead_letters, .. } = self;
        EventSettlement { claim, outcomes, scheduled, dead_letters }
    }
}
