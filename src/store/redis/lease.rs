//! Who has claimed what of the schedule, told by the scores alone.
//!
//! A score is a time in milliseconds. A whole one, and the delivery waits and falls due then; one with a fraction, and it
//! is claimed, the lease ends then, and the fraction stands for the consumer. So neither a claim nor its holder needs a
//! key of its own, the score is the fence, and what a dead process holds can be found and freed.

use std::time::Duration;

use super::fault::Fault;
use super::keys::PartitionKeys;
use super::{Shared, reply, scripts};
use crate::delivery::whole_millis;
use crate::store::partition_of;

/// A score is exact to this part of a millisecond until the year 2109, so there are one fewer holders. The scripts know the number too.
const PARTS: u16 = 2048;
/// How many entries of the schedule one call looks at.
const STEP_ENTRIES: usize = 500;

/// What stands for a consumer. Two may share one: then the claims of the one that dies wait for the ends of their leases.
fn holder(name: &str) -> u16 {
    1 + partition_of(name, PARTS - 1)
}

/// A lease of this consumer, as the scripts add it to the time: milliseconds, and the fraction.
pub(super) fn lease_of(name: &str, lease: Duration) -> String {
    format!("{}.{:011}", whole_millis(lease), u64::from(holder(name)) * 100_000_000_000 / u64::from(PARTS))
}

/// When the lease of a claim ends. Fences are scores in parts of a millisecond.
pub(super) fn ends_ms(fence: u64) -> u64 {
    fence / u64::from(PARTS)
}

/// Whether what a dead consumer holds can be told from what the living hold.
pub(super) fn is_distinct<'a>(dead: &str, mut living: impl Iterator<Item = &'a String>) -> bool {
    living.all(|name| *name == dead || holder(name) != holder(dead))
}

/// Makes what a dead consumer holds of a partition fall due. Returns how many.
pub(super) async fn free(shared: &Shared, keys: &PartitionKeys, dead: &str) -> Result<u64, Fault> {
    // Another router may have been told of a longer timeout than this one.
    let lease = whole_millis(shared.options.store.lease * 2);
    let (mut freed, mut rank) = (0, -1);
    loop {
        let run = shared.link.run(&scripts::FREE_LEASES, |command| {
            command.arg(1).arg(&keys.due).arg(holder(dead)).arg(rank).arg(STEP_ENTRIES).arg(lease);
        });
        let answer = reply::array(run.await?)?;
        let [count, next] = &answer[..] else { return Err(Fault::strange("a look for leases")) };
        freed += reply::count(count)?;
        rank = reply::number(next)?;
        if rank < 0 {
            return Ok(freed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fraction_of_a_lease_is_its_holder_exactly() {
        for n in 0..5_000 {
            let name = format!("router-{n}");
            let lease: f64 = lease_of(&name, Duration::from_secs(60)).parse().unwrap();
            let score = 1_764_066_907_123.0 + lease;
            assert_eq!((score - score.floor()) * f64::from(PARTS), f64::from(holder(&name)));
            assert_eq!(ends_ms((score * f64::from(PARTS)) as u64), 1_764_066_967_123);
        }
    }

    #[test]
    fn two_that_share_a_holder_are_not_told_apart() {
        let names: Vec<_> = (0..5_000).map(|n| format!("router-{n}")).collect();
        let twin = names[1..].iter().find(|name| holder(name) == holder(&names[0])).unwrap();
        assert!(!is_distinct(&names[0], [twin].into_iter()));
        assert!(is_distinct(&names[0], [&names[0]].into_iter()));
    }
}
