//! The embedded store: the contract of all stores, and what only a store in a folder promises.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use branchline::clock::Clock;
use branchline::store::embedded::EmbeddedStore;
use branchline::store::{Error, Store, StoreOptions};
use tempfile::TempDir;

use super::store_contract::{Fixture, PATIENCE, store_contract};

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
