//! One try at a delivery, as it is recorded: when, how long, how it ended. Data only.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// One try, ended: an HTTP request, or a plugin run that failed before there was a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// How it ended.
    #[serde(flatten)]
    pub result: AttemptResult,
    /// The first bytes of an answer that was no success; at most [`ANSWER_BYTES_MAX`]. Kept in the store, never logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// What it was made with; absent in records of before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<Provenance>>,
}

/// Which config and which plugins a step was made with, so that it can be told later what was sent and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// The generation of the config, counted from 1 in each process.
    pub generation: u64,
    /// The plugins that ran, in order, each as its name, `@` and the first digits of its component's SHA-256.
    /// None ran for a retry of bytes that are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<String>,
}

/// How much of a failed attempt's answer is kept, in bytes.
pub const ANSWER_BYTES_MAX: usize = 512;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum AttemptResult {
    /// The endpoint answered with this status.
    Answered {
        /// The HTTP status.
        status: u16,
        /// `Retry-After`, in milliseconds from the answer; read for 429 and 503 only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// No whole answer came.
    Failed {
        /// What failed.
        error: SendErrorKind,
        /// A sentence for people; no payload, no secret.
        detail: String,
    },
    /// A plugin failed, so that nothing was sent.
    PluginFailed {
        /// The plugin's name in the config.
        plugin: String,
        /// What failed.
        error: PluginFaultKind,
        /// A sentence for people; no payload, no secret.
        detail: String,
        /// Whether a later attempt may succeed.
        retryable: bool,
    },
}

/// Why no whole answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SendErrorKind {
    /// The host's name has no address, or the look-up failed.
    Dns,
    /// The address is one that deliveries may not go to.
    AddressRefused,
    /// The connection was refused, reset while connecting, or could not be made.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The connection broke after the request began.
    Broken,
    /// The endpoint's answer is not HTTP, or over a limit.
    BadAnswer,
    /// The endpoint's timeout passed.
    Timeout,
    /// The request could not be made from what the plugin gave.
    BadRequest,
    /// Something that a later version of this program has a word for; the detail beside it still says what.
    #[serde(other)]
    Unknown,
}

/// How a plugin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginFaultKind {
    /// It returned an `error`.
    Error,
    /// It trapped: a panic, an illegal operation.
    Trap,
    /// It ran past its deadline.
    Deadline,
    /// It asked for more memory than it may have.
    Memory,
    /// It ran out of stack.
    Stack,
    /// What it returned is not what the contract asks for, or is over a limit.
    BadOutput,
    /// The plugin is not loaded.
    Missing,
    /// The host itself failed.
    Host,
    /// Something that a later version of this program has a word for; the detail beside it still says what.
    #[serde(other)]
    Unknown,
}

macro_rules! as_str_is_the_serde_name {
    ($kind:ty { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $kind {
            /// The word in metrics, logs and records.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

as_str_is_the_serde_name!(SendErrorKind {
    Dns => "dns", AddressRefused => "address-refused", Connect => "connect", Tls => "tls", Broken => "broken",
    BadAnswer => "bad-answer", Timeout => "timeout", BadRequest => "bad-request",
    Unknown => "unknown",
});
as_str_is_the_serde_name!(PluginFaultKind {
    Error => "error", Trap => "trap", Deadline => "deadline", Memory => "memory", Stack => "stack",
    BadOutput => "bad-output", Missing => "missing", Host => "host", Unknown => "unknown",
});
