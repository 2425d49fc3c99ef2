//! Why the sandbox does not start, and why a plugin is refused. Each text says what is wrong and the way out.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::load::FILE_BYTES_MAX;

/// What can go wrong before the first call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine does not allow the sandbox to be set up.
    #[error("the sandbox can't be set up: {0}")]
    Engine(String),
    /// A thread could not be started.
    #[error("the sandbox can't start a thread: {0}")]
    Thread(io::Error),
    /// A built-in endless loop was not stopped: no deadline would hold.
    #[error(
        "the sandbox can't stop a plugin that runs for ever (the self-test's loop was not interrupted); refusing to start"
    )]
    NotInterrupted,
    /// A plugin was refused.
    #[error("plugin `{plugin}` (`{}`): {refusal}", path.display())]
    Refused {
        /// The plugin's name in the config.
        plugin: Arc<str>,
        /// Its file.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
}

/// Why a plugin is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The file can't be read.
    #[error("can't read the file: {0}")]
    Read(#[from] io::Error),
    /// The path names a folder, a pipe or a device.
    #[error("not a regular file")]
    NotAFile,
    /// The file is too large.
    #[error(
        "the file is larger than {FILE_BYTES_MAX} bytes; build it for size (in Rust: `opt-level = \"s\"`, `strip = true`)"
    )]
    TooLarge,
    /// The file is not the one the config pins.
    #[error(
        "the file's sha256 is {actual}, but the config says {expected}; put the right file back, or change `sha256`"
    )]
    Digest {
        /// What the config says.
        expected: String,
        /// What the file has.
        actual: String,
    },
    /// No WebAssembly at all.
    #[error("not a WebAssembly file")]
    NotWebAssembly,
    /// The text format.
    #[error("WebAssembly text; translate it to a binary first (`wasm-tools parse`)")]
    WebAssemblyText,
    /// A core module.
    #[error("a core WebAssembly module, not a component; wrap it with `wasm-tools component new`")]
    CoreModule,
    /// Compiled machine code. It can't be checked, so it is never loaded from outside.
    #[error("already compiled to machine code, which can't be checked; give the `.wasm` component it was made from")]
    Precompiled,
    /// Truncated or malformed.
    #[error("not a valid component: {0}")]
    Invalid(String),
    /// It wants more than the contract grants.
    #[error("imports `{import}`, which plugins may not use{advice}")]
    Import {
        /// What it imports.
        import: String,
        /// What to do about it; begins with punctuation.
        advice: &'static str,
    },
    /// It imports something of the contract with another type.
    #[error("an import is not what the contract in wit/v0.1.0 says: {0}")]
    ImportType(String),
    /// It does not export what the contract asks for.
    #[error("an export is not what the contract in wit/v0.1.0 says: {0}")]
    Export(String),
    /// It has more memories, tables or instances than a slot of the pool.
    #[error("needs {what}: {needed}, but a plugin may have {most}; link it statically into one module")]
    Resources {
        /// What it needs too many of.
        what: &'static str,
        /// How many it needs.
        needed: u64,
        /// How many it may have.
        most: u64,
    },
    /// Its memory is over the limit before it has run.
    #[error(
        "starts with {needed} bytes of memory, over its limit of {limit}; raise `memory_bytes_max`, or link it with a smaller stack and data"
    )]
    Memory {
        /// Bytes it starts with.
        needed: u64,
        /// Its limit.
        limit: usize,
    },
    /// It is no longer, or not yet, what its fixtures say.
    #[error("{0}")]
    Fixtures(String),
    /// There is more of it, or it is deeper nested, than any plugin that does its work.
    #[error("too large to be compiled safely: {what}: {found}, at most {most}")]
    Shape {
        /// What there is too much of.
        what: &'static str,
        /// How much was found; reading ended there.
        found: u64,
        /// How much there may be.
        most: u64,
    },
    /// The compiler does not take it.
    #[error("it can't be compiled: {0}")]
    Compile(String),
    /// The compiler was ended.
    #[error("compiling took longer than {seconds} s{of}; does it have a function of enormous size?")]
    CompileTime {
        /// How long it may take.
        seconds: u64,
        /// Of which time; begins with a space, or is empty.
        of: &'static str,
    },
    /// The compiler ran out of memory.
    #[error("compiling needed more memory than {limit} bytes; does it have a function of enormous size?")]
    CompileMemory {
        /// How much it may use.
        limit: u64,
    },
    /// The machine code is too large to be held.
    #[error("compiling made more than {limit} bytes of machine code")]
    CompileOutput {
        /// How large it may be.
        limit: u64,
    },
    /// It needs more than a slot of the pool has, or the compiler was of another version.
    #[error("it can't be loaded: {0}")]
    Unloadable(String),
    /// The compiler crashed, or could not be started.
    #[error("the compiler failed: {0}")]
    CompilerFailed(String),
}
