//! Why: for one event and one generation of the config, what each subscription makes of it and, for a stored event, what
//! became of it. Filter, plugins and headers are those of `serve`; nothing is sent and nothing is written.

mod difference; // Whether today's answer is another than the one that was recorded.
mod request; // What would be sent, without what is secret.

use std::sync::Arc;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::operations::pairs::{self, Pair};
use super::operations::times::Time;
use super::operations::{self, events};
use crate::clock::Timestamp;
use crate::delivery::{DeliveryId, EventHead, OutcomeRecord, PluginNote};
use crate::dispatch::{Consumer, Snapshot};
use crate::event::{Event, Position};
use crate::filter::Fit;
use crate::plugin::{ChainEnd, ChainRun, PluginHost, Traced};
use crate::route::{PluginMode, Subscription};
use crate::send::body_for;
use crate::store::Store;
pub use request::{Header, RequestShown};

/// An event, explained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The event.
    pub event: EventShown,
    /// Which generation of the config says so.
    pub generation: u64,
    /// That no route wanted it, where that was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Pair>,
    /// Every subscription, in the order of the config.
    pub subscriptions: Vec<Explained>,
    /// What was recorded for subscriptions that the config no longer has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Pair>,
}

/// An event without its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventShown {
    /// Its id.
    pub id: ByteString,
    /// Its source.
    pub source: ByteString,
    /// Its type.
    pub event_type: ByteString,
    /// Empty when the producer gave none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub aggregate_type: ByteString,
    /// Empty when the producer gave none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub aggregate_id: ByteString,
    /// When it happened, as the producer wrote it.
    pub occurred_at: ByteString,
    /// When it was accepted.
    pub accepted_at: Time,
    /// How long its payload is.
    pub payload_bytes: usize,
    /// Where it is stored; absent for one that is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

/// What a subscription makes of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// Its name.
    pub subscription: String,
    /// Its route.
    pub route: String,
    /// Where its deliveries go.
    pub endpoint: String,
    /// Scheme, host and port of the endpoint's URL.
    pub url: String,
    /// Whether the route wants the event, or the first thing that kept it away.
    #[serde(flatten)]
    pub fit: Fit,
    /// What each plugin decided, in the order of the chain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<PluginShown>,
    /// What plugins did that is not applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<PluginNote>,
    /// What would become of a first attempt's work; absent when the route does not want the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// What was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Pair>,
    /// In which ways today's answer is another than what was recorded, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
}

/// One plugin's call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginShown {
    /// Its name.
    pub plugin: String,
    /// The component's SHA-256.
    pub sha256: String,
    /// Whether what it says is done.
    pub shadow: bool,
    /// The verdict in a word, or how it failed.
    pub verdict: String,
    /// Its reason, or what is known of its failure.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// How long the call took, in microseconds.
    pub micros: u64,
    /// What it logged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// What a first attempt's work would come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum End {
    /// This would be sent.
    Sends {
        /// The request.
        request: RequestShown,
    },
    /// A plugin drops it.
    Dropped {
        /// Which.
        plugin: String,
        /// Its reason.
        reason: String,
    },
    /// A plugin gives it up.
    DeadLetter {
        /// Which.
        plugin: String,
        /// Its reason.
        reason: String,
    },
    /// A plugin fails.
    PluginFails {
        /// Which.
        plugin: String,
        /// How, in a word.
        error: String,
        /// What is known of it.
        detail: String,
        /// Whether the schedule tries again.
        retryable: bool,
    },
}

/// What a store knows of an event.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Where it stands.
    pub position: Position,
    /// What was recorded of it, in the order in which it was written.
    pub records: Vec<OutcomeRecord>,
    /// How it stands with each subscription.
    pub pairs: Vec<Pair>,
}

impl Stored {
    /// Reads what is known of an event.
    pub async fn read(
        store: &dyn Store,
        snapshot: &Snapshot,
        position: Position,
        event: &Event,
    ) -> Result<Self, operations::Error> {
        let records = store.outcomes_of(&[(position, event.accepted_at)]).await?;
        let records: Vec<_> = records.into_iter().filter(|record| record.position == position).collect();
        let pairs = pairs::of_event(store, snapshot, position, event, records.clone()).await?;
        Ok(Self { position, records, pairs })
    }

    /// How the event stands with a subscription.
    fn pair(&self, subscription: &str) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.subscription.as_deref() == Some(subscription))
    }

    /// What was recorded last of a subscription.
    fn latest(&self, subscription: &str) -> Option<&OutcomeRecord> {
        self.records.iter().rev().find(|record| record.subscription.as_deref() == Some(subscription))
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// This subscription only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// The event's source; needed where several have an event of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// With the bodies of requests, which hold what the payload holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub body: bool,
}

/// Explains a stored event, by its id and, where several sources have one of the id, its source.
pub async fn explain_stored(
    store: &dyn Store,
    snapshot: &Arc<Snapshot>,
    plugins: &PluginHost,
    id: &str,
    question: &Question,
    now: Timestamp,
) -> Result<Explanation, operations::Error> {
    let (position, event) = events::find(store, id, question.source.as_deref()).await?;
    let stored = Stored::read(store, snapshot, position, &event).await?;
    explain(snapshot, plugins, &Arc::new(event), Some(stored), question, now).await
}

/// Explains an event by one generation of the config.
pub async fn explain(
    snapshot: &Arc<Snapshot>,
    plugins: &PluginHost,
    event: &Arc<Event>,
    stored: Option<Stored>,
    question: &Question,
    now: Timestamp,
) -> Result<Explanation, operations::Error> {
    let is_asked_for = |name: &str| question.subscription.as_deref().is_none_or(|asked| asked == name);
    let mut subscriptions = Vec::new();
    for (subscription, fit) in fits(snapshot, event).await? {
        if !is_asked_for(&subscription.name) {
            continue;
        }
        let consumer = snapshot
            .consumer(&subscription.name)
            .expect("a snapshot is made with a consumer for each subscription of its routes");
        let mut explained = one(consumer, plugins, event, fit, question.body, now).await;
        if let Some(stored) = &stored {
            explained.recorded = stored.pair(&subscription.name).cloned();
            explained.differs = difference::between(stored, &explained, &consumer.by.plugins);
        }
        subscriptions.push(explained);
    }
    let is_gone = |pair: &&Pair| {
        pair.subscription.as_deref().is_some_and(|name| snapshot.consumer(name).is_none() && is_asked_for(name))
    };
    let gone = stored.iter().flat_map(|stored| &stored.pairs).filter(is_gone).cloned().collect();
    let of_none = |pair: &&Pair| pair.subscription.is_none();
    let unmatched = stored.as_ref().and_then(|stored| stored.pairs.iter().find(of_none));
    Ok(Explanation {
        recorded: unmatched.cloned(),
        event: EventShown::of(event, stored.as_ref().map(|stored| stored.position)),
        generation: snapshot.generation,
        gone,
        subscriptions,
    })
}

/// Whether each route wants the event. It may take long over a large payload, so the runtime's threads are kept free.
async fn fits(
    snapshot: &Arc<Snapshot>,
    event: &Arc<Event>,
) -> Result<Vec<(Arc<Subscription>, Fit)>, operations::Error> {
    let (routes, subject) = (Arc::clone(snapshot), Arc::clone(event));
    let explained = tokio::task::spawn_blocking(move || routes.routes.explain(&subject)).await;
    explained.map_err(|_| operations::Error::Panicked)
}

async fn one(
    consumer: &Consumer,
    plugins: &PluginHost,
    event: &Arc<Event>,
    fit: Fit,
    with_body: bool,
    now: Timestamp,
) -> Explained {
    let (subscription, endpoint) = (&consumer.subscription, &consumer.endpoint.endpoint);
    let mut explained = Explained {
        subscription: subscription.name.to_string(),
        route: subscription.route.to_string(),
        endpoint: endpoint.name.to_string(),
        url: endpoint.url.to_string(),
        fit,
        plugins: Vec::new(),
        notes: Vec::new(),
        end: None,
        recorded: None,
        differs: Vec::new(),
    };
    if !matches!(explained.fit, Fit::Matched { .. }) {
        return explained;
    }
    let (run, traced) = match &consumer.chain {
        Some(chain) => plugins.trace(chain, event).await,
        None => {
            let end = ChainEnd::Event { event: Arc::clone(event), changed: false };
            (ChainRun { end, notes: Vec::new() }, Vec::new())
        }
    };
    let request = match run.end {
        ChainEnd::Event { event, .. } => Ok(body_for(&event, endpoint.format)),
        ChainEnd::Send(request) => Ok(request),
        ChainEnd::Dropped { plugin, reason } => Err(End::Dropped { plugin: plugin.to_string(), reason }),
        ChainEnd::DeadLetter { plugin, reason } => Err(End::DeadLetter { plugin: plugin.to_string(), reason }),
        ChainEnd::Fault { plugin, kind, detail, retryable } => {
            Err(End::PluginFails { plugin: plugin.to_string(), error: kind.as_str().to_owned(), detail, retryable })
        }
        ChainEnd::Busy | ChainEnd::Open { .. } => unreachable!("a traced chain asks neither for a turn nor a breaker"),
    };
    // The position has no part in what is sent.
    let head = EventHead::of(event, Position { partition: 0, major: 0, minor: 0 });
    let delivery = DeliveryId::derive(event, &subscription.name);
    explained.end = Some(match request {
        Ok(request) => {
            let request = RequestShown::of(endpoint, &delivery, &head, &subscription.name, &request, with_body, now);
            let fault = request.fault.or_else(|| consumer.refusal.as_deref().map(str::to_owned));
            End::Sends { request: RequestShown { fault, ..request } }
        }
        Err(end) => end,
    });
    explained.plugins = traced.into_iter().map(PluginShown::from).collect();
    explained.notes = run.notes;
    explained
}

impl EventShown {
    fn of(event: &Event, position: Option<Position>) -> Self {
        Self {
            id: event.id.clone(),
            source: event.source.clone(),
            event_type: event.event_type.clone(),
            aggregate_type: event.aggregate_type.clone(),
            aggregate_id: event.aggregate_id.clone(),
            occurred_at: event.occurred_at.clone(),
            accepted_at: Time(event.accepted_at),
            payload_bytes: event.payload.len(),
            position,
        }
    }
}

impl From<Traced> for PluginShown {
    fn from(traced: Traced) -> Self {
        let Traced { plugin, sha256, mode, report } = traced;
        let (verdict, detail) = match &report.verdict {
            Ok(verdict) => (verdict.as_str(), verdict.reason().unwrap_or_default().to_owned()),
            Err(fault) => (fault.kind.as_str(), fault.detail.clone()),
        };
        Self {
            plugin: plugin.to_string(),
            sha256,
            shadow: mode == PluginMode::Shadow,
            verdict: verdict.to_owned(),
            detail,
            micros: u64::try_from(report.duration.as_micros()).unwrap_or(u64::MAX),
            log: report.log.into_iter().map(|line| format!("{}: {}", line.level.as_str(), line.message)).collect(),
        }
    }
}
