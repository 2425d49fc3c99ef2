//! `branchline plugin test`: every fixture of a plugin through the router's sandbox, with the time, memory and
//! instructions that it took beside the limits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::sandbox::{self, Counting, Limits};
use super::{COMPONENT, language, place, print_json, units};
use crate::cli::diff::diff;
use crate::cli::{Error, runtime};
use crate::config::PluginSpec;
use crate::plugin::{Fixture, Given, LogLine, Plugin, PluginHost, Trial, rehearsal};

/// What `branchline plugin test` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// A plugin's folder, or a component.
    #[arg(default_value = ".")]
    plugin: PathBuf,
    /// The folder of the fixtures [default: `fixtures` beside the component]
    #[arg(long)]
    fixtures: Option<PathBuf>,
    /// Only the fixtures whose name contains this.
    #[arg(short = 'k', value_name = "TEXT")]
    filter: Option<String>,
    /// Write what came into the fixtures as what must come.
    #[arg(long)]
    update: bool,
    #[command(flatten)]
    limits: Limits,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What became of one fixture.
struct Case {
    name: String,
    end: End,
    given: Option<Given>,
    /// The call, where there was one.
    cost: Option<Cost>,
    log: Vec<LogLine>,
}

enum End {
    Passed,
    Updated,
    /// Why, in lines.
    Failed(String),
}

struct Cost {
    duration: Duration,
    memory_bytes: usize,
    instructions: u64,
}

/// Runs the fixtures.
pub fn run(options: &Options) -> Result<(), Error> {
    let (component, folder) = locate(&options.plugin, options.fixtures.as_deref())?;
    let paths = fixtures(&folder, options.filter.as_deref())?;
    // A shipped component stands beside its folder, and a checkout's times say nothing of either.
    if component.starts_with(&options.plugin)
        && let Some(newer) = language::newer_source(&options.plugin, &component)
    {
        eprintln!(
            "branchline: `{}` is newer than `{}`; build it with `branchline plugin build`",
            newer.display(),
            component.display()
        );
    }
    let spec = options.limits.spec(&component);
    let cases = runtime()?.block_on(async {
        let host = sandbox::start(Counting::Instructions)?;
        let plugin = sandbox::load(&host, &spec).await?;
        let mut cases = Vec::new();
        for path in &paths {
            let case = case(&host, &plugin, path, options.update).await;
            if !options.json {
                show(&case);
            }
            cases.push(case);
        }
        Ok::<_, Error>(cases)
    })?;
    let failed = cases.iter().filter(|case| matches!(case.end, End::Failed(_))).count();
    if options.json {
        print_json(&report(&component, &spec, &cases));
    } else {
        summary(&spec, &cases);
    }
    match failed {
        0 => Ok(()),
        failed => Err(Error::Failed(format!("{failed} of {} fixtures failed", cases.len()))),
    }
}

/// The component and the folder of its fixtures.
fn locate(plugin: &Path, fixtures: Option<&Path>) -> Result<(PathBuf, PathBuf), Error> {
    let component = place::component(plugin)?;
    let folder = fixtures.map(Path::to_owned).or_else(|| rehearsal::beside(&component)).ok_or_else(|| {
        Error::Failed(format!(
            "`{}` has no fixtures: they are in `fixtures` beside `{COMPONENT}`, in `NAME/fixtures` beside `NAME.wasm`, or where `--fixtures` says",
            component.display()
        ))
    })?;
    Ok((component, folder))
}

fn fixtures(folder: &Path, filter: Option<&str>) -> Result<Vec<PathBuf>, Error> {
    let mut paths = rehearsal::files(folder).map_err(Error::Failed)?;
    paths.retain(|path| filter.is_none_or(|part| name(path).contains(part)));
    if paths.is_empty() {
        return Err(Error::Failed(format!("there are no such fixtures in `{}`", folder.display())));
    }
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_stem().map_or(String::new(), |name| name.to_string_lossy().into_owned())
}

async fn case(host: &PluginHost, plugin: &Arc<Plugin>, path: &Path, update: bool) -> Case {
    let name = name(path);
    let fixture = match Fixture::read(path) {
        Ok(fixture) => fixture,
        Err(why) => return Case { name, end: End::Failed(why), given: None, cost: None, log: Vec::new() },
    };
    let Trial { given, report } = fixture.run(host, plugin).await;
    let end = judge(&fixture, &given, update);
    let cost = report.as_ref().map(|report| Cost {
        duration: report.duration,
        memory_bytes: report.memory_bytes_peak,
        instructions: report.instructions.unwrap_or(0),
    });
    Case { name, end, given: Some(given), cost, log: report.map_or_else(Vec::new, |report| report.log) }
}

fn judge(fixture: &Fixture, given: &Given, update: bool) -> End {
    if fixture.holds(given) {
        return End::Passed;
    }
    if update && given.can_be_expected() {
        return match std::fs::write(&fixture.path, fixture.updated(given)) {
            Ok(()) => End::Updated,
            Err(error) => End::Failed(format!("can't write it: {error}\n")),
        };
    }
    let given = format!("{:#}", given.describe());
    match &fixture.expected {
        Some(expected) => End::Failed(diff(&format!("{expected:#}"), &given)),
        None => End::Failed(format!("it says nothing of what must come; `--update` writes it. This came:\n{given}\n")),
    }
}

fn show(case: &Case) {
    let word = match &case.end {
        End::Passed => "ok",
        End::Updated => "updated",
        End::Failed(_) => "FAILED",
    };
    let given = case.given.as_ref().map_or("unreadable", Given::word);
    out!("{word:<8} {:<32} {given:<15}", case.name);
    if let Some(cost) = &case.cost {
        out!(
            " {:>9} {:>10} {:>13} instructions",
            units::time(cost.duration),
            units::bytes(cost.memory_bytes),
            units::count(cost.instructions)
        );
    }
    outln!();
    if let End::Failed(why) = &case.end {
        for line in why.lines() {
            outln!("         {line}");
        }
        for line in &case.log {
            outln!("         log {:?}: {}", line.level, line.message);
        }
    }
}

fn summary(spec: &PluginSpec, cases: &[Case]) {
    let count = |of: fn(&End) -> bool| cases.iter().filter(|case| of(&case.end)).count();
    let failed = count(|end| matches!(end, End::Failed(_)));
    let updated = count(|end| matches!(end, End::Updated));
    let costs = || cases.iter().filter_map(|case| case.cost.as_ref());
    outln!(
        "\n{} passed, {failed} failed{}",
        cases.len() - failed - updated,
        if updated > 0 { format!(", {updated} updated") } else { String::new() }
    );
    outln!(
        "the most of any: {} of {}, {} of {}, {} instructions",
        units::time(costs().map(|cost| cost.duration).max().unwrap_or_default()),
        units::time(spec.deadline),
        units::bytes(costs().map(|cost| cost.memory_bytes).max().unwrap_or_default()),
        units::bytes(spec.memory_bytes_max),
        units::count(costs().map(|cost| cost.instructions).max().unwrap_or_default()),
    );
}

fn report(component: &Path, spec: &PluginSpec, cases: &[Case]) -> Value {
    let cases: Vec<_> = cases
        .iter()
        .map(|case| {
            let (result, why) = match &case.end {
                End::Passed => ("passed", None),
                End::Updated => ("updated", None),
                End::Failed(why) => ("failed", Some(why)),
            };
            json!({
                "name": case.name,
                "result": result,
                "why": why,
                "given": case.given.as_ref().map(Given::describe),
                "micros": case.cost.as_ref().map(|cost| cost.duration.as_micros()),
                "memoryBytesPeak": case.cost.as_ref().map(|cost| cost.memory_bytes),
                "instructions": case.cost.as_ref().map(|cost| cost.instructions),
                "log": case.log.iter().map(|line| json!({
                    "level": format!("{:?}", line.level).to_lowercase(),
                    "message": line.message,
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "component": component,
        "limits": {
            "deadlineMicros": spec.deadline.as_micros(),
            "memoryBytesMax": spec.memory_bytes_max,
            "outputBytesMax": spec.output_bytes_max,
        },
        "fixtures": cases,
    })
}
