//! The way to what operators ask and do: a running router's admin listener, or, when none answers and there is a config, the
//! store itself. Both go through the same operations.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::http::{Answer, Client, NoAnswer, Trust};
use super::{Error, compiler, default_config};
use crate::admin::explain::{Explanation, Question, explain_stored};
use crate::admin::operations::dead_letters::{self, DeadLetterView, DeadLettersPage, DeadLettersQuery};
use crate::admin::operations::deliveries::{self, DeliveriesList, DeliveriesQuery};
use crate::admin::operations::events::{self, EventDetail, EventsPage, EventsQuery, WholePage};
use crate::admin::operations::replay::{self, ReplayRequest, ReplayStep, ReplayedDelivery};
use crate::admin::operations::{self, Caller};
use crate::app;
use crate::clock::Clock;
use crate::config::{Comparison, Config, Draft, Environment, SecretPrints, StoreUrl};
use crate::delivery::DeliveryId;
use crate::dispatch::Snapshot;
use crate::metrics::Metrics;
use crate::plugin::PluginHost;
use crate::secret::Secret;
use crate::store::{Store, embedded};

/// Where a router's admin listener is when nothing is said.
const DEFAULT_URL: &str = "http://127.0.0.1:8081";

/// A router's admin listener.
#[derive(Clone, Default, clap::Args)]
pub struct Listener {
    /// The admin listener of a running router [default: that of `--config`, else http://127.0.0.1:8081]
    #[arg(long)]
    pub url: Option<String>,
    #[command(flatten)]
    pub access: Access,
}

/// How to be let in there.
#[derive(Clone, Default, clap::Args)]
pub struct Access {
    /// One of its `admin.tokens` [default: the first of the config]
    #[arg(long, env = "BRANCHLINE_ADMIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    #[command(flatten)]
    pub trust: Trust,
}

/// Where to ask.
#[derive(Default, clap::Args)]
pub struct Way {
    #[command(flatten)]
    pub listener: Listener,
    /// The router's config: its address, and its store when it does not run [default: without `--url`, branchline.toml if it is there]
    #[arg(long, short, env = "BRANCHLINE_CONFIG")]
    pub config: Option<PathBuf>,
}

/// An open way.
pub enum Door {
    /// A running router.
    Router(Box<Router>),
    /// No router: the store of a config.
    Store(Box<Direct>),
}

/// A running router's admin listener.
pub struct Router {
    client: Client,
    base: String,
}

/// A store, opened by this command.
pub struct Direct {
    store: Arc<dyn Store>,
    snapshot: Arc<Snapshot>,
    plugins: PluginHost,
    clock: Clock,
}

/// Why there is no answer.
enum Fault {
    NoAnswer(NoAnswer),
    /// It was not asked in the right way.
    Invalid(String),
    Refused(String),
}

impl Fault {
    /// A router refused.
    fn of(answer: &Answer) -> Self {
        let is_invalid = answer.status == StatusCode::BAD_REQUEST;
        if is_invalid { Self::Invalid(refusal(answer)) } else { Self::Refused(refusal(answer)) }
    }
}

impl From<operations::Error> for Error {
    fn from(error: operations::Error) -> Self {
        match error {
            operations::Error::Invalid(why) => Self::Usage(why),
            operations::Error::NotFound(_)
            | operations::Error::Conflict(_)
            | operations::Error::Panicked
            | operations::Error::Store(_) => Self::Failed(error.to_string()),
        }
    }
}

impl Way {
    /// The config that is named, or the one that `serve` would use here.
    pub fn config(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| if self.listener.url.is_none() { default_config() } else { None })
    }

    /// What is known of the router's config. One that is not named need be right only where no router answers: where it runs,
    /// there may be secrets that are not here.
    fn read(&self) -> Result<Option<Draft>, Error> {
        let Some(path) = self.config() else { return Ok(None) };
        let draft = Draft::read(&path, &Environment::of_process())?;
        if self.config.is_some() { Ok(Some(Draft::from(draft.finish()?))) } else { Ok(Some(draft)) }
    }
}

impl Door {
    /// Opens the way: the router if it answers, else the store.
    pub async fn open(options: &Way) -> Result<Self, Error> {
        let other = if options.listener.url.is_none() { "`--url`" } else { "another `--url`" };
        let advice = format!("give {other}, or `--config` alone to open the store of a router that does not run");
        Self::open_advising(options, &advice).await
    }

    /// The same; `advice` is what may help where nothing answers.
    pub async fn open_advising(options: &Way, advice: &str) -> Result<Self, Error> {
        let draft = options.read()?;
        let config = draft.as_ref().map(Draft::config);
        let base = options.listener.url.clone().unwrap_or_else(|| config.map_or(DEFAULT_URL.to_owned(), admin_url));
        let from_config = || config.and_then(|config| config.admin.tokens.first().cloned());
        let Access { token, trust } = &options.listener.access;
        let token = token.as_deref().map(Secret::new).or_else(from_config);
        let router = Router { client: Client::new(token.as_ref(), trust).map_err(Error::Failed)?, base };
        match (router.get::<serde_json::Value>("/api/v1/stats").await, draft) {
            (Ok(_), _) => Ok(Self::Router(Box::new(router))),
            (Err(Fault::NoAnswer(NoAnswer::Unreachable(..))), Some(draft)) if options.listener.url.is_none() => {
                Direct::open(&draft.finish()?).await.map(|direct| Self::Store(Box::new(direct)))
            }
            (Err(Fault::NoAnswer(error @ NoAnswer::Unreachable(..))), _) => {
                Err(Error::Failed(format!("{error}; {advice}")))
            }
            (Err(fault), _) => Err(fault.into()),
        }
    }

    /// The running router; the error says that one is needed.
    pub fn router(&self) -> Result<&Router, Error> {
        match self {
            Self::Router(router) => Ok(router),
            Self::Store(_) => {
                Err(Error::Failed("no router runs with this config, and there is nothing to watch".to_owned()))
            }
        }
    }

    /// A page of events.
    pub async fn events(&self, query: &EventsQuery) -> Result<EventsPage, Error> {
        match self {
            Self::Router(router) => Ok(router.get(&format!("/api/v1/events?{}", query_of(query))).await?),
            Self::Store(direct) => Ok(events::list(&*direct.store, query, direct.clock.now()).await?),
        }
    }

    /// A page of events with their payloads.
    pub async fn whole_events(&self, query: &EventsQuery) -> Result<WholePage, Error> {
        match self {
            Self::Router(router) => Ok(router.get(&format!("/api/v1/events?{}", query_of(query))).await?),
            Self::Store(direct) => Ok(events::whole(&*direct.store, query, direct.clock.now()).await?),
        }
    }

    /// One event.
    pub async fn event(&self, id: &str, source: Option<&str>) -> Result<EventDetail, Error> {
        match self {
            Self::Router(router) => {
                Ok(router.get(&format!("/api/v1/events/{}?{}", encoded(id), query_of(&[("source", source)]))).await?)
            }
            Self::Store(direct) => Ok(events::one(&*direct.store, &direct.snapshot, id, source).await?),
        }
    }

    /// Why a stored event went where it went.
    pub async fn explain(&self, id: &str, question: &Question) -> Result<Explanation, Error> {
        match self {
            Self::Router(router) => {
                Ok(router.get(&format!("/api/v1/events/{}/explain?{}", encoded(id), query_of(question))).await?)
            }
            Self::Store(direct) => {
                let Direct { store, snapshot, plugins, clock } = &**direct;
                Ok(explain_stored(&**store, snapshot, plugins, id, question, clock.now()).await?)
            }
        }
    }

    /// Why an event would go where it would go; it need not be stored.
    pub async fn explain_given(&self, text: &str, question: &Question) -> Result<Explanation, Error> {
        let path = format!("/api/v1/explain?{}", query_of(question));
        Ok(self.router()?.post(&path, Bytes::copy_from_slice(text.as_bytes())).await?)
    }

    /// A page of dead letters.
    pub async fn dead_letters(&self, query: &DeadLettersQuery) -> Result<DeadLettersPage, Error> {
        match self {
            Self::Router(router) => Ok(router.get(&format!("/api/v1/dead-letters?{}", query_of(query))).await?),
            Self::Store(direct) => Ok(dead_letters::list(&*direct.store, query, direct.clock.now()).await?),
        }
    }

    /// One dead letter.
    pub async fn dead_letter(&self, id: &DeliveryId) -> Result<DeadLetterView, Error> {
        match self {
            Self::Router(router) => Ok(router.get(&format!("/api/v1/dead-letters/{}", encoded(id.as_str()))).await?),
            Self::Store(direct) => Ok(dead_letters::one(&*direct.store, id).await?),
        }
    }

    /// What waits.
    pub async fn deliveries(&self, query: &DeliveriesQuery) -> Result<DeliveriesList, Error> {
        match self {
            Self::Router(router) => Ok(router.get(&format!("/api/v1/deliveries?{}", query_of(query))).await?),
            Self::Store(direct) => Ok(deliveries::list(&*direct.store, &direct.snapshot, query).await?),
        }
    }

    /// Replays a dead letter.
    pub async fn replay_dead_letter(&self, id: &DeliveryId, rerun: bool) -> Result<ReplayedDelivery, Error> {
        match self {
            Self::Router(router) => {
                let path = format!("/api/v1/dead-letters/{}/replay", encoded(id.as_str()));
                Ok(router.post(&path, json_of(&serde_json::json!({ "rerun": rerun }))).await?)
            }
            Self::Store(direct) => {
                let Direct { store, snapshot, .. } = &**direct;
                Ok(replay::dead_letter(&**store, snapshot, &direct.caller(), id, rerun).await?)
            }
        }
    }

    /// Throws a dead letter away.
    pub async fn discard(&self, id: &DeliveryId, reason: &str) -> Result<(), Error> {
        match self {
            Self::Router(router) => {
                let path = format!("/api/v1/dead-letters/{}/discard", encoded(id.as_str()));
                router.post::<serde_json::Value>(&path, json_of(&serde_json::json!({ "reason": reason }))).await?;
            }
            Self::Store(direct) => {
                dead_letters::discard(&*direct.store, &direct.caller(), id, reason).await?;
            }
        }
        Ok(())
    }

    /// One step of a replay.
    pub async fn replay(&self, request: &ReplayRequest) -> Result<ReplayStep, Error> {
        match self {
            Self::Router(router) => Ok(router.post("/api/v1/replay", json_of(request)).await?),
            Self::Store(direct) => {
                let Direct { store, snapshot, .. } = &**direct;
                Ok(replay::step(&**store, snapshot, &direct.caller(), request).await?)
            }
        }
    }

    /// Hands back what was opened.
    pub async fn close(self) -> Result<(), Error> {
        match self {
            Self::Router(_) => Ok(()),
            Self::Store(direct) => direct.store.close().await.map_err(|error| Error::Failed(error.to_string())),
        }
    }
}

impl Router {
    async fn get<Got: DeserializeOwned>(&self, path: &str) -> Result<Got, Fault> {
        self.ask(Method::GET, path, None).await
    }

    async fn post<Got: DeserializeOwned>(&self, path: &str, body: Bytes) -> Result<Got, Fault> {
        self.ask(Method::POST, path, Some(body)).await
    }

    async fn ask<Got: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Got, Fault> {
        let uri = self.uri(path)?;
        let answer = self.client.request(method, &uri, body).await.map_err(Fault::NoAnswer)?;
        if !answer.status.is_success() {
            return Err(Fault::of(&answer));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| Fault::Refused(format!("the answer is not one of a router of this version: {error}")))
    }

    /// What its config says, beside the secrets of another.
    pub async fn compare(&self, prints: &SecretPrints) -> Result<Comparison, Error> {
        Ok(self.post("/api/v1/config/comparison", json_of(prints)).await?)
    }

    /// A stream that goes on for as long as the router does.
    pub async fn stream(&self, path: &str) -> Result<http::Response<hyper::body::Incoming>, Error> {
        let uri = self.uri(path)?;
        let response = self.client.open(Method::GET, &uri, None).await;
        let response = response.map_err(|error| Error::Failed(error.to_string()))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let answer = self.client.read(&uri, response).await.map_err(|error| Error::Failed(error.to_string()))?;
        Err(Fault::of(&answer).into())
    }

    fn uri(&self, path: &str) -> Result<Uri, Fault> {
        let text = format!("{}{}", self.base.trim_end_matches('/'), path.trim_end_matches('?'));
        let uri: Uri = text.parse().map_err(|_| Fault::Invalid("`--url` is not a URL".to_owned()))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(Fault::Invalid("`--url` must begin with `http://` or `https://`".to_owned()));
        }
        Ok(uri)
    }
}

impl Direct {
    async fn open(config: &Config) -> Result<Self, Error> {
        // Opening would make it, and to look is not to change.
        if let StoreUrl::File(folder) = &config.store.url
            && !embedded::is_there(folder)
        {
            let folder = folder.display();
            return Err(Error::Failed(format!(
                "no router runs with this config, and there is no store in `{folder}` yet"
            )));
        }
        let clock = Clock::system();
        let plugins = PluginHost::start_with(&config.sandbox, compiler()?, Metrics::default());
        let plugins = plugins.map_err(|error| Error::Failed(error.to_string()))?;
        let snapshot = Arc::new(app::generation(config, &plugins).await?);
        let store = app::open_store(config, clock).await?;
        Ok(Self { store, snapshot, plugins, clock })
    }

    fn caller(&self) -> Caller {
        Caller { who: "command line".to_owned(), now: self.clock.now() }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NoAnswer(error) => Self::Failed(error.to_string()),
            Fault::Invalid(why) => Self::Usage(why),
            Fault::Refused(why) => Self::Failed(why),
        }
    }
}

/// What a person is told of an answer that is no success.
fn refusal(answer: &Answer) -> String {
    let mut text = answer.describe();
    if answer.status == StatusCode::UNAUTHORIZED {
        text.push_str("; `--token`, `BRANCHLINE_ADMIN_TOKEN` or the router's `--config` give it");
    }
    text
}

/// Where a config's router is asked.
pub fn admin_url(config: &Config) -> String {
    let mut address = config.admin.listen;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    format!("{}://{address}", if config.admin.tls.is_some() { "https" } else { "http" })
}

/// A query's keys and values as they stand in a URL.
pub fn query_of(query: &impl Serialize) -> String {
    serde_urlencoded::to_string(query).expect("a query is names and plain values")
}

fn json_of(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("a request has text keys only").into()
}

fn encoded(segment: &str) -> String {
    utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string()
}
