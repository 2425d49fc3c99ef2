//! `branchline plugin build`: a folder's sources into `plugin.wasm`, checked as a router would check it. Each language's
//! own compiler does the work; a core module becomes a component in this program.

mod c; // clang, or zig from PyPI.
mod javascript; // esbuild and componentize-qjs.
mod python; // componentize-py.
mod rust; // cargo.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::language::Language;
use super::sandbox::{self, Counting, Limits};
use super::tools::Tools;
use super::{COMPONENT, print_json, units};
use crate::cli::{Error, runtime};
use crate::plugin;

/// The world that is built against: `handle` and `validate-config`.
const WORLD: &str = "plugin-with-config";
/// The contract, for folders without one of their own.
pub(super) const CONTRACT: &str = include_str!("../../../wit/v0.1.0/plugin.wit");

/// What `branchline plugin build` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// The plugin's folder.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Where the component goes [default: `plugin.wasm` in the folder]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Fail rather than fetch a tool that is missing.
    #[arg(long)]
    no_fetch: bool,
    #[command(flatten)]
    limits: Limits,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A folder to build, and where to.
struct Job<'a> {
    folder: &'a Path,
    /// For what lies between source and component.
    scratch: PathBuf,
    output: PathBuf,
    tools: Tools,
}

/// Builds.
pub fn run(options: &Options) -> Result<(), Error> {
    let language = Language::of(&options.folder).map_err(Error::Failed)?;
    let folder = options
        .folder
        .canonicalize()
        .map_err(|error| Error::Failed(format!("can't find `{}`: {error}", options.folder.display())))?;
    let output = match &options.output {
        Some(file) => std::path::absolute(file).map_err(|error| Error::Failed(error.to_string()))?,
        None => folder.join(COMPONENT),
    };
    let job = Job { folder: &folder, scratch: folder.join("build"), output, tools: Tools::new(!options.no_fetch)? };
    let how = match language {
        Language::Rust => rust::build(&job)?,
        Language::JavaScript | Language::TypeScript => javascript::build(&job, language)?,
        Language::Python => python::build(&job)?,
        Language::C => c::build(&job)?,
    };
    let spec = options.limits.spec(&job.output);
    let plugin = runtime()?.block_on(async {
        let host = sandbox::start(Counting::Off)?;
        sandbox::load(&host, &spec).await
    })?;
    let size = std::fs::metadata(&job.output).map_or(0, |metadata| metadata.len());
    let shown = options.output.clone().unwrap_or_else(|| options.folder.join(COMPONENT));
    if options.json {
        print_json(&json!({ "component": shown, "bytes": size, "sha256": plugin.sha256(), "toolchain": how }));
    } else {
        let size = units::bytes(usize::try_from(size).unwrap_or(usize::MAX));
        outln!("{}: {size}, sha256 {}", shown.display(), plugin.sha256());
        outln!("built with {how}");
    }
    Ok(())
}

impl Job<'_> {
    /// The folder of the contract: the plugin's own, or the one that this program was built with.
    fn contract(&self) -> Result<PathBuf, Error> {
        let own = self.folder.join("wit");
        if own.is_dir() {
            return Ok(own);
        }
        let folder = self.scratch.join("wit");
        write(&folder.join("plugin.wit"), CONTRACT.as_bytes())?;
        Ok(folder)
    }

    /// Makes the component of the core module in `file`.
    fn componentize(&self, file: &Path) -> Result<(), Error> {
        let module = std::fs::read(file)
            .map_err(|error| Error::Failed(format!("the compiler left no `{}`: {error}", file.display())))?;
        let component = plugin::componentize(&module)
            .map_err(|why| Error::Failed(format!("`{}` makes no component: {why}", file.display())))?;
        write(&self.output, &component)
    }
}

/// Writes a file and the folders that it is in.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let written = match path.parent() {
        Some(folder) => std::fs::create_dir_all(folder),
        None => Ok(()),
    };
    written
        .and_then(|()| std::fs::write(path, bytes))
        .map_err(|error| Error::Failed(format!("can't write `{}`: {error}", path.display())))
}
