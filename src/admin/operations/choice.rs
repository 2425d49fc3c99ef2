//! Whether a pair of event and subscription is made again. Pure.

use serde::{Deserialize, Serialize};

use super::pairs::Status;

/// Why a delivery that was looked at is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// It has succeeded; `all` makes it again.
    Delivered,
    /// An operator has thrown it away; `all` makes it again.
    Discarded,
    /// The event waits for its first attempts, which come by themselves.
    NotSettled,
    /// A router is at work on it at this moment.
    InFlight,
    /// The dead letter is not there any more: it was replayed or discarded meanwhile.
    Gone,
    /// The event is no longer kept.
    EventGone,
    /// The config has no such subscription.
    SubscriptionGone,
    /// Today's routes don't give the event to the subscription.
    NotMatched,
    /// The `where` of today's route keeps the event from it.
    Filtered,
    /// Plugins made what was sent, and of what has arrived or was thrown away no bytes are kept; `rerun` makes it again
    /// through today's.
    OutputNotKept,
}

impl Skip {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Discarded => "discarded",
            Self::NotSettled => "not-settled",
            Self::InFlight => "in-flight",
            Self::Gone => "gone",
            Self::EventGone => "event-gone",
            Self::SubscriptionGone => "subscription-gone",
            Self::NotMatched => "not-matched",
            Self::Filtered => "filtered",
            Self::OutputNotKept => "output-not-kept",
        }
    }
}

/// What today's config says of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Today {
    /// The subscription would get the event.
    Wanted,
    /// The route's `where` keeps it from it.
    Filtered,
    /// Its route does not fit.
    NotMatched,
    /// There is no such subscription.
    Gone,
}

/// A pair that is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    /// How it stands.
    pub status: Status,
    /// What today's config says of it.
    pub today: Today,
    /// Whether plugins made what was sent, or would make it today: the event alone does not give those bytes.
    pub has_plugins: bool,
}

/// Which pairs of those that are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Criteria {
    /// Those that stand like this.
    pub status: Option<Status>,
    /// Also those that have succeeded.
    pub all: bool,
    /// Through today's plugins, whatever was sent before.
    pub rerun: bool,
}

/// What is done with a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is made again.
    Replay,
    /// It is left as it is, and that is told.
    Skip(Skip),
    /// It is not one of those that were asked for.
    Other,
}

/// Decides.
pub(super) fn choose(stand: Stand, criteria: Criteria) -> Choice {
    let Stand { status, today, has_plugins } = stand;
    match criteria.status {
        Some(wanted) if wanted != status => return Choice::Other,
        // Who asks for what was delivered by its name means it.
        Some(_) => {}
        None if criteria.all => {}
        None => match status {
            Status::Delivered => return Choice::Skip(Skip::Delivered),
            Status::Discarded => return Choice::Skip(Skip::Discarded),
            Status::Scheduled | Status::Filtered | Status::Dropped | Status::DeadLetter | Status::Unmatched => {}
        },
    }
    match (status, today) {
        (Status::Delivered | Status::Discarded, Today::Wanted) if has_plugins && !criteria.rerun => {
            Choice::Skip(Skip::OutputNotKept)
        }
        (_, Today::Wanted) => Choice::Replay,
        (_, Today::Gone) => Choice::Skip(Skip::SubscriptionGone),
        // The store keeps the delivery, so the routes of today have no say in it.
        (Status::Scheduled | Status::DeadLetter, Today::Filtered | Today::NotMatched) => Choice::Replay,
        (_, Today::Filtered) => Choice::Skip(Skip::Filtered),
        (_, Today::NotMatched) => Choice::Skip(Skip::NotMatched),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_succeeded_and_is_wanted_today_is_made_again() {
        use Status::*;
        let chosen = |status, today, wanted, all| {
            choose(Stand { status, today, has_plugins: false }, Criteria { status: wanted, all, rerun: false })
        };
        for (status, today, wanted, all, expected) in [
            (DeadLetter, Today::Wanted, None, false, Choice::Replay),
            (DeadLetter, Today::NotMatched, None, false, Choice::Replay),
            (DeadLetter, Today::Gone, None, false, Choice::Skip(Skip::SubscriptionGone)),
            (Scheduled, Today::Filtered, None, false, Choice::Replay),
            (Dropped, Today::Wanted, None, false, Choice::Replay),
            (Dropped, Today::Filtered, None, false, Choice::Skip(Skip::Filtered)),
            (Filtered, Today::Wanted, None, false, Choice::Replay),
            (Filtered, Today::Filtered, None, false, Choice::Skip(Skip::Filtered)),
            (Unmatched, Today::Wanted, None, false, Choice::Replay),
            (Unmatched, Today::NotMatched, None, false, Choice::Skip(Skip::NotMatched)),
            (Delivered, Today::Wanted, None, false, Choice::Skip(Skip::Delivered)),
            (Delivered, Today::Wanted, None, true, Choice::Replay),
            (Delivered, Today::Wanted, Some(Delivered), false, Choice::Replay),
            (Delivered, Today::NotMatched, None, true, Choice::Skip(Skip::NotMatched)),
            (Discarded, Today::Wanted, None, false, Choice::Skip(Skip::Discarded)),
            (Discarded, Today::Wanted, None, true, Choice::Replay),
            (Dropped, Today::Wanted, Some(DeadLetter), true, Choice::Other),
        ] {
            assert_eq!(chosen(status, today, wanted, all), expected, "{status:?} {today:?} {wanted:?} {all}");
        }
    }

    #[test]
    fn what_plugins_made_is_only_made_again_through_todays_when_that_is_asked_for() {
        use Status::*;
        let chosen = |status, rerun| {
            choose(
                Stand { status, today: Today::Wanted, has_plugins: true },
                Criteria { status: None, all: true, rerun },
            )
        };
        for (status, kept) in [(Delivered, false), (Discarded, false), (DeadLetter, true), (Scheduled, true)] {
            let expected = if kept { Choice::Replay } else { Choice::Skip(Skip::OutputNotKept) };
            assert_eq!((chosen(status, false), chosen(status, true)), (expected, Choice::Replay), "{status:?}");
        }
        // Nothing was sent, so there is nothing that it would have to equal.
        assert!([Dropped, Filtered, Unmatched].iter().all(|status| chosen(*status, false) == Choice::Replay));
    }
}
