//! What one event is walked by: routes, plugin chains and endpoints of one generation of the config, never a mixture of two.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use super::gate::{Gate, Row};
use crate::delivery::Provenance;
use crate::endpoint::Endpoint;
use crate::filter::RouteTable;
use crate::plugin::Chain;
use crate::route::Subscription;

/// One generation of the config, ready to use.
#[derive(Default)]
pub struct Snapshot {
    /// Counts the generations of this process, from 1.
    pub generation: u64,
    /// Which subscriptions want an event.
    pub routes: RouteTable,
    consumers: HashMap<Arc<str>, Arc<Consumer>>,
    endpoints: HashMap<Arc<str>, Arc<EndpointState>>,
}

/// A subscription with what its deliveries need.
pub struct Consumer {
    /// The subscription.
    pub subscription: Arc<Subscription>,
    /// Its plugins; `None` when it has none.
    pub chain: Option<Arc<Chain>>,
    /// Its endpoint.
    pub endpoint: Arc<EndpointState>,
    /// Where deliveries wait whose plugins could not run.
    pub plugin_row: Row,
    /// What its steps are made with; [`Snapshot::new`] fills it in.
    pub by: Arc<Provenance>,
}

/// An endpoint and what the router knows of it. It outlives a reload that leaves the endpoint as it was.
pub struct EndpointState {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// How many attempts may be under way.
    pub gate: Arc<Gate>,
    /// A digest of its URL, by which it is known to be the same one that was disabled.
    pub target: String,
    disabled: AtomicBool,
}

impl EndpointState {
    /// A fresh state.
    pub fn new(endpoint: Arc<Endpoint>) -> Arc<Self> {
        let digest = Sha256::digest(endpoint.url.expose().expose());
        let target = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Arc::new(Self { gate: Gate::new(endpoint.max_in_flight), endpoint, target, disabled: AtomicBool::new(false) })
    }

    /// The state of an endpoint in a new generation: the gate goes on while its limit stays, the mark while the URL does.
    pub fn renewed(endpoint: Arc<Endpoint>, before: &Snapshot) -> Arc<Self> {
        let fresh = Self::new(endpoint);
        let Some(old) = before.endpoints.get(&fresh.endpoint.name) else { return fresh };
        let same_limit = old.endpoint.max_in_flight == fresh.endpoint.max_in_flight;
        Arc::new(Self {
            endpoint: Arc::clone(&fresh.endpoint),
            gate: Arc::clone(if same_limit { &old.gate } else { &fresh.gate }),
            target: fresh.target.clone(),
            disabled: AtomicBool::new(old.target == fresh.target && old.is_disabled()),
        })
    }

    /// Whether its deliveries are held.
    pub fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Relaxed)
    }

    /// Lets its deliveries go again, at once and not in the row that they were parked in.
    pub fn enable(&self) {
        self.set_disabled(false);
        self.gate.forget_row();
    }

    /// Sets whether its deliveries are held; returns whether they were before.
    pub fn set_disabled(&self, disabled: bool) -> bool {
        self.disabled.swap(disabled, Ordering::Relaxed)
    }
}

impl Snapshot {
    /// Puts a generation together. `consumers` has one entry for each subscription of `routes`.
    pub fn new(generation: u64, routes: RouteTable, consumers: Vec<Consumer>) -> Self {
        let with_provenance = |consumer: Consumer| {
            let plugins = consumer.chain.as_ref().map(|chain| chain.labels()).unwrap_or_default();
            let consumer = Consumer { by: Arc::new(Provenance { generation, plugins }), ..consumer };
            (Arc::clone(&consumer.subscription.name), Arc::new(consumer))
        };
        let consumers: HashMap<_, _> = consumers.into_iter().map(with_provenance).collect();
        let endpoints = consumers
            .values()
            .map(|consumer| (Arc::clone(&consumer.endpoint.endpoint.name), Arc::clone(&consumer.endpoint)))
            .collect();
        Self { generation, routes, consumers, endpoints }
    }

    /// The consumer of a subscription, if the config (still) has it.
    pub fn consumer(&self, subscription: &str) -> Option<&Arc<Consumer>> {
        self.consumers.get(subscription)
    }

    /// The endpoints that subscriptions use.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<EndpointState>> {
        self.endpoints.values()
    }

    /// The names of the subscriptions that deliver to an endpoint.
    pub fn subscriptions_of(&self, endpoint: &str) -> Vec<Arc<str>> {
        let of_endpoint = self.consumers.values().filter(|consumer| *consumer.endpoint.endpoint.name == *endpoint);
        of_endpoint.map(|consumer| Arc::clone(&consumer.subscription.name)).collect()
    }
}
