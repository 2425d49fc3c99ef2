//! The proof that nothing is lost: real routers on a real store under load, faults from a printed seed, and at the end
//! a ledger of what producers were told, what receivers got and what the store says.
//!
//! `cargo test --test soak` keeps a time (`budget.rs`); `tests/long-soak --minutes 60 --seed 7` takes what it is given. Each
//! run prints its figures.

mod alone; // Each fault by itself.
mod budget; // How long it may take.
mod clocks; // Clocks that step.
mod disk; // Full disks, torn writes, failing syncs.
mod evidence; // What the store says.
mod fault; // What can be done to a running system.
mod felt; // Whether a fault was felt.
mod ledger; // The checker.
mod mixed; // Faults at random, in a loop of kills, and for as long as you like.
mod overload; // More than the system can take.
mod producer; // Who sends events.
mod record; // What is remembered while a run goes on.
mod run; // Load, harm, rest, check.
mod sabotage; // The checker against a system that lies.
mod servers; // The Redis servers of a run.
mod sink; // Who receives them.
#[path = "../promises/support/mod.rs"]
#[expect(dead_code, reason = "it serves the promises as well, each of which uses a part")]
mod support;
mod tracer; // `strace` between a router and the kernel.
mod world; // Routers, store, receivers, links.
