//! Stops calling a plugin that keeps breaking, for one config of it: deliveries wait in the schedule, and now and then one probes.
//!
//! Only faults count: a plugin that says `error` works. Pure: the time is an argument.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Faults in a row that open it. Fewer would let one unlucky event hold up the others.
const FAULTS_MAX: u32 = 5;
/// How long it stays open at first; each failed probe doubles that.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A probe that has not ended by then was lost on its way (its caller gave up); another may go.
const PROBE_LOST_AFTER: Duration = Duration::from_secs(15);

/// One for each (component, config), shared by all subscriptions that have both.
#[derive(Debug)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug)]
enum State {
    Closed { faults: u32 },
    Open { until: Instant, pause: Duration },
    Probing { since: Instant, pause: Duration },
}

/// What a call's end did to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Opened(Duration),
    Closed,
}

impl Default for Breaker {
    fn default() -> Self {
        Self(Mutex::new(State::Closed { faults: 0 }))
    }
}

impl Breaker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait before a call, or `None` to call now. Whoever is let through while it is open is the probe.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let mut state = self.state();
        match *state {
            State::Closed { .. } => None,
            State::Open { until, .. } if now < until => Some(until - now),
            State::Probing { since, pause } if now < since + PROBE_LOST_AFTER => Some(pause),
            State::Open { pause, .. } | State::Probing { pause, .. } => {
                *state = State::Probing { since: now, pause };
                None
            }
        }
    }

    /// A call has ended.
    pub(super) fn ended(&self, now: Instant, is_fault: bool) -> Change {
        let mut state = self.state();
        match (&mut *state, is_fault) {
            (State::Closed { faults }, false) => {
                *faults = 0;
                Change::None
            }
            (State::Closed { faults }, true) => {
                *faults += 1;
                if *faults < FAULTS_MAX {
                    return Change::None;
                }
                *state = State::Open { until: now + PAUSE_MIN, pause: PAUSE_MIN };
                Change::Opened(PAUSE_MIN)
            }
            (State::Probing { .. }, false) => {
                *state = State::Closed { faults: 0 };
                Change::Closed
            }
            (State::Probing { pause, .. }, true) => {
                let pause = (*pause * 2).min(PAUSE_MAX);
                *state = State::Open { until: now + pause, pause };
                Change::Opened(pause)
            }
            // A call that began before it opened says nothing new.
            (State::Open { .. }, _) => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn five_faults_in_a_row_open_it_and_a_probe_closes_it() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..4 {
            assert_eq!(breaker.ended(now, true), Change::None);
        }
        assert_eq!(breaker.ended(now, false), Change::None, "a call that works starts the count anew");
        for _ in 0..4 {
            assert_eq!(breaker.ended(now, true), Change::None);
        }
        assert_eq!(breaker.wait(now), None);
        assert_eq!(breaker.ended(now, true), Change::Opened(SECOND));
        assert_eq!(breaker.wait(now + SECOND / 2), Some(SECOND / 2));
        assert_eq!(breaker.wait(now + SECOND), None, "one goes as a probe");
        assert_eq!(breaker.wait(now + SECOND), Some(SECOND), "the others go on waiting");
        assert_eq!(breaker.ended(now + SECOND, false), Change::Closed);
        assert_eq!(breaker.wait(now + SECOND), None);
    }

    #[test]
    fn each_failed_probe_doubles_the_pause_up_to_a_minute() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..5 {
            breaker.ended(now, true);
        }
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            now += breaker.wait(now).expect("it is open");
            assert_eq!(breaker.wait(now), None);
            assert_eq!(breaker.ended(now, true), Change::Opened(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn a_probe_that_never_ends_is_followed_by_another() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..5 {
            breaker.ended(now, true);
        }
        let now = now + SECOND;
        assert_eq!(breaker.wait(now), None);
        assert!(breaker.wait(now + PROBE_LOST_AFTER / 2).is_some());
        assert_eq!(breaker.wait(now + PROBE_LOST_AFTER), None);
    }
}
