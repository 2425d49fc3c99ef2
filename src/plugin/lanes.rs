//! Which plugin's work runs next. Each plugin has a lane with its own bounded queue, so that the work of a slow plugin
//! waits behind itself and nobody else. Pure: time is an argument, threads are somewhere else.
//!
//! A call can't be moved off its thread before its deadline, so fairness is decided when a call starts:
//! - A plugin whose calls were long of late is *heavy*. All heavy plugins together get at most half of the threads.
//! - A plugin that nothing is known of runs one call at a time until the first one has ended.
//! - While another plugin is in use too, no plugin takes the last thread.
//! - Among those that may start, light goes before heavy, and then who used the least time of late.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::debt::Debt;

/// A call that takes longer makes its plugin heavy for a while: far above what a transformation takes, far below a deadline.
const LONG_CALL: Duration = Duration::from_millis(5);
/// Time above [`LONG_CALL`] that a plugin may owe before it is heavy; one call that the machine held up is not enough.
const HEAVY_SECONDS: f64 = 0.015;
/// How long a plugin counts as in use after its last call.
const IN_USE: Duration = Duration::from_secs(1);
/// A queue holds what its plugin can do in this time. It is the time that an event may wait for its deliveries.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// Threads that have less than this to do, each, get no help: another would be awake for a moment only.
const BEHIND: Duration = Duration::from_micros(500);
/// Jobs in a lane's queue, however fast its plugin is.
const LANE_JOBS_MAX: usize = 4096;
/// Jobs in all queues, but for one per thread and plugin.
const JOBS_MAX: usize = 16_384;

/// A plugin's place among the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneId(usize);

/// All lanes. A lane is made for each name and stays: names come from the config, so there are few.
pub(super) struct Lanes<Job> {
    threads: usize,
    lanes: Vec<Lane<Job>>,
    waiting: usize,
    running: usize,
    heavy_running: usize,
}

struct Lane<Job> {
    waiting: VecDeque<Job>,
    running: usize,
    /// How many of those that run were started when the plugin was heavy.
    heavy_running: usize,
    /// Whether a call has ended.
    proven: bool,
    /// The mean time of a call, of late, in seconds.
    mean_seconds: f64,
    /// Time used, in seconds.
    used: Debt,
    /// Time above [`LONG_CALL`], in seconds.
    long: Debt,
    last_used: Option<Instant>,
}

/// Proof that a job may run; it is given back when the job has ended.
#[derive(Debug)]
#[must_use = "a place that is not given back is lost"]
pub(super) struct Place {
    lane: LaneId,
    heavy: bool,
}

impl<Job> Lanes<Job> {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads: threads.max(1), lanes: Vec::new(), waiting: 0, running: 0, heavy_running: 0 }
    }

    pub(super) fn add_lane(&mut self, now: Instant) -> LaneId {
        let nothing = Debt::none(now);
        self.lanes.push(Lane {
            waiting: VecDeque::new(),
            running: 0,
            heavy_running: 0,
            proven: false,
            mean_seconds: 0.0,
            used: nothing,
            long: nothing,
            last_used: None,
        });
        LaneId(self.lanes.len() - 1)
    }

    /// Puts a job at the end of its plugin's queue, or gives it back where the plugin is over its share.
    pub(super) fn push(&mut self, id: LaneId, job: Job, now: Instant) -> Result<(), Job> {
        let lane = &mut self.lanes[id.0];
        lane.last_used = Some(now);
        // However long the others' queues are, a plugin may keep each thread busy once more.
        let room = if self.waiting < JOBS_MAX { lane.room(self.threads) } else { self.threads };
        if lane.waiting.len() >= room {
            return Err(job);
        }
        lane.waiting.push_back(job);
        self.waiting += 1;
        Ok(())
    }

    /// Puts a job at the head of its plugin's queue, whatever its length. For callers that do one at a time.
    pub(super) fn push_first(&mut self, id: LaneId, job: Job, now: Instant) {
        let lane = &mut self.lanes[id.0];
        lane.last_used = Some(now);
        lane.waiting.push_front(job);
        self.waiting += 1;
    }

    /// The job that is to start now, if any may.
    pub(super) fn start_next(&mut self, now: Instant) -> Option<(Place, Job)> {
        let id = self.choose(now)?;
        let job = self.lanes[id.0].waiting.pop_front()?;
        self.waiting -= 1;
        Some((self.occupy(id, now), job))
    }

    /// A place for work that does not wait: on a thread that has just ended another plugin's call. None where
    /// others wait for this plugin, or it is at its limit.
    pub(super) fn start_here(&mut self, id: LaneId, now: Instant) -> Option<Place> {
        self.lanes[id.0].last_used = Some(now);
        let may = self.lanes[id.0].waiting.is_empty() && self.may_start(id, now);
        may.then(|| self.occupy(id, now))
    }

    /// A job has ended after it ran for `took`; none when it did not run.
    pub(super) fn end(&mut self, place: Place, took: Option<Duration>, now: Instant) {
        let lane = &mut self.lanes[place.lane.0];
        lane.running -= 1;
        self.running -= 1;
        if place.heavy {
            lane.heavy_running -= 1;
            self.heavy_running -= 1;
        }
        let Some(took) = took else { return };
        lane.last_used = Some(now);
        let seconds = took.as_secs_f64();
        lane.mean_seconds = if lane.proven { lane.mean_seconds + (seconds - lane.mean_seconds) / 8.0 } else { seconds };
        lane.proven = true;
        lane.used.add(seconds, now);
        if took > LONG_CALL {
            lane.long.add((took - LONG_CALL).as_secs_f64(), now);
        }
    }

    /// Whether [`Lanes::start_next`] would start a job.
    pub(super) fn can_start(&self, now: Instant) -> bool {
        self.choose(now).is_some()
    }

    /// Whether what waits is too much for so many threads, or may have to wait for a long call.
    pub(super) fn is_behind(&self, threads: usize) -> bool {
        let wait = self.lanes.iter().map(|lane| lane.waiting.len() as f64 * lane.mean_seconds).sum::<f64>();
        self.heavy_running > 0 || wait > BEHIND.as_secs_f64() * threads as f64
    }

    /// Takes every waiting job out.
    pub(super) fn drain(&mut self) -> Vec<Job> {
        self.waiting = 0;
        self.lanes.iter_mut().flat_map(|lane| lane.waiting.drain(..)).collect()
    }

    fn choose(&self, now: Instant) -> Option<LaneId> {
        if self.waiting == 0 {
            return None;
        }
        let candidates = (0..self.lanes.len()).map(LaneId);
        candidates
            .filter(|id| !self.lanes[id.0].waiting.is_empty() && self.may_start(*id, now))
            .map(|id| (self.lanes[id.0].is_heavy(now), self.lanes[id.0].used.at(now), id))
            .min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))
            .map(|(_, _, id)| id)
    }

    fn may_start(&self, id: LaneId, now: Instant) -> bool {
        let lane = &self.lanes[id.0];
        if self.running >= self.threads {
            return false;
        }
        if !lane.proven {
            return lane.running == 0 || self.threads == 1;
        }
        if lane.is_heavy(now) {
            // Calls that began before the plugin was found out count as well.
            let half = (self.threads / 2).max(1);
            return self.heavy_running < half && lane.running < half;
        }
        let alone = !self.lanes.iter().enumerate().any(|(other, lane)| other != id.0 && lane.is_in_use(now));
        let limit = if alone { self.threads } else { (self.threads - 1).max(1) };
        lane.running < limit
    }

    fn occupy(&mut self, id: LaneId, now: Instant) -> Place {
        let lane = &mut self.lanes[id.0];
        let heavy = lane.is_heavy(now) || !lane.proven;
        lane.running += 1;
        self.running += 1;
        if heavy {
            lane.heavy_running += 1;
            self.heavy_running += 1;
        }
        Place { lane: id, heavy }
    }
}

impl<Job> Lane<Job> {
    fn is_heavy(&self, now: Instant) -> bool {
        self.long.at(now) > HEAVY_SECONDS
    }

    fn is_in_use(&self, now: Instant) -> bool {
        self.running > 0
            || !self.waiting.is_empty()
            || self.last_used.is_some_and(|last| now.saturating_duration_since(last) < IN_USE)
    }

    /// How many jobs may wait: what the plugin does in [`WAIT_MAX`], but always one for each thread.
    fn room(&self, threads: usize) -> usize {
        let jobs = WAIT_MAX.as_secs_f64() / self.mean_seconds.max(1e-6);
        (jobs as usize).clamp(threads, LANE_JOBS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(20);
    const DEADLINE: Duration = Duration::from_millis(50);

    /// Lanes with a clock that only the test moves.
    struct Bench {
        lanes: Lanes<u32>,
        now: Instant,
    }

    impl Bench {
        fn new(threads: usize) -> Self {
            Self { lanes: Lanes::new(threads), now: Instant::now() }
        }

        /// A lane whose plugin has run a call that took so long.
        fn lane(&mut self, took: Duration) -> LaneId {
            let id = self.lanes.add_lane(self.now);
            self.lanes.push(id, 0, self.now).unwrap();
            let (place, _) = self.lanes.start_next(self.now).unwrap();
            self.lanes.end(place, Some(took), self.now);
            id
        }

        fn push(&mut self, id: LaneId, jobs: u32) -> u32 {
            (0..jobs).filter(|job| self.lanes.push(id, *job, self.now).is_ok()).count() as u32
        }

        /// Starts whatever may start, and says of which lanes.
        fn start_all(&mut self) -> Vec<Place> {
            std::iter::from_fn(|| self.lanes.start_next(self.now).map(|(place, _)| place)).collect()
        }
    }

    fn of(places: &[Place], id: LaneId) -> usize {
        places.iter().filter(|place| place.lane == id).count()
    }

    #[test]
    fn a_plugin_alone_uses_all_threads_and_leaves_one_when_another_is_in_use() {
        let mut bench = Bench::new(4);
        let one = bench.lane(QUICK);
        bench.push(one, 10);
        assert_eq!(bench.start_all().len(), 4);

        let mut bench = Bench::new(4);
        let one = bench.lane(QUICK);
        let other = bench.lane(QUICK);
        bench.push(one, 10);
        let started = bench.start_all();
        assert_eq!(of(&started, one), 3);
        bench.push(other, 1);
        assert_eq!(of(&bench.start_all(), other), 1);
        // A second without a call of the other, and the whole machine is free again.
        for place in started {
            bench.lanes.end(place, Some(QUICK), bench.now);
        }
        let mut bench = Bench::new(4);
        let one = bench.lane(QUICK);
        bench.lane(QUICK);
        bench.now += IN_USE;
        bench.push(one, 10);
        assert_eq!(bench.start_all().len(), 4);
    }

    #[test]
    fn all_heavy_plugins_together_get_half_of_the_threads() {
        for (threads, half) in [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4)] {
            let mut bench = Bench::new(threads);
            let bad = [bench.lane(DEADLINE), bench.lane(DEADLINE), bench.lane(DEADLINE)];
            let good = bench.lane(QUICK);
            for id in bad {
                bench.push(id, 3);
            }
            assert_eq!(bench.start_all().len(), half, "{threads} threads");
            bench.push(good, 1);
            assert_eq!(of(&bench.start_all(), good), usize::from(threads > 1), "{threads} threads");
        }
    }

    #[test]
    fn a_plugin_that_turns_bad_is_light_again_after_some_seconds() {
        let mut bench = Bench::new(4);
        let one = bench.lane(QUICK);
        assert!(!bench.lanes.lanes[one.0].is_heavy(bench.now));
        bench.push(one, 1);
        let place = bench.start_all().remove(0);
        bench.lanes.end(place, Some(DEADLINE), bench.now);
        assert!(bench.lanes.lanes[one.0].is_heavy(bench.now));
        bench.now += Duration::from_secs(1);
        assert!(bench.lanes.lanes[one.0].is_heavy(bench.now));
        bench.now += Duration::from_secs(2);
        assert!(!bench.lanes.lanes[one.0].is_heavy(bench.now));
    }

    #[test]
    fn a_plugin_that_nothing_is_known_of_runs_one_call_first() {
        let mut bench = Bench::new(4);
        let new = bench.lanes.add_lane(bench.now);
        bench.push(new, 10);
        let started = bench.start_all();
        assert_eq!(started.len(), 1);
        for place in started {
            bench.lanes.end(place, Some(QUICK), bench.now);
        }
        assert_eq!(bench.start_all().len(), 4);
    }

    #[test]
    fn a_queue_holds_what_its_plugin_does_in_a_quarter_of_a_second() {
        let mut bench = Bench::new(2);
        let bad = bench.lane(DEADLINE);
        assert_eq!(bench.push(bad, 100), 5);
        let good = bench.lane(QUICK);
        assert_eq!(bench.push(good, 10_000), LANE_JOBS_MAX as u32);
        let slowest = bench.lane(Duration::from_secs(10));
        assert_eq!(bench.push(slowest, 100), 2);
    }

    #[test]
    fn all_queues_together_are_bounded() {
        let mut bench = Bench::new(2);
        let ids: Vec<_> = (0..10).map(|_| bench.lane(QUICK)).collect();
        let pushed: u32 = ids.iter().map(|id| bench.push(*id, 5000)).sum();
        assert_eq!(pushed as usize, JOBS_MAX + 6 * 2, "four are full, the others have one for each thread");
        assert_eq!(bench.lanes.waiting, pushed as usize);
        assert_eq!(bench.lanes.drain().len(), pushed as usize);
        assert_eq!(bench.lanes.waiting, 0);
    }

    #[test]
    fn who_used_the_least_time_goes_first() {
        let mut bench = Bench::new(1);
        let (cheap, dear) = (bench.lane(QUICK), bench.lane(Duration::from_millis(2)));
        bench.push(cheap, 300);
        bench.push(dear, 100);
        let mut seconds = [0.0; 2];
        for _ in 0..200 {
            let (place, _) = bench.lanes.start_next(bench.now).unwrap();
            let (index, took) = if place.lane == cheap { (0, QUICK) } else { (1, Duration::from_millis(2)) };
            seconds[index] += took.as_secs_f64();
            bench.now += took;
            bench.lanes.end(place, Some(took), bench.now);
        }
        // The cheap one had caught up with the two milliseconds, and then they took turns in time, not in calls.
        assert!((seconds[0] - seconds[1]).abs() < 0.0045, "{seconds:?}");
    }

    #[test]
    fn help_is_called_for_when_work_piles_up_or_a_call_may_be_long() {
        let mut bench = Bench::new(4);
        let quick = bench.lane(QUICK);
        bench.push(quick, 25);
        assert!(!bench.lanes.is_behind(1));
        bench.push(quick, 1);
        assert!(bench.lanes.is_behind(1), "26 calls of 20 µs");
        assert!(!bench.lanes.is_behind(2));
        let bad = bench.lane(DEADLINE);
        bench.push(bad, 1);
        let places = bench.start_all();
        assert!(bench.lanes.is_behind(3), "one of them is of a heavy plugin");
        for place in places {
            bench.lanes.end(place, Some(QUICK), bench.now);
        }
        assert!(!bench.lanes.is_behind(1));
    }

    #[test]
    fn a_chain_goes_on_where_it_is_unless_others_wait_for_its_next_plugin() {
        let mut bench = Bench::new(2);
        let (first, second) = (bench.lane(QUICK), bench.lane(QUICK));
        bench.push(first, 1);
        let place = bench.start_all().remove(0);
        bench.lanes.end(place, Some(QUICK), bench.now);
        let place = bench.lanes.start_here(second, bench.now).unwrap();
        assert!(bench.lanes.start_here(second, bench.now).is_none(), "the last thread is not for it");
        bench.lanes.end(place, Some(QUICK), bench.now);
        bench.push(second, 1);
        assert!(bench.lanes.start_here(second, bench.now).is_none(), "others wait");
    }

    #[test]
    fn places_add_up() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut bench = Bench::new(3);
        let ids: Vec<_> = (0..5).map(|_| bench.lanes.add_lane(bench.now)).collect();
        let mut places = Vec::new();
        for _ in 0..20_000 {
            match random.u8(0..4) {
                0 | 1 => drop(bench.lanes.push(ids[random.usize(0..5)], 0, bench.now)),
                2 => places.extend(bench.lanes.start_next(bench.now).map(|(place, _)| place)),
                _ if !places.is_empty() => {
                    let place = places.swap_remove(random.usize(0..places.len()));
                    bench.now += Duration::from_micros(random.u64(0..30_000));
                    bench.lanes.end(place, Some(Duration::from_micros(random.u64(0..60_000))), bench.now);
                }
                _ => {}
            }
            assert!(places.len() <= 3);
            assert_eq!(bench.lanes.running, places.len());
            assert_eq!(bench.lanes.running, bench.lanes.lanes.iter().map(|lane| lane.running).sum::<usize>());
            assert_eq!(bench.lanes.heavy_running, places.iter().filter(|place| place.heavy).count());
            if places.is_empty() {
                assert!(bench.lanes.waiting == 0 || bench.lanes.can_start(bench.now), "work waits for nothing");
            }
        }
    }
}
