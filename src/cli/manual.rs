//! `branchline completions` and `branchline man`: what a shell and `man` want to know, made from the commands themselves.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Arguments, Error};

/// What `branchline completions` can be told.
#[derive(clap::Args)]
pub struct Completions {
    /// Whose completions.
    shell: Shell,
}

/// What `branchline man` can be told.
#[derive(clap::Args)]
pub struct Man {
    /// Write a page for each command into this folder, instead of the first page to standard output.
    #[arg(long, value_name = "FOLDER")]
    within: Option<PathBuf>,
}

/// Prints completions.
pub fn completions(options: &Completions) {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "branchline", &mut text);
    out!("{}", String::from_utf8_lossy(&text));
}

/// Prints or writes man pages.
pub fn man(options: &Man) -> Result<(), Error> {
    let command = Arguments::command();
    let Some(folder) = &options.within else {
        let mut page = Vec::new();
        let made = clap_mangen::Man::new(command).render(&mut page);
        made.map_err(|error| Error::Failed(error.to_string()))?;
        out!("{}", String::from_utf8_lossy(&page));
        return Ok(());
    };
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .map_err(|error| Error::Failed(format!("can't write into `{}`: {error}", folder.display())))
}
