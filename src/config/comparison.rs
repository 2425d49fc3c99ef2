//! Whether secrets are the same, without showing them: whoever has another config sends what his are as digests under a key that he
//! drew for this one question, and is told which differ. What the router has never leaves it, not even as a digest: that would
//! let anybody who may ask find a short secret by trying, in peace.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::Description;
use crate::secret::Secret;

/// A config's secrets as somebody else may see them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretPrints {
    /// The key of the digests, another one for each question.
    key: String,
    /// HMAC-SHA256 in hex, by the keys of [`Description::secrets`].
    prints: BTreeMap<String, String>,
}

/// What a router says of its config to whoever has another.
#[derive(Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// Which generation is in use.
    pub generation: u64,
    /// What it says.
    pub description: Description,
    /// Which of the secrets that were asked about it has too, and are others here.
    pub differing: Vec<String>,
}

impl SecretPrints {
    /// The secrets of a config, under this key.
    pub fn of(description: &Description, key: String) -> Self {
        let print =
            |(name, secret): (&String, &Secret)| (name.clone(), hex(&mac(&key, name, secret).finalize().into_bytes()));
        let prints = description.secrets.iter().map(print).collect();
        Self { key, prints }
    }

    /// Which of them are others in `description`; those that it has not are not compared.
    pub fn differing(&self, description: &Description) -> Vec<String> {
        let differs = |name: &str, print: &str| {
            let secret = description.secrets.get(name)?;
            let is_same = bytes(print).is_some_and(|print| mac(&self.key, name, secret).verify_slice(&print).is_ok());
            (!is_same).then(|| name.to_owned())
        };
        self.prints.iter().filter_map(|(name, print)| differs(name, print)).collect()
    }
}

fn mac(key: &str, name: &str, secret: &Secret) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length, by its definition");
    // The name, so that a print says nothing of two secrets that are the same.
    for part in [name.as_bytes(), b"\0", secret.expose().as_bytes()] {
        mac.update(part);
    }
    mac
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    (0..hex.len()).step_by(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(secrets: &[(&str, &str)]) -> Description {
        let secrets = secrets.iter().map(|(name, secret)| ((*name).to_owned(), Secret::new(*secret))).collect();
        Description { secrets, ..Description::default() }
    }

    #[test]
    fn secrets_are_compared_and_not_shown() {
        let theirs = described(&[("a", "marker-same"), ("b", "marker-new"), ("only-there", "marker")]);
        let ours = described(&[("a", "marker-same"), ("b", "marker-old"), ("only-here", "marker")]);
        let prints = SecretPrints::of(&theirs, "drawn".to_owned());
        let sent = serde_json::to_string(&prints).unwrap();
        assert!(!sent.contains("marker"), "{sent}");
        let read: SecretPrints = serde_json::from_str(&sent).unwrap();
        assert_eq!(read.differing(&ours), ["b"]);
        let other = SecretPrints::of(&theirs, "drawn again".to_owned());
        assert_ne!(other.prints["a"], prints.prints["a"]);
        for torn in ["", "zz", "é", "0"] {
            let prints = BTreeMap::from([("a".to_owned(), torn.to_owned())]);
            assert_eq!(SecretPrints { key: String::new(), prints }.differing(&ours), ["a"]);
        }
    }
}
