//! Who did what, newest first.

use serde::{Deserialize, Serialize};

use super::times::Time;
use super::{Caller, Error, limit_of};
use crate::store::{AuditEntry, Store};

/// How much of a target or a detail is kept, in characters.
const TEXT_CHARS_MAX: usize = 500;

/// Which entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditQuery {
    /// How many a page has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditView>,
    /// Where to go on; null at the end.
    pub cursor: Option<String>,
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditView {
    /// When.
    pub at: Time,
    /// Who.
    pub who: String,
    /// What.
    pub action: String,
    /// To what.
    pub target: String,
    /// What came of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// A page of the audit log, newest first.
pub async fn list(store: &dyn Store, query: &AuditQuery) -> Result<AuditPage, Error> {
    let cursor = query.cursor.as_deref().map(str::parse).transpose()?;
    let page = store.audit_log(cursor, limit_of(query.limit)?).await?;
    let view = |entry: AuditEntry| AuditView {
        at: Time(entry.at),
        who: entry.who,
        action: entry.action,
        target: entry.target,
        detail: entry.detail,
    };
    Ok(AuditPage {
        entries: page.items.into_iter().map(view).collect(),
        cursor: page.next.map(|next| next.to_string()),
    })
}

/// Notes what `caller` did. It is done by then, so when the store does not take the note, the log has it.
pub async fn note(store: &dyn Store, caller: &Caller, action: &str, target: &str, detail: String) {
    let short = |text: &str| text.chars().take(TEXT_CHARS_MAX).collect();
    let entry = AuditEntry {
        at: caller.now,
        who: caller.who.clone(),
        action: action.to_owned(),
        target: short(target),
        detail: short(&detail),
    };
    tracing::info!(who = %entry.who, action, target = %entry.target, detail = %entry.detail, "an operator's doing");
    if let Err(error) = store.record_audit(&entry).await {
        tracing::error!(
            who = %entry.who, action, target = %entry.target, %error,
            "an operator's doing could not be noted in the audit log"
        );
    }
}
