//! Connections of producers: a bounded number, from an address and in all, each closed when it does not come to
//! a request in time. HTTP/1.1, or HTTP/2 where a TLS handshake chose it: nothing has to guess what a connection
//! speaks before a timer runs.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::refusal::Refusal;
use super::socket::Socket;
use super::{Error, Intake};
use crate::addresses::Addresses;
use crate::config::Ingest;
use crate::http2::{self, Unfit};
use crate::tls::{Identity, Shaken};

/// Header lines of a request.
pub(super) const HEADERS_MAX: usize = 64;
/// Bytes of a request's head, with its first line.
pub(super) const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Connections that the system holds for us before they are accepted.
const WAITING_CONNECTIONS_MAX: u32 = 1024;
/// How long no connection is accepted after the system could not give one, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What a connection over a limit is told, if it still listens.
const OVER_LIMIT: &str = "HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 186\r\n\r\n\
    {\"type\":\"/problems/too-many-connections\",\"title\":\"Too many connections\",\"status\":503,\
    \"detail\":\"the router has as many connections as it may; nothing was stored; it is safe to try again\"}";

/// The ingest listener.
pub struct Listener {
    listener: TcpListener,
    local_address: SocketAddr,
    settings: Ingest,
    tls: Option<Arc<Identity>>,
}

impl Listener {
    /// Listens, with TLS where there is an identity; connections wait until [`Self::serve`]. Call it within a tokio runtime.
    pub fn bind(settings: &Ingest, tls: Option<Arc<Identity>>) -> Result<Self, Error> {
        let address = settings.listen;
        let listen = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A restart must not wait for connections of the last run to be forgotten.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener = socket.listen(WAITING_CONNECTIONS_MAX)?;
            Ok((listener.local_addr()?, listener))
        };
        let (local_address, listener) = listen().map_err(|reason: io::Error| Error::Bind { address, reason })?;
        Ok(Self { listener, local_address, settings: settings.clone(), tls })
    }

    /// Where it listens, with the port that the system chose when the config said 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_address
    }

    /// Serves until `shutdown` is true (or its sender is gone); then accepts nothing more, answers the requests
    /// that are under way, and returns when all connections have ended, after `grace` at the latest.
    pub async fn serve(self, intake: Arc<Intake>, mut shutdown: watch::Receiver<bool>, grace: Duration) {
        let Self { listener, settings, tls, .. } = self;
        let addresses = Addresses::new(settings.connections_max, settings.connections_per_address_max);
        let http = protocol(&settings);
        let mut connections = JoinSet::new();
        let mut back_off = BACK_OFF.0;
        loop {
            let accepted = tokio::select! {
                biased;
                () = told_to_stop(&mut shutdown) => break,
                Some(ended) = connections.join_next() => {
                    if ended.is_err_and(|error| error.is_panic()) {
                        tracing::error!("a connection's task panicked; this is a bug");
                    }
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_peers_fault(&error) => continue,
                Err(error) => {
                    // Out of file descriptors or memory: asking again at once would only burn the processor.
                    tracing::warn!(%error, "can't accept connections for a moment");
                    tokio::select! {
                        () = told_to_stop(&mut shutdown) => break,
                        () = sleep(back_off) => {}
                    }
                    back_off = (back_off * 2).min(BACK_OFF.1);
                    continue;
                }
            };
            back_off = BACK_OFF.0;
            let Some(place) = addresses.enter(peer.ip()) else {
                intake.count_unreadable(StatusCode::SERVICE_UNAVAILABLE);
                // In clear text it would say nothing to one that waits for a handshake.
                if tls.is_none() {
                    tell_over_limit(stream);
                }
                continue;
            };
            let connection = Connection {
                intake: Arc::clone(&intake),
                http: http.clone(),
                head_timeout: settings.head_timeout,
                write_timeout: settings.body_timeout,
                peer: peer.ip(),
                addresses: Arc::clone(&addresses),
                names: Arc::default(),
                shutdown: shutdown.clone(),
            };
            let tls = tls.clone();
            connections.spawn(async move {
                // Answers are small and whole: waiting to fill a segment only delays them. Without it they are slower.
                let _ = stream.set_nodelay(true);
                match tls {
                    None => connection.serve(stream).await,
                    Some(identity) => connection.serve_tls(&identity, stream).await,
                }
                drop(place);
            });
        }
        drop(listener);
        let end = Instant::now() + grace;
        while let Ok(Some(_)) = timeout_at(end, connections.join_next()).await {}
        if !connections.is_empty() {
            tracing::warn!(connections = connections.len(), "closed connections that did not end in time");
        }
        connections.shutdown().await;
    }
}

/// Ends when the router is to stop; a sender that is gone can't say so any more, and counts as if it had.
async fn told_to_stop(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

fn protocol(settings: &Ingest) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        // From the connection's begin, or the last answer, to the end of a head: idle connections end by it too.
        .header_read_timeout(settings.head_timeout)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        // A producer may send its request, say that it is done, and wait for the answer.
        .half_close(true);
    http
}

/// Whether accepting failed because the peer was gone again.
fn is_peers_fault(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}

/// Tells it in one write, without waiting: the peer is one too many already.
fn tell_over_limit(stream: TcpStream) {
    // A write that fails changes nothing: the connection is closed either way.
    let _ = stream.into_std().and_then(|mut stream| stream.write(OVER_LIMIT.as_bytes()));
}

/// What one connection's task has.
struct Connection {
    intake: Arc<Intake>,
    http: http1::Builder,
    head_timeout: Duration,
    write_timeout: Duration,
    peer: IpAddr,
    addresses: Arc<Addresses>,
    /// Of the client's certificate.
    names: Arc<[String]>,
    shutdown: watch::Receiver<bool>,
}

impl Connection {
    async fn serve_tls(mut self, identity: &Identity, stream: TcpStream) {
        let shaken = tokio::select! {
            biased;
            () = told_to_stop(&mut self.shutdown) => return,
            shaken = identity.handshake(stream, self.head_timeout) => shaken,
        };
        match shaken {
            // Boxed: with its buffers it is several times what a plain connection's task holds.
            Ok(Shaken { stream, is_http2, names }) => {
                self.names = names;
                if is_http2 {
                    Box::pin(self.serve_http2(stream)).await;
                } else {
                    Box::pin(self.serve(stream)).await;
                }
            }
            Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut self, stream: S) {
        let _counted = Counted::new(&self.intake);
        let socket = Socket::new(stream, self.write_timeout);
        let first_fault = socket.first_fault();
        let heads = AtomicU64::new(0);
        let (intake, names) = (&self.intake, &self.names);
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let hidden = first_fault.of(heads.fetch_add(1, Ordering::Relaxed));
            async move { Ok::<_, Infallible>(intake.answer(request, hidden, names).await) }
        });
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(socket), service));
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = told_to_stop(&mut self.shutdown) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended.as_ref()
            && error.is_parse()
            && !error.is_parse_version_h2()
        {
            let too_large = error.is_parse_too_large();
            let status = if too_large { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE } else { StatusCode::BAD_REQUEST };
            self.intake.count_unreadable(status);
        }
    }

    async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin>(mut self, stream: S) {
        let _counted = Counted::new(&self.intake);
        let limits = http2::Limits {
            headers_max: HEADERS_MAX,
            head_bytes_max: HEAD_BYTES_MAX,
            idle: self.head_timeout,
            write_timeout: self.write_timeout,
        };
        let (intake, names) = (self.intake, self.names);
        let answer = move |request, unfit| {
            let (intake, names) = (Arc::clone(&intake), Arc::clone(&names));
            async move {
                match unfit {
                    None => intake.answer(request, None, &names).await,
                    Some(Unfit::NoPlace) => intake.turn_away(Refusal::NoPlace),
                    Some(Unfit::HeadTooLarge) => {
                        intake.turn_away(Refusal::Unreadable(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
                    }
                }
            }
        };
        let stop = told_to_stop(&mut self.shutdown);
        http2::serve(stream, limits, self.addresses, self.peer, answer, stop).await;
    }
}

/// Counts an open connection as long as it lives.
struct Counted(Arc<Intake>);

impl Counted {
    fn new(intake: &Arc<Intake>) -> Self {
        intake.metrics().ingest_connections().inc();
        Self(Arc::clone(intake))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics().ingest_connections().dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_over_the_limit_is_a_whole_answer() {
        let (head, body) = OVER_LIMIT.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(super::super::json::check(body).is_ok());
    }
}
