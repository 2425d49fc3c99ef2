//! A delivery out of the schedule: one more step, and its settlement under the lease.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::Context;
use super::advance::{Conclusion, Duty, Rest, advance};
use crate::delivery::{DeadLetter, DeadLetterReason, Delivery, Outcome, OutcomeRecord, Waiting};
use crate::store::{DeliveryClaim, DeliverySettlement, NextState, Settled};

/// Takes a claimed delivery one step on.
pub(super) async fn walk(context: Arc<Context>, claim: DeliveryClaim, slot: OwnedSemaphorePermit) {
    let snapshot = context.snapshot.load_full();
    let Some(consumer) = snapshot.consumer(&claim.delivery.subscription).map(Arc::clone) else {
        return bury(&context, claim, DeadLetterReason::SubscriptionRemoved, "the config has no such subscription")
            .await;
    };
    drop(snapshot);
    let (delivery, attempts) = (&claim.delivery, claim.delivery.attempts.clone());
    let duty = Duty { id: delivery.id.clone(), event: delivery.event.clone(), consumer, bodies: Arc::default() };
    let work = delivery.work.clone();
    let Some(conclusion) = advance(&context, &duty, attempts, work, None).await else {
        unreachable!("only an event takes work away");
    };
    settle(&context, &duty, claim, conclusion).await;
    drop(slot);
}

/// Writes what a step came to.
pub(super) async fn settle(context: &Context, duty: &Duty, claim: DeliveryClaim, conclusion: Conclusion) {
    let Conclusion { outcome, attempts, notes, by, rest } = conclusion;
    let at = context.means.clock.now();
    let next = match rest {
        Rest::Ended => NextState::Ended,
        Rest::Waits(work, after) => NextState::Waits(duty.delivery(attempts.clone(), work), after),
        Rest::Dead(work, reason, detail) => {
            NextState::Dead(duty.dead_letter(attempts.clone(), work, reason, detail, at))
        }
    };
    // A delivery that is still parked was parked before: saying so each time would bury what happened.
    let is_news = match &outcome {
        Outcome::Scheduled { why, .. } => match why {
            Waiting::Retry | Waiting::Detached | Waiting::Replay | Waiting::Unknown => true,
            Waiting::Parked | Waiting::Paused | Waiting::Disabled | Waiting::Breaker | Waiting::EndpointBreaker => {
                false
            }
        },
        Outcome::Delivered
        | Outcome::Filtered { .. }
        | Outcome::Dropped { .. }
        | Outcome::DeadLetter { .. }
        | Outcome::Discarded { .. } => true,
    };
    if is_news {
        context.outcome(&duty.event, &duty.consumer.subscription.name, &outcome);
    }
    let outcome = is_news.then(|| duty.record(outcome, attempts, notes, by, at));
    write(context, DeliverySettlement { claim, outcome, next }).await;
}

/// A delivery that can't be walked is kept as a dead letter.
pub(super) async fn bury(context: &Context, claim: DeliveryClaim, reason: DeadLetterReason, detail: &str) {
    let (dead, outcome) = dead_letter(context, claim.delivery.clone(), reason, detail);
    write(context, DeliverySettlement { claim, outcome: Some(outcome), next: NextState::Dead(dead) }).await;
}

/// What is written of a delivery that is given up before its next step.
pub(super) fn dead_letter(
    context: &Context,
    delivery: Delivery,
    reason: DeadLetterReason,
    detail: &str,
) -> (DeadLetter, OutcomeRecord) {
    let at = context.means.clock.now();
    tracing::warn!(event.id = %delivery.event.id, subscription = %delivery.subscription, "given up: {detail}");
    let outcome = OutcomeRecord {
        event_id: delivery.event.id.clone(),
        position: delivery.event.position,
        subscription: Some(Arc::clone(&delivery.subscription)),
        outcome: Some(Outcome::DeadLetter { reason, detail: detail.to_owned() }),
        attempts: delivery.attempts.clone(),
        notes: vec![],
        by: None,
        at,
    };
    if let Some(outcome) = &outcome.outcome {
        context.outcome(&delivery.event, &delivery.subscription, outcome);
    }
    (DeadLetter { delivery, reason, detail: detail.to_owned(), at }, outcome)
}

async fn write(context: &Context, settlement: DeliverySettlement) {
    let id = settlement.claim.delivery.id.clone();
    let returns_in = match &settlement.next {
        NextState::Waits(_, after) => Some(*after),
        NextState::Ended | NextState::Dead(_) => None,
    };
    match context.store.settle_delivery(settlement).await {
        Ok(Settled::Written(())) => context.scheduled_in(returns_in),
        Ok(Settled::Lost) => {
            tracing::warn!(delivery = %id, "the delivery's lease had ended; another router has it");
        }
        Err(error) => {
            tracing::error!(delivery = %id, %error, "the delivery could not be settled; it falls due again after its lease");
        }
    }
}
