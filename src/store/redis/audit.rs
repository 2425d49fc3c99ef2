//! Who did what, and which sources there were: small things that belong to no partition.

use std::sync::Arc;

use super::Shared;
use super::link::CALL_TIME_MAX;
use super::reply::{self, StreamId};
use crate::delivery::whole_millis;
use crate::event::Position;
use crate::store::{AuditEntry, Error, Page, ScanCursor};

/// Adds an entry, and lets go of those that are older than the retention.
pub(super) async fn record(shared: &Shared, entry: &AuditEntry) -> Result<(), Error> {
    let oldest = shared.ids.now_ms().saturating_sub(whole_millis(shared.options.store.retention));
    let record = serde_json::to_string(entry).expect("an entry has string keys only");
    let mut command = redis::cmd("XADD");
    command.arg(&shared.common.audit).arg("MINID").arg("~").arg(oldest).arg("*").arg("a").arg(record);
    shared.link.call(&command, CALL_TIME_MAX).await?;
    Ok(())
}

/// The entries, newest first.
pub(super) async fn page(shared: &Shared, cursor: Option<ScanCursor>, limit: usize) -> Result<Page<AuditEntry>, Error> {
    let from = cursor.map_or_else(
        || "+".to_owned(),
        |cursor| {
            let id = StreamId { milliseconds: cursor.last.major, sequence: cursor.last.minor };
            format!("({id}")
        },
    );
    let mut command = redis::cmd("XREVRANGE");
    command.arg(&shared.common.audit).arg(from).arg("-").arg("COUNT").arg(limit);
    let entries = reply::entries(shared.link.call(&command, CALL_TIME_MAX).await?)?;
    let last = entries.last().filter(|_| entries.len() >= limit).map(|entry| entry.id);
    let next = last
        .map(|id| ScanCursor { last: Position { partition: 0, major: id.milliseconds, minor: id.sequence }, bound: 0 });
    let items = entries.iter().filter_map(|entry| {
        let read = serde_json::from_slice(&entry.field(b"a").unwrap_or_default());
        read.map_err(|_| tracing::error!(entry = %entry.id, "an entry of the audit log can't be read")).ok()
    });
    Ok(Page { items: items.collect(), next, bound: 0 })
}

/// Remembers sources by name.
pub(super) async fn remember_sources(shared: &Shared, names: &[Arc<str>]) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let mut command = redis::cmd("SADD");
    command.arg(&shared.common.sources);
    for name in names {
        command.arg(&**name);
    }
    shared.link.call(&command, CALL_TIME_MAX).await?;
    Ok(())
}

/// Every source ever remembered.
pub(super) async fn sources(shared: &Shared) -> Result<Vec<String>, Error> {
    let mut command = redis::cmd("SMEMBERS");
    command.arg(&shared.common.sources);
    let names = reply::array(shared.link.call(&command, CALL_TIME_MAX).await?)?;
    Ok(names.into_iter().map(reply::text).collect::<Result<_, _>>()?)
}
