//! The servers themselves: asked what they are at the start, after each new connection (it may be to another server),
//! and once a minute; and how full their memory is.

use std::collections::HashSet;
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::RedisOptions;
use super::check::{Facts, Findings, Wants, judge};
use super::fault::Fault;
use super::link::{CALL_TIME_MAX, Link};
use super::reply;
use crate::clock::Clock;
use crate::store::Memory;

/// How often the servers are looked at without a reason.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Looks at the servers now and then, and tells of each fault once.
#[derive(Default)]
pub(super) struct Examiner {
    /// The connection and the time of the last look.
    looked: Option<(u64, Instant)>,
    refuses: bool,
    told: HashSet<String>,
}

impl Examiner {
    /// Whether it is time: another connection, a minute later, or a fault that may be mended by now.
    pub(super) fn is_due(&self, link: &Link) -> bool {
        let same = |looked: &(u64, Instant)| looked.0 == link.generation() && looked.1.elapsed() < LOOK_EVERY;
        self.refuses || !self.looked.as_ref().is_some_and(same)
    }

    /// Looks, and warns. Gives why no events should be stored there, if that is so.
    pub(super) async fn look(&mut self, link: &Link, options: &RedisOptions) -> Result<Option<String>, Fault> {
        // Also when it fails: a Cluster that lacks a master must not cost each turn the time of a call that is not answered.
        self.looked = Some((link.generation(), Instant::now()));
        let findings = examine(link, options).await?;
        self.refuses = !findings.refusals.is_empty();
        for warning in &findings.warnings {
            if !self.told.contains(warning) {
                tracing::warn!("{warning}");
            }
        }
        self.told = findings.warnings.into_iter().collect();
        Ok(self.refuses.then(|| findings.refusals.join("; ")))
    }
}

/// What is wrong with the servers, by what they say of themselves.
pub(super) async fn examine(link: &Link, options: &RedisOptions) -> Result<Findings, Fault> {
    let texts = info(link, None).await?;
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("appendfsync");
    // Managed servers forbid CONFIG; then nothing is known of it, and nothing is said.
    let appendfsync = link.call(&command, CALL_TIME_MAX).await.ok().and_then(|answer| {
        let texts = texts_of(answer);
        texts.into_iter().find(|text| matches!(text.as_str(), "always" | "everysec" | "no"))
    });
    let clock_skew = clock_skew(link).await?;
    let wants = Wants { wait: options.wait.as_ref(), has_memory_limit: options.memory_bytes_max.is_some() };
    let mut all = Findings::default();
    for text in texts {
        let facts = Facts { appendfsync: appendfsync.clone(), clock_skew, ..Facts::of_info(&text) };
        let findings = judge(&facts, wants, &options.checks);
        for (all, found) in [(&mut all.refusals, findings.refusals), (&mut all.warnings, findings.warnings)] {
            all.extend(found);
            all.sort();
            all.dedup(); // Nodes of a Cluster share most of their faults.
        }
    }
    Ok(all)
}

/// How far the server's clock is from ours, either way, at least.
async fn clock_skew(link: &Link) -> Result<Duration, Fault> {
    let clock = Clock::system();
    let before = clock.now().as_millis();
    let answer = reply::array(link.call(&redis::cmd("TIME"), CALL_TIME_MAX).await?)?;
    let after = clock.now().as_millis();
    let seconds = answer.first().map(reply::count).transpose()?.unwrap_or(before / 1000);
    let theirs = seconds * 1000;
    // Their answer has whole seconds here, and was made at some time between the two looks at our clock.
    let ahead = theirs.saturating_sub(after);
    let behind = before.saturating_sub(theirs + 1000);
    Ok(Duration::from_millis(ahead.max(behind)))
}

/// How full the fullest server's memory is; nothing where it may not be asked.
pub(super) async fn memory(link: &Link, bytes_max: Option<u64>) -> Result<Memory, Fault> {
    match info(link, Some("memory")).await {
        Ok(texts) => Ok(fullest(&texts, bytes_max)),
        // Not all may ask, and a Cluster that lacks a master answers nothing here.
        Err(Fault::Denied(_) | Fault::Refused(_)) => Ok(Memory::default()),
        Err(Fault::Away(_)) if link.is_cluster() => Ok(Memory::default()),
        Err(fault) => Err(fault),
    }
}

fn fullest(texts: &[String], bytes_max: Option<u64>) -> Memory {
    let memories = texts.iter().map(|text| {
        let facts = Facts::of_info(text);
        let field = |name: &str| facts.info.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        // A server that refuses sooner than we were told counts.
        let own = Some(field("maxmemory")).filter(|own| *own > 0);
        let bytes_max = own.into_iter().chain(bytes_max).min().unwrap_or(0);
        Memory { used_bytes: field("used_memory"), bytes_max }
    });
    // Without a limit nothing is full; the larger one is as good to show.
    let fullness = |memory: &Memory| {
        (memory.used_bytes.saturating_mul(1_000).checked_div(memory.bytes_max).unwrap_or(0), memory.used_bytes)
    };
    memories.max_by_key(fullness).unwrap_or_default()
}

/// What `INFO` says, a text a node.
async fn info(link: &Link, section: Option<&str>) -> Result<Vec<String>, Fault> {
    let mut command = redis::cmd("INFO");
    if let Some(section) = section {
        command.arg(section);
    }
    Ok(texts_of(link.call(&command, CALL_TIME_MAX).await?))
}

/// All texts in an answer. A Cluster answers with a text a node.
fn texts_of(answer: Value) -> Vec<String> {
    match answer {
        Value::BulkString(bytes) => vec![String::from_utf8_lossy(&bytes).into_owned()],
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => vec![text],
        Value::Array(values) => values.into_iter().flat_map(texts_of).collect(),
        Value::Map(pairs) => pairs.into_iter().flat_map(|(_, value)| texts_of(value)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_server_counts_against_the_nearer_limit() {
        let text = |used: u64, max: u64| format!("# Memory\r\nused_memory:{used}\r\nmaxmemory:{max}\r\n");
        let memory = |used_bytes, bytes_max| Memory { used_bytes, bytes_max };
        assert_eq!(fullest(&[], None), memory(0, 0));
        assert_eq!(fullest(&[text(50, 0)], None), memory(50, 0));
        assert_eq!(fullest(&[text(50, 100), text(600, 1000), text(700, 0)], None), memory(600, 1000));
        assert_eq!(fullest(&[text(50, 100)], Some(60)), memory(50, 60));
        assert_eq!(fullest(&[text(50, 100)], Some(600)), memory(50, 100));
    }
}
