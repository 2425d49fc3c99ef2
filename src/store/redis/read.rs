//! Reading back: events, outcomes, dead letters, figures; and trimming what is old.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use redis::Cmd;

use super::fault::Fault;
use super::ids::ids_field;
use super::keys::{GROUP, PartitionKeys};
use super::link::CALL_TIME_MAX;
use super::reply::{self, Entry, StreamId};
use super::{Shared, scripts};
use crate::delivery::{DeadLetter, OutcomeRecord, whole_millis};
use crate::event::{Event, Position};
use crate::store::{Cursor, EndpointMark, Error, MarkKind, Stats, decode_dead_letter, decode_event};

/// How many entries of a stream one script call trims.
const TRIM_ENTRIES_MAX: u64 = 1000;
/// How many ids buckets an event is looked for in at most.
const BUCKETS_MAX: u64 = 1_024;
/// In a cursor over outcomes: this many records of an entry were given, in the low bits of the sequence.
const GIVEN_BITS: u32 = 20;
const GIVEN_ALL: u64 = (1 << GIVEN_BITS) - 1;

/// Reads one event.
pub(super) async fn event(shared: &Shared, position: Position) -> Result<Option<Event>, Error> {
    let Some(keys) = shared.partitions.get(usize::from(position.partition)) else { return Ok(None) };
    let id = StreamId { milliseconds: position.major, sequence: position.minor }.to_string();
    let mut command = redis::cmd("XRANGE");
    command.arg(&keys.events).arg(&id).arg(&id);
    let mut entries = reply::entries(shared.link.call(&command, CALL_TIME_MAX).await?)?;
    entries.pop().map(|entry| decode_event(&entry.field(b"e").unwrap_or_default())).transpose()
}

/// Looks for the newest event with this source and id.
pub(super) async fn find_event(shared: &Shared, source: &str, id: &str) -> Result<Option<(Position, Event)>, Error> {
    let field = ids_field(source, id);
    let current = shared.ids.current();
    let back = (whole_millis(shared.options.store.retention) / shared.ids.width_ms + 1).min(BUCKETS_MAX).min(current);
    let looks: Vec<(u16, Cmd)> = (0_u16..)
        .zip(&shared.partitions)
        .flat_map(|(partition, keys)| (0..=back).map(move |back| (partition, keys.ids(current - back))))
        .map(|(partition, key)| {
            let mut command = redis::cmd("HGET");
            command.arg(key).arg(&field);
            (partition, command)
        })
        .collect();
    let answers = try_join_all(looks.iter().map(|(_, command)| shared.link.call(command, CALL_TIME_MAX))).await?;
    let mut found = Vec::new();
    for ((partition, _), answer) in looks.iter().zip(answers) {
        // The value is a nonce, a space, and the entry's id.
        let value = reply::text(answer)?;
        if let Some(id) = value.split_once(' ').and_then(|(_, id)| StreamId::parse(id.as_bytes())) {
            found.push((id, *partition));
        }
    }
    found.sort_unstable();
    while let Some((id, partition)) = found.pop() {
        let position = Position { partition, major: id.milliseconds, minor: id.sequence };
        if let Some(event) = event(shared, position).await? {
            return Ok(Some((position, event)));
        }
    }
    Ok(None)
}

/// Outcome records after `cursor`. A place in the cursor names an entry and how many of its records were given.
pub(super) async fn outcomes(
    shared: &Shared,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<OutcomeRecord>, Cursor), Error> {
    let mut places = places(shared, cursor);
    let share = limit.div_ceil(places.len()).max(1);
    let from = |place: &(u64, u64)| StreamId { milliseconds: place.0, sequence: place.1 >> GIVEN_BITS }.to_string();
    let pages = read_pages(shared, &places, |keys| &keys.outcomes, from, share + 1).await?;
    let mut records = Vec::new();
    for (place, entries) in places.iter_mut().zip(pages) {
        let mut left = share;
        for entry in entries {
            let sequence = entry.id.sequence << GIVEN_BITS;
            let given = if place.0 == entry.id.milliseconds && place.1 >> GIVEN_BITS == entry.id.sequence {
                place.1 & GIVEN_ALL
            } else {
                0
            };
            let lines = entry.field(b"o").unwrap_or_default();
            let mut now_given = given;
            let mut exhausted = given == GIVEN_ALL;
            let mut lines = lines.split(|byte| *byte == b'\n').skip(usize::try_from(given).unwrap_or(usize::MAX));
            while left > 0 && !exhausted {
                let Some(line) = lines.next() else {
                    exhausted = true;
                    break;
                };
                now_given += 1;
                match serde_json::from_slice(line) {
                    Ok(record) => {
                        records.push(record);
                        left -= 1;
                    }
                    Err(_) if line.is_empty() => {}
                    Err(error) => {
                        tracing::error!(entry = %entry.id, column = error.column(), "an outcome can't be read")
                    }
                }
            }
            *place = (entry.id.milliseconds, sequence | if exhausted { GIVEN_ALL } else { now_given });
            if left == 0 {
                break;
            }
        }
    }
    Ok((records, Cursor(places)))
}

/// Dead letters after `cursor`.
pub(super) async fn dead_letters(
    shared: &Shared,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<DeadLetter>, Cursor), Error> {
    let mut places = places(shared, cursor);
    let share = limit.div_ceil(places.len()).max(1);
    let from = |place: &(u64, u64)| format!("({}", StreamId { milliseconds: place.0, sequence: place.1 });
    let pages = read_pages(shared, &places, |keys| &keys.dead, from, share).await?;
    let mut letters = Vec::new();
    for (place, entries) in places.iter_mut().zip(pages) {
        for entry in entries {
            *place = (entry.id.milliseconds, entry.id.sequence);
            match decode_dead_letter(&entry.field(b"d").unwrap_or_default()) {
                Ok(letter) => letters.push(letter),
                Err(error) => tracing::error!(entry = %entry.id, %error, "a dead letter can't be read"),
            }
        }
    }
    Ok((letters, Cursor(places)))
}

fn places(shared: &Shared, cursor: Option<Cursor>) -> Vec<(u64, u64)> {
    let mut places = cursor.unwrap_or_default().0;
    places.resize(shared.partitions.len(), (0, 0));
    places
}

async fn read_pages(
    shared: &Shared,
    places: &[(u64, u64)],
    key: impl Fn(&PartitionKeys) -> &String,
    from: impl Fn(&(u64, u64)) -> String,
    count: usize,
) -> Result<Vec<Vec<Entry>>, Fault> {
    let commands: Vec<_> = shared
        .partitions
        .iter()
        .zip(places)
        .map(|(keys, place)| {
            let mut command = redis::cmd("XRANGE");
            command.arg(key(keys)).arg(from(place)).arg("+").arg("COUNT").arg(count);
            command
        })
        .collect();
    let answers = try_join_all(commands.iter().map(|command| shared.link.call(command, CALL_TIME_MAX))).await?;
    answers.into_iter().map(reply::entries).collect()
}

/// The figures of all partitions together.
pub(super) async fn stats(shared: &Shared) -> Result<Stats, Error> {
    let answers = join_all(shared.partitions.iter().map(|keys| {
        shared.link.run(&scripts::STATS, |command| {
            command.arg(3).arg(&keys.events).arg(&keys.due).arg(&keys.dead).arg(GROUP);
        })
    }));
    let (mut stats, mut failed, mut heard) = (Stats::default(), None, false);
    for answer in answers.await {
        // One master of a Cluster that is away makes the figures too small, and holds up only its own partitions.
        let answer = match answer {
            Ok(answer) => answer,
            Err(fault) => {
                failed = Some(fault);
                continue;
            }
        };
        heard = true;
        let numbers = reply::array(answer)?.iter().map(reply::count).collect::<Result<Vec<_>, _>>()?;
        let [backlog, scheduled, overdue_ms, dead_letters] = numbers[..] else {
            return Err(Fault::strange("stats").into());
        };
        stats.backlog += backlog;
        stats.scheduled += scheduled;
        stats.overdue_ms = stats.overdue_ms.max(overdue_ms);
        stats.dead_letters += dead_letters;
    }
    match failed {
        Some(fault) if !heard => Err(fault.into()),
        Some(_) | None => Ok(stats),
    }
}

/// Trims until a step's worth is gone, or every partition was looked at.
pub(super) async fn trim(shared: &Shared) -> Result<u64, Error> {
    let count = shared.partitions.len();
    let first = shared.next_partition.fetch_add(1, Ordering::Relaxed);
    let retention = whole_millis(shared.options.store.retention);
    let kept_settled = whole_millis(shared.retention());
    // An id may be needed as long as its event is there, and as long as it may be a duplicate's.
    let needed = retention.max(whole_millis(shared.options.store.dedupe_window));
    let newest_old = (shared.ids.now_ms().saturating_sub(needed) / shared.ids.width_ms).checked_sub(1);
    let mut removed = 0;
    for place in 0..count {
        let keys = &shared.partitions[(first + place) % count];
        // Ids expire by themselves too; but freeing a large hash that way would hold the server up.
        let old: Vec<_> =
            newest_old.into_iter().flat_map(|newest| (0..4).filter_map(move |back| newest.checked_sub(back))).collect();
        let run = shared.link.run(&scripts::TRIM, |command| {
            command.arg(5 + old.len()).arg(&keys.events).arg(&keys.outcomes).arg(&keys.dead);
            command.arg(&keys.letters).arg(&keys.later);
            for bucket in &old {
                command.arg(keys.ids(*bucket));
            }
            command.arg(GROUP).arg(kept_settled).arg(retention).arg(TRIM_ENTRIES_MAX);
        });
        removed += reply::count(&run.await?)?;
        if removed >= TRIM_ENTRIES_MAX {
            break;
        }
    }
    Ok(removed)
}

/// Marks an endpoint.
pub(super) async fn mark(shared: &Shared, mark: &EndpointMark) -> Result<(), Error> {
    let record = serde_json::to_vec(mark).expect("a mark has string keys only");
    let mut command = redis::cmd("HSET");
    command.arg(&shared.common.endpoints).arg(mark.kind.key(&mark.name)).arg(record.as_slice());
    shared.link.call(&command, CALL_TIME_MAX).await?;
    Ok(())
}

/// Takes an endpoint's mark away.
pub(super) async fn unmark(shared: &Shared, name: &str, kind: MarkKind) -> Result<bool, Error> {
    let mut command = redis::cmd("HDEL");
    command.arg(&shared.common.endpoints).arg(kind.key(name));
    Ok(reply::number(&shared.link.call(&command, CALL_TIME_MAX).await?)? > 0)
}

/// The marks.
pub(super) async fn marks(shared: &Shared) -> Result<Vec<EndpointMark>, Error> {
    let mut command = redis::cmd("HVALS");
    command.arg(&shared.common.endpoints);
    let mut marks = Vec::new();
    for value in reply::array(shared.link.call(&command, CALL_TIME_MAX).await?)? {
        let record: Bytes = reply::bytes(value)?.unwrap_or_default();
        let mark = serde_json::from_slice(&record)
            .map_err(|error| Error::Damaged { what: "mark of an endpoint", detail: error.to_string() })?;
        marks.push(mark);
    }
    Ok(marks)
}
