//! `branchline send`: events from a file or standard input to a source, in batches, several at a time. What is refused is
//! shown with where and why, and the rest of its batch is sent all the same. However it ends, what was sent and what was not is told.

mod answer; // What a batch was answered, event by event.
mod batch; // JSON in, batches of events out.
mod patience; // A router that takes nothing is asked again, for a while.
mod totals; // What became of all events.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, StatusCode, Uri};
use indicatif::ProgressBar;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::http::{Answer, Client, NoAnswer, Trust};
use super::plugin::units;
use super::signals::stop_on_signal;
use super::terminal;
use super::{DEFAULT_CONFIG, Error, runtime};
use crate::config::{Config, SourceAuth};
use crate::secret::Secret;
use answer::Answered;
use batch::Batch;
use patience::Patience;
use totals::{Input, Totals};

/// How long the reading of the input may take to end after the sending has: it may wait for someone who types.
const READING_ENDS_WITHIN: Duration = Duration::from_millis(200);

const INTERRUPTED: &str = "interrupted";

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
    /// For how long a router is asked again that can't be reached or takes nothing; `0s`: once only.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = units::parse_duration)]
    wait: Duration,
    /// Print a JSON object for each event.
    #[arg(long)]
    json: bool,
}

/// Sends the events.
pub fn run(options: &Options) -> Result<(), Error> {
    let (uri, key) = target(options)?;
    let client = Client::new(key.as_ref(), &options.trust).map_err(Error::Failed)?;
    let (input, bytes) = open(&options.file)?;
    let interrupted = stop_on_signal()?;
    let bar = terminal::progress(bytes);
    let patience = Patience::new(options.wait, bar.clone());
    let sending = Sending { client, uri, patience, interrupted, wait: options.wait };
    let totals = runtime()?.block_on(send_all(options, &sending, input, &bar))?;
    bar.finish_and_clear();
    totals.conclude(options.json)
}

/// What every batch is sent with.
struct Sending {
    client: Client,
    uri: Uri,
    patience: Patience,
    wait: Duration,
    /// Cancelled by the first signal.
    interrupted: CancellationToken,
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
        if std::io::stdin().is_terminal() {
            anstream::eprintln!("reading events from this terminal; Ctrl-D ends them");
        }
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
    sending: &Sending,
    input: Box<dyn Read + Send>,
    bar: &ProgressBar,
) -> Result<Totals, Error> {
    // Room for one batch: what is read ahead of the requests is bounded.
    let (batches, mut waiting) = mpsc::channel(1);
    let reading = read_on_a_thread(input, usize::from(options.batch), bar.clone(), batches)?;
    // A refusal that holds for every request ends the sending; what is under way still ends.
    let stop = sending.interrupted.child_token();
    let mut totals = Totals::default();
    let mut answers = Box::pin(
        futures_util::stream::poll_fn(|context| waiting.poll_recv(context))
            .take_until(stop.cancelled())
            .map(|batch| send_batch(sending, batch))
            .buffered(usize::from(options.concurrency)),
    );
    let mut tally = |answered: Answered| {
        for (number, fate) in answered.fates {
            totals.add(number, &fate, options.json, bar);
        }
        if !answered.is_for_all {
            bar.set_message(format!("{} accepted", totals.accepted()));
        }
    };
    let mut why = None;
    while let Some(answered) = answers.next().await {
        if answered.is_for_all && !stop.is_cancelled() {
            why = answered.why();
            stop.cancel();
        }
        tally(answered);
    }
    drop(answers);
    // What was read ahead and never sent.
    let why = why.or_else(|| stop.is_cancelled().then(|| INTERRUPTED.to_owned()));
    waiting.close();
    while let Some(batch) = waiting.recv().await {
        let mut answered = Answered { is_for_all: true, ..Answered::default() };
        answered.leave(&batch, why.as_deref().unwrap_or(INTERRUPTED), false);
        tally(answered);
    }
    totals.input = match tokio::time::timeout(READING_ENDS_WITHIN, reading).await {
        Ok(Ok(Ok(true))) => Input::Whole,
        Ok(Ok(Err(fault))) => Input::Faulty(fault),
        Ok(Ok(Ok(false)) | Err(_)) | Err(_) => Input::More,
    };
    totals.why = why;
    Ok(totals)
}

/// How reading ended: whether all was handed over, or what is wrong with the input.
type Reading = oneshot::Receiver<Result<bool, String>>;

/// Nobody has to wait for the thread: it may itself wait for input that never comes.
fn read_on_a_thread(
    input: Box<dyn Read + Send>,
    events_max: usize,
    bar: ProgressBar,
    batches: mpsc::Sender<Batch>,
) -> Result<Reading, Error> {
    let (ended, reading) = oneshot::channel();
    let read = move || {
        let input = BufReader::with_capacity(1 << 16, bar.wrap_read(input));
        let read = batch::read(input, events_max, |batch| batches.blocking_send(batch).is_ok());
        // Nobody wants to know any more where the sending has ended.
        let _ = ended.send(read);
    };
    let thread = std::thread::Builder::new().name("reading".to_owned()).spawn(read);
    thread.map_err(|error| Error::Failed(format!("the input can't be read: {error}")))?;
    Ok(reading)
}

/// Sends a batch until each of its events has its answer, patience ends, or a person ends it.
async fn send_batch(sending: &Sending, mut batch: Batch) -> Answered {
    let Sending { client, uri, patience, interrupted, wait } = sending;
    let mut answered = Answered::default();
    let mut tries = 0;
    // Every event has an id by now, so a batch that was stored without an answer is not stored twice.
    let mut may_be_stored = false;
    while !batch.is_empty() {
        if interrupted.is_cancelled() {
            answered.leave(&batch, INTERRUPTED, may_be_stored);
            break;
        }
        tries += 1;
        let answer = tokio::select! {
            answer = client.request(Method::POST, uri, Some(batch.body())) => answer,
            () = interrupted.cancelled() => {
                answered.leave(&batch, INTERRUPTED, true);
                break;
            }
        };
        let (asked, why, is_answer) = match answer {
            Ok(answer) if is_for_now(&answer) => (answer.retry_after, answer.describe(), true),
            Ok(answer) => {
                patience.taken();
                if answer.status == StatusCode::UNPROCESSABLE_ENTITY {
                    // The batch was refused as a whole: without what is wrong with it, it is taken.
                    batch = answered.refuse_faulty(batch, &answer);
                    tries = 0;
                    continue;
                }
                answered.settle(&batch, &answer);
                break;
            }
            Err(error) => {
                may_be_stored |= matches!(error, NoAnswer::Broken(..));
                (None, error.to_string(), false)
            }
        };
        let Some(pause) = patience.pause(&why, asked, tries) else {
            let given_up = format!("{why} (given up after {})", humantime::format_duration(*wait));
            answered.is_for_all = true;
            if is_answer && !may_be_stored {
                answered.refuse_all(&batch, &given_up);
            } else {
                answered.leave(&batch, &given_up, may_be_stored);
            }
            break;
        };
        tokio::select! { () = tokio::time::sleep(pause) => {} () = interrupted.cancelled() => {} }
    }
    answered
}

/// Whether the same request may be taken later.
fn is_for_now(answer: &Answer) -> bool {
    matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// An event's JSON text.
type EventText = Bytes;
