//! What differs between two configs, key by key. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::effects;
use crate::config::{Description, Keys, below, is_same};

/// What happens to a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It stays, and says something else.
    Changed,
}

impl Mark {
    /// The sign before a line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "+",
            Self::Removed => "-",
            Self::Changed => "~",
        }
    }
}

/// A kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A table that is there once.
    Settings,
    /// `[sources.NAME]`
    Source,
    /// `[endpoints.NAME]`
    Endpoint,
    /// `[plugins.NAME]`
    Plugin,
    /// `[[routes]]`
    Route,
    /// One of a route's subscriptions.
    Subscription,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Settings, Self::Source, Self::Endpoint, Self::Plugin, Self::Route, Self::Subscription];

    fn of(self, description: &Description) -> (&'static str, &BTreeMap<String, Keys>) {
        match self {
            Self::Settings => ("settings", &description.settings),
            Self::Source => ("sources", &description.sources),
            Self::Endpoint => ("endpoints", &description.endpoints),
            Self::Plugin => ("plugins", &description.plugins),
            Self::Route => ("routes", &description.routes),
            Self::Subscription => ("subscriptions", &description.subscriptions),
        }
    }

    /// Where a thing of this kind stands in a config; of what has a number, any.
    fn place(self, name: &str) -> String {
        match self {
            Self::Settings => name.to_owned(),
            Self::Source => format!("sources.{name}"),
            Self::Endpoint => format!("endpoints.{name}"),
            Self::Plugin => format!("plugins.{name}"),
            Self::Route => "routes[0]".to_owned(),
            Self::Subscription => "routes[0].subscriptions[0]".to_owned(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Settings => "settings",
            Self::Source => "source",
            Self::Endpoint => "endpoint",
            Self::Plugin => "plugin",
            Self::Route => "route",
            Self::Subscription => "subscription",
        })
    }
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// How.
    pub mark: Mark,
    /// What.
    pub kind: Kind,
    /// Which.
    pub name: String,
    /// What it will say; of what is changed, only that.
    pub keys: Vec<KeyChange>,
    /// How many deliveries wait that this concerns, where it does and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// What follows, in sentences.
    pub effects: Vec<String>,
}

/// A key that differs; without a value the default holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyChange {
    /// The key.
    pub key: String,
    /// What it says before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it will say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether the secret that it holds, or says the place of, is another.
    pub secret: bool,
}

/// How many deliveries wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// All of them.
    pub count: u64,
}

/// Everything that differs, kind by kind. `differing` are the secrets that both have and that are not the same.
pub fn changes(before: &Description, after: &Description, differing: &[String]) -> Vec<Change> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        let ((section, old), (_, new)) = (kind.of(before), kind.of(after));
        let nothing = Keys::new();
        for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
            let mark = match (old.get(name), new.get(name)) {
                (Some(_), Some(_)) => Mark::Changed,
                (Some(_), None) => Mark::Removed,
                (None, _) => Mark::Added,
            };
            let (before, after) = (old.get(name).unwrap_or(&nothing), new.get(name).unwrap_or(&nothing));
            let differs = |key: &str| differing.contains(&Description::secret_key(section, name, key));
            let keys = key_changes(&kind.place(name), before, after, differs);
            let keys = match mark {
                Mark::Changed if keys.is_empty() => continue,
                Mark::Added | Mark::Changed => keys,
                Mark::Removed => Vec::new(),
            };
            let mut change = Change { mark, kind, name: name.clone(), keys, waiting: None, effects: Vec::new() };
            change.effects = effects::by_itself(&change, before);
            found.push(change);
        }
    }
    found
}

fn key_changes(within: &str, before: &Keys, after: &Keys, differs: impl Fn(&str) -> bool) -> Vec<KeyChange> {
    let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    let change = |key: &String| {
        let (before, after, secret) = (before.get(key), after.get(key), differs(key));
        let is_same = || is_same(within, key, before.map(String::as_str), after.map(String::as_str));
        let change = || KeyChange { key: key.clone(), before: before.cloned(), after: after.cloned(), secret };
        (secret || !is_same()).then(change)
    };
    keys.filter_map(change).collect()
}

impl Change {
    /// Whether the value of `key`, or something in it, is another.
    pub fn touches(&self, key: &str) -> bool {
        self.keys.iter().any(|change| below(&change.key, key).is_some())
    }
}

impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, before, after, secret } = self;
        match (before, after) {
            (Some(before), Some(after)) if before == after => write!(f, "{key}: {after}")?,
            (Some(before), Some(after)) => write!(f, "{key}: {before} → {after}")?,
            (Some(before), None) => write!(f, "{key}: {before} → (the default)")?,
            (None, Some(after)) => write!(f, "{key}: {after}")?,
            (None, None) => f.write_str(key)?,
        }
        // Of a URL two hosts say it; of a place, neither variable nor file says whether the same is there.
        let is_told = before != after && !key.ends_with(".env") && !key.ends_with(".file");
        f.write_str(if *secret && !is_told { " (changed, not shown)" } else { "" })
    }
}
