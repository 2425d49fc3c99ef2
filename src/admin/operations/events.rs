//! Accepted events, newest first unless oldest first is asked for; one event with everything that became of it.

use serde::{Deserialize, Serialize};

use super::pairs::{self, Pair};
use super::views::{EventSummary, EventView};
use super::{Error, limit_of, pages, times};
use crate::clock::Timestamp;
use crate::dispatch::Snapshot;
use crate::event::{Event, Position};
use crate::store::{Order, PageLimits, Scan, Store};

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventsQuery {
    /// Of this type; `order.*` and `order.**` as in routes.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of this aggregate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregate_id: Option<String>,
    /// Accepted from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Accepted before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How many a page has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Oldest first instead of newest first; the same on each page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oldest_first: bool,
    /// With what they say: see [`whole`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub payload: bool,
}

impl EventsQuery {
    const fn order(&self) -> Order {
        if self.oldest_first { Order::OldestFirst } else { Order::NewestFirst }
    }
}

/// A page of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsPage {
    /// The events.
    pub events: Vec<EventSummary>,
    /// Where to go on; null at the end. A page may be empty and still not be the last.
    pub cursor: Option<String>,
}

/// A page of events with what they say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WholePage {
    /// The events.
    pub events: Vec<EventView>,
    /// Where to go on; null at the end. A page may be empty and still not be the last.
    pub cursor: Option<String>,
}

/// An event and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventDetail {
    /// The event.
    pub event: EventView,
    /// How it stands with each subscription; empty while it waits for its first attempts.
    pub outcomes: Vec<Pair>,
}

/// The span of time of a query, read at `now`.
pub(super) fn span(since: Option<&str>, until: Option<&str>, now: Timestamp, order: Order) -> Result<Scan, Error> {
    let since = since.map(|text| times::parse("since", text, now)).transpose()?;
    let until = until.map(|text| times::parse("until", text, now)).transpose()?;
    Ok(Scan { since: since.unwrap_or_default(), until, order })
}

/// Whether a pattern as in routes fits a type.
pub(in crate::admin) fn type_filter(pattern: Option<&str>) -> Result<impl Fn(&str) -> bool + use<>, Error> {
    let pattern = pattern.map(|text| {
        crate::filter::TypePattern::parse(text).map_err(|error| Error::Invalid(format!("`type`: `{text}`: {error}")))
    });
    let pattern = pattern.transpose()?;
    Ok(move |event_type: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(event_type)))
}

/// A page of events.
pub async fn list(store: &dyn Store, query: &EventsQuery, now: Timestamp) -> Result<EventsPage, Error> {
    let limit = limit_of(query.limit)?;
    let scan = span(query.since.as_deref(), query.until.as_deref(), now, query.order())?;
    let wanted = filter(query)?;
    let cursor = query.cursor.as_deref().map(str::parse).transpose()?;
    let found = pages::find(
        |cursor, limits| store.scan_events(&scan, cursor, limits),
        cursor,
        limit,
        |position, event: Event| wanted(&event).then(|| EventSummary::of(&event, position)),
    );
    let found = found.await?;
    Ok(EventsPage { events: found.items, cursor: found.next.map(|next| next.to_string()) })
}

/// A page of events with their payloads; there are fewer on it than `limit` where they are large.
pub async fn whole(store: &dyn Store, query: &EventsQuery, now: Timestamp) -> Result<WholePage, Error> {
    let limits = PageLimits::records(limit_of(query.limit)?);
    let scan = span(query.since.as_deref(), query.until.as_deref(), now, query.order())?;
    let wanted = filter(query)?;
    let cursor = query.cursor.as_deref().map(str::parse).transpose()?;
    let page = store.scan_events(&scan, cursor, limits).await?;
    let events = page.items.iter().filter(|(_, event)| wanted(event));
    Ok(WholePage {
        events: events.map(|(position, event)| EventView::of(event, *position)).collect(),
        cursor: page.next.map(|next| next.to_string()),
    })
}

/// Whether an event is one that is asked for, but for its time.
fn filter(query: &EventsQuery) -> Result<impl Fn(&Event) -> bool, Error> {
    let fits_type = type_filter(query.event_type.as_deref())?;
    Ok(move |event: &Event| {
        fits_type(&event.event_type)
            && query.source.as_ref().is_none_or(|source| event.source == *source)
            && query.aggregate_id.as_ref().is_none_or(|id| event.aggregate_id == *id)
    })
}

/// One event by its id; its source may be left out when only one has the id.
pub async fn one(store: &dyn Store, snapshot: &Snapshot, id: &str, source: Option<&str>) -> Result<EventDetail, Error> {
    let (position, event) = find(store, id, source).await?;
    let records = store.outcomes_of(&[(position, event.accepted_at)]).await?;
    let outcomes = pairs::of_event(store, snapshot, position, &event, records).await?;
    Ok(EventDetail { event: EventView::of(&event, position), outcomes })
}

/// Looks an event up by its id; its source may be left out when only one has the id.
pub async fn find(store: &dyn Store, id: &str, source: Option<&str>) -> Result<(Position, Event), Error> {
    let sources = match source {
        Some(source) => vec![source.to_owned()],
        None => store.sources().await?,
    };
    let mut found = Vec::new();
    for source in &sources {
        found.extend(store.find_event(source, id).await?);
    }
    match found.len() {
        0 => {}
        1 => return Ok(found.remove(0)),
        _ => {
            let sources: Vec<_> = found.iter().map(|(_, event)| format!("`{}`", event.source)).collect();
            return Err(Error::Conflict(format!(
                "{} sources have an event `{id}`: {}; say which with `source`",
                found.len(),
                sources.join(", ")
            )));
        }
    }
    // An id of the router's own making says when it was made.
    if let Some(made) = made_at(id) {
        for (before_ms, after_ms) in NEAR {
            let scan = Scan {
                since: Timestamp::from_millis(made.as_millis().saturating_sub(before_ms)),
                until: Some(Timestamp::from_millis(made.as_millis().saturating_add(after_ms))),
                order: Order::OldestFirst,
            };
            if let Some(found) = near(store, &scan, id, source).await? {
                return Ok(found);
            }
        }
    }
    let within = if sources.is_empty() { "any source".to_owned() } else { format!("`{}`", sources.join("`, `")) };
    Err(Error::NotFound(format!(
        "no event `{id}` is kept from {within}: it was never accepted, or it is older than the store's `retention`"
    )))
}

/// How far around the time in an id its event is looked for, in milliseconds before and after: the clocks of router and
/// store are hardly apart, or a little.
const NEAR: [(u64, u64); 2] = [(1_000, 5_000), (60_000, 60_000)];

async fn near(
    store: &dyn Store,
    scan: &Scan,
    id: &str,
    source: Option<&str>,
) -> Result<Option<(Position, Event)>, Error> {
    let mut cursor = None;
    loop {
        let page = store.scan_events(scan, cursor, PageLimits::records(1_000)).await?;
        let is_it = |event: &Event| event.id == id && source.is_none_or(|source| event.source == source);
        if let Some(found) = page.items.into_iter().find(|(_, event)| is_it(event)) {
            return Ok(Some(found));
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(None);
        }
    }
}

/// When an id of the router's own making (`evt_` and a UUID of version 7) was made.
fn made_at(id: &str) -> Option<Timestamp> {
    let uuid = uuid::Uuid::try_parse(id.strip_prefix("evt_")?).ok()?;
    let (seconds, nanoseconds) = uuid.get_timestamp().filter(|_| uuid.get_version_num() == 7)?.to_unix();
    Some(Timestamp::from_millis(seconds * 1_000 + u64::from(nanoseconds) / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_routers_own_making_says_when_it_was_made() {
        assert_eq!(made_at("evt_0194698b740070008000000000000000"), Some(Timestamp::from_millis(0x0194_698b_7400)));
        for id in ["evt_1", "order_4711", "evt_0194698b740040008000000000000000", "0194698b740070008000000000000000"] {
            assert_eq!(made_at(id), None, "{id}");
        }
    }
}
