//! `branchline events`: what was accepted, newest first unless told otherwise, and one event with what became of it.

use super::door::{Door, Way};
use super::pages::filled;
use super::terminal::{Cell, Columns, HEAD, print_json, styled};
use super::{Error, outcome, runtime};
use crate::admin::operations::events::{EventsPage, EventsQuery};

/// What `branchline events` can do.
#[derive(clap::Subcommand)]
pub enum Command {
    /// List events, newest first unless told otherwise.
    List(List),
    /// Show one event with its payload and what became of it.
    Show(Show),
}

/// What `list` can be told.
#[derive(clap::Args)]
pub struct List {
    /// Of this type; `order.*` and `order.**` as in routes.
    #[arg(long = "type")]
    event_type: Option<String>,
    /// Of this source.
    #[arg(long)]
    source: Option<String>,
    /// Of this aggregate.
    #[arg(long)]
    aggregate_id: Option<String>,
    /// Accepted from then on: RFC 3339, or `24h` for a time ago.
    #[arg(long)]
    since: Option<String>,
    /// Accepted before then.
    #[arg(long)]
    until: Option<String>,
    /// Oldest first instead of newest first.
    #[arg(long)]
    oldest_first: bool,
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
pub struct Show {
    /// The event's id.
    id: String,
    /// Its source, where several have an event of the id.
    #[arg(long)]
    source: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    way: Way,
}

/// Does one of them.
pub fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::List(options) => runtime()?.block_on(list(options)),
        Command::Show(options) => runtime()?.block_on(show(options)),
    }
}

async fn list(options: &List) -> Result<(), Error> {
    let door = Door::open(&options.way).await?;
    let query = EventsQuery {
        event_type: options.event_type.clone(),
        source: options.source.clone(),
        aggregate_id: options.aggregate_id.clone(),
        since: options.since.clone(),
        until: options.until.clone(),
        limit: None,
        cursor: None,
        oldest_first: options.oldest_first,
        payload: false,
    };
    let (events, cursor) = filled(options.limit, options.cursor.clone(), async |limit, cursor| {
        let page = door.events(&EventsQuery { limit: Some(limit), cursor, ..query.clone() }).await?;
        Ok((page.events, page.cursor))
    })
    .await?;
    door.close().await?;
    if options.json {
        print_json(&EventsPage { events, cursor });
        return Ok(());
    }
    let mut columns = Columns::with_head(&["accepted", "id", "type", "source", "aggregate"]);
    for event in &events {
        columns.add([
            event.accepted_at.into(),
            Cell::from(&event.id),
            Cell::from(&event.event_type),
            Cell::from(&event.source),
            Cell::from(&event.aggregate_id),
        ]);
    }
    out!("{columns}");
    if let Some(cursor) = &cursor {
        outln!("more: --cursor {cursor}");
    }
    Ok(())
}

async fn show(options: &Show) -> Result<(), Error> {
    let door = Door::open(&options.way).await?;
    let detail = door.event(&options.id, options.source.as_deref()).await?;
    door.close().await?;
    if options.json {
        print_json(&detail);
        return Ok(());
    }
    let event = &detail.event;
    outln!(
        "{}  {} from `{}`, accepted {}\n{}",
        styled(HEAD, &event.id),
        event.event_type,
        event.source,
        event.accepted_at,
        event.payload,
    );
    if detail.outcomes.is_empty() {
        outln!("\nit waits for its first attempts");
    }
    for pair in &detail.outcomes {
        let name = pair.subscription.as_deref().unwrap_or("no route wants it");
        outln!("\n{}  {}", styled(HEAD, name), styled(outcome::style(pair.status), pair.status.as_str()));
        let mut shown = None;
        for view in pair.before.iter().chain(&pair.last) {
            outln!("  {}  {}", view.at, outcome::describe(view));
            // Each has those of before, too, until it is replayed.
            for attempt in view.attempts.iter().filter(|attempt| Some(attempt.at) > shown) {
                outln!("    {}", outcome::attempt(attempt));
            }
            shown = view.attempts.last().map(|attempt| attempt.at).max(shown);
        }
        if let Some(waiting) = &pair.waiting {
            outln!("  due {}", outcome::due(waiting));
        }
    }
    Ok(())
}
