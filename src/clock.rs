//! Time as the router sees it: the only place that reads the wall clock.
//!
//! The clock follows tokio's, so a test on paused time moves it, and a step of the machine's
//! clock while the router runs moves no retry: for that the wall clock is read once, at start. What others
//! compare with clocks of their own, a signature's time above all, follows the machine's clock.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The instant `milliseconds` after the Unix epoch.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, as `webhook-timestamp` wants them.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This instant moved `by` into the future; it never overflows.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds, for example `2025-01-15T10:30:00.000Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{time:.3}")
    }
}

/// The router's clock: the wall clock at start, and tokio's clock from there.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Timestamp,
    origin: tokio::time::Instant,
    /// Whether there is a machine's clock behind it; in tests there may be none.
    is_real: bool,
}

impl Clock {
    /// A clock that starts at the machine's time. Call it within a tokio runtime when time is paused.
    pub fn system() -> Self {
        Self { is_real: true, ..Self::starting_at(machine_time()) }
    }

    /// A clock that starts at `started`, for tests.
    pub fn starting_at(started: Timestamp) -> Self {
        Self { started, origin: tokio::time::Instant::now(), is_real: false }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.started.plus(self.origin.elapsed())
    }

    /// What the machine's clock says now, for those who compare it with their own. Unlike [`Clock::now`] it makes every
    /// step of that clock, and counts the time in which the machine was suspended.
    pub fn of_the_machine(&self) -> Timestamp {
        if self.is_real { machine_time() } else { self.now() }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
fn machine_time() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc_3339_with_milliseconds() {
        assert_eq!(Timestamp::from_millis(1_736_937_000_007).to_string(), "2025-01-15T10:30:00.007Z");
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_follows_paused_time() {
        let clock = Clock::starting_at(Timestamp::from_millis(5));
        tokio::time::advance(Duration::from_secs(86_400)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(86_400_005));
        assert_eq!(clock.of_the_machine(), clock.now(), "without a machine behind it there is one time");
    }

    #[tokio::test(start_paused = true)]
    async fn the_machines_time_is_not_moved_by_paused_time() {
        let clock = Clock::system();
        let before = clock.of_the_machine();
        tokio::time::advance(Duration::from_secs(86_400)).await;
        assert!(clock.of_the_machine().since(before) < Duration::from_secs(3_600));
        assert!(clock.now().since(before) >= Duration::from_secs(86_399));
    }
}
