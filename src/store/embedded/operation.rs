//! What the writer is asked to do. An operation is applied within a transaction that it shares with
//! others, and finished, which tells memory and the asker, when that is on disk.

mod accept; // Events come in.
mod damaged; // Events that can't be read are put aside.
mod replay; // What an operator changes by hand.
mod settle; // Events and deliveries are settled.
mod upkeep; // Trimming, hastening, endpoints' marks.

use tokio::sync::oneshot;

use super::super::Error;
use super::memory::Memory;
use super::writer::Batch;

pub(super) use accept::Append;
pub(super) use damaged::PutAside;
pub(super) use replay::{Discard, RecordAudit, RememberSources, ReplayDelivery};
pub(super) use settle::{Letter, NextRow, Placing, SettleDelivery, SettleEvent};
pub(super) use upkeep::{Hasten, Mark, Trim, Unmark};

/// Where the asker waits. Nobody does when the asker was dropped: what it asked for is done all the same.
pub(super) type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// One thing to write.
#[derive(Debug)]
pub(super) enum Operation {
    Append(Append),
    SettleEvent(SettleEvent),
    SettleDelivery(SettleDelivery),
    Hasten(Hasten),
    Trim(Trim),
    Mark(Mark),
    Unmark(Unmark),
    PutAside(PutAside),
    Replay(ReplayDelivery),
    Discard(Discard),
    RecordAudit(RecordAudit),
    RememberSources(RememberSources),
}

impl Operation {
    /// How many bytes it writes, roughly.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append(append) => append.bytes(),
            Self::SettleEvent(settle) => settle.bytes(),
            Self::SettleDelivery(settle) => settle.bytes(),
            Self::Replay(replay) => replay.bytes(),
            Self::Hasten(_) | Self::Trim(_) | Self::Mark(_) | Self::Unmark(_) | Self::PutAside(_) => 0,
            Self::Discard(_) | Self::RecordAudit(_) | Self::RememberSources(_) => 0,
        }
    }

    /// Whether it only makes the store larger, so that it is refused when there is little room.
    pub(super) fn grows(&self) -> bool {
        match self {
            Self::Append(_) | Self::Replay(_) => true,
            Self::SettleEvent(_) | Self::SettleDelivery(_) => false,
            Self::Hasten(_) | Self::Trim(_) | Self::Mark(_) | Self::Unmark(_) | Self::PutAside(_) => false,
            Self::Discard(_) | Self::RecordAudit(_) | Self::RememberSources(_) => false,
        }
    }

    /// Whether it is tried again until there is room: a claim is given up with it, so a refusal would strand its event.
    pub(super) fn must_be_written(&self) -> bool {
        match self {
            Self::SettleEvent(_) | Self::SettleDelivery(_) => true,
            Self::Append(_) | Self::Replay(_) => false,
            Self::Hasten(_) | Self::Trim(_) | Self::Mark(_) | Self::Unmark(_) | Self::PutAside(_) => false,
            Self::Discard(_) | Self::RecordAudit(_) | Self::RememberSources(_) => false,
        }
    }

    /// Writes it within the batch. May be called again, when the batch was rolled back.
    pub(super) fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), rusqlite::Error> {
        match self {
            Self::Append(append) => append.apply(batch),
            Self::SettleEvent(settle) => settle.apply(batch),
            Self::SettleDelivery(settle) => settle.apply(batch),
            Self::Hasten(hasten) => hasten.apply(batch),
            Self::Trim(trim) => trim.apply(batch),
            Self::Mark(mark) => mark.apply(batch),
            Self::Unmark(unmark) => unmark.apply(batch),
            Self::PutAside(aside) => aside.apply(batch),
            Self::Replay(replay) => replay.apply(batch),
            Self::Discard(discard) => discard.apply(batch),
            Self::RecordAudit(audit) => audit.apply(batch),
            Self::RememberSources(sources) => sources.apply(batch),
        }
    }

    /// Tells memory and the asker that it is on disk.
    pub(super) fn finish(self, memory: &Memory) {
        match self {
            Self::Append(append) => append.finish(memory),
            Self::SettleEvent(settle) => settle.finish(memory),
            Self::SettleDelivery(settle) => settle.finish(memory),
            Self::Hasten(hasten) => hasten.finish(memory),
            Self::Trim(trim) => trim.finish(),
            Self::Mark(mark) => mark.finish(),
            Self::Unmark(unmark) => unmark.finish(),
            Self::PutAside(aside) => aside.finish(memory),
            Self::Replay(replay) => replay.finish(memory),
            Self::Discard(discard) => discard.finish(),
            Self::RecordAudit(audit) => audit.finish(),
            Self::RememberSources(sources) => sources.finish(),
        }
    }

    /// Tells the asker that it is not done, or that this is unknown.
    pub(super) fn refuse(self, error: Error) {
        match self {
            Self::Append(append) => tell(append.answer, Err(error)),
            Self::SettleEvent(settle) => tell(settle.answer, Err(error)),
            Self::SettleDelivery(settle) => tell(settle.answer, Err(error)),
            Self::Hasten(hasten) => tell(hasten.answer, Err(error)),
            Self::Trim(trim) => tell(trim.answer, Err(error)),
            Self::Mark(mark) => tell(mark.answer, Err(error)),
            Self::Unmark(unmark) => tell(unmark.answer, Err(error)),
            Self::PutAside(aside) => tell(aside.answer, Err(error)),
            Self::Replay(replay) => tell(replay.answer, Err(error)),
            Self::Discard(discard) => tell(discard.answer, Err(error)),
            Self::RecordAudit(audit) => tell(audit.answer, Err(error)),
            Self::RememberSources(sources) => tell(sources.answer, Err(error)),
        }
    }
}

/// Answers; the asker may be gone.
fn tell<T>(answer: Answer<T>, result: Result<T, Error>) {
    drop(answer.send(result));
}
