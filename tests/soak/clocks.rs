//! Clocks that step: a router's, or Redis's, jumps by an hour, forwards and backwards, under load.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use branchline::clock::Clock;

use crate::fault::{TAKE_OVER, restart};
use crate::record::locked;
use crate::run::{MODERATE, run_well};
use crate::servers::told;
use crate::support::redis_server::RedisServer;
use crate::support::{eventually, left_out};
use crate::world::{Kind, Setting, World};

/// Steps of an hour either way. The last is forward: what is scheduled when a clock is set back waits for an hour more.
const STEPS: [i64; 3] = [-3_600, 0, 3_600];
/// So many events are to be acknowledged after a step.
const EVENTS_AFTER: usize = 100;
const PATIENCE: Duration = Duration::from_secs(40);
/// A clock's answer is this old at most, in seconds.
const READ_WITHIN: i64 = 5;

/// Where Debian and Fedora keep the library that stands between a program and the clock.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

/// What routers, or Redis, take for the machine's clock: the real one, ahead or behind by what a file says. Nobody else's
/// changes with it, as when one of several machines is wrong.
pub struct MachineClock {
    library: &'static str,
    folder: tempfile::TempDir,
}

impl MachineClock {
    /// The right time at first. `None`, with the reason printed, where the library is missing.
    pub fn install() -> Option<Self> {
        let Some(library) = LIBRARIES.iter().find(|library| Path::new(library).exists()) else {
            left_out("libfaketime is not installed");
            return None;
        };
        let clock = Self { library, folder: tempfile::tempdir().expect("a folder can be made") };
        clock.step(0);
        Some(clock)
    }

    /// The variables that a program must be started with.
    pub fn environment(&self) -> Vec<(String, String)> {
        let file = self.folder.path().join("time").display().to_string();
        let variables = [
            ("LD_PRELOAD", self.library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// Sets it to so many seconds ahead of the real time, in one step: the routers read it all the time.
    pub fn step(&self, seconds: i64) {
        let (next, file) = (self.folder.path().join("next"), self.folder.path().join("time"));
        std::fs::write(&next, format!("{seconds:+}")).expect("it can be written");
        std::fs::rename(next, file).expect("it can be replaced");
    }

    /// A script that starts this program, which brings an allocator of its own, so that it lives by this clock: its
    /// allocator asks for the time before the library can tell it, so it goes without.
    pub fn before(&self, program: &str) -> PathBuf {
        let mut script = String::from("#!/bin/sh\n");
        for (name, value) in self.environment() {
            let more = if name == "LD_PRELOAD" { ":libc.so.6" } else { "" };
            let _ = writeln!(script, "export {name}='{value}{more}'");
        }
        let _ = writeln!(script, "exec {program} \"$@\"");
        let file = self.folder.path().join(program);
        std::fs::write(&file, script).expect("it can be written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("it can be made a program");
        file
    }

    /// Sets it, and waits until the server that lives by it says so.
    pub async fn step_redis(&self, server: &RedisServer, seconds: i64) {
        self.step(seconds);
        eventually("Redis has the other time", PATIENCE, async || {
            let now: i64 = told(server, &["time"]).lines().next()?.parse().ok()?;
            (now - machine_time() - seconds).abs().le(&READ_WITHIN).then_some(())
        })
        .await;
    }
}

fn machine_time() -> i64 {
    i64::try_from(Clock::system().of_the_machine().as_secs()).expect("it is not that late")
}

/// Waits until what is sent is signed with the time of a clock that was stepped so far. Receivers refuse a signature whose
/// time is a few minutes off their own: it must follow the machine's clock.
async fn until_signed(world: &World, seconds: i64) {
    eventually("signatures have the machine's time", PATIENCE, async || {
        let receipts = locked(&world.record.receipts);
        let ahead = receipts.last().map(|receipt| receipt.signed_ahead)?;
        (ahead - seconds).abs().le(&READ_WITHIN).then_some(())
    })
    .await;
}

/// Steps the routers' clocks under load.
async fn step(kind: Kind) {
    let Some(clock) = MachineClock::install() else { return };
    let world = World::start(Setting { clock: Some(clock), ..Setting::of(kind) }).await;
    let ran = run_well(&format!("clock steps ({kind:?})"), 1, MODERATE, world, async |world| {
        for seconds in STEPS {
            let from = world.record.now();
            world.clock.as_ref().expect("it was installed").step(seconds);
            until_signed(world, seconds).await;
            world.until_acknowledged(EVENTS_AFTER, PATIENCE).await;
            world.disturbed("clock step of an hour", from, Duration::ZERO, 0);
        }
    })
    .await;
    assert_eq!(ran.findings.repeats, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_by_an_hour_loses_and_repeats_nothing_with_redis() {
    step(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_by_an_hour_loses_and_repeats_nothing_with_the_embedded_store() {
    step(Kind::Embedded).await;
}

/// Waits until the routers have seen that the clocks are apart: they look whenever they connect, and warn once.
async fn until_seen(world: &World) {
    world.store_links.iter().for_each(|link| link.break_all(false));
    let is_seen = async || (world.log().await.matches(" s apart").count() >= world.routers.len()).then_some(());
    eventually("each router warns of the clocks", PATIENCE, is_seen).await;
}

/// The schedule, leases and heartbeats go by this clock, and a step forward ends them all: that may cost repeats. The
/// signatures go by the routers'.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_whose_own_clock_steps_by_an_hour_loses_nothing() {
    let Some(clock) = MachineClock::install() else { return };
    let world = World::start(Setting { redis_clock: Some(clock), ..Setting::of(Kind::Redis) }).await;
    run_well("clock steps of Redis", 1, MODERATE, world, async |world| {
        for seconds in STEPS {
            let from = world.record.now();
            world.redis_clock.as_ref().expect("it was installed").step_redis(world.redis(), seconds).await;
            world.until_acknowledged(EVENTS_AFTER, PATIENCE).await;
            until_signed(world, 0).await;
            if seconds != 0 {
                until_seen(world).await;
            }
            world.disturbed("clock step of Redis of an hour", from, TAKE_OVER, world.held_max());
        }
    })
    .await;
}

/// What the embedded store goes by from then on: a router reads the machine's clock once, when it starts.
#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_store_that_is_opened_an_hour_off_loses_and_repeats_nothing() {
    let Some(clock) = MachineClock::install() else { return };
    let world = World::start(Setting { clock: Some(clock), ..Setting::of(Kind::Embedded) }).await;
    let ran = run_well("restarts at another time (Embedded)", 1, MODERATE, world, async |world| {
        for seconds in STEPS {
            let from = world.record.now();
            world.clock.as_ref().expect("it was installed").step(seconds);
            restart(&mut *world.routers[0].lock().await).await;
            until_signed(world, seconds).await;
            world.until_acknowledged(EVENTS_AFTER, PATIENCE).await;
            world.disturbed("restart an hour off", from, Duration::ZERO, 0);
        }
    })
    .await;
    assert_eq!(ran.findings.repeats, 0);
}
