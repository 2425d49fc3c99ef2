//! A line for each outcome record, as it is written: read from the store, as an operator would.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::Arc;

use super::expected::Pair;
use crate::cli::Error;
use crate::clock::Timestamp;
use crate::delivery::{DeadLetterReason, Outcome, OutcomeRecord, Waiting};
use crate::event::Position;
use crate::settle;
use crate::store::{Cursor, Store};

/// How many records are read at a time.
const PAGE: usize = 256;

/// Reads outcomes and prints them.
pub struct Table {
    store: Arc<dyn Store>,
    began: Timestamp,
    cursor: Option<Cursor>,
    event_types: HashMap<Position, String>,
    finals: BTreeMap<Pair, &'static str>,
    retries: BTreeMap<String, u32>,
    in_colour: bool,
    has_head: bool,
}

impl Table {
    /// A table of what is written from now on; times are shown from `began`.
    pub fn new(store: Arc<dyn Store>, began: Timestamp) -> Self {
        Self {
            store,
            began,
            cursor: None,
            event_types: HashMap::new(),
            finals: BTreeMap::new(),
            retries: BTreeMap::new(),
            in_colour: std::io::stdout().is_terminal(),
            has_head: false,
        }
    }

    /// The final outcomes so far.
    pub fn finals(&self) -> &BTreeMap<Pair, &'static str> {
        &self.finals
    }

    /// Prints what has been written since the last call.
    pub async fn print_news(&mut self) -> Result<(), Error> {
        let failed = |error| Error::Failed(format!("the outcomes can't be read: {error}"));
        loop {
            let (records, cursor) = self.store.outcomes(self.cursor.clone(), PAGE).await.map_err(failed)?;
            self.cursor = Some(cursor);
            if records.is_empty() {
                return Ok(());
            }
            for record in records {
                self.print(&record).await?;
            }
        }
    }

    async fn print(&mut self, record: &OutcomeRecord) -> Result<(), Error> {
        let event_type = self.event_type(record.position).await?;
        let after = record.at.since(self.began).as_secs_f64();
        if !self.has_head {
            self.has_head = true;
            outln!("{:>8}  {:<21} {:<15} {:<12} what happened", "time", "event", "subscription", "outcome");
        }
        let (Some(subscription), Some(outcome)) = (&record.subscription, &record.outcome) else {
            outln!("{after:>7.3}s  {event_type:<21} {:<15} {:<12} no route wants it", "–", "unmatched");
            return Ok(());
        };
        if outcome.is_final() {
            self.finals.insert((event_type.clone(), subscription.to_string()), outcome.as_str());
        } else {
            *self.retries.entry(subscription.to_string()).or_default() += 1;
        }
        let word = self.coloured(outcome);
        outln!("{after:>7.3}s  {event_type:<21} {subscription:<15} {word} {}", describe(record, outcome));
        Ok(())
    }

    async fn event_type(&mut self, position: Position) -> Result<String, Error> {
        if let Some(known) = self.event_types.get(&position) {
            return Ok(known.clone());
        }
        let event = self.store.event(position).await;
        let event = event.map_err(|error| Error::Failed(format!("an event can't be read: {error}")))?;
        let event_type = event.map_or_else(|| "?".to_owned(), |event| event.event_type.to_string());
        self.event_types.insert(position, event_type.clone());
        Ok(event_type)
    }

    fn coloured(&self, outcome: &Outcome) -> String {
        let colour = match outcome {
            Outcome::Delivered => 32,
            Outcome::Scheduled { .. } => 33,
            Outcome::Filtered { .. } | Outcome::Dropped { .. } => 36,
            Outcome::DeadLetter { .. } | Outcome::Discarded { .. } => 31,
        };
        let word = format!("{:<12}", outcome.as_str());
        if self.in_colour { format!("\x1b[{colour}m{word}\x1b[0m") } else { word }
    }

    /// What became of how many, a line per subscription.
    pub fn summary(&self) -> String {
        let mut counts: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
        for ((_, subscription), outcome) in &self.finals {
            *counts.entry(subscription).or_default().entry(outcome).or_default() += 1;
        }
        let words = ["delivered", "filtered", "dropped", "dead-letter"];
        let mut text = format!(
            "{:<15} {:>9} {:>8} {:>7} {:>11} {:>7}\n",
            "subscription", words[0], words[1], words[2], words[3], "waits"
        );
        for (subscription, counts) in counts {
            let count = |word: &str| counts.get(word).copied().unwrap_or(0);
            let waits = self.retries.get(subscription).copied().unwrap_or(0);
            writeln!(
                text,
                "{subscription:<15} {:>9} {:>8} {:>7} {:>11} {waits:>7}",
                count(words[0]),
                count(words[1]),
                count(words[2]),
                count(words[3]),
            )
            .expect("writing to a string does not fail");
        }
        text
    }
}

fn describe(record: &OutcomeRecord, outcome: &Outcome) -> String {
    let last = record.attempts.last();
    let attempt = last.map_or_else(String::new, |last| {
        format!("{} in {} ms, attempt {}", settle::describe(last), last.duration_ms, last.number)
    });
    match outcome {
        Outcome::Delivered => attempt,
        Outcome::Scheduled { next, why: Waiting::Retry } => {
            format!("{attempt}; again in {:?}", next.since(record.at))
        }
        Outcome::Scheduled { why: Waiting::Parked, .. } => "waits for its turn".to_owned(),
        Outcome::Scheduled { why: Waiting::Breaker, .. } => "waits: a plugin of it keeps breaking".to_owned(),
        Outcome::Scheduled { why: Waiting::EndpointBreaker, .. } => "waits: its endpoint keeps failing".to_owned(),
        Outcome::Scheduled { why: Waiting::Paused, .. } => "waits: its endpoint is paused".to_owned(),
        Outcome::Scheduled { why: Waiting::Disabled, .. } => "waits: its endpoint is disabled".to_owned(),
        Outcome::Scheduled { why: Waiting::Detached, .. } => "its first attempt takes long; it goes on".to_owned(),
        Outcome::Scheduled { why: Waiting::Replay, .. } => "replayed".to_owned(),
        Outcome::Scheduled { why: Waiting::Unknown, .. } => "waits".to_owned(),
        Outcome::Filtered { reason } | Outcome::Discarded { reason } => reason.clone(),
        Outcome::Dropped { plugin, reason } => format!("by plugin `{plugin}`: {reason}"),
        Outcome::DeadLetter { reason: DeadLetterReason::Exhausted, detail } => detail.clone(),
        Outcome::DeadLetter { reason, detail } => format!("{}: {detail}", reason.as_str()),
    }
}
