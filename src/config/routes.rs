//! `[[routes]]` and their subscriptions: names are resolved here, so that a `Route` holds its endpoints.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::document::child;
use super::faults::nearest;
use super::origins::Part;
use super::reader::Entry;
use super::values::{self, KIB};
use crate::endpoint::Endpoint;
use crate::route::{OnError, PluginMode, PluginUse, RetrySchedule, Route, Subscription};

const ROUTES_MAX: usize = 100_000;
const PATTERNS_MAX: usize = 1_000;
const SOURCES_MAX: usize = 1_000;
const SUBSCRIPTIONS_OF_A_ROUTE_MAX: usize = 10_000;
const PLUGINS_OF_A_SUBSCRIPTION_MAX: usize = 16;
const CONDITION_BYTES_MAX: usize = 16 * KIB;
const PLUGIN_CONFIG_BYTES_MAX: usize = 256 * KIB;

/// What routes may name, whether its own table has a fault or not.
pub(super) struct Names<'a> {
    pub sources: BTreeSet<String>,
    pub plugins: BTreeSet<String>,
    pub endpoints: HashMap<String, &'a Arc<Endpoint>>,
}

/// Reads all routes.
pub(super) fn routes(entry: Option<&Entry<'_>>, names: &Names<'_>) -> Vec<Route> {
    let mut routes = Routes { names, route_keys: HashMap::new(), subscription_keys: HashMap::new() };
    if let Some(entry) = entry.filter(|entry| entry.value.is_object()) {
        entry.fault("must be a list: write `[[routes]]`, with two brackets");
        return Vec::new();
    }
    let entries = entry.and_then(|entry| entry.list(ROUTES_MAX)).unwrap_or_default();
    entries.iter().map(|entry| routes.route(entry)).collect()
}

struct Routes<'n> {
    names: &'n Names<'n>,
    /// The key of the first route of each name, and of the first subscription.
    route_keys: HashMap<String, String>,
    subscription_keys: HashMap<String, String>,
}

impl Routes<'_> {
    /// What can't be used has a stand-in, so that each route and subscription has the number by which the file has it.
    fn route(&mut self, entry: &Entry<'_>) -> Route {
        let Some(mut table) = entry.table() else {
            let name = Arc::from("");
            return Route { name, sources: vec![], patterns: vec![], condition: None, subscriptions: vec![] };
        };
        let name = table.require("name", "routes are named, for example `name = \"orders\"`");
        let name = name.and_then(|entry| unique_name(&entry, "route", &mut self.route_keys));
        let patterns = table.require("events", "the event types it takes, for example `events = [\"order.*\"]`");
        let patterns = patterns.and_then(|entry| patterns_of(&entry));
        let sources = table.find("sources").and_then(|entry| entry.list(SOURCES_MAX));
        let sources = sources.into_iter().flatten().filter_map(|entry| {
            let name = entry.text()?;
            let is_known = self.names.sources.contains(&*name);
            Some(Arc::from(resolve(&entry, "source", &name, is_known, self.names.sources.iter())))
        });
        let sources = sources.collect();
        let condition = table.find("where").and_then(|entry| {
            entry.parse(|text| match text.len() {
                _ if text.trim().is_empty() => Err("is empty; leave it out to take every event".to_owned()),
                length if length > CONDITION_BYTES_MAX => {
                    Err(format!("is longer than {}", values::show_bytes(CONDITION_BYTES_MAX)))
                }
                _ => Ok(text.to_owned()),
            })
        });
        let subscriptions = table.require("subscriptions", "who gets the events");
        let subscriptions = subscriptions.and_then(|entry| entry.list(SUBSCRIPTIONS_OF_A_ROUTE_MAX));
        table.end();
        let name: Arc<str> = Arc::from(name.unwrap_or_default());
        let subscriptions = subscriptions.unwrap_or_default();
        let subscriptions = subscriptions.iter().map(|entry| Arc::new(self.subscription(&name, entry))).collect();
        Route { name, sources, patterns: patterns.unwrap_or_default(), condition, subscriptions }
    }

    fn subscription(&mut self, route: &Arc<str>, entry: &Entry<'_>) -> Subscription {
        let Some(mut table) = entry.table() else {
            let (route, endpoint) = (Arc::clone(route), Arc::new(Endpoint::stand_in("")));
            let (name, on_error, retry) = (Arc::from(""), OnError::default(), RetrySchedule::default());
            return Subscription { name, route, endpoint, plugins: vec![], on_error, retry };
        };
        let name = table.require("name", "subscriptions are named, for example `name = \"tell-sales\"`");
        let name = name.and_then(|entry| unique_name(&entry, "subscription", &mut self.subscription_keys));
        let endpoint = table.require("endpoint", "the name of one of `[endpoints]`");
        let endpoint = endpoint.and_then(|entry| {
            let name = entry.text()?;
            let is_known = self.names.endpoints.contains_key(&*name);
            let name = resolve(&entry, "endpoint", &name, is_known, self.names.endpoints.keys());
            let known = self.names.endpoints.get(&name).copied();
            Some(known.map_or_else(|| Arc::new(Endpoint::stand_in(&name)), Arc::clone))
        });
        let endpoint = endpoint.unwrap_or_else(|| Arc::new(Endpoint::stand_in("")));
        let plugins = table.find("plugins").and_then(|entry| entry.list(PLUGINS_OF_A_SUBSCRIPTION_MAX));
        let plugins = plugins.into_iter().flatten().map(|entry| self.plugin_use(&entry)).collect();
        let retry = table.find("retry").and_then(|entry| entry.retry());
        let on_error = table.parsed("on_error", OnError::default(), on_error);
        table.end();
        let retry = retry.or_else(|| endpoint.retry.clone()).unwrap_or_default();
        let name = Arc::from(name.unwrap_or_default());
        Subscription { name, route: Arc::clone(route), endpoint, plugins, on_error, retry }
    }

    /// `"slack"`, or `{ use = "slack", config = { … }, mode = "shadow" }`.
    fn plugin_use(&self, entry: &Entry<'_>) -> PluginUse {
        let (name, config, mode) = match entry.value {
            Value::Object(_) => {
                let mut table = entry.table().expect("it is one");
                let name = table.require("use", "the name of one of `[plugins]`");
                let config = table.find_secret("config");
                let mode = table.parsed("mode", PluginMode::default(), plugin_mode);
                table.end();
                (name, config, mode)
            }
            Value::String(_) => (Some(entry.clone()), None, PluginMode::default()),
            other => {
                let found = values::kind(other);
                entry
                    .fault(format!("must be a plugin's name or `{{ use = \"NAME\", config = {{ … }} }}`, not {found}"));
                (None, None, PluginMode::default())
            }
        };
        let name = name.and_then(|entry| {
            let name = entry.text()?;
            let is_known = self.names.plugins.contains(&*name);
            Some(resolve(&entry, "plugin", &name, is_known, self.names.plugins.iter()))
        });
        let config = config.and_then(|config| {
            config.object("a table, which becomes the plugin's JSON")?;
            let text = config.value.to_string();
            if text.len() > PLUGIN_CONFIG_BYTES_MAX {
                let limit = values::show_bytes(PLUGIN_CONFIG_BYTES_MAX);
                config.fault(format!("is larger than {limit} as JSON"));
            }
            Some(text)
        });
        let (name, config) = (name.unwrap_or_default(), config.unwrap_or_else(|| "{}".to_owned()));
        PluginUse { plugin: Arc::from(name), config: Arc::from(config), mode }
    }
}

fn on_error(text: &str) -> Result<OnError, String> {
    match text {
        "retry" => Ok(OnError::Retry),
        "dead-letter" => Ok(OnError::DeadLetter),
        "pass-through" => Ok(OnError::PassThrough),
        _ => Err(format!("must be `retry`, `dead-letter` or `pass-through`, not {}", values::quoted(text))),
    }
}

fn plugin_mode(text: &str) -> Result<PluginMode, String> {
    match text {
        "apply" => Ok(PluginMode::Apply),
        "shadow" => Ok(PluginMode::Shadow),
        _ => Err(format!("must be `apply` or `shadow`, not {}", values::quoted(text))),
    }
}

fn patterns_of(entry: &Entry<'_>) -> Option<Vec<String>> {
    let patterns = entry.list(PATTERNS_MAX)?;
    if patterns.is_empty() {
        entry.fault("must list at least one pattern; `\"**\"` takes every event");
    }
    Some(patterns.iter().map(|entry| entry.parse(values::pattern).unwrap_or_default()).collect())
}

/// A name that nothing of its kind had before.
fn unique_name(entry: &Entry<'_>, what: &str, keys: &mut HashMap<String, String>) -> Option<String> {
    let Some(name) = entry.parse(values::name) else { return entry.value.as_str().map(str::to_owned) };
    if let Some(first) = keys.get(&name) {
        let place = entry.reading.origins.place(first, Part::Value);
        entry.fault(format!("names a second {what} `{name}`; the first is at {place}"));
    } else {
        keys.insert(name.clone(), entry.key.clone());
    }
    Some(name)
}

/// Gives the name back if it is known; if not, notes a fault and gives the one of `names` that may be meant, or else the name.
pub(super) fn resolve<'n>(
    entry: &Entry<'_>,
    what: &str,
    name: &str,
    is_known: bool,
    names: impl Iterator<Item = &'n String> + Clone,
) -> String {
    if is_known {
        return name.to_owned();
    }
    let suggestion = if entry.reading.explains() { nearest(name, names.map(String::as_str)) } else { None };
    let table = child(&format!("{what}s"), name);
    let advice = if suggestion.is_none() { format!("; add `[{table}]`") } else { String::new() };
    let message = format!("names no {what} of this config: {}{advice}", values::quoted(name));
    entry.fault_suggesting(message, suggestion.clone());
    suggestion.unwrap_or_else(|| name.to_owned())
}
