//! Stored events, newest first, page by page. The next page is read while the last one is worked on.

use futures_util::Stream;
use tokio::sync::mpsc;

use crate::admin::operations::LIMIT_MAX;
use crate::admin::operations::events::EventsQuery;
use crate::cli::Error;
use crate::cli::door::{Door, Way};
use crate::clock::Timestamp;
use crate::event::Event;

/// Events that are read ahead.
const AHEAD_EVENTS: usize = 2 * LIMIT_MAX;

/// When the oldest event of this time was accepted, and its events, newest first, up to the first error.
pub async fn read(
    way: Way,
    since: Timestamp,
    until: Option<Timestamp>,
) -> Result<(Option<Timestamp>, impl Stream<Item = Result<Event, Error>> + use<>), Error> {
    let (sender, mut receiver) = mpsc::channel(AHEAD_EVENTS);
    let door = Door::open(&way).await?;
    let query = EventsQuery {
        since: Some(since.to_string()),
        until: until.map(|until| until.to_string()),
        limit: Some(LIMIT_MAX),
        payload: true,
        ..EventsQuery::default()
    };
    let first = EventsQuery { limit: Some(1), payload: false, oldest_first: true, ..query.clone() };
    let first = door.events(&first).await?.events.first().map(|event| event.accepted_at.0);
    tokio::spawn(async move {
        let ended = match give(&door, query, &sender).await {
            Ok(()) => door.close().await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            let _ = sender.send(Err(error)).await;
        }
    });
    Ok((first, futures_util::stream::poll_fn(move |context| receiver.poll_recv(context))))
}

/// Hands all pages on, for as long as somebody reads.
async fn give(door: &Door, mut query: EventsQuery, sender: &mpsc::Sender<Result<Event, Error>>) -> Result<(), Error> {
    loop {
        let page = door.whole_events(&query).await?;
        for event in page.events {
            if sender.send(Ok(event.into_event())).await.is_err() {
                return Ok(());
            }
        }
        query.cursor = page.cursor;
        if query.cursor.is_none() {
            return Ok(());
        }
    }
}
