//! The wasmtime engine: with everything off that a plugin does not need, a pool of memories, and the thread that makes
//! deadlines hold.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, Instance, InstanceAllocationStrategy, Module, OptLevel, PoolingAllocationConfig, Store,
    Strategy, Trap, WasmBacktraceDetails,
};

use super::Error;

/// The unit of deadlines. A thousand wakes a second cost nothing that can be measured, and only while a call runs.
const TICK: Duration = Duration::from_millis(1);
/// The most memory any plugin may be given by its config.
pub(super) const MEMORY_BYTES_MAX: usize = 256 << 20;
/// Memories of one component: QuickJS has three, everything else one.
pub(super) const MEMORIES_MAX: u32 = 4;
/// Tables of one component.
pub(super) const TABLES_MAX: u32 = 8;
/// Elements of one table.
pub(super) const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Core instances of one component: the module, and what a componentizer puts around it. CPython with its shared libraries
/// has 38, everything else fewer than 16. They are counted, nothing is reserved for them.
pub(super) const CORE_INSTANCES_MAX: u32 = 64;
/// Stack of the guest.
const STACK_BYTES_MAX: usize = 512 << 10;
/// Components whose memory stays warm: a slot that served a component before is reset faster for it than for another. A slot keeps
/// what it holds when its component goes (a new version at each reload, say), until another takes it: a mebibyte or so each.
const WARM_SLOTS: u32 = 64;
/// How much of a slot's memory is reset in place rather than given back to the system. More than the shipped plugins
/// touch; with all slots warm it bounds what the pool holds. A page that was touched once is reset after every later call of
/// its slot (engines.rs has slots of their own for what touches many).
const KEEP_RESIDENT_BYTES: usize = 2 << 20;

/// Whether instructions are counted. It costs a third of a call's time, so only the tools for authors do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metering {
    /// The router.
    Off,
    /// `branchline plugin test`.
    Instructions,
}

/// What a metered call may use: so much that only its deadline ends it.
pub(super) const INSTRUCTIONS_MAX: u64 = 1 << 62;

/// The engine for calls on `threads` threads at a time.
pub(super) fn engine(threads: usize, metering: Metering) -> Result<Engine, Error> {
    let scan = can_scan_pages();
    // Each memory slot reserves more than 4 GiB of address space. Where that is scarce, fewer slots do.
    let mut warm = WARM_SLOTS;
    loop {
        match Engine::new(&config(threads, warm, scan, metering)) {
            Ok(engine) => return Ok(engine),
            Err(error) if warm >= 16 => {
                tracing::warn!(slots = warm, "the sandbox's memory pool does not fit, trying a smaller one: {error:#}");
                warm /= 4;
            }
            Err(error) => {
                return Err(Error::Engine(format!("{error:#}; is address space limited (`ulimit -v`)?")));
            }
        }
    }
}

/// An engine that only compiles, for the engine above: the machine code is the same, and there is no pool.
pub(super) fn compiling_engine() -> Result<Engine, Error> {
    Engine::new(&code_config(Metering::Off)).map_err(|error| Error::Engine(format!("{error:#}")))
}

fn config(threads: usize, warm_slots: u32, scan: bool, metering: Metering) -> Config {
    let threads = u32::try_from(threads).unwrap_or(u32::MAX / 64).min(1024);
    let slots = threads * 2 + 16;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots * CORE_INSTANCES_MAX)
        .total_memories(warm_slots + threads * MEMORIES_MAX)
        .total_tables(slots * TABLES_MAX)
        .total_gc_heaps(0)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(1)
        .max_tables_per_module(4)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .max_unused_warm_slots(warm_slots);
    if scan {
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(KEEP_RESIDENT_BYTES).table_keep_resident(64 << 10);
    }

    let mut config = code_config(metering);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Everything that the machine code depends on.
fn code_config(metering: Metering) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // The same event gives the same verdict on every machine: NaNs have one form.
        .cranelift_nan_canonicalization(true)
        .parallel_compilation(true)
        .memory_init_cow(true)
        .memory_may_move(false)
        .epoch_interruption(true)
        .consume_fuel(metering == Metering::Instructions)
        .max_wasm_stack(STACK_BYTES_MAX)
        .native_unwind_info(false)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // Proposals that Rust, C and QuickJS guests do not need. Most of wasmtime's advisories are in them. Multi-memory
        // stays on: wasmtime itself joins the parts of a component with it, and panics without (QuickJS has parts).
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .gc_support(false)
        .wasm_threads(false)
        .shared_memory(false)
        .wasm_memory64(false)
        .wasm_tail_call(false)
        .wasm_wide_arithmetic(false)
        .wasm_relaxed_simd(false)
        .wasm_simd(false)
        .concurrency_support(false);
    config
}

/// Says in the log how memory is reset between calls.
pub(super) fn tell_how_memory_is_reset() {
    if can_scan_pages() {
        tracing::info!("plugin memory is reset in place between calls (pagemap scan)");
    } else {
        tracing::info!(
            "plugin memory is given back to the system between calls: the kernel has no pagemap scan, or pages may be swapped"
        );
    }
}

/// Whether dirty pages can be found by asking the kernel, and none can hide in swap (wasmtime#14357).
fn can_scan_pages() -> bool {
    PoolingAllocationConfig::is_pagemap_scan_available()
        && std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| has_no_swap(&swaps))
}

/// `/proc/swaps` is a heading, and a line for each place that pages may go to.
fn has_no_swap(swaps: &str) -> bool {
    swaps.lines().skip(1).all(|line| line.trim().is_empty())
}

/// Calls of some threads. Two threads that wrote the same word, or the same line of the cache, would wait for each other at
/// every call.
#[derive(Default)]
#[repr(align(128))]
struct Running(AtomicUsize);

/// Into how many words the count is split.
const SHARDS: usize = 16;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// Gives this thread a number among those that call plugins: threads with different ones have little in common.
pub(super) fn number_this_thread(number: usize) {
    NUMBER.set(number);
}

/// The number of this thread; 0 when it was given none.
pub(super) fn this_thread() -> usize {
    NUMBER.get()
}

/// Moves the engines' epochs while calls run; a deadline is a number of epochs.
///
/// It is a plain thread, so that it ticks even when every thread of the runtime is busy, and it sleeps when
/// no plugin runs.
pub(super) struct Ticker {
    running: [Running; SHARDS],
    /// Whether the thread sleeps, or is about to, because no plugin runs.
    asleep: AtomicBool,
    stopped: AtomicBool,
    thread: Thread,
    at_each_tick: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Ticker {
    /// Starts the thread. It ends when the engines are gone or [`Ticker::stop`] was called.
    pub(super) fn start<'a>(engines: impl IntoIterator<Item = &'a Engine>) -> Result<Arc<Self>, Error> {
        let (sender, receiver) = mpsc::sync_channel::<Arc<Self>>(1);
        let engines: Vec<_> = engines.into_iter().map(Engine::weak).collect();
        let handle = thread::Builder::new()
            .name("plugin-epoch".to_owned())
            .spawn(move || {
                let Ok(ticker) = receiver.recv() else { return };
                while !ticker.stopped.load(Ordering::Acquire) {
                    if ticker.rest() {
                        continue;
                    }
                    thread::sleep(TICK);
                    for engine in &engines {
                        let Some(engine) = engine.upgrade() else { return };
                        engine.increment_epoch();
                    }
                    if let Some(action) = ticker.at_each_tick.get() {
                        action();
                    }
                }
            })
            .map_err(Error::Thread)?;
        let ticker = Arc::new(Self {
            running: Default::default(),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            thread: handle.thread().clone(),
            at_each_tick: OnceLock::new(),
        });
        sender.send(Arc::clone(&ticker)).map_err(|_| Error::Engine("the epoch thread ended".to_owned()))?;
        Ok(ticker)
    }

    /// Does this too at each tick. Whoever says so first is heard.
    pub(super) fn at_each_tick(&self, action: impl Fn() + Send + Sync + 'static) {
        let _ = self.at_each_tick.set(Box::new(action));
    }

    /// A call begins. It ends when the guard is dropped.
    pub(super) fn call(&self) -> TickerGuard<'_> {
        let running = &self.running[this_thread() % SHARDS].0;
        running.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        TickerGuard(running)
    }

    /// Sleeps until a call begins, unless one runs. Either the call sees that this sleeps or this sees the call: each writes
    /// its own word before it reads the other's.
    fn rest(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let is_idle = self.running.iter().all(|running| running.0.load(Ordering::SeqCst) == 0);
        if is_idle {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
        is_idle
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Epochs move while one of these exists.
pub(super) struct TickerGuard<'a>(&'a AtomicUsize);

impl Drop for TickerGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A deadline in epochs. One more than its length, since the running epoch has already begun.
pub(super) fn ticks(deadline: Duration) -> u64 {
    u64::try_from(deadline.as_micros().div_ceil(TICK.as_micros())).unwrap_or(u64::MAX / 2).saturating_add(1)
}

/// `(module (func (loop (br 0))) (start 0))`
const ENDLESS_LOOP: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x08\x01\0\x0a\x09\x01\x07\0\x03\x40\x0c\0\x0b\x0b";

/// Runs an endless loop and sees that its deadline stops it.
///
/// Without this, a mistake in the engine's settings would show as a router whose plugin threads are all gone.
pub(super) fn self_test(engine: &Engine, ticker: &Arc<Ticker>, metering: Metering) -> Result<(), Error> {
    /// Far longer than the loop may take, even on a machine that is very busy.
    const PATIENCE: Duration = Duration::from_secs(10);

    let (sender, receiver) = mpsc::sync_channel(1);
    let (engine, ticker) = (engine.clone(), Arc::clone(ticker));
    thread::Builder::new()
        .name("plugin-self-test".to_owned())
        .spawn(move || {
            let run = || {
                let module = Module::from_binary(&engine, ENDLESS_LOOP)?;
                let mut store = Store::new(&engine, ());
                if metering == Metering::Instructions {
                    store.set_fuel(INSTRUCTIONS_MAX)?;
                }
                store.epoch_deadline_trap();
                store.set_epoch_deadline(ticks(TICK));
                let _guard = ticker.call();
                Instance::new(&mut store, &module, &[]).map(|_| ())
            };
            let _ = sender.send(run());
        })
        .map_err(Error::Thread)?;
    match receiver.recv_timeout(PATIENCE) {
        Ok(Err(error)) if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) => Ok(()),
        Ok(Err(error)) => Err(Error::Engine(format!("the self-test failed: {error:#}"))),
        Ok(Ok(())) | Err(_) => Err(Error::NotInterrupted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_seen_in_proc_swaps() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(has_no_swap(heading));
        assert!(has_no_swap(""));
        assert!(!has_no_swap(&format!("{heading}/dev/sda2 partition 8388604 0 -2\n")));
    }

    #[test]
    fn what_a_compiling_engine_makes_is_what_the_sandbox_would_make() {
        let component = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/slack.wasm"));
        let compile = |engine: &Engine| engine.precompile_component(component).unwrap();
        assert!(
            compile(&engine(2, Metering::Off).unwrap()) == compile(&compiling_engine().unwrap()),
            "the machine code differs"
        );
    }

    #[test]
    fn deadlines_are_rounded_up_to_ticks() {
        assert_eq!(ticks(Duration::from_millis(50)), 51);
        assert_eq!(ticks(Duration::from_micros(1)), 2);
        assert_eq!(ticks(Duration::from_secs(10)), 10_001);
    }

    #[test]
    fn an_endless_loop_is_interrupted_again_and_again() {
        for metering in [Metering::Off, Metering::Instructions] {
            let engine = engine(2, metering).unwrap();
            let ticker = Ticker::start([&engine]).unwrap();
            for _ in 0..3 {
                self_test(&engine, &ticker, metering).unwrap();
            }
            ticker.stop();
        }
    }
}
