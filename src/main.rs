//! The `branchline` command: parses the command line, runs one command, turns its end into an exit code.

use std::ffi::{c_int, c_long};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay` (its `mimalloc.h`), which the bindings have no name for.
const PURGE_DELAY: c_int = 15;

/// Milliseconds after which freed memory goes back to the system. With mimalloc's 1,000, what a start needed once would stay until
/// events come, since nothing is given back but by a thread that allocates. `MIMALLOC_PURGE_DELAY` in the environment has precedence.
const PURGE_DELAY_MS: c_long = 50;

#[expect(unsafe_code, reason = "one of mimalloc's settings, as its documentation says, before any other thread")]
fn main() -> ExitCode {
    // SAFETY: the option exists, and no thread reads it meanwhile.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
    branchline::cli::main()
}
