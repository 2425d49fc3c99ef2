//! The schedule: what is due is claimed, and some of it is made to fall due sooner.
//!
//! `lease.rs` tells what a score means.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use redis::Value;

use super::fault::Fault;
use super::keys::{PartitionKeys, member_of};
use super::lease::lease_of;
use super::link::CALL_TIME_MAX;
use super::reply;
use super::{Shared, scripts};
use crate::clock::Timestamp;
use crate::store::{
    DeliveryClaim, DeliveryKey, DueDeliveries, Error, ScheduleCursor, SchedulePage, WaitingDelivery, decode_delivery,
};

/// How long to wait for a name.
const NAMELESS_PAUSE: Duration = Duration::from_millis(100);
/// How many entries of the schedule one call of [`hasten`] looks at.
const HASTEN_STEP_ENTRIES: usize = 500;
/// How much of a partition's schedule is looked through for one page.
const LISTED_ENTRIES_MAX: usize = 100_000;
/// How many records are fetched with one command: an answer of this many large bodies is still bearable.
const FETCH_RECORDS_MAX: usize = 64;

/// The calls that claim of a partition's schedule, one at a time. A number stays until the call's answer was made use of, so
/// that the next one asks for the same again where that answer was lost.
#[derive(Default)]
pub(super) struct Calls {
    last: u64,
    open: bool,
}

struct Turn {
    partition: usize,
    claims: Vec<DeliveryClaim>,
    /// How many were moved; more than the claims when records can't be read.
    moved: usize,
    next_in: Option<Duration>,
}

/// Claims at most `max` due deliveries, from all partitions alike.
pub(super) async fn claim_due(shared: &Shared, max: usize) -> Result<DueDeliveries, Error> {
    let Some(member) = shared.membership.current() else {
        // What has no name can't hold anything; it is about to get one.
        return Ok(DueDeliveries { claims: Vec::new(), next_in: Some(NAMELESS_PAUSE) });
    };
    let count = shared.partitions.len();
    let first = shared.next_partition.fetch_add(1, Ordering::Relaxed) % count;
    // Those that come first get the remainder of the division, and each gets its turn to be first.
    let share = |place: usize| max / count + usize::from(place < max % count);
    let calls = (0..count).map(|place| claim_partition(shared, &member.name, (first + place) % count, share(place)));
    let (mut turns, mut failed): (Vec<Turn>, _) = (Vec::with_capacity(count), None);
    for turn in join_all(calls).await {
        match turn {
            Ok(turn) => turns.push(turn),
            Err(fault) => failed = Some(fault),
        }
    }
    // One master of a Cluster that is away does not hold up the partitions of the others.
    if let Some(fault) = failed
        && turns.iter().all(|turn| turn.claims.is_empty())
    {
        return Err(fault.into());
    }
    // What idle partitions left over goes to the first that has more.
    let mut left = max - turns.iter().map(|turn| turn.moved).sum::<usize>().min(max);
    for turn in &mut turns {
        if left > 0 && turn.next_in == Some(Duration::ZERO) {
            // What was claimed is not given up for what can't be.
            let Ok(more) = claim_partition(shared, &member.name, turn.partition, left).await else { break };
            left -= more.moved.min(left);
            turn.next_in = more.next_in;
            turn.claims.extend(more.claims);
        }
    }
    let next_in = turns.iter().filter_map(|turn| turn.next_in).min();
    Ok(DueDeliveries { claims: turns.into_iter().flat_map(|turn| turn.claims).collect(), next_in })
}

async fn claim_partition(shared: &Shared, name: &str, partition: usize, limit: usize) -> Result<Turn, Fault> {
    let keys = &shared.partitions[partition];
    let lease = lease_of(name, shared.options.store.lease);
    let mut calls = shared.due_calls[partition].lock().await;
    let is_repeated = calls.open;
    if !is_repeated {
        *calls = Calls { last: calls.last + 1, open: true };
    }
    let run = shared.link.run(&scripts::CLAIM_DUE, |command| {
        command.arg(2).arg(&keys.due).arg(keys.owner(name));
        command.arg(limit).arg(&lease).arg(calls.last).arg(u8::from(is_repeated));
    });
    let mut answer = reply::array(run.await?)?.into_iter();
    let mut number = || reply::number(&answer.next().unwrap_or(Value::Nil));
    let (now, fence, next) = (number()?, number()?, number()?);
    let members = answer.map(reply::text).collect::<Result<Vec<_>, _>>()?;
    let (now, fence) = (u64::try_from(now).unwrap_or(0), u64::try_from(fence).unwrap_or(0));
    let next_in = u64::try_from(next).ok().map(|next| Duration::from_millis(next.saturating_sub(now)));

    let moved = members.len();
    shared.membership.hold_deliveries(partition, members.iter().cloned(), fence, now);
    let mut claims = Vec::with_capacity(moved);
    for (member, record) in fetch(shared, partition, members).await? {
        let decoded = match record {
            Some(record) => decode_delivery(&record).map_err(|error| error.to_string()),
            None => Err("its record is missing".to_owned()),
        };
        match decoded {
            Ok(delivery) => claims.push(DeliveryClaim { delivery, fence }),
            Err(why) => drop_damaged(shared, partition, &member, fence, &why).await,
        }
    }
    calls.open = false;
    Ok(Turn { partition, claims, moved, next_in })
}

/// Fetches the records of a partition's members, in order.
async fn fetch(shared: &Shared, partition: usize, members: Vec<String>) -> Result<Vec<(String, Option<Bytes>)>, Fault> {
    let keys = &shared.partitions[partition];
    let commands: Vec<_> = members
        .chunks(FETCH_RECORDS_MAX)
        .map(|members| {
            let mut command = redis::cmd("MGET");
            for member in members {
                command.arg(keys.record(member));
            }
            command
        })
        .collect();
    let answers = try_join_all(commands.iter().map(|command| shared.link.call(command, CALL_TIME_MAX))).await?;
    let mut records = Vec::with_capacity(members.len());
    for answer in answers {
        for record in reply::array(answer)? {
            records.push(reply::bytes(record)?);
        }
    }
    if records.len() != members.len() {
        return Err(Fault::strange("a read of deliveries"));
    }
    Ok(members.into_iter().zip(records).collect())
}

/// Takes a delivery that can't be read out of the schedule, so that it does not come for ever.
async fn drop_damaged(shared: &Shared, partition: usize, member: &str, fence: u64, why: &str) {
    let keys = &shared.partitions[partition];
    tracing::error!(delivery = member, kept = %keys.damaged, why, "a delivery can't be read and is put aside");
    let run = shared.link.run(&scripts::DROP_DUE, |command| {
        command.arg(3).arg(&keys.due).arg(keys.record(member)).arg(&keys.damaged).arg(member).arg(fence);
    });
    shared.membership.release_delivery(partition, member, fence);
    // When this fails it comes again when its lease ends.
    if let Err(fault) = run.await {
        tracing::warn!(error = %Error::from(fault), "it could not be put aside yet");
    }
}

/// Hands back what this process holds under a lease.
pub(super) async fn hand_back(shared: &Shared) -> Result<(), Fault> {
    for (partition, keys) in shared.partitions.iter().enumerate() {
        for held in shared.membership.take_deliveries(partition).chunks(HASTEN_STEP_ENTRIES) {
            let run = shared.link.run(&scripts::HAND_BACK, |command| {
                command.arg(1).arg(&keys.due);
                for (member, fence) in held {
                    command.arg(member).arg(*fence);
                }
            });
            run.await?;
        }
    }
    Ok(())
}

/// Makes waiting deliveries of these subscriptions fall due now; at most `max`.
pub(super) async fn hasten(shared: &Shared, subscriptions: &[Arc<str>], max: usize) -> Result<usize, Error> {
    let mut changed = 0;
    for keys in &shared.partitions {
        let mut rank = 0;
        while rank >= 0 && changed < max {
            let run = shared.link.run(&scripts::HASTEN, |command| {
                command.arg(1).arg(&keys.due).arg(rank).arg(HASTEN_STEP_ENTRIES).arg(max - changed);
                for subscription in subscriptions {
                    command.arg(&**subscription);
                }
            });
            let answer = reply::array(run.await?)?;
            let [count, next] = &answer[..] else { return Err(Fault::strange("hasten").into()) };
            changed += usize::try_from(reply::count(count)?).unwrap_or(usize::MAX);
            rank = reply::number(next)?;
        }
    }
    Ok(changed)
}

/// The milliseconds of a score.
pub(super) fn whole(score: &str) -> Result<u64, Fault> {
    let whole = score.split('.').next().and_then(|whole| whole.parse().ok());
    whole.ok_or_else(|| Fault::strange("a read of the schedule"))
}

/// A delivery in the schedule; `None` when its record can't be read, which is told of when it is claimed.
fn waiting_delivery(shared: &Shared, place: &ScheduleCursor, record: &Bytes) -> Option<WaitingDelivery> {
    let held = place.is_lease && place.due_ms > shared.ids.now_ms();
    let delivery = decode_delivery(record).ok()?;
    Some(WaitingDelivery { due: Timestamp::from_millis(place.due_ms), held, delivery })
}

/// A delivery, if it is in the schedule.
pub(super) async fn waiting(shared: &Shared, key: &DeliveryKey) -> Result<Option<WaitingDelivery>, Fault> {
    let Some(keys) = shared.partitions.get(usize::from(key.event.partition)) else { return Ok(None) };
    let member = member_of(&key.id, &key.subscription);
    let (mut score, mut record) = (redis::cmd("ZSCORE"), redis::cmd("GET"));
    score.arg(&keys.due).arg(&member);
    record.arg(keys.record(&member));
    let (score, record) =
        tokio::try_join!(shared.link.call(&score, CALL_TIME_MAX), shared.link.call(&record, CALL_TIME_MAX))?;
    match (reply::text(score)?, reply::bytes(record)?) {
        (score, Some(record)) if !score.is_empty() => Ok(waiting_delivery(shared, &place_of(&score, member)?, &record)),
        _ => Ok(None),
    }
}

/// Places of a partition's schedule.
struct Found {
    /// Those of the subscription.
    places: Vec<ScheduleCursor>,
    /// The last place that was looked at, where more may follow.
    looked_to: Option<ScheduleCursor>,
}

/// The first of a partition's schedule, after a place in it, that are of the subscription.
async fn soonest(
    shared: &Shared,
    keys: &PartitionKeys,
    subscription: Option<&str>,
    after: Option<&ScheduleCursor>,
    limit: usize,
) -> Result<Found, Fault> {
    let mut rank = match after {
        None => 0,
        Some(after) => rank_of(shared, keys, after).await?,
    };
    let (mut places, last) = (Vec::new(), rank.saturating_add(LISTED_ENTRIES_MAX));
    let mut looked_to = None;
    loop {
        let step = step_of(shared, keys, rank).await?;
        let is_end = step.len() < HASTEN_STEP_ENTRIES;
        for (score, member) in step {
            // Something follows, whether it fits or not: who goes on will see.
            if places.len() == limit {
                return Ok(Found { places, looked_to });
            }
            let place = place_of(&score, member)?;
            if after.is_none_or(|after| place > *after) && is_of(&place.member, subscription) {
                places.push(place.clone());
            }
            looked_to = Some(place);
        }
        rank += HASTEN_STEP_ENTRIES;
        if is_end || rank >= last {
            return Ok(Found { places, looked_to: looked_to.filter(|_| !is_end) });
        }
    }
}

/// How many of a partition's schedule come before what is due when this place is.
async fn rank_of(shared: &Shared, keys: &PartitionKeys, place: &ScheduleCursor) -> Result<usize, Fault> {
    let mut command = redis::cmd("ZCOUNT");
    command.arg(&keys.due).arg("-inf").arg(format!("({}", place.due_ms));
    let count = reply::count(&shared.link.call(&command, CALL_TIME_MAX).await?)?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// A score with a half is the end of a lease.
fn place_of(score: &str, member: String) -> Result<ScheduleCursor, Fault> {
    Ok(ScheduleCursor { due_ms: whole(score)?, is_lease: score.contains('.'), member })
}

/// Some of a partition's schedule from this rank on, soonest first: score and member. Fewer than asked for at the end.
async fn step_of(shared: &Shared, keys: &PartitionKeys, rank: usize) -> Result<Vec<(String, String)>, Fault> {
    let mut command = redis::cmd("ZRANGE");
    command.arg(&keys.due).arg(rank).arg(rank + HASTEN_STEP_ENTRIES - 1).arg("WITHSCORES");
    let mut values = reply::array(shared.link.call(&command, CALL_TIME_MAX).await?)?.into_iter();
    let mut step = Vec::with_capacity(values.len() / 2);
    while let (Some(member), Some(score)) = (values.next(), values.next()) {
        step.push((reply::text(score)?, reply::text(member)?));
    }
    Ok(step)
}

fn is_of(member: &str, subscription: Option<&str>) -> bool {
    subscription.is_none() || member.split_once(':').map(|(_, subscription)| subscription) == subscription
}

/// How many are in the schedule; of one subscription or of all. A step at a time, so that no other has to wait for it.
pub(super) async fn count(shared: &Shared, subscription: Option<&str>) -> Result<u64, Error> {
    let mut count = 0;
    for keys in &shared.partitions {
        let mut rank = 0;
        loop {
            let step = step_of(shared, keys, rank).await?;
            count += step.iter().filter(|(_, member)| is_of(member, subscription)).count() as u64;
            if step.len() < HASTEN_STEP_ENTRIES {
                break;
            }
            rank += HASTEN_STEP_ENTRIES;
        }
    }
    Ok(count)
}

/// A page of the schedule, soonest first; of one subscription or of all.
pub(super) async fn listed(
    shared: &Shared,
    subscription: Option<&str>,
    after: Option<&ScheduleCursor>,
    limit: usize,
) -> Result<SchedulePage, Error> {
    let looks = shared.partitions.iter().map(|keys| soonest(shared, keys, subscription, after, limit));
    let (mut listed, mut next): (Vec<_>, Option<ScheduleCursor>) = (Vec::new(), None);
    for (partition, found) in try_join_all(looks).await?.into_iter().enumerate() {
        listed.extend(found.places.into_iter().map(|place| (place, partition)));
        // Past the place to which one partition was looked through another may have what comes later.
        next = match (next, found.looked_to) {
            (Some(next), Some(looked_to)) => Some(next.min(looked_to)),
            (next, looked_to) => next.or(looked_to),
        };
    }
    listed.sort();
    if let Some(next) = &next {
        listed.retain(|(place, _)| place <= next);
    }
    if listed.len() > limit {
        listed.truncate(limit);
        next = listed.last().map(|(place, _)| place.clone());
    }
    let fetches = (0..shared.partitions.len()).map(|partition| {
        let members = listed.iter().filter(|entry| entry.1 == partition).map(|entry| entry.0.member.clone()).collect();
        fetch(shared, partition, members)
    });
    let mut records: Vec<_> = try_join_all(fetches).await?.into_iter().map(Vec::into_iter).collect();
    let mut items = Vec::with_capacity(listed.len());
    for (place, partition) in listed {
        // A record that is gone was settled between the two reads.
        if let Some((_, Some(record))) = records[partition].next() {
            items.extend(waiting_delivery(shared, &place, &record));
        }
    }
    Ok(SchedulePage { items, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_milliseconds_and_perhaps_a_half() {
        assert_eq!(whole("1700000000000").unwrap(), 1_700_000_000_000);
        assert_eq!(whole("1700000000000.5").unwrap(), 1_700_000_000_000);
        assert!(whole("inf").is_err());
    }
}
