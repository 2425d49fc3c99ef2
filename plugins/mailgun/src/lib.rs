//! Sends a mail through Mailgun's messages API: a welcome for `user.created`, a notice for
//! `payment.failed`, and whatever mail the config has for other types; the rest is dropped with the
//! reason. The API key is not its business: the endpoint's headers carry it.

use branchline_plugin::by_type::ByType;
use branchline_plugin::form::Form;
use branchline_plugin::mail::{self, Contact, Draft};
use branchline_plugin::template::{Template, Variables};
use branchline_plugin::{Error, Event, Verdict, check, plugin, text};
use serde::Deserialize;

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
    /// The mail by event type or pattern.
    #[serde(default)]
    mails: ByType<Mail>,
    /// Mailgun takes the mail and does not deliver it.
    #[serde(default)]
    test_mode: bool,
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
fn draft(event_type: &str) -> Option<Draft> {
    match event_type {
        "user.created" => Some(mail::WELCOME),
        "payment.failed" => Some(mail::PAYMENT_FAILED),
        _ => None,
    }
}

fn check(config: &Config) -> Result<(), String> {
    config.from.check("from")?;
    if let Some(contact) = &config.reply_to {
        contact.check("reply_to")?;
    }
    check::pointer("recipient", &config.recipient)?;
    check::pointer("recipient_name", &config.recipient_name)?;
    for (pattern, mail) in config.mails.iter() {
        if let Some(contact) = &mail.to {
            contact.check(&format!("mails.{pattern}.to"))?;
        }
        if mail.template.is_some() && (mail.text.is_some() || mail.html.is_some()) {
            return Err(format!("`mails.{pattern}` has a `template`, so its `text` and `html` would not be used"));
        }
        check::not_blank(&format!("mails.{pattern}.template"), mail.template.as_deref())?;
        let has_body = mail.template.is_some() || mail.text.is_some() || mail.html.is_some();
        // Mailgun's own template may have a subject; a text has none.
        let has_subject = mail.template.is_some() || mail.subject.is_some();
        if draft(pattern).is_none() && !(has_body && has_subject) {
            return Err(format!("`mails.{pattern}` needs a `subject`, and a `text`, an `html` or a `template`"));
        }
    }
    Ok(())
}

fn handle(event: Event, config: Config) -> Result<Verdict, Error> {
    let nothing = Mail::default();
    let draft = draft(&event.event_type);
    let mail = match (config.mails.find(&event.event_type), &draft) {
        (Some(mail), _) => mail,
        (None, Some(_)) => &nothing,
        (None, None) => return Ok(Verdict::drop(format!("no mail is sent for `{}`", event.event_type))),
    };
    let to = match &mail.to {
        Some(contact) => contact.clone(),
        None => Contact::in_payload(&event, &config.recipient, &config.recipient_name)?,
    };
    let mut form = Form::default().field("from", &config.from.mailbox()).field("to", &to.mailbox());
    let own_subject = draft.filter(|_| mail.template.is_none()).map(|draft| draft.subject);
    if let Some(subject) = render(mail.subject.as_ref(), own_subject, &event) {
        form = form.field("subject", &mail::subject(&subject));
    }
    match &mail.template {
        // It can use `{{payload.email}}`, `{{price}}`, `{{eventType}}`.
        Some(name) => {
            form = form.field("template", name).field("t:variables", &Variables::of(&event).to_json()?);
        }
        None => {
            // A mail that has only an HTML part is meant so.
            let own_text = draft.filter(|_| mail.html.is_none()).map(|draft| draft.text);
            if let Some(text) = render(mail.text.as_ref(), own_text, &event) {
                form = form.field("text", &text);
            }
            if let Some(html) = &mail.html {
                form = form.field("html", &html.render(&event, text::escape_html));
            }
        }
    }
    if let Some(contact) = &config.reply_to {
        form = form.field("h:Reply-To", &contact.mailbox());
    }
    if config.test_mode {
        form = form.field("o:testmode", "yes");
    }
    // Comes back with Mailgun's own events, so that a bounce can be traced to the event.
    Ok(Verdict::Send(form.field("v:branchline_event", &event.id).into_request()))
}

/// The config's template, or else the plugin's own text.
fn render(template: Option<&Template>, own: Option<&'static str>, event: &Event) -> Option<String> {
    let built_in = own.filter(|_| template.is_none()).map(Template::built_in);
    Some(template.or(built_in.as_ref())?.render(event, str::to_owned))
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
