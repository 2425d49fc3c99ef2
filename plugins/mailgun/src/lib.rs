//! Sends a mail through Mailgun's messages API: a welcome for `user.created`, a notice for
//! `payment.failed`, and whatever mail the config has for other types; the rest is dropped with the
//! reason. The API key is not its business: the endpoint's headers carry it.

use branchline_plugin::address::is_address;
use branchline_plugin::by_type::ByType;
use branchline_plugin::form::Form;
use branchline_plugin::serde_json::{self, Value};
use branchline_plugin::template::Template;
use branchline_plugin::{Error, Event, Verdict, plugin, text, value};
use serde::{Deserialize, Serialize};

plugin!(handle, check);

// Ours: longer ones are cut off by mail programs in any case.
const SUBJECT_CHARACTERS_MAX: usize = 200;
const NAME_CHARACTERS_MAX: usize = 100;

const WELCOME: BuiltIn =
    BuiltIn { subject: "Welcome!", text: "Hello,\n\nyour account {payload.email} is ready. Welcome!\n" };
const FAILURE: BuiltIn = BuiltIn {
    subject: "A payment of {price} failed",
    text: "Hello,\n\nthe payment {aggregateId} of {price} could not be made.\n\
        Reason: {payload.reason}\n\nPlease check the payment method and try again.\n",
};

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
    /// The mail by event type or pattern.
    #[serde(default)]
    mails: ByType<Mail>,
    /// Mailgun takes the mail and does not deliver it.
    #[serde(default)]
    test_mode: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contact {
    email: String,
    name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mail {
    /// Sent here instead of to the address in the payload.
    to: Option<Contact>,
    subject: Option<Template>,
    text: Option<Template>,
    html: Option<Template>,
    /// A template stored at Mailgun, instead of `text` and `html`.
    template: Option<String>,
}

/// The mail of a type for which the config has none.
struct BuiltIn {
    subject: &'static str,
    text: &'static str,
}

fn email_pointer() -> String {
    "/email".to_owned()
}

fn name_pointer() -> String {
    "/name".to_owned()
}

fn built_in(event_type: &str) -> Option<BuiltIn> {
    match event_type {
        "user.created" => Some(WELCOME),
        "payment.failed" => Some(FAILURE),
        _ => None,
    }
}

fn check(config: &Config) -> Result<(), String> {
    let mails =
        config.mails.iter().filter_map(|(pattern, mail)| Some((format!("mails.{pattern}.to"), mail.to.as_ref()?)));
    let own = [("from".to_owned(), Some(&config.from)), ("reply_to".to_owned(), config.reply_to.as_ref())];
    for (key, contact) in own.into_iter().filter_map(|(key, contact)| Some((key, contact?))).chain(mails) {
        if !is_address(&contact.email) {
            return Err(format!("`{key}.email` is not an email address"));
        }
    }
    for (key, pointer) in [("recipient", &config.recipient), ("recipient_name", &config.recipient_name)] {
        if !pointer.starts_with('/') {
            return Err(format!("`{key}` is a JSON pointer such as `/email`; it starts with `/`"));
        }
    }
    for (pattern, mail) in config.mails.iter() {
        if mail.template.is_some() && (mail.text.is_some() || mail.html.is_some()) {
            return Err(format!("`mails.{pattern}` has a `template`, so its `text` and `html` would not be used"));
        }
        if mail.template.as_ref().is_some_and(|name| name.trim().is_empty()) {
            return Err(format!("`mails.{pattern}.template` is empty; leave it out instead"));
        }
        let has_body = mail.template.is_some() || mail.text.is_some() || mail.html.is_some();
        // Mailgun's own template may have a subject; a text has none.
        let has_subject = mail.template.is_some() || mail.subject.is_some();
        if built_in(pattern).is_none() && !(has_body && has_subject) {
            return Err(format!("`mails.{pattern}` needs a `subject`, and a `text`, an `html` or a `template`"));
        }
    }
    Ok(())
}

/// What a template at Mailgun can use: `{{payload.email}}`, `{{price}}`, `{{eventType}}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Variables<'event> {
    id: &'event str,
    event_type: &'event str,
    aggregate_type: &'event str,
    aggregate_id: &'event str,
    occurred_at: &'event str,
    price: String,
    payload: &'event Value,
}

fn handle(event: Event, config: Config) -> Result<Verdict, Error> {
    let nothing = Mail::default();
    let built_in = built_in(&event.event_type);
    let mail = match (config.mails.find(&event.event_type), &built_in) {
        (Some(mail), _) => mail,
        (None, Some(_)) => &nothing,
        (None, None) => return Ok(Verdict::drop(format!("no mail is sent for `{}`", event.event_type))),
    };
    let to = match &mail.to {
        Some(contact) => contact.clone(),
        None => recipient(&event, &config)?,
    };
    let mut form = Form::default().field("from", &mailbox(&config.from)).field("to", &mailbox(&to));
    let built_in_subject = built_in.as_ref().filter(|_| mail.template.is_none()).map(|mail| mail.subject);
    if let Some(subject) = render(mail.subject.as_ref(), built_in_subject, &event, str::to_owned)? {
        form = form.field("subject", &text::truncate(&text::one_line(&subject), SUBJECT_CHARACTERS_MAX));
    }
    match &mail.template {
        Some(name) => form = form.field("template", name).field("t:variables", &variables(&event)?),
        None => {
            // A mail that has only an HTML part is meant so.
            let built_in_text = built_in.filter(|_| mail.html.is_none()).map(|mail| mail.text);
            if let Some(text) = render(mail.text.as_ref(), built_in_text, &event, str::to_owned)? {
                form = form.field("text", &text);
            }
            if let Some(html) = render(mail.html.as_ref(), None, &event, text::escape_html)? {
                form = form.field("html", &html);
            }
        }
    }
    if let Some(contact) = &config.reply_to {
        form = form.field("h:Reply-To", &mailbox(contact));
    }
    if config.test_mode {
        form = form.field("o:testmode", "yes");
    }
    // Comes back with Mailgun's own events, so that a bounce can be traced to the event.
    Ok(Verdict::Send(form.field("v:branchline_event", &event.id).into_request()))
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
    Ok(Contact { email: email.to_owned(), name: name.map(str::to_owned) })
}

/// `"홍길동" <hong@example.com>`: in quotes, so that a name can hold a comma or a bracket, but no second
/// address.
fn mailbox(contact: &Contact) -> String {
    let name = text::one_line(contact.name.as_deref().unwrap_or_default());
    let name = text::truncate(name.trim(), NAME_CHARACTERS_MAX);
    if name.is_empty() {
        return contact.email.clone();
    }
    format!("\"{}\" <{}>", name.replace('\\', "\\\\").replace('"', "\\\""), contact.email)
}

fn variables(event: &Event) -> Result<String, Error> {
    let variables = Variables {
        id: &event.id,
        event_type: &event.event_type,
        aggregate_type: &event.aggregate_type,
        aggregate_id: &event.aggregate_id,
        occurred_at: &event.occurred_at,
        price: value::price(&event.payload),
        payload: &event.payload,
    };
    serde_json::to_string(&variables).map_err(|_| Error::permanent("not-json", "the event cannot be said in JSON"))
}

fn render(
    template: Option<&Template>,
    built_in: Option<&str>,
    event: &Event,
    escape: fn(&str) -> String,
) -> Result<Option<String>, Error> {
    if let Some(template) = template {
        return Ok(Some(template.render(event, escape)));
    }
    let built_in = built_in.map(Template::parse).transpose();
    let built_in = built_in.map_err(|fault| Error::permanent("invalid-template", fault))?;
    Ok(built_in.map(|template| template.render(event, escape)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_is_right() {
        branchline_plugin::testing::run_readme_form(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }

    #[test]
    fn every_fixture_holds() {
        branchline_plugin::testing::run_fixtures(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }
}
