//! What every store promises, as tests that each store runs: `store_contract!(module, make_fixture);`.
//!
//! The promises are written against the trait alone and take nothing from either store but its
//! [`Fixture`]: how to open the same durable state under a new process identity, and how to crash it.

pub mod events; // Accepting, claiming and settling events.
pub mod history; // Looking back and asking again.
pub mod housekeeping; // Figures, trimming, endpoints' marks.
pub mod model; // Random steps against a model in memory.
pub mod reading; // Looking things up, paging through them.
pub mod schedule; // Deliveries: waiting, leases, settlements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use branchline::clock::Timestamp;
use branchline::delivery::{
    Attempt, AttemptResult, DeadLetter, DeadLetterReason, Delivery, DeliveryId, EventHead, Outcome, OutcomeRecord,
    Request, Waiting, Work,
};
use branchline::event::{Event, Position};
use branchline::store::{
    Appended, DeliveryClaim, EventClaim, EventSettlement, Hold, ScheduledDelivery, Settled, Store, StoreOptions,
};

/// One durable state, and processes that come and go over it.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Opens the state as a new process.
    async fn open(&self, options: StoreOptions) -> Arc<dyn Store>;

    /// Ends a process as a kill does: nothing is closed, flushed or handed back.
    async fn crash(&self, store: Arc<dyn Store>) {
        drop(store);
    }

    /// How long after a crash a process's event claims are taken over at the latest.
    fn survives_after(&self) -> Duration;
}

/// Longer than any store needs on a loaded machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Instantiates every promise for the store that `$make_fixture` (an `async fn() -> impl Fixture`) opens.
macro_rules! store_contract {
    ($module:ident, $make_fixture:path) => {
        mod $module {
            $crate::store_contract::each_promise! { $make_fixture,
                events [
                    appended_events_are_claimed_once_each_in_the_order_of_their_partition
                    a_known_id_is_a_duplicate_within_its_source
                    an_id_twice_in_one_call_is_stored_once
                    of_fifty_tasks_that_append_one_id_exactly_one_stores_it
                    an_id_is_known_after_a_crash
                    an_id_is_forgotten_after_twice_the_dedupe_window
                    unsettled_events_come_back_after_a_crash_and_settled_ones_do_not
                    a_settlement_writes_outcomes_deliveries_and_dead_letters_together
                    a_settlement_from_before_a_crash_is_lost
                    a_waiting_claim_is_woken_by_an_append
                    a_claim_waits_no_longer_than_it_was_told
                    a_dropped_claim_loses_no_event
                    closing_hands_back_what_is_claimed
                    a_closed_store_refuses
                    two_thousand_events_are_stored_claimed_and_settled
                    a_payload_of_a_mebibyte_comes_back_byte_for_byte
                ]
                schedule [
                    a_held_delivery_is_settled_with_its_claim
                    a_waiting_delivery_falls_due_after_its_wait_and_not_before
                    a_claimed_delivery_is_not_claimed_again_within_its_lease
                    a_delivery_whose_lease_has_ended_is_claimed_again_and_its_old_claim_is_lost
                    an_ended_delivery_leaves_the_schedule
                    a_delivery_that_waits_is_written_anew
                    a_given_up_delivery_is_kept_as_a_dead_letter
                    next_in_tells_when_the_next_delivery_falls_due
                    due_deliveries_are_claimed_no_more_than_asked_for
                    deliveries_survive_a_crash
                    hastened_deliveries_fall_due_now
                ]
                reading [
                    an_event_is_found_by_its_position_and_by_its_id
                    outcomes_are_paged_through_exactly_once
                    dead_letters_are_paged_through_exactly_once
                    the_schedule_is_read_soonest_first
                ]
                history [
                    events_are_read_in_order_in_pages_of_any_size_exactly_once
                    a_scan_is_of_its_time_and_ends_with_what_was_there_when_it_began
                    ten_thousand_events_are_scanned_in_seconds
                    what_became_of_an_event_is_found_however_late_it_was_recorded
                    a_waiting_delivery_is_found_and_whether_it_is_held
                    all_that_waits_is_counted
                    a_dead_letter_is_replayed_once_however_many_ask
                    a_replay_meets_a_delivery_as_it_stands
                    hundreds_of_dead_letters_are_replayed_in_pages_while_they_fail_again
                    a_discarded_dead_letter_is_gone_and_its_reason_is_recorded
                    the_audit_log_is_read_newest_first_and_trimmed_with_the_rest
                    sources_are_remembered
                ]
                housekeeping [
                    figures_follow_what_the_store_holds
                    settled_old_events_are_trimmed_and_waiting_ones_never
                    trimming_is_bounded_in_each_step
                    what_is_younger_than_the_retention_is_not_trimmed
                    old_outcomes_and_dead_letters_are_trimmed
                    marks_on_endpoints_outlive_a_restart_each_kind_by_itself
                ]
                model [
                    random_steps_and_crashes_agree_with_a_model
                ]
            }
        }
    };
}

/// Makes a test of each promise.
macro_rules! each_promise {
    ($make_fixture:path, $($subject:ident [ $($promise:ident)+ ])+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let fixture = $make_fixture().await;
                $crate::store_contract::$subject::$promise(&fixture).await;
            }
        )+)+
    };
}

pub(crate) use {each_promise, store_contract};

/// An event of source `app`.
pub fn event(id: &str) -> Event {
    Event {
        id: id.into(),
        source: "app".into(),
        event_type: "order.created".into(),
        aggregate_type: "Order".into(),
        aggregate_id: "".into(),
        occurred_at: "2025-01-15T10:30:00Z".into(),
        accepted_at: Timestamp::from_millis(1_736_937_000_000),
        payload: format!(r#"{{"id":"{id}","amount":1.10}}"#).into(),
        metadata: "{}".to_owned().into(),
        traceparent: "".into(),
    }
}

/// `count` events with ids `PREFIX_0…`.
pub fn events(prefix: &str, count: usize) -> Vec<Event> {
    (0..count).map(|n| event(&format!("{prefix}_{n}"))).collect()
}

/// Appends events that must all be new.
pub async fn append(store: &Arc<dyn Store>, events: Vec<Event>) -> Vec<Position> {
    let answers = store.append(events).await.expect("the append succeeds");
    let stored = |answer: &Appended| match answer {
        Appended::Stored(position) => *position,
        Appended::Duplicate => panic!("the event is new"),
    };
    answers.iter().map(stored).collect()
}

/// Claims until `count` events are claimed; fails when they don't come within `limit`.
pub async fn claim_within(store: &Arc<dyn Store>, count: usize, limit: Duration) -> Vec<EventClaim> {
    let started = Instant::now();
    let mut claims = Vec::new();
    while claims.len() < count {
        assert!(started.elapsed() < limit, "{} of {count} events were claimed within {limit:?}", claims.len());
        let wait = Duration::from_millis(500);
        claims.extend(store.claim_events(count - claims.len(), wait).await.expect("claiming succeeds"));
    }
    assert_eq!(claims.len(), count, "no more events than expected");
    claims
}

/// Claims `count` events, patiently.
pub async fn claim(store: &Arc<dyn Store>, count: usize) -> Vec<EventClaim> {
    claim_within(store, count, PATIENCE).await
}

/// Fails when an event can be claimed.
pub async fn nothing_to_claim(store: &Arc<dyn Store>) {
    let claims = store.claim_events(10, Duration::from_millis(100)).await.expect("claiming succeeds");
    assert!(claims.is_empty(), "nothing is left to claim, but {claims:?}");
}

/// Claims due deliveries until there are `count`; fails when they don't come within `limit`.
pub async fn claim_due_within(store: &Arc<dyn Store>, count: usize, limit: Duration) -> Vec<DeliveryClaim> {
    let started = Instant::now();
    let mut claims = Vec::new();
    while claims.len() < count {
        assert!(started.elapsed() < limit, "{} of {count} deliveries fell due within {limit:?}", claims.len());
        claims.extend(store.claim_due(count - claims.len()).await.expect("claiming succeeds").claims);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    claims
}

/// One attempt that was answered 503.
pub fn failed_attempt(number: u32) -> Attempt {
    Attempt {
        number,
        at: Timestamp::from_millis(1_736_937_000_100),
        duration_ms: 3,
        result: AttemptResult::Answered { status: 503, retry_after_ms: None },
        answer: Some("busy".to_owned()),
        by: None,
    }
}

/// The delivery of a claimed event to `subscription`, after a failed attempt.
pub fn delivery(claim: &EventClaim, subscription: &str) -> Delivery {
    let request = Request {
        content_type: "application/json".to_owned(),
        headers: vec![("x-a".to_owned(), "b".to_owned())],
        body: claim.event.envelope().into(),
    };
    Delivery {
        id: DeliveryId::derive(&claim.event, subscription),
        event: EventHead::of(&claim.event, claim.position),
        subscription: subscription.into(),
        attempts: vec![failed_attempt(1)],
        work: Work::Send(Arc::new(request)),
    }
}

/// What is recorded of a delivery.
pub fn outcome_of(delivery: &Delivery, outcome: Outcome) -> OutcomeRecord {
    OutcomeRecord {
        notes: vec![],
        by: None,
        event_id: delivery.event.id.clone(),
        position: delivery.event.position,
        subscription: Some(Arc::clone(&delivery.subscription)),
        outcome: Some(outcome),
        attempts: delivery.attempts.clone(),
        at: Timestamp::from_millis(1_736_937_000_200),
    }
}

/// A dead letter of a delivery.
pub fn dead_letter(delivery: Delivery) -> DeadLetter {
    DeadLetter {
        delivery,
        reason: DeadLetterReason::Exhausted,
        detail: "every wait was used".to_owned(),
        at: Timestamp::from_millis(1_736_937_000_300),
    }
}

/// The settlement of an event that was delivered to `warehouse`.
pub fn delivered(claim: EventClaim) -> EventSettlement {
    let outcomes = vec![outcome_of(&delivery(&claim, "warehouse"), Outcome::Delivered)];
    EventSettlement { claim, outcomes, scheduled: vec![], dead_letters: vec![] }
}

/// The settlement of an event whose delivery to `subscription` goes into the schedule.
pub fn rescheduled(claim: EventClaim, subscription: &str, hold: Hold) -> EventSettlement {
    let delivery = delivery(&claim, subscription);
    let next = Timestamp::from_millis(1_736_937_060_000);
    let outcomes = vec![outcome_of(&delivery, Outcome::Scheduled { next, why: Waiting::Retry })];
    EventSettlement { claim, outcomes, scheduled: vec![ScheduledDelivery { delivery, hold }], dead_letters: vec![] }
}

/// Settles an event and expects it to be written.
pub async fn settle(store: &Arc<dyn Store>, settlement: EventSettlement) -> Vec<DeliveryClaim> {
    match store.settle_event(settlement).await.expect("the settlement succeeds") {
        Settled::Written(claims) => claims,
        Settled::Lost => panic!("the claim is held"),
    }
}

/// Puts one delivery of a new event into the schedule, and gives it back.
pub async fn schedule_one(store: &Arc<dyn Store>, id: &str, hold: Hold) -> (Delivery, Vec<DeliveryClaim>) {
    append(store, vec![event(id)]).await;
    let claim = claim(store, 1).await.remove(0);
    let delivery = delivery(&claim, "warehouse");
    (delivery, settle(store, rescheduled(claim, "warehouse", hold)).await)
}

/// All outcome records there are.
pub async fn all_outcomes(store: &Arc<dyn Store>) -> Vec<OutcomeRecord> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let (page, next) = store.outcomes(cursor, 100).await.expect("reading succeeds");
        if page.is_empty() {
            return all;
        }
        all.extend(page);
        cursor = Some(next);
    }
}

/// All dead letters there are.
pub async fn all_dead_letters(store: &Arc<dyn Store>) -> Vec<DeadLetter> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let (page, next) = store.dead_letters(cursor, 100).await.expect("reading succeeds");
        if page.is_empty() {
            return all;
        }
        all.extend(page);
        cursor = Some(next);
    }
}
