//! What must be in nothing that the program prints or serves, and the search for it.

use std::path::Path;

use super::redis_sentinel::SENTINEL_PASSWORD;
use super::router::KEY;

/// What is shorter stands for nothing secret in a test.
const SECRET_LENGTH_MIN: usize = 8;

/// The lines of the private keys in the files of a folder.
pub fn private_keys(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.extension().is_some_and(|extension| extension == "pem" || extension == "key") {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for key in text.split("PRIVATE KEY-----\n").skip(1).step_by(2) {
            lines.extend(key.lines().take_while(|line| !line.starts_with('-')).map(str::to_owned));
        }
    }
    lines
}

/// What every test's config has, or may have, as a file or a variable says it, and as it is without its prefix.
pub fn of_every_test() -> [&'static str; 3] {
    [KEY, super::SECRET.trim_start_matches("whsec_"), SENTINEL_PASSWORD]
}

/// Fails when a text shows one of these, and says after what.
pub fn shows_none<'s>(what: &str, text: &str, secrets: impl Iterator<Item = &'s str>) {
    for secret in secrets.filter(|secret| secret.len() >= SECRET_LENGTH_MIN) {
        let place = text.find(secret);
        let around = place.map(|place| text.get(place.saturating_sub(200)..place).unwrap_or_default());
        assert_eq!(around, None, "{what} shows a secret, after this");
    }
}
