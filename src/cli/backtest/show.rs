//! What a backtest found, as people read it and as programs do.

use std::fmt;

use anstyle::{AnsiColor, Style};
use serde_json::{Map, Value, json};

use super::Options;
use super::tally::{Difference, Figures, Sample, Tally};
use super::version::Decision;
use crate::cli::diff::diff;
use crate::cli::plugin::units;
use crate::cli::terminal::styled;

/// Lines of one difference that are shown.
const LINES_MAX: usize = 40;
/// Characters of a line that are shown.
const LINE_CHARACTERS_MAX: usize = 160;

const GONE: Style = AnsiColor::Red.on_default();
const NEW: Style = AnsiColor::Green.on_default();

/// For people.
pub struct Shown<'a>(pub &'a Options, pub &'a Tally);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(options, tally) = self;
        let plural = if tally.events == 1 { "" } else { "s" };
        let (events, took) = (units::count(tally.events), units::time(tally.took));
        writeln!(f, "{}: {events} event{plural} through both versions in {took}\n", options.subscription)?;
        if tally.is_cut {
            writeln!(f, "  the newest only: `--limit` leaves out older ones of this time\n")?;
        }
        for difference in Difference::ALL {
            let count = tally.count(difference);
            if count > 0 || matches!(difference, Difference::Unchanged | Difference::Changed) {
                writeln!(f, "  {:<20} {:>12}", difference.as_str(), units::count(count))?;
            }
        }
        let mean = |figures: &Figures| figures.mean().map_or("–".to_owned(), units::time);
        writeln!(f, "\n  {:<20} {:>12} {:>12}", "", "old", "new")?;
        writeln!(f, "  {:<20} {:>12} {:>12}", "plugin errors", tally.old.errors, tally.new.errors)?;
        writeln!(f, "  {:<20} {:>12} {:>12}", "plugins, per event", mean(&tally.old), mean(&tally.new))?;
        for sample in &tally.samples {
            let Sample { difference, event_id, event_type, .. } = sample;
            writeln!(f, "\n{event_id} ({event_type}) is {}:", difference.as_str())?;
            for line in lines(sample) {
                let line: String = line.chars().take(LINE_CHARACTERS_MAX).collect();
                match line.chars().next() {
                    Some('-') => writeln!(f, "  {}", styled(GONE, line))?,
                    Some('+') => writeln!(f, "  {}", styled(NEW, line))?,
                    Some(_) | None => writeln!(f, "  {line}")?,
                }
            }
        }
        Ok(())
    }
}

/// What differs: of two requests the lines, of anything else what was decided.
fn lines(sample: &Sample) -> Vec<String> {
    let (old, new) = (sample.old.text(), sample.new.text());
    let text = if !old.is_empty() && !new.is_empty() {
        diff(&old, &new)
    } else {
        format!("- {}\n+ {}\n", sample.old.describe(), sample.new.describe())
    };
    let mut lines: Vec<_> = text.lines().take(LINES_MAX).map(str::to_owned).collect();
    let left_out = text.lines().count() - lines.len();
    if left_out > 0 {
        lines.push(format!("  … and {left_out} lines more"));
    }
    if lines.iter().all(|line| !line.starts_with(['-', '+'])) {
        let is_elsewhere = match (&sample.old, &sample.new) {
            (Decision::Sends(_, old), Decision::Sends(_, new)) => old != new,
            _ => false,
        };
        // The same values, written otherwise.
        let why = if is_elsewhere {
            "the URL, a header or the secret is another, which is not shown"
        } else {
            "the same JSON in other bytes"
        };
        lines = vec![format!("  {why}")];
    }
    lines
}

/// For programs.
pub fn report(options: &Options, tally: &Tally) -> Value {
    let counts: Map<String, Value> = Difference::ALL
        .iter()
        .map(|difference| {
            let key = serde_json::to_value(difference).unwrap_or_default();
            (key.as_str().unwrap_or_default().to_owned(), tally.count(*difference).into())
        })
        .collect();
    let micros = |figures: &Figures| figures.mean().map(|mean| mean.as_nanos() as f64 / 1e3);
    let samples: Vec<_> = tally
        .samples
        .iter()
        .map(|sample| {
            json!({
                "event": sample.event_id,
                "eventType": sample.event_type,
                "difference": sample.difference,
                "old": sample.old.describe(),
                "new": sample.new.describe(),
                "diff": lines(sample),
            })
        })
        .collect();
    json!({
        "subscription": options.subscription,
        "events": tally.events,
        "limited": tally.is_cut,
        "counts": counts,
        "errors": { "old": tally.old.errors, "new": tally.new.errors },
        "microsPerEvent": { "old": micros(&tally.old), "new": micros(&tally.new) },
        "seconds": tally.took.as_secs_f64(),
        "samples": samples,
    })
}
