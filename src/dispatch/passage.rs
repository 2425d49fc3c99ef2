//! Who may go to an endpoint now. In this order, cheapest first: nobody while it is paused or disabled; while its breaker is
//! open one probe; as many as its rate allows; as many at one time as its gate lets through. Who may not is told when
//! to come back, each at a time of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::{Admission, PATIENCE, Row, Turn};
use super::snapshot::EndpointState;
use crate::breaker::{Breaker, Change, Pass};
use crate::delivery::{AttemptResult, Waiting};
use crate::metrics::Metrics;
use crate::rate::{Rate, RateLimit};
use crate::settle;

/// How long a delivery to a paused or disabled endpoint waits before it is looked at again. Lifting the mark makes it due at once.
const HELD_PARK: Duration = Duration::from_secs(300);

/// How far apart deliveries come back to an open breaker. An endpoint that is down must not cost the store more than a
/// few hundred claims a second.
const BREAKER_RETURN_STEP: Duration = Duration::from_millis(5);

/// An endpoint's breaker, and who waits for it.
#[derive(Debug)]
pub(super) struct Fuse {
    pub(super) breaker: Arc<Breaker>,
    row: Row,
}

/// An endpoint's rate, and who waits for it.
#[derive(Debug)]
pub(super) struct Pace {
    limit: RateLimit,
    row: Row,
}

/// The right to make one attempt. An attempt that is not made after all takes nothing but its place in the rate.
pub(super) struct Leave {
    turn: Turn,
    pass: Option<Pass>,
}

/// Not now: why, and when to come back.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) why: Waiting,
    pub(super) after: Duration,
}

impl Fuse {
    pub(super) fn new(failures_max: u32) -> Arc<Self> {
        Arc::new(Self { breaker: Breaker::new(failures_max), row: Row::default() })
    }

    /// Whether deliveries wait for it.
    pub(super) fn is_open(&self) -> bool {
        self.breaker.wait(now()).is_some()
    }

    fn park(&self, pause: Duration) -> Parked {
        Parked { why: Waiting::EndpointBreaker, after: pause + self.row.place(BREAKER_RETURN_STEP) }
    }
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Arc<Self> {
        // A burst would be more than the rate within its first moments, which receivers count too.
        Arc::new(Self { limit: RateLimit::new(rate, 1), row: Row::default() })
    }

    pub(super) fn rate(&self) -> Rate {
        self.limit.settings().0
    }

    /// How long to wait before one may go, or when to come back.
    fn place(&self, is_first: bool, now: Instant) -> Result<Duration, Parked> {
        // What comes back has waited for this moment: what is new goes behind it, or it might never have its turn.
        let reserved =
            if is_first && self.row.is_ahead(now) { None } else { self.limit.reserve(now.into_std(), PATIENCE) };
        reserved.ok_or_else(|| Parked { why: Waiting::Parked, after: self.row.place(self.rate().interval()) })
    }
}

impl EndpointState {
    /// Lets a delivery go, perhaps after a moment, or says when it should come back. `is_first` for an event's first attempt.
    pub(super) async fn admit(&self, is_first: bool) -> Result<Leave, Parked> {
        if let Some(why) = self.held() {
            return Err(Parked { why, after: HELD_PARK.mul_f64(1.0 + settle::JITTER_SHARE * fastrand::f64()) });
        }
        if let Some(fuse) = &self.fuse
            && let Some(pause) = fuse.breaker.wait(now())
        {
            return Err(fuse.park(pause));
        }
        if let Some(pace) = &self.pace {
            let wait = pace.place(is_first, Instant::now())?;
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
        let turn = match self.gate.admit().await {
            Admission::Start(turn) => turn,
            Admission::Park(after) => return Err(Parked { why: Waiting::Parked, after }),
        };
        let pass = self.fuse.as_ref().map(|fuse| fuse.breaker.admit(now()).map_err(|pause| fuse.park(pause)));
        Ok(Leave { turn, pass: pass.transpose()? })
    }

    /// An attempt has ended.
    pub(super) fn ended(&self, leave: Leave, result: &AttemptResult, metrics: &Metrics) {
        let Leave { turn, pass } = leave;
        drop(turn);
        let (Some(pass), Some(fuse)) = (pass, &self.fuse) else { return };
        let endpoint = &self.endpoint.name;
        match pass.ended(now(), says_it_is_down(result)) {
            Change::None => {}
            Change::Opened(pause) => {
                metrics.endpoint_breaker(endpoint, true);
                tracing::warn!(%endpoint, "the endpoint keeps failing: its deliveries wait, one tries again in {pause:?}");
            }
            Change::Closed => {
                metrics.endpoint_breaker(endpoint, false);
                fuse.row.clear();
                tracing::info!(%endpoint, "the endpoint works again");
            }
        }
    }
}

/// The breaker's clock, which stands still where a test's does.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Whether an attempt's end says something about the endpoint rather than about this event: a 404 or 422 may be due to the
/// event alone, and comes from a server that is well.
fn says_it_is_down(result: &AttemptResult) -> bool {
    match result {
        AttemptResult::Answered { status, .. } => matches!(status, 408 | 429 | 500..=599),
        AttemptResult::Failed { .. } => true,
        AttemptResult::PluginFailed { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::SendErrorKind;

    #[test]
    fn only_what_tells_of_the_endpoint_counts_against_it() {
        let answered = |status| AttemptResult::Answered { status, retry_after_ms: None };
        for status in [408, 429, 500, 502, 503, 504, 599] {
            assert!(says_it_is_down(&answered(status)), "{status}");
        }
        for status in [200, 204, 301, 400, 401, 404, 409, 410, 422] {
            assert!(!says_it_is_down(&answered(status)), "{status}");
        }
        assert!(says_it_is_down(&AttemptResult::Failed { error: SendErrorKind::Timeout, detail: String::new() }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_lets_the_waiting_go_before_the_new_and_parks_what_is_over_it_in_a_row() {
        let pace = Pace::new(Rate::new(2, Duration::from_secs(1)));
        assert_eq!(pace.place(true, Instant::now()).unwrap(), Duration::ZERO);
        let first = pace.place(true, Instant::now()).unwrap_err().after;
        let second = pace.place(true, Instant::now()).unwrap_err().after;
        assert_eq!(second - first, Duration::from_millis(500));
        tokio::time::sleep(first - Duration::from_millis(1)).await;
        assert!(pace.place(true, Instant::now()).is_err(), "one that is new goes behind those that wait");
        assert!(pace.place(false, Instant::now()).is_ok(), "one that comes back goes");
    }
}
