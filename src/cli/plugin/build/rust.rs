//! Rust: cargo, with the target `wasm32-unknown-unknown`. Where rustup can't add the target, a distribution's Rust for
//! the web, unpacked into a folder of ours and driven by the cargo that is there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Job;
use crate::cli::Error;
use crate::cli::plugin::tools::{self, Tools};

const TARGET: &str = "wasm32-unknown-unknown";
/// How long rustup may take to fetch the target, so that a machine without a network doesn't hang here.
const RUSTUP_TIMEOUT: Duration = Duration::from_secs(60);
/// Unpacks the distribution's compiler; POSIX shell, since it is all apt and dpkg.
const UNPACK: &str = include_str!("unpack-rustc-web.sh");

/// A compiler that can build for the target, and what cargo must be told to use it.
struct Toolchain {
    how: String,
    environment: Vec<(&'static str, PathBuf)>,
    flags: &'static [&'static str],
}

pub(super) fn build(job: &Job<'_>) -> Result<String, Error> {
    let cargo = tools::need("cargo", "Rust with rustup: see rustup.rs")?;
    let toolchain = rustup().map_or_else(|| distribution(&job.tools), Ok)?;
    let mut command = Command::new(cargo);
    command
        .current_dir(job.folder)
        .args(["build", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"])
        .args(toolchain.flags)
        .envs(toolchain.environment.iter().map(|(name, value)| (name, value)));
    let printed = tools::output(&mut command)?.stdout;
    job.componentize(&module(&printed, job.folder)?)?;
    Ok(toolchain.how)
}

/// The core module among what cargo says it made: the target folder may be anywhere.
fn module(messages: &[u8], folder: &Path) -> Result<PathBuf, Error> {
    #[derive(serde::Deserialize)]
    struct Message {
        reason: String,
        #[serde(default)]
        manifest_path: PathBuf,
        #[serde(default)]
        filenames: Vec<PathBuf>,
    }
    let manifest = folder.join("Cargo.toml");
    let made = messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact" && message.manifest_path == manifest)
        .flat_map(|message| message.filenames)
        .find(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    made.ok_or_else(|| {
        Error::Failed(r#"cargo made no `.wasm`: `[lib]` in Cargo.toml must say `crate-type = ["cdylib"]`"#.to_owned())
    })
}

/// An ordinary toolchain that has the target, or is given it now.
fn rustup() -> Option<Toolchain> {
    if !has_target() {
        let rustup = tools::find("rustup")?;
        eprintln!("branchline: adding the target {TARGET} with rustup");
        if !tools::succeeds_within(Command::new(rustup).args(["target", "add", TARGET]), RUSTUP_TIMEOUT)
            || !has_target()
        {
            return None;
        }
    }
    Some(Toolchain { how: version(Path::new("rustc")), environment: Vec::new(), flags: &[] })
}

fn has_target() -> bool {
    let asked = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let Ok(folder) = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()) else {
        return false;
    };
    std::fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")))
    })
}

fn version(rustc: &Path) -> String {
    let printed = Command::new(rustc).arg("--version").output();
    printed.map_or_else(|_| "rustc".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn distribution(tools: &Tools) -> Result<Toolchain, Error> {
    let advice = format!(
        "Rust can't build for {TARGET} here. With rustup: `rustup target add {TARGET}`. On Debian or Ubuntu: \
         `apt-get update`, so that rustc-web and rust-web-src can be fetched"
    );
    if tools::find("apt-get").is_none() || tools::find("dpkg").is_none() {
        return Err(Error::Failed(advice));
    }
    let folder = tools
        .shared("rustc-web", "1 GB", |folder| {
            tools::run(Command::new("sh").args(["-c", UNPACK, "unpack-rustc-web"]).arg(folder))
        })
        .map_err(|error| Error::Failed(format!("{advice}.\n{error}")))?;
    let compiler = folder.join("rustc");
    let linker = linker().ok_or_else(|| {
        Error::Failed("a linker for WebAssembly is missing (`rust-lld`, `wasm-ld`): `apt-get install lld`".to_owned())
    })?;
    Ok(Toolchain {
        how: format!("{} of the distribution", version(&compiler)),
        environment: vec![
            ("RUSTC", compiler),
            // The standard library is built from its source, which asks for a nightly compiler or this.
            ("RUSTC_BOOTSTRAP", "1".into()),
            ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker),
        ],
        flags: &["-Zbuild-std=std,panic_abort"],
    })
}

/// rustup's own linker, or one of the system.
fn linker() -> Option<PathBuf> {
    let printed = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let rustlib = PathBuf::from(String::from_utf8_lossy(&printed.stdout).trim()).join("lib/rustlib");
    let own = std::fs::read_dir(rustlib).ok().and_then(|mut targets| {
        targets.find_map(|target| Some(target.ok()?.path().join("bin/rust-lld")).filter(|file| file.is_file()))
    });
    own.or_else(|| ["rust-lld", "wasm-ld", "wasm-ld-19"].into_iter().find_map(tools::find))
}
