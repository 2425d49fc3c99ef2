//! Whether today's answer is another than the one that was recorded: the config or a plugin has changed since.

use super::{End, Explained, Stored};
use crate::delivery::{AttemptResult, DeadLetterReason, Outcome, OutcomeRecord};
use crate::filter::Fit;

/// What differs, a sentence each. `plugins` are the labels of the subscription's chain as it is today.
pub(super) fn between(stored: &Stored, explained: &Explained, plugins: &[String]) -> Vec<String> {
    let Some(latest) = stored.latest(&explained.subscription) else {
        // Nothing at all is recorded of an event that was not walked yet.
        let is_wanted = explained.end.is_some();
        let missed = "nothing was recorded for this subscription: it, or its route, is newer than the event's walk";
        return if is_wanted && !stored.records.is_empty() { vec![missed.to_owned()] } else { Vec::new() };
    };
    let mut differs = Vec::new();
    let today = Today::of(explained);
    if let Some(then) = Then::of(latest)
        && !then.agrees_with(&today)
    {
        differs.push(format!("then {}; today {}", then.describe(), today.describe()));
    }
    if let Some(then) = plugins_of(latest)
        && then != plugins
    {
        let today = if plugins.is_empty() { "none".to_owned() } else { plugins.join(", ") };
        differs.push(format!("the plugins were {}, and are {today} today", then.join(", ")));
    }
    differs
}

/// The chain that ran last, where one did.
fn plugins_of(record: &OutcomeRecord) -> Option<&[String]> {
    let steps = record.by.iter().chain(record.attempts.iter().rev().filter_map(|attempt| attempt.by.as_ref()));
    steps.map(|by| by.plugins.as_slice()).find(|plugins| !plugins.is_empty())
}

/// What the config in use makes of the event.
enum Today<'a> {
    NotMatched,
    Filtered,
    Sent,
    Dropped(&'a str, &'a str),
    GivenUp(&'a str, &'a str),
    Fails(&'a str),
}

impl<'a> Today<'a> {
    fn of(explained: &'a Explained) -> Self {
        match (&explained.end, &explained.fit) {
            (Some(End::Sends { .. }), _) => Self::Sent,
            (Some(End::Dropped { plugin, reason }), _) => Self::Dropped(plugin, reason),
            (Some(End::DeadLetter { plugin, reason }), _) => Self::GivenUp(plugin, reason),
            (Some(End::PluginFails { plugin, .. }), _) => Self::Fails(plugin),
            (None, Fit::Where { .. }) => Self::Filtered,
            (None, Fit::EventType { .. } | Fit::Source { .. } | Fit::Matched { .. }) => Self::NotMatched,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::NotMatched => "its route does not take the event's type or source".to_owned(),
            Self::Filtered => "`where` keeps it away".to_owned(),
            Self::Sent => "it would be sent".to_owned(),
            Self::Dropped(plugin, reason) => format!("plugin `{plugin}` drops it: {reason}"),
            Self::GivenUp(plugin, reason) => format!("plugin `{plugin}` gives it up: {reason}"),
            Self::Fails(plugin) => format!("plugin `{plugin}` fails"),
        }
    }
}

/// What the record says of how far the event came.
#[derive(Clone, Copy)]
enum Then<'a> {
    Filtered,
    Sent,
    Dropped(&'a str, &'a str),
    /// The plugin and its reason in one sentence.
    GivenUp(&'a str),
    Failed(&'a str),
}

impl<'a> Then<'a> {
    /// None where the record does not tell: nothing had run, the subscription was gone, or a later version wrote it.
    fn of(record: &'a OutcomeRecord) -> Option<Self> {
        let by_attempt = || {
            record.attempts.last().map(|last| match &last.result {
                AttemptResult::Answered { .. } | AttemptResult::Failed { .. } => Self::Sent,
                AttemptResult::PluginFailed { plugin, .. } => Self::Failed(plugin),
            })
        };
        match record.outcome.as_ref()? {
            Outcome::Delivered => Some(Self::Sent),
            Outcome::Filtered { .. } => Some(Self::Filtered),
            Outcome::Dropped { plugin, reason } => Some(Self::Dropped(plugin, reason)),
            Outcome::DeadLetter { reason: DeadLetterReason::Plugin, detail } => Some(Self::GivenUp(detail)),
            Outcome::DeadLetter {
                reason: DeadLetterReason::SubscriptionRemoved | DeadLetterReason::Panicked | DeadLetterReason::Unknown,
                ..
            } => None,
            Outcome::DeadLetter {
                reason: DeadLetterReason::Exhausted | DeadLetterReason::Gone | DeadLetterReason::NotRetryable,
                ..
            }
            | Outcome::Scheduled { .. }
            | Outcome::Discarded { .. } => by_attempt(),
        }
    }

    fn agrees_with(self, today: &Today<'_>) -> bool {
        match (self, today) {
            (Self::Filtered, Today::Filtered) | (Self::Sent, Today::Sent) => true,
            (Self::Dropped(plugin, reason), Today::Dropped(its_plugin, its_reason)) => {
                (plugin, reason) == (*its_plugin, *its_reason)
            }
            (Self::GivenUp(detail), Today::GivenUp(plugin, reason)) => detail == format!("plugin `{plugin}`: {reason}"),
            (Self::Failed(plugin), Today::Fails(its_plugin)) => plugin == *its_plugin,
            (Self::Filtered | Self::Sent | Self::Dropped(..) | Self::GivenUp(_) | Self::Failed(_), _) => false,
        }
    }

    fn describe(self) -> String {
        match self {
            Self::Filtered => "`where` kept it away".to_owned(),
            Self::Sent => "it was sent".to_owned(),
            Self::Dropped(plugin, reason) => format!("plugin `{plugin}` dropped it: {reason}"),
            Self::GivenUp(detail) => format!("it was given up by {detail}"),
            Self::Failed(plugin) => format!("plugin `{plugin}` failed"),
        }
    }
}
