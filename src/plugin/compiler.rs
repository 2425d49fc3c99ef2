//! From a component that was looked at to machine code. Compiling can take any time and any memory, whatever the size of
//! the file, and the compiler can't be interrupted: so it runs in a child process under limits, and what becomes of that
//! process is at worst a refusal.

mod process; // The parent's side: starts the child, bounds it, tells how it ended.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal};
use wasmtime::{Engine, OutOfMemory};

use super::engine;
use super::error::Refusal;
use super::load::FILE_BYTES_MAX;
use super::text::tame;
use process::{LIMITS, Limits};

/// The subcommand that makes this program a compiler: a component on its standard input, an answer on its output.
pub const COMPILE_SUBCOMMAND: &str = "compile-plugin";

/// The longest text of the compiler that is shown.
const TEXT_BYTES_MAX: usize = 1024;
/// How much the child steps back behind the router that delivers meanwhile: a third of the weight, so that a busy machine
/// still compiles a large plugin in its time.
const NICE: i32 = 5;

/// The first byte of an answer. Machine code follows …
const ANSWER_CODE: u8 = b'C';
/// … or the compiler's text on why it refuses the component …
const ANSWER_REFUSED: u8 = b'R';
/// … or nothing, since memory ran out.
const ANSWER_MEMORY: u8 = b'M';

/// Where plugins are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// In a child process, so that no component can take this one down. `program` is Branchline's.
    Child {
        /// The program, called with [`COMPILE_SUBCOMMAND`].
        program: PathBuf,
    },
    /// In this process: for plugins that are trusted, in programs that are not Branchline's.
    InProcess,
}

impl Compiler {
    /// This very program as the child; also when its file has been replaced since it was started.
    pub fn this_program() -> io::Result<Self> {
        let running = Path::new("/proc/self/exe");
        let program = if running.exists() { running.to_owned() } else { std::env::current_exe()? };
        Ok(Self::Child { program })
    }

    /// Compiles a component for `engine`.
    pub(super) fn compile(&self, engine: &Engine, binary: &[u8]) -> Result<Vec<u8>, Refusal> {
        match self {
            Self::Child { program } => {
                let mut command = Command::new(program);
                command.arg(COMPILE_SUBCOMMAND);
                process::compile(command, binary, &LIMITS)
            }
            Self::InProcess => engine.precompile_component(binary).map_err(|error| refused(&format!("{error:#}"))),
        }
    }
}

/// The child's side: limits itself, compiles its standard input, and answers on its standard output. It has nothing else:
/// no arguments, no environment, no files.
pub fn compile_for_parent() -> Result<(), String> {
    limit_this_process(&LIMITS).map_err(|error| format!("the compiler can't be limited: {error}"))?;
    let mut binary = Vec::new();
    let read = io::stdin().lock().take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut binary);
    read.map_err(|error| format!("the component can't be read: {error}"))?;
    let engine = engine::compiling_engine().map_err(|error| error.to_string())?;
    let (kind, rest) = match engine.precompile_component(&binary) {
        Ok(code) => (ANSWER_CODE, code),
        Err(error) if error.is::<OutOfMemory>() => (ANSWER_MEMORY, Vec::new()),
        Err(error) => (ANSWER_REFUSED, format!("{error:#}").into_bytes()),
    };
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(&[kind]).and_then(|()| stdout.write_all(&rest)).and_then(|()| stdout.flush());
    written.map_err(|error| format!("the answer can't be written: {error}"))
}

/// A component that the compiler does not take. Its text may quote the component.
fn refused(text: &str) -> Refusal {
    Refusal::Compile(tame(text, TEXT_BYTES_MAX))
}

/// Bounds this process before it has read a byte of the component.
fn limit_this_process(limits: &Limits) -> io::Result<()> {
    // The parent may be killed while it waits; then nobody would end this process but its limit on processor time.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // A second between the two: the first ends the process with a signal that says why.
    let processor_seconds = limits.processor.as_secs();
    for (resource, current, most) in [
        (Resource::As, limits.memory_bytes, limits.memory_bytes),
        (Resource::Cpu, processor_seconds, processor_seconds + 1),
        (Resource::Core, 0, 0),
    ] {
        // A limit that was set from outside may be lower still, and can't be raised.
        let outer = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Rlimit { current: Some(current.min(outer)), maximum: Some(most.min(outer)) };
        rustix::process::setrlimit(resource, limit)?;
    }
    // Where the system does not grant it, compiling is not less bounded, only less polite.
    let _ = rustix::process::nice(NICE);
    Ok(())
}
