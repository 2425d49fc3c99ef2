//! What one event is walked by: routes, plugin chains and endpoints of one generation of the config, never a mixture of two.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use sha2::{Digest, Sha256};

use super::gate::{Gate, Row};
use super::passage::{Fuse, Pace};
use crate::delivery::{Provenance, Waiting};
use crate::endpoint::Endpoint;
use crate::filter::RouteTable;
use crate::plugin::Chain;
use crate::route::Subscription;
use crate::store::{EndpointMark, MarkKind};

/// One generation of the config, ready to use.
#[derive(Default)]
pub struct Snapshot {
    /// Counts the generations of this process, from 1.
    pub generation: u64,
    /// What is decided with where no plugin runs: the generation alone.
    pub by: Arc<Provenance>,
    /// Which subscriptions want an event.
    pub routes: RouteTable,
    /// The operator names the keys, so the hash need not withstand anybody.
    consumers: HashMap<Arc<str>, Arc<Consumer>, foldhash::fast::RandomState>,
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
    /// Why no attempt will connect, where the URL says so without a look-up.
    pub refusal: Option<Arc<str>>,
    /// Where deliveries wait whose plugins could not run.
    pub plugin_row: Row,
    /// What its steps are made with; [`Snapshot::new`] fills it in.
    pub by: Arc<Provenance>,
}

impl Consumer {
    /// The same, as if nothing had happened yet: for a rehearsal, which must not see another's breakers and rows.
    pub(super) fn afresh(&self) -> Self {
        Self {
            subscription: Arc::clone(&self.subscription),
            chain: self.chain.as_ref().map(|chain| Arc::new(chain.without_breakers())),
            endpoint: EndpointState::new(Arc::clone(&self.endpoint.endpoint)),
            refusal: self.refusal.clone(),
            plugin_row: Row::default(),
            by: Arc::clone(&self.by),
        }
    }
}

/// An endpoint and what the router knows of it. It outlives a reload that leaves the endpoint as it was.
pub struct EndpointState {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// How many attempts may be under way.
    pub gate: Arc<Gate>,
    /// Its breaker, unless the config says `off`.
    pub(super) fuse: Option<Arc<Fuse>>,
    /// Its rate, if it has one.
    pub(super) pace: Option<Arc<Pace>>,
    /// A digest of its URL, by which it is known to be the same one that was disabled.
    pub target: String,
    /// The marks that hold its deliveries: a bit for each kind.
    marks: AtomicU8,
}

impl EndpointState {
    /// A fresh state.
    pub fn new(endpoint: Arc<Endpoint>) -> Arc<Self> {
        let digest = Sha256::digest(endpoint.url.expose().expose());
        let target = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Arc::new(Self {
            gate: Gate::new(endpoint.max_in_flight),
            fuse: endpoint.breaker.map(Fuse::new),
            pace: endpoint.rate.map(Pace::new),
            endpoint,
            target,
            marks: AtomicU8::new(0),
        })
    }

    /// The state of an endpoint in a new generation. What is known of it goes on while what it is about stays: the gate and
    /// the rate while their limits do, the breaker while the URL does too. The store knows the marks.
    pub fn renewed(endpoint: Arc<Endpoint>, before: &Snapshot) -> Arc<Self> {
        let fresh = Self::new(endpoint);
        let Some(old) = before.endpoints.get(&fresh.endpoint.name) else { return fresh };
        let (was, is) = (&old.endpoint, &fresh.endpoint);
        let (same_target, same_limit) = (old.target == fresh.target, was.max_in_flight == is.max_in_flight);
        let same_fuse = same_target && was.breaker == is.breaker;
        let marks = old.marks.load(Ordering::Relaxed) & if same_target { u8::MAX } else { !bit(MarkKind::Disabled) };
        Arc::new(Self {
            endpoint: Arc::clone(is),
            gate: Arc::clone(if same_limit { &old.gate } else { &fresh.gate }),
            fuse: if same_fuse { old.fuse.clone() } else { fresh.fuse.clone() },
            pace: if was.rate == is.rate { old.pace.clone() } else { fresh.pace.clone() },
            target: fresh.target.clone(),
            marks: AtomicU8::new(marks),
        })
    }

    /// Whether its breaker makes deliveries wait.
    pub fn breaker_is_open(&self) -> bool {
        self.fuse.as_ref().is_some_and(|fuse| fuse.is_open())
    }

    /// Why its deliveries are held, if they are.
    pub fn held(&self) -> Option<Waiting> {
        match self.marks.load(Ordering::Relaxed) {
            0 => None,
            marks if marks & bit(MarkKind::Disabled) != 0 => Some(Waiting::Disabled),
            _ => Some(Waiting::Paused),
        }
    }

    /// Sets a mark or takes it away; returns whether it was there before.
    pub fn set_mark(&self, kind: MarkKind, is_set: bool) -> bool {
        let before = if is_set {
            self.marks.fetch_or(bit(kind), Ordering::Relaxed)
        } else {
            self.marks.fetch_and(!bit(kind), Ordering::Relaxed)
        };
        // What is let go goes at once, and not in the row that it was parked in.
        if before != 0 && self.held().is_none() {
            self.gate.forget_row();
        }
        before & bit(kind) != 0
    }

    /// Takes over what the store says. Returns whether its deliveries were held and are not any more.
    fn apply(&self, marks: &[EndpointMark]) -> bool {
        let was_held = self.held().is_some();
        for kind in MarkKind::ALL {
            self.set_mark(kind, marks.iter().any(|mark| mark.kind == kind && self.is_meant_by(mark)));
        }
        was_held && self.held().is_none()
    }

    /// Whether a mark is about this endpoint. The operator pauses a name; a `410` is about what the URL was.
    pub fn is_meant_by(&self, mark: &EndpointMark) -> bool {
        let same_target = match mark.kind {
            MarkKind::Disabled => mark.target == self.target,
            MarkKind::Paused => true,
        };
        *mark.name == *self.endpoint.name && same_target
    }
}

const fn bit(kind: MarkKind) -> u8 {
    match kind {
        MarkKind::Disabled => 1,
        MarkKind::Paused => 2,
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
        let consumers: HashMap<_, _, _> = consumers.into_iter().map(with_provenance).collect();
        let endpoints = consumers
            .values()
            .map(|consumer| (Arc::clone(&consumer.endpoint.endpoint.name), Arc::clone(&consumer.endpoint)))
            .collect();
        let by = Arc::new(Provenance { generation, plugins: vec![] });
        Self { generation, by, routes, consumers, endpoints }
    }

    /// The consumer of a subscription, if the config (still) has it.
    pub fn consumer(&self, subscription: &str) -> Option<&Arc<Consumer>> {
        self.consumers.get(subscription)
    }

    /// The names of all subscriptions.
    pub fn subscriptions(&self) -> impl Iterator<Item = &str> + Clone {
        self.consumers.keys().map(|name| &**name)
    }

    /// Takes over the marks that the store has. Returns the endpoints that were held and are not any more.
    pub fn apply_marks(&self, marks: &[EndpointMark]) -> Vec<Arc<str>> {
        let released = self.endpoints.values().filter(|endpoint| endpoint.apply(marks));
        released.map(|endpoint| Arc::clone(&endpoint.endpoint.name)).collect()
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
