//! Receivers on loopback: what they do with a connection is up to each test. They stop when they are dropped.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A listener on loopback.
pub struct Receiver {
    address: SocketAddr,
    log: Log,
    task: JoinHandle<()>,
}

/// What a receiver has seen. Cloning shares it.
#[derive(Clone, Default)]
pub struct Log {
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Received>>>,
    sent_bytes: Arc<AtomicUsize>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub line: String,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

impl Receiver {
    /// Gives each connection, with its number from 1, to `serve`.
    pub async fn start<Served>(serve: impl Fn(TcpStream, usize, Log) -> Served + Send + 'static) -> Self
    where
        Served: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let shared = log.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                connections.spawn(serve(socket, number, shared.clone()));
            }
        });
        Self { address, log, task }
    }

    /// Answers every request, on connections that stay open, with these bytes.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<Vec<u8>> = Arc::new(answer.into());
        Self::start(move |mut socket, _, log| {
            let answer = Arc::clone(&answer);
            async move {
                while log.read_request(&mut socket).await {
                    if socket.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Reads one request, sends `head`, and then `more` again and again until the connection breaks.
    pub async fn endless(head: &'static [u8], more: &'static [u8]) -> Self {
        Self::start(move |mut socket, _, log| async move {
            log.read_request(&mut socket).await;
            log.write(&mut socket, head).await;
            while log.write(&mut socket, more).await {}
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?token=hidden", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    pub fn sent_bytes(&self) -> usize {
        self.log.sent_bytes.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<Received> {
        self.log.requests.lock().unwrap().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Log {
    /// Reads a request with `content-length`; false at the connection's end.
    pub async fn read_request(&self, socket: &mut (impl AsyncRead + Unpin)) -> bool {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            match socket.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let mut headers = http::HeaderMap::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
        let mut body = bytes.split_off(head_end);
        while body.len() < length {
            if !matches!(socket.read_buf(&mut body).await, Ok(1..)) {
                return false;
            }
        }
        assert_eq!(body.len(), length, "one request at a time");
        self.requests.lock().unwrap().push(Received { line, headers, body });
        true
    }

    /// Sends and counts; false when the connection is broken.
    pub async fn write(&self, socket: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> bool {
        let sent = socket.write_all(bytes).await.is_ok();
        self.sent_bytes.fetch_add(bytes.len(), Ordering::SeqCst);
        sent
    }
}

/// Closes with a reset instead of an end.
pub fn reset(socket: TcpStream) {
    socket.set_zero_linger().unwrap();
    drop(socket);
}
