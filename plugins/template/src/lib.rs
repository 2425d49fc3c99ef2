//! Makes a request's body from a template, in the language of Jinja. What an event holds is escaped as the
//! content type asks, so that no value can become a part of the JSON, the HTML or the form around it.

mod context; // The event as a template sees it.
mod escape; // What a value becomes where it is printed.
mod render; // From a text to a template, and from an event to its output.

use branchline_plugin::serde_json::{self, Map, Value};
use branchline_plugin::{Body, Error, Event, Request, Verdict, plugin, text};
use serde::Deserialize;
use serde::de::IgnoredAny;

use escape::Escape;
use render::Templates;

plugin!(handle, check);

const TEMPLATE_BYTES_MAX: usize = 65_536;
const HEADERS_MAX: usize = 32;
const HEADER_CHARACTERS_MAX: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    template: String,
    #[serde(default = "json")]
    content_type: String,
    /// Templates too.
    #[serde(default)]
    headers: Map<String, Value>,
    /// Whether to print what is not there is an error.
    #[serde(default)]
    strict: bool,
}

fn json() -> String {
    "application/json".to_owned()
}

fn check(config: &Config) -> Result<(), String> {
    if config.template.trim().is_empty() {
        return Err("`template` is empty".to_owned());
    }
    if config.template.len() > TEMPLATE_BYTES_MAX {
        return Err(format!("`template` is longer than {TEMPLATE_BYTES_MAX} bytes"));
    }
    if !config.content_type.contains('/') {
        return Err("`content_type` is not one, such as `application/json`".to_owned());
    }
    if config.headers.len() > HEADERS_MAX {
        return Err(format!("`headers` has {}; {HEADERS_MAX} are allowed", config.headers.len()));
    }
    let templates = Templates::new(Escape::for_content_type(&config.content_type), config.strict);
    templates.check(&config.template).map_err(|fault| format!("in `template`, {fault}"))?;
    for (name, template) in &config.headers {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(format!("`headers.{name}` is not a name of a header"));
        }
        if name.eq_ignore_ascii_case("content-type") {
            return Err("the content type is the key `content_type`, not one of the `headers`".to_owned());
        }
        let Value::String(template) = template else {
            return Err(format!("`headers.{name}` is not text"));
        };
        templates.check(template).map_err(|fault| format!("in `headers.{name}`, {fault}"))?;
    }
    Ok(())
}

fn handle(event: Event, config: Config) -> Result<Verdict, Error> {
    let escape = Escape::for_content_type(&config.content_type);
    let context = context::of(event);
    let body = Templates::new(escape, config.strict).render(&config.template, &context)?;
    if escape == Escape::Json && serde_json::from_str::<IgnoredAny>(&body).is_err() {
        // Not the fault itself: it would tell where, but could not without quoting the event.
        return Err(Error::permanent("not-json", "what the template gave for this event is not JSON"));
    }
    let mut request = Request { headers: Vec::new(), content_type: config.content_type, body: Body::Text(body) };
    if !config.headers.is_empty() {
        let plain = Templates::new(Escape::Nothing, config.strict);
        for (name, template) in &config.headers {
            let value = plain.render(template.as_str().unwrap_or_default(), &context)?;
            request = request.header(name, text::truncate(text::one_line(&value).trim(), HEADER_CHARACTERS_MAX));
        }
    }
    Ok(Verdict::Send(request))
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
