//! A subscription as one config has it: its route and its plugins, and what they decide about an event.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::app;
use crate::cli::Error;
use crate::config::{Config, PluginFixtures, PluginSpec, no_subscription};
use crate::delivery::{NoteKind, PluginFaultKind, Request};
use crate::dispatch::Snapshot;
use crate::endpoint::Endpoint;
use crate::event::Event;
use crate::filter::{Condition, Match};
use crate::plugin::{ChainEnd, PluginHost};
use crate::route::Subscription;
use crate::send::body_for;

/// What is to be otherwise than the config says.
#[derive(Clone, Copy, Default)]
pub struct Change<'a> {
    /// `FILE`, or `NAME=FILE`.
    pub plugin: Option<&'a str>,
    /// A condition; an empty one for none.
    pub condition: Option<&'a str>,
}

/// What a subscription makes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Its route does not want it.
    Unmatched,
    /// This would be sent, there.
    Sends(Request, Destination),
    /// A plugin drops it.
    Dropped { plugin: Arc<str>, reason: String },
    /// A plugin gives it up.
    DeadLetter { plugin: Arc<str>, reason: String },
    /// A plugin fails.
    Fails { plugin: Arc<str>, kind: PluginFaultKind, detail: String },
}

/// Where a request goes, and what the endpoint adds to it. Two are the same when all of it is, secrets included.
#[derive(Clone, Debug)]
pub struct Destination(pub Arc<Endpoint>);

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.0, &other.0);
        Arc::ptr_eq(ours, theirs)
            || (ours.url == theirs.url && ours.headers == theirs.headers && ours.signing_keys == theirs.signing_keys)
    }
}

impl Eq for Destination {}

/// A decision, and what its plugins did.
pub struct Decided {
    pub decision: Decision,
    /// How long the plugins ran; none where none ran.
    pub plugins_took: Option<Duration>,
    /// Whether one of them failed, and the event passed all the same.
    pub passed_through: bool,
}

/// The subscription, ready to decide.
pub struct Version {
    name: Arc<str>,
    plugins: Arc<PluginHost>,
    /// None: the config does not have it.
    snapshot: Option<Snapshot>,
}

/// A config with one subscription.
pub struct Only {
    config: Config,
    /// The plugin that `--plugin` names.
    replaced: Option<Arc<PluginSpec>>,
}

/// The config with nothing but this subscription and what it needs, changed; `None` when it has no such subscription. What
/// is left stands where it stood, so that a fault is shown at its place.
pub fn only(config: &Config, name: &str, change: &Change<'_>) -> Result<Option<Only>, Error> {
    let mut config = config.clone();
    let is_it = |subscription: &Arc<Subscription>| *subscription.name == *name;
    let mut found = None;
    for route in &mut config.routes {
        let Some(number) = route.subscriptions.iter().position(is_it) else {
            route.subscriptions.clear();
            continue;
        };
        route.subscriptions.truncate(number + 1);
        for other in &mut route.subscriptions[..number] {
            *other = Arc::new(Subscription { plugins: Vec::new(), ..Subscription::clone(other) });
        }
        found = Some(route);
    }
    let Some(route) = found else { return Ok(None) };
    let own = route.subscriptions.last().map_or(&[][..], |subscription| &subscription.plugins);
    let uses: Vec<_> = own.iter().map(|plugin| Arc::clone(&plugin.plugin)).collect();
    if let Some(condition) = change.condition {
        // Here, since it stands in no file.
        let condition = Some(condition).filter(|condition| !condition.trim().is_empty());
        condition.map(Condition::compile).transpose().map_err(|errors| {
            let told: Vec<_> = errors.iter().map(|error| format!("`--where`: {error}")).collect();
            Error::Config(told.join("\n"))
        })?;
        route.condition = condition.map(str::to_owned);
    }
    config.plugins.retain(|spec| uses.contains(&spec.name));
    let replaced = change.plugin.map(|text| replacement(text, &uses)).transpose().map_err(Error::Usage)?;
    for spec in &mut config.plugins {
        // A backtest shows what fixtures would only forbid.
        let mut changed = PluginSpec { fixtures: PluginFixtures::Off, ..PluginSpec::clone(spec) };
        if let Some((_, file)) = replaced.as_ref().filter(|(name, _)| *name == spec.name) {
            (changed.path, changed.sha256) = (file.clone(), None);
        }
        *spec = Arc::new(changed);
    }
    let replaced = replaced.and_then(|(name, _)| config.plugins.iter().find(|spec| spec.name == name).cloned());
    Ok(Some(Only { config, replaced }))
}

/// Which of a subscription's plugins is replaced, and with which file.
fn replacement(text: &str, uses: &[Arc<str>]) -> Result<(Arc<str>, PathBuf), String> {
    let names = || uses.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if let Some((name, file)) = text.split_once('=')
        && let Some(known) = uses.iter().find(|known| ***known == *name)
    {
        return Ok((Arc::clone(known), file.into()));
    }
    match uses {
        [] => Err("the subscription has no plugin that `--plugin` could replace".to_owned()),
        [first, rest @ ..] if rest.iter().all(|name| name == first) => Ok((Arc::clone(first), text.into())),
        _ => Err(format!("the subscription has several plugins; say `--plugin NAME=FILE` with one of {}", names())),
    }
}

/// What is said of a subscription that no config has.
pub fn unknown(config: &Config, name: &str) -> String {
    let known = config.routes.iter().flat_map(|route| &route.subscriptions).map(|subscription| &*subscription.name);
    no_subscription(name, known)
}

impl Version {
    /// Compiles the route and loads the plugins.
    pub async fn load(only: Option<Only>, name: &str, plugins: &Arc<PluginHost>) -> Result<Self, Error> {
        let snapshot = match &only {
            Some(Only { config, replaced }) => {
                if let Some(spec) = replaced {
                    // Here, since the config says nothing of it.
                    let loaded = plugins.load(spec).await;
                    loaded.map_err(|error| Error::Config(format!("`--plugin`: {error}")))?;
                }
                Some(app::generation(config, plugins).await?)
            }
            None => None,
        };
        Ok(Self { name: name.into(), plugins: Arc::clone(plugins), snapshot })
    }

    /// What the subscription makes of an event.
    pub async fn decide(&self, event: &Arc<Event>) -> Decided {
        let unmatched = Decided { decision: Decision::Unmatched, plugins_took: None, passed_through: false };
        let Some(snapshot) = &self.snapshot else { return unmatched };
        let is_it = |found: &Match| found.is_wanted() && found.subscription.name == self.name;
        let is_wanted = snapshot.routes.matches(event).iter().any(is_it);
        let Some(consumer) = snapshot.consumer(&self.name).filter(|_| is_wanted) else { return unmatched };
        let endpoint = &consumer.endpoint.endpoint;
        let sends = |request| Decision::Sends(request, Destination(Arc::clone(endpoint)));
        let Some(chain) = &consumer.chain else {
            return Decided { decision: sends(body_for(event, endpoint.format)), ..unmatched };
        };
        let (run, traced) = self.plugins.trace(chain, event).await;
        let decision = match run.end {
            ChainEnd::Event { event, .. } => sends(body_for(&event, endpoint.format)),
            ChainEnd::Send(request) => sends(request),
            ChainEnd::Dropped { plugin, reason } => Decision::Dropped { plugin, reason },
            ChainEnd::DeadLetter { plugin, reason } => Decision::DeadLetter { plugin, reason },
            ChainEnd::Fault { plugin, kind, detail, .. } => Decision::Fails { plugin, kind, detail },
            ChainEnd::Busy | ChainEnd::Open { .. } => unreachable!("a trace waits for its turn and asks no breaker"),
        };
        Decided {
            decision,
            plugins_took: Some(traced.iter().map(|call| call.report.duration).sum()),
            passed_through: run.notes.iter().any(|note| note.kind == NoteKind::PassedThrough),
        }
    }
}

impl Decision {
    /// In a few words, without what would be sent.
    pub fn describe(&self) -> String {
        match self {
            Self::Unmatched => "not matched".to_owned(),
            Self::Sends(request, _) => format!("sends {} bytes of {}", request.body.len(), request.content_type),
            Self::Dropped { plugin, reason } => format!("dropped by `{plugin}`: {reason}"),
            Self::DeadLetter { plugin, reason } => format!("given up by `{plugin}`: {reason}"),
            Self::Fails { plugin, kind, detail } => format!("`{plugin}` fails ({}): {detail}", kind.as_str()),
        }
    }

    /// What would be sent, line by line: where to as far as it may be seen, headers, and the body with a line for each value
    /// where it is JSON.
    pub fn text(&self) -> String {
        let Self::Sends(request, Destination(endpoint)) = self else { return String::new() };
        let mut text = format!("POST {}\n", endpoint.url);
        for (name, _) in &endpoint.headers {
            text.push_str(&format!("{name}: ***\n"));
        }
        text.push_str(&format!("content-type: {}\n", request.content_type));
        for (name, value) in &request.headers {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text + &body(&request.body)
    }
}

fn body(bytes: &Bytes) -> String {
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) {
        return format!("{value:#}");
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("{} bytes that are no text", bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_plugin_is_named_where_it_has_to_be() {
        let of = |text: &str, uses: &[&str]| {
            let uses: Vec<Arc<str>> = uses.iter().map(|name| Arc::from(*name)).collect();
            replacement(text, &uses).map(|(name, file)| (name.to_string(), file.display().to_string()))
        };
        let pair = |name: &str, file: &str| Ok((name.to_owned(), file.to_owned()));
        assert_eq!(of("new.wasm", &["slack"]), pair("slack", "new.wasm"));
        assert_eq!(of("new.wasm", &["slack", "slack"]), pair("slack", "new.wasm"));
        assert_eq!(of("slack=new.wasm", &["redact", "slack"]), pair("slack", "new.wasm"));
        assert_eq!(of("a=b.wasm", &["slack"]), pair("slack", "a=b.wasm"));
        assert!(of("new.wasm", &["redact", "slack"]).unwrap_err().contains("`redact`, `slack`"));
        assert!(of("new.wasm", &[]).unwrap_err().contains("no plugin"));
    }

    #[test]
    fn bodies_are_shown_value_by_value_and_never_as_broken_text() {
        assert_eq!(body(&Bytes::from_static(br#"{"b":1,"a":[]}"#)), "{\n  \"a\": [],\n  \"b\": 1\n}");
        assert_eq!(body(&Bytes::from_static(b"a=b&c=d")), "a=b&c=d");
        assert_eq!(body(&Bytes::from_static(b"\xff\0")), "2 bytes that are no text");
    }
}
