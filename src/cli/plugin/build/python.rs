//! Python: componentize-py runs the module once, with all that it imports, and keeps the memory it then has: imports
//! cost nothing at a call. WASI is stubbed out: what would need it traps.

use std::process::Command;

use super::{Job, WORLD};
use crate::cli::Error;
use crate::cli::plugin::tools;

/// The version of CPython and its bindings that is known to work.
const VERSION: &str = "0.25.1";

pub(super) fn build(job: &Job<'_>) -> Result<String, Error> {
    let packages = job.tools.pip("componentize-py", VERSION, "47 MB")?;
    let contract = job.contract()?;
    tools::run(
        Command::new(tools::need("python3", tools::PYTHON)?)
            .env("PYTHONPATH", &packages)
            .current_dir(job.folder)
            // The program that pip wrote begins with the path of an environment that is gone.
            .args(["-c", "import sys, componentize_py; sys.exit(componentize_py.script())", "-d"])
            .arg(contract)
            .args(["-w", WORLD, "componentize", "--stub-wasi", "plugin", "-o"])
            .arg(&job.output),
    )?;
    Ok(format!("componentize-py {VERSION}"))
}
