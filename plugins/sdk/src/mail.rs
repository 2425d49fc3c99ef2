//! What plugins share that send mail: whom it goes to, and what is said when the config says nothing.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::address::is_address;
use crate::{Error, Event, text};

// Ours: longer ones are cut off by mail programs in any case.
const SUBJECT_CHARACTERS_MAX: usize = 200;
const NAME_CHARACTERS_MAX: usize = 100;

/// A mail of the plugin's own, as [`Template`](crate::template::Template)s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Of one line.
    pub subject: &'static str,
    /// Plain text.
    pub text: &'static str,
}

/// For somebody who has just signed up.
pub const WELCOME: Draft =
    Draft { subject: "Welcome!", text: "Hello,\n\nyour account {payload.email} is ready. Welcome!\n" };

/// For somebody whose payment could not be made.
pub const PAYMENT_FAILED: Draft = Draft {
    subject: "A payment of {price} failed",
    text: "Hello,\n\nthe payment {aggregateId} of {price} could not be made.\n\
        Reason: {payload.reason}\n\nPlease check the payment method and try again.\n",
};

/// Whom a mail is from, or goes to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// The address alone.
    pub email: String,
    /// What mail programs show instead of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Contact {
    /// Refuses a contact of a config, which is called `key` there, whose address is none.
    pub fn check(&self, key: &str) -> Result<(), String> {
        if is_address(&self.email) {
            return Ok(());
        }
        Err(format!("`{key}.email` is not an email address"))
    }

    /// Whom the payload names at these JSON pointers; there may be no name. An address that is missing
    /// or none is a permanent error of the code `missing-recipient`, which does not quote it.
    pub fn in_payload(event: &Event, email: &str, name: &str) -> Result<Self, Error> {
        const CODE: &str = "missing-recipient";
        let address = event.text_at(email, CODE)?;
        if !is_address(address) {
            return Err(Event::unfit(email, CODE, "is not an email address"));
        }
        let name = event.payload.pointer(name).and_then(Value::as_str).map(short_name);
        Ok(Self { email: address.to_owned(), name: name.filter(|name| !name.is_empty()) })
    }

    /// `"홍길동" <hong@example.com>`: in quotes, so that a name can hold a comma or a bracket, but no
    /// second address.
    pub fn mailbox(&self) -> String {
        match self.name.as_deref().map(short_name) {
            Some(name) if !name.is_empty() => {
                format!("\"{}\" <{}>", name.replace('\\', "\\\\").replace('"', "\\\""), self.email)
            }
            _ => self.email.clone(),
        }
    }
}

/// Where a payload has an address, if the config says nothing: for `#[serde(default = "…")]`.
pub fn email_pointer() -> String {
    "/email".to_owned()
}

/// Where a payload has the name that goes with it.
pub fn name_pointer() -> String {
    "/name".to_owned()
}

/// A subject of one line, cut to a length that mail programs show.
pub fn subject(text: &str) -> String {
    text::truncate(&text::one_line(text), SUBJECT_CHARACTERS_MAX)
}

fn short_name(name: &str) -> String {
    text::truncate(text::one_line(name).trim(), NAME_CHARACTERS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Template;
    use serde_json::json;

    fn event(payload: Value) -> Event {
        let empty = String::new;
        Event {
            id: empty(),
            event_type: empty(),
            aggregate_type: empty(),
            aggregate_id: empty(),
            occurred_at: empty(),
            payload,
            metadata: serde_json::Map::new(),
        }
    }

    fn contact(email: &str, name: Option<&str>) -> Contact {
        Contact { email: email.to_owned(), name: name.map(str::to_owned) }
    }

    #[test]
    fn the_drafts_are_templates() {
        for draft in [WELCOME, PAYMENT_FAILED] {
            assert!(Template::parse(draft.subject).is_ok(), "{}", draft.subject);
            assert!(Template::parse(draft.text).is_ok(), "{}", draft.text);
        }
    }

    #[test]
    fn the_payload_says_who_it_goes_to() {
        let find = |payload| Contact::in_payload(&event(payload), "/to/email", "/to/name");
        let found = find(json!({"to": {"email": " a@b.kr", "name": " 홍\n길동 "}}));
        assert_eq!(found, Ok(contact("a@b.kr", Some("홍 길동"))));
        assert_eq!(find(json!({"to": {"email": "a@b.kr", "name": " "}})), Ok(contact("a@b.kr", None)));
        assert_eq!(find(json!({"to": {"email": "a@b.kr", "name": 5}})), Ok(contact("a@b.kr", None)));
        let fault = find(json!({"to": {"email": "secret"}})).expect_err("no address");
        assert_eq!(fault.to_string(), "missing-recipient: the payload's `/to/email` is not an email address");
    }

    #[test]
    fn a_name_brings_no_second_address() {
        assert_eq!(contact("a@b.kr", None).mailbox(), "a@b.kr");
        assert_eq!(contact("a@b.kr", Some(" \r\n ")).mailbox(), "a@b.kr");
        let name = "x\" <c@d.kr>, \\\r\nBcc: e@f.kr";
        assert_eq!(contact("a@b.kr", Some(name)).mailbox(), r#""x\" <c@d.kr>, \\  Bcc: e@f.kr" <a@b.kr>"#);
    }

    #[test]
    fn a_contact_of_the_config_is_named_by_its_key() {
        assert_eq!(contact("a@b.kr", None).check("from"), Ok(()));
        assert_eq!(contact("a", None).check("from"), Err("`from.email` is not an email address".to_owned()));
    }

    #[test]
    fn a_subject_is_one_line() {
        assert_eq!(subject("a\r\nBcc: b"), "a  Bcc: b");
        assert_eq!(text::length(&subject(&"가".repeat(300))), SUBJECT_CHARACTERS_MAX);
    }
}
