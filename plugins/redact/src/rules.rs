//! What is done to the parts of a payload or a metadata: removed, hashed, masked, in this order. What
//! is null stays so.

use branchline_plugin::serde_json::{self, Value};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::path::{Action, Path};

/// What stands for what can't be shown character by character: a list, an object, true or false.
const MASKED_WHOLE: &str = "***";

/// The rules for one of an event's parts.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Left out.
    #[serde(default)]
    pub remove: Vec<Path>,
    /// Replaced by a hash, the same for the same value.
    #[serde(default)]
    pub hash: Vec<Path>,
    /// Replaced by stars.
    #[serde(default)]
    pub mask: Vec<Mask>,
}

/// A path, and how much stays readable there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    path: Path,
    #[serde(default)]
    keep_last: usize,
}

impl Rules {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.remove.len() + self.hash.len() + self.mask.len()
    }

    /// Does all of it.
    pub fn apply(&self, value: &mut Value, salt: &str) {
        for path in &self.remove {
            path.apply(value, Action::Remove);
        }
        for path in &self.hash {
            path.apply(value, Action::Change(&|value| hash(value, salt)));
        }
        for rule in &self.mask {
            rule.path.apply(value, Action::Change(&|value| mask(value, rule.keep_last)));
        }
    }
}

/// SHA-256 of the salt and then the text, in hexadecimal: other programs can compute it too. What is
/// not text is hashed as JSON writes it.
fn hash(value: &mut Value, salt: &str) {
    let text = match &*value {
        Value::Null => return,
        Value::String(text) => text.clone(),
        other => serde_json::to_string(other).unwrap_or_default(),
    };
    let digest = Sha256::new().chain_update(salt).chain_update(text).finalize();
    let mut hexadecimal = String::with_capacity(2 * digest.len());
    for byte in digest {
        for digit in [byte >> 4, byte & 15] {
            hexadecimal.push(char::from_digit(digit.into(), 16).unwrap_or_default());
        }
    }
    *value = Value::String(hexadecimal);
}

/// A text that is no longer than what is kept would be shown whole, so nothing of it is kept.
fn mask(value: &mut Value, keep_last: usize) {
    let text = match &*value {
        Value::Null => return,
        Value::String(text) => text.as_str(),
        Value::Number(number) => number.as_str(),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            *value = Value::String(MASKED_WHOLE.to_owned());
            return;
        }
    };
    let characters = text.chars().count();
    let stars = if characters > keep_last { characters - keep_last } else { characters };
    let kept = text.chars().skip(stars);
    *value = Value::String(std::iter::repeat_n('*', stars).chain(kept).collect());
}

#[cfg(test)]
mod tests {
    use super::*;
    use branchline_plugin::serde_json::json;

    #[test]
    fn a_mask_shows_the_end_at_most() {
        let table = [
            (json!("010-1234-5678"), 4, json!("*********5678")),
            (json!("홍길동"), 1, json!("**동")),
            (json!("5678"), 4, json!("****")),
            (json!("ab"), 4, json!("**")),
            (json!(""), 4, json!("")),
            (json!("abc"), 0, json!("***")),
            (json!(12345678), 2, json!("******78")),
            (json!(true), 4, json!("***")),
            (json!({"a": "secret"}), 4, json!("***")),
            (json!(null), 4, json!(null)),
        ];
        for (mut value, keep_last, masked) in table {
            mask(&mut value, keep_last);
            assert_eq!(value, masked);
        }
    }

    #[test]
    fn a_hash_is_what_sha256sum_gives() {
        let mut value = json!("abc");
        hash(&mut value, "");
        assert_eq!(value, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let mut salted = json!("bc");
        hash(&mut salted, "a");
        assert_eq!(salted, value);
        let (mut number, mut text) = (json!(1.50), json!("1.5"));
        hash(&mut number, "s");
        hash(&mut text, "s");
        assert_eq!(number, text);
    }
}
