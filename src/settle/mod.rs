//! Delivered, retry at, dead letter: the decision after an attempt. Pure: time and chance are arguments.

use std::time::Duration;

use crate::delivery::{Attempt, AttemptResult, DeadLetterReason};
use crate::route::RetrySchedule;

/// A wait is lengthened by up to this share of itself, so that deliveries that failed together don't come again together.
/// It is never shortened: a receiver that reads the schedule in the documentation is not surprised.
pub const JITTER_SHARE: f64 = 0.1;

/// The longest wait that a `Retry-After` can ask for. A receiver must not be able to hold a delivery for ever.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What follows from an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The endpoint has it.
    Delivered,
    /// Another attempt, after this long.
    Retry {
        /// The wait.
        after: Duration,
    },
    /// No further attempt.
    GiveUp {
        /// Why.
        reason: DeadLetterReason,
        /// A sentence for people.
        detail: String,
    },
}

/// Decides what follows from `attempt`. `jitter` is a random number from 0 up to 1.
pub fn decide(attempt: &Attempt, schedule: &RetrySchedule, jitter: f64) -> Decision {
    let retry_after = match &attempt.result {
        AttemptResult::Answered { status: 200..=299, .. } => return Decision::Delivered,
        AttemptResult::Answered { status: 410, .. } => {
            return Decision::GiveUp {
                reason: DeadLetterReason::Gone,
                detail: "the endpoint answered 410 Gone".to_owned(),
            };
        }
        AttemptResult::PluginFailed { plugin, detail, retryable: false, .. } => {
            return Decision::GiveUp {
                reason: DeadLetterReason::NotRetryable,
                detail: format!("plugin `{plugin}`: {detail}"),
            };
        }
        AttemptResult::Answered { status: 429 | 503, retry_after_ms, .. } => {
            Duration::from_millis(retry_after_ms.unwrap_or(0)).min(RETRY_AFTER_MAX)
        }
        AttemptResult::Answered { .. } | AttemptResult::Failed { .. } | AttemptResult::PluginFailed { .. } => {
            Duration::ZERO
        }
    };
    let retries_made = attempt.number.saturating_sub(1) as usize;
    match schedule.waits.get(retries_made) {
        Some(wait) => {
            Decision::Retry { after: wait.mul_f64(1.0 + JITTER_SHARE * jitter.clamp(0.0, 1.0)).max(retry_after) }
        }
        None => Decision::GiveUp {
            reason: DeadLetterReason::Exhausted,
            detail: format!("attempt {} of {} failed: {}", attempt.number, schedule.waits.len() + 1, describe(attempt)),
        },
    }
}

/// How an attempt ended, in a few words for people: no payload, no secret.
pub fn describe(attempt: &Attempt) -> String {
    match &attempt.result {
        AttemptResult::Answered { status, .. } => format!("answered {status}"),
        AttemptResult::Failed { error, detail } => format!("{}: {detail}", error.as_str()),
        AttemptResult::PluginFailed { plugin, error, detail, .. } => {
            format!("plugin `{plugin}`: {}: {detail}", error.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::delivery::{PluginFaultKind, SendErrorKind};

    fn attempt(number: u32, result: AttemptResult) -> Attempt {
        Attempt { number, at: Timestamp::from_millis(0), duration_ms: 1, result, answer: None, by: None }
    }

    fn answered(status: u16, retry_after_secs: Option<u64>) -> AttemptResult {
        AttemptResult::Answered { status, retry_after_ms: retry_after_secs.map(|s| s * 1000) }
    }

    fn after(seconds: u64) -> Decision {
        Decision::Retry { after: Duration::from_secs(seconds) }
    }

    #[test]
    fn answers_are_settled_as_the_design_says() {
        let schedule = RetrySchedule::default();
        for (number, result, expected) in [
            (1, answered(200, None), Decision::Delivered),
            (6, answered(204, None), Decision::Delivered),
            (1, answered(500, None), after(60)),
            (1, answered(301, None), after(60)),
            (1, answered(404, None), after(60)),
            (2, answered(500, None), after(300)),
            (5, answered(500, None), after(86_400)),
            // Retry-After lengthens, never shortens, counts for 429 and 503 only, and is capped.
            (1, answered(429, Some(120)), after(120)),
            (1, answered(503, Some(5)), after(60)),
            (1, answered(500, Some(120)), after(60)),
            (1, answered(429, Some(30 * 86_400)), after(86_400)),
            (1, AttemptResult::Failed { error: SendErrorKind::Timeout, detail: String::new() }, after(60)),
        ] {
            assert_eq!(decide(&attempt(number, result.clone()), &schedule, 0.0), expected, "{number} {result:?}");
        }
    }

    #[test]
    fn the_end_of_the_schedule_410_and_plugins_that_say_so_give_up() {
        let reason = |number, result| match decide(&attempt(number, result), &RetrySchedule::default(), 0.0) {
            Decision::GiveUp { reason, .. } => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(6, answered(500, None)), DeadLetterReason::Exhausted);
        assert_eq!(reason(1, answered(410, None)), DeadLetterReason::Gone);
        let fault = |retryable| AttemptResult::PluginFailed {
            plugin: "slack".into(),
            error: PluginFaultKind::Error,
            detail: "missing-field".into(),
            retryable,
        };
        assert_eq!(reason(1, fault(false)), DeadLetterReason::NotRetryable);
        assert_eq!(reason(6, fault(true)), DeadLetterReason::Exhausted);
    }

    #[test]
    fn jitter_only_lengthens() {
        let schedule = RetrySchedule::default();
        for (jitter, seconds) in [(0.0, 60.0), (0.5, 63.0), (1.0, 66.0)] {
            let decision = decide(&attempt(1, answered(500, None)), &schedule, jitter);
            assert_eq!(decision, Decision::Retry { after: Duration::from_secs_f64(seconds) });
        }
    }

    #[test]
    fn an_empty_schedule_gives_up_at_once() {
        let schedule = RetrySchedule::new([]);
        let decision = decide(&attempt(1, answered(500, None)), &schedule, 0.0);
        assert!(matches!(decision, Decision::GiveUp { reason: DeadLetterReason::Exhausted, .. }));
    }
}
