//! What a config may say and probably does not mean: what nothing uses, what no event reaches, where no delivery may go, what is
//! done twice, retries that go on for longer than their event is kept. Pure; each finding is a warning with its place.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::config::{Config, Fault, Rule, Severity, below};
use crate::filter::{TypePattern, constant};
use crate::route::{Route, Subscription};
use crate::send::refusal;
use crate::settle::JITTER_SHARE;

/// How many subscriptions of one endpoint, and patterns of one route, are compared with each other: the time grows with the
/// square of it, and a config of a hundred thousand routes is still read at every reload.
const COMPARED_MAX: usize = 64;

/// All findings, in no particular order. `faults` are what the reader found: of what they are about nothing more is said that may
/// only follow from them.
pub(super) fn lint(config: &Config, faults: &[Fault]) -> Vec<Fault> {
    let mut lint = Lint { config, faults, found: Vec::new() };
    lint.refused();
    lint.unused();
    lint.unreachable();
    lint.twice();
    lint.retention();
    lint.found
}

struct Lint<'c> {
    config: &'c Config,
    faults: &'c [Fault],
    found: Vec<Fault>,
}

/// A subscription with its place in the config.
#[derive(Clone, Copy)]
struct Placed<'c> {
    key: (usize, usize),
    route: &'c Route,
    subscription: &'c Subscription,
}

impl<'c> Lint<'c> {
    fn warn(&mut self, rule: Rule, key: &str, message: String) {
        self.found.push(self.config.fault(Severity::Warning, rule, key, None, message));
    }

    /// Whether the reader took all of it that is at this key or below as it is meant.
    fn is_whole(&self, key: &str) -> bool {
        !self.faults.iter().any(|fault| below(&fault.key, key).is_some())
    }

    /// The same of a route, apart from its subscriptions.
    fn is_whole_route(&self, number: usize) -> bool {
        let route = format!("routes[{number}]");
        let of_it = |fault: &Fault| below(&fault.key, &route).is_some_and(|rest| !rest.starts_with(".subscriptions["));
        !self.faults.iter().any(of_it)
    }

    fn subscriptions(&self) -> impl Iterator<Item = Placed<'c>> + use<'c> {
        self.config.routes.iter().enumerate().flat_map(|(number, route)| {
            let subscriptions = route.subscriptions.iter().enumerate();
            subscriptions.map(move |(place, subscription)| Placed { key: (number, place), route, subscription })
        })
    }

    fn refused(&mut self) {
        if !self.is_whole("delivery.allow_networks") {
            return;
        }
        for endpoint in &self.config.endpoints {
            let key = format!("endpoints.{}.url", endpoint.name);
            let stood_in = self.config.description.is_stood_in("endpoints", &endpoint.name, "url");
            let Some(refusal) = refusal(&endpoint.url, &self.config.delivery.allow_networks) else { continue };
            if !stood_in && self.is_whole(&key) {
                let message = format!("no delivery may go to the endpoint `{}`: {refusal}", endpoint.name);
                self.found.push(self.config.fault_in_secret(Severity::Warning, Rule::Endpoint, &key, message));
            }
        }
    }

    fn unused(&mut self) {
        let config = self.config;
        if !self.is_whole("routes") && config.routes.is_empty() {
            return;
        }
        let endpoints: HashSet<&str> = self.subscriptions().map(|placed| &*placed.subscription.endpoint.name).collect();
        for endpoint in config.endpoints.iter().filter(|endpoint| !endpoints.contains(&*endpoint.name)) {
            let message = format!("no subscription uses the endpoint `{}`", endpoint.name);
            self.warn(Rule::Unused, &format!("endpoints.{}", endpoint.name), message);
        }
        let plugins: HashSet<&str> =
            self.subscriptions().flat_map(|placed| &placed.subscription.plugins).map(|link| &*link.plugin).collect();
        for plugin in config.plugins.iter().filter(|plugin| !plugins.contains(&*plugin.name)) {
            let message = format!("no subscription uses the plugin `{}`", plugin.name);
            self.warn(Rule::Unused, &format!("plugins.{}", plugin.name), message);
        }
        let takes_all = config.routes.iter().any(|route| route.sources.is_empty());
        let taken: HashSet<&str> = config.routes.iter().flat_map(|route| &route.sources).map(|name| &**name).collect();
        for source in config.sources.iter().filter(|source| !takes_all && !taken.contains(&*source.name)) {
            let message = format!("no route takes the events of the source `{}`: they would reach nobody", source.name);
            self.warn(Rule::Unused, &format!("sources.{}", source.name), message);
        }
        for (number, route) in config.routes.iter().enumerate().filter(|(_, route)| route.subscriptions.is_empty()) {
            if !self.is_whole_route(number) {
                continue;
            }
            let message = format!("the route `{}` has no subscription: its events reach nobody", route.name);
            self.warn(Rule::Unused, &format!("routes[{number}].subscriptions"), message);
        }
    }

    fn unreachable(&mut self) {
        let config = self.config;
        let without_sources = match config.routes.is_empty() {
            // It may be that they are there under a wrong name.
            true if !self.faults.is_empty() => None,
            true => Some("there is no `[sources.NAME]` and no `[[routes]]`: no event can come in, or go anywhere"),
            false => Some("there are routes and no `[sources.NAME]`: no event can come in"),
        };
        if let (true, Some(message)) = (config.sources.is_empty(), without_sources) {
            self.warn(Rule::Unreachable, "routes", message.to_owned());
        }
        for (number, route) in config.routes.iter().enumerate() {
            let key = format!("routes[{number}].where");
            let always = match route.condition.as_deref().and_then(constant) {
                Some(true) => "always true: leave it out",
                Some(false) => "never true: no event gets to its subscriptions",
                None => continue,
            };
            self.warn(Rule::Unreachable, &key, format!("the `where` of the route `{}` is {always}", route.name));
        }
    }

    fn twice(&mut self) {
        for (number, route) in self.config.routes.iter().enumerate() {
            let patterns: Vec<_> = parsed(route).take(COMPARED_MAX).collect();
            for (place, pattern) in &patterns {
                let covers = |(other, wider): &&(usize, TypePattern)| {
                    other != place && wider.covers(pattern) && (other < place || !pattern.covers(wider))
                };
                if let Some((wider, _)) = patterns.iter().find(covers) {
                    let (own, wider) = (&route.patterns[*place], &route.patterns[*wider]);
                    let message = format!("`{own}` adds nothing to `{wider}` in the route `{}`", route.name);
                    self.warn(Rule::Twice, &format!("routes[{number}].events[{place}]"), message);
                }
            }
        }
        let mut alike: HashMap<String, Vec<Placed<'c>>> = HashMap::new();
        for placed in self.subscriptions() {
            let Subscription { endpoint, plugins, on_error, retry, .. } = placed.subscription;
            let (route, subscription) = placed.key;
            if !self.is_whole_route(route) || !self.is_whole(&format!("routes[{route}].subscriptions[{subscription}]"))
            {
                continue;
            }
            let way = format!("{} {plugins:?} {on_error:?} {:?}", endpoint.name, retry.waits);
            alike.entry(way).or_default().push(placed);
        }
        for group in alike.values() {
            for (place, narrow) in group.iter().enumerate().take(COMPARED_MAX) {
                let covers = |(other, wide): (usize, &Placed<'_>)| {
                    other != place
                        && covers(wide.route, narrow.route)
                        && (other < place || !covers(narrow.route, wide.route))
                };
                let Some(wide) = group.iter().enumerate().take(COMPARED_MAX).position(covers) else { continue };
                let (wide, own) = (&group[wide].subscription, &narrow.subscription);
                let message = format!(
                    "`{}` brings the endpoint `{}` only what `{}` brings it in the same way: each such event arrives twice",
                    own.name, own.endpoint.name, wide.name
                );
                let (route, subscription) = narrow.key;
                self.warn(Rule::Twice, &format!("routes[{route}].subscriptions[{subscription}].name"), message);
            }
        }
    }

    fn retention(&mut self) {
        let retention = self.config.store.options.retention;
        if !self.is_whole("store.retention") {
            return;
        }
        let mut told = HashSet::new();
        for Placed { key: (route, number), subscription, .. } in self.subscriptions() {
            let longest: Duration = subscription.retry.waits.iter().sum::<Duration>().mul_f64(1.0 + JITTER_SHARE);
            if longest <= retention {
                continue;
            }
            let own = format!("routes[{route}].subscriptions[{number}].retry");
            let endpoints = format!("endpoints.{}.retry", subscription.endpoint.name);
            if !self.is_whole(&own) || !self.is_whole(&endpoints) {
                continue;
            }
            let key = [own, endpoints].into_iter().find(|key| self.config.sets(key));
            let key = key.unwrap_or_else(|| "store.retention".to_owned());
            if told.insert(key.clone()) {
                let shown = |duration: Duration| humantime::format_duration(Duration::from_secs(duration.as_secs()));
                let message = format!(
                    "the retries of `{}` may go on for {}, longer than `store.retention` keeps what became of the event ({})",
                    subscription.name,
                    shown(longest),
                    shown(retention)
                );
                self.warn(Rule::Retention, &key, message);
            }
        }
    }
}

/// Whether every event that the `narrow` route takes is one that the `wide` one takes too.
fn covers(wide: &Route, narrow: &Route) -> bool {
    let sources = wide.sources.is_empty()
        || (!narrow.sources.is_empty() && narrow.sources.iter().all(|source| wide.sources.contains(source)));
    let wide_patterns: Vec<_> = parsed(wide).take(COMPARED_MAX).map(|(_, pattern)| pattern).collect();
    let mut patterns = parsed(narrow).map(|(_, pattern)| pattern);
    sources
        && (wide.condition.is_none() || wide.condition == narrow.condition)
        && patterns.all(|pattern| wide_patterns.iter().any(|wider| wider.covers(&pattern)))
}

/// The patterns of a route, with their places. One that can't be parsed is told elsewhere and stands for nothing here.
fn parsed(route: &Route) -> impl Iterator<Item = (usize, TypePattern)> {
    let parsed = route.patterns.iter().enumerate();
    parsed.filter_map(|(place, pattern)| Some((place, TypePattern::parse(pattern).ok()?)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Environment;

    fn found(text: &str) -> Vec<String> {
        let config = Config::parse(Path::new("app.toml"), text, &Environment::default()).unwrap();
        let mut found: Vec<_> = lint(&config, &[]).iter().map(Fault::line).collect();
        found.sort();
        found
    }

    const BASE: &str =
        "[sources.app]\npath = \"/a\"\nauth = \"none\"\n[endpoints.e]\nurl = \"https://e.example.com\"\n";

    fn with_route(rest: &str) -> String {
        format!("{BASE}[[routes]]\nname = \"r\"\n{rest}\n")
    }

    #[test]
    fn a_config_that_means_what_it_says_has_no_warnings() {
        let text = with_route("events = [\"order.*\"]\nsubscriptions = [{ name = \"s\", endpoint = \"e\" }]");
        assert_eq!(found(&text), [""; 0]);
    }

    #[test]
    fn what_nothing_uses_is_told() {
        let text = with_route("events = [\"**\"]\nsources = [\"app\"]\nsubscriptions = []")
            + "[sources.other]\npath = \"/o\"\nauth = \"none\"\n[plugins.p]\npath = \"p.wasm\"\n";
        assert_eq!(
            found(&text),
            [
                "app.toml:10:17: the route `r` has no subscription: its events reach nobody",
                "app.toml:11:1: no route takes the events of the source `other`: they would reach nobody",
                "app.toml:14:1: no subscription uses the plugin `p`",
                "app.toml:4:1: no subscription uses the endpoint `e`",
            ]
        );
    }

    #[test]
    fn what_no_event_reaches_and_what_comes_twice_is_told() {
        let text = with_route(
            "events = [\"order.*\", \"order.created\", \"order.*\"]\nwhere = \"1 > 2\"\nsubscriptions = [{ name = \"s\", endpoint = \"e\" }]\n\
             [[routes]]\nname = \"wide\"\nevents = [\"**\"]\nsubscriptions = [{ name = \"all\", endpoint = \"e\" }]",
        );
        assert_eq!(
            found(&text),
            [
                "app.toml:10:27: `s` brings the endpoint `e` only what `all` brings it in the same way: each such event arrives twice",
                "app.toml:8:22: `order.created` adds nothing to `order.*` in the route `r`",
                "app.toml:8:39: `order.*` adds nothing to `order.*` in the route `r`",
                "app.toml:9:9: the `where` of the route `r` is never true: no event gets to its subscriptions",
            ]
        );
    }

    #[test]
    fn other_plugins_another_condition_or_another_source_is_not_twice() {
        let route = |name: &str, extra: &str| {
            format!(
                "[[routes]]\nname = \"{name}\"\nevents = [\"**\"]\n{extra}subscriptions = [{{ name = \"{name}\", endpoint = \"e\" }}]\n"
            )
        };
        let text = format!(
            "{BASE}{}{}",
            route("a", "where = \"payload.x == 1\"\n"),
            route("b", "where = \"payload.x == 2\"\n")
        );
        assert_eq!(found(&text), [""; 0]);
    }

    #[test]
    fn other_retries_or_another_answer_to_plugin_faults_is_not_twice() {
        let text = |first: &str, second: &str| {
            let subscription = |name: &str, extra: &str| {
                format!(
                    "{{ name = \"{name}\", endpoint = \"e\", plugins = [{{ use = \"p\", mode = \"shadow\" }}]{extra} }}"
                )
            };
            let both = format!("[{}, {}]", subscription("a", first), subscription("b", second));
            with_route(&format!("events = [\"**\"]\nsubscriptions = {both}\n[plugins.p]\npath = \"p.wasm\""))
        };
        for (first, second, twice) in [
            ("", "", 1),
            ("", ", retry = [\"1m\", \"5m\", \"30m\", \"2h\", \"24h\"]", 1),
            ("", ", retry = [\"1m\"]", 0),
            (", on_error = \"dead-letter\"", "", 0),
            (", on_error = \"dead-letter\"", ", on_error = \"dead-letter\"", 1),
        ] {
            let found = found(&text(first, second));
            assert_eq!(found.len(), twice, "`{first}` and `{second}`: {found:#?}");
        }
        let applied = text("", "").replacen(", mode = \"shadow\"", "", 1);
        assert_eq!(found(&applied), [""; 0], "one applies the plugin, the other does not");
    }

    #[test]
    fn a_config_in_which_nothing_can_happen_is_told() {
        let expected =
            "app.toml: there is no `[sources.NAME]` and no `[[routes]]`: no event can come in, or go anywhere";
        assert_eq!(found("[log]\nlevel = \"info\"\n"), [expected]);
        let without_routes = "[sources.app]\npath = \"/a\"\nauth = \"none\"\n";
        let expected = "app.toml:1:1: no route takes the events of the source `app`: they would reach nobody";
        assert_eq!(found(without_routes), [expected]);
    }

    #[test]
    fn an_address_that_deliveries_may_not_go_to_is_told_unless_it_is_listed() {
        let route = "events = [\"**\"]\nsubscriptions = [{ name = \"s\", endpoint = \"e\" }]\n";
        let with_url =
            |url: &str, rest: &str| with_route(&format!("{route}{rest}")).replace("https://e.example.com", url);
        assert_eq!(
            found(&with_url("https://10.1.2.3:8443/token", "")),
            [
                "app.toml:5:7: no delivery may go to the endpoint `e`: 10.1.2.3 is private; `delivery.allow_networks` can allow it"
            ]
        );
        let listed = "[delivery]\nallow_networks = [\"10.0.0.0/8\"]";
        assert_eq!(found(&with_url("https://10.1.2.3:8443/token", listed)), [""; 0]);
        assert_eq!(found(&with_url("https://localhost/", listed)).len(), 1);
    }

    #[test]
    fn retries_that_outlive_the_retention_are_told_once_where_they_are_set() {
        let text = with_route(
            "events = [\"**\"]\nsubscriptions = [{ name = \"s\", endpoint = \"e\", retry = [\"23h\"] }, { name = \"t\", endpoint = \"e\", plugins = [\"p\"] }]\n\
             [plugins.p]\npath = \"p.wasm\"\n[store]\nretention = \"1d\"",
        );
        assert_eq!(
            found(&text),
            [
                "app.toml:13:13: the retries of `t` may go on for 1day 5h 15m 36s, longer than `store.retention` keeps what became of the event (1day)",
                "app.toml:9:56: the retries of `s` may go on for 1day 1h 18m, longer than `store.retention` keeps what became of the event (1day)",
            ]
        );
    }
}
