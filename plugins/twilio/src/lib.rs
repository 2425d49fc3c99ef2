//! Sends a text message through Twilio's Messages API: the text by event type from the config, to the
//! number that the payload has. Only what has a text is sent, since every message costs. The account's
//! token is not its business: the endpoint's headers carry it.

mod message; // How long a message is, in parts.
mod phone; // From what people write to +821012345678.

use branchline_plugin::form::Form;
use branchline_plugin::template::Templates;
use branchline_plugin::{Error, Event, Verdict, check, plugin};
use serde::Deserialize;

use phone::Country;

plugin!(handle, check);

/// Twilio refuses longer bodies; ten parts have fewer characters than this.
const PARTS_MAX: usize = 10;
/// The code of the error where there is nobody to send to.
const MISSING: &str = "missing-recipient";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// A number, a short code, or a name; or else a messaging service.
    from: Option<String>,
    messaging_service_sid: Option<String>,
    /// Where the payload has the number, as a JSON pointer.
    #[serde(default = "phone_pointer")]
    recipient: String,
    /// Sent here instead of to the number in the payload.
    to: Option<String>,
    /// The country of numbers without one.
    country: Option<Country>,
    /// The text by event type or pattern.
    templates: Templates,
    /// A longer text is cut off. Every part is a message that costs.
    #[serde(default = "parts_by_default")]
    parts_max: usize,
}

fn phone_pointer() -> String {
    "/phone".to_owned()
}

const fn parts_by_default() -> usize {
    4
}

fn check(config: &Config) -> Result<(), String> {
    match (&config.from, &config.messaging_service_sid) {
        (Some(from), None) if !is_sender(from) => {
            return Err(
                "`from` is a number such as `+12025550123`, a short code, or a name of 1 to 11 letters and digits"
                    .to_owned(),
            );
        }
        (None, Some(sid)) if !is_messaging_service(sid) => {
            return Err("`messaging_service_sid` is `MG` and 32 hexadecimal digits".to_owned());
        }
        (Some(_), None) | (None, Some(_)) => {}
        (Some(_), Some(_)) | (None, None) => {
            return Err("either `from` or `messaging_service_sid` is needed".to_owned());
        }
    }
    check::pointer("recipient", &config.recipient)?;
    if config.to.as_ref().is_some_and(|to| phone::normalise(to, config.country).is_none()) {
        return Err("`to` is not a phone number; write it as `+821012345678`".to_owned());
    }
    if config.templates.iter().next().is_none() {
        return Err("`templates` is empty, so nothing would be sent".to_owned());
    }
    if !(1..=PARTS_MAX).contains(&config.parts_max) {
        return Err(format!("`parts_max` is 1 to {PARTS_MAX}"));
    }
    Ok(())
}

fn handle(event: Event, config: Config) -> Result<Verdict, Error> {
    let Some(template) = config.templates.find(&event.event_type) else {
        return Ok(Verdict::drop(format!("there is no text for `{}`", event.event_type)));
    };
    let to = match &config.to {
        Some(to) => phone::normalise(to, config.country)
            .ok_or_else(|| Error::permanent(MISSING, "the config's `to` is not a phone number"))?,
        None => phone::normalise(event.text_at(&config.recipient, MISSING)?, config.country)
            .ok_or_else(|| Event::unfit(&config.recipient, MISSING, "is not a phone number"))?,
    };
    let body = message::fit(&template.render(&event, str::to_owned), config.parts_max);
    let form = Form::default().field("To", &to);
    let form = match (&config.from, &config.messaging_service_sid) {
        (_, Some(sid)) => form.field("MessagingServiceSid", sid),
        (from, None) => form.field("From", from.as_deref().unwrap_or_default()),
    };
    Ok(Verdict::Send(form.field("Body", &body).into_request()))
}

fn is_sender(from: &str) -> bool {
    let is_number = from.starts_with('+') && phone::normalise(from, None).as_deref() == Some(from);
    let is_short_code = (3..=8).contains(&from.len()) && from.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = (1..=11).contains(&from.len())
        && from.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b' ')
        && from.bytes().any(|byte| byte.is_ascii_alphabetic());
    is_number || is_short_code || is_name
}

fn is_messaging_service(sid: &str) -> bool {
    sid.strip_prefix("MG")
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
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
