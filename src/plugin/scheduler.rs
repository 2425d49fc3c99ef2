//! The threads that run plugins, and the jobs that wait for them. Guest code never runs on the runtime's threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wasmtime::Engine;

use super::Error;
use super::bindings::PluginPre;
use super::call::{self, Report};
use super::chain::{self, After};
use super::engine::{Ticker, number_this_thread};
use super::host::{Chain, ChainEnd, ChainRun, Link, Plugin};
use super::imports::{CallState, Subject};
use super::lanes::{LaneId, Lanes, Place};
use super::threads::Threads;
use crate::breaker::{Change, Pass};
use crate::delivery::{NoteKind, PluginFaultKind, PluginNote};
use crate::event::Event;
use crate::metrics::Metrics;
use crate::route::PluginMode;

/// A job that waited longer is not run: its caller parks the work, and the queue gets short again.
const WAITED_MAX: Duration = Duration::from_secs(1);
/// Stack of a thread: the guest's 512 KiB, and the host's beneath and above it.
const STACK_BYTES: usize = 4 << 20;

/// Work for a plugin.
pub(super) enum Job {
    /// A chain, from one of its links on.
    Chain(ChainJob),
    /// One call, with a report.
    Once { plugin: Arc<Plugin>, subject: Subject, event: Arc<Event>, reply: oneshot::Sender<Report> },
    /// A check of a config.
    Config { plugin: Arc<Plugin>, config: Arc<str>, reply: oneshot::Sender<Result<(), String>> },
}

/// A chain on its way.
pub(super) struct ChainJob {
    pub(super) chain: Arc<Chain>,
    /// The link that is next.
    pub(super) position: usize,
    pub(super) event: Arc<Event>,
    pub(super) changed: bool,
    pub(super) notes: Vec<PluginNote>,
    pub(super) reply: oneshot::Sender<ChainRun>,
    pub(super) queued: Instant,
}

/// The queues, and the threads that empty them.
pub(super) struct Scheduler {
    state: Mutex<State>,
    /// The lane of what is no delivery: what a new version does when it is checked is not held against the one in use.
    checks: LaneId,
    wake: Condvar,
    ticker: Arc<Ticker>,
    metrics: Metrics,
}

struct State {
    lanes: Lanes<Job>,
    names: Vec<(Arc<str>, LaneId)>,
    threads: Threads,
    /// Jobs that were started, and how many of them the last look saw.
    started: u64,
    seen: u64,
    stopped: bool,
}

impl Scheduler {
    /// Starts the threads.
    pub(super) fn start(threads: usize, ticker: Arc<Ticker>, metrics: Metrics) -> Result<Arc<Self>, Error> {
        let mut lanes = Lanes::new(threads);
        let checks = lanes.add_lane(Instant::now());
        let state =
            State { lanes, names: Vec::new(), threads: Threads::new(threads), started: 0, seen: 0, stopped: false };
        let scheduler = Arc::new(Self { state: Mutex::new(state), checks, wake: Condvar::new(), ticker, metrics });
        let looks = Arc::downgrade(&scheduler);
        scheduler.ticker.at_each_tick(move || {
            if let Some(scheduler) = looks.upgrade() {
                scheduler.look();
            }
        });
        for number in 0..threads {
            let worker = Arc::clone(&scheduler);
            let spawned =
                thread::Builder::new().name(format!("plugin-{number}")).stack_size(STACK_BYTES).spawn(move || {
                    // The signal stack that traps need: made now rather than in the first call.
                    Engine::tls_eager_initialize();
                    number_this_thread(number);
                    worker.work();
                });
            if let Err(error) = spawned {
                scheduler.stop();
                return Err(Error::Thread(error));
            }
        }
        Ok(scheduler)
    }

    /// Ends the threads when their calls have ended. What waits is dropped, which its callers see.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        let waiting = state.lanes.drain();
        drop(state);
        drop(waiting);
        self.wake.notify_all();
        self.ticker.stop();
    }

    /// The lane of the plugins of this name: a plugin that is loaded again takes its past with it.
    pub(super) fn lane(&self, name: &Arc<str>) -> LaneId {
        let mut state = self.state();
        if let Some((_, lane)) = state.names.iter().find(|(known, _)| known == name) {
            return *lane;
        }
        let lane = state.lanes.add_lane(Instant::now());
        state.names.push((Arc::clone(name), lane));
        lane
    }

    /// Puts a job into its plugin's queue. Where the plugin is over its share the job is dropped, which its caller sees.
    pub(super) fn push(&self, job: Job) {
        let now = Instant::now();
        let mut state = self.state();
        if state.stopped {
            return;
        }
        let refused = match job {
            // A caller waits for each of these, one at a time, and has nothing to park.
            job @ (Job::Once { .. } | Job::Config { .. }) => {
                state.lanes.push_first(self.checks, job, now);
                None
            }
            Job::Chain(job) => state.lanes.push(job.link().plugin.lane, Job::Chain(job), now).err(),
        };
        self.release(state, now);
        drop(refused);
    }

    /// A tick has passed, and a call runs. Work may have waited for all of it behind a long call, or may start only now.
    fn look(&self) {
        let mut state = self.state();
        let stuck = state.started == state.seen;
        state.seen = state.started;
        self.release_if(state, Instant::now(), |_| stuck);
    }

    /// What calls and chains cost.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What makes deadlines hold.
    pub(super) fn ticker(&self) -> &Ticker {
        &self.ticker
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that panics runs while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does until the end.
    fn work(&self) {
        let mut state = self.state();
        loop {
            if state.stopped {
                return;
            }
            let now = Instant::now();
            let Some((place, job)) = state.lanes.start_next(now) else {
                state.threads.sleeps();
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.threads.wakes();
                continue;
            };
            state.started += 1;
            self.release(state, now);
            state = self.run(place, job);
        }
    }

    /// Gives the state back, and wakes a thread where those that are awake have too much to do.
    fn release(&self, state: MutexGuard<'_, State>, now: Instant) {
        self.release_if(state, now, |state| state.lanes.is_behind(state.threads.awake()));
    }

    /// Gives the state back, and wakes a thread if none is awake or `needed` says so, and there is something that it may start.
    fn release_if(&self, mut state: MutexGuard<'_, State>, now: Instant, needed: impl FnOnce(&State) -> bool) {
        let may_help = state.threads.any_asleep() && (state.threads.awake() == 0 || needed(&state));
        let wake = may_help && state.lanes.can_start(now);
        if wake {
            state.threads.is_called();
        }
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Runs a job to its end, or to where it has to wait again.
    fn run(&self, mut place: Place, mut job: Job) -> MutexGuard<'_, State> {
        loop {
            let started = Instant::now();
            let rest = self.step(job, started);
            let now = Instant::now();
            let mut state = self.state();
            let (took, rest) = match rest {
                Step::NotRun => (None, None),
                Step::Ended => (Some(now - started), None),
                Step::GoesOn(rest) => (Some(now - started), Some(rest)),
            };
            state.lanes.end(place, took, now);
            let Some(rest) = rest else { return state };
            let lane = rest.link().plugin.lane;
            match state.lanes.start_here(lane, now) {
                Some(next) => {
                    (place, job) = (next, Job::Chain(rest));
                    state.started += 1;
                    self.release(state, now);
                }
                None => {
                    let refused = state.lanes.push(lane, Job::Chain(rest), now);
                    if refused.is_err() {
                        drop(state);
                        drop(refused);
                        return self.state();
                    }
                    return state;
                }
            }
        }
    }

    fn step(&self, job: Job, now: Instant) -> Step {
        match job {
            Job::Chain(job) => self.step_chain(job, now),
            Job::Once { plugin, subject, event, reply } => {
                let _ = reply.send(self.call(&plugin, plugin.loaded.instances.first(), subject, &event));
                Step::Ended
            }
            Job::Config { plugin, config, reply } => {
                let checked = catch_unwind(AssertUnwindSafe(|| call::validate_config(&plugin, &self.ticker, &config)));
                let _ = reply.send(checked.unwrap_or_else(|_| Err("the sandbox failed; this is a bug".to_owned())));
                Step::Ended
            }
        }
    }

    fn step_chain(&self, mut job: ChainJob, now: Instant) -> Step {
        if job.reply.is_closed() {
            return Step::NotRun;
        }
        if now.saturating_duration_since(job.queued) > WAITED_MAX {
            return job.end(ChainEnd::Busy, Step::NotRun);
        }
        // One count for all of the link: its plugin, config and breaker have counts that all threads share.
        let chain = Arc::clone(&job.chain);
        let link = &chain.links[job.position];
        let name = &link.plugin.name;
        let is_shadow = link.mode == PluginMode::Shadow;
        let pass = match link.breaker.as_ref().map(|breaker| breaker.admit(now)).transpose() {
            Ok(pass) => pass,
            Err(after) if !is_shadow => {
                return job.end(ChainEnd::Open { plugin: Arc::clone(name), after }, Step::NotRun);
            }
            Err(_) => {
                job.note(name, NoteKind::Shadow, "not run: it keeps breaking".to_owned());
                return job.go_on();
            }
        };
        let standing = Arc::clone(chain.standing(job.position));
        let subject = Subject { event: Some(Arc::clone(&job.event)), standing };
        let report = self.call(&link.plugin, link.plugin.loaded.instances.here(&job.event), subject, &job.event);
        let word = match &report.verdict {
            Ok(verdict) => verdict.as_str(),
            Err(fault) => fault.kind.as_str(),
        };
        self.metrics.plugin_call(name, word, report.duration);
        if let Some(pass) = pass {
            self.tell_breaker(pass, name, &report);
        }
        match chain::after(link, &job.event, report.verdict) {
            After::Unchanged => {}
            After::Changed(event) => (job.event, job.changed) = (event, true),
            After::Noted(kind, detail) => job.note(name, kind, detail),
            After::End(end) => return job.end(end, Step::Ended),
        }
        job.go_on()
    }

    /// A call's end, for the breaker: what the plugin itself declares as an error is no fault, and neither is ours.
    fn tell_breaker(&self, pass: Pass, plugin: &Arc<str>, report: &Report) {
        let is_fault = match &report.verdict {
            Ok(_) => false,
            Err(fault) => !matches!(fault.kind, PluginFaultKind::Error | PluginFaultKind::Host),
        };
        match pass.ended(Instant::now(), is_fault) {
            Change::None => {}
            Change::Opened(pause) => {
                self.metrics.plugin_breaker(plugin, true);
                tracing::warn!(%plugin, "the plugin keeps breaking: its deliveries wait, one tries again in {pause:?}");
            }
            Change::Closed => {
                self.metrics.plugin_breaker(plugin, false);
                tracing::info!(%plugin, "the plugin works again");
            }
        }
    }

    /// One call, whose panic would be ours and ends nothing but the call.
    fn call(&self, plugin: &Plugin, pre: &PluginPre<CallState>, subject: Subject, event: &Event) -> Report {
        let called = catch_unwind(AssertUnwindSafe(|| call::handle(plugin, pre, &self.ticker, subject, event)));
        called.unwrap_or_else(|_| Report::not_run("the sandbox failed; this is a bug"))
    }
}

/// What became of a job's turn.
enum Step {
    /// Nobody waits for it any more, or it waited too long.
    NotRun,
    /// It ran, and the caller has its answer.
    Ended,
    /// It ran, and the chain's next plugin is to follow.
    GoesOn(ChainJob),
}

impl ChainJob {
    /// The link that is next. A job exists only while there is one.
    fn link(&self) -> &Link {
        &self.chain.links[self.position]
    }

    /// To the next link, or to the end.
    fn go_on(mut self) -> Step {
        self.position += 1;
        if self.position < self.chain.links.len() {
            return Step::GoesOn(self);
        }
        let (event, changed) = (Arc::clone(&self.event), self.changed);
        self.end(ChainEnd::Event { event, changed }, Step::Ended)
    }

    fn note(&mut self, plugin: &Arc<str>, kind: NoteKind, detail: String) {
        self.notes.push(PluginNote { plugin: plugin.to_string(), kind, detail });
    }

    fn end(self, end: ChainEnd, step: Step) -> Step {
        let _ = self.reply.send(ChainRun { end, notes: self.notes });
        step
    }
}
