//! What Branchline promises, one file per subject. Each test's name is the promise.

mod redis_faults; // The store in Redis: what it survives.
mod redis_store; // The store in Redis: the contract.
mod store_contract; // What every store promises; both stores run it.
mod support; // Servers, folders and waiting, for all of them.
