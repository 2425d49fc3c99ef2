//! The scripts: one atomic step each. Every key is declared, and all keys of a call lie in one hash slot.
//!
//! Rules they keep: the server's clock; check before the first write; add first, remove last; the same call
//! again, after a lost answer, changes nothing and answers the same.

use std::sync::LazyLock;

/// A script and its digest.
pub(super) struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, digest: redis::Script::new(text).get_hash().to_owned() }
    }

    /// The text.
    pub(super) fn text(&self) -> &'static str {
        self.text
    }

    /// The digest that `EVALSHA` wants.
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }
}

macro_rules! scripts {
    ($($name:ident = $file:literal),+ $(,)?) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!($file)));)+
        #[cfg(test)]
        const TEXTS: &[(&str, &str)] = &[$(($file, include_str!($file))),+];
    };
}

scripts! {
    APPEND = "scripts/append.lua",
    CLAIM_DUE = "scripts/claim_due.lua",
    DESCRIBE = "scripts/describe.lua",
    DISCARD = "scripts/discard.lua",
    DROP_DUE = "scripts/drop_due.lua",
    DROP_EVENT = "scripts/drop_event.lua",
    FORGET = "scripts/forget.lua",
    FREE_LEASES = "scripts/free_leases.lua",
    HAND_BACK = "scripts/hand_back.lua",
    HASTEN = "scripts/hasten.lua",
    HEARTBEAT = "scripts/heartbeat.lua",
    JOIN = "scripts/join.lua",
    LEAVE = "scripts/leave.lua",
    REPLAY = "scripts/replay.lua",
    SCAN = "scripts/scan.lua",
    SETTLE_DELIVERIES = "scripts/settle_deliveries.lua",
    SETTLE_EVENTS = "scripts/settle_events.lua",
    STATS = "scripts/stats.lua",
    TAKE_OVER = "scripts/take_over.lua",
    TRIM = "scripts/trim.lua",
    WRITE_AHEAD = "scripts/write_ahead.lua",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_append_is_refused_when_memory_is_full() {
        for (file, text) in TEXTS {
            let first = text.lines().next().unwrap();
            match *file {
                "scripts/append.lua" => assert_eq!(first, "#!lua"),
                "scripts/scan.lua" | "scripts/stats.lua" => assert_eq!(first, "#!lua flags=no-writes"),
                _ => assert_eq!(first, "#!lua flags=allow-oom", "{file}"),
            }
        }
    }
}
