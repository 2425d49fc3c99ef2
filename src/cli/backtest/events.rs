//! Stored events, newest first: from the router that runs, or from the store itself where none does. The next page is read
//! while the last one is worked on.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::Stream;
use http::{Method, Uri};
use tokio::sync::mpsc;

use crate::admin::operations::events::{EventsQuery, WholePage};
use crate::app;
use crate::cli::Error;
use crate::cli::http::{Client, NoAnswer};
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::event::Event;
use crate::secret::Secret;
use crate::store::{Order, PageLimits, Scan};

/// Events of one page.
const PAGE_EVENTS: usize = 1_000;
/// Events that are read ahead.
const AHEAD_EVENTS: usize = 2_000;

/// Where the router is asked.
#[derive(clap::Args)]
pub struct Door {
    /// The admin listener of the router that runs [default: from the config]; where none answers, the config's store is read.
    #[arg(long)]
    url: Option<String>,
    /// A token of the admin listener [default: from the config]
    #[arg(long, env = "BRANCHLINE_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// The events that were accepted in this time, up to the first error.
pub async fn read(
    door: &Door,
    config: &Config,
    since: Timestamp,
    until: Option<Timestamp>,
) -> Result<impl Stream<Item = Result<Event, Error>> + use<>, Error> {
    let (sender, mut receiver) = mpsc::channel(AHEAD_EVENTS);
    let router = Router::new(door, config)?;
    // The first page tells whether there is a router.
    let mut query = EventsQuery {
        since: Some(since.to_string()),
        until: until.map(|until| until.to_string()),
        limit: Some(PAGE_EVENTS),
        payload: true,
        ..EventsQuery::default()
    };
    match router.page(&query).await {
        Ok(first) => {
            tokio::spawn(async move {
                let mut page = Ok(first);
                while let Some(cursor) = give(&sender, page).await {
                    query.cursor = Some(cursor);
                    page = router.page(&query).await.map_err(Asked::into_error);
                }
            });
        }
        Err(Asked::Nobody(_)) if door.url.is_none() => {
            let store = app::open_store(config, Clock::system()).await?;
            tokio::spawn(async move {
                let scan = Scan { since, until, order: Order::NewestFirst };
                let mut cursor = None;
                loop {
                    match store.scan_events(&scan, cursor, PageLimits::records(PAGE_EVENTS)).await {
                        Ok(page) => {
                            cursor = page.next;
                            for (_, event) in page.items {
                                if sender.send(Ok(event)).await.is_err() {
                                    return;
                                }
                            }
                            if cursor.is_none() {
                                break;
                            }
                        }
                        Err(error) => {
                            let _ = sender.send(Err(Error::Failed(format!("the store: {error}")))).await;
                            break;
                        }
                    }
                }
                let _ = store.close().await;
            });
        }
        Err(asked) => return Err(asked.into_error()),
    }
    Ok(futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)))
}

/// Hands a page on; gives the cursor of the next, if there is one and somebody still reads.
async fn give(sender: &mpsc::Sender<Result<Event, Error>>, page: Result<WholePage, Error>) -> Option<String> {
    let page = match page {
        Ok(page) => page,
        Err(error) => {
            let _ = sender.send(Err(error)).await;
            return None;
        }
    };
    for event in page.events {
        sender.send(Ok(event.into_event())).await.ok()?;
    }
    page.cursor
}

/// A router that may run.
struct Router {
    client: Client,
    base: String,
}

/// Why there is no page.
enum Asked {
    /// Nobody listens.
    Nobody(String),
    /// Somebody does, and has none.
    Failed(String),
}

impl Asked {
    fn into_error(self) -> Error {
        let (Self::Nobody(text) | Self::Failed(text)) = self;
        Error::Failed(text)
    }
}

impl Router {
    fn new(door: &Door, config: &Config) -> Result<Self, Error> {
        let token = door.token.as_deref().map(Secret::new).or_else(|| config.admin.tokens.first().cloned());
        let mut address = config.admin.listen;
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let base =
            door.url.as_ref().map_or_else(|| format!("http://{address}"), |url| url.trim_end_matches('/').into());
        Ok(Self { client: Client::new(token.as_ref()).map_err(Error::Failed)?, base })
    }

    async fn page(&self, query: &EventsQuery) -> Result<WholePage, Asked> {
        let query = serde_urlencoded::to_string(query).map_err(|error| Asked::Failed(error.to_string()))?;
        let uri: Uri = format!("{}/api/v1/events?{query}", self.base)
            .parse()
            .map_err(|_| Asked::Failed("`--url` is not a URL".to_owned()))?;
        let answer = self.client.request(Method::GET, &uri, None).await.map_err(|error| match error {
            NoAnswer::Unreachable(_) => Asked::Nobody(error.to_string()),
            NoAnswer::Broken(..) => Asked::Failed(error.to_string()),
        })?;
        if !answer.status.is_success() {
            return Err(Asked::Failed(format!("the router: {}", answer.describe())));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| Asked::Failed(format!("the router's events can't be read: {error}")))
    }
}
