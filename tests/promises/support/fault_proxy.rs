//! A TCP proxy on loopback that does what networks do: delay, silence in one or both directions, broken and reset
//! connections, answers that are cut short or lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// At once.
    Fair,
    /// Each piece after this long.
    Slow(Duration),
    /// Requests arrive, answers wait until it is fair again; connections stay.
    NoAnswers,
    /// Answers arrive, requests wait.
    NoRequests,
    /// Nothing arrives: a partition.
    Silent,
}

/// Forwards to one address until it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    weather: watch::Sender<Weather>,
    /// Counts the times that all connections were broken, and says whether the last time was by a reset.
    broken: watch::Sender<(u64, bool)>,
    lose: AtomicUsize,
    truncate: AtomicUsize,
    /// Pieces that were held back, lost or cut, and connections that were broken or made to wait.
    hindered: AtomicUsize,
}

impl Shared {
    fn hinders(&self) {
        self.hindered.fetch_add(1, Ordering::SeqCst);
    }
}

impl FaultProxy {
    /// Forwards to `port` on loopback.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            weather: watch::channel(Weather::Fair).0,
            broken: watch::channel((0, false)).0,
            lose: AtomicUsize::new(0),
            truncate: AtomicUsize::new(0),
            hindered: AtomicUsize::new(0),
        });
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(forward(client, port, Arc::clone(&shared)));
                }
            }
        });
        Self { address, shared, task }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes the weather, on the connections that there are, too.
    pub fn set(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// Closes every connection, or resets it.
    pub fn break_all(&self, by_reset: bool) {
        self.shared.broken.send_modify(|(count, reset)| (*count, *reset) = (*count + 1, by_reset));
    }

    /// Of the next `count` answers, on whatever connection, none arrives, and each one's connection breaks.
    pub fn lose_answers(&self, count: usize) {
        self.shared.lose.store(count, Ordering::SeqCst);
    }

    /// How many answers are still to be lost.
    pub fn to_lose(&self) -> usize {
        self.shared.lose.load(Ordering::SeqCst)
    }

    /// Of the next `count` answers half arrives, and each one's connection breaks.
    pub fn truncate_answers(&self, count: usize) {
        self.shared.truncate.store(count, Ordering::SeqCst);
    }

    /// How many answers are still to be cut.
    pub fn to_truncate(&self) -> usize {
        self.shared.truncate.load(Ordering::SeqCst)
    }

    /// How often something that was carried felt what was done here: a fault that met nothing shows nothing.
    pub fn hindered(&self) -> usize {
        self.shared.hindered.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
        // Connections don't outlive it.
        self.break_all(false);
    }
}

async fn forward(mut client: TcpStream, port: u16, shared: Arc<Shared>) {
    let (mut broken, mut weather) = (shared.broken.subscribe(), shared.weather.subscribe());
    let carried = async {
        // In a partition nobody is connected to.
        if *weather.borrow() == Weather::Silent {
            shared.hinders();
        }
        if weather.wait_for(|weather| *weather != Weather::Silent).await.is_err() {
            return;
        }
        let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        tokio::select! {
            () = carry(from_client, to_server, Direction::Request, &shared) => {}
            () = carry(from_server, to_client, Direction::Answer, &shared) => {}
        }
    };
    tokio::select! {
        () = carried => {}
        Ok(()) = broken.changed() => {
            shared.hinders();
            if broken.borrow().1 {
                // Dropped with no time to linger it is reset. The server sees an ordinary end, as when a client's host is gone.
                let _ = client.set_zero_linger();
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

impl Direction {
    fn is_let_through(self, weather: Weather) -> bool {
        match weather {
            Weather::Fair | Weather::Slow(_) => true,
            Weather::NoAnswers => self == Self::Request,
            Weather::NoRequests => self == Self::Answer,
            Weather::Silent => false,
        }
    }
}

/// Carries bytes one way until an end is gone, or an answer is to be lost.
async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    direction: Direction,
    shared: &Shared,
) {
    let mut weather = shared.weather.subscribe();
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let now = *weather.borrow();
        if let Weather::Slow(wait) = now {
            shared.hinders();
            tokio::time::sleep(wait).await;
        } else if !direction.is_let_through(now) {
            shared.hinders();
        }
        if weather.wait_for(|weather| direction.is_let_through(*weather)).await.is_err() {
            return;
        }
        let takes = |left: &AtomicUsize| {
            direction == Direction::Answer
                && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        };
        if takes(&shared.lose) {
            shared.hinders();
            return;
        }
        let is_cut = takes(&shared.truncate);
        if is_cut {
            shared.hinders();
        }
        let count = if is_cut { count / 2 } else { count };
        if to.write_all(&bytes[..count]).await.is_err() || is_cut {
            return;
        }
    }
}
