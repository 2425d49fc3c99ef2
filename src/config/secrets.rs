//! Secrets: `{ env = "NAME" }`, `{ file = "path" }`, or plain text. What they hold goes into a [`Secret`] or a
//! key at once and is in no message, not even when it is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::reader::Entry;
use super::values::{self, KIB};
use crate::endpoint::SigningKey;
use crate::secret::Secret;

const SECRET_FILE_BYTES_MAX: usize = 64 * KIB;
const HMAC_KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const SHAPES: &str = "`{ env = \"NAME\" }`, `{ file = \"path\" }` or text";

/// What to think of a secret that stands in the config file itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    /// It is a secret in any case: tell the operator.
    Warn,
    /// It may well be none, like most URLs.
    Fine,
}

/// What a stand-in for a secret must look like, see `Environment::with_stand_ins`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Url,
    SigningKey,
    StoreUrl,
}

impl Shape {
    /// Something of this shape, always the same for a name.
    fn stand_in(self, name: &str) -> String {
        match self {
            Self::Text => format!("stand-in-for-{name}"),
            Self::Url => {
                format!("https://{}.invalid/", name.to_lowercase().replace(['_', '/', '.'], "-").trim_matches('-'))
            }
            Self::SigningKey => format!("whsec_{}", STANDARD_PAD_INDIFFERENT.encode(Sha256::digest(name))),
            Self::StoreUrl => "file:data".to_owned(),
        }
    }
}

/// Which of a config's values are secrets, by their whole keys.
#[derive(Clone, Default)]
pub(super) struct Secrets {
    /// Those whose values, and what is in them, may be secret.
    keys: BTreeSet<String>,
    /// Those whose values say where a secret is, with what was found there; nothing where a stand-in took its place.
    elsewhere: BTreeMap<String, Option<Secret>>,
}

impl Secrets {
    /// Notes that a value may be secret.
    pub fn add(&mut self, key: String) {
        self.keys.insert(key);
    }

    /// Whether a value may be secret.
    pub fn may_be(&self, key: &str) -> bool {
        let above = |(at, _): (usize, &str)| self.keys.contains(&key[..at]);
        self.keys.contains(key) || key.match_indices(['.', '[']).any(above)
    }

    /// What was found by a value that says where a secret is; `None` for any other value.
    pub fn found_by(&self, key: &str) -> Option<&Option<Secret>> {
        self.elsewhere.get(key)
    }
}

impl Entry<'_> {
    /// As a secret: not empty.
    pub fn secret(&self, plain: Plain) -> Option<Secret> {
        self.secret_of(plain, Shape::Text)
    }

    /// The same, of a shape.
    pub fn secret_of(&self, plain: Plain, shape: Shape) -> Option<Secret> {
        let text = match self.value {
            Value::Object(_) => self.secret_elsewhere(shape)?,
            Value::Array(_) => {
                self.fault(format!("must be {SHAPES}, not a list"));
                return None;
            }
            Value::Null | Value::Bool(_) | Value::Number(_) if !self.is_set_by_variable() => {
                self.fault(format!("must be {SHAPES}, not {}", values::kind(self.value)));
                return None;
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let text = self.text()?.into_owned();
                if plain == Plain::Warn && !self.is_from_environment() {
                    self.warn("is a secret in plain text; better `{ env = \"NAME\" }` or `{ file = \"path\" }`");
                }
                text
            }
        };
        if text.is_empty() {
            self.fault("is empty");
            return None;
        }
        Some(Secret::new(text))
    }

    /// `{ env = … }` or `{ file = … }`.
    fn secret_elsewhere(&self, shape: Shape) -> Option<String> {
        let mut table = self.table()?;
        let (variable, file) = (table.find("env"), table.find("file"));
        let secret = match (variable, file) {
            (Some(variable), None) => variable.noting(variable.secret_in_variable(shape)),
            (None, Some(file)) => file.noting(file.secret_in_file(shape)),
            (None, None) if !table.names().is_empty() => None, // Unknown keys, which its end reports.
            _ => {
                self.fault(format!("must be {SHAPES}"));
                None
            }
        };
        table.end();
        secret
    }

    /// Notes what was found where this value says; gives it, or the stand-in that takes its place.
    fn noting(&self, found: Option<Found>) -> Option<String> {
        let found = found?;
        let (text, secret) = match found {
            Found::There(text) => (text.clone(), Some(Secret::new(text))),
            Found::StandIn(text) => (text, None),
        };
        self.reading.secrets.borrow_mut().elsewhere.insert(self.key.clone(), secret);
        Some(text)
    }

    fn secret_in_variable(&self, shape: Shape) -> Option<Found> {
        let name = self.text()?;
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty();
        if !is_name || name.starts_with("whsec_") || name.starts_with("whsk_") {
            // It may be the secret itself, so it is not repeated here.
            self.fault("must be the name of an environment variable: letters, digits and `_`");
            return None;
        }
        match self.reading.environment.get(&name) {
            Some("") => {
                self.shown().fault(format!("names the environment variable `{name}`, which is empty"));
                None
            }
            Some(text) => Some(Found::There(text.to_owned())),
            None => self.not_there(format!("names the environment variable `{name}`, which is not set"), &name, shape),
        }
    }

    fn secret_in_file(&self, shape: Shape) -> Option<Found> {
        let name = self.text()?;
        let environment = self.reading.environment;
        if environment.stands_in_for_files() {
            let found = environment.get(&name).map(|text| Found::There(text.to_owned()));
            return Some(found.unwrap_or_else(|| Found::StandIn(shape.stand_in(&name))));
        }
        let path = self.reading.origins.folder(&self.key).join(&*name);
        match read_secret(&path) {
            Ok(File { text, mode }) => {
                if let Some(mode) = mode.filter(|mode| mode & 0o077 != 0) {
                    self.warn(format!(
                        "names the file `{}`, which others than its owner can read (mode {mode:03o}); `chmod 600` it",
                        path.display()
                    ));
                }
                Some(Found::There(text))
            }
            Err(why) => {
                let message = format!("names the file `{}`, which can't be used: {why}", path.display());
                self.not_there(message, &name, shape)
            }
        }
    }

    /// A secret that is not there is a fault, or stood in for.
    fn not_there(&self, message: String, name: &str, shape: Shape) -> Option<Found> {
        if self.reading.environment.stands_in() {
            self.warn(format!("{message}; a stand-in takes its place"));
            return Some(Found::StandIn(shape.stand_in(name)));
        }
        self.shown().fault(message);
        None
    }

    fn is_from_environment(&self) -> bool {
        matches!(self.reading.origins.place(&self.key, super::origins::Part::Value), super::Place::Variable { .. })
    }

    /// As a key that signs deliveries.
    pub fn signing_key(&self) -> Option<SigningKey> {
        let secret = self.secret_of(Plain::Warn, Shape::SigningKey)?;
        match signing_key(secret.expose()) {
            Ok(key) => Some(key),
            Err(message) => {
                self.fault(message);
                None
            }
        }
    }
}

/// What is where a value says.
enum Found {
    There(String),
    StandIn(String),
}

struct File {
    text: String,
    /// The permission bits, where the system has them.
    mode: Option<u32>,
}

fn read_secret(path: &Path) -> Result<File, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(SECRET_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > SECRET_FILE_BYTES_MAX {
        return Err(format!("it is larger than {}", values::show_bytes(SECRET_FILE_BYTES_MAX)));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(File { text, mode: mode(&metadata) })
}

#[cfg(unix)]
fn mode(metadata: &std::fs::Metadata) -> Option<u32> {
    Some(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777)
}

#[cfg(not(unix))]
fn mode(_: &std::fs::Metadata) -> Option<u32> {
    None
}

/// A Standard Webhooks secret: `whsec_` and 24 to 64 bytes for HMAC, `whsk_` and a seed or key pair for ed25519.
fn signing_key(text: &str) -> Result<SigningKey, String> {
    let decode =
        |text: &str| STANDARD_PAD_INDIFFERENT.decode(text).map_err(|_| "is not base64 after its prefix".to_owned());
    if let Some(text) = text.strip_prefix("whsec_") {
        let key = decode(text)?;
        let (low, high) = HMAC_KEY_BYTES.into_inner();
        if !HMAC_KEY_BYTES.contains(&key.len()) {
            return Err(format!("must hold {low} to {high} bytes after `whsec_`, not {}", key.len()));
        }
        return Ok(SigningKey::Hmac(Arc::from(key)));
    }
    let Some(text) = text.strip_prefix("whsk_") else {
        return Err("must start with `whsec_` (HMAC-SHA256) or `whsk_` (ed25519), then base64; for example \
                    what `echo whsec_$(openssl rand -base64 32)` prints"
            .to_owned());
    };
    let key = decode(text)?;
    let key = if let Ok(seed) = <&[u8; 32]>::try_from(key.as_slice()) {
        ed25519_dalek::SigningKey::from_bytes(seed)
    } else if let Ok(pair) = <&[u8; 64]>::try_from(key.as_slice()) {
        ed25519_dalek::SigningKey::from_keypair_bytes(pair)
            .map_err(|_| "holds a private and a public key that do not belong together".to_owned())?
    } else {
        return Err(format!("must hold 32 bytes (a seed) or 64 (a key pair) after `whsk_`, not {}", key.len()));
    };
    Ok(SigningKey::Ed25519(Box::new(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(prefix: &str, bytes: &[u8]) -> String {
        format!("{prefix}{}", STANDARD_PAD_INDIFFERENT.encode(bytes))
    }

    #[test]
    fn signing_secrets_are_those_of_standard_webhooks() {
        for length in [24, 32, 64] {
            let key = signing_key(&encoded("whsec_", &vec![7; length])).unwrap();
            assert!(matches!(key, SigningKey::Hmac(bytes) if *bytes == *vec![7; length]));
        }
        // The padding may be left out.
        assert!(signing_key(encoded("whsec_", &[7; 25]).trim_end_matches('=')).is_ok());
        let pair = ed25519_dalek::SigningKey::from_bytes(&[9; 32]).to_keypair_bytes();
        for bytes in [&[9; 32][..], &pair] {
            let key = signing_key(&encoded("whsk_", bytes)).unwrap();
            assert!(matches!(key, SigningKey::Ed25519(key) if key.to_bytes() == [9; 32]));
        }
    }

    #[test]
    fn what_is_no_signing_secret_is_refused_without_being_shown() {
        let mut torn = ed25519_dalek::SigningKey::from_bytes(&[9; 32]).to_keypair_bytes();
        torn[40] ^= 1;
        for (text, part) in [
            (encoded("whsec_", &[7; 23]), "24 to 64 bytes after `whsec_`, not 23"),
            (encoded("whsec_", &[7; 65]), "not 65"),
            ("whsec_mark er".to_owned(), "not base64"),
            (encoded("whsk_", &[7; 33]), "32 bytes (a seed) or 64"),
            (encoded("whsk_", &torn), "do not belong together"),
            ("marker".to_owned(), "must start with `whsec_`"),
        ] {
            let message = signing_key(&text).unwrap_err();
            assert!(message.contains(part), "{message}");
            assert!(!message.contains("mark"), "{message}");
        }
    }
}
