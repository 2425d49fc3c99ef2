//! JavaScript and TypeScript: esbuild makes one file of them, with the packages they import; componentize-qjs puts that
//! file beside QuickJS. WASI is stubbed out: what would need it traps.

use std::process::Command;

use super::{Job, WORLD};
use crate::cli::Error;
use crate::cli::plugin::language::Language;
use crate::cli::plugin::tools;

/// The version of QuickJS and its bindings that is known to work.
const COMPONENTIZE_VERSION: &str = "0.4.5";
const ESBUILD_VERSION: &str = "0.28.2";

pub(super) fn build(job: &Job<'_>, language: Language) -> Result<String, Error> {
    let componentize = job.tools.npm("componentize-qjs", COMPONENTIZE_VERSION, "38 MB")?.join("componentize-qjs");
    let esbuild = job.tools.npm("esbuild", ESBUILD_VERSION, "11 MB")?.join("esbuild");
    let bundle = job.scratch.join("plugin.js");
    tools::run(
        Command::new(esbuild)
            .current_dir(job.folder)
            .arg(language.entry())
            .args([
                "--bundle",
                "--format=esm",
                "--target=es2022",
                "--log-level=warning",
                "--external:branchline:plugin/*",
            ])
            .arg(format!("--outfile={}", bundle.display())),
    )?;
    tools::run(
        Command::new(componentize)
            .current_dir(job.folder)
            .arg("-w")
            .arg(job.contract()?)
            .arg("-j")
            .arg(&bundle)
            .args(["-n", WORLD, "--sync", "--stub-wasi", "-o"])
            .arg(&job.output),
    )?;
    Ok(format!("componentize-qjs {COMPONENTIZE_VERSION}, esbuild {ESBUILD_VERSION}"))
}
