//! The names of the keys. All keys of a partition carry the same hash tag, so that a script may touch them in one call.

use super::reply::StreamId;

/// The consumer group that all routers read with.
pub(super) const GROUP: &str = "g";

/// The keys that belong to no partition.
pub(super) struct CommonKeys {
    /// Layout, partitions, width of an ids bucket.
    pub(super) meta: String,
    /// Heartbeats by consumer name.
    pub(super) processes: String,
    /// Marks on endpoints, by name and kind.
    pub(super) endpoints: String,
    /// Stream: who did what.
    pub(super) audit: String,
    /// Set: every source ever remembered.
    pub(super) sources: String,
}

impl CommonKeys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            meta: format!("{prefix}:meta"),
            processes: format!("{prefix}:proc"),
            endpoints: format!("{prefix}:endpoints"),
            audit: format!("{prefix}:audit"),
            sources: format!("{prefix}:sources"),
        }
    }
}

/// The keys of one partition.
pub(super) struct PartitionKeys {
    tag: String,
    /// Stream: accepted events. One group.
    pub(super) events: String,
    /// Sorted set: what is scheduled, by when it falls due.
    pub(super) due: String,
    /// Stream: dead letters.
    pub(super) dead: String,
    /// Sorted set: the deliveries that have a dead letter, by the milliseconds of its entry.
    pub(super) letters: String,
    /// Stream: outcome records, a batch an entry.
    pub(super) outcomes: String,
    /// Sorted set: an event's milliseconds and the entry of its outcome, by the former; of outcomes that came late.
    pub(super) later: String,
    /// Stream: what could not be read.
    pub(super) damaged: String,
}

impl PartitionKeys {
    pub(super) fn new(prefix: &str, partition: u16) -> Self {
        let tag = format!("{{{prefix}:{partition}}}");
        let key = |name: &str| format!("{tag}:{name}");
        Self {
            events: key("events"),
            due: key("due"),
            dead: key("dead"),
            letters: key("letters"),
            outcomes: key("outcomes"),
            later: key("later"),
            damaged: key("damaged"),
            tag,
        }
    }

    /// Hash: source and id → nonce and stream id, of the events accepted in this bucket of time.
    pub(super) fn ids(&self, bucket: u64) -> String {
        format!("{}:ids:{bucket}", self.tag)
    }

    /// Hash: what a consumer has settled last. It is gone when the consumer was taken over.
    pub(super) fn owner(&self, consumer: &str) -> String {
        format!("{}:owner:{consumer}", self.tag)
    }

    /// Set: the deliveries whose dead letters were written ahead of the settlement of this event.
    pub(super) fn letters_ahead(&self, event: StreamId) -> String {
        format!("{}:letters:{event}", self.tag)
    }

    /// String: a scheduled delivery's record. `member` is what stands for it in `due`.
    pub(super) fn record(&self, member: &str) -> String {
        let id = member.split(':').next().unwrap_or_default();
        format!("{}:d:{id}", self.tag)
    }
}

/// What stands for a delivery in the schedule: its id, and its subscription so that [`hasten`] need not read records.
///
/// [`hasten`]: crate::store::Store::hasten
pub(super) fn member(delivery: &crate::delivery::Delivery) -> String {
    member_of(&delivery.id, &delivery.subscription)
}

/// The same of a delivery's id and subscription.
pub(super) fn member_of(id: &crate::delivery::DeliveryId, subscription: &str) -> String {
    format!("{id}:{subscription}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_partition_has_its_hash_tag() {
        let keys = PartitionKeys::new("bl", 7);
        assert_eq!(keys.events, "{bl:7}:events");
        assert_eq!(keys.ids(5), "{bl:7}:ids:5");
        assert_eq!(keys.owner("host-1-a"), "{bl:7}:owner:host-1-a");
        assert_eq!(keys.record("dlv_0a:ware:house"), "{bl:7}:d:dlv_0a");
    }
}
