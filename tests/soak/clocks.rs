//! Clocks that step: the machine's time jumps by an hour, forwards and backwards, while the router runs.

use std::path::Path;
use std::time::Duration;

use crate::record::locked;
use crate::run::{MODERATE, run_well};
use crate::support::eventually;
use crate::world::{Kind, Setting, World};

/// Where Debian and Fedora keep the library that stands between a program and the clock.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

/// What routers take for the machine's clock: the real one, ahead or behind by what a file says. Redis's clock stays, as
/// it does when one of several machines is wrong.
pub struct MachineClock {
    library: &'static str,
    folder: tempfile::TempDir,
}

impl MachineClock {
    /// The right time at first. `None`, with the reason printed, where the library is missing.
    pub fn install() -> Option<Self> {
        let Some(library) = LIBRARIES.iter().find(|library| Path::new(library).exists()) else {
            println!("left out: libfaketime is not installed");
            return None;
        };
        let clock = Self { library, folder: tempfile::tempdir().expect("a folder can be made") };
        clock.step(0);
        Some(clock)
    }

    /// The variables that a router must be started with.
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
}

/// Steps the routers' clocks under load.
async fn step(kind: Kind) {
    let Some(clock) = MachineClock::install() else { return };
    let world = World::start(Setting { clock: Some(clock), ..Setting::of(kind) }).await;
    let ran = run_well(&format!("clock steps ({kind:?})"), 1, MODERATE, world, async |world| {
        for seconds in [3_600, -3_600, 0] {
            let from = world.record.now();
            world.clock.as_ref().expect("it was installed").step(seconds);
            // Receivers refuse a signature whose time is a few minutes off their own: it must follow the machine's clock.
            eventually("signatures have the machine's time", Duration::from_secs(20), async || {
                let receipts = locked(&world.record.receipts);
                let ahead = receipts.last().map(|receipt| receipt.signed_ahead)?;
                (ahead - seconds).abs().le(&5).then_some(())
            })
            .await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            world.disturbed("clock step of an hour", from, Duration::ZERO, false);
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
