//! How long the soak may take when nobody asks for more: a bounded part of what `tests/run` does.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// From the first run to the end of the last one, on two cores.
const TIME_MAX: Duration = Duration::from_secs(11 * 60);
/// What comes after the mixtures has this much of it.
const AFTER_MIXTURES: Duration = Duration::from_secs(3 * 60);
/// A mixture lasts at least this long, or it shows nothing.
const MIXTURE_MIN: Duration = Duration::from_secs(5);

/// Somebody asked for this much: `BRANCHLINE_SOAK_…`.
pub fn asked_for<T: std::str::FromStr>(what: &str) -> Option<T> {
    let value = std::env::var(format!("BRANCHLINE_SOAK_{what}")).ok()?;
    let Ok(value) = value.parse() else { panic!("BRANCHLINE_SOAK_{what} is not a number: {value}") };
    Some(value)
}

fn is_bounded() -> bool {
    asked_for::<f64>("MINUTES").is_none() && asked_for::<usize>("KILLS").is_none()
}

/// The time goes from the first call on.
pub fn begin() {
    LazyLock::force(&BEGAN);
}

/// Of a mixture that may last so long: for how long it may where time is short.
pub fn of_mixture(wanted: Duration) -> Duration {
    if !is_bounded() {
        return wanted;
    }
    wanted.min(TIME_MAX.saturating_sub(AFTER_MIXTURES + BEGAN.elapsed())).max(MIXTURE_MIN)
}

/// Fails when the time is over.
pub fn check() {
    let took = BEGAN.elapsed();
    assert!(!is_bounded() || took <= TIME_MAX, "the soak takes longer than {TIME_MAX:?}: {took:?} up to here");
}
