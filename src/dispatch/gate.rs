//! How many attempts an endpoint may have under way, and who waits: what can't start soon is parked instead of holding others.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long a delivery may wait for its turn before it is parked: about as long as its event may wait (design.md).
pub const PATIENCE: Duration = Duration::from_millis(250);

/// The shortest and the longest time that a parked delivery stays away. Each return costs the store a claim and a
/// settlement, so the longest is what a large backlog behind a dead endpoint costs, and what its recovery waits for.
const PARK_MIN: Duration = Duration::from_millis(500);
const PARK_MAX: Duration = Duration::from_secs(120);

/// The weight of the newest attempt in the moving average of how long they take, as a divisor.
const AVERAGE_WEIGHT: u64 = 8;

/// An endpoint's limit on attempts under way.
#[derive(Debug)]
pub struct Gate {
    turns: Arc<Semaphore>,
    limit: usize,
    waiting: AtomicUsize,
    /// A moving average of how long attempts take, in microseconds.
    average_micros: AtomicU64,
    /// When a turn last ended: a full gate that nobody leaves is not worth waiting at.
    last_end: Mutex<Instant>,
    row: Row,
}

/// Gives what is parked its own time to come back each, so that it comes in a row and not together.
#[derive(Debug, Default)]
pub struct Row(Mutex<Option<Instant>>);

impl Row {
    /// The wait of one more, `step` after the one before it.
    pub fn place(&self, step: Duration) -> Duration {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = last.map_or(now, |last| last + step).max(now + PARK_MIN);
        if next <= now + PARK_MAX {
            *last = Some(next);
            return next - now;
        }
        // The row is full: somewhere in its later half, not all at its end.
        PARK_MAX.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// Whether somebody has a place that is still to come.
    pub fn is_ahead(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|last| last > now)
    }

    /// Nobody is ahead any more.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What the gate says to a delivery.
#[derive(Debug)]
pub enum Admission {
    /// Go. The turn ends when this is dropped.
    Start(Turn),
    /// Not soon: come back after this long.
    Park(Duration),
}

/// The right to have one attempt under way.
#[derive(Debug)]
pub struct Turn {
    gate: Arc<Gate>,
    began: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = u64::try_from((now - self.began).as_micros()).unwrap_or(u64::MAX);
        let average = self.gate.average_micros.load(Ordering::Relaxed);
        // A lost update between two turns that end together shifts the average a little; nothing depends on it being exact.
        let average = if average == 0 { took } else { average - average / AVERAGE_WEIGHT + took / AVERAGE_WEIGHT };
        self.gate.average_micros.store(average, Ordering::Relaxed);
        *self.gate.last_end.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl Gate {
    /// A gate that lets `limit` through at once.
    pub fn new(limit: usize) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            turns: Arc::new(Semaphore::new(limit)),
            limit,
            waiting: AtomicUsize::new(0),
            average_micros: AtomicU64::new(0),
            last_end: Mutex::new(now),
            row: Row::default(),
        })
    }

    /// Waits for a turn, but never longer than [`PATIENCE`], and not at all when the queue is too long for that.
    pub async fn admit(self: &Arc<Self>) -> Admission {
        if let Ok(permit) = Arc::clone(&self.turns).try_acquire_owned() {
            if self.turns.available_permits() > self.limit / 2 {
                self.row.clear();
            }
            return Admission::Start(self.turn(permit));
        }
        if self.expected_wait() > PATIENCE {
            return Admission::Park(self.time_to_return());
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        match tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(permit)) => Admission::Start(self.turn(permit)),
            // The semaphore is never closed, so what is left is the time running out.
            Ok(Err(_)) | Err(_) => Admission::Park(self.time_to_return()),
        }
    }

    fn turn(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Turn {
        Turn { gate: Arc::clone(self), began: Instant::now(), _permit: permit }
    }

    /// How long one more would wait behind those that wait already.
    fn expected_wait(&self) -> Duration {
        let idle = self.last_end.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let ahead = self.waiting.load(Ordering::Relaxed) as u64 + 1;
        let average = self.average_micros.load(Ordering::Relaxed);
        let by_average = Duration::from_micros(average.saturating_mul(ahead) / self.limit.max(1) as u64);
        // While nothing ends, the average is a thing of the past; and before the first end there is none.
        if idle > PATIENCE || ahead > 8 * self.limit as u64 { by_average.max(PATIENCE * 2) } else { by_average }
    }

    /// When a delivery that can't start should come back: as far after the one before it as the endpoint takes them.
    pub fn time_to_return(&self) -> Duration {
        let average = Duration::from_micros(self.average_micros.load(Ordering::Relaxed)).max(Duration::from_millis(1));
        self.row.place(average / u32::try_from(self.limit.max(1)).unwrap_or(u32::MAX))
    }

    /// What is parked from now on need not come after what was parked before.
    pub fn forget_row(&self) {
        self.row.clear();
    }
}

/// Counts one that waits, also when its future is dropped.
struct Waits<'gate>(&'gate AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(admission: Admission) -> Turn {
        match admission {
            Admission::Start(turn) => turn,
            Admission::Park(after) => panic!("parked for {after:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_of_a_quick_endpoint_a_delivery_waits_its_turn() {
        let gate = Gate::new(1);
        for _ in 0..3 {
            let turn = started(gate.admit().await);
            tokio::time::advance(Duration::from_millis(5)).await;
            drop(turn);
        }
        let turn = started(gate.admit().await);
        let waits = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.admit().await }
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(turn);
        started(waits.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_endpoint_parks_deliveries_at_once_and_apart() {
        let gate = Gate::new(2);
        let (_first, _second) = (started(gate.admit().await), started(gate.admit().await));
        tokio::time::advance(PATIENCE + Duration::from_millis(1)).await;
        let began = Instant::now();
        let mut last = Duration::ZERO;
        for _ in 0..100 {
            let Admission::Park(after) = gate.admit().await else { panic!("started") };
            assert!(after > last || after == PARK_MIN, "{after:?} after {last:?}");
            last = after;
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "parking must not wait");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_row_spreads_what_comes_back_and_a_cleared_one_begins_anew() {
        let row = Row::default();
        let step = Duration::from_millis(100);
        let waits: Vec<Duration> = (0..10_000).map(|_| row.place(step)).collect();
        assert!(waits.iter().all(|wait| (PARK_MIN..=PARK_MAX).contains(wait)));
        let in_one_second = |second: u64| waits.iter().filter(|wait| wait.as_secs() == second).count();
        assert!((0..120).all(|second| in_one_second(second) < 300), "no herd");
        row.clear();
        assert_eq!(row.place(step), PARK_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn before_anything_is_known_of_an_endpoint_a_delivery_is_patient_once() {
        let gate = Gate::new(1);
        let _turn = started(gate.admit().await);
        let began = Instant::now();
        assert!(matches!(gate.admit().await, Admission::Park(_)));
        assert_eq!(began.elapsed(), PATIENCE);
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }
}
