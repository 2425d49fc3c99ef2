//! What the store says when everything is over, read with the router's own code for reading and, for what nothing
//! should refer to any more, with Redis's own.

use std::path::Path;

use branchline::clock::Clock;
use branchline::delivery::{Outcome, Work};
use branchline::store::embedded::EmbeddedStore;
use branchline::store::redis::RedisStore;
use branchline::store::{Store, StoreOptions};

use crate::ledger::{Fate, Kept};
use crate::record::digest;
use crate::servers::{Servers, told};
use crate::support::redis_server::RedisServer;

const PAGE: usize = 1_000;

/// What an embedded store may have none of when all is over.
const ROWS_OF_NOBODY: [(&str, &str); 4] = [
    ("events wait that are not there", "SELECT count(*) FROM pending WHERE seq NOT IN (SELECT seq FROM event)"),
    (
        "outcomes are listed that are not there",
        "SELECT count(*) FROM outcome_of WHERE outcome NOT IN (SELECT seq FROM outcome)",
    ),
    ("events could not be read", "SELECT count(*) FROM damaged"),
    ("deliveries are in the schedule", "SELECT count(*) FROM delivery"),
];

/// Reads a store in Redis.
pub async fn of_redis(servers: &Servers) -> Kept {
    let orphans = servers.masters().into_iter().flat_map(orphans).collect();
    let store = RedisStore::open(servers.target(), servers.options()).await;
    let store = store.expect("the store opens");
    let mut kept = read(&store).await;
    kept.orphans = orphans;
    store.close().await.expect("the store closes");
    kept
}

/// Reads an embedded store.
pub async fn of_folder(folder: &Path) -> Kept {
    let store = EmbeddedStore::open(folder, StoreOptions::default(), Clock::system()).await.expect("the store opens");
    let mut kept = read(&store).await;
    store.close().await.expect("the store closes");
    let connection = rusqlite::Connection::open(folder.join("branchline.db")).expect("the database opens");
    let word: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it is checked");
    if word != "ok" {
        kept.orphans.push(format!("the database says of itself: {word}"));
    }
    for (what, query) in ROWS_OF_NOBODY {
        let count: i64 = connection.query_row(query, [], |row| row.get(0)).expect("they are counted");
        if count > 0 {
            kept.orphans.push(format!("{count} {what}"));
        }
    }
    kept
}

async fn read(store: &dyn Store) -> Kept {
    let mut kept = Kept::default();
    let mut cursor = None;
    loop {
        let (records, next) = store.outcomes(cursor, PAGE).await.expect("outcomes can be read");
        if records.is_empty() {
            break;
        }
        cursor = Some(next);
        for record in records {
            let (Some(subscription), Some(outcome)) = (record.subscription, record.outcome) else {
                kept.unmatched.push(record.event_id.to_string());
                continue;
            };
            let fate = match outcome {
                Outcome::Delivered => Fate::Delivered,
                Outcome::Filtered { .. } => Fate::Filtered,
                Outcome::DeadLetter { .. } => Fate::DeadLetter,
                Outcome::Dropped { .. } | Outcome::Discarded { .. } => {
                    panic!("nothing in a run drops or discards anything")
                }
                Outcome::Scheduled { .. } => continue,
            };
            kept.finals.push(((record.event_id.to_string(), subscription.to_string()), fate));
        }
    }
    let mut cursor = None;
    loop {
        let (letters, next) = store.dead_letters(cursor, PAGE).await.expect("dead letters can be read");
        if letters.is_empty() {
            break;
        }
        cursor = Some(next);
        for letter in letters {
            let body = match &letter.delivery.work {
                Work::Send(request) => Some(digest(&request.body)),
                Work::Run(_) => None,
            };
            kept.dead.push(((letter.delivery.event.id.to_string(), letter.delivery.subscription.to_string()), body));
        }
    }
    for (_, delivery) in store.scheduled(PAGE).await.expect("the schedule can be read") {
        kept.waiting.push((delivery.event.id.to_string(), delivery.subscription.to_string()));
    }
    kept.backlog = store.stats().await.expect("there are figures").backlog;
    kept
}

/// Keys that no event and no process needs any more, and entries that somebody is still said to hold.
fn orphans(server: &RedisServer) -> Vec<String> {
    let mut orphans = Vec::new();
    for key in told(server, &["keys", "*"]).lines().filter(|key| !key.is_empty()) {
        let name = key.split_once("}:").map_or(key, |(_, name)| name);
        let kind = name.split(':').next().unwrap_or_default();
        match kind {
            "events" => {
                let pending = told(server, &["xpending", key, "g"]);
                if !pending.starts_with('0') {
                    orphans.push(format!("entries pending in {key}: {pending}"));
                }
            }
            "ids" | "outcomes" | "dead" | "later" | "bl" => {}
            // Which dead letters there are; those of one event are there only until it is settled.
            "letters" if name == "letters" => {}
            _ => orphans.push(key.to_owned()),
        }
    }
    orphans
}
