//! For how long a router is asked again that takes nothing, and that a person is told so while it lasts.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::clock::Clock;

/// The first wait where the router names none; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// What all batches know of a router that takes none.
pub struct Patience {
    /// How long nothing may be taken before it is given up.
    wait: Duration,
    clock: Clock,
    bar: ProgressBar,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When it is given up, while nothing is taken.
    until: Option<Instant>,
    /// When that was last told in a line of its own.
    told: Option<Instant>,
}

impl Patience {
    /// Whoever takes nothing for `wait` is given up; `bar` shows it.
    pub fn new(wait: Duration, bar: ProgressBar) -> Self {
        Self { wait, clock: Clock::system(), bar, state: Mutex::default() }
    }

    /// The router takes events.
    pub fn taken(&self) {
        self.state().until = None;
    }

    /// A batch was not taken, for the `tries`th time: how long to wait for the next try, or `None` when it is given up.
    pub fn pause(&self, why: &str, asked: Option<Duration>, tries: u32) -> Option<Duration> {
        let now = Instant::now();
        let mut state = self.state();
        let until = *state.until.get_or_insert(now + self.wait);
        let pause = pause(until.saturating_duration_since(now), asked, tries)?;
        self.tell(&mut state, why, until, now);
        Some(pause)
    }

    fn tell(&self, state: &mut State, why: &str, until: Instant, now: Instant) {
        let left = until.saturating_duration_since(now);
        // To the second: it is for people.
        let shown = humantime::format_duration(Duration::from_secs(left.as_secs().max(1)));
        let text = format!("{why}; trying again for {shown}, until {}", self.clock.now().plus(left));
        self.bar.set_message(text.clone());
        // A router that takes a little at a time would be told of for each batch.
        let is_told = state.told.is_some_and(|told| now.duration_since(told) < self.wait);
        if self.bar.is_hidden() && !is_told {
            state.told = Some(now);
            anstream::eprintln!("{text}");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wait before the next try: what the router asked for, or one that doubles, and never past the end of patience.
fn pause(left: Duration, asked: Option<Duration>, tries: u32) -> Option<Duration> {
    let backoff = FIRST_WAIT.saturating_mul(1 << (tries.max(1) - 1).min(16));
    (!left.is_zero()).then(|| asked.unwrap_or(backoff).min(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_or_are_as_asked_and_end_with_patience() {
        let seconds = Duration::from_secs;
        for (left, asked, tries, expected) in [
            (30, None, 1, Some(1)),
            (29, None, 2, Some(2)),
            (15, None, 5, Some(15)),
            (15, None, 99, Some(15)),
            (30, Some(7), 1, Some(7)),
            (5, Some(7), 4, Some(5)),
            (0, Some(7), 1, None),
            (0, None, 1, None),
        ] {
            let paused = pause(seconds(left), asked.map(seconds), tries);
            assert_eq!(paused, expected.map(seconds), "{left} {asked:?} {tries}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_begins_anew_when_something_was_taken() {
        let patience = Patience::new(Duration::from_secs(3), ProgressBar::hidden());
        assert_eq!(patience.pause("away", None, 1), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(patience.pause("away", None, 2), Some(Duration::from_secs(1)));
        patience.taken();
        assert_eq!(patience.pause("away", None, 3), Some(Duration::from_secs(3)));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(patience.pause("away", None, 4), None);
    }
}
