//! Sends a mail through SendGrid's `v3/mail/send`: a welcome for `user.created`, a notice for
//! `payment.failed`; every other event is dropped with the reason. The API key is not its business:
//! the endpoint's headers carry it.

use branchline_plugin::address::is_address;
use branchline_plugin::serde_json::Value;
use branchline_plugin::template::Template;
use branchline_plugin::{Error, Event, Verdict, plugin, text, value};
use serde::{Deserialize, Serialize};

plugin!(handle, check);

// Ours: longer ones are cut off by mail programs in any case.
const SUBJECT_CHARACTERS_MAX: usize = 200;
const NAME_CHARACTERS_MAX: usize = 100;

const WELCOME_SUBJECT: &str = "Welcome!";
const WELCOME_TEXT: &str = "Hello,\n\nyour account {payload.email} is ready. Welcome!\n";
const FAILURE_SUBJECT: &str = "A payment of {price} failed";
const FAILURE_TEXT: &str = "Hello,\n\nthe payment {aggregateId} of {price} could not be made.\n\
    Reason: {payload.reason}\n\nPlease check the payment method and try again.\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    from: Contact,
    reply_to: Option<Contact>,
    /// Where the payload has the recipient's address and name, as JSON pointers.
    #[serde(default = "email_pointer")]
    recipient: String,
    #[serde(default = "name_pointer")]
    recipient_name: String,
    #[serde(default)]
    welcome: Mail,
    #[serde(default)]
    payment_failed: Mail,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Contact {
    email: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
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

fn email_pointer() -> String {
    "/email".to_owned()
}

fn name_pointer() -> String {
    "/name".to_owned()
}

fn check(config: &Config) -> Result<(), String> {
    let contacts = [
        ("from", Some(&config.from)),
        ("reply_to", config.reply_to.as_ref()),
        ("welcome.to", config.welcome.to.as_ref()),
        ("payment_failed.to", config.payment_failed.to.as_ref()),
    ];
    for (key, contact) in contacts {
        if contact.is_some_and(|contact| !is_address(&contact.email)) {
            return Err(format!("`{key}.email` is not an email address"));
        }
    }
    for (key, pointer) in [("recipient", &config.recipient), ("recipient_name", &config.recipient_name)] {
        if !pointer.starts_with('/') {
            return Err(format!("`{key}` is a JSON pointer such as `/email`; it starts with `/`"));
        }
    }
    for (key, mail) in [("welcome", &config.welcome), ("payment_failed", &config.payment_failed)] {
        if mail.template_id.is_some() && (mail.subject.is_some() || mail.text.is_some()) {
            return Err(format!("`{key}` has a `template_id`, so its `subject` and `text` would not be used"));
        }
        if mail.template_id.as_ref().is_some_and(|id| id.trim().is_empty()) {
            return Err(format!("`{key}.template_id` is empty; leave it out instead"));
        }
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
    dynamic_template_data: Option<TemplateData<'event>>,
}

/// What a dynamic template can use: `{{payload.email}}`, `{{price}}`, `{{eventType}}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TemplateData<'event> {
    id: &'event str,
    event_type: &'event str,
    aggregate_type: &'event str,
    aggregate_id: &'event str,
    occurred_at: &'event str,
    price: String,
    payload: &'event Value,
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
    let to_payload = recipient(&event, &config);
    let (mail, built_in_subject, built_in_text) = match event.event_type.as_str() {
        "user.created" => (config.welcome, WELCOME_SUBJECT, WELCOME_TEXT),
        "payment.failed" => (config.payment_failed, FAILURE_SUBJECT, FAILURE_TEXT),
        other => return Ok(Verdict::drop(format!("no mail is sent for `{other}`"))),
    };
    let to = match mail.to {
        Some(contact) => contact,
        None => to_payload?,
    };
    let (subject, content) = match mail.template_id {
        Some(_) => (None, None),
        None => {
            let subject = render(mail.subject, built_in_subject, &event)?;
            let subject = text::truncate(&text::one_line(&subject), SUBJECT_CHARACTERS_MAX);
            let value = render(mail.text, built_in_text, &event)?;
            (Some(subject), Some([Content { content_type: "text/plain", value }]))
        }
    };
    let dynamic_template_data = mail.template_id.is_some().then(|| TemplateData {
        id: &event.id,
        event_type: &event.event_type,
        aggregate_type: &event.aggregate_type,
        aggregate_id: &event.aggregate_id,
        occurred_at: &event.occurred_at,
        price: value::price(&event.payload),
        payload: &event.payload,
    });
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

/// The errors say where the address should be, not what stands there.
fn recipient(event: &Event, config: &Config) -> Result<Contact, Error> {
    let pointer = &config.recipient;
    let missing = |fault| Error::permanent("missing-recipient", format!("the payload's `{pointer}` {fault}"));
    let email = match event.payload.pointer(pointer) {
        Some(Value::String(email)) => email.trim(),
        Some(Value::Null) | None => return Err(missing("is missing")),
        Some(_) => return Err(missing("is not text")),
    };
    if !is_address(email) {
        return Err(missing("is not an email address"));
    }
    let name = event.payload.pointer(&config.recipient_name).and_then(Value::as_str);
    let name = name.map(|name| text::truncate(text::one_line(name).trim(), NAME_CHARACTERS_MAX));
    Ok(Contact { email: email.to_owned(), name: name.filter(|name| !name.is_empty()) })
}

fn render(template: Option<Template>, built_in: &str, event: &Event) -> Result<String, Error> {
    let template = match template {
        Some(template) => template,
        None => Template::parse(built_in).map_err(|fault| Error::permanent("invalid-template", fault))?,
    };
    Ok(template.render(event, str::to_owned))
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
