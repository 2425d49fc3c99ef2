//! The look through this consumer's own pending list, for entries that it does not hold.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Shared;
use super::claim::{Claimer, drop_damaged};
use super::fault::Fault;
use super::keys::GROUP;
use super::link::CALL_TIME_MAX;
use super::membership::Member;
use super::reply::{self, StreamId};

const PENDING_PAGE_ENTRIES: usize = 1000;

impl Claimer {
    /// Looks through the own pending list for what nobody holds. Meanwhile no call claims what it stores.
    pub(super) async fn look(&mut self, shared: &Shared, member: &Member, max: usize) -> Result<(), Fault> {
        let _pause = shared.handover.pause().await;
        shared.look_again.store(false, Ordering::Relaxed);
        // Until it has ended well, so that it is done again when this future is dropped.
        self.unsure = true;
        let complete = self.take_up_pending(shared, member, max).await?;
        self.unsure = !complete;
        self.looked = Instant::now();
        Ok(())
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
            // Nothing becomes held meanwhile: one caller at a time claims, and calls that claim what they store are paused.
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
                None => drop_damaged(&self.link, shared, partition, *id, "the entry was deleted").await,
            }
        }
        Ok(())
    }
}
