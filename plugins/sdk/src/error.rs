//! Why a call failed. A failed call counts as a failed attempt at the delivery.

/// A failed call: a word for programs, a sentence for people, and whether to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// A short, stable word, for example `missing-field`.
    pub code: String,
    /// A sentence. Never put anything of the payload in it: it is logged.
    pub message: String,
    /// False sends the delivery to the dead letters at once.
    pub retryable: bool,
}

impl Error {
    /// The event, or the config, can never be handled: trying again would not help.
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retryable: false }
    }

    /// A later attempt may succeed.
    pub fn retryable(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retryable: true }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}
