//! The real ingest listener on a port of its own, over a real store in a temporary folder, and a client that
//! sends raw bytes: what no HTTP library would send, too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use branchline::accept::{Intake, Listener};
use branchline::clock::Clock;
use branchline::config::{Ingest, Quota, Source, SourceAuth};
use branchline::event::Event;
use branchline::metrics::Metrics;
use branchline::rate::Rate;
use branchline::secret::Secret;
use branchline::store::embedded::EmbeddedStore;
use branchline::store::{Store, StoreOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::eventually;

/// Longer than anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Settings that no test runs into unless it wants to.
pub fn settings() -> Ingest {
    Ingest {
        listen: "127.0.0.1:0".parse().unwrap(),
        body_bytes_max: 256 * 1024,
        batch_events_max: 1_000,
        head_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(15),
        store_timeout: Duration::from_secs(10),
        connections_max: 100,
        connections_per_address_max: 100,
        bodies_bytes_max: 256 << 20,
        tls: None,
        backlog_events_max: 1_000_000,
    }
}

/// A running ingest listener. `/v1/events` needs no key; `/v1/keyed` takes `key-one` and `key-two`, and so does `/v1/metered`,
/// which takes two events a minute and four at once.
pub struct Door {
    pub address: SocketAddr,
    pub intake: Arc<Intake>,
    pub store: Arc<dyn Store>,
    pub metrics: Metrics,
    pub shutdown: watch::Sender<bool>,
    pub served: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Door {
    pub async fn open(settings: Ingest) -> Self {
        Self::open_with_grace(settings, PATIENCE).await
    }

    pub async fn open_with_grace(settings: Ingest, grace: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let store = EmbeddedStore::open(folder.path(), StoreOptions::default(), clock).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let metrics = Metrics::default();
        let source = |name: &str, auth, quota| {
            let body_bytes_max = settings.body_bytes_max;
            Arc::new(Source { name: name.into(), path: format!("/v1/{name}"), auth, body_bytes_max, quota })
        };
        let keys = ["key-one", "key-two"].map(Secret::new).to_vec();
        let quota = Quota { rate: Rate::new(2, Duration::from_secs(60)), burst: 4 };
        let sources = [
            source("events", SourceAuth::None, None),
            source("keyed", SourceAuth::Bearer(keys.clone()), None),
            source("metered", SourceAuth::Bearer(keys), Some(quota)),
        ];
        let intake = Intake::new(&settings, &sources, Arc::clone(&store), metrics.clone(), clock);
        let intake = Arc::new(intake);
        let listener = Listener::bind(&settings, None).unwrap();
        let address = listener.local_addr();
        let (shutdown, told) = watch::channel(false);
        let served = tokio::spawn(listener.serve(Arc::clone(&intake), told, grace));
        Self { address, intake, store, metrics, shutdown, served, _folder: folder }
    }

    /// A connection, nothing sent.
    pub async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }

    /// Sends bytes, says that it is done, and gives every answer until the connection is closed.
    pub async fn exchange(&self, bytes: &[u8]) -> Vec<Answer> {
        let mut client = self.connect().await;
        client.send(bytes).await;
        // The peer may have closed already.
        let _ = client.stream.shutdown().await;
        client.rest().await
    }

    /// The one answer to a `POST` of `body` to `/v1/events`, with more header lines.
    pub async fn post(&self, headers: &str, body: &str) -> Answer {
        let mut answers = self.exchange(request("/v1/events", headers, body).as_bytes()).await;
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    /// The event that was stored for the source `events` under this id.
    pub async fn stored(&self, id: &str) -> Option<Event> {
        self.store.find_event("events", id).await.unwrap().map(|(_, event)| event)
    }

    /// How many events are in the store.
    pub async fn backlog(&self) -> u64 {
        self.store.stats().await.unwrap().backlog
    }

    /// Waits until no connection is open, as the metrics have it.
    pub async fn no_connection_is_left(&self) {
        let probe = async || self.metrics.render().contains("branchline_ingest_connections 0\n").then_some(());
        eventually("all connections are closed", PATIENCE, probe).await;
    }
}

/// A whole request: `Host`, `Content-Length` and, unless `headers` has one, a JSON content type are added.
pub fn request(target: &str, headers: &str, body: &str) -> String {
    let kind =
        if headers.to_ascii_lowercase().contains("content-type:") { "" } else { "Content-Type: application/json\r\n" };
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{kind}{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A producer's end of a connection.
pub struct Client {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    /// Sends; a peer that has closed already is no failure, its answer tells.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the peer reads or closes");
    }

    /// The next answer; `None` when the connection is closed.
    pub async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some((answer, length)) = Answer::parse(&self.read) {
                self.read.drain(..length);
                return Some(answer);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.expect("an answer, or the end");
            if !matches!(read, Ok(1..)) {
                assert!(self.read.is_empty(), "half an answer: {:?}", String::from_utf8_lossy(&self.read));
                return None;
            }
        }
    }

    /// All answers until the connection is closed.
    pub async fn rest(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some(answer) = self.answer().await {
            answers.push(answer);
        }
        answers
    }
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Lower case names, values as they came.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The first answer in `bytes` and its length.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let mut lines = std::str::from_utf8(&bytes[..head_end]).unwrap().lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Self { status, headers, body: String::new() };
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body = String::from_utf8(bytes.get(head_end..head_end + length)?.to_vec()).unwrap();
        Some((answer, head_end + length))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Pointers of a 422, each with its event's index.
    pub fn faults(&self) -> Vec<(String, Option<u64>)> {
        assert_eq!(self.status, 422, "{self:?}");
        let errors = self.json()["errors"].as_array().unwrap().clone();
        errors.iter().map(|e| (e["pointer"].as_str().unwrap().to_owned(), e["index"].as_u64())).collect()
    }
}
