//! What an operator can ask and do at the terminal, each command through the built program with real servers.

mod authority; // Routers that a private authority vouches for.
mod backtest; // What a change would have done.
mod everywhere; // What all commands have in common.
mod explain; // Why, for each subscription.
mod history; // Events, dead letters, replays: with a router and without one.
mod manual; // Completions and man pages.
mod plan; // What a config would change.
mod send; // Events from a file to a source.
mod terminal; // How long work looks.
