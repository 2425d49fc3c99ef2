//! A receiver that answers 200 and then drips, never ends, or takes its time; it counts how many it serves at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};

/// How long `/slow` takes.
const SLOW: Duration = Duration::from_millis(50);

/// A running receiver. It ends with its runtime.
pub struct Hostile {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    now: AtomicUsize,
    most: AtomicUsize,
    answered: AtomicUsize,
}

impl Hostile {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counts = Arc::clone(&shared);
                // Connections break off: that is what they are for.
                tokio::spawn(async move { drop(serve(stream, &counts).await) });
            }
        });
        Self { address, counts }
    }

    /// `/drip`, `/endless` or `/slow`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many requests `/slow` had at one time at most.
    pub fn most_at_one_time(&self) -> usize {
        self.counts.most.load(Ordering::SeqCst)
    }

    /// How many requests `/slow` has answered.
    pub fn answered(&self) -> usize {
        self.counts.answered.load(Ordering::SeqCst)
    }
}

async fn serve(stream: TcpStream, counts: &Counts) -> std::io::Result<()> {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut stream = BufStream::new(stream);
    while let Some(path) = read(&mut stream).await? {
        match path.as_str() {
            "/slow" => {
                let now = counts.now.fetch_add(1, Ordering::SeqCst) + 1;
                counts.most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(SLOW).await;
                counts.now.fetch_sub(1, Ordering::SeqCst);
                counts.answered.fetch_add(1, Ordering::SeqCst);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
            }
            "/drip" => {
                stream.write_all(HEAD).await?;
                loop {
                    stream.write_all(b"1\r\nx\r\n").await?;
                    stream.flush().await?;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
            _ => {
                stream.write_all(HEAD).await?;
                let piece = [&b"10000\r\n"[..], &[b'x'; 65_536], b"\r\n"].concat();
                loop {
                    stream.write_all(&piece).await?;
                }
            }
        }
        stream.flush().await?;
    }
    Ok(())
}

/// Reads a request, and gives its path; `None` at the end of the connection.
async fn read(stream: &mut BufStream<TcpStream>) -> std::io::Result<Option<String>> {
    let (mut line, mut length) = (String::new(), 0);
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while !line.trim_end().is_empty() {
        line.clear();
        stream.read_line(&mut line).await?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    stream.read_exact(&mut vec![0; length]).await?;
    Ok(Some(path))
}
