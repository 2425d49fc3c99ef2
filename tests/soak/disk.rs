//! What disks do to the embedded store: they are full, they lose or tear what was not synced, they fail a sync.
//!
//! The first wants a file system of its own (root, for a tmpfs), the others `strace`, which stands between the router
//! and the kernel; where either is missing the test says so and is left out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use http::StatusCode;

use crate::run::{MODERATE, run_well};
use crate::support::eventually;
use crate::support::router::RouterProcess;
use crate::world::{Kind, Setting, World};

const PATIENCE: Duration = Duration::from_secs(40);

/// A small file system, unmounted when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with the reason printed, where none can be made.
    fn mount(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            Ok(output) => {
                println!("left out: no tmpfs can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("left out: no tmpfs can be mounted: {error}");
                None
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    /// Fills it until so many bytes are free.
    fn fill(&self, free: u64) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).expect("it can be opened");
        loop {
            let space = rustix::fs::statvfs(self.0.path()).expect("it can be asked");
            let left = (space.f_bavail * space.f_frsize).saturating_sub(free);
            let piece = vec![0; usize::try_from(left.min(1 << 20)).expect("it is small")];
            if piece.is_empty() || ballast.write_all(&piece).is_err() {
                return;
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_events_and_loses_none() {
    let Some(disk) = SmallDisk::mount(200) else { return };
    let setting = Setting { folder: Some(disk.0.path().join("data")), ..Setting::of(Kind::Embedded) };
    let ran = run_well("full disk", 1, MODERATE, World::start(setting).await, async |world| {
        // Too little to begin anything new, then nothing at all, then room again.
        for free in [40 << 20, 0] {
            let from = world.record.now();
            disk.fill(free);
            tokio::time::sleep(Duration::from_secs(3)).await;
            world.disturbed("full disk", from, Duration::ZERO, false);
        }
        std::fs::remove_file(disk.ballast()).expect("it can be removed");
        let requests = world.record.requests();
        eventually("deliveries go on", PATIENCE, async || (world.record.requests() > requests + 50).then_some(()))
            .await;
    })
    .await;
    assert!(ran.refused > 0, "producers were told");
}

/// How a router is started so that it is traced, its own process all the same. `None` where it can't be.
fn traced(log: &Path, inject: &str) -> Option<Vec<String>> {
    let works = Command::new("strace").args(["-D", "-f", "-qq", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("left out: strace is missing, or may not trace");
        return None;
    }
    let log = log.to_str().expect("the path is text");
    let words = ["strace", "-D", "-f", "-qq", "-y", "-s", "0", "-o", log, "-e", "trace=pwrite64,fsync,fdatasync"];
    let words = words.into_iter().chain(["-e", "signal=none", "-e", inject]).map(str::to_owned);
    Some(words.collect())
}

/// Starts the router traced, lets it run until it ends, and gives the log. One that goes on is killed.
async fn run_traced(world: &World, log: &Path, inject: &str) -> String {
    let mut router = world.routers[0].lock().await;
    assert!(router.stop().await.success());
    router.started_by = traced(log, inject).expect("it was there before");
    router.spawn();
    for _ in 0..300 {
        if router.exit().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    end(&mut router);
    router.started_by.clear();
    std::fs::read_to_string(log).expect("the log can be read")
}

/// Ends a router that may have ended by itself.
fn end(router: &mut RouterProcess) {
    if router.exit().is_none() {
        router.kill();
    }
}

/// What the log of the store was at the last sync that ended, and what was written after it: offset and length.
fn unsynced_writes(trace: &str) -> BTreeMap<u64, u64> {
    let mut unsynced = BTreeMap::new();
    let mut syncing = false;
    for line in trace.lines() {
        let of_the_log = line.contains("branchline.db-wal>");
        if of_the_log && line.contains("pwrite64(") {
            let arguments = line.rsplit_once('"').map_or("", |(_, rest)| rest).trim_start_matches("...");
            let numbers: Vec<u64> = arguments
                .split(|c: char| !c.is_ascii_digit())
                .filter(|number| !number.is_empty())
                .map_while(|number| number.parse().ok())
                .collect();
            if let [length, offset, ..] = numbers[..] {
                unsynced.insert(offset, length);
            }
        }
        syncing |= of_the_log && line.contains("sync(");
        if syncing && line.contains("sync") && line.ends_with("= 0") {
            unsynced.clear();
            syncing = false;
        }
    }
    unsynced
}

/// Does to writes that were not synced what a disk without power does: some are there, some are not, some are half there.
fn tear(log: &Path, unsynced: &BTreeMap<u64, u64>, chance: &mut fastrand::Rng) -> usize {
    let file = File::options().write(true).open(log).expect("the log can be opened");
    let mut torn = 0;
    for (offset, length) in unsynced {
        let garbage: Vec<u8> = (0..*length).map(|_| chance.u8(..)).collect();
        let from = chance.usize(..garbage.len());
        match chance.u8(..4) {
            0 => continue,
            1 => file.write_all_at(&garbage, *offset),
            2 => file.write_all_at(&garbage[from..], offset + from as u64),
            _ => file.write_all_at(&vec![0; garbage.len()], *offset),
        }
        .expect("it can be written");
        torn += 1;
    }
    if let Some((offset, _)) = unsynced.last_key_value()
        && chance.bool()
    {
        // Or the file never grew that far.
        let length = file.metadata().expect("it has a length").len();
        if offset + 4096 >= length {
            file.set_len(*offset).expect("it can be cut");
        }
    }
    torn
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_torn_before_its_sync_costs_nothing_that_was_acknowledged() {
    let trace = tempfile::tempdir().expect("a folder can be made");
    if traced(&trace.path().join("trace"), "inject=fsync:signal=KILL:when=1").is_none() {
        return;
    }
    let seed = fastrand::u64(..1 << 32);
    let world = World::start(Setting::of(Kind::Embedded)).await;
    run_well("torn writes", seed, MODERATE, world, async |world| {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut torn = 0;
        for round in 0..8 {
            let from = world.record.now();
            let when = chance.u32(1..12);
            let inject = format!("inject=fsync,fdatasync:signal=KILL:when={when}");
            let trace = run_traced(world, &trace.path().join(format!("trace-{round}")), &inject).await;
            let mut router = world.routers[0].lock().await;
            let log = router.folder().join("data/branchline.db-wal");
            torn += tear(&log, &unsynced_writes(&trace), &mut chance);
            router.start().await;
            drop(router);
            world.disturbed("torn write", from, Duration::ZERO, true);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        println!("{torn} writes were torn");
        assert!(torn > 0, "nothing was torn");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_that_could_not_be_synced() {
    let trace = tempfile::tempdir().expect("a folder can be made");
    if traced(&trace.path().join("trace"), "inject=fsync:error=EIO:when=1").is_none() {
        return;
    }
    let world = World::start(Setting::of(Kind::Embedded)).await;
    run_well("failing syncs", 1, MODERATE, world, async |world| {
        for (round, when) in [1, 2, 3, 5, 8, 13].into_iter().enumerate() {
            for error in ["EIO", "ENOSPC"] {
                let from = world.record.now();
                let inject = format!("inject=fsync,fdatasync:error={error}:when={when}+");
                run_traced(world, &trace.path().join(format!("trace-{round}-{error}")), &inject).await;
                world.routers[0].lock().await.start().await;
                world.disturbed("failing syncs", from, Duration::ZERO, true);
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        let (status, _) = world.routers[0].lock().await.get("/readyz").await.expect("it answers");
        assert_eq!(status, StatusCode::OK);
    })
    .await;
}

#[test]
fn what_was_not_synced_is_read_from_a_trace() {
    let trace = "7 pwrite64(20</d/branchline.db-wal>, \"\"..., 24, 100) = 24\n\
                 7 fsync(20</d/branchline.db-wal>) = 0\n\
                 7 pwrite64(20</d/branchline.db-wal>, \"\"..., 24, 124) = 24\n\
                 8 pwrite64(20</d/branchline.db-wal>, \"\"..., 4096, 148 <unfinished ...>\n\
                 7 pwrite64(20</d/branchline.db>, \"\"..., 4096, 0) = 4096\n\
                 8 <... pwrite64 resumed>) = 4096\n\
                 8 fsync(20</d/branchline.db-wal> <unfinished ...>\n";
    assert_eq!(unsynced_writes(trace), BTreeMap::from([(124, 24), (148, 4096)]));
    assert!(unsynced_writes(&format!("{trace}8 <... fsync resumed>) = 0\n")).is_empty());
}
