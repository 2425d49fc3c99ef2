//! Whether events are taken at all. The app shuts the gate while the store can't take events or the router
//! is stopping; producers are told 503 with `Retry-After`, and nothing that was accepted is lost.

use std::sync::atomic::{AtomicU8, Ordering};

/// Why the gate is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closure {
    /// More events wait than `backlog_events_max`.
    Backlog,
    /// The store's memory is nearly full.
    StoreShort,
    /// The store can't be reached.
    StoreAway,
    /// The router is stopping.
    Draining,
}

/// Open, or shut for one or more reasons. Cheap to ask: once for every request.
#[derive(Debug, Default)]
pub struct Gate(AtomicU8);

impl Gate {
    /// Shuts it for this reason (`true`) or takes the reason away (`false`).
    pub fn set(&self, closure: Closure, shut: bool) {
        if shut {
            self.0.fetch_or(bit(closure), Ordering::Relaxed);
        } else {
            self.0.fetch_and(!bit(closure), Ordering::Relaxed);
        }
    }

    /// Whether it is shut for this reason, and perhaps for others.
    pub fn is_shut_for(&self, closure: Closure) -> bool {
        self.0.load(Ordering::Relaxed) & bit(closure) != 0
    }

    /// Why it is shut, if it is: what a producer has to wait longest for.
    pub fn closure(&self) -> Option<Closure> {
        let reasons = self.0.load(Ordering::Relaxed);
        [Closure::Draining, Closure::StoreAway, Closure::StoreShort, Closure::Backlog]
            .into_iter()
            .find(|reason| reasons & bit(*reason) != 0)
    }
}

const fn bit(closure: Closure) -> u8 {
    match closure {
        Closure::Backlog => 1,
        Closure::StoreAway => 2,
        Closure::Draining => 4,
        Closure::StoreShort => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_open_when_no_reason_is_left() {
        let gate = Gate::default();
        assert_eq!(gate.closure(), None);
        gate.set(Closure::Backlog, true);
        gate.set(Closure::StoreAway, true);
        gate.set(Closure::StoreAway, true);
        assert_eq!(gate.closure(), Some(Closure::StoreAway));
        gate.set(Closure::StoreAway, false);
        gate.set(Closure::StoreShort, true);
        assert_eq!(gate.closure(), Some(Closure::StoreShort));
        assert!(gate.is_shut_for(Closure::Backlog) && !gate.is_shut_for(Closure::StoreAway));
        gate.set(Closure::StoreShort, false);
        assert_eq!(gate.closure(), Some(Closure::Backlog));
        gate.set(Closure::Backlog, false);
        assert_eq!(gate.closure(), None);
    }
}
