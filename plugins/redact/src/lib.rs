//! Removes, masks or hashes parts of an event by their paths, and lets the rest pass with its digits and
//! in its order. What a path does not find is fine. It always replaces the event: a payload that says a
//! name twice is read once here, and must not reach a reader who would take the other one.

mod path; // From a pointer to all the places that it names.
mod rules; // What is done there.

use branchline_plugin::serde_json::Value;
use branchline_plugin::{Error, Event, Verdict, plugin};
use serde::Deserialize;

use path::Path;
use rules::{Mask, Rules};

plugin!(handle, check);

const RULES_MAX: usize = 100;

// Not one `Rules` for the payload: serde cannot refuse unknown keys in what it flattens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    remove: Vec<Path>,
    #[serde(default)]
    hash: Vec<Path>,
    #[serde(default)]
    mask: Vec<Mask>,
    /// The same for the metadata.
    #[serde(default)]
    metadata: Rules,
    /// What every hash begins with.
    #[serde(default)]
    salt: String,
}

fn check(config: &Config) -> Result<(), String> {
    let own = config.remove.len() + config.hash.len() + config.mask.len();
    let all = own + config.metadata.len();
    if all == 0 {
        return Err("there is nothing to do; `remove`, `mask` or `hash` is needed".to_owned());
    }
    if all > RULES_MAX {
        return Err(format!("there are {all} paths; {RULES_MAX} are allowed"));
    }
    let hashes = !config.hash.is_empty() || !config.metadata.hash.is_empty();
    if hashes && config.salt.is_empty() {
        return Err("`hash` needs a `salt`: without one, whoever tries all phone numbers finds the one".to_owned());
    }
    Ok(())
}

fn handle(mut event: Event, config: Config) -> Result<Verdict, Error> {
    let rules = Rules { remove: config.remove, hash: config.hash, mask: config.mask };
    rules.apply(&mut event.payload, &config.salt);
    let mut metadata = Value::Object(event.metadata);
    config.metadata.apply(&mut metadata, &config.salt);
    event.metadata = match metadata {
        Value::Object(metadata) => metadata,
        // A path names a part, so the whole is still an object.
        _ => Default::default(),
    };
    Verdict::replace(event)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_is_right() {
        branchline_plugin::testing::run_readme_verdict(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }

    #[test]
    fn every_fixture_holds() {
        branchline_plugin::testing::run_fixtures(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }
}
