//! How long calls of a plugin take: the calls of the router in a loop, on threads of their own without its queues, and
//! beside them the same calls with nothing of ours around them. For the authors of plugins.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use wasmtime::Store;

use super::bindings::Event as GuestEvent;
use super::call;
use super::engine::number_this_thread;
use super::host::{Plugin, PluginHost};
use super::imports::{CallState, Standing, Subject};
use super::verdict::Fault;
use crate::delivery::PluginFaultKind;
use crate::event::Event;

/// Calls whose times are kept, of each thread; 8 bytes each.
const SAMPLES_MAX: usize = 1 << 20;
/// Calls before it counts: memory, caches and branch predictors are then as they are in a router at work.
const WARM_UP: Duration = Duration::from_millis(200);

/// What to call, and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// The plugin's config as JSON text.
    pub config: Arc<str>,
    /// The event of every call.
    pub event: Arc<Event>,
    /// Threads that call at one time.
    pub threads: usize,
    /// How long they go on.
    pub duration: Duration,
}

/// The middle and the tail of many times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Half of the calls were faster.
    pub median: Duration,
    /// One call in a hundred was slower.
    pub p99: Duration,
}

/// What a load came to.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// Calls that ended.
    pub calls: u64,
    /// Those among them that ran past their deadline. Few are the machine's doing, where others work on it too.
    pub late: u64,
    /// How long they went on.
    pub elapsed: Duration,
    /// Whole calls.
    pub whole: Spread,
    /// Making the instance.
    pub instantiation: Spread,
    /// The rest: the plugin's own code, checking what it returned, throwing the instance away.
    pub execution: Spread,
}

impl Measurement {
    /// Calls per second, of all threads.
    pub fn per_second(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }
}

impl PluginHost {
    /// Calls a plugin over and over, and blocks until it is done. The first call that fails ends
    /// it, but for one that runs past its deadline.
    pub fn measure(&self, plugin: &Arc<Plugin>, load: &Load) -> Result<Measurement, Fault> {
        let ticker = self.ticker();
        run(load, |subject, event| {
            let pre = plugin.loaded.instances.here(event);
            let report = call::handle(plugin, pre, ticker, subject, event);
            match report.verdict {
                Ok(_) => Ok(Some((report.instantiation, report.duration))),
                Err(fault) if fault.kind == PluginFaultKind::Deadline => Ok(None),
                Err(fault) => Err(fault),
            }
        })
    }

    /// The same with a bare wasmtime: a fresh instance and the call, without limits, and the result not looked at.
    pub fn measure_bare(&self, plugin: &Arc<Plugin>, load: &Load) -> Result<Measurement, Fault> {
        run(load, |subject, event| {
            let pre = plugin.loaded.instances.here(event);
            let started = Instant::now();
            let mut store = Store::new(pre.engine(), CallState::new(subject, super::engine::MEMORY_BYTES_MAX));
            store.set_epoch_deadline(u64::MAX / 2);
            let guest = GuestEvent {
                id: &event.id,
                event_type: &event.event_type,
                aggregate_type: &event.aggregate_type,
                aggregate_id: &event.aggregate_id,
                occurred_at: &event.occurred_at,
                payload: &event.payload,
                metadata: &event.metadata,
            };
            let failed =
                |error: wasmtime::Error| Fault::new(PluginFaultKind::Trap, format!("{:#}", error.root_cause()));
            let instance = pre.instantiate(&mut store).map_err(failed)?;
            let instantiation = started.elapsed();
            // What the plugin itself says, an error too, was seen by `measure`.
            let _ = instance.call_handle(&mut store, guest).map_err(failed)?;
            drop(store);
            Ok(Some((instantiation, started.elapsed())))
        })
    }
}

/// How long making the instance and the whole call took; none where it passed its deadline.
type Times = Option<(Duration, Duration)>;

fn run(load: &Load, call: impl Fn(Subject, &Arc<Event>) -> Result<Times, Fault> + Sync) -> Result<Measurement, Fault> {
    let subscription: Arc<str> = "bench".into();
    let together = Barrier::new(load.threads);
    let one_thread = |number| -> Result<(Samples, Duration), Fault> {
        number_this_thread(number);
        // In a router too no two threads have the same event, and each has a standing of its own.
        let (event, standing) = (Arc::new((*load.event).clone()), Standing::new(&subscription, 0, &load.config));
        let one = || call(Subject { event: Some(Arc::clone(&event)), standing: Arc::clone(&standing) }, &event);
        let warm = repeat(WARM_UP.min(load.duration), one);
        together.wait();
        warm?;
        repeat(load.duration, one)
    };
    let ended: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..load.threads).map(|number| scope.spawn(move || one_thread(number))).collect();
        running.into_iter().map(|thread| thread.join()).collect()
    });
    let mut all = Samples::default();
    let mut elapsed = Duration::ZERO;
    for thread in ended {
        let (samples, time) = thread
            .unwrap_or_else(|_| Err(Fault::new(PluginFaultKind::Host, "a thread of the measurement panicked")))?;
        all.calls += samples.calls;
        all.late += samples.late;
        all.times.extend(samples.times);
        elapsed = elapsed.max(time);
    }
    if all.times.is_empty() {
        return Err(Fault::new(PluginFaultKind::Deadline, "every call ran past its deadline"));
    }
    Ok(Measurement {
        calls: all.calls,
        late: all.late,
        elapsed,
        whole: all.spread(|(_, whole)| whole),
        instantiation: all.spread(|(instantiation, _)| instantiation),
        execution: all.spread(|(instantiation, whole)| whole.saturating_sub(instantiation)),
    })
}

#[derive(Default)]
struct Samples {
    calls: u64,
    late: u64,
    /// Nanoseconds of instantiation and of the whole.
    times: Vec<(u32, u32)>,
}

impl Samples {
    fn spread(&self, of: impl Fn((u32, u32)) -> u32) -> Spread {
        let mut times: Vec<_> = self.times.iter().map(|times| of(*times)).collect();
        times.sort_unstable();
        let at = |percent: usize| {
            times.get(times.len() * percent / 100).map_or(Duration::ZERO, |nanos| Duration::from_nanos((*nanos).into()))
        };
        Spread { median: at(50), p99: at(99) }
    }
}

fn repeat(duration: Duration, mut call: impl FnMut() -> Result<Times, Fault>) -> Result<(Samples, Duration), Fault> {
    let nanos = |time: Duration| u32::try_from(time.as_nanos()).unwrap_or(u32::MAX);
    let started = Instant::now();
    let mut samples = Samples::default();
    loop {
        samples.calls += 1;
        match call()? {
            Some((instantiation, whole)) if samples.times.len() < SAMPLES_MAX => {
                samples.times.push((nanos(instantiation), nanos(whole)));
            }
            Some(_) => {}
            None => samples.late += 1,
        }
        let elapsed = started.elapsed();
        if elapsed >= duration {
            return Ok((samples, elapsed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_tail_are_told() {
        let samples = Samples { calls: 100, late: 0, times: (0..100).map(|time| (1, time)).collect() };
        let spread = samples.spread(|(_, whole)| whole);
        assert_eq!((spread.median.as_nanos(), spread.p99.as_nanos()), (50, 99));
        assert_eq!(Samples::default().spread(|(_, whole)| whole), Spread::default());
    }
}
