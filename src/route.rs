//! Which events go where: routes, subscriptions and their retry schedules, whatever their rows came from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::Endpoint;

/// Which events: sources, event-type patterns, an optional `where`; and who gets them.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name in the config.
    pub name: Arc<str>,
    /// The sources it takes events from; empty means all.
    pub sources: Vec<Arc<str>>,
    /// Event-type patterns: exact, `order.*` (one segment), `order.**` or `**` (any number).
    pub patterns: Vec<String>,
    /// A CEL expression that must be true.
    pub condition: Option<String>,
    /// Who gets the events.
    pub subscriptions: Vec<Arc<Subscription>>,
}

/// One consumer's standing order under a route. Its name is unique among all subscriptions.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The name in the config: 1 to 64 characters of `A-Z a-z 0-9 _ -`.
    pub name: Arc<str>,
    /// The route it stands under.
    pub route: Arc<str>,
    /// Where its deliveries go.
    pub endpoint: Arc<Endpoint>,
    /// The chain of plugins, in order.
    pub plugins: Vec<PluginUse>,
    /// What a plugin's fault means.
    pub on_error: OnError,
    /// When a failed attempt is made again.
    pub retry: RetrySchedule,
}

/// A plugin in a subscription's chain.
#[derive(Clone, PartialEq, Eq)]
pub struct PluginUse {
    /// The plugin's name in the config.
    pub plugin: Arc<str>,
    /// The subscription's config for it, as JSON text; `{}` when there is none.
    pub config: Arc<str>,
    /// Whether what it says is done.
    pub mode: PluginMode,
}

/// Without the config: there may be secrets in it.
impl fmt::Debug for PluginUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, config: _, mode } = self;
        f.debug_struct("PluginUse").field("plugin", plugin).field("mode", mode).finish_non_exhaustive()
    }
}

/// Whether what a plugin says is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PluginMode {
    /// It is.
    #[default]
    Apply,
    /// It is only recorded: the event goes on as if the plugin were not there.
    Shadow,
}

/// What a plugin's fault means for the delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// A failed attempt, which follows the schedule.
    #[default]
    Retry,
    /// A dead letter at once.
    DeadLetter,
    /// The event goes on as if the plugin were not there; the fault is recorded.
    PassThrough,
}

/// The waits between attempts: after the first failed attempt the first wait, and so on; then a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule {
    /// The waits, before jitter.
    pub waits: Arc<[Duration]>,
}

impl RetrySchedule {
    /// A schedule of these waits.
    pub fn new(waits: impl Into<Arc<[Duration]>>) -> Self {
        Self { waits: waits.into() }
    }
}

impl Default for RetrySchedule {
    /// 1m, 5m, 30m, 2h, 24h: the first users' schedule.
    fn default() -> Self {
        Self::new([60, 300, 1_800, 7_200, 86_400].map(Duration::from_secs))
    }
}
