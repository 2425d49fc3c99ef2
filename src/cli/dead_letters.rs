//! `branchline dead-letters`: what was given up, made again or thrown away.

use super::door::{Door, Way};
use super::pages::filled;
use super::terminal::{Cell, Columns, HEAD, print_json, styled};
use super::{Error, outcome, runtime};
use crate::admin::operations::dead_letters::{DeadLettersPage, DeadLettersQuery, REASONS};
use crate::delivery::{DeadLetterReason, DeliveryId};

/// What `branchline dead-letters` can do.
#[derive(clap::Subcommand)]
pub enum Command {
    /// List dead letters, newest first.
    List(List),
    /// Show one with its attempts and what would be sent.
    Show(One),
    /// Make its delivery again.
    Replay(Replay),
    /// Throw it away, with a reason that is recorded.
    Discard(Discard),
}

/// What `list` can be told.
#[derive(clap::Args)]
pub struct List {
    /// Of this subscription.
    #[arg(long, short)]
    subscription: Option<String>,
    /// Given up for this reason: `exhausted`, `gone`, `plugin`, `not-retryable`, `subscription-removed`, `panicked`.
    #[arg(long, value_parser = reason)]
    reason: Option<DeadLetterReason>,
    /// Of events of this type; `order.*` and `order.**` as in routes.
    #[arg(long = "type")]
    event_type: Option<String>,
    /// Given up from then on: RFC 3339, or `24h` for a time ago.
    #[arg(long)]
    since: Option<String>,
    /// Given up before then.
    #[arg(long)]
    until: Option<String>,
    /// How many.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Go on where an earlier list ended.
    #[arg(long)]
    cursor: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    way: Way,
}

/// What `show` can be told.
#[derive(clap::Args)]
pub struct One {
    /// The delivery's id, `dlv_…`.
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    way: Way,
}

/// What `replay` can be told.
#[derive(clap::Args)]
pub struct Replay {
    #[command(flatten)]
    one: One,
    /// Through today's plugins, although the bytes of before are kept.
    #[arg(long)]
    rerun: bool,
}

/// What `discard` can be told.
#[derive(clap::Args)]
pub struct Discard {
    #[command(flatten)]
    one: One,
    /// Why.
    #[arg(long)]
    reason: String,
}

/// Does one of them.
pub fn run(command: &Command) -> Result<(), Error> {
    runtime()?.block_on(async {
        match command {
            Command::List(options) => list(options).await,
            Command::Show(options) => show(options).await,
            Command::Replay(options) => replay(options).await,
            Command::Discard(options) => discard(options).await,
        }
    })
}

fn reason(text: &str) -> Result<DeadLetterReason, String> {
    let known = serde_json::from_value(text.into()).ok().filter(|reason| *reason != DeadLetterReason::Unknown);
    known.ok_or_else(|| REASONS.to_owned())
}

async fn list(options: &List) -> Result<(), Error> {
    let door = Door::open(&options.way).await?;
    let query = DeadLettersQuery {
        subscription: options.subscription.clone(),
        reason: options.reason,
        event_type: options.event_type.clone(),
        since: options.since.clone(),
        until: options.until.clone(),
        limit: None,
        cursor: None,
    };
    let (dead_letters, cursor) = filled(options.limit, options.cursor.clone(), async |limit, cursor| {
        let page = door.dead_letters(&DeadLettersQuery { limit: Some(limit), cursor, ..query.clone() }).await?;
        Ok((page.dead_letters, page.cursor))
    })
    .await?;
    door.close().await?;
    if options.json {
        print_json(&DeadLettersPage { dead_letters, cursor });
        return Ok(());
    }
    let mut columns = Columns::with_head(&["given up", "delivery", "subscription", "event", "type", "reason"]);
    for letter in &dead_letters {
        columns.add([
            letter.at.into(),
            letter.delivery_id.clone().into(),
            Cell::from(&letter.subscription),
            Cell::from(&letter.event.id),
            Cell::from(&letter.event.event_type),
            format!("{}: {}", letter.reason.as_str(), letter.detail).into(),
        ]);
    }
    out!("{columns}");
    if let Some(cursor) = &cursor {
        outln!("more: --cursor {cursor}");
    }
    Ok(())
}

async fn show(options: &One) -> Result<(), Error> {
    let door = Door::open(&options.way).await?;
    let letter = door.dead_letter(&DeliveryId::from_stored(&options.id)).await?;
    door.close().await?;
    if options.json {
        print_json(&letter);
        return Ok(());
    }
    let (event, work) = (&letter.event, &letter.work);
    outln!("{}  {} of `{}`, for `{}`", styled(HEAD, &letter.delivery_id), event.id, event.source, letter.subscription);
    outln!("  given up {}, {}: {}", letter.at, letter.reason.as_str(), letter.detail);
    for attempt in &letter.attempts {
        outln!("  {}", outcome::attempt(attempt));
    }
    match (&work.content_type, &work.body) {
        (Some(content_type), Some(body)) => outln!("  would send {content_type}: {body}"),
        (Some(content_type), None) => outln!("  would send {} bytes of {content_type}", work.body_bytes),
        (None, _) => outln!("  its plugins would run again"),
    }
    Ok(())
}

async fn replay(options: &Replay) -> Result<(), Error> {
    let door = Door::open(&options.one.way).await?;
    let replayed = door.replay_dead_letter(&DeliveryId::from_stored(&options.one.id), options.rerun).await?;
    door.close().await?;
    if options.one.json {
        print_json(&replayed);
    } else {
        outln!("{} is due now, for `{}`", replayed.delivery_id, replayed.subscription);
        if let Some(why) = replayed.waits.and_then(outcome::why) {
            outln!("{why}");
        }
    }
    Ok(())
}

async fn discard(options: &Discard) -> Result<(), Error> {
    let door = Door::open(&options.one.way).await?;
    door.discard(&DeliveryId::from_stored(&options.one.id), &options.reason).await?;
    door.close().await?;
    if options.one.json {
        print_json(&serde_json::json!({ "deliveryId": options.one.id, "discarded": true }));
    } else {
        outln!("{} is thrown away", options.one.id);
    }
    Ok(())
}
