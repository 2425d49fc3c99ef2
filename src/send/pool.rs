//! The connections to one place that have no request under way, and new ones where there are none.
//!
//! What was used last is used first, so that connections which are not needed grow old. Whoever takes a connection
//! gives it back when the answer has been read to its end; one that is not given back is closed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::Uri;
use tokio::time::{Instant, sleep_until};

use super::connect::{self, Connector};
use super::connection::Connection;

/// An idle connection is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Idle connections of one pool.
const IDLE_CONNECTIONS_MAX: usize = 128;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The connection broke, or what came over it is no answer.
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// The connections to one place.
pub(super) struct Pool {
    connector: Connector,
    /// A connection older than this gets no further request.
    age_max: Duration,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The one that was used last is the last.
    waiting: Vec<Waiting>,
    /// A task will close them when their time is over.
    is_watched: bool,
    /// Nothing may wait here any more.
    is_given_up: bool,
}

/// A connection without a request. One that can be shared stands here while it has some, too.
struct Waiting {
    connection: Connection,
    /// When it was last given back, or shared.
    since: Instant,
}

impl Waiting {
    fn is_over(&self, now: Instant) -> bool {
        self.connection.is_closed() || now.duration_since(self.since) >= IDLE_MAX
    }
}

impl Pool {
    /// A pool without connections.
    pub(super) fn new(connector: Connector, age_max: Duration) -> Self {
        Self { connector, age_max, idle: Mutex::default() }
    }

    /// A connection that is here and can take a request now.
    pub(super) fn take(&self) -> Option<Connection> {
        let now = Instant::now();
        let waiting = &mut self.lock().waiting;
        for index in (0..waiting.len()).rev() {
            let found = &mut waiting[index];
            if found.is_over(now) || self.is_too_old(&found.connection, now) {
                waiting.remove(index);
            } else if let Some(shared) = found.connection.share() {
                found.since = now;
                return Some(shared);
            } else if found.connection.is_ready() {
                return Some(waiting.remove(index).connection);
            }
        }
        None
    }

    /// A new connection, within `bound`.
    pub(super) async fn connect(self: &Arc<Self>, uri: &Uri, bound: Duration) -> Result<Connection, Error> {
        let connection = Connection::over(self.connector.connect(uri, bound).await?).await?;
        if let Some(shared) = connection.share() {
            self.keep(shared, Instant::now());
        }
        Ok(connection)
    }

    /// Takes back a connection whose answer has been read to its end.
    ///
    /// It may need another moment until it is ready, which [`Self::take`] looks at.
    pub(super) fn give_back(self: &Arc<Self>, connection: Connection) {
        let now = Instant::now();
        // What is shared is here already.
        if !connection.is_shared() && !connection.is_closed() && !self.is_too_old(&connection, now) {
            self.keep(connection, now);
        }
    }

    /// Closes what is idle, and what is in use once it is given back.
    pub(super) fn give_up(&self) {
        let mut idle = self.lock();
        idle.is_given_up = true;
        idle.waiting.clear();
    }

    fn keep(self: &Arc<Self>, connection: Connection, since: Instant) {
        let mut idle = self.lock();
        if connection.is_shared() {
            // One is enough for all. What goes over the others ends well.
            idle.waiting.clear();
        }
        if idle.is_given_up || idle.waiting.len() >= IDLE_CONNECTIONS_MAX {
            return;
        }
        idle.waiting.push(Waiting { connection, since });
        if !std::mem::replace(&mut idle.is_watched, true) {
            tokio::spawn(watch(Arc::downgrade(self), since + IDLE_MAX));
        }
    }

    /// Closes what has been idle for too long, and says when there will be more of it. Without that nobody needs to watch.
    fn close_idle(&self, now: Instant) -> Option<Instant> {
        let mut idle = self.lock();
        idle.waiting.retain(|waiting| !waiting.is_over(now));
        let oldest = idle.waiting.iter().map(|waiting| waiting.since).min();
        idle.is_watched = oldest.is_some();
        oldest.map(|since| since + IDLE_MAX)
    }

    fn is_too_old(&self, connection: &Connection, now: Instant) -> bool {
        now.duration_since(connection.connected_at()) > self.age_max
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes idle connections, from `next` on, until there are none.
async fn watch(pool: Weak<Pool>, mut next: Instant) {
    loop {
        sleep_until(next).await;
        let Some(until) = pool.upgrade().and_then(|pool| pool.close_idle(Instant::now())) else { return };
        next = until;
    }
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::yield_now;
    use tokio::time::{advance, pause};

    use super::*;
    use crate::endpoint::Endpoint;
    use crate::send::resolve::SystemResolver;
    use crate::send::tests::endpoint;
    use crate::send::ways::Ways;

    const AGE_MAX: Duration = Duration::from_secs(90);

    /// A pool, and where its connections lead.
    struct Place {
        pool: Arc<Pool>,
        endpoint: Endpoint,
        listener: TcpListener,
    }

    impl Place {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = endpoint(&format!("http://{}", listener.local_addr().unwrap()));
            let allowed = ["127.0.0.0/8".parse().unwrap()].into();
            let resolver = Arc::new(SystemResolver::default());
            let ways = Ways::new(allowed, resolver, usize::MAX, RootCertStore::empty(), AGE_MAX).unwrap();
            Self { pool: ways.pool(&endpoint).unwrap(), endpoint, listener }
        }

        /// A connection, and its other side.
        async fn connect(&self) -> (Connection, TcpStream) {
            let connecting = self.pool.connect(self.endpoint.url.uri(), Duration::from_secs(10));
            let (connection, accepted) = tokio::join!(connecting, self.listener.accept());
            (connection.unwrap(), accepted.unwrap().0)
        }

        /// The same, once it can take requests.
        async fn connect_ready(&self) -> (Connection, TcpStream) {
            let (connection, peer) = self.connect().await;
            while !connection.is_ready() {
                yield_now().await;
            }
            (connection, peer)
        }

        /// When the connection was made that comes next.
        fn take(&self) -> Option<Instant> {
            self.pool.take().map(|connection| connection.connected_at())
        }

        fn idle(&self) -> usize {
            self.pool.lock().waiting.len()
        }
    }

    /// Waits until the other side has hung up.
    async fn closed(mut peer: TcpStream) {
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_was_used_last_is_used_first() {
        let place = Place::new().await;
        let ((first, _one), (second, _two)) = (place.connect_ready().await, place.connect_ready().await);
        let made = [second.connected_at(), first.connected_at()];
        place.pool.give_back(first);
        place.pool.give_back(second);
        assert_eq!([place.take(), place.take(), place.take()], [Some(made[0]), Some(made[1]), None]);
    }

    #[tokio::test]
    async fn a_connection_that_has_ended_is_passed_over_and_forgotten() {
        let place = Place::new().await;
        let ((first, _one), (second, two)) = (place.connect_ready().await, place.connect_ready().await);
        let made = first.connected_at();
        place.pool.give_back(first);
        place.pool.give_back(second);
        drop(two);
        while !place.pool.lock().waiting[1].connection.is_closed() {
            yield_now().await;
        }
        assert_eq!(place.take(), Some(made));
        assert_eq!(place.idle(), 0);
    }

    #[tokio::test]
    async fn a_connection_that_is_not_ready_yet_is_passed_over_and_stays() {
        let place = Place::new().await;
        let ((ready, _one), (other, _two)) = (place.connect_ready().await, place.connect().await);
        let made = [ready.connected_at(), other.connected_at()];
        assert!(!other.is_ready(), "its task has not run");
        place.pool.give_back(ready);
        place.pool.give_back(other);
        assert_eq!([place.take(), place.take()], [Some(made[0]), None]);
        while !place.pool.lock().waiting[0].connection.is_ready() {
            yield_now().await;
        }
        assert_eq!(place.take(), Some(made[1]));
    }

    #[tokio::test]
    async fn a_connection_past_its_age_is_neither_taken_nor_kept() {
        let place = Place::new().await;
        let ((in_use, one), (idle, two)) = (place.connect_ready().await, place.connect_ready().await);
        pause();
        advance(AGE_MAX - IDLE_MAX / 2).await;
        place.pool.give_back(idle);
        advance(IDLE_MAX / 2 + Duration::from_millis(1)).await;
        place.pool.give_back(in_use);
        assert_eq!(place.idle(), 1);
        assert_eq!(place.take(), None);
        assert_eq!(place.idle(), 0);
        closed(one).await;
        closed(two).await;
    }

    #[tokio::test]
    async fn idle_connections_are_closed_when_their_time_is_over_without_a_request() {
        let place = Place::new().await;
        let ((first, one), (second, two)) = (place.connect_ready().await, place.connect_ready().await);
        pause();
        let started = Instant::now();
        place.pool.give_back(first);
        advance(IDLE_MAX / 4).await;
        place.pool.give_back(second);
        // The clock goes on by itself while nothing else does.
        closed(one).await;
        let at_first = started.elapsed();
        closed(two).await;
        for (elapsed, expected) in [(at_first, IDLE_MAX), (started.elapsed(), IDLE_MAX * 5 / 4)] {
            assert!((expected..expected + Duration::from_millis(10)).contains(&elapsed), "{elapsed:?}");
        }
        assert!(place.pool.lock().waiting.is_empty() && !place.pool.lock().is_watched);
    }

    #[tokio::test]
    async fn there_is_a_bound_on_idle_connections() {
        let place = Place::new().await;
        let mut peers = Vec::new();
        for _ in 0..IDLE_CONNECTIONS_MAX {
            let (connection, peer) = place.connect().await;
            place.pool.give_back(connection);
            peers.push(peer);
        }
        let (connection, peer) = place.connect().await;
        place.pool.give_back(connection);
        assert_eq!(place.idle(), IDLE_CONNECTIONS_MAX);
        closed(peer).await;
    }

    #[tokio::test]
    async fn a_pool_that_was_given_up_closes_what_is_idle_and_keeps_nothing() {
        let place = Place::new().await;
        let ((idle, one), (in_use, two)) = (place.connect_ready().await, place.connect_ready().await);
        place.pool.give_back(idle);
        place.pool.give_up();
        closed(one).await;
        assert!(in_use.is_ready(), "a request under way goes on");
        place.pool.give_back(in_use);
        closed(two).await;
        assert_eq!(place.idle(), 0);
    }
}
