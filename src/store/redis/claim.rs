//! Events as claims: those that the calls which store them hand over, new ones out of the streams, and those in this
//! consumer's pending list that it does not hold.
//!
//! The last kind appears when an answer was lost, when a claiming future was dropped, when a dead process was
//! taken over, and when Redis went back in time. Reads have a connection of their own, since a blocking read
//! holds up everything behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use redis::Cmd;
use tokio::time::Instant;

use super::fault::Fault;
use super::handover::Handover;
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

type Streams = Vec<(String, Vec<Entry>)>;

/// What claiming needs; one caller at a time has it.
pub(super) struct Claimer {
    pub(super) link: Arc<Link>,
    /// A blocking read that goes on from call to call, and who it is for.
    reading: Option<(Member, BoxFuture<'static, Result<Streams, Fault>>)>,
    /// A look or a read was cut off: there may be entries in the pending list that nobody holds.
    pub(super) unsure: bool,
    pub(super) looked: Instant,
    size: ReadSize,
    /// Held, and not handed out yet: a read gives up to as many as asked for from each partition.
    pub(super) ready: VecDeque<EventClaim>,
}

impl Claimer {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link: Arc::new(link),
            reading: None,
            unsure: true,
            looked: Instant::now(),
            size: ReadSize { record_bytes: RECORD_BYTES_AT_FIRST },
            ready: VecDeque::new(),
        }
    }

    /// Claims at most `max` events, waiting at most until `deadline` for the first.
    ///
    /// What the caller has room for beyond what it gets may be claimed for it by the calls that store events: it gets those
    /// the next time. Dropping the future ends that.
    pub(super) async fn claim(
        &mut self,
        shared: &Shared,
        max: usize,
        deadline: Instant,
    ) -> Result<Vec<EventClaim>, Error> {
        let mut asking = Asking { handover: &shared.handover, again: false };
        let claims = self.claim_within(shared, max, deadline).await?;
        asking.again = true;
        Ok(claims)
    }

    async fn claim_within(&mut self, shared: &Shared, max: usize, deadline: Instant) -> Result<Vec<EventClaim>, Error> {
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
            if self.ready.is_empty() {
                let handed_over = shared.handover.take(max, &shared.membership);
                if !handed_over.is_empty() {
                    return Ok(handed_over);
                }
                shared.handover.want(max, &shared.membership);
                if let Err(fault) = self.read(shared, &member, max, wait).await {
                    self.recover(shared, &member, fault, wait).await?;
                }
            }
            if !self.ready.is_empty() {
                let count = max.min(self.ready.len());
                return Ok(self.ready.drain(..count).collect());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && self.reading.is_none() {
                return Ok(Vec::new());
            }
            if self.link.is_cluster() {
                let _ = tokio::time::timeout(poll.min(left), shared.handover.arrived()).await;
                poll = (poll * 2).min(POLL_MAX);
            }
        }
    }

    /// Ends a read that was dropped on its way, so that nothing is claimed from here on.
    pub(super) async fn stop(&mut self) {
        self.reading = None;
        // Answers come in order: once this one is here, the read before it has ended.
        let _ = self.link.call(&redis::cmd("PING"), CALL_TIME_MAX).await;
        self.link.disconnect();
    }

    /// Reads until there is something ready or handed over, or until a read brought nothing.
    async fn read(&mut self, shared: &Shared, member: &Member, max: usize, wait: Duration) -> Result<(), Fault> {
        let max = self.size.entries(max);
        let is_due =
            self.unsure || shared.look_again.load(Ordering::Relaxed) || self.looked.elapsed() > PENDING_LOOK_EVERY;
        // What a read under way brings would be taken for lost.
        if is_due && self.reading.is_none() {
            self.look(shared, member, max).await?;
            if !self.ready.is_empty() {
                return Ok(());
            }
        }
        let (member, streams) = if self.link.is_cluster() {
            self.unsure = true;
            (member.clone(), poll_streams(&self.link, shared, member, max).await?)
        } else {
            let (_, reading) = self.reading.get_or_insert_with(|| {
                let read = wait_for_streams(Arc::clone(&self.link), read_of_all(shared, member, max, wait), wait);
                (member.clone(), read.boxed())
            });
            let mut phase = shared.phases();
            let answer = tokio::select! {
                answer = reading => answer,
                () = shared.handover.arrived() => return Ok(()),
                _ = phase.wait_for(|phase| *phase != Phase::Open) => return Ok(()),
            };
            self.unsure = true;
            let member = self.reading.take().map_or_else(|| member.clone(), |(member, _)| member);
            (member, answer?)
        };
        self.size_up(streams.iter().flat_map(|(_, entries)| entries));
        for (key, entries) in streams {
            let partition = *shared.by_events_key.get(&key).ok_or_else(|| Fault::strange("a read of the streams"))?;
            for entry in entries {
                self.hold(shared, &member, partition, entry).await;
            }
        }
        self.unsure = false;
        Ok(())
    }

    /// Notes how large the records of a read are.
    pub(super) fn size_up<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) {
        let sizes = entries.map(|entry| entry.fields.iter().map(|(_, value)| value.len()).sum());
        if let Some(largest) = sizes.max() {
            self.size.saw(largest);
        }
    }

    pub(super) async fn hold(&mut self, shared: &Shared, member: &Member, partition: u16, entry: Entry) {
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
            Err(error) => drop_damaged(&self.link, shared, partition, id, &error.to_string()).await,
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

/// The read of all partitions, for at most `wait`.
fn read_of_all(shared: &Shared, member: &Member, max: usize, wait: Duration) -> Cmd {
    let block = wait.min(BLOCK_TIME_MAX);
    let mut command = read_command(member, max.div_ceil(shared.partitions.len()), (!block.is_zero()).then_some(block));
    command.arg("STREAMS");
    for keys in &shared.partitions {
        command.arg(&keys.events);
    }
    for _ in &shared.partitions {
        command.arg(">");
    }
    command
}

async fn wait_for_streams(link: Arc<Link>, command: Cmd, wait: Duration) -> Result<Streams, Fault> {
    // A read that was dropped may still block in front of this one.
    let limit = wait.min(BLOCK_TIME_MAX) + BLOCK_TIME_MAX + CALL_TIME_MAX;
    reply::streams(link.call(&command, limit).await?)
}

/// One read of each partition that does not wait.
async fn poll_streams(link: &Link, shared: &Shared, member: &Member, max: usize) -> Result<Streams, Fault> {
    let commands: Vec<_> = shared
        .partitions
        .iter()
        .map(|keys| {
            let mut command = read_command(member, max.div_ceil(shared.partitions.len()), None);
            command.arg("STREAMS").arg(&keys.events).arg(">");
            command
        })
        .collect();
    let answers = join_all(commands.iter().map(|command| link.call(command, CALL_TIME_MAX))).await;
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

/// Takes an entry that can't be read out of the way, so that it does not come for ever.
pub(super) async fn drop_damaged(link: &Link, shared: &Shared, partition: u16, id: StreamId, why: &str) {
    let keys = &shared.partitions[usize::from(partition)];
    tracing::error!(stream = %keys.events, entry = %id, kept = %keys.damaged, why, "an event can't be read and is put aside");
    let run = link.run(&scripts::DROP_EVENT, |command| {
        command.arg(2).arg(&keys.events).arg(&keys.damaged).arg(GROUP).arg(id.to_string());
    });
    // When this fails the entry comes again with the next look at the pending list.
    if let Err(fault) = run.await {
        tracing::warn!(error = %Error::from(fault), "it could not be put aside yet");
    }
}

/// Who asks for events; when it ends for good, no call claims any for it.
struct Asking<'handover> {
    handover: &'handover Handover,
    again: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.again {
            self.handover.want_no_more();
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
