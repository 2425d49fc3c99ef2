//! The sandbox. Takes an event and a subscription's chain of plugins, gives what is to become of the delivery. Guest code
//! runs on threads of its own, in a fresh instance for each call, with a deadline and limits on memory, stack, output
//! and log; it has no network, no files, no clock and no other event. The only module that knows wasmtime.

mod bindings; // The contract, as Rust types.
mod cache; // Compiled plugins on disk, authenticated.
mod call; // One call.
mod chain; // What a verdict means for its chain; a chain told call by call.
mod compiler; // From a component to machine code, in a child process.
mod debt; // Time used, forgotten bit by bit.
mod decodable; // JSON that can be decoded to its last escape.
mod engine; // An engine, its pool of memories, its deadlines.
mod engines; // An engine for each thread, and one for the rest.
mod error; // Why a plugin is refused.
pub mod fixture; // An event, a config, and what must come of them.
#[cfg(test)]
mod fuzz;
mod host; // What the other stages see.
mod imports; // What a plugin may ask of the host.
mod inspect; // What a file says about itself; the last step of a build.
mod lanes; // Which plugin's work runs next.
mod load; // From a file to a component that may be called.
mod log; // What plugins log.
mod measure; // How long calls take.
pub mod rehearsal; // A plugin's fixtures, before it is used.
mod scheduler; // The threads.
mod shape; // What is too large to be compiled at all.
mod text; // Texts that a plugin wrote, made fit to show.
mod threads; // How many of the threads are at work.
mod verdict; // What a plugin returned, checked.

pub use cache::CacheCounts;
pub use call::Report;
pub use chain::Traced;
pub use compiler::{COMPILE_SUBCOMMAND, Compiler, compile_for_parent};
pub use error::{Error, Refusal};
pub use fixture::{Fixture, Given, Trial};
pub use host::{Chain, ChainEnd, ChainRun, Link, Plugin, PluginHost};
pub use inspect::{Inspection, componentize, inspect};
pub use log::{LogLevel, LogLine};
pub use measure::{Load, Measurement, Spread};
pub use verdict::{Fault, Verdict};
