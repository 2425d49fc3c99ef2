//! The pooled connections, by where they lead and what of TLS they are made with. A reload gives those up that no endpoint
//! uses any more.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http_body_util::Full;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ipnet::IpNet;
use rustls::RootCertStore;

use super::connect::Connector;
use super::resolve::Resolve;
use crate::endpoint::Endpoint;
use crate::http2;
use crate::tls::{self, EndpointTls, Fingerprint};

/// An idle connection is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Idle connections to one host.
const IDLE_CONNECTIONS_MAX: usize = 128;
/// The head of an answer.
pub(super) const ANSWER_HEAD_BYTES_MAX: usize = 32 * 1024;
/// HTTP/2: how much of a body may come before we have read it, per answer and per connection.
const ANSWER_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2: a connection with answers outstanding that leaves a ping unanswered is given up, since all attempts share it.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

type HttpClient = Client<Connector, Full<Bytes>>;

pub(super) struct Clients {
    /// The operator names the keys, so the hash need not withstand anybody.
    pools: RwLock<HashMap<Way, HttpClient, foldhash::fast::RandomState>>,
    connector: Connector,
    roots: RootCertStore,
}

/// Where connections lead, and what of TLS they are made with. Endpoints of one way share its connections.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Way {
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    tls: Option<Fingerprint>,
}

impl Way {
    fn to(endpoint: &Endpoint) -> Self {
        let uri = endpoint.url.uri();
        Self {
            scheme: uri.scheme().cloned(),
            authority: uri.authority().cloned(),
            tls: endpoint.tls.as_ref().map(|tls| tls.fingerprint()),
        }
    }
}

impl Clients {
    /// `roots` are the authorities that are trusted anyway.
    pub(super) fn new(
        allowed: Arc<[IpNet]>,
        resolver: Arc<dyn Resolve>,
        answer_bytes_max: usize,
        roots: RootCertStore,
    ) -> Result<Self, tls::Error> {
        let usual = EndpointTls::read(None, None, false)?;
        let connector = Connector { allowed, resolver, tls: config(&usual, &roots)?, answer_bytes_max };
        Ok(Self { pools: RwLock::default(), connector, roots })
    }

    /// Begins to send a request.
    pub(super) fn request(
        &self,
        endpoint: &Endpoint,
        request: http::Request<Full<Bytes>>,
    ) -> Result<ResponseFuture, tls::Error> {
        let way = Way::to(endpoint);
        if let Some(client) = self.pools.read().unwrap_or_else(PoisonError::into_inner).get(&way) {
            return Ok(client.request(request));
        }
        let fresh = client(self.connector(endpoint)?);
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        Ok(pools.entry(way).or_insert(fresh).request(request))
    }

    /// Gives up the idle connections of all other endpoints; those with a request under way end with it.
    pub(super) fn keep_only<'e>(&self, endpoints: impl Iterator<Item = &'e Endpoint>) {
        let ways: HashSet<Way> = endpoints.map(Way::to).collect();
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|way, _| ways.contains(way));
    }

    /// What connects to an endpoint.
    pub(super) fn connector(&self, endpoint: &Endpoint) -> Result<Connector, tls::Error> {
        let connector = self.connector.clone();
        Ok(match &endpoint.tls {
            Some(tls) => Connector { tls: config(tls, &self.roots)?, ..connector },
            None => connector,
        })
    }
}

fn config(tls: &EndpointTls, roots: &RootCertStore) -> Result<Arc<rustls::ClientConfig>, tls::Error> {
    let mut config = tls.client_config(roots)?;
    config.alpn_protocols = vec![http2::ALPN.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn client(connector: Connector) -> HttpClient {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        // Sends again at once what the end of a reused connection left unsent.
        .retry_canceled_requests(true)
        .http1_max_buf_size(ANSWER_HEAD_BYTES_MAX)
        .http2_max_header_list_size(u32::try_from(ANSWER_HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .http2_initial_stream_window_size(ANSWER_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(connector)
}
