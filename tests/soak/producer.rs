//! Producers: they send events at a pace, remember what they were told, and try again with the same id when they
//! were told nothing. Some give up then, as some do: what becomes of their events nobody knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

use crate::ledger::{Fate, Sent};
use crate::record::{Record, digest, locked};
use crate::support::router::KEY;

/// How long a producer waits for an answer. A router that can't store answers within two seconds: what takes longer does not
/// come, and a producer that waits for it sends nothing meanwhile.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(4);
/// How long it waits before it tries again, where no `Retry-After` is obeyed: impatient on purpose.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// One of so many producers' requests is a batch.
const BATCH_EVERY: usize = 10;
const BATCH_EVENTS: usize = 5;
/// One of so many events is not sent again when its answer did not come.
const GIVES_UP_EVERY: usize = 25;

const TYPES: [&str; 6] =
    ["user.created", "order.completed", "order.cancelled", "payment.failed", "project.updated", "order.created"];

/// What the producers of a run do.
pub struct Producers {
    pub record: Arc<Record>,
    /// The ingest ports of the fleet; each request goes to the next one.
    pub ports: Vec<u16>,
    pub producers: usize,
    /// Between two requests of one producer.
    pub pause: Duration,
    /// Makes ids of this run.
    pub seed: u64,
    pub stop: Arc<AtomicBool>,
}

/// One event, as a producer makes it.
struct Draft {
    sent: Sent,
    envelope: String,
}

fn draft(seed: u64, number: usize) -> Draft {
    let id = format!("evt_{seed:x}_{number}");
    let event_type = TYPES[number % TYPES.len()];
    let amount = number * 37 % 10_000;
    // Small ones, and now and then a large one.
    let padding = "x".repeat(if number.is_multiple_of(97) { 40_000 } else { number * 31 % 700 });
    let payload = format!(r#"{{"amount":{amount},"n":{number},"이름":"김민지","padding":"{padding}"}}"#);
    let mut fates = BTreeMap::from([("audit".to_owned(), Fate::Delivered)]);
    match event_type {
        "user.created" => drop(fates.insert("flaky".to_owned(), Fate::Delivered)),
        "payment.failed" => drop(fates.insert("doomed".to_owned(), Fate::DeadLetter)),
        order if order.starts_with("order.") => {
            fates.insert("sales".to_owned(), if amount >= 5_000 { Fate::Delivered } else { Fate::Filtered });
        }
        _ => {}
    }
    let bodies = BTreeMap::from([("audit".to_owned(), digest(payload.as_bytes()))]);
    let envelope = format!(
        r#"{{"id":"{id}","eventType":"{event_type}","aggregateType":"T","aggregateId":"a_{}","payload":{payload}}}"#,
        number % 17
    );
    Draft { sent: Sent { id, acknowledged: false, refused: false, fates, bodies }, envelope }
}

impl Producers {
    /// Produces until it is stopped; returns when every event has its last answer.
    pub async fn run(self: &Arc<Self>) {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut running = JoinSet::new();
        for producer in 0..self.producers {
            let (this, client) = (Arc::clone(self), client.clone());
            running.spawn(async move { this.produce(producer, &client).await });
        }
        while let Some(ended) = running.join_next().await {
            ended.expect("a producer does not panic");
        }
    }

    async fn produce(&self, producer: usize, client: &Client<HttpConnector, Full<Bytes>>) {
        for request in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let turn = request * self.producers + producer;
            let is_batch = turn.is_multiple_of(BATCH_EVERY);
            let first = turn * BATCH_EVENTS;
            let drafts: Vec<_> =
                (first..first + if is_batch { BATCH_EVENTS } else { 1 }).map(|n| draft(self.seed, n)).collect();
            let body = match &drafts[..] {
                [one] if !is_batch => Bytes::from(one.envelope.clone()),
                many => {
                    let many: Vec<_> = many.iter().map(|draft| draft.envelope.as_str()).collect();
                    Bytes::from(format!("[{}]", many.join(",")))
                }
            };
            let from = {
                let mut sent = locked(&self.record.sent);
                let from = sent.len();
                sent.extend(drafts.into_iter().map(|draft| draft.sent));
                from..sent.len()
            };
            for attempt in 0.. {
                let port = self.ports[(turn + attempt) % self.ports.len()];
                self.record.offered.fetch_add(from.len(), Ordering::Relaxed);
                if self.is_taken(client, port, body.clone()).await {
                    locked(&self.record.sent)[from.clone()].iter_mut().for_each(|sent| sent.acknowledged = true);
                    self.record.acknowledged.fetch_add(from.len(), Ordering::Relaxed);
                    break;
                }
                locked(&self.record.sent)[from.clone()].iter_mut().for_each(|sent| sent.refused = true);
                if turn.is_multiple_of(GIVES_UP_EVERY) {
                    break;
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            tokio::time::sleep(self.pause).await;
        }
    }

    /// Sends once. A refusal that no producer should get ends the run.
    async fn is_taken(&self, client: &Client<HttpConnector, Full<Bytes>>, port: u16, body: Bytes) -> bool {
        let request = Request::post(format!("http://127.0.0.1:{port}/v1/events"))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {KEY}"))
            .body(Full::new(body))
            .expect("it is a good request");
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, async {
            let answer = client.request(request).await.ok()?;
            let status = answer.status().as_u16();
            let retry_after = answer.headers().contains_key("retry-after");
            // Only a whole answer counts: one that broke off says nothing.
            let body = answer.into_body().collect().await.ok()?.to_bytes();
            Some((status, retry_after, body))
        });
        match answer.await {
            Ok(Some((200 | 202, ..))) => true,
            Ok(Some((429 | 503, retry_after, body))) => {
                assert!(retry_after, "a refusal says when to come back: {}", String::from_utf8_lossy(&body));
                self.record.refused.fetch_add(1, Ordering::Relaxed);
                false
            }
            Ok(Some((status, _, body))) => panic!("{status} {}", String::from_utf8_lossy(&body)),
            Ok(None) | Err(_) => {
                self.record.unanswered.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }
}
