//! Compiled plugins are kept between starts, and never trusted blindly.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use branchline::plugin::{CacheCounts, ChainEnd};

use super::{Bench, event};
use crate::support::components::Guest;

/// The one artifact in a cache.
pub fn only_artifact(cache: &Path) -> PathBuf {
    let mut paths: Vec<_> = std::fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
        .collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    paths.remove(0)
}

/// Starts a router's sandbox, loads a plugin that works, and tells what its cache did.
async fn start_and_load(cache: &Path) -> CacheCounts {
    let bench = Bench::with(2, Some(cache));
    let plugin = bench.load("guest", &Guest::drop("works")).await;
    let end = bench.run(&[&plugin], &event("{}")).await;
    assert!(matches!(end, ChainEnd::Dropped { .. }), "{end:?}");
    bench.host.cache_counts()
}

const COMPILED: CacheCounts = CacheCounts { hits: 0, compiled: 1, rejected: 0 };
const HIT: CacheCounts = CacheCounts { hits: 1, compiled: 0, rejected: 0 };
const REJECTED: CacheCounts = CacheCounts { hits: 0, compiled: 1, rejected: 1 };

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_compiled_once_and_then_read_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("a/b");
    assert_eq!(start_and_load(&cache).await, COMPILED);
    assert_eq!(start_and_load(&cache).await, HIT);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&cache), mode(&cache.join("key")), mode(&only_artifact(&cache))), (0o700, 0o600, 0o600));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_file_under_two_names_is_compiled_once() {
    let bench = Bench::new();
    let (one, two) = (bench.load("one", &Guest::pass()).await, bench.load("two", &Guest::pass()).await);
    assert_eq!(bench.host.cache_counts(), COMPILED);
    assert_eq!(one.sha256(), two.sha256());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_with_one_changed_byte_is_not_loaded_but_made_again() {
    let cache = tempfile::tempdir().unwrap();
    start_and_load(cache.path()).await;
    let artifact = only_artifact(cache.path());
    let good = std::fs::read(&artifact).unwrap();
    let at = [0, 19, 20, 51, 52, 200, good.len() / 2, good.len() - 1];
    for at in at {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&artifact, &bad).unwrap();
        assert_eq!(start_and_load(cache.path()).await, REJECTED, "byte {at}");
        assert_eq!(std::fs::read(&artifact).unwrap().len(), good.len(), "it was made again");
    }
    for length in [0, 10, 52, good.len() - 1] {
        std::fs::write(&artifact, &good[..length]).unwrap();
        assert_eq!(start_and_load(cache.path()).await, REJECTED, "cut to {length}");
    }
    assert_eq!(start_and_load(cache.path()).await, HIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_made_under_another_key_is_not_loaded() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    start_and_load(ours.path()).await;
    start_and_load(theirs.path()).await;
    std::fs::copy(only_artifact(theirs.path()), only_artifact(ours.path())).unwrap();
    assert_eq!(start_and_load(ours.path()).await, REJECTED);
    // A key that others can read could be theirs.
    let key = ours.path().join("key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(start_and_load(ours.path()).await, COMPILED);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_does_not_pass_for_another_plugins() {
    let (cache, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    start_and_load(cache.path()).await;
    let artifact = only_artifact(cache.path());
    // Another plugin's, authentic under the same key.
    std::fs::copy(cache.path().join("key"), other.path().join("key")).unwrap();
    let bench = Bench::with(2, Some(other.path()));
    bench.load("guest", &Guest::pass()).await;
    std::fs::copy(only_artifact(other.path()), &artifact).unwrap();
    assert_eq!(start_and_load(cache.path()).await, REJECTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_others_could_write_to_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for cache in [open, link, file, "/proc/no/such".into()] {
        assert_eq!(start_and_load(&cache).await, COMPILED, "{}", cache.display());
        assert_eq!(start_and_load(&cache).await, COMPILED, "{}", cache.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_that_start_at_the_same_time_share_a_cache() {
    let cache = tempfile::tempdir().unwrap();
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let path = cache.path().to_owned();
            tokio::spawn(async move { start_and_load(&path).await })
        })
        .collect();
    for start in starts {
        assert_eq!(start.await.unwrap().rejected, 0);
    }
    only_artifact(cache.path());
    assert_eq!(start_and_load(cache.path()).await, HIT);
}
