//! Values that are never printed: keys, signing secrets, URLs that carry a token.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;

/// A text that neither `Debug` nor `Display` shows and that is compared in constant time.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes the text in.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself. Never log what this returns.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is this secret, in a time that depends on the lengths only.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(candidate).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("whsec_abc");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert!(secret.matches(b"whsec_abc"));
        assert!(!secret.matches(b"whsec_ab"));
    }
}
