//! `strace` between a router and the kernel: it kills the router at a sync, or lets syncs fail, and tells what was
//! written before.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{eventually, left_out};
use crate::world::World;

/// How long a router may take until it meets a sync that ends it.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A tracer that works here, and the folder of its logs.
pub struct Tracer(tempfile::TempDir);

impl Tracer {
    /// `None`, and a line that says so, where there is none.
    pub fn find() -> Option<Self> {
        let works = Command::new("strace").args(["-D", "-f", "-qq", "true"]).stderr(Stdio::null()).status();
        if !works.is_ok_and(|status| status.success()) {
            left_out("strace is missing, or may not trace");
            return None;
        }
        Some(Self(tempfile::tempdir().expect("a folder can be made")))
    }

    /// How a router is started so that it is traced, its own process all the same.
    fn command(log: &Path, inject: &str) -> Vec<String> {
        let log = log.to_str().expect("the path is text");
        let words = ["strace", "-D", "-f", "-qq", "-y", "-s", "0", "-o", log, "-e", "trace=pwrite64,fsync,fdatasync"];
        words.into_iter().chain(["-e", "signal=none", "-e", inject]).map(str::to_owned).collect()
    }

    /// Starts the router traced, lets it run until it ends, and gives the log. One that goes on was never met by what is
    /// to be injected.
    async fn run(&self, world: &World, inject: &str) -> String {
        let log = self.0.path().join("trace");
        let mut router = world.routers[0].lock().await;
        assert!(router.stop().await.success());
        router.started_by = Self::command(&log, inject);
        router.spawn();
        eventually("the router ends", ENDS_WITHIN, async || router.exit()).await;
        router.started_by.clear();
        std::fs::read_to_string(log).expect("the log can be read")
    }
}

/// Kills the router at one of its first syncs, does to what it wrote before what a disk without power does, and starts it
/// again. Gives how many writes were torn.
pub async fn tear_a_write(tracer: &Tracer, world: &World, chance: &mut fastrand::Rng) -> usize {
    let when = chance.u32(1..12);
    let trace = tracer.run(world, &format!("inject=fsync,fdatasync:signal=KILL:when={when}")).await;
    let log = world.store_folder().await.join("branchline.db-wal");
    let torn = tear(&log, &unsynced_writes(&trace), chance);
    world.routers[0].lock().await.start().await;
    torn
}

/// Starts the router so that its syncs fail from the `when`th on, lets it end, and starts it again.
pub async fn fail_syncs(tracer: &Tracer, world: &World, error: &str, when: u32) {
    let trace = tracer.run(world, &format!("inject=fsync,fdatasync:error={error}:when={when}+")).await;
    assert!(trace.contains("(INJECTED)"), "no sync failed");
    world.routers[0].lock().await.start().await;
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
