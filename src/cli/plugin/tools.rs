//! Compilers and package managers: found on the machine, or fetched into a folder of ours under the versions that are
//! known to work, so that a build needs nothing but the language's own package manager and changes nothing else.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::Error;
use crate::config::user_cache;

/// What a tool may print that is kept for an error message.
const SHOWN_BYTES_MAX: usize = 4000;

/// How to get Python.
pub const PYTHON: &str = "Python 3.10 or newer with venv: `apt-get install python3 python3-venv`";

/// Where fetched tools are, and whether more may be fetched.
pub struct Tools {
    folder: PathBuf,
    may_fetch: bool,
}

impl Tools {
    /// The user's tools: `BRANCHLINE_TOOLS`, or `branchline/tools` in the user's cache folder.
    pub fn new(may_fetch: bool) -> Result<Self, Error> {
        let folder = match std::env::var_os("BRANCHLINE_TOOLS").map(PathBuf::from).filter(|path| path.is_absolute()) {
            Some(folder) => folder,
            None => user_cache(|name| std::env::var_os(name))
                .ok_or_else(|| {
                    Error::Failed("set BRANCHLINE_TOOLS to a folder for tools: there is no HOME".to_owned())
                })?
                .join("tools"),
        };
        Ok(Self { folder, may_fetch })
    }

    /// The folder of a tool, made by `fetch` when it is not there. Half a tool never stands there: it is fetched beside
    /// its place and renamed. `size` is what it takes on disk, for the person who waits.
    pub fn fetched(
        &self,
        name: &str,
        size: &str,
        fetch: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let place = self.folder.join(name);
        if place.is_dir() {
            return Ok(place);
        }
        if !self.may_fetch {
            return Err(Error::Failed(format!(
                "{name} is missing, and `--no-fetch` forbids fetching it into `{}`",
                self.folder.display()
            )));
        }
        eprintln!("branchline: fetching {name} ({size}) into {}", self.folder.display());
        let fresh = self.folder.join(format!("{name}.{}.fresh", std::process::id()));
        let failed =
            |what: &str, error: std::io::Error| Error::Failed(format!("can't {what} `{}`: {error}", fresh.display()));
        let _ = std::fs::remove_dir_all(&fresh); // Left by a process of the same number that was killed.
        std::fs::create_dir_all(&fresh).map_err(|error| failed("make the folder", error))?;
        let renamed = fetch(&fresh).and_then(|()| match std::fs::rename(&fresh, &place) {
            // Another build was quicker.
            Err(_) if place.is_dir() => Ok(()),
            renamed => renamed.map_err(|error| failed("rename", error)),
        });
        let _ = std::fs::remove_dir_all(&fresh);
        renamed.map(|()| place)
    }

    /// As [`Tools::fetched`], but where this repository's own scripts have put the tool already, it is taken from there.
    pub fn shared(
        &self,
        name: &str,
        size: &str,
        fetch: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        match self.folder.parent().map(|folder| folder.join(name)).filter(|folder| folder.is_dir()) {
            Some(folder) => Ok(folder),
            None => self.fetched(name, size, fetch),
        }
    }

    /// A package of npm at this version, with its dependencies; gives the folder of its programs.
    pub fn npm(&self, name: &str, version: &str, size: &str) -> Result<PathBuf, Error> {
        let npm = need("npm", "Node.js 20 or newer with npm: `apt-get install nodejs npm`, or from nodejs.org")?;
        need("node", "Node.js 20 or newer: `apt-get install nodejs npm`, or from nodejs.org")?;
        let place = self.fetched(&format!("{name}-{version}"), size, |folder| {
            let package = format!("{name}@{version}");
            run(Command::new(&npm)
                .args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"])
                .arg(folder)
                .arg(package))
        })?;
        Ok(place.join("node_modules/.bin"))
    }

    /// A package of PyPI at this version; gives the folder of its modules, for `PYTHONPATH`.
    pub fn pip(&self, name: &str, version: &str, size: &str) -> Result<PathBuf, Error> {
        let python = need("python3", PYTHON)?;
        // The environment is there for its pip alone. It holds its own path, so it could not be renamed; packages can.
        let place = self.fetched(&format!("{name}-{version}"), size, |folder| {
            let environment = folder.join("environment");
            run(Command::new(&python).args(["-m", "venv"]).arg(&environment))?;
            run(Command::new(environment.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
                .arg(folder.join("packages"))
                .arg(format!("{name}=={version}")))?;
            std::fs::remove_dir_all(&environment)
                .map_err(|error| Error::Failed(format!("can't remove `{}`: {error}", environment.display())))
        })?;
        Ok(place.join("packages"))
    }
}

/// A program of the search path.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The same, or how to get it.
pub fn need(name: &str, how: &str) -> Result<PathBuf, Error> {
    find(name).ok_or_else(|| Error::Failed(format!("`{name}` is missing. Get {how}")))
}

/// Runs a tool to its end; what it printed is shown only when it fails.
pub fn run(command: &mut Command) -> Result<(), Error> {
    output(command).map(|_| ())
}

/// The same, with what it printed.
pub fn output(command: &mut Command) -> Result<Output, Error> {
    let name = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::Failed(format!("`{name}` can't be run: {error}")))?;
    if output.status.success() {
        return Ok(output);
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(SHOWN_BYTES_MAX)..]).trim().to_owned();
    Err(Error::Failed(format!("`{name}` failed ({}):\n{text}", output.status)))
}

/// Runs a tool that may wait for a network that isn't there; whether it succeeded in time.
pub fn succeeds_within(command: &mut Command, limit: Duration) -> bool {
    let Ok(mut child) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        return false;
    };
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (ended, end) = mpsc::sync_channel(1);
    let waiting = thread::spawn(move || {
        let succeeded = child.wait().is_ok_and(|status| status.success());
        let _ = ended.send(());
        succeeded
    });
    if end.recv_timeout(limit).is_err()
        && let Some(id) = id
    {
        let _ = kill_process(id, Signal::KILL);
    }
    waiting.join().unwrap_or(false)
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words: Vec<_> =
        std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy).take(4).collect();
    words.join(" ")
}
