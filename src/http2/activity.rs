//! What goes on on one connection: whether anything is under way, and whether the peer sends more frames than its
//! requests are worth. Shared by the connection and its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::addresses::Place;

/// What frames may cost before anything is earned, and at most.
const SPARE_MAX: i64 = 1_000;
/// What is earned by waiting. Whoever sends no faster floods nobody.
const EARNED_A_SECOND: i64 = 100;
/// What a request that is answered earns: its own frames, a ping, a few updates of windows.
const EARNED_BY_AN_ANSWER: i64 = 16;
/// What a piece of an answer earns: the updates of windows that acknowledge it.
const EARNED_BY_A_PIECE: i64 = 4;

pub(super) struct Activity {
    begun: Instant,
    /// Requests that wait for this router, not for the peer.
    under_way: AtomicUsize,
    /// When the last of them began or ended, since the connection began.
    changed_ms: AtomicU64,
    /// What the peer's frames may still cost.
    spare: AtomicI64,
    /// When waiting was last paid for, since the connection began.
    paid_ms: AtomicU64,
    flood: Notify,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            under_way: AtomicUsize::new(0),
            changed_ms: AtomicU64::new(0),
            spare: AtomicI64::new(SPARE_MAX),
            paid_ms: AtomicU64::new(0),
            flood: Notify::new(),
        })
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>, place: Option<Place>) -> Turn {
        let mut turn = Turn { activity: Arc::clone(self), is_ours: false, _place: place };
        turn.set_ours(true);
        turn
    }

    /// Takes what frames cost; whether the peer could afford it.
    pub(super) fn spend(&self, cost: i64) -> bool {
        if cost == 0 || self.spare.fetch_sub(cost, Ordering::Relaxed) >= cost {
            return true;
        }
        let now = self.now_ms();
        let waited_ms = now.saturating_sub(self.paid_ms.swap(now, Ordering::Relaxed));
        let earned = i64::try_from(waited_ms).unwrap_or(i64::MAX).saturating_mul(EARNED_A_SECOND) / 1_000;
        self.earn(earned.min(SPARE_MAX));
        self.spare.load(Ordering::Relaxed) >= 0
    }

    fn earn(&self, earned: i64) {
        if self.spare.fetch_add(earned, Ordering::Relaxed) + earned > SPARE_MAX {
            self.spare.store(SPARE_MAX, Ordering::Relaxed);
        }
    }

    /// Quiet begins anew.
    pub(super) fn touch(&self) {
        self.changed_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The peer floods this router.
    pub(super) fn tell_flood(&self) {
        self.flood.notify_one();
    }

    /// Ends when the peer floods this router.
    pub(super) async fn flooded(&self) {
        self.flood.notified().await;
    }

    /// Ends when nothing has been under way for so long.
    pub(super) async fn quiet(&self, idle: Duration) {
        loop {
            if self.under_way.load(Ordering::Relaxed) > 0 {
                sleep(idle).await;
                continue;
            }
            let until = self.begun + Duration::from_millis(self.changed_ms.load(Ordering::Relaxed)) + idle;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// One request and its answer, from the head to the last piece.
pub(super) struct Turn {
    activity: Arc<Activity>,
    is_ours: bool,
    _place: Option<Place>,
}

impl Turn {
    /// Whose turn it is: this router's, or the peer's, which has to take what there is for it.
    pub(super) fn set_ours(&mut self, is_ours: bool) {
        match (self.is_ours, is_ours) {
            (false, true) => self.activity.under_way.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.activity.under_way.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => return,
        };
        self.is_ours = is_ours;
        self.activity.touch();
    }

    /// There is an answer.
    pub(super) fn answered(&mut self) {
        self.activity.earn(EARNED_BY_AN_ANSWER);
        self.set_ours(false);
    }

    /// A piece of it goes out.
    pub(super) fn sent(&mut self) {
        self.activity.earn(EARNED_BY_A_PIECE);
        self.set_ours(false);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.set_ours(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn frames_are_paid_for_by_answers_and_by_time() {
        let activity = Activity::new();
        assert!((0..SPARE_MAX).all(|_| activity.spend(1)) && !activity.spend(1), "a flood");
        let activity = Activity::new();
        for _ in 0..10_000 {
            activity.begin(None).answered();
            assert!(activity.spend(EARNED_BY_AN_ANSWER), "as many frames as answers are worth");
        }
        let activity = Activity::new();
        for _ in 0..10_000 {
            tokio::time::advance(Duration::from_millis(10)).await;
            assert!(activity.spend(1), "a frame now and then");
        }
        let activity = Activity::new();
        let resets = (0..10_000).take_while(|_| {
            drop(activity.begin(None));
            activity.spend(2)
        });
        assert_eq!(resets.count(), 500, "a request that is taken back earns nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_quiet_when_nothing_waits_for_this_router() {
        let idle = Duration::from_secs(10);
        let activity = Activity::new();
        let began = Instant::now();
        activity.quiet(idle).await;
        assert_eq!(began.elapsed(), idle, "nothing came");
        let mut turn = activity.begin(None);
        let working = async {
            sleep(Duration::from_secs(25)).await;
            turn.answered();
            // From here on the peer is to take it, and does not.
            std::future::pending::<()>().await;
        };
        tokio::select! { () = working => {}, () = activity.quiet(idle) => {} }
        assert!(began.elapsed() >= idle + Duration::from_secs(35), "{:?}", began.elapsed());
    }
}
