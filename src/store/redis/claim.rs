//! Events out of the streams, as claims: new ones, and those in this consumer's pending list that it does not hold.
//!
//! The second kind appears when an answer was lost, when a claiming future was dropped, when a dead process was
//! taken over, and when Redis went back in time. Reads have a connection of their own, since a blocking read
//! holds up everything behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Cmd;
use tokio::time::Instant;

use super::fault::Fault;
use super::keys::GROUP;
use super::link::{CALL_TIME_MAX, Link};
use super::membership::Member;
use super::reply::{self, Entry, StreamId};
use super::{Phase, Shared, scripts};
use crate::event::Position;
use crate::store::{Error, EventClaim, decode_event};

/// How long one read blocks; a longer wait is several reads, so that what needs a look gets it.
const BLOCK_TIME_MAX: Duration = Duration::from_millis(500);
/// How often the own pending list is looked through without a reason.
const PENDING_LOOK_EVERY: Duration = Duration::from_secs(5);
const PENDING_PAGE_ENTRIES: usize = 1000;
/// How often a Cluster is asked, where a blocking read would need a connection a slot.
const POLL_MIN: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(20);
/// After a failed read the caller is told so no sooner than this, so that a loop over `claim_events` does not spin.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// About how many bytes of records one read brings: Redis takes a limit in entries only.
const READ_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How large a record is taken to be before one was seen.
const RECORD_BYTES_AT_FIRST: usize = 1024 * 1024;

/// How many entries to read at a time. It follows the largest records seen of late: up at once, down by half a read.
struct ReadSize {
    record_bytes: usize,
}

impl ReadSize {
    /// How many entries of `max`; one at least.
    fn entries(&self, max: usize) -> usize {
        (READ_BYTES_MAX / self.record_bytes).clamp(1, max.max(1))
    }

    /// A read brought records, the largest of this size.
    fn saw(&mut self, largest_bytes: usize) {
        self.record_bytes = largest_bytes.max(self.record_bytes / 2).max(1);
    }
}

/// What claiming needs; one caller at a time has it.
pub(super) struct Claimer {
    link: Link,
    /// A read was begun and its answer not seen: there may be entries in the pending list that nobody holds.
    unsure: bool,
    looked: Instant,
    size: ReadSize,
    /// Held, and not handed out yet: a read gives up to as many as asked for from each partition.
    ready: VecDeque<EventClaim>,
}

impl Claimer {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            unsure: true,
            looked: Instant::now(),
            size: ReadSize { record_bytes: RECORD_BYTES_AT_FIRST },
            ready: VecDeque::new(),
        }
    }

    /// Claims at most `max` events, waiting at most until `deadline` for the first.
    pub(super) async fn claim(
        &mut self,
        shared: &Shared,
        max: usize,
        deadline: Instant,
    ) -> Result<Vec<EventClaim>, Error> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let mut poll = POLL_MIN;
        loop {
            if shared.phase() != Phase::Open {
                return Err(Error::Closed);
            }
            let wait = deadline.saturating_duration_since(Instant::now());
            let Some(member) = shared.membership.wait_for_name(wait.max(POLL_MIN)).await else {
                if wait.is_zero() {
                    return Ok(Vec::new());
                }
                continue;
            };
            self.ready.retain(|claim| claim.fence == member.generation);
            if self.ready.is_empty()
                && let Err(fault) = self.read(shared, &member, max, wait).await
            {
                self.recover(shared, &member, fault, wait).await?;
            }
            if !self.ready.is_empty() {
                let count = max.min(self.ready.len());
                return Ok(self.ready.drain(..count).collect());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            if self.link.is_cluster() {
                tokio::time::sleep(poll.min(left)).await;
                poll = (poll * 2).min(POLL_MAX);
            }
        }
    }

    /// Ends a read that was dropped on its way, so that nothing is claimed from here on.
    pub(super) async fn stop(&mut self) {
        // Answers come in order: once this one is here, the read before it has ended.
        let _ = self.link.call(&redis::cmd("PING"), CALL_TIME_MAX).await;
        self.link.disconnect();
    }

    async fn read(&mut self, shared: &Shared, member: &Member, max: usize, wait: Duration) -> Result<(), Fault> {
        let max = self.size.entries(max);
        if self.unsure || shared.look_again.swap(false, Ordering::Relaxed) || self.looked.elapsed() > PENDING_LOOK_EVERY
        {
            // Until it has ended well, so that it is done again when this future is dropped.
            self.unsure = true;
            let complete = self.take_up_pending(shared, member, max).await?;
            self.unsure = !complete;
            self.looked = Instant::now();
            if !self.ready.is_empty() {
                return Ok(());
            }
        }
        self.unsure = true;
        let streams = if self.link.is_cluster() {
            self.poll_streams(shared, member, max).await?
        } else {
            self.wait_for_streams(shared, member, max, wait).await?
        };
        self.size_up(streams.iter().flat_map(|(_, entries)| entries));
        for (key, entries) in streams {
            let partition = *shared.by_events_key.get(&key).ok_or_else(|| Fault::strange("a read of the streams"))?;
            for entry in entries {
                self.hold(shared, member, partition, entry).await;
            }
        }
        self.unsure = false;
        Ok(())
    }

    /// One blocking read of all partitions.
    async fn wait_for_streams(
        &self,
        shared: &Shared,
        member: &Member,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(String, Vec<Entry>)>, Fault> {
        let block = wait.min(BLOCK_TIME_MAX);
        let mut command =
            read_command(member, max.div_ceil(shared.partitions.len()), (!block.is_zero()).then_some(block));
        command.arg("STREAMS");
        for keys in &shared.partitions {
            command.arg(&keys.events);
        }
        for _ in &shared.partitions {
            command.arg(">");
        }
        // A read that was dropped may still block in front of this one.
        let limit = block + BLOCK_TIME_MAX + CALL_TIME_MAX;
        let read = self.link.call(&command, limit);
        let mut phase = shared.phases();
        tokio::select! {
            answer = read => reply::streams(answer?),
            _ = phase.wait_for(|phase| *phase != Phase::Open) => Ok(Vec::new()),
        }
    }

    /// One read of each partition that does not wait.
    async fn poll_streams(
        &self,
        shared: &Shared,
        member: &Member,
        max: usize,
    ) -> Result<Vec<(String, Vec<Entry>)>, Fault> {
        let commands: Vec<_> = shared
            .partitions
            .iter()
            .map(|keys| {
                let mut command = read_command(member, max.div_ceil(shared.partitions.len()), None);
                command.arg("STREAMS").arg(&keys.events).arg(">");
                command
            })
            .collect();
        let answers = join_all(commands.iter().map(|command| self.link.call(command, CALL_TIME_MAX))).await;
        let mut streams = Vec::new();
        let mut failed = None;
        for answer in answers {
            match answer.and_then(reply::streams) {
                Ok(read) => streams.extend(read),
                Err(fault) => failed = Some(fault),
            }
        }
        match failed {
            // One master that is away does not hold up the partitions of the others.
            Some(fault) if streams.is_empty() => Err(fault),
            Some(_) => {
                shared.look_again.store(true, Ordering::Relaxed);
                Ok(streams)
            }
            None => Ok(streams),
        }
    }

    /// Takes up entries of the own pending list that are not held. False when there may be more.
    async fn take_up_pending(&mut self, shared: &Shared, member: &Member, max: usize) -> Result<bool, Fault> {
        let mut complete = true;
        for partition in 0..shared.partitions.len() {
            match self.take_up_partition(shared, member, max, partition).await {
                Ok(done) => complete &= done,
                // One master that is away does not hold up the partitions of the others.
                Err(Fault::Away(_)) if self.link.is_cluster() => complete = false,
                Err(fault) => return Err(fault),
            }
            if self.ready.len() >= max {
                return Ok(false);
            }
        }
        Ok(complete)
    }

    async fn take_up_partition(
        &mut self,
        shared: &Shared,
        member: &Member,
        max: usize,
        partition: usize,
    ) -> Result<bool, Fault> {
        let keys = &shared.partitions[partition];
        let mut from = "-".to_owned();
        loop {
            // What is held is noted before the look: an entry that is settled meanwhile is not taken for a lost one.
            // Nothing becomes held meanwhile, since claiming is done by one caller at a time.
            let held = shared.membership.held_events(partition);
            let mut command = redis::cmd("XPENDING");
            command.arg(&keys.events).arg(GROUP).arg(&from).arg("+").arg(PENDING_PAGE_ENTRIES).arg(&*member.name);
            let page = reply::array(self.link.call(&command, CALL_TIME_MAX).await?)?;
            let mut ids = Vec::with_capacity(page.len());
            for pending in page {
                let id = reply::array(pending)?.into_iter().next().unwrap_or(redis::Value::Nil);
                let id = reply::bytes(id)?.as_deref().and_then(StreamId::parse);
                ids.push(id.ok_or_else(|| Fault::strange("a look at the pending list"))?);
            }
            let (count, last) = (ids.len(), ids.last().copied());
            ids.retain(|id| !held.contains(id));
            for ids in ids.chunks(max.clamp(1, PENDING_PAGE_ENTRIES)) {
                self.fetch(shared, member, partition, ids).await?;
                if self.ready.len() >= max {
                    return Ok(false);
                }
            }
            match last {
                Some(last) if count == PENDING_PAGE_ENTRIES => from = format!("({last}"),
                _ => return Ok(true),
            }
        }
    }

    /// Reads pending entries and holds them.
    async fn fetch(
        &mut self,
        shared: &Shared,
        member: &Member,
        partition: usize,
        ids: &[StreamId],
    ) -> Result<(), Fault> {
        let keys = &shared.partitions[partition];
        let commands: Vec<_> = ids
            .iter()
            .map(|id| {
                let mut command = redis::cmd("XRANGE");
                command.arg(&keys.events).arg(id.to_string()).arg(id.to_string());
                command
            })
            .collect();
        let answers = join_all(commands.iter().map(|command| self.link.call(command, CALL_TIME_MAX))).await;
        let partition = u16::try_from(partition).expect("the partitions are counted in a u16");
        let found = answers.into_iter().map(|answer| reply::entries(answer?).map(|mut found| found.pop()));
        let found = found.collect::<Result<Vec<_>, Fault>>()?;
        self.size_up(found.iter().flatten());
        for (id, entry) in ids.iter().zip(found) {
            match entry {
                Some(entry) => self.hold(shared, member, partition, entry).await,
                // It was deleted by hand: nothing is left to do for it.
                None => self.drop_damaged(shared, partition, *id, "the entry was deleted").await,
            }
        }
        Ok(())
    }

    /// Notes how large the records of a read are.
    fn size_up<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) {
        let sizes = entries.map(|entry| entry.fields.iter().map(|(_, value)| value.len()).sum());
        if let Some(largest) = sizes.max() {
            self.size.saw(largest);
        }
    }

    async fn hold(&mut self, shared: &Shared, member: &Member, partition: u16, entry: Entry) {
        let id = entry.id;
        let record = entry.field(b"e").unwrap_or_default();
        match decode_event(&record) {
            Ok(event) => {
                // Held already: Redis went back in time and gave it again. Its settlement is on its way.
                if shared.membership.hold_event(member.generation, partition, id) {
                    let position = Position { partition, major: id.milliseconds, minor: id.sequence };
                    let fence = member.generation;
                    self.ready.push_back(EventClaim { event: Arc::new(event), position, fence });
                }
            }
            Err(error) => self.drop_damaged(shared, partition, id, &error.to_string()).await,
        }
    }

    /// Takes an entry that can't be read out of the way, so that it does not come for ever.
    async fn drop_damaged(&self, shared: &Shared, partition: u16, id: StreamId, why: &str) {
        let keys = &shared.partitions[usize::from(partition)];
        tracing::error!(stream = %keys.events, entry = %id, kept = %keys.damaged, why, "an event can't be read and is put aside");
        let run = self.link.run(&scripts::DROP_EVENT, |command| {
            command.arg(2).arg(&keys.events).arg(&keys.damaged).arg(GROUP).arg(id.to_string());
        });
        // When this fails the entry comes again with the next look at the pending list.
        if let Err(fault) = run.await {
            tracing::warn!(error = %Error::from(fault), "it could not be put aside yet");
        }
    }

    /// Does what a failed read asks for; an error when the caller should know.
    async fn recover(&mut self, shared: &Shared, member: &Member, fault: Fault, wait: Duration) -> Result<(), Error> {
        match fault {
            // The streams are gone, and the owner keys with them: the janitor makes both anew, under a new name.
            Fault::NoGroup => {
                shared.membership.lose(member.generation);
                Ok(())
            }
            fault @ (Fault::Away(_)
            | Fault::Full(_)
            | Fault::Unconfirmed(_)
            | Fault::NoScript
            | Fault::Denied(_)
            | Fault::Refused(_)) => {
                tokio::time::sleep(wait.min(FAILURE_PAUSE)).await;
                Err(fault.into())
            }
        }
    }
}

fn read_command(member: &Member, count: usize, block: Option<Duration>) -> Cmd {
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(GROUP).arg(&*member.name).arg("COUNT").arg(count.max(1));
    if let Some(block) = block {
        // 0 would be for ever.
        command.arg("BLOCK").arg(crate::delivery::whole_millis(block));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_brings_few_large_records_or_many_small_ones() {
        let mut size = ReadSize { record_bytes: RECORD_BYTES_AT_FIRST };
        assert_eq!(size.entries(1200), 8);
        assert_eq!(size.entries(5), 5);
        for _ in 0..100 {
            size.saw(500);
        }
        assert_eq!(size.entries(1200), 1200);
        size.saw(4 * 1024 * 1024);
        assert_eq!(size.entries(1200), 2);
        size.saw(500);
        assert_eq!(size.entries(1200), 4, "down by half");
        size.saw(100 * 1024 * 1024);
        assert_eq!(size.entries(1200), 1);
    }
}
