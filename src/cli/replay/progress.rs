//! How much of a replay is done, as a bar on standard error where that is a terminal. How many deliveries there will be is not
//! known before they were looked at, so the bar goes by the listed ids, by `--limit`, or by the time the selection spans.

use indicatif::ProgressBar;

use crate::admin::operations::replay::{ReplayStep, Selection};
use crate::admin::operations::times;
use crate::cli::terminal;
use crate::clock::Timestamp;

/// The bar's length: tenths of a percent.
const WHOLE: f64 = 1_000.0;

/// The bar.
pub(super) struct Progress {
    bar: ProgressBar,
    span: Span,
    matched: usize,
}

/// What the bar goes by.
struct Span {
    /// How many are listed by id; the cursor counts them.
    listed: Option<usize>,
    limit: Option<u64>,
    /// From what comes first, which may be long after the selection's time begins, to the end of that time.
    from: Option<Timestamp>,
    to: Timestamp,
}

impl Progress {
    /// Nothing is done yet.
    pub(super) fn start(selection: &Selection, limit: Option<u64>, now: Timestamp) -> Self {
        // What is no time is refused with the first step.
        let listed = selection.event_ids.as_ref().map(Vec::len).or(selection.dead_letters.as_ref().map(Vec::len));
        let to = selection.until.as_ref().and_then(|text| times::parse("", text, now).ok()).unwrap_or(now);
        let span = Span { listed, limit, from: None, to };
        Self { bar: terminal::progress_share(WHOLE as u64), span, matched: 0 }
    }

    /// Another step is done.
    pub(super) fn step(&mut self, step: &ReplayStep) {
        self.matched += step.matched;
        let reached = step.reached_at.map(|time| time.0);
        self.span.from = self.span.from.or(reached);
        let share = self.span.share(self.matched, reached, step.cursor.as_deref());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is from 0 to 1")]
        self.bar.set_position((share * WHOLE) as u64);
        self.bar.set_message(format!("{} deliveries", self.matched));
    }

    /// Takes the bar away.
    pub(super) fn end(self) {
        self.bar.finish_and_clear();
    }
}

impl Span {
    /// From 0 to 1. Without a cursor all is done.
    #[expect(clippy::cast_precision_loss, reason = "a bar has a few dozen places")]
    fn share(&self, matched: usize, reached: Option<Timestamp>, cursor: Option<&str>) -> f64 {
        let Some(cursor) = cursor else { return 1.0 };
        let of = |part: f64, whole: f64| if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 };
        let looked_through = match (self.listed, self.from, reached) {
            (Some(listed), ..) => of(cursor.parse().unwrap_or(0.0), listed as f64),
            (None, Some(from), Some(reached)) => {
                of(reached.since(from).as_secs_f64(), self.to.since(from).as_secs_f64())
            }
            (None, ..) => 0.0,
        };
        looked_through.max(self.limit.map_or(0.0, |limit| of(matched as f64, limit as f64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_the_list_the_limit_or_the_time_whichever_says_most() {
        let at = |seconds: u64| Some(Timestamp::from_millis(seconds * 1_000));
        let span = |listed, limit, from| Span { listed, limit, from, to: Timestamp::from_millis(200_000) };
        for (span, matched, reached, cursor, share) in [
            (span(Some(4), None, None), 9, None, Some("1"), 0.25),
            (span(Some(4), None, None), 9, None, None, 1.0),
            (span(None, Some(10), None), 5, None, Some("x"), 0.5),
            (span(None, None, at(100)), 5, at(175), Some("x"), 0.75),
            (span(None, Some(10), at(100)), 9, at(175), Some("x"), 0.9),
            (span(None, None, at(100)), 5, at(300), Some("x"), 1.0),
            (span(None, None, at(200)), 5, at(200), Some("x"), 0.0),
            (span(None, None, None), 0, None, Some("x"), 0.0),
        ] {
            assert!((span.share(matched, reached, cursor) - share).abs() < 1e-9, "{matched} {reached:?} {cursor:?}");
        }
    }
}
