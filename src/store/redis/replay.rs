//! Deliveries that an operator asks for again, and dead letters that he throws away: one script call each.

use super::fault::Fault;
use super::keys::member;
use super::reply::{self, StreamId};
use super::settle::lines;
use super::{Shared, scripts};
use crate::delivery::{DeliveryId, OutcomeRecord};
use crate::event::Position;
use crate::store::{Error, Replay, ReplayFrom, Replayed, encode_delivery};

fn entry(place: Position) -> String {
    StreamId { milliseconds: place.major, sequence: place.minor }.to_string()
}

/// Puts a delivery into the schedule, due now.
pub(super) async fn replay(shared: &Shared, replay: Replay) -> Result<Replayed, Error> {
    let Replay { delivery, from, anew, outcome } = replay;
    let event = delivery.event.position;
    let Some(keys) = shared.partitions.get(usize::from(event.partition)) else { return Ok(Replayed::Gone) };
    let letter = match from {
        ReplayFrom::DeadLetter(place) if place.partition == event.partition => entry(place),
        ReplayFrom::DeadLetter(_) => return Ok(Replayed::Gone),
        ReplayFrom::Event => String::new(),
    };
    let member = member(&delivery);
    let run = shared.link.run(&scripts::REPLAY, |command| {
        command.arg(6).arg(&keys.due).arg(keys.record(&member)).arg(&keys.dead).arg(&keys.letters);
        command.arg(&keys.outcomes).arg(&keys.later);
        command.arg(&member).arg(delivery.id.as_str()).arg(&letter).arg(u8::from(anew));
        command.arg(encode_delivery(&delivery)).arg(lines(std::slice::from_ref(&outcome)).as_slice()).arg(event.major);
    });
    match reply::text(run.await?)?.as_str() {
        "SCHEDULED" => Ok(Replayed::Scheduled),
        "HASTENED" => Ok(Replayed::Hastened),
        "HELD" => Ok(Replayed::Held),
        "GONE" => Ok(Replayed::Gone),
        "DEAD" => Ok(Replayed::DeadLettered),
        _ => Err(Fault::strange("replay").into()),
    }
}

/// Removes a dead letter and records why.
pub(super) async fn discard(
    shared: &Shared,
    place: Position,
    id: &DeliveryId,
    outcome: &OutcomeRecord,
) -> Result<bool, Error> {
    let Some(keys) = shared.partitions.get(usize::from(place.partition)) else { return Ok(false) };
    let run = shared.link.run(&scripts::DISCARD, |command| {
        command.arg(4).arg(&keys.dead).arg(&keys.letters).arg(&keys.outcomes).arg(&keys.later);
        command
            .arg(entry(place))
            .arg(id.as_str())
            .arg(lines(std::slice::from_ref(outcome)).as_slice())
            .arg(outcome.position.major);
    });
    Ok(reply::count(&run.await?)? == 1)
}
