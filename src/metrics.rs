//! Every metric's name, unit and labels, in one file. Labels are names from the config, never an event's data.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::store::Stats;
use crate::tail::Tail;

/// A label for the source that an event came in by.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BySource {
    source: Arc<str>,
}

/// Labels of a refused request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByStatus {
    source: Arc<str>,
    status: u32,
}

/// Labels of an attempt.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByResult {
    endpoint: Arc<str>,
    result: &'static str,
}

/// Labels of an outcome.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOutcome {
    subscription: Arc<str>,
    outcome: &'static str,
}

/// Labels of a plugin call.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByVerdict {
    plugin: Arc<str>,
    verdict: &'static str,
}

/// A label for a plugin.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByPlugin {
    plugin: Arc<str>,
}

/// A label for a subscription.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BySubscription {
    subscription: Arc<str>,
}

/// A label for an endpoint.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByEndpoint {
    endpoint: Arc<str>,
}

/// Bucket bounds, in seconds.
#[derive(Clone)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// From a local call to the longest timeout.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// From a plain filter to the longest deadline.
const PLUGIN_SECONDS: &[f64] =
    &[0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0, 10.0];
/// From an instant delivery to the default schedule's end.
const AGE_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 600.0, 3_600.0, 10_800.0, 86_400.0, 172_800.0];

/// The router's metrics. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    tail: Tail,
    accepted: Family<BySource, Counter>,
    duplicates: Family<BySource, Counter>,
    refused: Family<ByStatus, Counter>,
    attempts: Family<ByResult, Counter>,
    attempt_seconds: Family<ByEndpoint, Histogram, Buckets>,
    outcomes: Family<ByOutcome, Counter>,
    delivery_age_seconds: Histogram,
    plugin_calls: Family<ByVerdict, Counter>,
    plugin_seconds: Family<ByPlugin, Histogram, Buckets>,
    plugin_chain_seconds: Family<BySubscription, Histogram, Buckets>,
    plugin_breaker_open: Family<ByPlugin, Gauge>,
    endpoint_breaker_open: Family<ByEndpoint, Gauge>,
    backlog: Gauge<u64, AtomicU64>,
    scheduled: Gauge<u64, AtomicU64>,
    overdue_seconds: Gauge<f64, AtomicU64>,
    dead_letters: Gauge<u64, AtomicU64>,
    store_memory_bytes: Gauge<u64, AtomicU64>,
    store_memory_limit_bytes: Gauge<u64, AtomicU64>,
    events_in_flight: Gauge,
    attempts_in_flight: Gauge,
    ingest_connections: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("branchline");
        let accepted = Family::default();
        registry.register("accepted_events", "Events stored and answered 202", accepted.clone());
        let duplicates = Family::default();
        registry.register("duplicate_events", "Events answered as stored before", duplicates.clone());
        let refused = Family::default();
        registry.register("refused_requests", "Ingest requests that were refused, by status", refused.clone());
        let attempts = Family::default();
        registry.register(
            "attempts",
            "Attempts ended, by endpoint and result (a status class or an error)",
            attempts.clone(),
        );
        let attempt_seconds = Family::new_with_constructor(Buckets(SECONDS));
        registry.register_with_unit("attempt", "How long attempts took", Unit::Seconds, attempt_seconds.clone());
        let outcomes = Family::default();
        registry.register("outcomes", "What became of (event, subscription) pairs", outcomes.clone());
        let delivery_age_seconds = Buckets(AGE_SECONDS).new_metric();
        registry.register_with_unit(
            "delivery_age",
            "From an event's acceptance to its delivery",
            Unit::Seconds,
            delivery_age_seconds.clone(),
        );
        let plugin_calls = Family::default();
        registry.register("plugin_calls", "Plugin calls, by verdict or fault", plugin_calls.clone());
        let plugin_seconds = Family::new_with_constructor(Buckets(PLUGIN_SECONDS));
        registry.register_with_unit(
            "plugin",
            "How long plugin calls ran, instantiation included",
            Unit::Seconds,
            plugin_seconds.clone(),
        );
        let plugin_chain_seconds = Family::new_with_constructor(Buckets(PLUGIN_SECONDS));
        registry.register_with_unit(
            "plugin_chain",
            "How long a subscription's plugins took for an event in all, waiting for a thread included",
            Unit::Seconds,
            plugin_chain_seconds.clone(),
        );
        let plugin_breaker_open = Family::default();
        registry.register(
            "plugin_breaker_open",
            "1 while deliveries wait because the plugin keeps breaking",
            plugin_breaker_open.clone(),
        );
        let endpoint_breaker_open = Family::default();
        registry.register(
            "endpoint_breaker_open",
            "1 while deliveries wait because the endpoint keeps failing",
            endpoint_breaker_open.clone(),
        );
        let backlog = Gauge::default();
        registry.register("backlog_events", "Events accepted and not settled", backlog.clone());
        let scheduled = Gauge::default();
        registry.register("scheduled_deliveries", "Deliveries in the schedule", scheduled.clone());
        let overdue_seconds = Gauge::default();
        registry.register_with_unit(
            "schedule_overdue",
            "How long the most overdue delivery has been due",
            Unit::Seconds,
            overdue_seconds.clone(),
        );
        let dead_letters = Gauge::default();
        registry.register("dead_letters", "Dead letters kept", dead_letters.clone());
        let store_memory_bytes = Gauge::default();
        registry.register("store_memory_bytes", "Memory that the fullest Redis takes", store_memory_bytes.clone());
        let store_memory_limit_bytes = Gauge::default();
        registry.register(
            "store_memory_limit_bytes",
            "Memory that it may take; 0 when there is no limit",
            store_memory_limit_bytes.clone(),
        );
        let events_in_flight = Gauge::default();
        registry.register("events_in_flight", "Events this process holds", events_in_flight.clone());
        let attempts_in_flight = Gauge::default();
        registry.register("attempts_in_flight", "HTTP requests to endpoints under way", attempts_in_flight.clone());
        let ingest_connections = Gauge::default();
        registry.register("ingest_connections", "Open connections of producers", ingest_connections.clone());
        Self {
            registry: Arc::new(registry),
            tail: Tail::default(),
            accepted,
            duplicates,
            refused,
            attempts,
            attempt_seconds,
            outcomes,
            delivery_age_seconds,
            plugin_calls,
            plugin_seconds,
            plugin_chain_seconds,
            plugin_breaker_open,
            endpoint_breaker_open,
            backlog,
            scheduled,
            overdue_seconds,
            dead_letters,
            store_memory_bytes,
            store_memory_limit_bytes,
            events_in_flight,
            attempts_in_flight,
            ingest_connections,
        }
    }
}

impl Metrics {
    /// `events` were stored for `source`.
    pub fn accepted(&self, source: &Arc<str>, events: u64) {
        self.accepted.get_or_create(&BySource { source: Arc::clone(source) }).inc_by(events);
    }

    /// `events` of `source` had been stored before.
    pub fn duplicates(&self, source: &Arc<str>, events: u64) {
        self.duplicates.get_or_create(&BySource { source: Arc::clone(source) }).inc_by(events);
    }

    /// A request was answered with `status`, which is no success. `source` is empty where no source has the path.
    pub fn refused(&self, source: &Arc<str>, status: u16) {
        self.refused.get_or_create(&ByStatus { source: Arc::clone(source), status: status.into() }).inc();
    }

    /// An attempt at `endpoint` ended; `result` is `2xx`, `5xx`, … or an error's name.
    pub fn attempt(&self, endpoint: &Arc<str>, result: &'static str, took: Duration) {
        self.attempts.get_or_create(&ByResult { endpoint: Arc::clone(endpoint), result }).inc();
        self.attempt_seconds.get_or_create(&ByEndpoint { endpoint: Arc::clone(endpoint) }).observe(took.as_secs_f64());
    }

    /// An outcome was settled.
    pub fn outcome(&self, subscription: &Arc<str>, outcome: &'static str) {
        self.outcomes.get_or_create(&ByOutcome { subscription: Arc::clone(subscription), outcome }).inc();
    }

    /// A delivery arrived this long after its event was accepted.
    pub fn delivered(&self, age: Duration) {
        self.delivery_age_seconds.observe(age.as_secs_f64());
    }

    /// A plugin call ended; `verdict` is a verdict's or a fault's name.
    pub fn plugin_call(&self, plugin: &Arc<str>, verdict: &'static str, took: Duration) {
        self.plugin_calls.get_or_create(&ByVerdict { plugin: Arc::clone(plugin), verdict }).inc();
        self.plugin_seconds.get_or_create(&ByPlugin { plugin: Arc::clone(plugin) }).observe(took.as_secs_f64());
    }

    /// A subscription's plugins came to an end with an event.
    pub fn plugin_chain(&self, subscription: &Arc<str>, took: Duration) {
        let label = BySubscription { subscription: Arc::clone(subscription) };
        self.plugin_chain_seconds.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// A plugin's breaker opened or closed.
    pub fn plugin_breaker(&self, plugin: &Arc<str>, is_open: bool) {
        self.plugin_breaker_open.get_or_create(&ByPlugin { plugin: Arc::clone(plugin) }).set(is_open.into());
    }

    /// An endpoint's breaker opened or closed.
    pub fn endpoint_breaker(&self, endpoint: &Arc<str>, is_open: bool) {
        self.endpoint_breaker_open.get_or_create(&ByEndpoint { endpoint: Arc::clone(endpoint) }).set(is_open.into());
    }

    /// The store's figures.
    pub fn store(&self, stats: &Stats) {
        self.backlog.set(stats.backlog);
        self.scheduled.set(stats.scheduled);
        self.overdue_seconds.set(Duration::from_millis(stats.overdue_ms).as_secs_f64());
        self.dead_letters.set(stats.dead_letters);
        self.store_memory_bytes.set(stats.memory.used_bytes);
        self.store_memory_limit_bytes.set(stats.memory.bytes_max);
    }

    /// An event is claimed; it is held until the answer is dropped.
    pub fn event_begins(&self) -> UnderWay<'_> {
        UnderWay::enter(&self.events_in_flight)
    }

    /// An HTTP request to an endpoint begins; it is under way until the answer is dropped.
    pub fn attempt_begins(&self) -> UnderWay<'_> {
        UnderWay::enter(&self.attempts_in_flight)
    }

    /// Open connections of producers.
    pub fn ingest_connections(&self) -> &Gauge {
        &self.ingest_connections
    }

    /// What happens, told as it happens: the same moments that are counted here.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Everything in the text format that Prometheus reads (OpenMetrics 1.0).
    pub fn render(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string does not fail");
        text
    }
}

/// Counts something in flight until it is dropped: it may be dropped in the middle.
pub struct UnderWay<'metrics>(&'metrics Gauge);

impl<'metrics> UnderWay<'metrics> {
    fn enter(gauge: &'metrics Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_in_the_text() {
        let metrics = Metrics::default();
        let app = Arc::from("app");
        metrics.accepted(&app, 3);
        metrics.attempt(&app, "5xx", Duration::from_millis(7));
        metrics.store(&Stats { backlog: 5, overdue_ms: 1500, ..Stats::default() });
        let text = metrics.render();
        for line in [
            r#"branchline_accepted_events_total{source="app"} 3"#,
            r#"branchline_attempts_total{endpoint="app",result="5xx"} 1"#,
            r#"branchline_attempt_seconds_bucket{le="0.01",endpoint="app"} 1"#,
            "branchline_backlog_events 5",
            "branchline_schedule_overdue_seconds 1.5",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
