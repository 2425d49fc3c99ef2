//! What kind of server and store this is. Refuses a server that would lose events, and a store of another layout.

use redis::Value;

use super::RedisOptions;
use super::fault::Fault;
use super::keys::CommonKeys;
use super::link::{CALL_TIME_MAX, Link};
use super::{reply, scripts};
use crate::delivery::whole_millis;
use crate::store::Error;

/// The layout of the keys and the meaning of their content. A store with another one is refused.
const LAYOUT: u64 = 1;
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
    let prefix = &options.prefix;
    if layout != LAYOUT {
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
    Ok(bucket_ms)
}

/// Refuses a server that throws keys away when its memory is full, and tells of one that forgets when it crashes.
pub(super) async fn check_server(link: &Link) -> Result<(), Error> {
    let policy = read_info(link, "memory", "maxmemory_policy").await?;
    match policy.as_deref() {
        Some(policy) if policy.starts_with("allkeys") => {
            return Err(Error::Unusable(format!(
                "Redis has maxmemory-policy `{policy}`, which deletes accepted events when memory is full; use `noeviction`"
            )));
        }
        Some("noeviction") | None => {}
        Some(policy) => {
            tracing::warn!(policy, "maxmemory-policy is not `noeviction`: ids may be forgotten before their time");
        }
    }
    if read_info(link, "persistence", "aof_enabled").await?.as_deref() == Some("0") {
        tracing::warn!("Redis keeps no append-only file: a crash of Redis loses accepted events");
        return Ok(());
    }
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("appendfsync");
    // Managed servers forbid CONFIG; then nothing is known, and nothing is said.
    if let Ok(answer) = link.call(&command, CALL_TIME_MAX).await
        && let Some(policy) = find_text(&answer, &|text| ["everysec", "no"].contains(&text).then(|| text.to_owned()))
    {
        tracing::warn!(
            appendfsync = policy,
            "a crash of Redis can lose the last seconds of accepted events; `always` can't"
        );
    }
    Ok(())
}

async fn read_info(link: &Link, section: &str, field: &str) -> Result<Option<String>, Error> {
    let mut command = redis::cmd("INFO");
    command.arg(section);
    let answer = link.call(&command, CALL_TIME_MAX).await?;
    let find = |text: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    };
    Ok(find_text(&answer, &find))
}

/// The first text in an answer that `find` makes something of. A Cluster answers with a text a node.
fn find_text(answer: &Value, find: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    match answer {
        Value::BulkString(bytes) => find(&String::from_utf8_lossy(bytes)),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => find(text),
        Value::Array(values) => values.iter().find_map(|value| find_text(value, find)),
        Value::Map(pairs) => pairs.iter().find_map(|(_, value)| find_text(value, find)),
        _ => None,
    }
}
