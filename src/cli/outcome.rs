//! Outcomes and attempts in words, for people.

use anstyle::Style;

use super::terminal::{BAD, GOOD, QUIET, WAITS};
use crate::admin::operations::deliveries::WhyWaiting;
use crate::admin::operations::pairs::{Pair, Status, WaitingView};
use crate::admin::operations::views::{AttemptView, OutcomeView};
use crate::delivery::Waiting;

/// How much of an answer is shown, in characters.
const ANSWER_CHARS_MAX: usize = 80;

/// An outcome in a few words.
pub fn describe(view: &OutcomeView) -> String {
    let mut text = view.outcome.clone();
    if let Some(next) = view.next {
        text.push_str(&format!(" for {next}"));
    }
    if let Some(plugin) = &view.plugin {
        text.push_str(&format!(" by plugin `{plugin}`"));
    }
    let more = [view.why.map(waiting), view.reason.as_deref(), Some(view.detail.as_str())];
    for part in more.into_iter().flatten().filter(|part| !part.is_empty()) {
        text.push_str(": ");
        text.push_str(part);
    }
    text
}

/// Why a delivery waits.
pub const fn waiting(why: Waiting) -> &'static str {
    match why {
        Waiting::Retry => "the last attempt failed",
        Waiting::Parked => "it waits for its turn",
        Waiting::Disabled => "its endpoint is disabled",
        Waiting::Paused => "its endpoint is paused",
        Waiting::EndpointBreaker => "its endpoint keeps failing",
        Waiting::Breaker => "a plugin of it keeps breaking",
        Waiting::Detached => "its first attempt takes long and goes on",
        Waiting::Replay => "it was replayed",
        Waiting::Unknown => "for a reason that a later version knows",
    }
}

/// Why a delivery that is due at some time waits, where more is to be said than that.
pub const fn why(why: WhyWaiting) -> Option<&'static str> {
    match why {
        WhyWaiting::UnderWay => Some("under way"),
        WhyWaiting::SubscriptionGone => Some("the config has no such subscription: it becomes a dead letter then"),
        WhyWaiting::EndpointDisabled => Some("its endpoint is disabled: it waits until somebody enables it"),
        WhyWaiting::EndpointPaused => Some("its endpoint is paused: it waits until somebody resumes it"),
        WhyWaiting::EndpointFailing => Some("its endpoint keeps failing, and is only tried now and then"),
        WhyWaiting::Retry | WhyWaiting::NotYetTried => None,
    }
}

/// The colour of how something stands.
pub const fn style(status: Status) -> Style {
    match status {
        Status::Delivered => GOOD,
        Status::Scheduled => WAITS,
        Status::Filtered | Status::Dropped | Status::Unmatched => QUIET,
        Status::DeadLetter | Status::Discarded => BAD,
    }
}

/// When a delivery is due, and why it waits.
pub fn due(waiting: &WaitingView) -> String {
    let why = why(waiting.why).map_or_else(String::new, |why| format!(" ({why})"));
    format!("{}{why}", waiting.due)
}

/// What was recorded before and is not in what was recorded last: how it ended before it was replayed, for example, with the
/// attempts of that time.
pub fn earlier(pair: &Pair) -> impl Iterator<Item = &OutcomeView> {
    let next = pair.before.iter().skip(1).chain(&pair.last);
    let is_told_later = |view: &OutcomeView, next: &OutcomeView| {
        let attempts = view.attempts.iter().zip(&next.attempts);
        view.outcome == "scheduled"
            && view.attempts.len() <= next.attempts.len()
            && attempts.into_iter().all(|(attempt, next)| attempt.at == next.at)
    };
    pair.before.iter().zip(next).filter(move |(view, next)| !is_told_later(view, next)).map(|(view, _)| view)
}

/// An attempt in a line: its number, time, end, duration, and the first bytes of an answer that was no success.
pub fn attempt(attempt: &AttemptView) -> String {
    let AttemptView { number, at, duration_ms, summary, answer, by, .. } = attempt;
    let mut text = format!("attempt {number}, {at}: {summary} in {duration_ms} ms");
    if let Some(answer) = answer {
        let shown: String = answer.chars().take(ANSWER_CHARS_MAX).collect();
        text.push_str(&format!(", {shown:?}"));
    }
    if let Some(by) = by.as_ref().filter(|by| !by.plugins.is_empty()) {
        text.push_str(&format!(" ({})", by.plugins.join(", ")));
    }
    text
}
