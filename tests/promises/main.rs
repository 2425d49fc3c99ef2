//! What Branchline promises, one file per subject. Each test's name is the promise.

mod config; // A bad config never replaces a good one, and names its file, line and key.
mod support; // Servers, folders and waiting, for all of them.
