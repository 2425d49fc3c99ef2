//! What a router would find at its start, looked at without writing: the servers, and the layout of what is there.

use std::sync::Arc;

use super::keys::CommonKeys;
use super::link::{CALL_TIME_MAX, Link};
use super::{Dialer, RedisOptions, RedisTarget, layout, reply, server};
use crate::store::Error;

/// Connects and looks. Gives what a router would warn of; what it would refuse is the error.
pub async fn look(target: &RedisTarget, options: &RedisOptions) -> Result<Vec<String>, Error> {
    let dialer = Arc::new(Dialer::new(target, options)?);
    let link = Link::new(&dialer);
    let findings = server::examine(&link, options).await?;
    if !findings.refusals.is_empty() {
        return Err(Error::Unusable(findings.refusals.join("; ")));
    }
    let mut command = redis::cmd("HMGET");
    command.arg(&CommonKeys::new(&options.prefix).meta).arg("layout").arg("partitions");
    let found = reply::array(link.call(&command, CALL_TIME_MAX).await?)?;
    // A store that was never used has none; the first router writes it.
    if let [layout, partitions] = &found[..]
        && *layout != redis::Value::Nil
    {
        layout::fits(reply::count(layout)?, reply::count(partitions)?, options)?;
    }
    Ok(findings.warnings)
}
