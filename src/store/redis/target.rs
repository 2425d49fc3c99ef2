//! Which Redis, and how a connection to it is made: one server, the master that Sentinels name, or a Cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    RedisResult, TlsCertificates, Value,
};

use super::RedisOptions;
use super::fault::Fault;
use super::link::CALL_TIME_MAX;
use super::sentinel::Sentinels;
use crate::secret::Secret;
use crate::store::Error;

/// How long it may take to be connected.
pub(super) const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// Which Redis.
#[derive(Clone, Debug)]
pub enum RedisTarget {
    /// One server: `redis://…` or `rediss://…`. The URL may hold a password.
    Single(Secret),
    /// The master of a service, whichever server that is.
    Sentinel(SentinelTarget),
    /// A Cluster, by some of its nodes.
    Cluster(Vec<Secret>),
}

/// A service whose master Sentinels name.
#[derive(Clone, Debug)]
pub struct SentinelTarget {
    /// The Sentinels, each as `redis://host:port` or `rediss://…`.
    pub sentinels: Vec<Secret>,
    /// The user that the Sentinels want, if it is not the default one.
    pub sentinel_user: Option<String>,
    /// The password that the Sentinels want, if they want one.
    pub sentinel_password: Option<Secret>,
    /// What the Sentinels call the master.
    pub service: String,
    /// How to talk to the master: a URL with user, password and database, whose host is replaced.
    pub master: Secret,
}

/// TLS with servers that want a certificate, or whose own is vouched for by somebody unusual: PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisTls {
    /// Those that vouch for the servers, in place of the usual ones.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown to them, and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl RedisTls {
    fn read(&self) -> Result<TlsCertificates, Error> {
        let root_cert = self.ca.as_deref().map(bytes).transpose()?;
        let client_tls = match &self.own {
            Some((cert, key)) => Some(ClientTlsConfig { client_cert: bytes(cert)?, client_key: bytes(key)? }),
            None => None,
        };
        Ok(TlsCertificates { client_tls, root_cert })
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Unusable(format!("`{}` can't be read: {error}", path.display())))
}

/// A client of a server, with these certificates where it speaks TLS.
pub(super) fn client(info: ConnectionInfo, certificates: Option<&TlsCertificates>) -> Result<Client, Error> {
    match certificates {
        Some(certificates) if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) => {
            let unusable = |error| Error::Unusable(format!("the files of `store.redis.tls` can't be used: {error}"));
            Client::build_with_tls(info, certificates.clone()).map_err(unusable)
        }
        Some(_) | None => Client::open(info).map_err(invalid),
    }
}

/// Makes connections. Shared by all links of a store.
pub(super) enum Dialer {
    Single(Box<Client>),
    Sentinel(Arc<Sentinels>),
    Cluster(Box<ClusterClient>),
}

/// A connection.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// The parser's own text may quote the URL, and a URL may hold a password.
pub(super) fn invalid<T>(_: T) -> Error {
    Error::Unusable("the store's Redis URL is not valid".to_owned())
}

/// A URL, taken apart, with our settings for the socket.
pub(super) fn connection_info(url: &Secret) -> Result<ConnectionInfo, Error> {
    Ok(url.expose().into_connection_info().map_err(invalid)?.set_tcp_settings(tcp_settings()))
}

fn tcp_settings() -> TcpSettings {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(3)).with_retries(3);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(Duration::from_secs(10))
}

/// Connects to one server. Deadlines are the callers': the crate's default of 500 ms would cut a blocking read off.
pub(super) async fn connect_to(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIME_MAX)).set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

impl Dialer {
    /// Checks the target's URLs; does not connect yet.
    pub(super) fn new(target: &RedisTarget, options: &RedisOptions) -> Result<Self, Error> {
        let certificates = options.tls.as_ref().map(RedisTls::read).transpose()?;
        Ok(match target {
            RedisTarget::Single(url) => Self::Single(Box::new(client(connection_info(url)?, certificates.as_ref())?)),
            RedisTarget::Sentinel(target) => Self::Sentinel(Arc::new(Sentinels::new(target, certificates.as_ref())?)),
            RedisTarget::Cluster(urls) => {
                let nodes = urls.iter().map(|url| url.expose().into_connection_info());
                let mut client = ClusterClientBuilder::new(nodes.collect::<Result<Vec<_>, _>>().map_err(invalid)?)
                    .connection_timeout(CONNECT_TIME_MAX)
                    .response_timeout(CALL_TIME_MAX + options.wait.as_ref().map_or(Duration::ZERO, |wait| wait.timeout))
                    .tcp_settings(tcp_settings());
                if let Some(certificates) = certificates {
                    client = client.certs(certificates);
                }
                Self::Cluster(Box::new(client.build().map_err(invalid)?))
            }
        })
    }

    /// Whether the other side is a Cluster, where a call that blocks would hold up others.
    pub(super) fn is_cluster(&self) -> bool {
        match self {
            Self::Single(_) | Self::Sentinel(_) => false,
            Self::Cluster(_) => true,
        }
    }

    /// What asks the Sentinels now and then, where there are some.
    pub(super) fn sentinels(&self) -> Option<&Arc<Sentinels>> {
        match self {
            Self::Sentinel(sentinels) => Some(sentinels),
            Self::Single(_) | Self::Cluster(_) => None,
        }
    }

    /// Which server is meant, as a number that changes with it: connections made under another one are of no more use.
    pub(super) fn epoch(&self) -> u64 {
        self.sentinels().map_or(0, |sentinels| sentinels.epoch())
    }

    /// Connects.
    pub(super) async fn connect(&self) -> Result<Connection, Fault> {
        match self {
            Self::Single(client) => match connect_to(client).await {
                Ok(connection) => Ok(Connection::Single(connection)),
                Err(error) => Err(Fault::of(&error)),
            },
            Self::Sentinel(sentinels) => sentinels.connect().await.map(Connection::Single),
            Self::Cluster(client) => match client.get_async_connection().await {
                Ok(connection) => Ok(Connection::Cluster(connection)),
                Err(error) => Err(Fault::of(&error)),
            },
        }
    }
}

impl Connection {
    /// Sends a command.
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        }
    }

    /// Sends commands together to the server that has the keys of the first.
    pub(super) async fn send_all(&mut self, commands: Vec<Cmd>) -> RedisResult<Vec<Value>> {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        let count = commands.len();
        for command in commands {
            pipeline.add_command(command);
        }
        match self {
            Self::Single(connection) => connection.req_packed_commands(&pipeline, 0, count).await,
            // The crate looks for the first command with a key.
            Self::Cluster(connection) => connection.req_packed_commands(&pipeline, 0, count).await,
        }
    }
}
