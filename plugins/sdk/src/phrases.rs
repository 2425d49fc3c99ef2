//! A sentence about each of the events of the shipped example config, for messages to people: what chat
//! plugins say when their config says nothing.

use crate::template::Template;

/// How a chat writes what is to stand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Markup {
    /// Stands before and after a bold word: `*` in Slack, `**` in Markdown.
    pub bold: &'static str,
    /// Stands before what has failed: `:warning: `, or nothing.
    pub alarm: &'static str,
}

/// With `*` for `bold`, and `!` at the beginning for `alarm`.
const PHRASES: [(&str, &str); 15] = [
    ("user.created", "*{payload.email}* signed up as {payload.role}."),
    ("user.updated", "*{payload.email}* changed their account."),
    ("user.deleted", "*{payload.email}* deleted their account."),
    ("organization.created", "Organization *{payload.name}* was created."),
    ("organization.updated", "Organization *{payload.name}* was changed."),
    ("organization.deleted", "Organization *{payload.name}* was deleted."),
    ("project.created", "Project *{payload.name}* was created."),
    ("project.updated", "Project *{payload.name}* was changed."),
    ("project.deleted", "Project *{payload.name}* was deleted."),
    ("order.created", "Order *{aggregateId}* over *{price}* was placed."),
    ("order.completed", "Order *{aggregateId}* over *{price}* is complete."),
    ("order.cancelled", "Order *{aggregateId}* over *{price}* was cancelled. Reason: {payload.reason}"),
    ("order.refunded", "Order *{aggregateId}* was refunded with *{price}*. Reason: {payload.reason}"),
    ("payment.succeeded", "Payment *{aggregateId}* of *{price}* succeeded."),
    ("payment.failed", "!Payment *{aggregateId}* of *{price}* failed. Reason: {payload.reason}"),
];

/// The sentence about events of this type, if it is one of those that are known.
pub fn about(event_type: &str, markup: Markup) -> Option<Template> {
    let (_, phrase) = PHRASES.iter().find(|(known, _)| *known == event_type)?;
    let (alarm, phrase) = match phrase.strip_prefix('!') {
        Some(phrase) => (markup.alarm, phrase),
        None => ("", *phrase),
    };
    let mut text = String::with_capacity(alarm.len() + 2 * phrase.len());
    text.push_str(alarm);
    for (index, part) in phrase.split('*').enumerate() {
        if index > 0 {
            text.push_str(markup.bold);
        }
        text.push_str(part);
    }
    Some(Template::built_in(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phrase_is_a_template() {
        for (event_type, phrase) in PHRASES {
            assert!(Template::parse(phrase).is_ok(), "{event_type}");
            assert!(about(event_type, Markup { bold: "**", alarm: "" }).is_some(), "{event_type}");
        }
    }

    #[test]
    fn the_markup_is_the_chats() {
        let markup = Markup { bold: "**", alarm: ":warning: " };
        let text = ":warning: Payment **{aggregateId}** of **{price}** failed. Reason: {payload.reason}";
        assert_eq!(about("payment.failed", markup), Some(Template::built_in(text)));
        assert_eq!(about("payment.pending", markup), None);
    }
}
