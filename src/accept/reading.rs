//! One envelope outside of any request, by the rules that producers meet: for commands and tests that ask what would become of it.

use bytestring::ByteString;

use super::Intake;
use super::envelope::{self, Array, Unreadable};
use super::fields::Ids;
use crate::clock::Timestamp;
use crate::event::Event;

/// The event that `text` would be, had `source` accepted it now. The error is what a producer would be told, a line for each fault.
pub fn read_event(text: &str, source: &str, now: Timestamp) -> Result<Event, String> {
    let body = ByteString::from(text);
    let mut parsed =
        envelope::parse(&body, Array::Refused, 1, envelope::read_envelope).map_err(|error| match error {
            Unreadable::NotJson(detail) => format!("not JSON: {detail}"),
            Unreadable::TooManyEvents | Unreadable::Empty => "there must be one event".to_owned(),
        })?;
    if parsed.faults.is_empty()
        && let Some(draft) = parsed.drafts.pop()
    {
        return Ok(draft.into_event(&source.into(), "", now, &Ids::default()));
    }
    let faults = parsed.faults.list().iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail));
    Err(faults.collect::<Vec<_>>().join("\n"))
}

impl Intake {
    /// The same for a source of the config in use: the one of this name, or the only one.
    pub fn read_event(&self, text: &str, source: Option<&str>, now: Timestamp) -> Result<Event, String> {
        let sources = self.source_names();
        let named = match (source, sources.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => Err("the config does not have one source alone; say which with `source`".to_owned()),
            (Some(name), names) => {
                names.iter().find(|known| ***known == *name).ok_or_else(|| format!("the config has no source `{name}`"))
            }
        };
        read_event(text, named?, now)
    }
}
