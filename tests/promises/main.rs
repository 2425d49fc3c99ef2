//! What Branchline promises, one file per subject. Each test's name is the promise.

mod plugin; // The sandbox: verdicts, limits, refusals, fairness.
mod support; // Servers, folders and waiting, for all of them.
