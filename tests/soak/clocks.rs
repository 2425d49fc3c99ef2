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

/// Steps the routers' clocks under load. Redis's clock stays, as it does when one of several machines is wrong.
async fn step(kind: Kind) {
    let Some(library) = LIBRARIES.iter().find(|library| Path::new(library).exists()) else {
        println!("left out: libfaketime is not installed");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder can be made");
    let time = folder.path().join("time");
    std::fs::write(&time, "+0").expect("it can be written");
    let environment = [
        ("LD_PRELOAD", (*library).to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", time.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let world = World::start(Setting { environment, ..Setting::of(kind) }).await;
    let ran = run_well(&format!("clock steps ({kind:?})"), 1, MODERATE, world, async |world| {
        for (offset, seconds) in [("+3600", 3_600), ("-3600", -3_600), ("+0", 0)] {
            let from = world.record.now();
            // In one step: the routers read it all the time.
            std::fs::write(folder.path().join("next"), offset).expect("it can be written");
            std::fs::rename(folder.path().join("next"), &time).expect("it can be replaced");
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
