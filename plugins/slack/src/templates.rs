//! What is said about the events of the shipped example config. A template of the config for the
//! same type takes its place; an event type that is neither here nor there gets a list of its fields.

use branchline_plugin::template::Template;

/// In Slack's mrkdwn: `*bold*`, `_italic_`.
const TEMPLATES: [(&str, &str); 15] = [
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
    ("payment.failed", ":warning: Payment *{aggregateId}* of *{price}* failed. Reason: {payload.reason}"),
];

/// The template for one of the known event types.
pub fn built_in(event_type: &str) -> Option<Template> {
    let (_, text) = TEMPLATES.iter().find(|(known, _)| *known == event_type)?;
    Template::parse(text).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_built_in_template_parses() {
        for (event_type, _) in super::TEMPLATES {
            assert!(super::built_in(event_type).is_some(), "{event_type}");
        }
    }
}
