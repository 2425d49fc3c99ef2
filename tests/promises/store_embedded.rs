//! The embedded store: the contract of all stores, and what only a store in a folder promises.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use branchline::clock::Clock;
use branchline::store::embedded::EmbeddedStore;
use branchline::store::{Error, Hold, Store, StoreOptions};
use tempfile::TempDir;

use super::store_contract::{
    Fixture, PATIENCE, all_outcomes, append, claim, delivered, delivery, event, events, nothing_to_claim, rescheduled,
    schedule_one, settle, store_contract,
};

/// A folder, and stores that open it one after the other.
struct Folder {
    folder: TempDir,
}

async fn folder() -> Folder {
    Folder { folder: tempfile::tempdir().expect("a folder can be made") }
}

impl Folder {
    fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

#[async_trait]
impl Fixture for Folder {
    async fn open(&self, options: StoreOptions) -> Arc<dyn Store> {
        let started = Instant::now();
        loop {
            match EmbeddedStore::open(&self.path(), options.clone(), Clock::system()).await {
                Ok(store) => return Arc::new(store),
                // A kill frees the lock at once; here the store that was dropped may still be in a commit.
                Err(Error::Unusable(text)) if text.contains("in use") && started.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("the store can't be opened: {error}"),
            }
        }
    }

    fn survives_after(&self) -> Duration {
        Duration::ZERO
    }
}

store_contract!(contract, super::folder);

async fn open(folder: &Path) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(folder, StoreOptions::default(), Clock::system()).await.expect("the store opens"))
}

#[tokio::test]
async fn a_second_process_is_refused_with_the_name_of_the_folder() {
    let folder = folder().await;
    let store = open(&folder.path()).await;
    let second = EmbeddedStore::open(&folder.path(), StoreOptions::default(), Clock::system()).await;
    match second {
        Err(Error::Unusable(text)) => {
            assert!(text.contains("in use") && text.contains(&folder.path().display().to_string()), "{text}");
        }
        other => panic!("{other:?}"),
    }
    append(&store, events("evt", 2)).await;
    store.close().await.unwrap();
    // Closing gives the folder back, even while the store is still held.
    claim(&open(&folder.path()).await, 2).await;
}

#[tokio::test]
async fn a_folder_that_is_no_store_is_refused_with_its_name() {
    let folder = folder().await;
    std::fs::create_dir(folder.path()).unwrap();
    std::fs::write(folder.path().join("branchline.db"), "this is a letter, not a database".repeat(300)).unwrap();
    match EmbeddedStore::open(&folder.path(), StoreOptions::default(), Clock::system()).await {
        Err(Error::Unusable(text)) => assert!(text.contains(&folder.path().display().to_string()), "{text}"),
        other => panic!("{other:?}"),
    }
}

/// More than memory holds, so that claims change from memory to disk and back.
#[tokio::test]
async fn a_long_backlog_is_claimed_in_order() {
    let folder = folder().await;
    for restart in [false, true] {
        let mut store = open(&folder.path()).await;
        let mut expected = Vec::new();
        for batch in 0..20 {
            expected.extend(append(&store, events(&format!("evt_{restart}_{batch}"), 1_000)).await);
        }
        if restart {
            store.close().await.unwrap();
            store = open(&folder.path()).await;
        }
        let first = claim(&store, 15_000).await;
        expected.extend(append(&store, events(&format!("evt_{restart}_late"), 1_000)).await);
        let rest = claim(&store, 6_000).await;
        let claimed: Vec<_> = first.iter().chain(&rest).map(|claim| claim.position).collect();
        assert_eq!(claimed, expected);
        nothing_to_claim(&store).await;
        futures_util::future::join_all(first.into_iter().chain(rest).map(|claim| settle(&store, delivered(claim))))
            .await;
        store.close().await.unwrap();
    }
    // That many ids are in segments on disk by now.
    let store = open(&folder.path()).await;
    for id in ["evt_false_0_0", "evt_false_19_999", "evt_true_late_999"] {
        assert!(store.find_event("app", id).await.unwrap().is_some(), "{id}");
        assert_eq!(store.append(vec![event(id)]).await.unwrap(), [branchline::store::Appended::Duplicate], "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_fall_due_by_the_clock_that_is_given() {
    let folder = folder().await;
    let store = open(&folder.path()).await;
    let hour = Duration::from_secs(3_600);
    let started = tokio::time::Instant::now();
    let (delivery, _) = schedule_one(&store, "evt_1", Hold::Wait(24 * hour)).await;
    assert_eq!(started.elapsed(), Duration::ZERO, "a paused clock stands still while the store works");
    assert_eq!(store.claim_due(10).await.unwrap().next_in, Some(24 * hour));
    tokio::time::advance(23 * hour).await;
    assert!(store.claim_due(10).await.unwrap().claims.is_empty());
    tokio::time::advance(hour).await;
    let claim = store.claim_due(10).await.unwrap().claims.remove(0);
    assert_eq!(claim.delivery, delivery);
    // Nobody settles it, and its lease ends.
    tokio::time::advance(StoreOptions::default().lease).await;
    assert_eq!(store.claim_due(10).await.unwrap().claims.len(), 1);
    assert!(store.claim_events(10, hour).await.unwrap().is_empty());
    assert_eq!(started.elapsed(), 25 * hour + StoreOptions::default().lease);
}

/// Tells the process that it is the one to be killed, and where its store is.
const KILLED_IN: &str = "BRANCHLINE_TEST_KILLED_IN";

/// Not a promise: what `no_kill_loses_what_was_acknowledged` starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(KILLED_IN) else { return };
    let store = open(Path::new(&folder)).await;
    for producer in 0..8 {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0.. {
                let id = format!("evt_{}_{producer}_{n}", std::process::id());
                append(&store, vec![event(&id)]).await;
                println!("\nstored {id} .");
            }
        });
    }
    loop {
        for claim in store.claim_events(16, Duration::from_secs(1)).await.expect("claiming succeeds") {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let id = claim.event.id.clone();
                let retried = delivery(&claim, "warehouse").id.as_str().ends_with('0');
                let wait = Hold::Wait(Duration::from_secs(3_600));
                settle(&store, if retried { rescheduled(claim, "warehouse", wait) } else { delivered(claim) }).await;
                println!("\nsettled {id} {retried} .");
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_loses_what_was_acknowledged() {
    let folder = folder().await;
    let (mut stored, mut settled, mut retried) = (HashSet::new(), HashSet::new(), HashSet::new());
    for _ in 0..6 {
        let mut killed = Command::new(std::env::current_exe().expect("the test has a path"))
            .args(["--exact", "store_embedded::the_process_that_is_killed", "--nocapture"])
            .env(KILLED_IN, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the test can be started");
        let output = BufReader::new(killed.stdout.take().expect("it is piped"));
        let acknowledged = std::thread::spawn(move || output.lines().map_while(Result::ok).collect::<Vec<_>>());
        tokio::time::sleep(Duration::from_millis(fastrand::u64(100..500))).await;
        killed.kill().expect("it can be killed");
        killed.wait().expect("it ends");
        for line in acknowledged.join().expect("its output is read") {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["stored", id, "."] => drop(stored.insert(id.to_owned())),
                ["settled", id, was_retried, "."] => {
                    settled.insert(id.to_owned());
                    if was_retried == "true" {
                        retried.insert(id.to_owned());
                    }
                }
                // Something of the test harness, or a line that was cut.
                _ => {}
            }
        }
        let store = open(&folder.path()).await;
        let backlog = usize::try_from(store.stats().await.unwrap().backlog).expect("it is small");
        let waiting: HashSet<_> = claim(&store, backlog).await.iter().map(|claim| claim.event.id.to_string()).collect();
        nothing_to_claim(&store).await;
        let outcomes = all_outcomes(&store).await;
        let ended: HashSet<_> = outcomes.iter().map(|record| record.event_id.to_string()).collect();
        assert_eq!(outcomes.len(), ended.len(), "each event is settled once");
        assert!(waiting.is_disjoint(&ended), "no event waits that was settled");
        assert!(stored.iter().all(|id| waiting.contains(id) || ended.contains(id)), "no stored event is lost");
        assert!(settled.is_subset(&ended), "no settlement is lost");
        let scheduled: HashSet<_> =
            store.scheduled(usize::MAX).await.unwrap().into_iter().map(|entry| entry.1.event.id.to_string()).collect();
        assert!(
            retried.is_subset(&scheduled) && scheduled.is_subset(&ended),
            "a delivery is written with its settlement"
        );
        store.close().await.unwrap();
    }
    assert!(stored.len() > 50 && settled.len() > 50, "{} stored and {} settled", stored.len(), settled.len());
}
