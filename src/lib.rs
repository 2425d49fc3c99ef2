//! Branchline: an HTTP event router. This page is the architecture: the path, the code map, the
//! invariants, walkthroughs, and where to change what. The outer contract (config, HTTP, command line,
//! plugins) is told by `README.md`.
//!
//! # The path of an event
//!
//! ```text
//!  producer ──POST──▶ accept ──▶ ╔═════════════ store ═════════════╗
//!                                ║ events      (stream)            ║
//!                                ║ schedule    (sorted set)        ║   Redis, or SQLite on disk
//!                                ║ deliveries  (retry records)     ║
//!                                ║ dead letters, outcomes          ║
//!                                ╚══▲══════════════╤═══════════════╝
//!                                   │  settle      │ claim
//!                                   │              ▼
//!                      endpoint ◀─ send ◀─ plugin ◀─ filter ◀─ dispatch
//! ```
//!
//! 1. [`accept`] authenticates the request, checks the envelope, appends the event to the store, and only then answers `202`.
//! 2. [`dispatch`] claims events in batches, and due deliveries from the schedule.
//! 3. [`filter`] finds the subscriptions that want the event: a tree of event-type patterns, then `where`.
//! 4. [`plugin`] runs a subscription's chain in the sandbox, a fresh instance for each call.
//! 5. [`send`] makes one attempt and returns what happened as data.
//! 6. [`settle`] decides, purely: delivered, retry at, or dead letter. `dispatch` hands the decision to the store, which writes it in one atomic step.
//!
//! An event's first attempts are made while it is claimed. A delivery is written only when it must
//! outlive that: so a success costs one append, a share of a batched claim and a share of a batched settlement.
//!
//! # Code map
//!
//! | where | what | never |
//! |---|---|---|
//! | `accept/` | HTTP in → stored event | answers 2xx before the store did |
//! | `admin/` | probes, metrics, endpoints; `operations/` is what operators ask and do, over HTTP and from the command line | serves producers |
//! | `dispatch/` | claims, walks, limits; `event.rs` first attempts, `delivery.rs` later ones, `advance.rs` the step both share, `passage.rs` who may go to an endpoint: marks, breaker, rate, and `gate.rs`, its limit on attempts; `walks.rs` what is under way; `rehearsal.rs` the same steps to an event's end, without a store | holds work that the store does not hold too |
//! | `filter/` | patterns, `where` | reads a clock or keeps state |
//! | `plugin/` | wasmtime: shape, compile (in a child process), cache, schedule, call, breaker | gives a guest anything but `host` |
//! | `send/` | sign, resolve, check the address, one request | follows a redirect, connects to an unchecked address |
//! | `settle/` | one pure function | does anything |
//! | `store/` | [`store::Store`], [`store::History`] for operators, `embedded/`, `redis/`, the records' bytes | decides anything about an event |
//! | `config/` | files and environment → typed settings | lets a raw text past itself |
//! | `cli/` | one file per command | |
//! | `app.rs`, `app/` | wiring; the only place that knows every stage; `load.rs` refuses a bad config for `serve`, reload and `check` alike, `lint.rs` warns | mixes two generations of a config |
//! | `addresses.rs`, `attempt.rs`, `breaker.rs`, `clock.rs`, `delivery.rs`, `endpoint.rs`, `event.rs`, `http2.rs`, `peer.rs`, `rate.rs`, `route.rs`, `secret.rs`, `tls.rs`, `metrics.rs`, `tail.rs` | the vocabulary | import a stage |
//!
//! A stage imports only what stands below it in the list of stages, and the vocabulary. `tests/promises/tidy.rs` holds that.
//!
//! # Invariants
//!
//! * Durable state is in the store and nowhere else. There is nothing between two stages that a crash could lose.
//! * Whatever a process holds is claimed in the store. With Redis a claim belongs to a consumer whose
//!   heartbeat others watch (events) or to a lease in the schedule's score (deliveries); a settlement
//!   carries a fence, and one that comes too late is refused whole.
//! * `webhook-id` is derived from the event and the subscription, so every attempt, redelivery and replay has the same one.
//! * A retry sends the bytes of the first attempt. Plugins run again only if they failed, or if a crash came before the first
//!   attempt was settled: nothing is written between a plugin and its request.
//! * Time is a [`clock::Clock`], chance an argument: the decision is a table test, and a delivery's 26½ hours are a test of milliseconds.
//! * With Redis, due times are the server's: routers' clocks do not matter.
//! * Queues, bodies, attempts, connections, plugin time and memory have limits. What can't start soon is parked in the schedule.
//! * Deliberately absent: order per aggregate (partitions by aggregate keep it possible), exactly-once, WASI, redirects.
//!
//! # How the stores lay it out
//!
//! **Redis**, per partition, every key in one hash slot: `{bl:p}:events` (stream, one group), `{bl:p}:ids:<bucket>` (hashes: source and id →
//! place, for the dedupe window and for looking up), `{bl:p}:due` (sorted set), `{bl:p}:d:…` (a delivery's record), `{bl:p}:dead`,
//! `{bl:p}:outcomes` (streams; one entry holds a batch's outcomes), `{bl:p}:letters` and `{bl:p}:later` (sorted sets: where a
//! delivery's dead letter is, where outcomes are that came later than two seconds after their event), `{bl:p}:owner:<consumer>` (the fence). Every step is one script; appends and
//! settlements of many events share a call. Where it differs from the obvious, and why:
//!
//! * The call that stores events claims them for its router, where that waits for some (`redis/handover.rs`): they go on from
//!   memory, and nothing is read back. It does so only when the group has read all that was stored before, and for a bounded number;
//!   the rest is read by whoever has room.
//! * A score with a fraction is claimed, a whole one waits; the fraction says by whom: whether and by which process a delivery is held needs no key of its own.
//! * A call that claims deliveries has a number, under which what it claimed is noted: its repetition is given the same.
//! * A settlement that is too large for one call writes its records ahead, with an expiry, and takes them up in the one call that settles.
//! * What a process holds is found again by `XPENDING` and `XRANGE`, not by reading its history, which would transfer every body it holds.
//! * What became of an event is looked for right after it in the outcomes' stream; only what was written later than that is
//!   written down in an index of its own, so that a success costs nothing for it.
//! * One partition is the default for a single server: it does one thing at a time, and more partitions only make batches smaller.
//!
//! **Embedded**, SQLite: `event` rows are written once and never changed; `pending` rows are the backlog, so settling deletes a small
//! row. Just accepted events are claimed from memory, older ones from disk. Ids are kept in memory and in write-once segments with a
//! filter each, because a tree of random ids cost a page per event. One writer commits for everybody, one fsync a batch. A commit's outcomes
//! are one row, found again through a row for each block of 64 events that it is about.
//!
//! # Walkthroughs
//!
//! **An event that succeeds.** `accept/intake.rs` checks the request; `Store::append` returns once it is
//! durable (group commit with other requests); the producer reads 202. `Dispatcher::claim_events` gets
//! the event in a batch and spawns `dispatch/event.rs`; the route table says which subscriptions want it;
//! `advance` runs the plugins, waits for its turn at the endpoint's gate, sends, decides. One
//! `Store::settle_event` acknowledges the event and records its outcomes, again in a batch.
//!
//! **An endpoint that is down for an hour.** The first attempt fails; the settlement writes a delivery
//! with the exact bytes, due in a minute. `claim_due` moves its score forward by a lease and gives it to
//! `dispatch/delivery.rs`, which steps again; after 1m, 5m, 30m the endpoint is back and the delivery ends.
//! An endpoint that hangs instead fills its gate; from then on deliveries are parked at once, and nobody else waits. After ten
//! failures in a row its breaker opens: deliveries are parked without an attempt, in a row, and one probes now and then.
//!
//! **A router killed mid-attempt.** Its events are still pending under its consumer name, its deliveries
//! under their lease. Another router, or the same one started again, takes both up: with Redis when the
//! heartbeat has been silent for ten seconds, with the embedded store at once. The attempt is repeated with the same `webhook-id`.
//!
//! **A step that panics.** A bug, but nothing is lost by it: the delivery goes into the schedule, its event's others go on; after five more
//! times it becomes a dead letter. A walk that panics outside of a step is made again after a while, and given up alike.
//!
//! **A first attempt that takes long.** After 250 ms its event is settled without it: the delivery is
//! written as one that this router holds under a lease, the attempt goes on, and settles as a delivery.
//!
//! **A plugin that is new.** Its file is read, looked at ([`plugin`]'s `shape`) and compiled by a child process, which is this
//! program as `branchline compile-plugin` with limits on time and memory; the machine code is kept under a code of
//! authentication. A component that takes the compiler down is refused with the reason.
//!
//! **A plugin that loops.** Its call ends at the deadline as a failed attempt, recorded with its kind,
//! and follows the schedule. Calls of one plugin take a share of the sandbox's threads, so others go on.
//! After five faults in a row its breaker opens: deliveries are parked, and one probes now and then.
//!
//! **A reload.** The config is read, checked, its plugins loaded, every subscription's config validated and every plugin's fixtures run;
//! then one snapshot replaces the other. Events that are being walked end on the snapshot they began with. Of a config that is
//! refused all faults are told: what the reader can't use has a stand-in at its place (`config::Draft`), and the rest is looked at, too.
//!
//! **A config that somebody plans.** `branchline plan` checks it and sends its secrets as digests under a key drawn for this one question;
//! the router answers with what its own config says, secrets as `***`, and which of them differ (`config/comparison.rs`). `cli/plan/` finds the changes and
//! what follows, and asks what waits for the subscriptions they concern.
//!
//! **An event that somebody asks about.** `admin/operations/events.rs` finds it by its id in one of the sources that were ever
//! configured, or, for an id the router made, by the time in it. `History::outcomes_of` reads what was recorded right after it
//! and what the index of later outcomes points to; `pairs.rs` puts that together with what is still in the schedule.
//!
//! **A test beside the routes.** `cli/test` brings an event to `dispatch::rehearse` with a config whose secrets are the test's own. It
//! makes the steps of `advance.rs` one after the other on tokio's paused clock, with endpoints that answer from the test's list;
//! the requests are composed where [`send`] composes them. What came is compared with what must come.
//!
//! **A dead letter that is replayed.** `operations/replay` takes its bytes and a fresh round of attempts to `History::replay`: one step
//! that checks that the dead letter is still there, puts the delivery into the schedule, due now, records it and removes the
//! dead letter. Who comes second finds it gone. A bulk replay goes on by the place of the last dead letter and ends with those
//! that were there when it began, so what fails again meanwhile is neither skipped nor replayed twice.
//!
//! # Where to change what
//!
//! * A new outcome or reason: `delivery.rs`; the compiler shows every `match`.
//! * When a retry comes: `settle/mod.rs`. Who may go to an endpoint: `dispatch/passage.rs`, `dispatch/gate.rs`.
//! * What operators can ask and do: `admin/operations/`; its path: `admin/route.rs`.
//! * Why an event went where it went: `admin/explain/`, over `filter/explain.rs` and `plugin/chain.rs`.
//! * A config key: `config/`, and `config/schema.json`, which a test compares with it. A metric: `metrics.rs`. A kind of refusal: `accept/refusal.rs`.
//! * What a record holds: `store/record.rs`; add keys, never change one; then walk old reader/new data and back.
//! * The plugin contract: a new folder under `wit/`; a released one is frozen.

pub mod accept; // Authenticate the request, store the event, answer 202.
pub mod addresses; // Vocabulary: how many connections a listener has, and each address.
pub mod admin; // The operator's door: health, metrics, what became of events, doing it again.
pub mod app; // Wires it all; the only file that knows every stage.
pub mod attempt; // Vocabulary: one try at a delivery.
pub mod breaker; // Vocabulary: leaving alone what keeps failing.
pub mod cli; // One file per command.
pub mod clock; // Time, the one place that reads it.
pub mod config; // Files and environment in, checked settings out.
pub mod delivery; // Vocabulary: the duty to bring one event to one subscription.
pub mod dispatch; // Claim work, walk it through the stages, with limits everywhere.
pub mod endpoint; // Vocabulary: where deliveries go.
pub mod event; // Vocabulary: what happened.
pub mod filter; // Which subscriptions want the event.
#[cfg(test)]
mod fuzz; // Mutated inputs for every parser.
pub mod http2; // Vocabulary: HTTP/2 with limits, as both listeners speak it.
mod json; // Vocabulary: where a JSON text stops being plain, and such texts written.
pub mod metrics; // Every metric's name, in one file.
pub mod peer; // Vocabulary: what a connection's other side may cost.
pub mod plugin; // The sandbox.
pub mod rate; // Vocabulary: so many in so much time.
pub mod route; // Vocabulary: which events go where.
pub mod secret; // Vocabulary: values that are never printed.
pub mod send; // One attempt.
pub mod settle; // Delivered, retry at, dead letter.
pub mod store; // The only place where durable state is.
pub mod tail; // Vocabulary: what happens, told as it happens.
pub mod tls; // Vocabulary: what the listeners show to those who connect.
