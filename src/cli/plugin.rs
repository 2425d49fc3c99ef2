//! `branchline plugin …`: from an empty folder to a plugin that a router runs. What these commands load, check and call
//! goes through the sandbox of `serve`, so what passes here passes there.

mod bench; // How long calls take.
mod build; // From sources to a component.
mod inspect; // What a file is, and whether a router would take it.
mod language; // The languages, and which one a folder is written in.
mod new; // A folder to begin with.
mod place; // Where a plugin's component is.
pub(super) mod sandbox; // The router's sandbox, at the terminal.
mod test; // Fixtures against a component.
mod tools; // Compilers and package managers: found, fetched, run.
pub(super) mod units; // Times, sizes and counts for people.

use clap::Subcommand;

use super::Error;

/// What `branchline plugin` can do.
#[derive(Subcommand)]
pub enum Command {
    /// Make a folder with a plugin that builds and passes its own test at once.
    New(new::Options),
    /// Build a plugin's folder into `plugin.wasm`.
    Build(build::Options),
    /// Say what a component is and needs, and whether a router would take it.
    Inspect(inspect::Options),
    /// Run a plugin's fixtures: an event and a config in, a verdict out.
    Test(test::Options),
    /// Measure how long calls take.
    Bench(bench::Options),
}

/// Runs one of them.
pub fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::New(options) => new::run(options),
        Command::Build(options) => build::run(options),
        Command::Inspect(options) => inspect::run(options),
        Command::Test(options) => test::run(options),
        Command::Bench(options) => bench::run(options),
    }
}

/// The file that `build` writes and the others look for.
const COMPONENT: &str = "plugin.wasm";

/// JSON on standard output.
fn print_json(value: &serde_json::Value) {
    outln!("{value:#}");
}
