//! What disks do to the embedded store: they are full, they lose or tear what was not synced, they fail a sync.
//!
//! The first wants a file system of its own (root, for a tmpfs), the others `strace`, which stands between the router
//! and the kernel; where either is missing the test says so and is left out.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;

use crate::run::{MODERATE, run_well};
use crate::support::{eventually, left_out};
use crate::tracer::{Tracer, fail_syncs, tear_a_write};
use crate::world::{HELD_MAX, Kind, Setting, World};

/// Between two faults so many events are acknowledged.
const EVENTS_BETWEEN: usize = 20;
const PATIENCE: Duration = Duration::from_secs(40);
/// Too little to begin anything new with.
pub const LITTLE_BYTES: u64 = 40 << 20;

/// A file system of its own in memory, which can be made as full as wanted; unmounted when it is dropped.
pub struct SmallDisk {
    folder: tempfile::TempDir,
    bytes: u64,
}

impl SmallDisk {
    /// `None`, with the reason printed, where none can be made.
    pub fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder, bytes }),
            Ok(output) => {
                left_out(&format!("no tmpfs can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim()));
                None
            }
            Err(error) => {
                left_out(&format!("no tmpfs can be mounted: {error}"));
                None
            }
        }
    }

    /// Where a store is kept on it.
    pub fn store_folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Makes it so small that this many bytes are free. What is written meanwhile may be more than that: then again.
    pub fn leave(&self, free: u64) {
        for _ in 0..100 {
            let space = rustix::fs::statvfs(self.folder.path()).expect("it can be asked");
            let used = (space.f_blocks - space.f_bfree) * space.f_frsize;
            if self.resize(used + free) {
                return;
            }
        }
        panic!("the disk can't be made smaller");
    }

    /// Gives all its room back.
    pub fn widen(&self) {
        assert!(self.resize(self.bytes), "the disk can be made larger");
    }

    fn resize(&self, bytes: u64) -> bool {
        let options = format!("remount,size={bytes}");
        let status = Command::new("mount").args(["-o", &options]).arg(self.folder.path()).output();
        status.is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_events_and_loses_none() {
    let Some(disk) = SmallDisk::mount(200 << 20) else { return };
    let setting = Setting { disk: Some(disk), ..Setting::of(Kind::Embedded) };
    let ran = run_well("full disk", 1, MODERATE, World::start(setting).await, async |world| {
        let disk = world.disk.as_ref().expect("it was mounted");
        // Nothing at all, then too little to begin anything new, then room again.
        for free in [0, LITTLE_BYTES] {
            let (from, refused) = (world.record.now(), || world.record.refused.load(Ordering::Relaxed));
            let before = refused();
            disk.leave(free);
            eventually("events are refused", PATIENCE, async || (refused() > before + 10).then_some(())).await;
            world.disturbed("full disk", from, Duration::ZERO, 0);
        }
        disk.widen();
        let requests = world.record.requests();
        eventually("deliveries go on", PATIENCE, async || (world.record.requests() > requests + 50).then_some(()))
            .await;
    })
    .await;
    assert!(ran.refused > 0, "producers were told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_torn_before_its_sync_costs_nothing_that_was_acknowledged() {
    let Some(tracer) = Tracer::find() else { return };
    let seed = fastrand::u64(..1 << 32);
    let world = World::start(Setting::of(Kind::Embedded)).await;
    run_well("torn writes", seed, MODERATE, world, async |world| {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut torn = 0;
        for _ in 0..8 {
            let from = world.record.now();
            torn += tear_a_write(&tracer, world, &mut chance).await;
            world.disturbed("torn write", from, Duration::ZERO, HELD_MAX);
            world.until_acknowledged(EVENTS_BETWEEN, PATIENCE).await;
        }
        println!("{torn} writes were torn");
        assert!(torn > 0, "nothing was torn");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_that_could_not_be_synced() {
    let Some(tracer) = Tracer::find() else { return };
    let world = World::start(Setting::of(Kind::Embedded)).await;
    run_well("failing syncs", 1, MODERATE, world, async |world| {
        for when in [1, 2, 3, 5, 8, 13] {
            for error in ["EIO", "ENOSPC"] {
                let from = world.record.now();
                fail_syncs(&tracer, world, error, when).await;
                world.disturbed("failing syncs", from, Duration::ZERO, HELD_MAX);
                world.until_acknowledged(EVENTS_BETWEEN, PATIENCE).await;
            }
        }
        let (status, _) = world.routers[0].lock().await.get("/readyz").await.expect("it answers");
        assert_eq!(status, StatusCode::OK);
    })
    .await;
}
