//! So many in so much time: a rate, and who may go by it. The limit is one instant, the time at which all that has gone is
//! paid for (the generic cell rate algorithm), so it never drifts. Pure: the time is an argument.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1.
    count: u32,
    /// In how much time.
    per: Duration,
}

impl Rate {
    /// `count` in each `per`; at least one.
    pub fn new(count: u32, per: Duration) -> Self {
        Self { count: count.max(1), per }
    }

    /// The time between two.
    pub fn interval(self) -> Duration {
        self.per / self.count
    }

    /// How many go in a second, at least one.
    pub fn in_a_second(self) -> u32 {
        let count = Duration::from_secs(1).as_nanos() / self.interval().as_nanos().max(1);
        u32::try_from(count).unwrap_or(u32::MAX).max(1)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            3_600 => "h",
            other => return write!(f, "{}/{other}s", self.count),
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// Who may go.
#[derive(Debug)]
pub struct RateLimit {
    rate: Rate,
    /// How many may go at once after a time in which none went.
    burst: u32,
    paid_at: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// A limit that nobody has used yet.
    pub fn new(rate: Rate, burst: u32) -> Self {
        Self { rate, burst: burst.max(1), paid_at: Mutex::default() }
    }

    /// The rate and the burst.
    pub fn settings(&self) -> (Rate, u32) {
        (self.rate, self.burst)
    }

    /// Lets `count` go, all or none; else says how long until they may. More than a burst go together when a whole burst
    /// may, and are paid for afterwards: a batch is never so large that it can't go at all.
    pub fn take(&self, count: u32, now: Instant) -> Result<(), Duration> {
        let interval = self.rate.interval();
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = paid_at.map_or(now, |at| at.max(now));
        let charge = interval * count.min(self.burst);
        let over = (begin + charge).saturating_duration_since(now + interval * self.burst);
        if over.is_zero() {
            *paid_at = Some(begin + interval * count);
            return Ok(());
        }
        Err(over)
    }

    /// How long until one may go; nothing is taken.
    pub fn wait(&self, now: Instant) -> Duration {
        let paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = paid_at.map_or(now, |at| at.max(now));
        (begin + self.rate.interval()).saturating_duration_since(now + self.rate.interval() * self.burst)
    }

    /// A place for one at most `patience` from now: how long to wait before it goes. `None` when there is none so soon.
    pub fn reserve(&self, now: Instant, patience: Duration) -> Option<Duration> {
        let interval = self.rate.interval();
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = paid_at.map_or(now, |at| at.max(now));
        let wait = (begin + interval).saturating_duration_since(now + interval * self.burst);
        if wait > patience {
            return None;
        }
        *paid_at = Some(begin + interval);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_goes_at_once_and_then_one_an_interval() {
        let (limit, now) = (RateLimit::new(Rate::new(5, SECOND), 5), Instant::now());
        for _ in 0..5 {
            assert_eq!(limit.take(1, now), Ok(()));
        }
        assert_eq!(limit.take(1, now), Err(SECOND / 5));
        assert_eq!(limit.wait(now), SECOND / 5);
        assert_eq!(limit.take(1, now + SECOND / 5), Ok(()), "a refusal takes nothing");
        assert_eq!(limit.take(2, now + SECOND / 5), Err(SECOND * 2 / 5));
        // A long pause saves up a burst and no more.
        let later = now + 100 * SECOND;
        assert_eq!(limit.take(5, later), Ok(()));
        assert_eq!(limit.take(1, later), Err(SECOND / 5));
    }

    #[test]
    fn a_batch_above_the_burst_goes_whole_and_is_paid_for_afterwards() {
        let (limit, now) = (RateLimit::new(Rate::new(10, SECOND), 10), Instant::now());
        assert_eq!(limit.take(1, now), Ok(()));
        assert_eq!(limit.take(100, now), Err(SECOND / 10), "only a whole burst lets it go");
        let later = now + SECOND / 10;
        assert_eq!(limit.take(100, later), Ok(()));
        assert_eq!(limit.take(1, later), Err(SECOND * 91 / 10));
    }

    #[test]
    fn over_a_long_time_no_more_go_than_the_rate_allows() {
        let (limit, begin) = (RateLimit::new(Rate::new(7, SECOND), 3), Instant::now());
        let mut random = fastrand::Rng::with_seed(7);
        let mut gone = 0;
        let mut now = begin;
        while now < begin + 1_000 * SECOND {
            now += Duration::from_micros(random.u64(..150_000));
            gone += u32::from(limit.take(1, now).is_ok());
        }
        assert!((6_900..=7_003).contains(&gone), "{gone}");
    }

    #[test]
    fn a_place_is_reserved_within_patience_only() {
        let (limit, now) = (RateLimit::new(Rate::new(5, SECOND), 1), Instant::now());
        assert_eq!(limit.reserve(now, SECOND / 4), Some(Duration::ZERO));
        assert_eq!(limit.reserve(now, SECOND / 4), Some(SECOND / 5));
        assert_eq!(limit.reserve(now, SECOND / 4), None);
        assert_eq!(limit.reserve(now + SECOND * 2 / 5, SECOND / 4), Some(Duration::ZERO));
    }

    #[test]
    fn a_rate_has_at_least_one_in_a_second_as_its_burst() {
        for (count, per, expected) in
            [(5, SECOND, 5), (90, 60 * SECOND, 1), (600, 60 * SECOND, 10), (1, 3_600 * SECOND, 1)]
        {
            assert_eq!(Rate::new(count, per).in_a_second(), expected, "{count} in {per:?}");
        }
        assert_eq!(Rate::new(5, SECOND).to_string(), "5/s");
        assert_eq!(Rate::new(90, 60 * SECOND).to_string(), "90/m");
    }
}
