//! C: clang with a wasm32 target and wasi-libc where they are, else zig from PyPI, which has both. Nothing of WASI is
//! left in the result as long as the plugin does without standard input and output.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Job;
use crate::cli::Error;
use crate::cli::plugin::tools;

/// The zig that is known to work.
const ZIG_VERSION: &str = "0.16.0";
/// How to get clang.
const CLANG: &str = "`apt-get install clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32`";
/// Its stack would else be 16 MiB, which is all that a plugin gets.
const STACK: &str = "-Wl,-z,stack-size=262144";

pub(super) fn build(job: &Job<'_>) -> Result<String, Error> {
    let module = job.scratch.join("core.wasm");
    std::fs::create_dir_all(&job.scratch)
        .map_err(|error| Error::Failed(format!("can't make `{}`: {error}", job.scratch.display())))?;
    let sources = sources(job.folder)?;
    let (mut compiler, how) = match clang() {
        Some((clang, sysroot)) => {
            let mut command = Command::new(&clang);
            command.arg("--target=wasm32-wasi").arg(format!("--sysroot={}", sysroot.display()));
            (command, format!("{} and wasi-libc", clang.file_name().unwrap_or_default().display()))
        }
        None => {
            let packages = job.tools.pip("ziglang", ZIG_VERSION, "410 MB").map_err(|error| {
                Error::Failed(format!("there is no clang with wasi-libc ({CLANG}), so zig is wanted: {error}"))
            })?;
            let mut command = Command::new(packages.join("ziglang/zig"));
            command.args(["cc", "-target", "wasm32-wasi"]);
            (command, format!("zig {ZIG_VERSION}"))
        }
    };
    compiler
        .current_dir(job.folder)
        .args(["-mexec-model=reactor", "-O2", "-s", STACK, "-Wall", "-o"])
        .arg(&module)
        .args(sources);
    tools::run(&mut compiler)?;
    job.componentize(&module)?;
    Ok(how)
}

/// The plugin's own files, and the generated bindings with the contract's types.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for part in ["", "bindings"] {
        let entries = std::fs::read_dir(folder.join(part))
            .map_err(|error| Error::Failed(format!("can't read `{}`: {error}", folder.join(part).display())))?;
        files.extend(entries.filter_map(|entry| Some(Path::new(part).join(entry.ok()?.file_name()))).filter(|path| {
            path.extension().is_some_and(|extension| extension == "c" || (!part.is_empty() && extension == "o"))
        }));
    }
    files.sort();
    Ok(files)
}

/// A clang that can link for wasm32, and where wasi-libc is.
fn clang() -> Option<(PathBuf, PathBuf)> {
    let sysroot = std::env::var_os("WASI_SYSROOT")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from("/usr")).filter(|root| root.join("lib/wasm32-wasi/libc.a").is_file()))?;
    ["clang", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17"]
        .into_iter()
        .filter_map(tools::find)
        .find(|clang| {
            // All three must be there: the target, the linker, and the functions that clang itself calls.
            let library = Command::new(clang).args(["--target=wasm32-wasi", "--print-libgcc-file-name"]).output();
            let linker = Command::new(clang).args(["--target=wasm32-wasi", "--print-prog-name=wasm-ld"]).output();
            library.is_ok_and(|found| is_a_file(&found.stdout)) && linker.is_ok_and(|found| is_a_file(&found.stdout))
        })
        .map(|clang| (clang, sysroot))
}

fn is_a_file(path: &[u8]) -> bool {
    let path = String::from_utf8_lossy(path).trim().to_owned();
    Path::new(&path).is_file() || tools::find(&path).is_some()
}
