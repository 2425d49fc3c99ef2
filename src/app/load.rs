//! A config as one generation that events can be walked by: everything that can refuse a config happens here, before it replaces another.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use super::Error;
use crate::config::{Config, PluginFixtures};
use crate::dispatch::{Consumer, EndpointState, Row, Snapshot};
use crate::filter::{RouteFault, RouteTable};
use crate::plugin::{Chain, Plugin, PluginHost};

/// Compiles routes, loads plugins and validates every subscription's config for them.
///
/// Endpoints that are as they were before keep what the router knows of them.
pub(super) async fn load(config: &Config, host: &PluginHost, before: &Snapshot) -> Result<Snapshot, Error> {
    let mut faults = Faults { config, texts: Vec::new() };
    let routes = RouteTable::compile(&config.routes).unwrap_or_else(|errors| {
        for error in errors {
            let number = config.routes.iter().position(|route| route.name == error.route).unwrap_or_default();
            let key = match error.fault {
                RouteFault::Pattern { .. } => "events",
                RouteFault::Condition(_) => "where",
            };
            faults.add(&format!("routes[{number}].{key}"), &error);
        }
        RouteTable::default()
    });

    let mut plugins: HashMap<Arc<str>, Arc<Plugin>> = HashMap::new();
    for spec in &config.plugins {
        match host.load(spec).await {
            Ok(plugin) => {
                if let Err(error) = host.rehearse(&plugin, spec).await {
                    let key = match &spec.fixtures {
                        PluginFixtures::Folder(_) => "fixtures",
                        PluginFixtures::Beside | PluginFixtures::Off => "path",
                    };
                    faults.add(&format!("plugins.{}.{key}", spec.name), &error);
                }
                plugins.insert(Arc::clone(&spec.name), plugin);
            }
            Err(error) => faults.add(&format!("plugins.{}.path", spec.name), &error),
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
                if let Err(message) = plugin.validate_config(&plugin_use.config).await {
                    faults.add(
                        &format!("routes[{route_number}].subscriptions[{number}].plugins[{place}]"),
                        &format!(
                            "subscription `{}`: plugin `{}` refuses its config: {message}",
                            subscription.name, plugin_use.plugin
                        ),
                    );
                }
                links.push(host.link(plugin, plugin_use, subscription.on_error));
            }
            let endpoint = endpoints
                .entry(Arc::clone(&subscription.endpoint.name))
                .or_insert_with(|| EndpointState::renewed(Arc::clone(&subscription.endpoint), before));
            consumers.push(Consumer {
                subscription: Arc::clone(subscription),
                chain: (!links.is_empty()).then(|| Arc::new(Chain::new(links))),
                endpoint: Arc::clone(endpoint),
                plugin_row: Row::default(),
                by: Arc::default(),
            });
        }
    }
    if !faults.texts.is_empty() {
        return Err(Error::Invalid(faults.texts));
    }
    Ok(Snapshot::new(before.generation + 1, routes, consumers))
}

/// What is wrong with a config beyond what reading it shows, each with its place.
struct Faults<'config> {
    config: &'config Config,
    texts: Vec<String>,
}

impl Faults<'_> {
    fn add(&mut self, key: &str, fault: &dyn Display) {
        let place = self.config.place(key).map_or_else(String::new, |place| format!("{place}: "));
        self.texts.push(format!("{place}{fault}"));
    }
}
