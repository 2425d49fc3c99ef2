//! `branchline tail`: events, attempts and outcomes as they happen, until it is stopped.

use http_body_util::BodyExt;
use serde_json::Value;

use super::door::{Door, Way, query_of};
use super::signals::stop_on_signal;
use super::terminal::{BAD, FAINT, GOOD, HEAD, WAITS, styled};
use super::{Error, runtime};
use crate::admin::TailQuery;

/// The longest line that is read.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What `branchline tail` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// About events of this type; `order.*` and `order.**` as in routes.
    #[arg(long = "type")]
    event_type: Option<String>,
    /// About events of this source.
    #[arg(long)]
    source: Option<String>,
    /// For this subscription only.
    #[arg(long, short)]
    subscription: Option<String>,
    /// Print each line as the router tells it: a JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    way: Way,
}

/// Watches.
pub fn run(options: &Options) -> Result<(), Error> {
    let stop = stop_on_signal()?;
    runtime()?.block_on(async {
        let door = Door::open(&options.way).await?;
        tokio::select! { () = stop.cancelled() => Ok(()), ended = watch(options, &door) => ended }
    })
}

async fn watch(options: &Options, door: &Door) -> Result<(), Error> {
    let query = TailQuery {
        event_type: options.event_type.clone(),
        source: options.source.clone(),
        subscription: options.subscription.clone(),
    };
    let mut body = door.router()?.stream(&format!("/api/v1/tail?{}", query_of(&query))).await?.into_body();
    let mut unread = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::Failed(format!("the router went away: {error}")))?;
        unread.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            print(&line, options.json);
        }
        if unread.len() > LINE_BYTES_MAX {
            return Err(Error::Failed("the answer is not one of a router: a line does not end".to_owned()));
        }
    }
    Err(Error::Failed("the router has stopped".to_owned()))
}

fn print(line: &[u8], as_json: bool) {
    let Ok(line) = serde_json::from_slice::<Value>(line) else { return };
    if line["kind"] == "idle" {
        return;
    }
    if as_json {
        outln!("{line}");
        return;
    }
    outln!("{}", describe(&line));
}

/// A line for people: whatever the router tells, in a fixed order.
fn describe(line: &Value) -> String {
    let text = |value: &Value| {
        value.as_str().map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
    };
    let kind = text(&line["kind"]);
    let style = match (kind.as_str(), line["outcome"].as_str(), line["attempt"]["status"].as_u64()) {
        ("missed", ..) => WAITS,
        (_, Some("delivered"), _) | (_, _, Some(200..=299)) => GOOD,
        (_, Some("dead-letter"), _) => BAD,
        ("accepted", ..) => HEAD,
        (..) => FAINT,
    };
    let parts = [
        &line["at"],
        &line["event"]["id"],
        &line["event"]["eventType"],
        &line["subscription"],
        &line["attempt"]["summary"],
        &line["outcome"],
        &line["reason"],
        &line["next"],
        &line["count"],
    ];
    let parts: Vec<_> = parts.into_iter().map(text).filter(|part| !part.is_empty()).collect();
    format!("{}  {}", styled(style, format_args!("{kind:<8}")), parts.join("  "))
}
