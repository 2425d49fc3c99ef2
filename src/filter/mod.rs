//! Which subscriptions want the event: event-type patterns through an index, then the route's `where`.
//!
//! Takes an event, gives the routes that matched by type and, for each, whether its condition held.
//! Pure: no clock, no state, no I/O. The payload is parsed only if a condition reads it, and then once.

mod condition; // `where`: CEL over the event.
mod explain; // Why an event fits a route or does not.
mod foresight; // What is wrong with an expression whatever the event.
#[cfg(test)]
mod fuzz;
mod pattern; // Event-type patterns and their index.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use condition::{Condition, ConditionError};
pub use explain::{Field, Fit, Judged, Misfit};
pub use foresight::constant;
pub use pattern::{PatternError, TypePattern};

use crate::event::Event;
use crate::route::{Route, Subscription};
use condition::Variables;
use foresight::{Demand, Foresight};
use pattern::TypeIndex;

/// All routes, ready to match.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<CompiledRoute>,
    index: TypeIndex,
}

#[derive(Debug)]
struct CompiledRoute {
    patterns: Vec<TypePattern>,
    sources: Vec<Arc<str>>,
    condition: Option<Condition>,
    subscriptions: Vec<Arc<Subscription>>,
    #[cfg(test)]
    panics: bool,
}

/// A route that can't be compiled.
#[derive(Debug, thiserror::Error)]
#[error("route `{route}`: {fault}")]
pub struct RouteError {
    /// The route's name.
    pub route: Arc<str>,
    /// Its place among the routes, from 0.
    pub number: usize,
    /// What is wrong with it.
    pub fault: RouteFault,
}

/// What can be wrong with a route.
#[derive(Debug, thiserror::Error)]
pub enum RouteFault {
    /// An event-type pattern.
    #[error("event pattern `{pattern}`: {error}")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// What is wrong with it.
        error: PatternError,
    },
    /// The `where` expression.
    #[error("`where`: {0}")]
    Condition(ConditionError),
    /// What `where` asks for is not among what the route takes.
    #[error("`where`: {0}")]
    Unreachable(ConditionError),
}

/// Routes, and what is to be said of them.
#[derive(Debug, Default)]
pub struct Examined {
    /// Those that can be compiled.
    pub table: RouteTable,
    /// Why the others can't.
    pub errors: Vec<RouteError>,
    /// What can be compiled, and is probably not what is meant.
    pub doubts: Vec<RouteError>,
}

/// Routes of one table that may want an event: their numbers, ascending.
#[derive(Debug)]
pub struct Candidates(Vec<usize>);

/// A subscription whose route's patterns and sources fit the event.
#[derive(Clone, Debug)]
pub struct Match {
    /// The subscription.
    pub subscription: Arc<Subscription>,
    /// Whether it wants the event.
    pub wish: Wish,
}

impl Match {
    /// Whether the subscription wants the event.
    pub fn is_wanted(&self) -> bool {
        self.wish == Wish::Wanted
    }
}

/// Whether a subscription wants an event that fits its route's patterns and sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It does.
    Wanted,
    /// The route's `where` keeps the event from it, for this reason.
    Filtered(Arc<str>),
    /// It can't be told: the `where` made this program panic, and would again. The panic itself is in the log.
    Unknown,
}

impl RouteTable {
    /// Compiles patterns and conditions; reports every fault, not only the first.
    pub fn compile(routes: &[Route]) -> Result<Self, Vec<RouteError>> {
        let Examined { table, errors, .. } = Self::examine(routes);
        if errors.is_empty() { Ok(table) } else { Err(errors) }
    }

    /// The same, with what is only doubted. Where there are errors the table is of no use.
    pub fn examine(routes: &[Route]) -> Examined {
        let Examined { mut table, mut errors, mut doubts } = Examined::default();
        for route in routes {
            let number = table.routes.len();
            let about = |fault| RouteError { route: Arc::clone(&route.name), number, fault };
            let mut patterns = Vec::with_capacity(route.patterns.len());
            for pattern in &route.patterns {
                match TypePattern::parse(pattern) {
                    Ok(parsed) => {
                        table.index.insert(&parsed, number);
                        patterns.push(parsed);
                    }
                    Err(error) => errors.push(about(RouteFault::Pattern { pattern: pattern.clone(), error })),
                }
            }
            let condition = match route.condition.as_deref().map(Condition::compile).transpose() {
                Ok(condition) => condition,
                Err(faults) => {
                    errors.extend(faults.into_iter().map(|fault| about(RouteFault::Condition(fault))));
                    None
                }
            };
            let foresight = condition.as_ref().map(|condition| &condition.foresight);
            if let Some(Foresight { doubts: of_parts, demands }) = foresight {
                doubts.extend(of_parts.iter().map(|doubt| about(RouteFault::Condition(doubt.clone()))));
                // A pattern that is none is told as such; what it was to take is not known.
                let is_whole = patterns.len() == route.patterns.len();
                let unmet = demands.iter().filter(|_| is_whole).filter_map(|demand| unmet(demand, &patterns, route));
                doubts.extend(unmet.map(|error| about(RouteFault::Unreachable(error))));
            }
            table.routes.push(CompiledRoute {
                patterns,
                sources: route.sources.clone(),
                condition,
                subscriptions: route.subscriptions.clone(),
                #[cfg(test)]
                panics: false,
            });
        }
        Examined { table, errors, doubts }
    }

    /// The routes with a pattern that fits the event's type.
    pub fn candidates(&self, event: &Event) -> Candidates {
        Candidates(self.index.lookup(&event.event_type))
    }

    /// The subscriptions whose route fits the event's type and source, in the order of the config.
    pub fn matches(&self, event: &Event) -> Vec<Match> {
        self.matches_among(&self.candidates(event), event)
    }

    /// The same, for who has asked for the event's candidates already.
    pub fn matches_among(&self, candidates: &Candidates, event: &Event) -> Vec<Match> {
        let variables = Variables::of(event);
        let mut matches = Vec::with_capacity(candidates.0.len());
        for number in &candidates.0 {
            let route = &self.routes[*number];
            if !route.takes_from(&event.source) {
                continue;
            }
            let wish = route.wish(&variables);
            matches.extend(
                route
                    .subscriptions
                    .iter()
                    .map(|subscription| Match { subscription: Arc::clone(subscription), wish: wish.clone() }),
            );
        }
        matches
    }

    /// Every subscription, for an event that can't be matched at all.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.routes.iter().flat_map(|route| &route.subscriptions)
    }

    /// Whether matching the event may take long enough to hold others up.
    pub fn takes_long(&self, candidates: &Candidates, event: &Event) -> bool {
        let mut conditions = candidates.0.iter().filter_map(|number| self.routes[*number].condition.as_ref());
        conditions.any(|condition| condition.takes_long(event.payload.len()))
    }
}

/// Why no event that the route takes meets what its condition asks for.
fn unmet(demand: &Demand, patterns: &[TypePattern], route: &Route) -> Option<ConditionError> {
    let Demand { variable, value, part } = demand;
    let (is_met, what, taken) = match variable.as_str() {
        "eventType" => (patterns.iter().any(|pattern| pattern.matches(value)), "events", &route.patterns.join("`, `")),
        "source" => {
            let is_met = route.sources.is_empty() || route.sources.iter().any(|own| **own == **value);
            (is_met, "sources", &route.sources.join("`, `"))
        }
        _ => return None,
    };
    let message = format!("never true, since `{what}` of the route takes only `{taken}`, and not `{value}`");
    (!is_met).then(|| ConditionError { message, suggestion: None, part: part.clone() })
}

impl CompiledRoute {
    /// A condition that panics concerns its own route alone.
    fn wish(&self, variables: &Variables<'_>) -> Wish {
        let Some(condition) = &self.condition else { return Wish::Wanted };
        let refuses = || {
            #[cfg(test)]
            assert!(!self.panics, "this condition is told to panic");
            condition.refuses(variables)
        };
        match catch_unwind(AssertUnwindSafe(refuses)) {
            Ok(None) => Wish::Wanted,
            Ok(Some(reason)) => Wish::Filtered(reason),
            Err(_) => Wish::Unknown,
        }
    }

    fn takes_from(&self, source: &str) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|own| **own == *source)
    }
}

#[cfg(test)]
impl RouteTable {
    /// Has the condition of a subscription's route panic from here on.
    pub(crate) fn have_panic(&mut self, subscription: &str) {
        let named = |route: &&mut CompiledRoute| route.subscriptions.iter().any(|own| *own.name == *subscription);
        self.routes.iter_mut().find(named).expect("there is one").panics = true;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::endpoint::{Endpoint, EndpointUrl};
    use crate::event;
    use crate::route::{OnError, RetrySchedule};

    pub(crate) fn route(name: &str, patterns: &[&str], sources: &[&str], condition: Option<&str>) -> Route {
        let endpoint = Arc::new(Endpoint::new("endpoint", EndpointUrl::parse("https://example.com/").unwrap()));
        Route {
            name: name.into(),
            sources: sources.iter().map(|source| Arc::from(*source)).collect(),
            patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
            condition: condition.map(str::to_owned),
            subscriptions: vec![Arc::new(Subscription {
                name: name.into(),
                route: name.into(),
                endpoint,
                plugins: vec![],
                on_error: OnError::default(),
                retry: RetrySchedule::default(),
            })],
        }
    }

    fn wanted(table: &RouteTable, event: &Event) -> Vec<String> {
        table
            .matches(event)
            .into_iter()
            .map(|m| {
                let sign = match m.wish {
                    Wish::Wanted => '+',
                    Wish::Filtered(_) => '-',
                    Wish::Unknown => '?',
                };
                format!("{sign}{}", m.subscription.name)
            })
            .collect()
    }

    #[test]
    fn routes_match_by_type_source_and_condition() {
        let table = RouteTable::compile(&[
            route("all", &["**"], &[], None),
            route("big", &["order.*", "order.created"], &[], Some("payload.amount >= 10000")),
            route("other-source", &["order.*"], &["shop"], None),
            route("users", &["user.*"], &["app"], None),
        ])
        .unwrap();
        let order = |amount: u32| event::sample("e", "order.created", &format!(r#"{{"amount":{amount}}}"#));
        assert_eq!(wanted(&table, &order(10_000)), ["+all", "+big"]);
        assert_eq!(wanted(&table, &order(9_999)), ["+all", "-big"]);
        assert_eq!(wanted(&table, &event::sample("e", "user.created", "{}")), ["+all", "+users"]);
    }

    #[test]
    fn a_condition_that_panics_concerns_its_route_alone() {
        let mut table = RouteTable::compile(&[
            route("ill", &["**"], &[], Some("payload.amount >= 1")),
            route("well", &["**"], &[], Some("payload.amount >= 1")),
        ])
        .unwrap();
        table.have_panic("ill");
        assert_eq!(wanted(&table, &event::sample("e", "order.created", r#"{"amount":1}"#)), ["?ill", "+well"]);
    }

    #[test]
    fn every_fault_of_every_route_is_reported() {
        let errors = RouteTable::compile(&[
            route("a", &["order..x", "*x"], &[], Some("payload.")),
            route("b", &["**"], &[], Some("payloda.x == 1")),
        ])
        .unwrap_err();
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 4, "{texts:#?}");
        assert!(texts[3].contains("did you mean `payload`"), "{texts:#?}");
    }

    #[test]
    fn a_condition_that_asks_for_what_the_route_does_not_take_is_doubted() {
        for (patterns, sources, condition, part) in [
            (
                &["order.*"][..],
                &[][..],
                "eventType == 'user.created'",
                Some("`events` of the route takes only `order.*`, and not `user.created`"),
            ),
            (
                &["order.*", "cart.*"],
                &[],
                "payload.x && ('user.created' == eventType && payload.y)",
                Some("takes only `order.*`, `cart.*`"),
            ),
            (
                &["**"],
                &["app", "web"],
                "source == 'shop'",
                Some("`sources` of the route takes only `app`, `web`, and not `shop`"),
            ),
            (&["order.*"], &["app"], "eventType == 'order.created' && source == 'app'", None),
            (&["user.*", "order.*"], &[], "eventType == 'order.created' && source == 'shop'", None),
            (&["order.*"], &[], "eventType == 'user.created' || payload.x", None),
            (&["order.*"], &[], "eventType != 'user.created'", None),
            (&["order.*"], &[], "payload.eventType == 'user.created'", None),
            (&["order.*"], &[], "payload.tags.exists(eventType, eventType == 'user.created')", None),
        ] {
            let doubts = RouteTable::examine(&[route("r", patterns, sources, Some(condition))]).doubts;
            let text = doubts.first().map(ToString::to_string);
            let fits = match (&text, part) {
                (Some(text), Some(part)) => text.contains(part),
                (text, part) => text.is_none() && part.is_none(),
            };
            assert!(fits && doubts.len() < 2, "{condition}: {doubts:?}");
        }
    }
}
