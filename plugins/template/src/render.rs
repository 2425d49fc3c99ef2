//! The engine: checks and renders templates. No template can reach a file, another template, or more than
//! the event; one that does not end is ended by the router's deadline.

use branchline_plugin::Error;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};

use crate::escape::{self, Escape};

/// Of macros that call themselves: a component's stack is small.
const RECURSION_MAX: usize = 64;

/// An engine for templates that are escaped in one way.
pub struct Templates(Environment<'static>);

impl Templates {
    /// `strict` makes it an error to print what is not there.
    pub fn new(escape: Escape, strict: bool) -> Self {
        let mut engine = Environment::new();
        engine.set_recursion_limit(RECURSION_MAX);
        engine.set_undefined_behavior(match strict {
            // It still may be asked whether something is there.
            true => UndefinedBehavior::SemiStrict,
            false => UndefinedBehavior::Chainable,
        });
        // The engine must know that something is escaped, so that a block that was is not escaped again.
        engine.set_auto_escape_callback(move |_| match escape {
            Escape::Nothing => AutoEscape::None,
            Escape::Json | Escape::Html | Escape::Form => AutoEscape::Custom("content type".into()),
        });
        engine.set_formatter(move |out, _, value| escape.print(out, value));
        engine.add_filter("tojson", |value: Value| escape::to_json(&value));
        engine.add_filter("thousands", |value: Value| escape::thousands(&value));
        engine.add_filter("urlencode", |value: Value| escape::url_encode(&value));
        // These would escape for HTML whatever the content is.
        engine.remove_filter("escape");
        engine.remove_filter("e");
        Self(engine)
    }

    /// Says what is wrong with a template, for the operator who wrote it. Names of filters are looked up
    /// only when a template runs, so it runs once over nothing.
    pub fn check(&self, template: &str) -> Result<(), String> {
        let fault = match self.0.render_str(template, ()) {
            Ok(_) => return Ok(()),
            Err(fault) => fault,
        };
        match fault.kind() {
            ErrorKind::SyntaxError
            | ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownFunction
            | ErrorKind::TemplateNotFound => {
                let detail = fault.detail().map_or_else(|| fault.kind().to_string(), str::to_owned);
                Err(format!("line {}: {detail}", fault.line().unwrap_or(1)))
            }
            // It has no event here; with one it may be right.
            _ => Ok(()),
        }
    }

    /// The text of a template for one event. The engine's own words may quote the event, so that only the
    /// kind of a fault and its line are told.
    pub fn render(&self, template: &str, context: &Value) -> Result<String, Error> {
        self.0.render_str(template, context.clone()).map_err(|fault| {
            let line = fault.line().unwrap_or(1);
            Error::permanent("template-failed", format!("the template failed at line {line}: {}", fault.kind()))
        })
    }
}
