//! Producers: keep-alive connections, each with one request at a time, in a closed loop or at a rate.
//!
//! Requests are bytes written to a socket, so that the load costs little beside what it measures.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::process::{BENCH_KEY, monotonic_nanos};
use crate::cli::Error;

/// Where and how to send.
pub struct Producers<'a> {
    /// Connections take turns at them.
    pub ports: &'a [u16],
    pub connections: usize,
    pub size: usize,
}

impl Producers<'_> {
    /// Sends events numbered from `first`; returns how long each waited for its answer.
    pub async fn send(&self, first: u64, events: u64) -> Result<Vec<Duration>, Error> {
        let mut connections = JoinSet::new();
        let count = self.connections as u64;
        for connection in 0..count {
            let numbers = (first + connection..first + events).step_by(self.connections);
            connections.spawn(send_on_one(self.port(connection), self.size, numbers.collect()));
        }
        let mut latencies = Vec::with_capacity(usize::try_from(events).unwrap_or(0));
        while let Some(done) = connections.join_next().await {
            let done = done.map_err(|error| Error::Failed(format!("a producer ended badly: {error}")))?;
            latencies.extend(done.map_err(|error| Error::Failed(format!("a producer failed: {error}")))?);
        }
        Ok(latencies)
    }

    /// Sends events at a rate, each when it is due or as soon as its connection is free after that; returns how long
    /// after it was due each was answered. Threads sleep more exactly than the runtime's timers, which count milliseconds.
    pub async fn send_at_rate(&self, first: u64, events: u64, per_second: f64) -> Result<Vec<Duration>, Error> {
        let Self { connections, size, .. } = *self;
        let ports: Vec<u16> = (0..connections as u64).map(|connection| self.port(connection)).collect();
        let sending = tokio::task::spawn_blocking(move || {
            let begin = Instant::now() + Duration::from_millis(50);
            let one = |connection: u64, port: u16| {
                let due = |number: u64| begin + Duration::from_secs_f64(number as f64 / per_second);
                let numbers = (connection..events).step_by(connections);
                send_when_due(port, size, numbers.map(|number| (first + number, due(number))))
            };
            thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..).zip(ports).map(|(connection, port)| scope.spawn(move || one(connection, port))).collect();
                let mut latencies = Vec::with_capacity(usize::try_from(events).unwrap_or(0));
                for thread in threads {
                    latencies.extend(thread.join().map_err(|_| std::io::Error::other("a thread panicked"))??);
                }
                Ok(latencies)
            })
        });
        let sent = sending.await.map_err(|error| Error::Failed(format!("the producers ended badly: {error}")))?;
        sent.map_err(|error: std::io::Error| Error::Failed(format!("a producer failed: {error}")))
    }

    fn port(&self, connection: u64) -> u16 {
        self.ports[connection as usize % self.ports.len()]
    }
}

fn send_when_due(
    port: u16,
    size: usize,
    events: impl Iterator<Item = (u64, Instant)>,
) -> std::io::Result<Vec<Duration>> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::new();
    let mut answer = Vec::with_capacity(1024);
    for (number, due) in events {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let late = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let request = request(port, size, number, Some(monotonic_nanos().saturating_sub(late)));
        stream.write_all(&request)?;
        answer.clear();
        loop {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes)?;
            answer.extend_from_slice(&bytes[..count]);
            if is_whole(&answer, count)? {
                break;
            }
        }
        latencies.push(due.elapsed());
    }
    Ok(latencies)
}

async fn send_on_one(port: u16, size: usize, numbers: Vec<u64>) -> std::io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::with_capacity(numbers.len());
    let mut answer = Vec::with_capacity(1024);
    for number in numbers {
        let request = request(port, size, number, None);
        let began = Instant::now();
        stream.write_all(&request).await?;
        read_answer(&mut stream, &mut answer).await?;
        latencies.push(began.elapsed());
    }
    Ok(latencies)
}

/// The source that takes the events.
pub const SOURCE: &str = "bench";

/// What stands before the time at which an event was due, in an event that tells it.
pub const DUE: &str = r#""dueNanos":"#;

/// An `order.created` event of `size` bytes.
pub fn envelope(size: usize, number: u64, due_nanos: Option<u64>) -> String {
    let due = due_nanos.map_or(String::new(), |nanos| format!("{DUE}{nanos},"));
    let start = format!(
        r#"{{"id":"evt_bench_{number:012}","eventType":"order.created","aggregateType":"Order","aggregateId":"order_{number}","occurredAt":"2025-01-15T10:30:00Z","payload":{{{due}"orderId":"order_{number}","amount":{amount},"currency":"KRW","customer":"user_{customer}","note":""#,
        amount = 1_000 + number % 90_000,
        customer = number % 5_000,
    );
    let end = r#""},"metadata":{}}"#;
    let padding = size.saturating_sub(start.len() + end.len());
    format!("{start}{}{end}", "a note of the customer; ".repeat(padding / 24 + 1).split_at(padding).0)
}

fn request(port: u16, size: usize, number: u64, due_nanos: Option<u64>) -> Vec<u8> {
    let body = envelope(size, number, due_nanos);
    format!(
        "POST /v1/events HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\nauthorization: Bearer {BENCH_KEY}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Reads one answer and fails on anything but a success.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> std::io::Result<()> {
    answer.clear();
    loop {
        let count = stream.read_buf(answer).await?;
        if is_whole(answer, count)? {
            return Ok(());
        }
    }
}

/// Whether the answer is whole, now that so many bytes have been added to it.
fn is_whole(answer: &[u8], added: usize) -> std::io::Result<bool> {
    if added == 0 {
        return Err(std::io::Error::other("the connection was closed"));
    }
    let Some(head_end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(false) };
    let head = String::from_utf8_lossy(&answer[..head_end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 2") {
        return Err(std::io::Error::other(format!("answered {}", head.lines().next().unwrap_or_default())));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    Ok(answer.len() >= head_end + 4 + length)
}
