//! What must become of each sample event for each subscription, written down apart from the code that does it.

use std::collections::BTreeMap;
use std::fmt;

/// An event's type and a subscription's name: in the demo each type is sent once.
pub type Pair = (String, String);

/// (event type, subscription, final outcome), for everything `config/demo.toml` routes.
const EXPECTED: &[(&str, &str, &str)] = &[
    ("user.created", "mail-customers", "delivered"),
    ("user.created", "crm", "dead-letter"),
    ("user.updated", "mail-customers", "dropped"),
    ("user.deleted", "mail-customers", "dropped"),
    ("organization.created", "tell-community", "delivered"),
    ("organization.updated", "tell-community", "delivered"),
    ("organization.deleted", "tell-community", "delivered"),
    ("project.created", "tell-community", "delivered"),
    ("project.updated", "tell-community", "delivered"),
    ("project.deleted", "tell-community", "delivered"),
    ("order.created", "tell-sales", "delivered"),
    ("order.created", "warehouse", "delivered"),
    ("order.completed", "tell-sales", "delivered"),
    ("order.completed", "warehouse", "delivered"),
    ("order.cancelled", "tell-sales", "filtered"),
    ("order.cancelled", "warehouse", "delivered"),
    ("order.refunded", "tell-sales", "delivered"),
    ("order.refunded", "warehouse", "delivered"),
    ("payment.succeeded", "mail-customers", "dropped"),
    ("payment.failed", "tell-sales", "delivered"),
    ("payment.failed", "mail-customers", "delivered"),
];

/// What is expected.
pub struct Expectations(BTreeMap<Pair, &'static str>);

/// What came of it.
pub struct Verdict {
    expected: usize,
    missing: Vec<Pair>,
    /// Pairs with another outcome than expected, or that were not expected at all.
    wrong: Vec<String>,
}

impl Expectations {
    /// For the events of `config/demo-events.json`.
    pub fn of_the_samples() -> Self {
        let pairs = EXPECTED
            .iter()
            .map(|(event, subscription, outcome)| (((*event).to_owned(), (*subscription).to_owned()), *outcome));
        Self(pairs.collect())
    }

    /// Compares with the final outcomes so far.
    pub fn compare(&self, finals: &BTreeMap<Pair, &'static str>) -> Verdict {
        let missing = self.0.keys().filter(|pair| !finals.contains_key(*pair)).cloned().collect();
        let wrong = finals.iter().filter_map(|(pair, outcome)| {
            let (event, subscription) = pair;
            match self.0.get(pair) {
                Some(expected) if expected == outcome => None,
                Some(expected) => Some(format!("{event} for {subscription}: {outcome}, expected {expected}")),
                None => Some(format!("{event} for {subscription}: {outcome}, expected nothing")),
            }
        });
        Verdict { expected: self.0.len(), missing, wrong: wrong.collect() }
    }
}

impl Verdict {
    /// Whether every expected pair has an outcome.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether every outcome is the expected one.
    pub fn is_as_expected(&self) -> bool {
        self.missing.is_empty() && self.wrong.is_empty()
    }

    /// What is not as expected, a line each.
    pub fn faults(&self) -> String {
        let missing =
            self.missing.iter().map(|(event, subscription)| format!("{event} for {subscription}: no outcome"));
        self.wrong.iter().cloned().chain(missing).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_as_expected() {
            write!(f, "All {} outcomes are as expected.", self.expected)
        } else {
            write!(f, "NOT as expected:\n{}", self.faults())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_a_wrong_and_an_unexpected_outcome_are_each_noticed() {
        let expectations = Expectations::of_the_samples();
        let mut finals = expectations.0.clone();
        assert!(expectations.compare(&finals).is_as_expected());
        let pair = |event: &str, subscription: &str| (event.to_owned(), subscription.to_owned());
        finals.insert(pair("user.created", "crm"), "delivered");
        finals.insert(pair("user.created", "warehouse"), "delivered");
        finals.remove(&pair("order.refunded", "warehouse"));
        let verdict = expectations.compare(&finals);
        assert!(!verdict.is_complete() && !verdict.is_as_expected());
        assert_eq!(verdict.faults().lines().count(), 3);
    }
}
