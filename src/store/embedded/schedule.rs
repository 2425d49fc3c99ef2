//! Who holds which delivery, and until when. Claims are in memory only: there is one process, and
//! what it held when it ended falls due again when it starts.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// The claims on rows of the schedule, and what is known of the rows that nobody holds. Times are
/// milliseconds since the epoch.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Rows in the schedule.
    count: u64,
    /// No row that nobody holds falls due before this; none at all when `None`.
    earliest: Option<i64>,
    claims: HashMap<u64, Claim>,
    fence_of: HashMap<i64, u64>,
    /// When leases end, soonest first; those of claims that are being settled are left out.
    leases: BTreeSet<(i64, u64)>,
    next_fence: u64,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    key: i64,
    until: i64,
    /// Its settlement is being written: its lease no longer ends.
    settling: bool,
}

impl Schedule {
    /// The schedule of a store that was just opened: nothing is held. Fences of earlier starts are never
    /// given out again.
    pub(super) fn new(count: u64, earliest: Option<i64>, starts: u64) -> Self {
        Self {
            count,
            earliest,
            claims: HashMap::new(),
            fence_of: HashMap::new(),
            leases: BTreeSet::new(),
            next_fence: starts << 40,
        }
    }

    /// Claims a row until then. A claim that was there is lost.
    pub(super) fn claim(&mut self, key: i64, until: i64) -> u64 {
        self.release(key);
        let fence = self.next_fence;
        self.next_fence += 1;
        self.claims.insert(fence, Claim { key, until, settling: false });
        self.fence_of.insert(key, fence);
        self.leases.insert((until, fence));
        fence
    }

    /// Whether a row is held: by a lease that has not ended, or by a settlement under way.
    pub(super) fn is_held(&self, key: i64, now: i64) -> bool {
        let claim = self.fence_of.get(&key).and_then(|fence| self.claims.get(fence));
        claim.is_some_and(|claim| claim.settling || claim.until > now)
    }

    /// How many rows are held, or were until their lease ended.
    pub(super) fn claimed(&self) -> usize {
        self.claims.len()
    }

    /// The rows that are held and until when, whatever the time.
    pub(super) fn held_until(&self) -> HashMap<i64, i64> {
        self.claims.values().map(|claim| (claim.key, claim.until)).collect()
    }

    /// Keeps a claim from ending while its settlement is written; its row, or `None` when the claim was lost.
    pub(super) fn begin_settling(&mut self, fence: u64) -> Option<i64> {
        let claim = self.claims.get_mut(&fence)?;
        claim.settling = true;
        self.leases.remove(&(claim.until, fence));
        Some(claim.key)
    }

    /// Takes away the claim on a row, if there is one.
    pub(super) fn release(&mut self, key: i64) {
        if let Some(fence) = self.fence_of.remove(&key)
            && let Some(claim) = self.claims.remove(&fence)
        {
            self.leases.remove(&(claim.until, fence));
        }
    }

    /// Takes note of a row that falls due then and that nobody holds.
    pub(super) fn waits(&mut self, due: i64) {
        self.earliest = Some(self.earliest.map_or(due, |earliest| earliest.min(due)));
    }

    /// Takes note of what a look through the rows has shown: when the first that nobody holds falls due.
    pub(super) fn seen(&mut self, earliest: Option<i64>) {
        self.earliest = earliest;
    }

    /// Holds a row that is being written, until it is claimed or released.
    pub(super) fn hold(&mut self, key: i64) {
        let fence = self.claim(key, i64::MAX);
        self.begin_settling(fence);
    }

    /// Rows came and went.
    pub(super) fn changed(&mut self, added: u64, removed: u64) {
        self.count = (self.count + added).saturating_sub(removed);
    }

    /// Rows were counted again, because whether a commit took place was unknown; they may fall due any time.
    pub(super) fn recounted(&mut self, count: u64) {
        self.count = count;
        self.earliest = Some(i64::MIN);
    }

    /// Rows in the schedule.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// When the next row can be claimed: it falls due, or its lease ends.
    fn next(&self) -> Option<i64> {
        let lease_ends = self.leases.first().map(|lease| lease.0);
        [self.earliest, lease_ends].into_iter().flatten().min()
    }

    /// Whether a row may be due; when not, no look through the rows is needed.
    pub(super) fn may_be_due(&self, now: i64) -> bool {
        self.next().is_some_and(|next| next <= now)
    }

    /// How long until a row can be claimed.
    pub(super) fn next_in(&self, now: i64) -> Option<Duration> {
        self.next().map(|next| Duration::from_millis(next.saturating_sub(now).max(0).unsigned_abs()))
    }

    /// How long the row most overdue has been due, in milliseconds.
    pub(super) fn overdue_ms(&self, now: i64) -> u64 {
        self.next().map_or(0, |next| now.saturating_sub(next).max(0).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_holds_until_its_lease_ends() {
        let mut schedule = Schedule::new(1, Some(0), 1);
        assert!(schedule.may_be_due(10));
        let fence = schedule.claim(7, 100);
        schedule.seen(None);
        assert!(schedule.is_held(7, 99) && !schedule.may_be_due(99));
        assert_eq!(schedule.next_in(40), Some(Duration::from_millis(60)));
        assert!(!schedule.is_held(7, 100) && schedule.may_be_due(100));
        assert_eq!(schedule.overdue_ms(130), 30);
        // Until somebody else claims it, its holder may still settle it.
        let newer = schedule.claim(7, 200);
        assert_eq!(schedule.begin_settling(fence), None);
        assert_eq!(schedule.begin_settling(newer), Some(7));
        assert!(schedule.is_held(7, 1_000) && schedule.next_in(0).is_none(), "a settlement under way holds it");
        schedule.release(7);
        assert_eq!((schedule.claimed(), schedule.leases.len()), (0, 0));
    }

    #[test]
    fn the_next_to_be_claimed_is_the_earliest_of_waits_and_leases() {
        let mut schedule = Schedule::new(0, None, 1);
        assert_eq!((schedule.next_in(5), schedule.overdue_ms(5)), (None, 0));
        schedule.waits(500);
        schedule.waits(900);
        assert_eq!(schedule.next_in(100), Some(Duration::from_millis(400)));
        schedule.claim(1, 300);
        assert_eq!(schedule.next_in(100), Some(Duration::from_millis(200)));
        assert_eq!(schedule.next_in(700), Some(Duration::ZERO));
        assert_eq!(schedule.overdue_ms(700), 400);
    }

    #[test]
    fn fences_of_earlier_starts_are_unknown() {
        let old = Schedule::new(1, None, 1).claim(7, 100);
        let mut schedule = Schedule::new(1, None, 2);
        schedule.claim(7, 100);
        assert_eq!(schedule.begin_settling(old), None);
    }
}
