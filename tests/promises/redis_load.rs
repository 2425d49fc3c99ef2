//! Load on a store: producers that remember every acknowledgement, a consumer that settles, and the reckoning at the end.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use branchline::delivery::Outcome;
use branchline::store::{DeliverySettlement, Hold, NextState, Settled, Store};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::store_contract::{PATIENCE, all_outcomes, delivered, event, outcome_of, rescheduled};
use crate::support::eventually;

/// What was said to whom.
#[derive(Default)]
struct Ledger {
    stop: AtomicBool,
    /// The producers have ended: what is there now is all there will be.
    complete: AtomicBool,
    accepted: Mutex<HashSet<String>>,
    settled: Mutex<Vec<String>>,
    away: AtomicUsize,
}

/// Producers and a consumer over one store.
pub struct Load {
    store: Arc<dyn Store>,
    ledger: Arc<Ledger>,
    producers: Vec<JoinHandle<()>>,
    consumer: JoinHandle<()>,
}

/// What there was.
pub struct Reckoning {
    accepted: usize,
    lost: usize,
    settled: usize,
    repeated: usize,
    refused: usize,
}

impl fmt::Display for Reckoning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, lost, settled, repeated, refused } = self;
        write!(
            f,
            "{accepted} accepted, {lost} lost, {settled} settled, {repeated} of them twice, {refused} appends refused"
        )
    }
}

impl Load {
    /// Starts `producers` of them, each with one append under way at a time, and a consumer.
    pub fn start(store: Arc<dyn Store>, producers: usize) -> Self {
        let ledger = Arc::new(Ledger::default());
        let producers =
            (0..producers).map(|n| tokio::spawn(produce(Arc::clone(&store), Arc::clone(&ledger), n))).collect();
        let consumer = tokio::spawn(consume(Arc::clone(&store), Arc::clone(&ledger)));
        Self { store, ledger, producers, consumer }
    }

    /// How many were accepted.
    pub fn accepted(&self) -> usize {
        self.ledger.accepted.lock().unwrap().len()
    }

    /// Waits until this many more were accepted.
    pub async fn more_accepted(&self, count: usize) {
        let before = self.accepted();
        let more = async || (self.accepted() >= before + count).then_some(());
        eventually("events are accepted", PATIENCE * 2, more).await;
    }

    /// What was accepted so far.
    pub fn accepted_ids(&self) -> HashSet<String> {
        self.ledger.accepted.lock().unwrap().clone()
    }

    /// Ends the load and fails the test unless everything that was accepted is settled.
    pub async fn end(self) -> Reckoning {
        self.end_but_for(&HashSet::new()).await
    }

    /// The same, but these may be lost.
    pub async fn end_but_for(self, losable: &HashSet<String>) -> Reckoning {
        let Self { store, ledger, producers, consumer } = self;
        ledger.stop.store(true, Ordering::SeqCst);
        for producer in producers {
            producer.await.unwrap();
        }
        ledger.complete.store(true, Ordering::SeqCst);
        tokio::time::timeout(PATIENCE * 2, consumer).await.expect("everything is settled at last").unwrap();
        let outcomes = all_outcomes(&store).await;
        let recorded: HashSet<_> = outcomes.iter().map(|record| record.event_id.to_string()).collect();
        let accepted = ledger.accepted.lock().unwrap().clone();
        let settled = ledger.settled.lock().unwrap().clone();
        let lost: HashSet<_> = accepted.difference(&recorded).cloned().collect();
        let wrong: Vec<_> = lost.difference(losable).collect();
        let mut kept = Vec::new();
        for id in &wrong {
            kept.extend(store.find_event("app", id).await.unwrap().map(|(position, _)| position));
        }
        assert!(
            wrong.is_empty(),
            "{} of {} accepted events were lost: {wrong:?}; of these are in the store without an outcome: {kept:?}",
            wrong.len(),
            accepted.len()
        );
        Reckoning {
            accepted: accepted.len(),
            lost: lost.len(),
            settled: settled.len(),
            repeated: settled.len() - settled.iter().collect::<HashSet<_>>().len(),
            refused: ledger.away.load(Ordering::SeqCst),
        }
    }
}

async fn produce(store: Arc<dyn Store>, ledger: Arc<Ledger>, producer: usize) {
    for n in 0.. {
        if ledger.stop.load(Ordering::SeqCst) {
            return;
        }
        let id = format!("evt_{producer}_{n}");
        match store.append(vec![event(&id)]).await {
            // Stored or, after an attempt that was answered with an error, known already.
            Ok(_) => drop(ledger.accepted.lock().unwrap().insert(id)),
            Err(_) => drop(ledger.away.fetch_add(1, Ordering::SeqCst)),
        }
    }
}

/// Claims and settles; every fifth event goes through the schedule. Ends when there is nothing left to do.
async fn consume(store: Arc<dyn Store>, ledger: Arc<Ledger>) {
    loop {
        let mut idle = true;
        if let Ok(claims) = store.claim_events(64, Duration::from_millis(100)).await {
            idle &= claims.is_empty();
            join_all(claims.into_iter().enumerate().map(async |(n, claim)| {
                let id = claim.event.id.to_string();
                let hold = Hold::Wait(Duration::from_millis(10));
                let settlement = if n % 5 == 0 { rescheduled(claim, "warehouse", hold) } else { delivered(claim) };
                if let Settled::Written(_) = store.settle_event(settlement).await.expect("it is written at last") {
                    ledger.settled.lock().unwrap().push(id);
                }
            }))
            .await;
        }
        if let Ok(due) = store.claim_due(64).await {
            join_all(due.claims.into_iter().map(async |claim| {
                let outcome = outcome_of(&claim.delivery, Outcome::Delivered);
                let settlement = DeliverySettlement { claim, outcome: Some(outcome), next: NextState::Ended };
                store.settle_delivery(settlement).await.expect("it is written at last");
            }))
            .await;
        }
        if idle
            && ledger.complete.load(Ordering::SeqCst)
            && let Ok(stats) = store.stats().await
            && (stats.backlog, stats.scheduled) == (0, 0)
        {
            return;
        }
    }
}
