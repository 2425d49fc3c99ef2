//! The durable pipe: accept → XADD → 202, and beside it XREADGROUP → POST → XACK and XDEL. What a store must cost at least.
//!
//! No routing, no dedupe, no outcomes, no retries: an event that can't be passed on stays pending, and the run fails by its count.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::pipe::{self, Failure, Onward};
use crate::cli::Error;

const STREAM: &str = "pipe";
const GROUP: &str = "pipe";
/// Commands of one round trip at most.
const BATCH_MAX: usize = 256;
/// Events that are held at a time, as a router holds them.
const IN_FLIGHT_MAX: usize = 1024;

/// An event to append, and who waits for it.
type Waiting = (bytes::Bytes, oneshot::Sender<()>);

/// Forwards through Redis until it is killed.
pub async fn run(port: u16, receiver: u16, store: &str) -> Result<(), Error> {
    let failed = |error| Error::Failed(format!("the durable pipe's Redis: {error}"));
    let client = Client::open(store).map_err(failed)?;
    let mut connection = connect(&client).await.map_err(failed)?;
    let create = redis::cmd("XGROUP").arg("CREATE").arg(STREAM).arg(GROUP).arg("$").arg("MKSTREAM").to_owned();
    create.exec_async(&mut connection).await.map_err(failed)?;
    let (append, appended) = mpsc::channel(IN_FLIGHT_MAX);
    let (settle, settled) = mpsc::channel(IN_FLIGHT_MAX);
    let reading = connect(&client).await.map_err(failed)?;
    let settling = connect(&client).await.map_err(failed)?;
    tokio::select! {
        served = pipe::serve(port, move |body| append_one(append.clone(), body)) => served,
        ended = append_all(connection, appended) => ended.map_err(failed),
        ended = pass_on(reading, Onward::to(receiver), settle) => ended.map_err(failed),
        ended = settle_all(settling, settled) => ended.map_err(failed),
    }
}

async fn connect(client: &Client) -> redis::RedisResult<MultiplexedConnection> {
    // A read waits until something comes.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

async fn append_one(append: mpsc::Sender<Waiting>, body: bytes::Bytes) -> Result<(), Failure> {
    let (done, waits) = oneshot::channel();
    append.send((body, done)).await?;
    Ok(waits.await?)
}

/// What has gathered while the last batch was on its way goes with the next.
async fn append_all(
    mut connection: MultiplexedConnection,
    mut events: mpsc::Receiver<Waiting>,
) -> redis::RedisResult<()> {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while events.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut commands = redis::pipe();
        for (body, _) in &batch {
            commands.cmd("XADD").arg(STREAM).arg("*").arg("e").arg(&body[..]).ignore();
        }
        commands.exec_async(&mut connection).await?;
        for (_, done) in batch.drain(..) {
            // A producer that went away does not wait any more.
            let _ = done.send(());
        }
    }
    Ok(())
}

/// The answer to an XREADGROUP: streams, their entries, the entries' fields.
type Read = Option<Vec<(String, Vec<(String, Vec<(String, Vec<u8>)>)>)>>;

async fn pass_on(
    mut connection: MultiplexedConnection,
    onward: Onward,
    settle: mpsc::Sender<String>,
) -> redis::RedisResult<()> {
    let turns = std::sync::Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg(GROUP).arg("consumer").arg("COUNT").arg(BATCH_MAX).arg("BLOCK").arg(0);
    read.arg("STREAMS").arg(STREAM).arg(">");
    loop {
        let entries: Read = read.query_async(&mut connection).await?;
        for (id, fields) in entries.into_iter().flatten().flat_map(|(_, entries)| entries) {
            let Some((_, body)) = fields.into_iter().next() else { continue };
            let turn = std::sync::Arc::clone(&turns).acquire_owned().await.expect("the semaphore is never closed");
            let (onward, settle) = (onward.clone(), settle.clone());
            tokio::spawn(async move {
                if onward.post(body.into()).await.is_ok() {
                    // The pipe is ending when nobody settles any more.
                    let _ = settle.send(id).await;
                }
                drop(turn);
            });
        }
    }
}

async fn settle_all(mut connection: MultiplexedConnection, mut ids: mpsc::Receiver<String>) -> redis::RedisResult<()> {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while ids.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut commands = redis::pipe();
        commands.cmd("XACK").arg(STREAM).arg(GROUP).arg(&batch).ignore();
        commands.cmd("XDEL").arg(STREAM).arg(&batch).ignore();
        commands.exec_async(&mut connection).await?;
        batch.clear();
    }
    Ok(())
}
