//! Keeps this process's name alive, takes over from processes whose heartbeat is gone, and takes a new name when its own was lost.
//!
//! A false take-over is harmless: the other one's settlements are refused whole, and it goes on under a new name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use redis::Value;
use tokio::time::Instant;

use super::fault::Fault;
use super::keys::GROUP;
use super::link::CALL_TIME_MAX;
use super::membership::{Member, Membership};
use super::reply;
use super::server::Examiner;
use super::{Phase, Shared, layout, lease, scripts};
use crate::store::Error;

/// How many entries one script call takes over.
const TAKE_OVER_ENTRIES_MAX: usize = 500;
const JOIN_PAUSE: Duration = Duration::from_millis(100);

/// What the janitor has seen of another process.
struct Seen {
    beat: u64,
    /// How long it has been silent while this process was able to hear it.
    silent: Duration,
}

#[derive(Default)]
pub(super) struct Janitor {
    seen: HashMap<String, Seen>,
    heard: Option<Instant>,
    examiner: Examiner,
}

impl Janitor {
    /// `examiner` has looked at the servers already.
    pub(super) fn new(examiner: Examiner) -> Self {
        Self { examiner, ..Self::default() }
    }

    /// Beats, joins and cleans up until the store closes.
    pub(super) async fn run(mut self, shared: Arc<Shared>) {
        let mut phase = shared.phases();
        loop {
            let pause = if shared.membership.current().is_some() { shared.options.heartbeat } else { JOIN_PAUSE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shared.membership.until_lost() => {}
                _ = phase.wait_for(|phase| *phase != Phase::Open) => return,
            }
            if let Err(fault) = self.turn(&shared).await {
                tracing::debug!(error = %Error::from(fault), "a turn of the janitor failed and is made again");
            }
        }
    }

    /// One turn: a name if there is none, a heartbeat, and take-overs.
    pub(super) async fn turn(&mut self, shared: &Shared) -> Result<(), Fault> {
        if self.examiner.is_due(&shared.link) {
            match self.examiner.look(&shared.link, &shared.options).await {
                Ok(unfit) => shared.found_unfit(unfit),
                // It must not keep this process from beating.
                Err(fault) => tracing::debug!(error = %Error::from(fault), "Redis could not be looked at"),
            }
        }
        let member = match shared.membership.current() {
            Some(member) => member,
            None => join(shared).await?,
        };
        // Who is a consumer is read before who is alive: whoever joins beats first.
        let consumers = consumers(shared).await;
        let (now, beats) = beat(shared, &member.name).await?;
        if !owns_every_partition(shared, &member).await? {
            shared.membership.lose(member.generation);
            return Ok(());
        }
        // After a time in which Redis did not answer, the others' silence says nothing about them.
        let listened = self.heard.replace(Instant::now()).map_or(Duration::ZERO, |heard| heard.elapsed());
        let listened = listened.min(shared.options.heartbeat * 2);
        let names: HashSet<String> = consumers.iter().flatten().flatten().chain(beats.keys()).cloned().collect();
        let others = names.into_iter().filter(|name| **name != *member.name).collect();
        let dead = self.judge(others, now, &beats, listened, shared.options.dead_after);
        for name in dead {
            // One that gave its name up has handed its leases back, or goes on with them under another name.
            let is_silent = beats.get(&name) != Some(&0);
            let mut left = false;
            for (partition, names) in consumers.iter().enumerate() {
                match names {
                    Some(names) if names.contains(&name) => {
                        if is_silent && lease::is_distinct(&name, beats.keys()) {
                            free_leases(shared, partition, &name).await?;
                        }
                        left |= !take_over(shared, &member, partition, &name).await?;
                    }
                    Some(_) => {}
                    // Its node is away: the name is still needed to know that it is dead.
                    None => left = true,
                }
            }
            if !left {
                forget(shared, &name, beats.get(&name).copied()).await?;
                self.seen.remove(&name);
            }
        }
        Ok(())
    }

    /// Who is dead: silent for long enough while this process could hear, or gone by its own word.
    fn judge(
        &mut self,
        others: HashSet<String>,
        now: u64,
        beats: &HashMap<String, u64>,
        listened: Duration,
        dead_after: Duration,
    ) -> Vec<String> {
        self.seen.retain(|name, _| others.contains(name));
        let mut dead = Vec::new();
        for name in others {
            let beat = beats.get(&name).copied();
            let seen = self.seen.entry(name.clone()).or_insert_with(|| Seen {
                beat: beat.unwrap_or(0),
                silent: beat.map_or(Duration::ZERO, |beat| Duration::from_millis(now.saturating_sub(beat))),
            });
            match beat {
                Some(beat) if beat != seen.beat => *seen = Seen { beat, silent: Duration::ZERO },
                Some(_) | None => seen.silent += listened,
            }
            if beat == Some(0) || seen.silent >= dead_after {
                dead.push(name);
            }
        }
        dead
    }
}

/// Takes a new name: beats first, then becomes a consumer in every partition.
async fn join(shared: &Shared) -> Result<Member, Fault> {
    // The layout is written again when all data was deleted, so that it goes on to protect what comes.
    layout::describe(&shared.link, &shared.common, &shared.options).await?;
    let name = Membership::new_name();
    beat(shared, &name).await?;
    let joined = try_join_all(shared.partitions.iter().map(|keys| {
        shared.link.run(&scripts::JOIN, |command| {
            command.arg(2).arg(&keys.events).arg(keys.owner(&name)).arg(GROUP).arg(&*name);
        })
    }));
    joined.await?;
    shared.membership.join(name);
    shared.membership.current().ok_or_else(|| Fault::Away("the name was lost while it was taken".to_owned()))
}

/// The consumers of each partition; `None` where they can't be read.
async fn consumers(shared: &Shared) -> Vec<Option<HashSet<String>>> {
    let read = shared.partitions.iter().map(async |keys| {
        let mut command = redis::cmd("XINFO");
        command.arg("CONSUMERS").arg(&keys.events).arg(GROUP);
        let mut names = HashSet::new();
        for consumer in reply::array(shared.link.call(&command, CALL_TIME_MAX).await?)? {
            let mut fields = reply::array(consumer)?.into_iter();
            while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
                if reply::text(field)? == "name" {
                    names.insert(reply::text(value)?);
                }
            }
        }
        Ok::<_, Fault>(names)
    });
    join_all(read).await.into_iter().map(Result::ok).collect()
}

/// Beats, and gives the server's time and everybody's last beat.
async fn beat(shared: &Shared, name: &str) -> Result<(u64, HashMap<String, u64>), Fault> {
    let retired = shared.membership.retired();
    let run = shared.link.run(&scripts::HEARTBEAT, |command| {
        command.arg(1).arg(&shared.common.processes).arg(name);
        for name in &retired {
            command.arg(&**name);
        }
    });
    let mut answer = reply::array(run.await?)?.into_iter();
    let now = reply::count(&answer.next().unwrap_or(Value::Nil))?;
    let mut beats = HashMap::new();
    while let (Some(name), Some(beat)) = (answer.next(), answer.next()) {
        beats.insert(reply::text(name)?, reply::count(&beat)?);
    }
    shared.membership.told(&retired);
    shared.ids.heard(now);
    Ok((now, beats))
}

/// Whether the owner keys are all there: a process that was taken over should not go on for long.
async fn owns_every_partition(shared: &Shared, member: &Member) -> Result<bool, Fault> {
    let commands: Vec<_> = shared
        .partitions
        .iter()
        .map(|keys| {
            let mut command = redis::cmd("EXISTS");
            command.arg(keys.owner(&member.name));
            command
        })
        .collect();
    for answer in join_all(commands.iter().map(|command| shared.link.call(command, CALL_TIME_MAX))).await {
        match answer {
            Ok(answer) if reply::number(&answer)? == 0 => return Ok(false),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(true)
}

/// Takes a dead consumer's entries of a partition over. False when it could not be done to the end.
async fn take_over(shared: &Shared, member: &Member, partition: usize, dead: &str) -> Result<bool, Fault> {
    let keys = &shared.partitions[partition];
    loop {
        let run = shared.link.run(&scripts::TAKE_OVER, |command| {
            command.arg(3).arg(&keys.events).arg(keys.owner(dead)).arg(keys.owner(&member.name));
            command.arg(GROUP).arg(dead).arg(&*member.name).arg(TAKE_OVER_ENTRIES_MAX);
        });
        match reply::number(&run.await?)? {
            0 => return Ok(true),
            count if count > 0 => {
                tracing::info!(consumer = dead, partition, events = count, "took over from a process that is gone");
                shared.look_again.store(true, Ordering::Relaxed);
            }
            _ => {
                shared.membership.lose(member.generation);
                return Ok(false);
            }
        }
    }
}

/// Makes what a dead consumer holds of a partition's schedule fall due.
async fn free_leases(shared: &Shared, partition: usize, dead: &str) -> Result<(), Fault> {
    let freed = lease::free(shared, &shared.partitions[partition], dead).await?;
    if freed > 0 {
        tracing::info!(consumer = dead, partition, deliveries = freed, "freed what a process held that is gone");
    }
    Ok(())
}

async fn forget(shared: &Shared, name: &str, beat: Option<u64>) -> Result<(), Fault> {
    let Some(beat) = beat else { return Ok(()) };
    let run = shared.link.run(&scripts::FORGET, |command| {
        command.arg(1).arg(&shared.common.processes).arg(name).arg(beat);
    });
    run.await.map(|_| ())
}

/// Gives the own name up, so that what it holds is taken up at once by another process or the next start.
pub(super) async fn leave(shared: &Shared) -> Result<(), Fault> {
    let Some(member) = shared.membership.current() else { return Ok(()) };
    let left = try_join_all(shared.partitions.iter().map(|keys| {
        shared.link.run(&scripts::LEAVE, |command| {
            command.arg(2).arg(&keys.events).arg(keys.owner(&member.name)).arg(GROUP).arg(&*member.name);
        })
    }));
    let mut holds = false;
    for answer in left.await? {
        holds |= reply::number(&answer)? != 0;
    }
    let mut command = redis::cmd(if holds { "HSET" } else { "HDEL" });
    command.arg(&shared.common.processes).arg(&*member.name);
    if holds {
        command.arg(0);
    }
    shared.link.call(&command, CALL_TIME_MAX).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_process_is_dead_when_it_was_silent_while_we_listened_or_said_so() {
        let mut janitor = Janitor::default();
        let mut judge = |now: u64, beats: &[(&str, u64)], listened: Duration| {
            let beats: HashMap<_, _> = beats.iter().map(|(name, beat)| ((*name).to_owned(), *beat)).collect();
            let others = ["a", "b"].into_iter().map(str::to_owned).collect();
            let mut dead = janitor.judge(others, now, &beats, listened, 10 * SECOND);
            dead.sort();
            dead
        };
        let nobody: [&str; 0] = [];
        assert_eq!(judge(100_000, &[("a", 99_000), ("b", 98_000)], Duration::ZERO), nobody);
        assert_eq!(judge(104_000, &[("a", 103_000), ("b", 98_000)], 4 * SECOND), nobody);
        // Redis did not answer for a minute: nobody could beat, so a minute of silence counts as little as we heard.
        assert_eq!(judge(164_000, &[("a", 103_000), ("b", 98_000)], 2 * SECOND), nobody);
        assert_eq!(judge(166_000, &[("a", 165_000), ("b", 98_000)], 2 * SECOND), ["b"]);
        assert_eq!(judge(167_000, &[("a", 0), ("b", 166_000)], SECOND), ["a"]);
    }

    #[test]
    fn a_process_without_a_heartbeat_is_given_time() {
        let mut janitor = Janitor::default();
        let mut judge = |listened| janitor.judge(["a".to_owned()].into(), 5, &HashMap::new(), listened, 10 * SECOND);
        assert!(judge(4 * SECOND).is_empty());
        assert!(judge(4 * SECOND).is_empty());
        assert_eq!(judge(4 * SECOND), ["a"]);
    }

    #[test]
    fn a_process_that_was_silent_before_we_started_is_dead_at_once() {
        let beats = HashMap::from([("a".to_owned(), 1_000)]);
        let dead = Janitor::default().judge(["a".to_owned()].into(), 60_000, &beats, Duration::ZERO, 10 * SECOND);
        assert_eq!(dead, ["a"]);
    }
}
