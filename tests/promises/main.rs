//! What Branchline promises, one file per subject. Each test's name is the promise.

mod send; // One attempt, whatever the receiver does.
mod support; // Servers, folders and waiting, for all of them.
