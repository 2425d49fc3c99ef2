//! Leaves alone what keeps failing, an endpoint or a plugin: after so many failures in a row its callers wait, and now and
//! then one of them probes. Pure: the time is an argument.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long it stays open at first; each failed probe doubles that.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    failures_max: u32,
    /// Closed, and nothing is counted: then a call that succeeds has nothing to read or write behind the lock.
    calm: AtomicBool,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    Probing { since: Instant, pause: Duration },
}

/// What a call's end did to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that anybody should hear of.
    None,
    /// It opened, or stays open after a failed probe, for this long.
    Opened(Duration),
    /// The probe succeeded.
    Closed,
}

/// The right to make one call. Dropped without a result, it says nothing: a probe that was not made is left to another.
#[derive(Debug)]
pub struct Pass {
    breaker: Arc<Breaker>,
    is_probe: bool,
}

impl Breaker {
    /// A closed breaker that opens after so many failures in a row.
    pub fn new(failures_max: u32) -> Arc<Self> {
        let state = Mutex::new(State::Closed { failures: 0 });
        Arc::new(Self { failures_max: failures_max.max(1), calm: AtomicBool::new(true), state })
    }

    /// How many failures in a row open it.
    pub fn failures_max(&self) -> u32 {
        self.failures_max
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: &mut State, to: State) {
        self.calm.store(matches!(to, State::Closed { failures: 0 }), Ordering::Relaxed);
        *state = to;
    }

    /// How long a call has to wait as things stand; `None` when one may go. Changes nothing.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        if self.calm.load(Ordering::Relaxed) {
            return None;
        }
        wait(*self.state(), now)
    }

    /// Lets a call go, or says how long it has to wait. Whoever is let through while it is open is the probe.
    pub fn admit(self: &Arc<Self>, now: Instant) -> Result<Pass, Duration> {
        let pass = |is_probe| Pass { breaker: Arc::clone(self), is_probe };
        if self.calm.load(Ordering::Relaxed) {
            return Ok(pass(false));
        }
        let mut state = self.state();
        match (*state, wait(*state, now)) {
            (_, Some(after)) => Err(after),
            (State::Closed { .. }, None) => Ok(pass(false)),
            (State::Open { pause, .. } | State::Probing { pause, .. }, None) => {
                self.set(&mut state, State::Probing { since: now, pause });
                Ok(pass(true))
            }
        }
    }
}

fn wait(state: State, now: Instant) -> Option<Duration> {
    match state {
        State::Closed { .. } => None,
        State::Open { until, .. } => until.checked_duration_since(now).filter(|wait| !wait.is_zero()),
        State::Probing { pause, .. } => Some(pause),
    }
}

impl Pass {
    /// The call has ended.
    pub fn ended(mut self, now: Instant, failed: bool) -> Change {
        let is_probe = std::mem::take(&mut self.is_probe);
        let breaker = &*self.breaker;
        if !failed && breaker.calm.load(Ordering::Relaxed) {
            return Change::None;
        }
        let mut state = breaker.state();
        let to = match (*state, failed) {
            (State::Closed { .. }, false) => State::Closed { failures: 0 },
            (State::Closed { failures }, true) if failures + 1 < breaker.failures_max => {
                State::Closed { failures: failures + 1 }
            }
            (State::Closed { .. }, true) => State::Open { until: now + PAUSE_MIN, pause: PAUSE_MIN },
            (State::Probing { .. }, false) if is_probe => State::Closed { failures: 0 },
            (State::Probing { pause, .. }, true) if is_probe => {
                let pause = (pause * 2).min(PAUSE_MAX);
                State::Open { until: now + pause, pause }
            }
            // A call that began before it opened says nothing new.
            (State::Open { .. } | State::Probing { .. }, _) => return Change::None,
        };
        let was_closed = matches!(*state, State::Closed { .. });
        breaker.set(&mut state, to);
        match to {
            State::Open { pause, .. } => Change::Opened(pause),
            State::Closed { .. } if !was_closed => Change::Closed,
            State::Closed { .. } | State::Probing { .. } => Change::None,
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.is_probe {
            return;
        }
        let mut state = self.breaker.state();
        if let State::Probing { since, pause } = *state {
            self.breaker.set(&mut state, State::Open { until: since, pause });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn call(breaker: &Arc<Breaker>, now: Instant, failed: bool) -> Change {
        breaker.admit(now).expect("it may go").ended(now, failed)
    }

    fn open(breaker: &Arc<Breaker>, now: Instant) {
        for _ in 0..breaker.failures_max() {
            call(breaker, now, true);
        }
        assert!(breaker.wait(now).is_some());
    }

    #[test]
    fn so_many_failures_in_a_row_open_it_and_a_probe_closes_it() {
        let (breaker, now) = (Breaker::new(5), Instant::now());
        for _ in 0..4 {
            assert_eq!(call(&breaker, now, true), Change::None);
        }
        assert_eq!(call(&breaker, now, false), Change::None, "a call that works starts the count anew");
        for _ in 0..4 {
            assert_eq!(call(&breaker, now, true), Change::None);
        }
        assert_eq!(breaker.wait(now), None);
        assert_eq!(call(&breaker, now, true), Change::Opened(SECOND));
        assert_eq!(breaker.wait(now + SECOND / 2), Some(SECOND / 2));
        assert_eq!(breaker.wait(now + SECOND), None, "to look is not to probe");
        let probe = breaker.admit(now + SECOND).expect("one goes as a probe");
        assert_eq!(breaker.wait(now + SECOND), Some(SECOND), "the others go on waiting");
        assert_eq!(breaker.admit(now + SECOND).unwrap_err(), SECOND);
        assert_eq!(probe.ended(now + SECOND, false), Change::Closed);
        assert_eq!(breaker.wait(now + SECOND), None);
    }

    #[test]
    fn each_failed_probe_doubles_the_pause_up_to_a_minute() {
        let (breaker, mut now) = (Breaker::new(5), Instant::now());
        open(&breaker, now);
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            now += breaker.wait(now).expect("it is open");
            assert_eq!(call(&breaker, now, true), Change::Opened(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn a_probe_that_is_not_made_is_left_to_another() {
        let (breaker, now) = (Breaker::new(1), Instant::now());
        open(&breaker, now);
        let now = now + SECOND;
        drop(breaker.admit(now).expect("one goes as a probe"));
        assert_eq!(breaker.wait(now), None);
        assert_eq!(call(&breaker, now, true), Change::Opened(2 * SECOND), "the pause is the one it was");
    }

    #[test]
    fn what_began_before_it_opened_neither_closes_it_nor_counts_as_the_probe() {
        let (breaker, now) = (Breaker::new(2), Instant::now());
        let early: Vec<Pass> = (0..4).map(|_| breaker.admit(now).unwrap()).collect();
        open(&breaker, now);
        let mut early = early.into_iter();
        assert_eq!(early.next().unwrap().ended(now, false), Change::None);
        assert!(breaker.wait(now).is_some(), "an early success does not close it");
        let probe = breaker.admit(now + SECOND).unwrap();
        assert_eq!(early.next().unwrap().ended(now + SECOND, true), Change::None);
        drop(early);
        assert_eq!(probe.ended(now + SECOND, false), Change::Closed);
    }
}
