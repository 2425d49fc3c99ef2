//! One connection to Redis, alone or a Cluster: a deadline on every call, and a new connection when the old one is of no more use.
//!
//! The redis crate's own reconnecting connection stays on a black-holed socket and on a demoted master; this one doesn't.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{Cmd, RedisResult, Value};
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::fault::{Fault, server_error};
use super::scripts::Script;
use super::target::{CONNECT_TIME_MAX, Connection, Dialer};

/// How long an ordinary call may take.
pub(super) const CALL_TIME_MAX: Duration = Duration::from_secs(2);
/// After this many calls in a row without an answer the connection is given up.
const SILENT_CALLS_MAX: u32 = 2;
/// What a call of a script has room for, before it has to make more.
const ARGUMENTS_AT_FIRST: usize = 64;
const BYTES_AT_FIRST: usize = 1024;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long after a new connection what was claimed before it may still be under way.
const DOUBT_TIME: Duration = Duration::from_secs(300);

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// Which server was meant when it was made.
    epoch: u64,
    /// Counts connections, so that a late failure of an old one does not end the new one.
    generation: u64,
    /// When it took another one's place.
    replaced: Option<Instant>,
    silent_calls: u32,
}

#[derive(Default)]
struct Dialing {
    failure: Option<(Instant, String)>,
    backoff: Duration,
}

/// A connection that is made when it is needed, and made anew when it fails or another server is meant.
pub(super) struct Link {
    dialer: Arc<Dialer>,
    current: Mutex<Current>,
    dialing: tokio::sync::Mutex<Dialing>,
}

impl Link {
    /// Does not connect yet.
    pub(super) fn new(dialer: &Arc<Dialer>) -> Self {
        Self { dialer: Arc::clone(dialer), current: Mutex::default(), dialing: tokio::sync::Mutex::default() }
    }

    /// Whether the other side is a Cluster, where a call that blocks would hold up others.
    pub(super) fn is_cluster(&self) -> bool {
        self.dialer.is_cluster()
    }

    /// Sends a command, and waits for its answer at most `limit`.
    pub(super) async fn call(&self, command: &Cmd, limit: Duration) -> Result<Value, Fault> {
        let connection = self.connection().await?;
        self.call_over(connection, command, limit).await
    }

    async fn call_over(
        &self,
        (mut connection, generation): (Connection, u64),
        command: &Cmd,
        limit: Duration,
    ) -> Result<Value, Fault> {
        let answer = tokio::time::timeout(limit, connection.send(command)).await;
        self.heard(generation, limit, answer.map(|answer| answer.and_then(refuse)))
    }

    /// Sends commands together over one connection, to the server that has the keys of the first; an error of one is an error of all.
    pub(super) async fn call_all(&self, commands: Vec<Cmd>, limit: Duration) -> Result<Vec<Value>, Fault> {
        let (mut connection, generation) = self.connection().await?;
        let answers = tokio::time::timeout(limit, connection.send_all(commands)).await;
        let answers = answers.map(|answers| answers.and_then(|all| all.into_iter().map(refuse).collect()));
        self.heard(generation, limit, answers)
    }

    /// Notes whether a call was answered, and sorts its failure.
    fn heard<T>(&self, generation: u64, limit: Duration, answer: Result<RedisResult<T>, Elapsed>) -> Result<T, Fault> {
        let error = match answer {
            Ok(Ok(answer)) => {
                self.answered(generation);
                return Ok(answer);
            }
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
    /// They are asked for when there is a connection, so that they may depend on [`Link::may_have_gone_back`]. A server that
    /// was restarted or failed over does not know the script; then its text is sent.
    pub(super) async fn run(&self, script: &Script, keys_and_arguments: impl Fn(&mut Cmd)) -> Result<Value, Fault> {
        self.run_large(script, 0, keys_and_arguments).await
    }

    /// The same, for arguments of about `bytes`, which are to be copied once.
    pub(super) async fn run_large(
        &self,
        script: &Script,
        bytes: usize,
        keys_and_arguments: impl Fn(&mut Cmd),
    ) -> Result<Value, Fault> {
        let connection = self.connection().await?;
        let mut command = Cmd::with_capacity(ARGUMENTS_AT_FIRST, bytes + BYTES_AT_FIRST);
        command.arg("EVALSHA").arg(script.digest());
        keys_and_arguments(&mut command);
        match self.call_over(connection, &command, CALL_TIME_MAX).await {
            Err(Fault::NoScript) => {
                let connection = self.connection().await?;
                let mut command = redis::cmd("EVAL");
                command.arg(script.text());
                keys_and_arguments(&mut command);
                self.call_over(connection, &command, CALL_TIME_MAX).await
            }
            other => other,
        }
    }

    /// Which connection it is; another number may mean another server.
    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Whether the server may not know of what was claimed a while ago: it is another one since, or was started again, and
    /// may have lost its last moments. The connections to a Cluster's nodes are not known here, so of those nobody knows.
    pub(super) fn may_have_gone_back(&self) -> bool {
        let is_new = |replaced: Instant| replaced.elapsed() < DOUBT_TIME;
        self.is_cluster() || self.lock().replaced.is_some_and(is_new)
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
        let epoch = self.dialer.epoch();
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, self.dialer.connect()).await;
        let connected =
            connected.unwrap_or_else(|_elapsed| Err(Fault::Away(format!("no connection within {CONNECT_TIME_MAX:?}"))));
        match connected {
            Ok(connection) => {
                *dialing = Dialing::default();
                let mut current = self.lock();
                current.connection = Some(connection.clone());
                current.epoch = epoch;
                current.replaced = (current.generation > 0).then(Instant::now);
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

    fn ready(&self) -> Option<(Connection, u64)> {
        let current = self.lock();
        if current.epoch != self.dialer.epoch() {
            return None;
        }
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

/// An error inside an answer, made one.
fn refuse(answer: Value) -> RedisResult<Value> {
    match server_error(&answer) {
        Some(error) => Err(error),
        None => Ok(answer),
    }
}
