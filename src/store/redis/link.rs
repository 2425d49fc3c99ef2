//! One connection to Redis, alone or a Cluster: a deadline on every call, and a new connection when the old one is of no more use.
//!
//! The redis crate's own reconnecting connection stays on a black-holed socket and on a demoted master; this one doesn't.

use std::sync::Mutex;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Value};
use tokio::time::Instant;

use super::RedisTarget;
use super::fault::{Fault, server_error};
use super::scripts::Script;
use crate::store::Error;

/// How long an ordinary call may take.
pub(super) const CALL_TIME_MAX: Duration = Duration::from_secs(2);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// After this many calls in a row without an answer the connection is given up.
const SILENT_CALLS_MAX: u32 = 2;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

enum Dial {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// Counts connections, so that a late failure of an old one does not end the new one.
    generation: u64,
    silent_calls: u32,
}

#[derive(Default)]
struct Dialing {
    failure: Option<(Instant, String)>,
    backoff: Duration,
}

/// A connection that is made when it is needed, and made anew when it fails.
pub(super) struct Link {
    dial: Dial,
    current: Mutex<Current>,
    dialing: tokio::sync::Mutex<Dialing>,
}

impl Link {
    /// Checks the target's URLs; does not connect yet.
    pub(super) fn new(target: &RedisTarget) -> Result<Self, Error> {
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(
                TcpKeepalive::new()
                    .with_time(Duration::from_secs(10))
                    .with_interval(Duration::from_secs(3))
                    .with_retries(3),
            )
            .set_user_timeout(Duration::from_secs(10));
        // The parser's own text may quote the URL, and a URL may hold a password.
        let invalid = |_| Error::Unusable("the store's Redis URL is not valid".to_owned());
        let dial = match target {
            RedisTarget::Single(url) => {
                let info = url.expose().into_connection_info().map_err(invalid)?.set_tcp_settings(tcp);
                Dial::Single(Box::new(Client::open(info).map_err(invalid)?))
            }
            RedisTarget::Cluster(urls) => {
                let nodes = urls
                    .iter()
                    .map(|url| url.expose().into_connection_info())
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(invalid)?;
                let client = ClusterClientBuilder::new(nodes)
                    .connection_timeout(CONNECT_TIME_MAX)
                    .response_timeout(CALL_TIME_MAX)
                    .tcp_settings(tcp)
                    .build()
                    .map_err(invalid)?;
                Dial::Cluster(Box::new(client))
            }
        };
        Ok(Self { dial, current: Mutex::default(), dialing: tokio::sync::Mutex::default() })
    }

    /// Whether the other side is a Cluster, where a call that blocks would hold up others.
    pub(super) fn is_cluster(&self) -> bool {
        match self.dial {
            Dial::Single(_) => false,
            Dial::Cluster(_) => true,
        }
    }

    /// Sends a command, and waits for its answer at most `limit`.
    pub(super) async fn call(&self, command: &Cmd, limit: Duration) -> Result<Value, Fault> {
        let (mut connection, generation) = self.connection().await?;
        let answer = match &mut connection {
            Connection::Single(connection) => tokio::time::timeout(limit, connection.req_packed_command(command)).await,
            Connection::Cluster(connection) => {
                tokio::time::timeout(limit, connection.req_packed_command(command)).await
            }
        };
        let error = match answer {
            Ok(Ok(value)) => match server_error(&value) {
                None => {
                    self.answered(generation);
                    return Ok(value);
                }
                Some(error) => error,
            },
            Ok(Err(error)) => error,
            Err(_elapsed) => {
                self.was_silent(generation);
                return Err(Fault::Away(format!("no answer within {limit:?}")));
            }
        };
        if error.is_timeout() {
            self.was_silent(generation);
        } else if Fault::wants_new_connection(&error) {
            self.give_up(generation);
        } else {
            self.answered(generation);
        }
        Err(Fault::of(&error))
    }

    /// Runs a script. `keys_and_arguments` adds the number of keys, the keys, and the arguments.
    ///
    /// A server that was restarted or failed over does not know the script; then its text is sent.
    pub(super) async fn run(&self, script: &Script, keys_and_arguments: impl Fn(&mut Cmd)) -> Result<Value, Fault> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.digest());
        keys_and_arguments(&mut command);
        match self.call(&command, CALL_TIME_MAX).await {
            Err(Fault::NoScript) => {
                let mut command = redis::cmd("EVAL");
                command.arg(script.text());
                keys_and_arguments(&mut command);
                self.call(&command, CALL_TIME_MAX).await
            }
            other => other,
        }
    }

    /// Drops the connection; the next call makes a new one.
    pub(super) fn disconnect(&self) {
        let mut current = self.lock();
        current.connection = None;
        current.generation += 1;
    }

    async fn connection(&self) -> Result<(Connection, u64), Fault> {
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        let mut dialing = self.dialing.lock().await;
        // Another caller may have connected, or failed to, while this one waited.
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        if let Some((at, detail)) = &dialing.failure
            && at.elapsed() < dialing.backoff
        {
            return Err(Fault::Away(detail.clone()));
        }
        let connected = match tokio::time::timeout(CONNECT_TIME_MAX, self.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(Fault::of(&error)),
            Err(_elapsed) => Err(Fault::Away(format!("no connection within {CONNECT_TIME_MAX:?}"))),
        };
        match connected {
            Ok(connection) => {
                *dialing = Dialing::default();
                let mut current = self.lock();
                current.connection = Some(connection.clone());
                current.generation += 1;
                current.silent_calls = 0;
                Ok((connection, current.generation))
            }
            Err(fault) => {
                dialing.backoff = (dialing.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
                dialing.failure = Some((Instant::now(), format!("no connection to Redis: {fault:?}")));
                Err(fault)
            }
        }
    }

    async fn connect(&self) -> redis::RedisResult<Connection> {
        match &self.dial {
            Dial::Single(client) => {
                // Deadlines are this file's: the crate's default of 500 ms would cut a blocking read off.
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(CONNECT_TIME_MAX))
                    .set_response_timeout(None);
                client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::Single)
            }
            Dial::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
        }
    }

    fn ready(&self) -> Option<(Connection, u64)> {
        let current = self.lock();
        current.connection.clone().map(|connection| (connection, current.generation))
    }

    fn answered(&self, generation: u64) {
        let mut current = self.lock();
        if current.generation == generation {
            current.silent_calls = 0;
        }
    }

    fn was_silent(&self, generation: u64) {
        let mut current = self.lock();
        if current.generation == generation {
            current.silent_calls += 1;
            if current.silent_calls >= SILENT_CALLS_MAX {
                current.connection = None;
            }
        }
    }

    fn give_up(&self, generation: u64) {
        let mut current = self.lock();
        if current.generation == generation {
            current.connection = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
