//! A step of a replay under way: what it looks at, what it makes again, and what it counts.

use std::sync::Arc;

use super::super::choice::{Choice, Criteria, Skip, Stand, Today, choose};
use super::super::pairs::{self, Records, Status};
use super::super::times::Time;
use super::super::{Error, dead_letters, deliveries, events, pages};
use super::{ReplayRequest, ReplayResult, ReplayStep, ReplayedDelivery};
use crate::clock::Timestamp;
use crate::delivery::{DeadLetter, Delivery, DeliveryId, EventHead, Outcome, OutcomeRecord, Waiting, Work};
use crate::dispatch::Snapshot;
use crate::event::{Event, Position};
use crate::filter::{Match, Wish};
use crate::store::{Order, PageLimits, Replay, ReplayFrom, Replayed, ScanCursor, Store};

/// How many records are read at a time, events with what became of them.
const READ_AT_ONCE: usize = 200;

/// A step under way.
pub(super) struct Step<'a> {
    pub store: &'a dyn Store,
    pub snapshot: &'a Arc<Snapshot>,
    pub request: &'a ReplayRequest,
    pub now: Timestamp,
    pub limit: usize,
    pub done: ReplayStep,
}

impl Step<'_> {
    fn is_full(&self) -> bool {
        self.done.matched >= self.limit
    }

    fn skip(&mut self, why: Skip) {
        *self.done.skipped.entry(why).or_default() += 1;
    }

    fn cursor<Cursor: std::str::FromStr>(&self) -> Result<Option<Cursor>, Error> {
        let read = |text: &str| text.parse().map_err(|_| Error::from(crate::store::NoCursor));
        self.request.cursor.as_deref().map(read).transpose()
    }

    fn criteria(&self) -> Criteria {
        Criteria { status: self.request.selection.status, all: self.request.all, rerun: self.request.rerun }
    }

    fn wants_subscription(&self, name: &str) -> bool {
        self.request.selection.subscription.as_deref().is_none_or(|wanted| wanted == name)
    }

    /// Events that are listed by id; the cursor counts them.
    pub async fn listed_events(&mut self, ids: &[String]) -> Result<(), Error> {
        let first = self.cursor::<usize>()?.unwrap_or(0);
        for (number, id) in ids.iter().enumerate().skip(first) {
            if self.is_full() {
                self.done.cursor = Some(number.to_string());
                break;
            }
            match events::find(self.store, id, self.request.selection.source.as_deref()).await {
                Ok((position, event)) => {
                    let records = self.store.outcomes_of(&[(position, event.accepted_at)]).await?;
                    let records = pairs::by_event(records).remove(&position);
                    self.event(position, event, records).await?;
                }
                Err(Error::NotFound(_)) if ids.len() > 1 => self.skip(Skip::EventGone),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Dead letters that are listed by delivery; the cursor counts them.
    pub async fn listed_letters(&mut self, ids: &[DeliveryId]) -> Result<(), Error> {
        let first = self.cursor::<usize>()?.unwrap_or(0);
        for (number, id) in ids.iter().enumerate().skip(first) {
            if self.is_full() {
                self.done.cursor = Some(number.to_string());
                break;
            }
            match self.store.dead_letter(id).await? {
                Some((place, letter)) => drop(self.letter(place, letter).await?),
                None if ids.len() > 1 => self.skip(Skip::Gone),
                None => return Err(dead_letters::missing(id)),
            }
        }
        Ok(())
    }

    /// Dead letters of a selection, in the order in which they were given up.
    pub async fn letters(&mut self) -> Result<(), Error> {
        let selection = &self.request.selection;
        let (since, until) = (selection.since.as_deref(), selection.until.as_deref());
        // Nothing is given up before it was accepted; but long after, so the end is looked for in each.
        let mut scan = events::span(since, until, self.now, Order::OldestFirst)?;
        let (since, until) = (scan.since, scan.until.take());
        let fits_type = events::type_filter(selection.event_type.as_deref())?;
        let mut cursor: Option<ScanCursor> = self.cursor()?;
        let mut looked_at = 0;
        loop {
            let page = self.store.scan_dead_letters(&scan, cursor, PageLimits::records(READ_AT_ONCE)).await?;
            let (bound, next) = (page.bound, page.next);
            for (place, letter) in page.items {
                if self.is_full() || looked_at >= pages::LOOKED_AT_MAX {
                    self.done.cursor = cursor.map(|cursor| cursor.to_string());
                    return Ok(());
                }
                looked_at += 1;
                cursor = Some(ScanCursor { last: place, bound });
                self.done.reached_at = Some(Time(letter.at));
                let event = &letter.delivery.event;
                let is_wanted = event.accepted_at >= since
                    && until.is_none_or(|until| event.accepted_at < until)
                    && fits_type(&event.event_type)
                    && selection.source.as_ref().is_none_or(|source| event.source == *source)
                    && self.wants_subscription(&letter.delivery.subscription);
                if is_wanted {
                    self.letter(place, letter).await?;
                }
            }
            cursor = next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Events of a selection, in the order in which they were accepted.
    pub async fn events(&mut self) -> Result<(), Error> {
        let selection = &self.request.selection;
        let (since, until) = (selection.since.as_deref(), selection.until.as_deref());
        let scan = events::span(since, until, self.now, Order::OldestFirst)?;
        let fits_type = events::type_filter(selection.event_type.as_deref())?;
        let mut cursor: Option<ScanCursor> = self.cursor()?;
        let mut looked_at = 0;
        loop {
            let page = self.store.scan_events(&scan, cursor, PageLimits::records(READ_AT_ONCE)).await?;
            let (bound, next) = (page.bound, page.next);
            let is_wanted = |event: &Event| {
                fits_type(&event.event_type) && selection.source.as_ref().is_none_or(|source| event.source == *source)
            };
            let wanted: Vec<_> = page.items.iter().filter(|(_, event)| is_wanted(event)).collect();
            let places: Vec<_> = wanted.iter().map(|(position, event)| (*position, event.accepted_at)).collect();
            let mut records = pairs::by_event(self.store.outcomes_of(&places).await?);
            for (position, event) in page.items {
                if self.is_full() || looked_at >= pages::LOOKED_AT_MAX {
                    self.done.cursor = cursor.map(|cursor| cursor.to_string());
                    return Ok(());
                }
                looked_at += 1;
                cursor = Some(ScanCursor { last: position, bound });
                self.done.reached_at = Some(Time(event.accepted_at));
                if is_wanted(&event) {
                    self.event(position, event, records.remove(&position)).await?;
                }
            }
            cursor = next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// The deliveries of one event.
    async fn event(&mut self, position: Position, event: Event, records: Option<Records>) -> Result<(), Error> {
        // Whatever is settled has left a record; what is not is still to come by itself.
        let Some(records) = records else {
            self.skip(Skip::NotSettled);
            return Ok(());
        };
        let event = Arc::new(event);
        let mut today: Vec<(Arc<str>, Today)> = matches(self.snapshot, &event).await?;
        for subscription in records.iter().filter_map(|(subscription, _)| subscription.as_ref()) {
            if !today.iter().any(|(name, _)| name == subscription) {
                let has_it = self.snapshot.consumer(subscription).is_some();
                today.push((Arc::clone(subscription), if has_it { Today::NotMatched } else { Today::Gone }));
            }
        }
        for (subscription, today) in today {
            if !self.wants_subscription(&subscription) {
                continue;
            }
            let of_pair = records.iter().find(|(name, _)| name.as_ref() == Some(&subscription));
            let status = of_pair.map_or(Status::Unmatched, |(_, records)| pairs::status_of(records));
            let ran_plugins = of_pair.is_some_and(|(_, records)| pairs::ran_plugins(records));
            let runs_plugins = self.snapshot.consumer(&subscription).is_some_and(|consumer| consumer.chain.is_some());
            let stand = Stand { status, today, has_plugins: ran_plugins || runs_plugins };
            match choose(stand, self.criteria()) {
                Choice::Other => {}
                Choice::Skip(why) => self.skip(why),
                Choice::Replay => {
                    let id = DeliveryId::derive(&event, &subscription);
                    let letter = if status == Status::DeadLetter { self.store.dead_letter(&id).await? } else { None };
                    match letter {
                        Some((place, letter)) => drop(self.letter(place, letter).await?),
                        None if today == Today::Wanted || status == Status::Scheduled => {
                            let head = EventHead::of(&event, position);
                            let work = Work::Run(Arc::clone(&event));
                            self.anew(Delivery { id, event: head, subscription, attempts: vec![], work }, status)
                                .await?;
                        }
                        None => self.skip(Skip::Gone),
                    }
                }
            }
        }
        Ok(())
    }

    /// A delivery of which nothing is kept but its event.
    async fn anew(&mut self, delivery: Delivery, status: Status) -> Result<(), Error> {
        let result = self.make(delivery.clone(), ReplayFrom::Event).await?;
        if result == Some(Replayed::DeadLettered)
            && let Some((place, letter)) = self.store.dead_letter(&delivery.id).await?
        {
            self.letter(place, letter).await?;
            return Ok(());
        }
        self.note(&delivery, status, result);
        Ok(())
    }

    /// A dead letter.
    pub async fn letter(&mut self, place: Position, letter: DeadLetter) -> Result<ReplayedDelivery, Error> {
        let DeadLetter { delivery, .. } = letter;
        if self.snapshot.consumer(&delivery.subscription).is_none() {
            return Ok(self.leave(&delivery, Skip::SubscriptionGone));
        }
        let work = match &delivery.work {
            Work::Send(_) if self.request.rerun => match self.store.event(delivery.event.position).await? {
                Some(event) => Work::Run(Arc::new(event)),
                None => return Ok(self.leave(&delivery, Skip::EventGone)),
            },
            Work::Send(_) | Work::Run(_) => delivery.work.clone(),
        };
        // A new round of attempts: what was tried before is in the outcomes.
        let delivery = Delivery { attempts: vec![], work, ..delivery };
        let result = self.make(delivery.clone(), ReplayFrom::DeadLetter(place)).await?;
        Ok(self.note(&delivery, Status::DeadLetter, result))
    }

    /// Has the store do it; `None` in a dry run.
    async fn make(&mut self, delivery: Delivery, from: ReplayFrom) -> Result<Option<Replayed>, Error> {
        if self.request.dry_run {
            return Ok(None);
        }
        let outcome = OutcomeRecord {
            event_id: delivery.event.id.clone(),
            position: delivery.event.position,
            subscription: Some(Arc::clone(&delivery.subscription)),
            outcome: Some(Outcome::Scheduled { next: self.now, why: Waiting::Replay }),
            attempts: vec![],
            notes: vec![],
            by: None,
            at: self.now,
        };
        Ok(Some(self.store.replay(Replay { delivery, from, anew: self.request.rerun, outcome }).await?))
    }

    /// Counts a delivery that was selected.
    fn note(&mut self, delivery: &Delivery, status: Status, replayed: Option<Replayed>) -> ReplayedDelivery {
        let result = match replayed {
            None => ReplayResult::WouldReplay,
            Some(Replayed::Scheduled) => ReplayResult::Scheduled,
            Some(Replayed::Hastened) => ReplayResult::Hastened,
            Some(Replayed::Held) => ReplayResult::Skipped(Skip::InFlight),
            Some(Replayed::Gone | Replayed::DeadLettered) => ReplayResult::Skipped(Skip::Gone),
        };
        match result {
            ReplayResult::WouldReplay => {}
            ReplayResult::Scheduled | ReplayResult::Hastened => self.done.replayed += 1,
            ReplayResult::Skipped(why) => self.skip(why),
        }
        self.done.matched += 1;
        let noted = ReplayedDelivery {
            delivery_id: delivery.id.clone(),
            event_id: delivery.event.id.to_string(),
            subscription: Arc::clone(&delivery.subscription),
            status,
            result,
            waits: deliveries::held_up(&delivery.subscription, self.snapshot),
        };
        self.done.deliveries.push(noted.clone());
        noted
    }

    /// Leaves a dead letter as it is.
    fn leave(&mut self, delivery: &Delivery, why: Skip) -> ReplayedDelivery {
        self.skip(why);
        ReplayedDelivery {
            delivery_id: delivery.id.clone(),
            event_id: delivery.event.id.to_string(),
            subscription: Arc::clone(&delivery.subscription),
            status: Status::DeadLetter,
            result: ReplayResult::Skipped(why),
            waits: None,
        }
    }
}

/// What today's routes say of an event. What may take long is kept away from the runtime's threads.
async fn matches(snapshot: &Arc<Snapshot>, event: &Arc<Event>) -> Result<Vec<(Arc<str>, Today)>, Error> {
    let candidates = snapshot.routes.candidates(event);
    let found = if snapshot.routes.takes_long(&candidates, event) {
        let (routes, subject) = (Arc::clone(snapshot), Arc::clone(event));
        let matched = tokio::task::spawn_blocking(move || routes.routes.matches_among(&candidates, &subject));
        matched.await.map_err(|_| Error::Panicked)?
    } else {
        snapshot.routes.matches_among(&candidates, event)
    };
    let today = |found: Match| {
        let today = match found.wish {
            Wish::Wanted => Today::Wanted,
            Wish::Filtered(_) | Wish::Unknown => Today::Filtered,
        };
        (Arc::clone(&found.subscription.name), today)
    };
    Ok(found.into_iter().map(today).collect())
}
