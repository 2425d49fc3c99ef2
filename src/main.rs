//! The `branchline` command: parses the command line, runs one command, turns its end into an exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    branchline::cli::main()
}
