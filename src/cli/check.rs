//! `branchline check`: everything that can be wrong with a config, found as `serve` finds it at start, for people, programs,
//! code scanners and CI. Needs no store and no network; exit code 78 exactly where `serve` would refuse the config.
//! With `--online` it asks name servers, endpoints and the store, too, sends nothing, and ends with 1 where they are at fault.

mod format; // Findings as text, JSON, SARIF, and GitHub's annotations.

use std::path::PathBuf;

use format::Format;

use super::{DEFAULT_CONFIG, Error, compiler, runtime, terminal};
use crate::app;
use crate::config::{Draft, Environment, Fault, Rule, Severity};

/// What `branchline check` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Configs: TOML or JSON files, or folders of `*.toml` files.
    #[arg(default_value = DEFAULT_CONFIG, env = "BRANCHLINE_CONFIG")]
    paths: Vec<PathBuf>,
    /// How to print what is found.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Fail when there are warnings, too.
    #[arg(long)]
    deny_warnings: bool,
    /// Also look names up, connect to endpoints and shake TLS as attempts do, and look at the store; nothing is sent or written.
    #[arg(long)]
    online: bool,
    /// Only warn of secrets that are not there, and go on with something of their shape: for CI, which has none.
    #[arg(long)]
    stand_ins: bool,
}

/// Checks each config.
pub fn run(options: &Options) -> Result<(), Error> {
    let mut environment = Environment::of_process();
    if options.stand_ins {
        environment = environment.with_stand_ins();
    }
    let mut found = Vec::new();
    for path in &options.paths {
        match Draft::read(path, &environment) {
            Ok(draft) => found.extend(findings(draft, options.online)?),
            Err(errors) => found.extend(errors.faults),
        }
    }
    // The same file may be part of two of the configs.
    let mut told = Vec::new();
    found.retain(|fault| {
        let is_new = !told.contains(fault);
        if is_new {
            told.push(fault.clone());
        }
        is_new
    });
    out!("{}", options.format.render(&found));
    let count = |severity| found.iter().filter(|fault| fault.severity == severity).count();
    // An endpoint that is down does not keep a router from starting.
    let refused =
        |fault: &Fault| fault.severity == Severity::Error && !matches!(fault.rule, Rule::Endpoint | Rule::Store);
    match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => Ok(()),
        (0, warnings) if !options.deny_warnings => {
            eprintln!("branchline: {}", counted(warnings, "warning"));
            Ok(())
        }
        (0, warnings) => Err(Error::Failed(format!("{}, and --deny-warnings", counted(warnings, "warning")))),
        (errors, warnings) => {
            let text = format!("{}, {}", counted(errors, "error"), counted(warnings, "warning"));
            Err(if found.iter().any(refused) { Error::Config(text) } else { Error::Failed(text) })
        }
    }
}

/// What `serve` would find in a config, and what others say where they are asked.
fn findings(draft: Draft, is_online: bool) -> Result<Vec<Fault>, Error> {
    let runtime = runtime()?;
    let compiler = compiler()?;
    let checked = runtime.block_on(async {
        let config = app::finish(draft, compiler.clone()).await?;
        let checked = app::check(&config, compiler).await?;
        Ok((config, checked))
    });
    match checked {
        Ok((_, checked)) if !is_online => Ok(checked.warnings),
        Ok((config, checked)) => {
            let bar = terminal::progress_share(1);
            let done = |count: usize, all: usize| {
                bar.set_length(all as u64);
                bar.set_position(count as u64);
            };
            let online = runtime.block_on(app::online(&config, done));
            bar.finish_and_clear();
            let online = online?;
            // What is refused by the URL alone is found when it is reached for, too.
            let is_other =
                |warning: &Fault| warning.rule != Rule::Endpoint || online.iter().all(|fault| fault.key != warning.key);
            Ok(checked.warnings.into_iter().filter(is_other).chain(online.iter().cloned()).collect())
        }
        Err(app::Error::Invalid(errors)) => Ok(errors.faults.into_iter().chain(errors.warnings).collect()),
        Err(error) => Err(error.into()),
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
