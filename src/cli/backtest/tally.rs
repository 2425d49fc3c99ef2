//! What differs between two versions, counted, with the first few events of each kind. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use bytestring::ByteString;
use serde::Serialize;

use super::version::{Decided, Decision};
use crate::event::{Event, apart};

/// How two decisions about one event differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Difference {
    /// Neither version wants it.
    Unmatched,
    /// They agree.
    Unchanged,
    /// Another request is sent, or it goes elsewhere; or the reason is another.
    Changed,
    /// The new version's route wants it.
    NewlyMatched,
    /// The new version's route does not want it.
    NewlyUnmatched,
    /// A plugin of the new version drops it.
    NewlyDropped,
    /// It was dropped or given up, and is sent.
    NewlySent,
    /// A plugin of the new version gives it up.
    NewlyDeadLettered,
    /// A plugin of the new version fails.
    NewlyFailing,
    /// A plugin of the old version failed.
    NoLongerFailing,
}

impl Difference {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 10] = [
        Self::Unmatched,
        Self::Unchanged,
        Self::Changed,
        Self::NewlyMatched,
        Self::NewlyUnmatched,
        Self::NewlyDropped,
        Self::NewlySent,
        Self::NewlyDeadLettered,
        Self::NewlyFailing,
        Self::NoLongerFailing,
    ];

    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unmatched => "matched by neither",
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::NewlyMatched => "newly matched",
            Self::NewlyUnmatched => "newly unmatched",
            Self::NewlyDropped => "newly dropped",
            Self::NewlySent => "newly sent",
            Self::NewlyDeadLettered => "newly dead-lettered",
            Self::NewlyFailing => "newly failing",
            Self::NoLongerFailing => "no longer failing",
        }
    }

    /// Compares.
    pub fn of(old: &Decision, new: &Decision) -> Self {
        use Decision::{DeadLetter, Dropped, Fails, Sends, Unmatched};
        match (old, new) {
            (Unmatched, Unmatched) => Self::Unmatched,
            (old, new) if old == new => Self::Unchanged,
            (Unmatched, _) => Self::NewlyMatched,
            (_, Unmatched) => Self::NewlyUnmatched,
            (Fails { .. }, Fails { .. }) => Self::Changed,
            (Fails { .. }, _) => Self::NoLongerFailing,
            (_, Fails { .. }) => Self::NewlyFailing,
            (Sends(..), Sends(..)) | (Dropped { .. }, Dropped { .. }) | (DeadLetter { .. }, DeadLetter { .. }) => {
                Self::Changed
            }
            (Sends(..) | DeadLetter { .. }, Dropped { .. }) => Self::NewlyDropped,
            (Sends(..) | Dropped { .. }, DeadLetter { .. }) => Self::NewlyDeadLettered,
            (Dropped { .. } | DeadLetter { .. }, Sends(..)) => Self::NewlySent,
        }
    }

    const fn is_shown(self) -> bool {
        !matches!(self, Self::Unmatched | Self::Unchanged)
    }
}

/// An event for which the versions differ.
#[derive(Debug)]
pub struct Sample {
    pub difference: Difference,
    pub event_id: ByteString,
    pub event_type: ByteString,
    pub old: Decision,
    pub new: Decision,
}

/// One version's figures.
#[derive(Debug, Default)]
pub struct Figures {
    /// Events for which a plugin failed, those that passed all the same (`on_error = "pass-through"`) among them.
    pub errors: u64,
    /// Events for which plugins ran.
    ran: u32,
    took: Duration,
}

impl Figures {
    /// The mean time of the plugins for an event; none where they never ran.
    pub fn mean(&self) -> Option<Duration> {
        self.took.checked_div(self.ran)
    }

    fn add(&mut self, decided: &Decided) {
        self.errors += u64::from(decided.passed_through || matches!(decided.decision, Decision::Fails { .. }));
        if let Some(took) = decided.plugins_took {
            self.ran = self.ran.saturating_add(1);
            self.took += took;
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Tally {
    pub events: u64,
    /// Whether there are older ones that `--limit` left out.
    pub is_cut: bool,
    pub old: Figures,
    pub new: Figures,
    /// In the order of the events.
    pub samples: Vec<Sample>,
    /// How long it took in all.
    pub took: Duration,
    counts: BTreeMap<Difference, u64>,
    samples_max: usize,
}

impl Tally {
    /// Keeps so many events of each kind of difference.
    pub fn new(samples_max: usize) -> Self {
        Self { samples_max, ..Self::default() }
    }

    /// How many events differ so.
    pub fn count(&self, difference: Difference) -> u64 {
        self.counts.get(&difference).copied().unwrap_or(0)
    }

    /// Counts an event.
    pub fn add(&mut self, event: &Event, old: Decided, new: Decided) {
        self.events += 1;
        self.old.add(&old);
        self.new.add(&new);
        let difference = Difference::of(&old.decision, &new.decision);
        let count = self.counts.entry(difference).or_default();
        *count += 1;
        if difference.is_shown() && *count <= self.samples_max as u64 {
            let (event_id, event_type) = (apart(&event.id), apart(&event.event_type));
            self.samples.push(Sample { difference, event_id, event_type, old: old.decision, new: new.decision });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::version::Destination;
    use super::*;
    use crate::delivery::{PluginFaultKind, Request};
    use crate::endpoint::{Endpoint, EndpointUrl};
    use crate::event;

    fn sends(body: &'static str) -> Decision {
        sends_to("https://example.com/hook", body)
    }

    fn sends_to(url: &str, body: &'static str) -> Decision {
        let endpoint = Endpoint::new("x", EndpointUrl::parse(url).unwrap());
        let request = Request { content_type: "text/plain".into(), headers: vec![], body: body.into() };
        Decision::Sends(request, Destination(Arc::new(endpoint)))
    }

    fn dropped(reason: &str) -> Decision {
        Decision::Dropped { plugin: "p".into(), reason: reason.into() }
    }

    fn dead(reason: &str) -> Decision {
        Decision::DeadLetter { plugin: "p".into(), reason: reason.into() }
    }

    fn fails(detail: &str) -> Decision {
        Decision::Fails { plugin: "p".into(), kind: PluginFaultKind::Trap, detail: detail.into() }
    }

    #[test]
    fn each_pair_of_decisions_differs_in_one_way() {
        use Difference::*;
        for (old, new, difference) in [
            (Decision::Unmatched, Decision::Unmatched, Unmatched),
            (sends("a"), sends("a"), Unchanged),
            (dropped("a"), dropped("a"), Unchanged),
            (sends("a"), sends("b"), Changed),
            (sends("a"), sends_to("https://example.com/other", "a"), Changed),
            (dropped("a"), dropped("b"), Changed),
            (dead("a"), dead("b"), Changed),
            (fails("a"), fails("b"), Changed),
            (Decision::Unmatched, fails("a"), NewlyMatched),
            (Decision::Unmatched, sends("a"), NewlyMatched),
            (fails("a"), Decision::Unmatched, NewlyUnmatched),
            (sends("a"), dropped("b"), NewlyDropped),
            (dead("a"), dropped("b"), NewlyDropped),
            (dropped("a"), sends("b"), NewlySent),
            (dead("a"), sends("b"), NewlySent),
            (sends("a"), dead("b"), NewlyDeadLettered),
            (sends("a"), fails("b"), NewlyFailing),
            (fails("a"), dropped("b"), NoLongerFailing),
        ] {
            assert_eq!(Difference::of(&old, &new), difference, "{old:?} → {new:?}");
        }
    }

    #[test]
    fn events_are_counted_and_the_first_of_a_kind_are_kept() {
        let mut tally = Tally::new(2);
        let decided = |decision, micros| {
            let plugins_took = Some(Duration::from_micros(micros));
            Decided { decision, plugins_took, passed_through: false }
        };
        for number in 0..5 {
            let event = event::sample(&format!("evt_{number}"), "a.b", "{}");
            tally.add(&event, decided(sends("a"), 10), decided(fails("b"), 30));
        }
        tally.add(
            &event::sample("evt_5", "a.b", "{}"),
            decided(sends("a"), 40),
            Decided { decision: Decision::Unmatched, plugins_took: None, passed_through: true },
        );
        assert_eq!((tally.events, tally.count(Difference::NewlyFailing), tally.new.errors), (6, 5, 6));
        let ids: Vec<_> = tally.samples.iter().map(|sample| &*sample.event_id).collect();
        assert_eq!(ids, ["evt_0", "evt_1", "evt_5"]);
        assert_eq!(tally.old.mean(), Some(Duration::from_micros(15)));
        assert_eq!(tally.new.mean(), Some(Duration::from_micros(30)));
    }
}
