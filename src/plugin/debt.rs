//! Time that a plugin used and that is forgotten bit by bit: what it did a moment ago counts, what it did a minute ago
//! does not.

use std::time::{Duration, Instant};

/// What is owed is halved in this time.
const HALF_LIFE: Duration = Duration::from_secs(1);

/// An amount of time that fades.
#[derive(Clone, Copy)]
pub(super) struct Debt {
    seconds: f64,
    at: Instant,
}

impl Debt {
    pub(super) fn none(now: Instant) -> Self {
        Self { seconds: 0.0, at: now }
    }

    /// What is left of it.
    pub(super) fn at(self, now: Instant) -> f64 {
        if self.seconds == 0.0 {
            return 0.0;
        }
        let lives = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.seconds * (-lives).exp2()
    }

    pub(super) fn add(&mut self, seconds: f64, now: Instant) {
        *self = Self { seconds: self.at(now) + seconds, at: now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_halves_every_second() {
        let start = Instant::now();
        let mut debt = Debt::none(start);
        debt.add(0.08, start);
        for (seconds, left) in [(0, 0.08), (1, 0.04), (3, 0.01)] {
            assert!((debt.at(start + Duration::from_secs(seconds)) - left).abs() < 1e-9);
        }
        debt.add(0.02, start + Duration::from_secs(1));
        assert!((debt.at(start + Duration::from_secs(2)) - 0.03).abs() < 1e-9);
    }
}
