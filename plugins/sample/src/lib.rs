//! Lets a share of the events pass and drops the others. Which ones depends on a key alone, so that all
//! events of one order pass, or none; another program can compute the same.

use branchline_plugin::serde_json::value::RawValue;
use branchline_plugin::serde_json::{self, Value};
use branchline_plugin::{Error, Event, Verdict, plugin};
use serde::Deserialize;
use sha2::{Digest, Sha256};

plugin!(handle, check);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    share: f64,
    #[serde(default)]
    by: Key,
    /// Another seed takes another share of the same size.
    #[serde(default)]
    seed: String,
}

/// What decides for an event.
#[derive(Default, Deserialize)]
#[serde(try_from = "String")]
enum Key {
    #[default]
    AggregateId,
    Id,
    /// A JSON pointer into the payload.
    Payload(String),
}

impl TryFrom<String> for Key {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "aggregateId" => Ok(Self::AggregateId),
            "id" => Ok(Self::Id),
            pointer if pointer.starts_with('/') => Ok(Self::Payload(text)),
            _ => Err("`by` is `aggregateId`, `id`, or a JSON pointer into the payload such as `/customer/id`"),
        }
    }
}

fn check(config: &Config) -> Result<(), String> {
    if !(0.0..=1.0).contains(&config.share) {
        return Err("`share` is a number from 0 to 1, such as 0.1 for a tenth".to_owned());
    }
    Ok(())
}

// Raw, since most configs never look into the payload.
fn handle(event: Event<Box<RawValue>>, config: Config) -> Result<Verdict, Error> {
    let key = match &config.by {
        Key::AggregateId => Some(event.aggregate_id.clone()),
        Key::Id => None,
        Key::Payload(pointer) => from_payload(&event.payload, pointer)?,
    };
    let key = key.filter(|key| !key.is_empty()).unwrap_or(event.id);
    if is_in(&key, &config.seed, config.share) {
        return Ok(Verdict::Pass);
    }
    Ok(Verdict::drop("not in the sample"))
}

/// A text, a number or a truth value; anything else is no key.
fn from_payload(payload: &RawValue, pointer: &str) -> Result<Option<String>, Error> {
    let payload: Value = serde_json::from_str(payload.get())
        .map_err(|_| Error::permanent("invalid-payload", "the event's payload is nested too deeply"))?;
    Ok(match payload.pointer(pointer) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.as_str().to_owned()),
        Some(Value::Bool(answer)) => Some(answer.to_string()),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => None,
    })
}

/// The first eight bytes of SHA-256 of the seed, a zero byte and the key, as a number, against the
/// share of all such numbers.
fn is_in(key: &str, seed: &str, share: f64) -> bool {
    let digest = Sha256::new().chain_update(seed).chain_update([0]).chain_update(key).finalize();
    let number = digest.iter().take(8).fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
    // 2⁶⁴ as a float is exact, and so is a share of it.
    number < (share * 18_446_744_073_709_551_616.0) as u128
}

#[cfg(test)]
mod tests {
    use super::is_in;

    #[test]
    fn the_readme_is_right() {
        branchline_plugin::testing::run_readme_verdict(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }

    #[test]
    fn every_fixture_holds() {
        branchline_plugin::testing::run_fixtures(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }

    #[test]
    fn the_share_is_what_was_asked_for() {
        for share in [0.0, 0.01, 0.1, 0.5, 1.0] {
            let taken = (0..20_000).filter(|index| is_in(&format!("order_{index}"), "", share)).count();
            let expected = share * 20_000.0;
            assert!((taken as f64 - expected).abs() <= 4.0 * (expected * (1.0 - share)).sqrt(), "{share}: {taken}");
        }
    }

    #[test]
    fn a_larger_share_has_all_of_a_smaller_one() {
        for index in 0..1000 {
            let key = index.to_string();
            assert!(!is_in(&key, "s", 0.1) || is_in(&key, "s", 0.2), "{key}");
        }
    }

    #[test]
    fn another_seed_takes_others() {
        let both =
            (0..20_000).map(|index| index.to_string()).filter(|key| is_in(key, "a", 0.1) && is_in(key, "b", 0.1));
        let both = both.count();
        assert!((150..250).contains(&both), "{both} of about 200");
    }
}
