//! `branchline plugin new`: a folder with a plugin that builds and passes its own test at once. Its files are those of
//! `plugins/examples/`, which are built and run by the tests, and they are all in this program: nothing is fetched.

mod files; // The files, by language.

use std::path::PathBuf;

use super::build::write;
use super::language::Language;
use crate::cli::Error;
use files::EXAMPLE_NAME;

/// The longest name.
const NAME_CHARACTERS_MAX: usize = 64;

/// What `branchline plugin new` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Its name: lower-case letters, digits and hyphens. The folder is called so too.
    #[arg(value_parser = name)]
    name: String,
    /// The language.
    #[arg(long)]
    lang: Language,
    /// Where the folder is made [default: here]
    #[arg(long, value_name = "DIR")]
    within: Option<PathBuf>,
}

/// Writes the folder.
pub fn run(options: &Options) -> Result<(), Error> {
    let folder = options.within.clone().unwrap_or_default().join(&options.name);
    let is_empty = match std::fs::read_dir(&folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if !is_empty {
        return Err(Error::Failed(format!("`{}` exists already; nothing was written", folder.display())));
    }
    for (path, bytes) in files::of(options.lang) {
        match std::str::from_utf8(bytes) {
            Ok(text) => write(&folder.join(path), text.replace(EXAMPLE_NAME, &options.name).as_bytes())?,
            Err(_) => write(&folder.join(path), bytes)?,
        }
    }
    let shown = folder.display();
    outln!("made {shown}. Next:");
    outln!("  branchline plugin build {shown}");
    outln!("  branchline plugin test {shown}");
    Ok(())
}

/// A name that is good for a folder, a package of every language and a table of the config.
fn name(text: &str) -> Result<String, String> {
    let begins_well = text.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
    let goes_on_well = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if begins_well && goes_on_well && text.len() <= NAME_CHARACTERS_MAX && !text.ends_with('-') {
        return Ok(text.to_owned());
    }
    Err(format!(
        "a name has 1 to {NAME_CHARACTERS_MAX} lower-case letters, digits and hyphens, and begins with a letter"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_good_for_every_package_manager() {
        for good in ["a", "order-alert", "v2"] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "2b", "A", "a_b", "a/b", "..", "a b", &"a".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
