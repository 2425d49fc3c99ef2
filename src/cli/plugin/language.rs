//! The languages that `new` and `build` know. A folder's language shows in the one source file that it begins with, so
//! there is no file that would have to say it.

use std::path::{Path, PathBuf};

/// A language that plugins are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Rust, with the SDK: the smallest and fastest.
    Rust,
    /// JavaScript, in QuickJS.
    #[value(name = "js", alias = "javascript")]
    JavaScript,
    /// TypeScript, in QuickJS.
    #[value(name = "ts", alias = "typescript")]
    TypeScript,
    /// Python, in CPython: large, and slow to start.
    Python,
    /// C, without a standard library's input and output.
    C,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Rust, Self::JavaScript, Self::TypeScript, Self::Python, Self::C];

    /// The file that a plugin in this language begins with.
    pub const fn entry(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::JavaScript => "plugin.js",
            Self::TypeScript => "plugin.ts",
            Self::Python => "plugin.py",
            Self::C => "plugin.c",
        }
    }

    /// What a folder is written in.
    pub fn of(folder: &Path) -> Result<Self, String> {
        let found: Vec<_> = Self::ALL.into_iter().filter(|language| folder.join(language.entry()).is_file()).collect();
        let entries = || Self::ALL.map(Self::entry).join("`, `");
        match found.as_slice() {
            [] if !folder.is_dir() => Err(format!("there is no folder `{}`", folder.display())),
            [language] => Ok(*language),
            [] => Err(format!("`{}` is no plugin's folder: it has none of `{}`", folder.display(), entries())),
            _ => Err(format!("`{}` must have one of `{}`, not several", folder.display(), entries())),
        }
    }
}

/// A source of the folder that was changed after the component was built.
pub fn newer_source(folder: &Path, component: &Path) -> Option<PathBuf> {
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let built = changed(component)?;
    let mut sources: Vec<_> = Language::ALL.iter().map(|language| folder.join(language.entry())).collect();
    sources.push(folder.join("src/lib.rs"));
    sources.into_iter().find(|path| changed(path).is_some_and(|time| time > built))
}
