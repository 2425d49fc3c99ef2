//! Where a plugin's component is: the commands take it, or the folder that it is built in.

use std::path::{Path, PathBuf};

use super::COMPONENT;
use crate::cli::Error;

/// The component of a plugin. Shipped plugins have `NAME.wasm` beside `NAME/`, all others `plugin.wasm` inside.
pub fn component(plugin: &Path) -> Result<PathBuf, Error> {
    let shown = plugin.display();
    if !plugin.exists() {
        return Err(Error::Failed(format!(
            "there is no `{shown}`; a component (`{COMPONENT}`) is wanted, or a plugin's folder as `branchline plugin new` makes it"
        )));
    }
    if !plugin.is_dir() {
        return Ok(plugin.to_owned());
    }
    let inside = plugin.join(COMPONENT);
    let beside = plugin.canonicalize().ok().map(|folder| folder.with_extension("wasm"));
    if let Some(beside) = beside.filter(|beside| !inside.is_file() && beside.is_file()) {
        return Ok(beside);
    }
    if inside.is_file() {
        return Ok(inside);
    }
    Err(Error::Failed(format!("there is no `{}`; build it first: `branchline plugin build {shown}`", inside.display())))
}
