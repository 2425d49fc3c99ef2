//! What Branchline promises, one file per subject. Each test's name is the promise.

mod accept; // 2xx means stored; a refusal says what is wrong.
mod admin; // What the operator's door refuses.
mod bad_day; // The README's walkthrough, command by command.
mod bad_input; // What producers may send, and what they are told.
mod bench; // What the bench measures, and how it is told.
mod check; // What `branchline check` finds, and how it says it.
mod command_line; // What an operator can ask and do at the terminal.
mod config; // A bad config never replaces a good one, and names its file, line and key.
mod end_to_end; // The whole job with real processes, on both stores, through `kill -9`.
mod endpoints; // One bad endpoint costs the others nothing.
mod evil; // Plugins that mean harm: each ends in a named fault, and costs the others nothing.
mod life; // A failing delivery's 26½ hours, on paused time.
mod listeners; // What connections can do to the listeners, and TLS.
mod names; // Where a name leads, as the system looks it up.
mod operations; // What an operator asks of a running router, and has it do.
mod peers; // What breaks others.
mod plugin; // The sandbox: verdicts, limits, refusals, fairness.
mod plugin_languages; // Plugins in every language, from nothing to a delivered message.
mod plugin_tools; // What authors are told.
mod plugin_use; // Breaker, `on_error`, shadow mode.
mod plugin_versions; // One version of a plugin in place of another.
mod redis_cluster; // The store in Redis: a Cluster that changes under load.
mod redis_failover; // The store in Redis: another server takes the master's place.
mod redis_faults; // The store in Redis: what it survives.
mod redis_fitness; // The store in Redis: what kind of server it takes, and when that has no room.
mod redis_handover; // The store in Redis: events that the call which stores them claims.
mod redis_large; // The store in Redis: what is large, what is refused.
mod redis_load; // Producers and a consumer over a store, and the reckoning.
mod redis_retention; // The store in Redis: what is kept, and how much room it takes.
mod redis_store; // The store in Redis: the contract.
mod redis_wait; // The store in Redis: replicas and disks that are waited for.
mod reload; // One config in place of another, under load.
mod route_tests; // Tests that stand beside the routes.
mod router; // What an operator relies on.
mod secrets; // No secret in anything that is printed or served.
mod send; // One attempt, whatever the receiver does.
mod store_contract; // What every store promises; both stores run it.
mod store_embedded; // The embedded store: the contract, and what only it promises.
mod support; // Servers, folders and waiting, for all of them.
mod tidy; // The tree guards itself.
