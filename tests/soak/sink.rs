//! The receivers: they remember every request, and answer well, badly or as no HTTP server would.
//!
//! Written on bare sockets, so that an answer can be anything. How a request is answered depends only on its path,
//! its `webhook-id` and its attempt, so that a run can be repeated from its seed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use branchline::clock::Clock;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};

use crate::ledger::{Answer, Receipt};
use crate::record::{Record, digest, locked};

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Ok,
    Status(u16),
    /// 429 with `Retry-After: 1`.
    TooMany,
    Hang,
    Reset,
    Garbage,
    HugeHeaders,
    /// 200, and then a body that never ends.
    EndlessBody,
    /// 200, and then a byte now and then.
    Trickle,
    /// 200 with more bytes announced than sent.
    CutBody,
    /// An endless number of `100 Continue`.
    EndlessContinue,
}

const BAD_MANNERS: [Manner; 13] = [
    Manner::Status(500),
    Manner::Status(302),
    Manner::Status(404),
    Manner::TooMany,
    Manner::Hang,
    Manner::Reset,
    Manner::Garbage,
    Manner::HugeHeaders,
    Manner::EndlessBody,
    Manner::Trickle,
    Manner::CutBody,
    Manner::EndlessContinue,
    Manner::Status(503),
];

/// Doomed deliveries fail at every attempt; flaky ones at the first one or two.
fn manner(path: &str, webhook_id: &str, attempt: u32) -> Manner {
    let chance = usize::try_from(digest(webhook_id.as_bytes()) >> 8 & 0xffff).expect("it is small");
    match path {
        "/doomed" => Manner::Status(500),
        "/flaky" if attempt <= 1 + u32::from(chance.is_multiple_of(4)) => {
            BAD_MANNERS[(chance + attempt as usize) % BAD_MANNERS.len()]
        }
        _ => Manner::Ok,
    }
}

impl Manner {
    fn answer(self) -> Answer {
        match self {
            Self::Ok => Answer::Success,
            Self::EndlessBody | Self::Trickle | Self::CutBody => Answer::Unclear,
            Self::Status(_)
            | Self::TooMany
            | Self::Hang
            | Self::Reset
            | Self::Garbage
            | Self::HugeHeaders
            | Self::EndlessContinue => Answer::Failure,
        }
    }
}

/// Starts the receivers on one port, and gives it. `slowness` is how many milliseconds `/audit` takes. They end with
/// their runtime.
pub async fn start(record: Arc<Record>, slowness: Arc<AtomicU64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (record, slowness) = (Arc::clone(&record), Arc::clone(&slowness));
            // A connection that breaks is the other side's affair.
            tokio::spawn(async move { drop(serve(stream, &record, &slowness).await) });
        }
    });
    port
}

struct Request {
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

async fn serve(stream: TcpStream, record: &Record, slowness: &AtomicU64) -> std::io::Result<()> {
    let clock = Clock::system();
    let mut stream = BufStream::new(stream);
    while let Some(request) = read(&mut stream).await? {
        let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
        let (webhook_id, attempt) = (header("webhook-id"), header("branchline-attempt").parse().unwrap_or(0));
        let manner = manner(&request.path, &webhook_id, attempt);
        // Before the answer, so that it is known whatever becomes of the answer.
        locked(&record.receipts).push(Receipt {
            pair: (header("branchline-event"), header("branchline-subscription")),
            webhook_id,
            attempt,
            body: digest(&request.body),
            answer: manner.answer(),
            at: record.now(),
            signed_ahead: header("webhook-timestamp").parse::<i64>().unwrap_or(0)
                - i64::try_from(clock.of_the_machine().as_secs()).expect("it is not that late"),
        });
        if request.path == "/audit" {
            tokio::time::sleep(Duration::from_millis(slowness.load(Ordering::Relaxed))).await;
        }
        if !answer(&mut stream, manner).await? {
            return Ok(());
        }
    }
    Ok(())
}

async fn read(stream: &mut BufStream<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    // A request that is cut off was not received.
    stream.read_exact(&mut body).await?;
    Ok(Some(Request { path, headers, body }))
}

/// Answers; false when the connection is of no more use.
async fn answer(stream: &mut BufStream<TcpStream>, manner: Manner) -> std::io::Result<bool> {
    const ENDLESS_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    match manner {
        Manner::Ok => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?,
        Manner::Status(status) => {
            let answer = format!("HTTP/1.1 {status} X\r\nlocation: /audit\r\ncontent-length: 3\r\n\r\nno.");
            stream.write_all(answer.as_bytes()).await?;
        }
        Manner::TooMany => {
            stream.write_all(b"HTTP/1.1 429 X\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n").await?;
        }
        Manner::Hang => drop(stream.read_u8().await),
        Manner::Reset => stream.get_ref().set_zero_linger()?,
        Manner::Garbage => stream.write_all(&[b"SSH-2.0-\r\n\0\xff".repeat(40)].concat()).await?,
        Manner::HugeHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            for _ in 0..20_000 {
                stream.write_all(b"x-padding: ................................................\r\n").await?;
            }
        }
        Manner::EndlessBody => {
            stream.write_all(ENDLESS_HEAD).await?;
            loop {
                stream.write_all(b"400\r\n").await?;
                stream.write_all(&[b'x'; 1024]).await?;
                stream.write_all(b"\r\n").await?;
            }
        }
        Manner::Trickle => {
            stream.write_all(ENDLESS_HEAD).await?;
            loop {
                stream.write_all(b"1\r\nx\r\n").await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Manner::CutBody => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nok").await?,
        Manner::EndlessContinue => loop {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            stream.flush().await?;
            tokio::task::yield_now().await;
        },
    }
    stream.flush().await?;
    Ok(matches!(manner, Manner::Ok | Manner::Status(_) | Manner::TooMany))
}
