//! One call: a fresh store and a fresh instance, the guest's code under its limits, and the instance thrown away, so that
//! nothing of an event is left for the next one. What went wrong is told apart by whose limit it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};

use super::bindings::{Event as GuestEvent, PluginPre};
use super::engine::{INSTRUCTIONS_MAX, Metering, Ticker, ticks};
use super::host::Plugin;
use super::imports::{CallState, Standing, Subject};
use super::log::LogLine;
use super::text::tame;
use super::verdict::{self, Fault, Verdict};
use crate::delivery::PluginFaultKind;
use crate::event::Event;

/// What a plugin may hand over beyond its output: the shapes of lists and records count too.
const HANDED_OVER_SLACK_BYTES: usize = 64 << 10;
/// Handles of resources; the contract has none.
const HANDLES_MAX: usize = 16;
/// How often a config is checked whose check runs past its deadline.
const CONFIG_TRIES: u32 = 3;
/// The longest text about a trap.
const DETAIL_BYTES_MAX: usize = 400;

/// One call, ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the plugin said, or how it failed.
    pub verdict: Result<Verdict, Fault>,
    /// From before the instance was made to after it was thrown away.
    pub duration: Duration,
    /// The part of it until the instance could be called.
    pub instantiation: Duration,
    /// Instructions that it executed, where the sandbox counts them.
    pub instructions: Option<u64>,
    /// The most linear memory that it had.
    pub memory_bytes_peak: usize,
    /// What it logged.
    pub log: Vec<LogLine>,
}

impl Report {
    /// Nothing ran, through no fault of the plugin's.
    pub(super) fn not_run(why: &str) -> Self {
        Self {
            verdict: Err(Fault::new(PluginFaultKind::Host, why)),
            duration: Duration::ZERO,
            instantiation: Duration::ZERO,
            instructions: None,
            memory_bytes_peak: 0,
            log: Vec::new(),
        }
    }
}

/// Calls `handle` of `plugin` with `event`, in the engine of `pre`.
pub(super) fn handle(
    plugin: &Plugin,
    pre: &PluginPre<CallState>,
    ticker: &Ticker,
    subject: Subject,
    event: &Event,
) -> Report {
    let started = Instant::now();
    let mut instantiation = Duration::ZERO;
    let (returned, state) = run(plugin, pre, ticker, subject, |store| {
        let guest = GuestEvent {
            id: &event.id,
            event_type: &event.event_type,
            aggregate_type: &event.aggregate_type,
            aggregate_id: &event.aggregate_id,
            occurred_at: &event.occurred_at,
            payload: &event.payload,
            metadata: &event.metadata,
        };
        let instance = pre.instantiate(&mut *store)?;
        store.data_mut().instantiated = true;
        instantiation = started.elapsed();
        instance.call_handle(store, guest)
    });
    let verdict = returned.and_then(|returned| verdict::check(returned, event, plugin.output_bytes_max));
    Report {
        verdict,
        duration: started.elapsed(),
        instantiation,
        instructions: state.instructions,
        memory_bytes_peak: state.memory.peak_bytes,
        log: state.log.lines,
    }
}

/// Calls `validate-config` of `plugin`, if it has one.
pub(super) fn validate_config(plugin: &Plugin, ticker: &Ticker, config: &Arc<str>) -> Result<(), String> {
    let Some(index) = &plugin.loaded.validate_config else { return Ok(()) };
    let pre = plugin.loaded.instances.first();
    let mut tries = 1;
    loop {
        let subject = Subject { event: None, standing: Standing::new(&"".into(), 0, config) };
        let (returned, _) = run(plugin, pre, ticker, subject, |store| {
            let instance = pre.instance_pre().instantiate(&mut *store)?;
            store.data_mut().instantiated = true;
            let (returned,) = instance
                .get_typed_func::<(&str,), (Result<(), String>,)>(&mut *store, index)?
                .call(store, (config,))?;
            Ok(returned)
        });
        match returned {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(text)) => return Err(tame(&text, 1024)),
            // On a busy machine that may not be the plugin's doing, and a config that is refused refuses a whole reload.
            Err(fault) if fault.kind == PluginFaultKind::Deadline && tries < CONFIG_TRIES => tries += 1,
            Err(fault) => return Err(format!("the check of the config failed: {}", fault.detail)),
        }
    }
}

/// Runs guest code under the plugin's limits. The store is gone when this returns.
fn run<R>(
    plugin: &Plugin,
    pre: &PluginPre<CallState>,
    ticker: &Ticker,
    subject: Subject,
    body: impl FnOnce(&mut Store<CallState>) -> wasmtime::Result<R>,
) -> (Result<R, Fault>, CallState) {
    let mut store = Store::new(pre.engine(), CallState::new(subject, plugin.memory_bytes_max));
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(plugin.output_bytes_max.saturating_add(HANDED_OVER_SLACK_BYTES));
    store.set_max_component_handles(HANDLES_MAX);
    store.epoch_deadline_trap();
    if plugin.metering == Metering::Instructions {
        // It fails only where the engine doesn't count, and then there is nothing to tell.
        let _ = store.set_fuel(INSTRUCTIONS_MAX);
    }
    let guard = ticker.call();
    // Before the instance is made: start functions run there.
    store.set_epoch_deadline(ticks(plugin.deadline));
    let returned = body(&mut store);
    drop(guard);
    if plugin.metering == Metering::Instructions {
        store.data_mut().instructions = store.get_fuel().ok().map(|left| INSTRUCTIONS_MAX - left);
    }
    let state = store.into_data();
    state.log.write(&plugin.name, state.subject(), &plugin.log_budget);
    (returned.map_err(|error| fault(plugin, &state, &error)), state)
}

/// What an error of wasmtime means.
fn fault(plugin: &Plugin, state: &CallState, error: &wasmtime::Error) -> Fault {
    if let Some(asked) = state.memory.denied {
        let limit = plugin.memory_bytes_max;
        let detail = format!("it asked for {asked} bytes of memory, over its limit of {limit} (`memory_bytes_max`)");
        return Fault::new(PluginFaultKind::Memory, detail);
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Fault::new(PluginFaultKind::Host, format!("the sandbox's pool is used up: {error}"));
    }
    let Some(trap) = error.downcast_ref::<Trap>() else {
        if !state.instantiated {
            let text = tame(&format!("{error:#}"), DETAIL_BYTES_MAX);
            return Fault::new(PluginFaultKind::Host, format!("no instance could be made: {text}"));
        }
        // Not the guest's code but what it handed over: a bad pointer, a text that is not UTF-8, too many bytes.
        let text = tame(&error.root_cause().to_string(), DETAIL_BYTES_MAX);
        let detail = if text.contains("hostcalls has been exhausted") {
            format!("it handed over more bytes than its limit of {} (`output_bytes_max`)", plugin.output_bytes_max)
        } else {
            format!("it handed over a value that can't be read: {text}")
        };
        return Fault::new(PluginFaultKind::BadOutput, detail);
    };
    match trap {
        Trap::Interrupt => {
            let deadline = plugin.deadline.as_millis();
            Fault::new(PluginFaultKind::Deadline, format!("it ran past its deadline of {deadline} ms (`deadline`)"))
        }
        Trap::StackOverflow => {
            Fault::new(PluginFaultKind::Stack, "it ran out of stack: a recursion that does not end?")
        }
        Trap::StringOutOfBounds
        | Trap::ListOutOfBounds
        | Trap::InvalidDiscriminant
        | Trap::InvalidChar
        | Trap::UnalignedPointer => {
            Fault::new(PluginFaultKind::BadOutput, format!("it handed over a value that can't be read: {trap}"))
        }
        trap => Fault::new(PluginFaultKind::Trap, format!("{trap}{}", place(error))),
    }
}

/// The innermost functions of a trap, where the component has names.
fn place(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let names: Vec<_> = backtrace.frames().iter().filter_map(|frame| frame.func_name()).take(3).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(" in {}", tame(&names.join(", called by "), DETAIL_BYTES_MAX))
}
