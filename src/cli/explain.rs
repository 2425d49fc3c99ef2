//! `branchline explain`: for an event, why each subscription gets it or not, what its plugins decide, what would be sent, and
//! what became of it. Nothing is sent.

mod show; // For people.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::door::{Door, Way};
use super::terminal::print_json;
use super::{Error, compiler, runtime};
use crate::accept;
use crate::admin::explain::{Explanation, Question, explain};
use crate::app;
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::plugin::PluginHost;

/// The largest file of an event.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What `branchline explain` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// A stored event's id, or a file with an event; `-` is standard input.
    #[arg(value_name = "EVENT-ID|FILE")]
    event: String,
    /// The event's source; needed where several have an event of the id, or the config has several.
    #[arg(long)]
    source: Option<String>,
    /// This subscription only, with the headers of its request.
    #[arg(long, short)]
    subscription: Option<String>,
    /// Show the bodies of requests too. They hold what the payload holds.
    #[arg(long)]
    body: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    way: Way,
}

/// Explains an event: a file by the config that is given, or else by a running router; a stored one where it is stored.
pub fn run(options: &Options) -> Result<(), Error> {
    let Options { source, subscription, body, .. } = options;
    let question = Question { subscription: subscription.clone(), source: source.clone(), body: *body };
    let explanation = runtime()?.block_on(async {
        let is_file = options.event == "-" || Path::new(&options.event).is_file();
        if !is_file && looks_like_a_file(&options.event) {
            return Err(Error::Failed(format!("there is no file `{}`", options.event)));
        }
        if is_file && let Some(config) = options.way.config() {
            return of_file(options, &Config::load(&config)?, &question).await;
        }
        let door = Door::open(&options.way).await?;
        let explanation = if is_file {
            door.explain_given(&read(Path::new(&options.event))?, &question).await
        } else {
            door.explain(&options.event, &question).await
        };
        door.close().await?;
        explanation
    })?;
    if let Some(name) = subscription
        && explanation.subscriptions.is_empty()
        && explanation.gone.is_empty()
    {
        return Err(Error::Failed(format!("the config has no subscription `{name}`")));
    }
    if options.json {
        print_json(&explanation);
    } else {
        out!("{}", show::Shown(&explanation, &question));
    }
    Ok(())
}

/// Whether this is hardly meant as an event's id.
fn looks_like_a_file(text: &str) -> bool {
    [".json", ".ndjson", ".jsonl"].iter().any(|end| text.ends_with(end))
        || ["/", "./", "../"].iter().any(|start| text.starts_with(start))
}

/// By the config alone: no router and no store take part.
async fn of_file(options: &Options, config: &Config, question: &Question) -> Result<Explanation, Error> {
    let source = super::source(config, options.source.as_deref())?;
    let now = Clock::system().now();
    let text = read(Path::new(&options.event))?;
    let event = accept::read_event(&text, &source.name, now)
        .map_err(|fault| Error::Failed(format!("`{}` is no event: {fault}", options.event)))?;
    let plugins = PluginHost::start_with(&config.sandbox, compiler()?, Metrics::default());
    let plugins = plugins.map_err(|error| Error::Failed(error.to_string()))?;
    let snapshot = Arc::new(app::generation(config, &plugins).await?);
    Ok(explain(&snapshot, &plugins, &Arc::new(event), None, question, now).await?)
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |error| Error::Failed(format!("can't read `{}`: {error}", path.display()));
    let mut text = String::new();
    let input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(failed)?)
    };
    input.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}
