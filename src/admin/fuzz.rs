//! Fuzzing of what operators ask: targets with their queries, bodies, and cursors of any text, over a store that has one of each
//! record. The store is never to blame, and what was read is written and read again as it was.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::api::{EventQuery, HowReplayed, WhyDiscarded, read_json, read_query};
use super::explain::Question;
use super::operations::replay::{self, ReplayRequest};
use super::operations::{Caller, Error, audit, dead_letters, deliveries, events};
use super::route::{Operation, Route};
use crate::clock::{Clock, Timestamp};
use crate::config::SecretPrints;
use crate::delivery::{DeadLetter, DeadLetterReason, Delivery, DeliveryId, EventHead, Work};
use crate::dispatch::Snapshot;
use crate::event;
use crate::fuzz::fuzz;
use crate::store::embedded::EmbeddedStore;
use crate::store::{EventSettlement, Hold, ScanCursor, ScheduleCursor, ScheduledDelivery, Store, StoreOptions};

const NOW: Timestamp = Timestamp::from_millis(1_736_937_000_000);

/// A list ends after so many pages: there are fewer records.
const PAGES_MAX: usize = 20;

/// A store with accepted events, a delivery that waits, a dead letter and a line of the audit log.
struct Asked {
    runtime: Runtime,
    store: EmbeddedStore,
    snapshot: Arc<Snapshot>,
    caller: Caller,
    _folder: tempfile::TempDir,
}

impl Asked {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let caller = Caller { who: "fuzz".to_owned(), now: NOW };
        let store = runtime.block_on(async {
            let clock = Clock::starting_at(NOW);
            let store = EmbeddedStore::open(folder.path(), StoreOptions::default(), clock).await.unwrap();
            let ids = ["evt_1", "evt_2", "evt_3", "evt_4", "evt_5"];
            store.append(ids.map(|id| event::sample(id, "order.created", "{}")).to_vec()).await.unwrap();
            let claims = store.claim_events(2, Duration::ZERO).await.unwrap();
            for (number, claim) in claims.into_iter().enumerate() {
                let event = EventHead::of(&claim.event, claim.position);
                let id = DeliveryId::derive(&claim.event, "s");
                let work = Work::Run(Arc::clone(&claim.event));
                let delivery = Delivery { id, event, subscription: "s".into(), attempts: vec![], work };
                let (reason, detail) = (DeadLetterReason::Gone, "answered 410".to_owned());
                let (scheduled, dead_letters) = if number == 0 {
                    (vec![ScheduledDelivery { delivery, hold: Hold::Wait(Duration::from_secs(60)) }], vec![])
                } else {
                    (vec![], vec![DeadLetter { delivery, reason, detail, at: NOW }])
                };
                let settlement = EventSettlement { claim, outcomes: vec![], scheduled, dead_letters };
                store.settle_event(settlement).await.unwrap();
            }
            audit::note(&store, &caller, "pause", "endpoint", String::new()).await;
            store
        });
        Self { runtime, store, snapshot: Arc::default(), caller, _folder: folder }
    }

    /// A page of what a query asks for, if it is a list's: how many there are on it, and where to go on.
    fn page(&self, operation: &Operation, query: &str) -> Result<(usize, Option<String>), Error> {
        let (store, query) = (&self.store, Some(query));
        self.runtime.block_on(async {
            Ok(match operation {
                Operation::Events => {
                    let query: events::EventsQuery = again(read_query(query)?);
                    if query.payload {
                        let page = events::whole(store, &query, NOW).await?;
                        (page.events.len(), page.cursor)
                    } else {
                        let page = events::list(store, &query, NOW).await?;
                        (page.events.len(), page.cursor)
                    }
                }
                Operation::DeadLetters => {
                    let page = dead_letters::list(store, &again(read_query(query)?), NOW).await?;
                    (page.dead_letters.len(), page.cursor)
                }
                Operation::Audit => {
                    let page = audit::list(store, &again(read_query(query)?)).await?;
                    (page.entries.len(), page.cursor)
                }
                Operation::Deliveries => {
                    let query = again(read_query(query)?);
                    let page = deliveries::list(store, &self.snapshot, &query).await?;
                    (page.deliveries.len(), page.cursor)
                }
                Operation::Event(id) => {
                    let EventQuery { source } = read_query(query)?;
                    events::one(store, &self.snapshot, id, source.as_deref()).await?;
                    (1, None)
                }
                Operation::DeadLetter(id) => {
                    dead_letters::one(store, id).await?;
                    (1, None)
                }
                Operation::Explain(_) | Operation::ExplainGiven => {
                    let _: Question = read_query(query)?;
                    (1, None)
                }
                Operation::ReplayDeadLetter(_) | Operation::DiscardDeadLetter(_) => (0, None),
                Operation::Replay | Operation::Stats => (0, None),
            })
        })
    }
}

/// What was read of a query, once it was written and read again as the command line does.
fn again<Query: Serialize + DeserializeOwned + Debug + PartialEq>(query: Query) -> Query {
    let text = serde_urlencoded::to_string(&query).unwrap();
    assert_eq!(read_query::<Query>(Some(&text)).unwrap(), query, "{text}");
    query
}

/// What is asked may be nothing that can be done; that is no fault of the store's.
fn refused(error: &Error) {
    assert!(!matches!(error, Error::Store(_)), "{error}");
}

#[test]
fn queries() {
    let asked = Asked::start();
    let mut answered = BTreeSet::new();
    fuzz("admin-query", |input| {
        let Ok(target) = std::str::from_utf8(input) else { return };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Some(Route::Operation(operation)) = Route::of(path) else { return };
        match asked.page(&operation, query) {
            Ok((count, cursor)) => {
                assert!(count <= super::operations::LIMIT_MAX);
                if let Some(cursor) = cursor {
                    let read = match operation {
                        Operation::Deliveries => cursor.parse::<ScheduleCursor>().unwrap().to_string(),
                        _ => cursor.parse::<ScanCursor>().unwrap().to_string(),
                    };
                    assert_eq!(read, cursor);
                }
                if count > 0 {
                    answered.insert(path.split('/').nth(3).unwrap_or_default().to_owned());
                }
            }
            Err(error) => refused(&error),
        }
    });
    println!("fuzz admin-query: answers to {answered:?}");
    let lists = ["audit", "dead-letters", "deliveries", "events", "explain"];
    assert!(lists.iter().all(|list| answered.contains(*list)), "not every list had an answer: {answered:?}");
}

#[test]
fn cursors() {
    let asked = Asked::start();
    let (mut taken, mut found) = (0, 0);
    fuzz("cursor", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let parsed = text.parse::<ScanCursor>();
        if let Ok(cursor) = parsed {
            assert_eq!(cursor.to_string().parse(), Ok(cursor), "{text}");
            taken += 1;
        }
        let of_schedule = text.parse::<ScheduleCursor>();
        if let Ok(cursor) = &of_schedule {
            assert_eq!(cursor.to_string().parse().as_ref(), Ok(cursor), "{text}");
        }
        for (operation, is_cursor) in [
            (Operation::Events, parsed.is_ok()),
            (Operation::DeadLetters, parsed.is_ok()),
            (Operation::Audit, parsed.is_ok()),
            (Operation::Deliveries, of_schedule.is_ok()),
        ] {
            let mut next = Some(text.to_owned());
            for _ in 0..PAGES_MAX {
                let Some(cursor) = next.take() else { break };
                let query = serde_urlencoded::to_string([("limit", "1"), ("cursor", &cursor)]).unwrap();
                match asked.page(&operation, &query) {
                    Ok((count, cursor)) => {
                        assert!(is_cursor, "it was taken although it is none: {text}");
                        (found, next) = (found + count, cursor);
                    }
                    Err(error) => refused(&error),
                }
            }
            assert_eq!(next, None, "it goes on for ever");
        }
    });
    println!("fuzz cursor: {taken} were cursors, {found} records after them");
    assert!(taken > 0 && found > 0, "nothing was read");
}

#[test]
fn bodies() {
    let asked = Asked::start();
    let (mut replays, mut matched, mut others) = (0, 0, 0);
    fuzz("admin-body", |input| {
        if let Ok(request) = read_json::<ReplayRequest>(input) {
            let text = serde_json::to_vec(&request).unwrap();
            assert_eq!(read_json::<ReplayRequest>(&text).ok(), Some(request.clone()));
            // So that the store stays what it is.
            let request = ReplayRequest { dry_run: true, ..request };
            let step = replay::step(&asked.store, &asked.snapshot, &asked.caller, &request);
            match asked.runtime.block_on(step) {
                Ok(step) => {
                    assert!(step.replayed == 0, "{step:?}");
                    matched += step.matched + step.skipped.values().sum::<usize>();
                }
                Err(error) => refused(&error),
            }
            replays += 1;
        }
        others += usize::from(read_json::<HowReplayed>(input).is_ok());
        others += usize::from(read_json::<WhyDiscarded>(input).is_ok());
        others += usize::from(read_json::<SecretPrints>(input).is_ok());
    });
    println!("fuzz admin-body: {replays} replays that looked at {matched} deliveries, {others} other bodies");
    assert!(replays > 0 && matched > 0 && others > 0, "not everything was read");
}
