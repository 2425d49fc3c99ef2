//! What a plugin may ask of the host during a call: its config, the time and chance that follow from the event, and
//! lines in the log. And what the host keeps count of: its memory.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::ResourceLimiter;

use super::bindings::branchline::plugin::{host, types};
use super::engine::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use super::log::{CallLog, LogLevel};
use crate::event::Event;

/// Bytes that `random` gives at most.
const RANDOM_BYTES_MAX: usize = 4096;

/// What a call is about: everything that time and chance derive from.
pub(super) struct Subject {
    /// None when a config is checked.
    pub(super) event: Option<Arc<Event>>,
    pub(super) standing: Arc<Standing>,
}

/// Where a plugin stands: what all its calls for a subscription have in common. A thread counts references of its own copy
/// only, on a line of the cache of its own: two that counted the same would wait for each other at every call.
#[repr(align(128))]
pub(super) struct Standing {
    pub(super) subscription: Arc<str>,
    /// The plugin's place in the chain.
    pub(super) position: usize,
    pub(super) config: Arc<str>,
}

impl fmt::Debug for Standing {
    /// Without the config, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.subscription, self.position)
    }
}

impl Standing {
    pub(super) fn new(subscription: &Arc<str>, position: usize, config: &Arc<str>) -> Arc<Self> {
        Arc::new(Self { subscription: Arc::clone(subscription), position, config: Arc::clone(config) })
    }
}

/// The host's side of one call. It is made for the call and dropped with it.
pub(super) struct CallState {
    subject: Subject,
    pub(super) memory: MemoryLimit,
    pub(super) log: CallLog,
    /// Whether the instance was made; what fails before that without a trap is the host's fault.
    pub(super) instantiated: bool,
    /// Instructions executed, where they are counted.
    pub(super) instructions: Option<u64>,
    random_calls: u64,
}

impl CallState {
    pub(super) fn new(subject: Subject, memory_bytes_max: usize) -> Self {
        Self {
            subject,
            memory: MemoryLimit { bytes_max: memory_bytes_max, bytes: 0, peak_bytes: 0, denied: None },
            log: CallLog::default(),
            instantiated: false,
            instructions: None,
            random_calls: 0,
        }
    }

    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }
}

impl types::Host for CallState {}

impl host::Host for CallState {
    fn log(&mut self, level: host::Level, message: String) {
        let level = match level {
            host::Level::Debug => LogLevel::Debug,
            host::Level::Info => LogLevel::Info,
            host::Level::Warn => LogLevel::Warn,
            host::Level::Error => LogLevel::Error,
        };
        self.log.add(level, &message);
    }

    fn config(&mut self) -> String {
        (*self.subject.standing.config).to_owned()
    }

    fn now_ms(&mut self) -> u64 {
        self.subject.event.as_ref().map_or(0, |event| event.accepted_at.as_millis())
    }

    fn random(&mut self, length: u32) -> Vec<u8> {
        let length = usize::try_from(length).unwrap_or(RANDOM_BYTES_MAX).min(RANDOM_BYTES_MAX);
        let call = self.random_calls;
        self.random_calls += 1;
        derive_random(&self.subject, call, length)
    }
}

/// `length` bytes that depend on the event, the subscription, the plugin's place in the chain and how many times it has
/// asked, and on nothing else: SHA-256 over a counter.
fn derive_random(subject: &Subject, call: u64, length: usize) -> Vec<u8> {
    let mut seed = Sha256::new();
    let (source, id, accepted_at) = subject
        .event
        .as_deref()
        .map_or(("", "", 0), |event| (&*event.source, &*event.id, event.accepted_at.as_millis()));
    for part in ["branchline:plugin/host.random 1", source, id, &subject.standing.subscription] {
        seed.update((part.len() as u64).to_le_bytes());
        seed.update(part);
    }
    for number in [accepted_at, subject.standing.position as u64, call] {
        seed.update(number.to_le_bytes());
    }
    let seed = seed.finalize();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(seed.len()));
    let mut block = 0_u64;
    while bytes.len() < length {
        bytes.extend_from_slice(&Sha256::new().chain_update(seed).chain_update(block.to_le_bytes()).finalize());
        block += 1;
    }
    bytes.truncate(length);
    bytes
}

/// Counts linear memory over all memories of a call.
pub(super) struct MemoryLimit {
    bytes_max: usize,
    bytes: usize,
    /// The most it had.
    pub(super) peak_bytes: usize,
    /// What it asked for when it asked for too much.
    pub(super) denied: Option<usize>,
}

impl ResourceLimiter for MemoryLimit {
    /// Growing past the limit ends the call: a guest that goes on with -1 fails later and less clearly.
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false); // The plugin's own maximum: it asked to be told.
        }
        let total = self.bytes.saturating_sub(current).saturating_add(desired);
        if total > self.bytes_max {
            self.denied = Some(total);
            return Err(wasmtime::format_err!("over the plugin's memory limit"));
        }
        self.bytes = total;
        self.peak_bytes = self.peak_bytes.max(total);
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event;

    fn subject(id: &str, subscription: &str, position: usize) -> Subject {
        Subject {
            event: Some(Arc::new(event::sample(id, "order.created", "{}"))),
            standing: Standing::new(&subscription.into(), position, &"{}".into()),
        }
    }

    #[test]
    fn random_bytes_depend_on_event_subscription_position_and_call_alone() {
        let bytes = derive_random(&subject("evt_1", "warehouse", 0), 0, 100);
        assert_eq!(bytes.len(), 100);
        assert_eq!(bytes, derive_random(&subject("evt_1", "warehouse", 0), 0, 100));
        for (other, call) in [
            (subject("evt_2", "warehouse", 0), 0),
            (subject("evt_1", "sales", 0), 0),
            (subject("evt_1", "warehouse", 1), 0),
            (subject("evt_1", "warehouse", 0), 1),
        ] {
            assert_ne!(bytes, derive_random(&other, call, 100));
        }
        assert_eq!(bytes[..5], derive_random(&subject("evt_1", "warehouse", 0), 0, 5));
    }
}
