//! Producers: a closed loop of keep-alive connections, each with one request at a time.
//!
//! Requests are bytes written to a socket, so that the load costs little beside what it measures.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::process::BENCH_KEY;
use crate::cli::Error;

/// Where and how to send.
pub struct Producers {
    pub port: u16,
    pub connections: usize,
    pub size: usize,
}

impl Producers {
    /// Sends events numbered from `first`; returns how long each waited for its answer.
    pub async fn send(&self, first: u64, events: u64) -> Result<Vec<Duration>, Error> {
        let mut connections = JoinSet::new();
        let count = self.connections as u64;
        for connection in 0..count {
            let numbers = (first + connection..first + events).step_by(self.connections);
            connections.spawn(send_on_one(self.port, self.size, numbers.collect()));
        }
        let mut latencies = Vec::with_capacity(usize::try_from(events).unwrap_or(0));
        while let Some(done) = connections.join_next().await {
            let done = done.map_err(|error| Error::Failed(format!("a producer ended badly: {error}")))?;
            latencies.extend(done.map_err(|error| Error::Failed(format!("a producer failed: {error}")))?);
        }
        Ok(latencies)
    }
}

async fn send_on_one(port: u16, size: usize, numbers: Vec<u64>) -> std::io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::with_capacity(numbers.len());
    let mut answer = Vec::with_capacity(1024);
    for number in numbers {
        let request = request(port, size, number);
        let began = Instant::now();
        stream.write_all(&request).await?;
        read_answer(&mut stream, &mut answer).await?;
        latencies.push(began.elapsed());
    }
    Ok(latencies)
}

/// An `order.created` event whose envelope has `size` bytes.
fn request(port: u16, size: usize, number: u64) -> Vec<u8> {
    let start = format!(
        r#"{{"id":"evt_bench_{number:012}","eventType":"order.created","aggregateType":"Order","aggregateId":"order_{number}","occurredAt":"2025-01-15T10:30:00Z","payload":{{"orderId":"order_{number}","amount":{amount},"currency":"KRW","customer":"user_{customer}","note":""#,
        amount = 1_000 + number % 90_000,
        customer = number % 5_000,
    );
    let end = r#""},"metadata":{}}"#;
    let padding = size.saturating_sub(start.len() + end.len());
    let body = format!("{start}{}{end}", "a note of the customer; ".repeat(padding / 24 + 1).split_at(padding).0);
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
        if stream.read_buf(answer).await? == 0 {
            return Err(std::io::Error::other("the connection was closed"));
        }
        let Some(head_end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..head_end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 2") {
            return Err(std::io::Error::other(format!("answered {}", head.lines().next().unwrap_or_default())));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        while answer.len() < head_end + 4 + length {
            if stream.read_buf(answer).await? == 0 {
                return Err(std::io::Error::other("the connection was closed"));
            }
        }
        return Ok(());
    }
}
