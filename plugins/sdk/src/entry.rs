//! What the `plugin!` macro calls, free of the boundary: reads the event and the config, runs the
//! plugin's function, and gives its answer. The tests call the same functions.

use serde::de::DeserializeOwned;

use crate::{Error, Event, RawEvent, Verdict};

/// Runs `handle` over one event under one config.
pub fn handle<Payload: DeserializeOwned, Config: DeserializeOwned>(
    handle: fn(Event<Payload>, Config) -> Result<Verdict, Error>,
    event: RawEvent,
    config: &str,
) -> Result<Verdict, Error> {
    let config = read_config(config).map_err(|fault| Error::permanent("invalid-config", fault))?;
    handle(Event::parse(event)?, config)
}

/// Refuses a config that does not deserialise, or that `check` finds fault with.
///
/// `handle` is here only for its `Config` type, so that a plugin names it once.
pub fn validate_config<Payload, Config: DeserializeOwned>(
    _handle: fn(Event<Payload>, Config) -> Result<Verdict, Error>,
    check: fn(&Config) -> Result<(), String>,
    config: &str,
) -> Result<(), String> {
    check(&read_config(config)?)
}

/// Checks a plugin's functions where it is compiled, natively too.
pub const fn have_the_right_types<Payload: DeserializeOwned, Config: DeserializeOwned>(
    _handle: fn(Event<Payload>, Config) -> Result<Verdict, Error>,
    _check: fn(&Config) -> Result<(), String>,
) {
}

/// The check of a plugin that has none of its own.
pub fn accept_any_config<Config>(_config: &Config) -> Result<(), String> {
    Ok(())
}

/// A config is the operator's own text, so here serde's message may quote it.
fn read_config<Config: DeserializeOwned>(text: &str) -> Result<Config, String> {
    serde_json::from_str(text).map_err(|fault| fault.to_string())
}
