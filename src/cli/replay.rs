//! `branchline replay`: a selection of deliveries made again, in steps at a bounded rate. What is left is told when it is
//! interrupted, and `--cursor` goes on from there.

mod progress; // How much of a replay is done.

use std::collections::BTreeMap;
use std::time::Duration;

use progress::Progress;
use tokio_util::sync::CancellationToken;

use super::door::{Door, Way};
use super::signals::stop_on_signal;
use super::terminal::{Columns, print_json};
use super::{Error, outcome, runtime};
use crate::admin::operations::LIMIT_MAX;
use crate::admin::operations::choice::Skip;
use crate::admin::operations::pairs::Status;
use crate::admin::operations::replay::{ReplayRequest, ReplayResult, ReplayStep, Selection};
use crate::clock::Clock;
use crate::delivery::DeliveryId;

/// How many deliveries one step makes again at most.
const STEP_MAX: u32 = 100;
/// How many it counts at most where it changes nothing.
const DRY_STEP_MAX: u32 = LIMIT_MAX as u32;

/// What `branchline replay` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Of these events.
    event_ids: Vec<String>,
    /// These dead letters, by the ids of their deliveries.
    #[arg(long, value_name = "DELIVERY", num_args = 1.., conflicts_with = "event_ids")]
    dead_letter: Vec<String>,
    /// Of events accepted from then on: RFC 3339, or `24h` for a time ago.
    #[arg(long)]
    since: Option<String>,
    /// Of events accepted before then.
    #[arg(long)]
    until: Option<String>,
    /// Of events of this type; `order.*` and `order.**` as in routes.
    #[arg(long = "type")]
    event_type: Option<String>,
    /// Of events of this source.
    #[arg(long)]
    source: Option<String>,
    /// To this subscription.
    #[arg(long, short)]
    subscription: Option<String>,
    /// That stand like this: `delivered`, `scheduled`, `filtered`, `dropped`, `dead-letter`, `discarded`, `unmatched`.
    #[arg(long, value_parser = status)]
    status: Option<Status>,
    /// So many at most.
    #[arg(long)]
    limit: Option<u64>,
    /// So many a second at most.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Also those that have succeeded or were thrown away.
    #[arg(long)]
    all: bool,
    /// Through today's plugins. Without it a dead letter and what waits is sent as the bytes that are kept, what has arrived
    /// or was thrown away only where no plugin had made it (else it is left alone, and that is said), and what was never sent
    /// goes through today's plugins, since there are no others.
    #[arg(long)]
    rerun: bool,
    /// Only count, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Go on where an earlier replay ended; the selection must be the same.
    #[arg(long)]
    cursor: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    way: Way,
}

fn status(text: &str) -> Result<Status, String> {
    serde_json::from_value(text.into()).map_err(|_| {
        "must be `delivered`, `scheduled`, `filtered`, `dropped`, `dead-letter`, `discarded` or `unmatched`".to_owned()
    })
}

impl Options {
    /// Whether anything is said of which deliveries.
    fn selects(&self) -> bool {
        let texts = [&self.since, &self.until, &self.event_type, &self.source, &self.subscription];
        let lists = [&self.event_ids, &self.dead_letter];
        texts.iter().any(|text| text.is_some()) || lists.iter().any(|list| !list.is_empty()) || self.status.is_some()
    }
}

/// What all steps did.
#[derive(Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    matched: u64,
    replayed: u64,
    /// By subscription, how many were made again or would be.
    subscriptions: BTreeMap<String, u64>,
    /// The same by subscription and by how they stood.
    statuses: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// By why, how many of them wait although they are due, since their endpoint is left alone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    waits: BTreeMap<&'static str, u64>,
    /// By why, how many were left as they are.
    skipped: BTreeMap<&'static str, u64>,
    /// Where to go on; null when all is done.
    cursor: Option<String>,
    /// Whether all is done.
    #[serde(skip)]
    is_over: bool,
}

/// Replays.
pub fn run(options: &Options) -> Result<(), Error> {
    if !options.selects() {
        return Err(Error::Usage(
            "which deliveries? Say it with event ids, `--dead-letter`, `--since`, `--until`, `--type`, `--source`, \
             `--subscription` or `--status`"
                .to_owned(),
        ));
    }
    let stop = stop_on_signal()?;
    let totals = runtime()?.block_on(async {
        let door = Door::open(&options.way).await?;
        let totals = replay(options, &door, &stop).await;
        door.close().await?;
        totals
    })?;
    if options.json {
        print_json(&totals);
    } else {
        show(options, &totals);
    }
    let gone = [Skip::EventGone, Skip::Gone].map(|why| totals.skipped.get(why.as_str()).copied().unwrap_or(0));
    let listed = (options.event_ids.len() + options.dead_letter.len()) as u64;
    if listed > 0 && gone.iter().sum::<u64>() == listed {
        return Err(Error::Failed("none of them is kept".to_owned()));
    }
    if stop.is_cancelled() && !totals.is_over {
        return Err(Error::Failed(format!("interrupted{}", totals.how_to_go_on())));
    }
    Ok(())
}

async fn replay(options: &Options, door: &Door, stop: &CancellationToken) -> Result<Totals, Error> {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let letters = some(&options.dead_letter);
    let mut request = ReplayRequest {
        selection: Selection {
            event_ids: some(&options.event_ids),
            dead_letters: letters.map(|ids| ids.iter().map(|id| DeliveryId::from_stored(id)).collect()),
            since: options.since.clone(),
            until: options.until.clone(),
            event_type: options.event_type.clone(),
            source: options.source.clone(),
            subscription: options.subscription.clone(),
            status: options.status,
        },
        all: options.all,
        rerun: options.rerun,
        dry_run: options.dry_run,
        cursor: options.cursor.clone(),
        limit: None,
    };
    let mut totals = Totals { cursor: options.cursor.clone(), ..Totals::default() };
    let mut progress = Progress::start(&request.selection, options.limit, Clock::system().now());
    loop {
        let left = options.limit.map_or(u64::MAX, |limit| limit.saturating_sub(totals.matched));
        if left == 0 || stop.is_cancelled() {
            break;
        }
        let step_max = if options.dry_run { DRY_STEP_MAX } else { STEP_MAX.min(options.rate) };
        let step = step_max.min(u32::try_from(left).unwrap_or(u32::MAX));
        request.limit = usize::try_from(step).ok();
        request.cursor.clone_from(&totals.cursor);
        let done = match door.replay(&request).await {
            Ok(done) => done,
            // What the step had done before it failed is not done twice when it is asked for again.
            Err(Error::Failed(why)) => return Err(Error::Failed(format!("{why}{}", totals.how_to_go_on()))),
            Err(error @ (Error::Config(_) | Error::Usage(_) | Error::Changes)) => return Err(error),
        };
        let made = u32::try_from(done.replayed).unwrap_or(u32::MAX);
        progress.step(&done);
        totals.add(done);
        if totals.cursor.is_none() {
            totals.is_over = true;
            break;
        }
        let pause = Duration::from_secs_f64(f64::from(made) / f64::from(options.rate));
        tokio::select! { () = tokio::time::sleep(pause) => {} () = stop.cancelled() => {} }
    }
    progress.end();
    Ok(totals)
}

impl Totals {
    fn add(&mut self, step: ReplayStep) {
        self.matched += step.matched as u64;
        self.replayed += step.replayed as u64;
        for (why, count) in step.skipped {
            *self.skipped.entry(why.as_str()).or_default() += count as u64;
        }
        for delivery in step.deliveries {
            match delivery.result {
                ReplayResult::WouldReplay | ReplayResult::Scheduled | ReplayResult::Hastened => {
                    let name = delivery.subscription.to_string();
                    *self.statuses.entry(name.clone()).or_default().entry(delivery.status.as_str()).or_default() += 1;
                    *self.subscriptions.entry(name).or_default() += 1;
                    if let Some(why) = delivery.waits.and_then(outcome::why) {
                        *self.waits.entry(why).or_default() += 1;
                    }
                }
                ReplayResult::Skipped(_) => {}
            }
        }
        self.cursor = step.cursor;
    }

    /// What is said after an end that is none.
    fn how_to_go_on(&self) -> String {
        match &self.cursor {
            Some(cursor) => format!("; the same with `--cursor {cursor}` goes on"),
            None => "; nothing was made again".to_owned(),
        }
    }
}

fn show(options: &Options, totals: &Totals) {
    let count = totals.subscriptions.values().sum::<u64>();
    let what = match (options.dry_run, count) {
        (true, _) => "would be made again",
        (false, 1) => "is due now",
        (false, _) => "are due now",
    };
    outln!("{count} {} {what}", if count == 1 { "delivery" } else { "deliveries" });
    let mut columns = Columns::indented(2);
    for (subscription, counts) in &totals.statuses {
        for (status, count) in counts {
            columns.add([subscription.into(), count.into(), status.into()]);
        }
    }
    for (why, count) in &totals.skipped {
        columns.add([format!("left as it is: {why}").into(), count.into()]);
    }
    out!("{columns}");
    for (why, count) in &totals.waits {
        outln!("{count} of them: {why}");
    }
    if totals.skipped.contains_key(Skip::OutputNotKept.as_str()) {
        outln!(
            "of what plugins made and has arrived no bytes are kept; --rerun makes it again through today's plugins"
        );
    }
    if let Some(cursor) = &totals.cursor {
        outln!("more: the same with --cursor {cursor}");
    }
}
