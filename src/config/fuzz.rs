//! Fuzzing of configs: every text is a config or a list of faults, and no fault shows what stood where a secret stands.

use std::fmt::Write;
use std::path::Path;

use super::document::{Before, Document};
use super::{Config, Environment, Errors};
use crate::fuzz::fuzz;

/// What stands in the corpus wherever a config may have a secret, and in its comments. It looks like one: upper case, digits.
const PLANTED: &str = "9F3A7C2E51D8B604";

/// Keys whose values may be secret.
const SECRET_KEYS: [&str; 8] =
    [".secret", ".url", ".headers.", ".bearer", ".tokens", ".sentinel_password", ".config.", ".secrets."];

/// Whether what is planted stands only where a secret stands. A text that can't be parsed has no keys yet: nothing of it may be shown.
fn is_secret(text: &str, is_json: bool) -> bool {
    let Ok(document) = Document::parse(text, is_json, Before::default()) else { return true };
    document.spots.iter().all(|spot| {
        let is_in = |range: &std::ops::Range<usize>| text.get(range.clone()).is_some_and(|part| part.contains(PLANTED));
        let may_be = SECRET_KEYS.iter().any(|known| format!("{}.", spot.key).contains(known));
        !is_in(&spot.name) && (!spot.leaf || !is_in(&spot.value) || may_be)
    })
}

/// Everything that an operator, or a program, is told of it.
fn told(errors: &Errors) -> String {
    let mut told = errors.to_string();
    for fault in errors.faults.iter().chain(&errors.warnings) {
        let _ = write!(told, "\n{fault}\n{}", serde_json::to_string(fault).expect("a fault serializes"));
    }
    told
}

#[test]
fn configs() {
    let environment = Environment::default();
    let (mut refused, mut planted) = (0, 0);
    fuzz("config", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        for (name, is_json) in [("app.toml", false), ("app.json", true)] {
            let Err(errors) = Config::parse(Path::new(name), text, &environment) else { continue };
            assert!(!errors.faults.is_empty(), "refused without a reason");
            assert!(errors.faults.iter().all(|fault| !fault.message.is_empty()));
            refused += 1;
            if text.contains(PLANTED) && is_secret(text, is_json) {
                planted += 1;
                let told = told(&errors);
                assert!(!told.contains(PLANTED), "a fault shows a secret: {told}");
            }
        }
    });
    println!("fuzz config: {refused} refusals, {planted} of them with secrets");
    assert!(planted > 0, "no secret was planted");
}
