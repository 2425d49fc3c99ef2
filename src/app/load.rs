//! A config as one generation that events can be walked by: everything that can refuse a config happens here, before it replaces another.

use std::collections::HashMap;
use std::sync::Arc;

use super::identities::Identities;
use super::lint;
use crate::config::{Config, Description, Draft, Errors, Fault, Rule, Severity};
use crate::dispatch::{Consumer, EndpointState, Row, Snapshot};
use crate::filter::{ConditionError, RouteError, RouteFault, RouteTable};
use crate::plugin::{self, Plugin, PluginHost, Refusal};
use crate::send::refusal;

/// A generation, and what the operator should know of it.
pub(super) struct Loaded {
    pub snapshot: Snapshot,
    /// What the config says, and which components its plugins are.
    pub description: Description,
    /// The reader's own warnings among them.
    pub warnings: Vec<Fault>,
}

/// Compiles routes, loads plugins and validates every subscription's config for them.
///
/// Endpoints that are as they were before keep what the router knows of them. `serve`, a reload and `check` all come here.
pub(super) async fn load(config: &Config, host: &PluginHost, before: &Snapshot) -> Result<Loaded, Errors> {
    let Examined { routes, plugins, consumers, mut faults, doubts } = examine(config, host, before).await;
    let warnings = warnings(config, &[], doubts);
    if !faults.is_empty() {
        faults.sort_by(|a, b| a.place.cmp(&b.place));
        return Err(Errors { faults, warnings });
    }
    let mut description = config.description.clone();
    for (name, plugin) in &plugins {
        description
            .plugins
            .entry(name.to_string())
            .or_default()
            .insert(Description::DIGEST.to_owned(), plugin.sha256());
    }
    Ok(Loaded { snapshot: Snapshot::new(before.generation + 1, routes, consumers), description, warnings })
}

/// The config of a draft. Where the reader has refused it, the error has what `load` would find in the rest, too; of what
/// stands at one key only what the reader found, from which the other follows.
pub(super) async fn finish(draft: Draft, host: &PluginHost) -> Result<Config, Errors> {
    if draft.faults().is_empty() {
        return draft.finish();
    }
    let config = draft.config();
    let Examined { faults: examined, mut doubts, .. } = examine(config, host, &Snapshot::default()).await;
    // What the reader refused of a route may be what its `where` asks for.
    doubts.retain(|doubt| draft.faults().iter().all(|fault| route_of(&fault.key) != route_of(&doubt.key)));
    let warnings = warnings(config, draft.faults(), doubts);
    let of_listeners = Identities::faults(config);
    let mut faults = draft.faults().to_vec();
    let is_another = |found: &Fault| draft.faults().iter().all(|fault| fault.key != found.key);
    faults.extend(examined.into_iter().chain(of_listeners).filter(is_another));
    faults.sort_by(|a, b| a.place.cmp(&b.place));
    Err(Errors { faults, warnings })
}

/// The part of a key that names a route: `routes[0]`.
fn route_of(key: &str) -> &str {
    key.split('.').next().unwrap_or_default()
}

/// The reader's own, what is doubted of the routes, and what the config may say and probably does not mean. `faults` are the reader's.
fn warnings(config: &Config, faults: &[Fault], doubts: Vec<Fault>) -> Vec<Fault> {
    let mut warnings = config.warnings.clone();
    warnings.extend(doubts);
    warnings.extend(lint::lint(config, faults));
    warnings.sort_by(|a, b| a.place.cmp(&b.place));
    warnings
}

/// What a generation is made of, and what is wrong with it.
struct Examined {
    routes: RouteTable,
    plugins: HashMap<Arc<str>, Arc<Plugin>>,
    consumers: Vec<Consumer>,
    faults: Vec<Fault>,
    doubts: Vec<Fault>,
}

async fn examine(config: &Config, host: &PluginHost, before: &Snapshot) -> Examined {
    let routes = RouteTable::examine(&config.routes);
    let told = |severity, errors: &[RouteError]| -> Vec<Fault> {
        errors.iter().map(|error| route_fault(config, severity, error)).collect()
    };
    let (mut faults, doubts) = (told(Severity::Error, &routes.errors), told(Severity::Warning, &routes.doubts));
    let routes = routes.table;

    let mut plugins: HashMap<Arc<str>, Arc<Plugin>> = HashMap::new();
    for spec in &config.plugins {
        match host.load(spec).await {
            Ok(plugin) => {
                if let Err(error) = host.rehearse(&plugin, spec).await {
                    faults.push(plugin_fault(config, &spec.name, &error));
                }
                plugins.insert(Arc::clone(&spec.name), plugin);
            }
            Err(error) => faults.push(plugin_fault(config, &spec.name, &error)),
        }
    }

    let mut endpoints: HashMap<Arc<str>, Arc<EndpointState>> = HashMap::new();
    let mut consumers = Vec::new();
    for (route_number, route) in config.routes.iter().enumerate() {
        for (number, subscription) in route.subscriptions.iter().enumerate() {
            let mut links = Vec::new();
            for (place, plugin_use) in subscription.plugins.iter().enumerate() {
                // A plugin that did not load is among the faults already.
                let Some(plugin) = plugins.get(&plugin_use.plugin) else { continue };
                if let Err(said) = plugin.validate_config(&plugin_use.config).await {
                    let (name, plugin) = (&subscription.name, &plugin_use.plugin);
                    let said = without_texts(said, &plugin_use.config);
                    let message = format!("subscription `{name}`: plugin `{plugin}` refuses its config: {said}");
                    let key = format!("routes[{route_number}].subscriptions[{number}].plugins[{place}]");
                    let own = format!("{key}.config");
                    let key = if config.sets(&own) { own } else { key };
                    faults.push(config.fault(Severity::Error, Rule::PluginConfig, &key, None, message));
                }
                links.push(host.link(plugin, plugin_use, subscription.on_error));
            }
            let endpoint = endpoints
                .entry(Arc::clone(&subscription.endpoint.name))
                .or_insert_with(|| EndpointState::renewed(Arc::clone(&subscription.endpoint), before));
            consumers.push(Consumer {
                subscription: Arc::clone(subscription),
                chain: (!links.is_empty()).then(|| Arc::new(host.chain(&subscription.name, links))),
                endpoint: Arc::clone(endpoint),
                refusal: refusal(&subscription.endpoint.url, &config.delivery.allow_networks).map(Arc::from),
                plugin_row: Row::default(),
                by: Arc::default(),
            });
        }
    }
    Examined { routes, plugins, consumers, faults, doubts }
}

/// A shorter text in a config is none that somebody keeps secret.
const SECRET_BYTES_MIN: usize = 8;

/// What a plugin says of its config, but for the texts that it repeats from there: they may be secret.
fn without_texts(said: String, config: &str) -> String {
    fn collect(value: serde_json::Value, texts: &mut Vec<String>) {
        match value {
            serde_json::Value::String(text) if text.len() >= SECRET_BYTES_MIN => texts.push(text),
            serde_json::Value::Array(values) => values.into_iter().for_each(|value| collect(value, texts)),
            serde_json::Value::Object(values) => values.into_iter().for_each(|(_, value)| collect(value, texts)),
            _ => {}
        }
    }
    let mut texts = Vec::new();
    collect(serde_json::from_str(config).unwrap_or_default(), &mut texts);
    // The longest first: one may be a part of another.
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    texts.iter().fold(said, |said, text| {
        let escaped = text.escape_debug().to_string();
        said.replace(text, "***").replace(&escaped, "***")
    })
}

fn route_fault(config: &Config, severity: Severity, error: &RouteError) -> Fault {
    let (number, name) = (error.number, &error.route);
    let of_condition = |rule, fault: &ConditionError| {
        let (key, message) = (format!("routes[{number}].where"), format!("route `{name}`: `where`: {}", fault.message));
        let mut found = config.fault(severity, rule, &key, fault.part.clone(), message);
        found.suggestion = fault.suggestion.map(str::to_owned);
        found
    };
    match &error.fault {
        RouteFault::Pattern { pattern, .. } => {
            let patterns = config.routes.get(number).map(|route| route.patterns.as_slice()).unwrap_or_default();
            let place = patterns.iter().position(|own| own == pattern);
            let key = format!("routes[{number}].events[{}]", place.unwrap_or_default());
            config.fault(severity, Rule::Route, &key, None, error.to_string())
        }
        RouteFault::Condition(fault) => of_condition(Rule::Route, fault),
        RouteFault::Unreachable(fault) => of_condition(Rule::Unreachable, fault),
    }
}

fn plugin_fault(config: &Config, name: &str, error: &plugin::Error) -> Fault {
    let key = match error {
        plugin::Error::Refused { refusal: Refusal::Digest { .. }, .. } => "sha256",
        plugin::Error::Refused { refusal: Refusal::Fixtures(_), .. } => "fixtures",
        plugin::Error::Refused { .. }
        | plugin::Error::Engine(_)
        | plugin::Error::Thread(_)
        | plugin::Error::NotInterrupted => "path",
    };
    let key = [key, "path"].map(|key| format!("plugins.{name}.{key}")).into_iter().find(|key| config.sets(key));
    let key = key.unwrap_or_default();
    config.fault(Severity::Error, Rule::Plugin, &key, None, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plugin_says_of_its_config_repeats_no_text_of_it() {
        let config = r#"{"as":"body","key":"marker-1","list":[{"deep":"marker-1-and-\"more\"","port":12345678}]}"#;
        let said = r#"marker-1; "marker-1-and-\"more\""; marker-1-and-"more"; body; 12345678"#;
        assert_eq!(without_texts(said.to_owned(), config), r#"***; "***"; ***; body; 12345678"#);
        assert_eq!(without_texts("marker-1".to_owned(), "no json"), "marker-1");
    }
}
