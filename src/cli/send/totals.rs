//! What became of all events: printed as it comes, and summed up at the end.

use indicatif::ProgressBar;
use serde_json::json;

use super::answer::Fate;
use crate::cli::Error;
use crate::cli::http::ProblemError;
use crate::cli::terminal;

/// Refused events that are shown one by one.
const REFUSED_SHOWN_MAX: u64 = 20;

/// What became of all events.
#[derive(Default)]
pub struct Totals {
    accepted: u64,
    duplicates: u64,
    refused: u64,
    unsent: u64,
    unanswered: u64,
    /// Why the sending ended early.
    pub why: Option<String>,
    /// The number of the last event that has a fate.
    last: u64,
    /// The only event's id, for a person who sent one.
    last_id: Option<String>,
    /// How the input ended.
    pub input: Input,
}

/// How the input ended.
#[derive(Default)]
pub enum Input {
    /// All of it was read, and each of its events has a fate.
    #[default]
    Whole,
    /// There is, or may be, more that was not sent.
    More,
    /// It can't be read on.
    Faulty(String),
}

impl Totals {
    /// How many are stored that were not before.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Another event has its fate.
    pub fn add(&mut self, number: u64, fate: &Fate, as_json: bool, bar: &ProgressBar) {
        self.last = self.last.max(number);
        let counter = match fate {
            Fate::Accepted { .. } => &mut self.accepted,
            Fate::Duplicate { .. } => &mut self.duplicates,
            Fate::Refused { .. } => &mut self.refused,
            Fate::Unsent { .. } => &mut self.unsent,
            Fate::Unanswered { .. } => &mut self.unanswered,
        };
        *counter += 1;
        let mut line = json!({ "event": number, "status": fate.as_str() });
        match fate {
            Fate::Accepted { id } | Fate::Duplicate { id } => {
                self.last_id = Some(id.clone());
                line["id"] = id.clone().into();
            }
            Fate::Refused { errors } => line["errors"] = json!(errors),
            Fate::Unsent { why } | Fate::Unanswered { why } => {
                line["errors"] = json!([{ "pointer": "", "detail": why }]);
            }
        }
        if as_json {
            bar.suspend(|| terminal::print_json_line(&line));
        } else if let Fate::Refused { errors } = fate {
            self.show_refused(number, errors, bar);
        }
    }

    fn show_refused(&self, number: u64, errors: &[ProblemError], bar: &ProgressBar) {
        if self.refused > REFUSED_SHOWN_MAX {
            return;
        }
        bar.suspend(|| {
            anstream::eprintln!("{}", terminal::styled(terminal::BAD, format_args!("event {number} was refused:")));
            for ProblemError { pointer, detail, .. } in errors {
                let place = if pointer.is_empty() { String::new() } else { format!("{pointer}: ") };
                anstream::eprintln!("  {place}{detail}");
            }
        });
    }

    /// Says what became of all; the error is what went wrong.
    pub fn conclude(self, as_json: bool) -> Result<(), Error> {
        if !as_json {
            outln!("{}", self.counts());
        }
        let (sent, left) = (self.accepted + self.duplicates, self.left());
        let mut parts = Vec::new();
        match (&self.why, left.as_str()) {
            (_, "") => {}
            (Some(why), left) => parts.push(format!("{why}: {left}")),
            (None, left) => parts.push(left.to_owned()),
        }
        if self.refused > 0 {
            let all = sent + self.refused + self.unsent + self.unanswered;
            parts.push(format!("{} of {all} events were refused", self.refused));
        }
        match self.input {
            Input::Whole | Input::More => {}
            Input::Faulty(fault) if parts.is_empty() => {
                parts.push(format!("{fault}; the {sent} events before it were sent"));
            }
            Input::Faulty(fault) => parts.push(fault),
        }
        if parts.is_empty() { Ok(()) } else { Err(Error::Failed(parts.join("; "))) }
    }

    /// The counts in a line; of a single event its id.
    fn counts(&self) -> String {
        let Self { accepted, duplicates, refused, unsent, unanswered, .. } = self;
        if let (1, Some(id), 0) = (accepted + duplicates, &self.last_id, refused + unsent + unanswered) {
            return format!("{id} {}", if *accepted == 1 { "accepted" } else { "duplicate" });
        }
        let mut line = format!("{accepted} accepted, {duplicates} duplicates, {refused} refused");
        for (count, what) in [(unsent, "not sent"), (unanswered, "without an answer")] {
            if *count > 0 {
                line.push_str(&format!(", {count} {what}"));
            }
        }
        line
    }

    /// What was not sent, or perhaps not.
    fn left(&self) -> String {
        let events = |count: u64| if count == 1 { "1 event".to_owned() } else { format!("{count} events") };
        let was = |count: u64| if count == 1 { "was" } else { "were" };
        let mut parts = Vec::new();
        if self.unsent > 0 {
            parts.push(format!("{} {} not sent", events(self.unsent), was(self.unsent)));
        }
        if self.unanswered > 0 {
            parts.push(format!("{} had no answer and may be stored", events(self.unanswered)));
        }
        match (&self.input, self.last) {
            (Input::More, 0) => parts.push("nothing was sent".to_owned()),
            (Input::More, last) => parts.push(format!("what follows event {last} of the input was not sent")),
            (Input::Whole | Input::Faulty(_), _) => {}
        }
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(fates: &[Fate], why: Option<&str>, input: Input) -> (String, Option<String>) {
        let mut totals = Totals { input, why: why.map(str::to_owned), ..Totals::default() };
        for (number, fate) in (1..).zip(fates) {
            totals.add(number, fate, false, &ProgressBar::hidden());
        }
        let counts = totals.counts();
        (counts, totals.conclude(true).err().map(|error| error.to_string()))
    }

    #[test]
    fn what_was_and_was_not_sent_is_said_in_a_line() {
        let accepted = || Fate::Accepted { id: "evt_1".to_owned() };
        let unsent = || Fate::Unsent { why: "no router".to_owned() };
        let unanswered = || Fate::Unanswered { why: "interrupted".to_owned() };
        for (fates, why, input, counts, error) in [
            (vec![accepted()], None, Input::Whole, "evt_1 accepted", None),
            (vec![accepted()], Some("interrupted"), Input::Whole, "evt_1 accepted", None),
            (
                vec![accepted(), unsent(), unsent()],
                Some("no router"),
                Input::Whole,
                "1 accepted, 0 duplicates, 0 refused, 2 not sent",
                Some("no router: 2 events were not sent"),
            ),
            (
                vec![accepted(), unanswered()],
                Some("interrupted"),
                Input::More,
                "1 accepted, 0 duplicates, 0 refused, 1 without an answer",
                Some(
                    "interrupted: 1 event had no answer and may be stored, what follows event 2 of the input was not sent",
                ),
            ),
            (
                vec![],
                Some("interrupted"),
                Input::More,
                "0 accepted, 0 duplicates, 0 refused",
                Some("interrupted: nothing was sent"),
            ),
            (
                vec![accepted(), Fate::Refused { errors: vec![] }],
                None,
                Input::Whole,
                "1 accepted, 0 duplicates, 1 refused",
                Some("1 of 2 events were refused"),
            ),
            (
                vec![accepted()],
                None,
                Input::Faulty("not JSON".to_owned()),
                "evt_1 accepted",
                Some("not JSON; the 1 events before it were sent"),
            ),
        ] {
            assert_eq!(said(&fates, why, input), (counts.to_owned(), error.map(str::to_owned)));
        }
    }
}
