//! `branchline backtest`: stored events through a subscription as it is and as it would be, with the filter and the plugins
//! of `serve`, and what would have come out otherwise. Nothing is sent and nothing is written.

mod events; // Stored events, page by page.
mod show; // For people, and for programs.
mod tally; // What differs, counted.
mod version; // A subscription of one config, ready to decide.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;

use super::door::{Listener, Way};
use super::{DEFAULT_CONFIG, Error, compiler, runtime, terminal};
use crate::admin::operations::times;
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::plugin::PluginHost;
use tally::Tally;
use version::{Change, Version};

/// Events that are decided at one time: enough that no thread of the sandbox ever waits for the next.
const UNDER_WAY_MAX: usize = 64;

/// What `branchline backtest` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// The subscription.
    #[arg(long, short)]
    subscription: String,
    /// Events accepted from this time on: an RFC 3339 time, or how long ago, for example `24h`.
    #[arg(long, default_value = "24h")]
    since: String,
    /// Events accepted before this time.
    #[arg(long)]
    until: Option<String>,
    /// With this component in place of the subscription's plugin; `NAME=FILE` where it has several.
    #[arg(long, value_name = "[NAME=]FILE")]
    plugin: Option<String>,
    /// With this condition in place of the route's `where`; an empty one for none.
    #[arg(long = "where", value_name = "EXPRESSION")]
    condition: Option<String>,
    /// With the subscription of this config.
    #[arg(long, value_name = "PATH")]
    new_config: Option<PathBuf>,
    /// Alone, the same as `--new-config`. Beside `--plugin`, `--where` or `--new-config` the config that has the subscription as
    /// it is [default: BRANCHLINE_CONFIG, else branchline.toml]
    #[arg(long, short, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Where the events are.
    #[command(flatten)]
    listener: Listener,
    /// How many events, the newest.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// How many events of each kind of difference are shown. They hold what payloads hold.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=100))]
    samples: u8,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Options {
    /// The config that has the subscription as it is, and the one that has it as it would be, if that is another. `base` is
    /// the former where the options do not name it.
    fn configs(&self, base: PathBuf) -> Result<(PathBuf, Option<PathBuf>), Error> {
        let is_changed = self.plugin.is_some() || self.condition.is_some() || self.new_config.is_some();
        match &self.config {
            Some(config) if is_changed => Ok((config.clone(), self.new_config.clone())),
            None if is_changed => Ok((base, self.new_config.clone())),
            Some(config) if base.exists() => Ok((base, Some(config.clone()))),
            Some(_) => Err(Error::Usage(format!(
                "`--config` alone is the new config, and there is no `{}` to compare it with; name the old one with \
                 `--config OLD --new-config NEW`, or what is to be otherwise with `--plugin` or `--where`",
                base.display()
            ))),
            None => Err(Error::Usage(
                "say what is to be otherwise: `--plugin`, `--where`, `--new-config` or `--config`".to_owned(),
            )),
        }
    }
}

/// The config that a router here would run by.
fn base() -> PathBuf {
    std::env::var_os("BRANCHLINE_CONFIG").map_or_else(|| DEFAULT_CONFIG.into(), PathBuf::from)
}

/// Runs the events through both.
pub fn run(options: &Options) -> Result<(), Error> {
    let (config_path, new_path) = options.configs(base())?;
    let config = Config::load(&config_path)?;
    let new_config = new_path.as_deref().map(Config::load).transpose()?;
    let change = Change { plugin: options.plugin.as_deref(), condition: options.condition.as_deref() };
    let old = version::only(&config, &options.subscription, &Change::default())?;
    let new = version::only(new_config.as_ref().unwrap_or(&config), &options.subscription, &change)?;
    if old.is_none() && new.is_none() {
        return Err(Error::Failed(version::unknown(&config, &options.subscription)));
    }
    let tally = runtime()?.block_on(async {
        let plugins = PluginHost::start_with(&config.sandbox, compiler()?, Metrics::default());
        let plugins = Arc::new(plugins.map_err(|error| Error::Failed(error.to_string()))?);
        let old = Version::load(old, &options.subscription, &plugins).await?;
        let new = Version::load(new, &options.subscription, &plugins).await?;
        walk(options, config_path, Arc::new(old), Arc::new(new)).await
    })?;
    if options.json {
        terminal::print_json(&show::report(options, &tally));
    } else {
        out!("{}", show::Shown(options, &tally));
    }
    Ok(())
}

/// Decides the events of the time, newest first, several at a time; the tally sees them in order.
async fn walk(options: &Options, config: PathBuf, old: Arc<Version>, new: Arc<Version>) -> Result<Tally, Error> {
    let began = Instant::now();
    let now = Clock::system().now();
    let time = |field, text: &str| times::parse(field, text, now).map_err(Error::from);
    let since = time("--since", &options.since)?;
    let until = options.until.as_deref().map(|until| time("--until", until)).transpose()?;
    let way = Way { listener: options.listener.clone(), config: Some(config) };
    let (first, events) = events::read(way, since, until).await?;
    // How many there are nobody counts; but from when to when they are is known.
    let span = until.unwrap_or(now).since(first.unwrap_or(now));
    let bar = terminal::progress_share(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    let mut decided = events
        // One more, to know whether there is one.
        .take(usize::try_from(options.limit).unwrap_or(usize::MAX).saturating_add(1))
        .map(|event| {
            let (old, new) = (Arc::clone(&old), Arc::clone(&new));
            async move {
                let event = Arc::new(event?);
                let task = tokio::spawn(async move {
                    let (before, after) = (old.decide(&event).await, new.decide(&event).await);
                    (event, before, after)
                });
                task.await.map_err(|error| Error::Failed(format!("a decision ended badly: {error}")))
            }
        })
        .buffered(UNDER_WAY_MAX);
    let mut tally = Tally::new(usize::from(options.samples));
    while let Some(decision) = decided.next().await {
        let (event, before, after) = decision?;
        if tally.events == options.limit {
            tally.is_cut = true;
            break;
        }
        bar.set_position(u64::try_from(until.unwrap_or(now).since(event.accepted_at).as_millis()).unwrap_or(u64::MAX));
        tally.add(&event, before, after);
        bar.set_message(format!("{} events", tally.events));
    }
    drop(decided);
    bar.finish_and_clear();
    tally.took = began.elapsed();
    Ok(tally)
}
