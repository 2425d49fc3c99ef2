//! `branchline send`: events from a file or standard input to a source, in batches, several at a time. What is refused is
//! shown with where and why, and the rest of its batch is sent all the same.

mod answer; // What a batch was answered, event by event.
mod batch; // JSON in, batches of events out.

use std::fs::File;
use std::io::{BufReader, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, StatusCode, Uri};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::http::{Answer, Client, NoAnswer, ProblemError, Trust};
use super::terminal;
use super::{DEFAULT_CONFIG, Error, runtime};
use crate::config::{Config, SourceAuth};
use crate::secret::Secret;
use answer::{Answered, Fate};
use batch::Batch;

/// How often a batch is sent that a router can't take now.
const TRIES_MAX: u32 = 8;
/// The first wait where the router names none; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait, whatever the router names.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Refused events that are shown one by one.
const REFUSED_SHOWN_MAX: u64 = 20;

/// What `branchline send` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// One event, a JSON array, or events one after another (NDJSON); `-` is standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// The source's whole URL [default: from the config]
    #[arg(long)]
    url: Option<String>,
    /// The router's config, for its address and a key of the source.
    #[arg(long, short, default_value = DEFAULT_CONFIG, env = "BRANCHLINE_CONFIG")]
    config: PathBuf,
    /// Which source of the config, where it has several.
    #[arg(long)]
    source: Option<String>,
    /// A key of the source [default: from the config]
    #[arg(long, env = "BRANCHLINE_KEY", hide_env_values = true)]
    key: Option<String>,
    #[command(flatten)]
    trust: Trust,
    /// Events in one request; they are fewer where they are large.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Requests under way at one time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Print a JSON object for each event.
    #[arg(long)]
    json: bool,
}

/// Sends the events.
pub fn run(options: &Options) -> Result<(), Error> {
    let (uri, key) = target(options)?;
    let client = Client::new(key.as_ref(), &options.trust).map_err(Error::Failed)?;
    let (input, bytes) = open(&options.file)?;
    let bar = terminal::progress(bytes);
    let totals = runtime()?.block_on(send_all(options, client, uri, input, &bar))?;
    bar.finish_and_clear();
    totals.conclude(options.json)
}

/// Where to, and with which key.
fn target(options: &Options) -> Result<(Uri, Option<Secret>), Error> {
    let given = options.key.as_deref().map(Secret::new);
    if let Some(url) = &options.url {
        let uri: Uri = url.parse().map_err(|_| Error::Failed("`--url` is not a URL".to_owned()))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(Error::Failed("`--url` must begin with `http://` or `https://`".to_owned()));
        }
        return Ok((uri, given));
    }
    let config = Config::load(&options.config)?;
    let source = super::source(&config, options.source.as_deref())?;
    let mut address = config.ingest.listen;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let scheme = if config.ingest.tls.is_some() { "https" } else { "http" };
    let uri = format!("{scheme}://{address}{}", source.path);
    let uri = uri.parse().map_err(|_| Error::Failed(format!("source `{}` has no usable path", source.name)))?;
    let key = match &source.auth {
        SourceAuth::None => None,
        SourceAuth::Bearer(keys) => keys.first().cloned(),
        SourceAuth::ClientCertificate(_) => {
            let message = format!("source `{}` asks for a client certificate, which this command has not", source.name);
            return Err(Error::Failed(message));
        }
    };
    Ok((uri, given.or(key)))
}

/// The input, and how long it is where that is known.
fn open(path: &std::path::Path) -> Result<(Box<dyn Read + Send>, Option<u64>), Error> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let failed = |error| Error::Failed(format!("can't read `{}`: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::Failed(format!("`{}` is a folder; give a file of events", path.display())));
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

/// Reads on a thread of its own, sends several batches at a time, and prints what became of each event in order.
async fn send_all(
    options: &Options,
    client: Client,
    uri: Uri,
    input: Box<dyn Read + Send>,
    bar: &ProgressBar,
) -> Result<Totals, Error> {
    // Room for one batch: what is read ahead of the requests is bounded.
    let (batches, mut waiting) = mpsc::channel(1);
    let (events_max, read_bar) = (usize::from(options.batch), bar.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let input = BufReader::with_capacity(1 << 16, read_bar.wrap_read(input));
        batch::read(input, events_max, |batch| batches.blocking_send(batch).is_ok())
    });
    let batches = futures_util::stream::poll_fn(move |context| waiting.poll_recv(context));
    // A refusal that holds for every request ends the sending; what is under way still ends.
    let stop = CancellationToken::new();
    let mut answers = Box::pin(
        batches
            .take_until(stop.cancelled())
            .map(|batch| send_batch(&client, &uri, batch))
            .buffered(usize::from(options.concurrency)),
    );
    let mut totals = Totals::default();
    while let Some(answered) = answers.next().await {
        if answered.is_for_all {
            stop.cancel();
        }
        for (number, fate) in answered.fates {
            totals.add(number, &fate, options.json, bar);
        }
        bar.set_message(format!("{} accepted", totals.accepted));
    }
    drop(answers);
    let read = reading.await.map_err(|error| Error::Failed(format!("reading the events ended badly: {error}")))?;
    totals.fault = read.err();
    Ok(totals)
}

/// Sends a batch until each of its events has its answer.
async fn send_batch(client: &Client, uri: &Uri, mut batch: Batch) -> Answered {
    let mut answered = Answered::default();
    let mut tries = 0;
    while !batch.is_empty() {
        tries += 1;
        let (wait, why) = match client.request(Method::POST, uri, Some(batch.body())).await {
            Ok(answer) if answer.status.is_success() => {
                answered.accept(&batch, &answer);
                break;
            }
            Ok(answer) if answer.status == StatusCode::UNPROCESSABLE_ENTITY => {
                // The batch was refused as a whole: without what is wrong with it, it is taken.
                batch = answered.refuse_faulty(batch, &answer);
                tries = 0;
                continue;
            }
            Ok(answer) if is_for_now(&answer) => (answer.retry_after, answer.describe()),
            Ok(answer) => {
                answered.is_for_all = !matches!(answer.status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE);
                answered.refuse_all(&batch, &answer.describe());
                break;
            }
            // Every event has an id by now, so a batch that was stored after all is not stored twice.
            Err(error @ (NoAnswer::Unreachable(_) | NoAnswer::Broken(..))) => (None, error.to_string()),
        };
        if tries == TRIES_MAX {
            answered.is_for_all = true;
            answered.refuse_all(&batch, &format!("{why} (given up after {TRIES_MAX} tries)"));
            break;
        }
        let backoff = FIRST_WAIT.saturating_mul(1 << (tries - 1));
        tokio::time::sleep(wait.unwrap_or(backoff).min(WAIT_MAX)).await;
    }
    answered
}

/// Whether the same request may be taken later.
fn is_for_now(answer: &Answer) -> bool {
    matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// What became of all events.
#[derive(Default)]
struct Totals {
    accepted: u64,
    duplicates: u64,
    refused: u64,
    /// The only event's id, for a person who sent one.
    last_id: Option<String>,
    /// Why not all of the input was read.
    fault: Option<String>,
}

impl Totals {
    fn add(&mut self, number: u64, fate: &Fate, as_json: bool, bar: &ProgressBar) {
        let (status, id, errors): (_, Option<&str>, &[ProblemError]) = match fate {
            Fate::Accepted { id } => ("accepted", Some(id), &[]),
            Fate::Duplicate { id } => ("duplicate", Some(id), &[]),
            Fate::Refused { errors } => ("refused", None, errors),
        };
        match fate {
            Fate::Accepted { .. } => self.accepted += 1,
            Fate::Duplicate { .. } => self.duplicates += 1,
            Fate::Refused { .. } => self.refused += 1,
        }
        if as_json {
            let mut line = json!({ "event": number, "status": status });
            match id {
                Some(id) => line["id"] = id.into(),
                None => line["errors"] = json!(errors),
            }
            bar.suspend(|| terminal::print_json_line(&line));
            return;
        }
        self.last_id = id.map(str::to_owned).or(self.last_id.take());
        if errors.is_empty() || self.refused > REFUSED_SHOWN_MAX {
            return;
        }
        bar.suspend(|| {
            anstream::eprintln!("{}", terminal::styled(terminal::BAD, format_args!("event {number} was refused:")));
            for ProblemError { pointer, detail, .. } in errors {
                let place = if pointer.is_empty() { String::new() } else { format!("{pointer}: ") };
                anstream::eprintln!("  {place}{detail}");
            }
        });
    }

    fn conclude(self, as_json: bool) -> Result<(), Error> {
        let Self { accepted, duplicates, refused, last_id, fault } = self;
        if !as_json {
            match (accepted + duplicates, &last_id) {
                (1, Some(id)) => outln!("{id} {}", if accepted == 1 { "accepted" } else { "duplicate" }),
                (_, _) => outln!("{accepted} accepted, {duplicates} duplicates, {refused} refused"),
            }
        }
        let sent = accepted + duplicates;
        match fault {
            Some(fault) => Err(Error::Failed(format!("{fault}; the {sent} events before it were sent"))),
            None if refused > 0 => Err(Error::Failed(format!("{refused} of {} events were refused", sent + refused))),
            None => Ok(()),
        }
    }
}

/// An event's JSON text.
type EventText = Bytes;
