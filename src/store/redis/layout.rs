//! What kind of store this is. Refuses one of another layout.

use super::RedisOptions;
use super::fault::Fault;
use super::keys::CommonKeys;
use super::link::Link;
use super::{reply, scripts};
use crate::delivery::whole_millis;
use crate::store::Error;

/// The layout of the keys and the meaning of their content. A store with a later one is refused. One of layout 1, whose events
/// have a head in JSON, becomes one of this when it is opened: a program of before, which could not read what is written
/// from then on, refuses it.
const LAYOUT: u64 = 2;
/// An ids bucket is at least this wide, so that a clock that is a little off rarely misses it.
const BUCKET_MS_MIN: u64 = 60_000;

/// Reads the layout, or writes it at first use: layout, partitions, width of an ids bucket.
pub(super) async fn describe(link: &Link, common: &CommonKeys, options: &RedisOptions) -> Result<[u64; 3], Fault> {
    // An eighth of the retention, so that an event is found by its id in few look-ups as long as it is kept.
    let bucket_ms =
        (whole_millis(options.store.retention) / 8).max(whole_millis(options.store.dedupe_window)).max(BUCKET_MS_MIN);
    let run = link.run(&scripts::DESCRIBE, |command| {
        command.arg(1).arg(&common.meta).arg(LAYOUT).arg(options.partitions).arg(bucket_ms);
    });
    let numbers = reply::array(run.await?)?.iter().map(reply::count).collect::<Result<Vec<_>, _>>()?;
    <[u64; 3]>::try_from(numbers).map_err(|_| Fault::strange("describe"))
}

/// Reads or writes the layout and refuses another one. Gives the width of an ids bucket in milliseconds.
pub(super) async fn open(link: &Link, common: &CommonKeys, options: &RedisOptions) -> Result<u64, Error> {
    let [layout, partitions, bucket_ms] = describe(link, common, options).await?;
    fits(layout, partitions, options)?;
    Ok(bucket_ms)
}

/// Refuses another layout.
pub(super) fn fits(layout: u64, partitions: u64, options: &RedisOptions) -> Result<(), Error> {
    let prefix = &options.prefix;
    if !(1..=LAYOUT).contains(&layout) {
        return Err(Error::Unusable(format!(
            "the store under the prefix `{prefix}` has layout {layout}, this program uses layout {LAYOUT}"
        )));
    }
    if partitions != u64::from(options.partitions) {
        return Err(Error::Unusable(format!(
            "the store under the prefix `{prefix}` was made with {partitions} partitions, but {} are configured; \
             the number can't change while events are kept",
            options.partitions
        )));
    }
    Ok(())
}
