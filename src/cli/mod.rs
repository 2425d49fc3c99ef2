//! The command line, one file per command. Exit codes: 0, 1 something failed, 2 wrong usage, 78 invalid config.

#[macro_use]
mod terminal; // Columns, colours, progress; first, since all of these print by its macros.

mod backtest; // What a change would have done to stored events.
mod bench; // How fast it is, beside a pipe that does nothing but HTTP.
mod check; // What is wrong with a config.
mod dead_letters; // What was given up.
mod demo; // Everything on one machine, nothing to install.
mod diff; // What differs, line by line.
mod door; // The way to a running router, or to the store of one that does not run.
mod events; // What was accepted, and what became of it.
mod explain; // Why an event went where it went.
mod http; // One request to a router, for the commands that talk to one.
mod logging; // Where logs go and what they look like.
mod manual; // Completions and man pages.
mod outcome; // Outcomes and attempts in words.
mod pages; // Lists that go on until they are full.
mod panics; // Panics as lines of the log.
mod plan; // What a config would change, before it does.
mod plugin; // From an empty folder to a plugin that a router runs.
mod replay; // Deliveries made again.
mod send; // Events from a file to a source.
mod serve; // The router.
mod signals; // SIGTERM and SIGINT.
mod tail; // What happens, as it happens.
mod test; // Tests of routes, on a clock that takes no time.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::plugin as sandbox;
use crate::{app, config};

/// Where the config is when nothing is said.
const DEFAULT_CONFIG: &str = "branchline.toml";

/// The exit code for a config that can't be used (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

/// The exit code for wrong usage, as clap has it.
const EXIT_USAGE: u8 = 2;

/// The exit code of `plan --detailed-exitcode` where there are changes: apart from 1, by which it fails, and 2, by which it is called wrongly.
const EXIT_CHANGES: u8 = 3;

/// An HTTP event router: stores each event durably, runs WebAssembly plugins over it, delivers it until it arrives.
#[derive(Parser)]
#[command(name = "branchline", version, propagate_version = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the router.
    Serve {
        /// A TOML or JSON file, or a folder of `*.toml` files.
        #[arg(long, short, default_value = DEFAULT_CONFIG, env = "BRANCHLINE_CONFIG")]
        config: PathBuf,
    },
    /// Find everything that is wrong with a config, without running it.
    Check(check::Options),
    /// See the whole job on this machine, with nothing installed: sample events, plugins, retries, a dead letter.
    Demo(demo::Options),
    /// Send events to a source: a file or standard input.
    Send(send::Options),
    /// See what a config would change, beside a running router or another config; nothing is changed.
    Plan(plan::Options),
    /// See what another plugin, condition or config would have made of stored events; nothing is sent.
    Backtest(backtest::Options),
    /// Say why each subscription gets an event or not, and what would be sent.
    Explain(explain::Options),
    /// List what was accepted, or show one event with what became of it.
    #[command(subcommand)]
    Events(events::Command),
    /// List what was given up; show, replay or throw away one of it.
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Make a selection of deliveries again.
    Replay(replay::Options),
    /// Watch events, attempts and outcomes as they happen.
    Tail(tail::Options),
    /// Measure events per second and CPU per event, beside a bare HTTP pipe in the same run.
    Bench(bench::Options),
    /// Run the tests that stand beside the routes: what is sent, when, and how it ends.
    Test(test::Options),
    /// Print the JSON Schema of the config, by which editors complete and check it.
    Schema,
    /// Write plugins: make, build, inspect, test and measure them.
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Print what a shell needs to complete commands and options.
    Completions(manual::Completions),
    /// Print the man page.
    Man(manual::Man),
    /// Compile the component on the standard input: the router's own child, see `plugin::Compiler`.
    #[command(name = sandbox::COMPILE_SUBCOMMAND, hide = true)]
    CompilePlugin,
}

/// Why a command failed. Its text is for the person at the terminal.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The config can't be used: exit code 78.
    #[error("{0}")]
    Config(String),
    /// What was asked for can't be done as it was asked: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Anything else: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// `plan --detailed-exitcode` found changes: exit code 3.
    #[error("there are changes")]
    Changes,
}

impl From<config::Errors> for Error {
    fn from(errors: config::Errors) -> Self {
        Self::Config(errors.to_string())
    }
}

impl From<app::Error> for Error {
    fn from(error: app::Error) -> Self {
        match error {
            app::Error::Invalid(_) | app::Error::Plugin(_) => Self::Config(error.to_string()),
            app::Error::Store(_) | app::Error::Accept(_) | app::Error::Admin(_) | app::Error::Send(_) => {
                Self::Failed(error.to_string())
            }
        }
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors; clap knows which stream and code is which.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
    };
    let done = match arguments.command {
        Command::Serve { config } => serve::run(&config),
        Command::Check(options) => check::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Send(options) => send::run(&options),
        Command::Plan(options) => plan::run(&options),
        Command::Backtest(options) => backtest::run(&options),
        Command::Explain(options) => explain::run(&options),
        Command::Events(command) => events::run(&command),
        Command::DeadLetters(command) => dead_letters::run(&command),
        Command::Replay(options) => replay::run(&options),
        Command::Tail(options) => tail::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Schema => {
            out!("{}", config::SCHEMA);
            Ok(())
        }
        Command::Plugin(command) => plugin::run(&command),
        Command::Completions(options) => {
            manual::completions(&options);
            Ok(())
        }
        Command::Man(options) => manual::man(&options),
        Command::CompilePlugin => sandbox::compile_for_parent().map_err(Error::Failed),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("branchline: {error}");
            ExitCode::from(match error {
                Error::Config(_) => EXIT_CONFIG,
                Error::Failed(_) => 1,
                Error::Usage(_) => EXIT_USAGE,
                Error::Changes => EXIT_CHANGES,
            })
        }
    }
}

/// Where the router compiles plugins: in a child, which is this program again.
fn compiler() -> Result<sandbox::Compiler, Error> {
    sandbox::Compiler::this_program().map_err(|error| Error::Failed(format!("this program's own file: {error}")))
}

/// The source of this name, or the config's only one.
fn source<'config>(config: &'config config::Config, name: Option<&str>) -> Result<&'config Arc<config::Source>, Error> {
    let names = || config.sources.iter().map(|source| format!("`{}`", source.name)).collect::<Vec<_>>().join(", ");
    match (name, config.sources.as_slice()) {
        (None, [only]) => Ok(only),
        (None, []) => Err(Error::Failed("the config has no source".to_owned())),
        (None, _) => {
            Err(Error::Usage(format!("the config has several sources; say `--source` with one of {}", names())))
        }
        (Some(name), sources) => sources
            .iter()
            .find(|source| *source.name == *name)
            .ok_or_else(|| Error::Failed(format!("the config has no source `{name}`; it has {}", names()))),
    }
}

/// The config that a command uses where none is named, as `serve` does: `branchline.toml` in the current folder, if it is there.
fn default_config() -> Option<PathBuf> {
    let path = PathBuf::from(DEFAULT_CONFIG);
    path.is_file().then_some(path)
}

/// A tokio runtime for a command.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Error::Failed(format!("the runtime could not be started: {error}")))
}
