//! Sends a mail through SendGrid's `v3/mail/send`: a welcome for `user.created`, a notice for
//! `payment.failed`; every other event is dropped with the reason. The API key is not its business:
//! the endpoint's headers carry it.

use branchline_plugin::mail::{self, Contact};
use branchline_plugin::template::{Template, Variables};
use branchline_plugin::{Error, Event, Verdict, check, plugin};
use serde::{Deserialize, Serialize};

plugin!(handle, check);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    from: Contact,
    reply_to: Option<Contact>,
    /// Where the payload has the recipient's address and name, as JSON pointers.
    #[serde(default = "mail::email_pointer")]
    recipient: String,
    #[serde(default = "mail::name_pointer")]
    recipient_name: String,
    #[serde(default)]
    welcome: Mail,
    #[serde(default)]
    payment_failed: Mail,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Mail {
    /// Sent here instead of to the address in the payload.
    to: Option<Contact>,
    /// A dynamic template of SendGrid, instead of `subject` and `text`.
    template_id: Option<String>,
    subject: Option<Template>,
    text: Option<Template>,
}

fn check(config: &Config) -> Result<(), String> {
    let contacts = [
        ("from", Some(&config.from)),
        ("reply_to", config.reply_to.as_ref()),
        ("welcome.to", config.welcome.to.as_ref()),
        ("payment_failed.to", config.payment_failed.to.as_ref()),
    ];
    for (key, contact) in contacts.into_iter().filter_map(|(key, contact)| Some((key, contact?))) {
        contact.check(key)?;
    }
    check::pointer("recipient", &config.recipient)?;
    check::pointer("recipient_name", &config.recipient_name)?;
    for (key, mail) in [("welcome", &config.welcome), ("payment_failed", &config.payment_failed)] {
        if mail.template_id.is_some() && (mail.subject.is_some() || mail.text.is_some()) {
            return Err(format!("`{key}` has a `template_id`, so its `subject` and `text` would not be used"));
        }
        check::not_blank(&format!("{key}.template_id"), mail.template_id.as_deref())?;
    }
    Ok(())
}

/// The body of `v3/mail/send`.
#[derive(Serialize)]
struct Sending<'event> {
    personalizations: [Personalization<'event>; 1],
    from: Contact,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Contact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<[Content; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    template_id: Option<String>,
    custom_args: CustomArguments<'event>,
}

#[derive(Serialize)]
struct Personalization<'event> {
    to: [Contact; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    /// What a dynamic template can use: `{{payload.email}}`, `{{price}}`, `{{eventType}}`.
    dynamic_template_data: Option<Variables<'event>>,
}

#[derive(Serialize)]
struct Content {
    #[serde(rename = "type")]
    content_type: &'static str,
    value: String,
}

/// Comes back with SendGrid's own events, so that a bounce can be traced to the event.
#[derive(Serialize)]
struct CustomArguments<'event> {
    branchline_event: &'event str,
}

fn handle(event: Event, config: Config) -> Result<Verdict, Error> {
    let (mail, draft) = match event.event_type.as_str() {
        "user.created" => (config.welcome, mail::WELCOME),
        "payment.failed" => (config.payment_failed, mail::PAYMENT_FAILED),
        other => return Ok(Verdict::drop(format!("no mail is sent for `{other}`"))),
    };
    let to = match mail.to {
        Some(contact) => contact,
        None => Contact::in_payload(&event, &config.recipient, &config.recipient_name)?,
    };
    let render = |template: Option<Template>, draft| {
        template.unwrap_or_else(|| Template::built_in(draft)).render(&event, str::to_owned)
    };
    let (subject, content) = match mail.template_id {
        Some(_) => (None, None),
        None => {
            let content = Content { content_type: "text/plain", value: render(mail.text, draft.text) };
            (Some(mail::subject(&render(mail.subject, draft.subject))), Some([content]))
        }
    };
    let dynamic_template_data = mail.template_id.is_some().then(|| Variables::of(&event));
    Verdict::send_json(&Sending {
        personalizations: [Personalization { to: [to], dynamic_template_data }],
        from: config.from,
        reply_to: config.reply_to,
        subject,
        content,
        template_id: mail.template_id,
        custom_args: CustomArguments { branchline_event: &event.id },
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_is_right() {
        branchline_plugin::testing::run_readme(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }

    #[test]
    fn every_fixture_holds() {
        branchline_plugin::testing::run_fixtures(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }
}
