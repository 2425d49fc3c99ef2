//! `branchline plan`: what a config would change, before it does: what is added, removed and changed beside a running router or
//! another config, and what becomes of the deliveries that wait. The config is checked as `serve` checks it; nothing is changed.

mod changes; // What differs.
mod effects; // What follows from it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anstyle::Style;
use changes::{Change, Mark, Waiting};
use serde_json::json;

use super::door::{Access, Door, Listener, Way, admin_url};
use super::terminal::{BAD, GOOD, WAITS, print_json, styled};
use super::{DEFAULT_CONFIG, Error, compiler, runtime};
use crate::admin::operations::deliveries::DeliveriesQuery;
use crate::app;
use crate::config::{Config, Description, Environment, SecretPrints, StoreUrl};
use crate::store::embedded;

/// What `branchline plan` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// The config that is to come: a TOML or JSON file, or a folder of `*.toml` files.
    #[arg(default_value = DEFAULT_CONFIG, env = "BRANCHLINE_CONFIG")]
    path: PathBuf,
    /// The admin listener of the router that is to get it [default: the one that the config names]
    #[arg(long, value_name = "URL")]
    against: Option<String>,
    /// Compare with this config instead of a running router's; what waits is looked for where it has its store.
    #[arg(long, value_name = "PATH", conflicts_with = "against")]
    from: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
    /// Go on with something of their shape where secrets are not there; these are not compared.
    #[arg(long)]
    stand_ins: bool,
    /// End with exit code 3 when there are changes.
    #[arg(long)]
    detailed_exitcode: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What the config is compared with.
struct Present {
    /// For people: "generation 3 of the router at …".
    shown: String,
    description: Description,
    /// The secrets that are others than in the config that is to come.
    differing: Vec<String>,
    /// Where to ask what waits, or why that can't be told.
    waiting: Result<Option<Door>, String>,
}

/// Compares.
pub fn run(options: &Options) -> Result<(), Error> {
    let config = read(&options.path, options.stand_ins)?;
    runtime()?.block_on(async {
        let coming = app::check(&config, compiler()?).await?.description;
        let prints = SecretPrints::of(&coming, drawn_key()?);
        let present = match &options.from {
            Some(path) => of_config(options, path, &prints).await?,
            None => of_router(options, &config, &prints).await?,
        };
        let mut changes = changes::changes(&present.description, &coming, &present.differing);
        let mut unknown = present.waiting.as_ref().err().cloned();
        if let Ok(door) = present.waiting {
            if let Err(error) = count_waiting(door.as_ref(), &present.description, &mut changes).await {
                unknown = Some(error.to_string());
            }
            if let Some(door) = door {
                door.close().await?;
            }
        }
        if options.json {
            print_json(&json!({ "against": present.shown, "changes": changes, "waitingUnknown": unknown }));
        } else {
            print(&changes, &present.shown, unknown.as_deref());
        }
        if options.detailed_exitcode && !changes.is_empty() { Err(Error::Changes) } else { Ok(()) }
    })
}

fn read(path: &Path, stand_ins: bool) -> Result<Config, Error> {
    let environment = Environment::of_process();
    let environment = if stand_ins { environment.with_stand_ins() } else { environment };
    Ok(Config::load_with_environment(path, &environment)?)
}

/// A key for one question.
fn drawn_key() -> Result<String, Error> {
    let draw = || getrandom::u64().map_err(|error| Error::Failed(format!("the system gives no random bytes: {error}")));
    Ok(format!("{:016x}{:016x}", draw()?, draw()?))
}

async fn of_router(options: &Options, config: &Config, prints: &SecretPrints) -> Result<Present, Error> {
    let url = options.against.clone().unwrap_or_else(|| admin_url(config));
    let from_config = || config.admin.tokens.first().map(|token| token.expose().to_owned());
    let access = Access { token: options.access.token.clone().or_else(from_config), ..options.access.clone() };
    let way = Way { listener: Listener { url: Some(url.clone()), access }, config: None };
    let advice = "`--against URL` names another router, `--from PATH` the config in use";
    let door = Door::open_advising(&way, advice).await?;
    let compared = door.router()?.compare(prints).await?;
    Ok(Present {
        shown: format!("generation {} of the router at {url}", compared.generation),
        description: compared.description,
        differing: compared.differing,
        waiting: Ok(Some(door)),
    })
}

async fn of_config(options: &Options, path: &Path, prints: &SecretPrints) -> Result<Present, Error> {
    let config = read(path, options.stand_ins)?;
    let description = app::check(&config, compiler()?).await?.description;
    let waiting = match &config.store.url {
        _ if options.stand_ins => Err("secrets are stood in for, and the store may be one".to_owned()),
        // Opening would make it.
        StoreUrl::File(folder) if !embedded::is_there(folder) => Ok(None),
        StoreUrl::File(_) | StoreUrl::Redis(_) => {
            let listener = Listener { url: None, access: options.access.clone() };
            let way = Way { listener, config: Some(path.to_owned()) };
            Door::open(&way).await.map(Some).map_err(|error| error.to_string())
        }
    };
    let (shown, differing) = (format!("`{}`", path.display()), prints.differing(&description));
    Ok(Present { shown, description, differing, waiting })
}

/// Says of each change how many deliveries it concerns; without a door there is no store, and nothing waits.
async fn count_waiting(door: Option<&Door>, before: &Description, changes: &mut [Change]) -> Result<(), Error> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    for change in changes {
        let concerned = effects::concerned(change, before);
        if concerned.is_empty() {
            continue;
        }
        let (mut waiting, mut rescheduled) = (0, 0);
        for subscription in concerned {
            let count = match (counts.get(&subscription), door) {
                (Some(count), _) => *count,
                (None, None) => 0,
                (None, Some(door)) => {
                    let query = DeliveriesQuery {
                        subscription: Some(subscription.clone()),
                        limit: Some(1),
                        count: true,
                        cursor: None,
                    };
                    let count = door.deliveries(&query).await?.count;
                    count.ok_or_else(|| {
                        Error::Failed("the router is of a version that does not count them".to_owned())
                    })?
                }
            };
            waiting += count;
            if effects::is_rescheduled(change, &subscription, before) {
                rescheduled += count;
            }
            counts.insert(subscription, count);
        }
        change.effects.extend(effects::for_waiting(change, waiting, rescheduled));
        change.waiting = Some(Waiting { count: waiting });
    }
    Ok(())
}

fn style(mark: Mark) -> Style {
    match mark {
        Mark::Added => GOOD,
        Mark::Removed => BAD,
        Mark::Changed => WAITS,
    }
}

fn print(changes: &[Change], against: &str, unknown: Option<&str>) {
    for change in changes {
        let line = format!("{} {} `{}`", change.mark.as_str(), change.kind, change.name);
        outln!("{}", styled(style(change.mark), line));
        for key in &change.keys {
            outln!("    {key}");
        }
        for effect in &change.effects {
            outln!("  → {effect}");
        }
    }
    if let Some(why) = unknown {
        outln!("\nhow many deliveries wait is not known: {why}");
    }
    let count = |mark| changes.iter().filter(|change| change.mark == mark).count();
    match changes.len() {
        0 => outln!("no changes, compared with {against}"),
        _ => outln!(
            "\n{} to add, {} to change, {} to remove, compared with {against}",
            count(Mark::Added),
            count(Mark::Changed),
            count(Mark::Removed)
        ),
    }
}
