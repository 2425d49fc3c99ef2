//! Runs a jq program over an event: its output becomes the payload, or the body of the request. The
//! program is the operator's, what it runs over is not: it can reach neither a clock nor the
//! environment, and a program that does not end is ended by the router's deadline.

mod expressions; // Regular expressions.
mod functions; // What of the language's library is written in Rust.
mod library; // What of it is written in jq.
mod program; // From a text to a program, and from an event to its output.
mod time; // `2025-01-15T10:30:00Z` and seconds.

use branchline_plugin::{Body, Error, Event, Request, Verdict, plugin};
use serde::Deserialize;

use program::{Failure, Program};

plugin!(handle, check);

const PROGRAM_BYTES_MAX: usize = 65_536;
const JSON: &str = "application/json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    program: String,
    /// What the program's `.` is.
    #[serde(default)]
    input: Input,
    /// What becomes of its output.
    #[serde(default, rename = "as")]
    output: Output,
    content_type: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Input {
    #[default]
    Event,
    Payload,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Output {
    #[default]
    Payload,
    Body,
}

fn check(config: &Config) -> Result<(), String> {
    if config.program.len() > PROGRAM_BYTES_MAX {
        return Err(format!("`program` is longer than {PROGRAM_BYTES_MAX} bytes"));
    }
    if config.content_type.is_some() && config.output != Output::Body {
        return Err("`content_type` belongs to a body; add `as = \"body\"`".to_owned());
    }
    if config.content_type.as_ref().is_some_and(|content_type| !content_type.contains('/')) {
        return Err("`content_type` is not one, such as `application/json`".to_owned());
    }
    Program::compile(&config.program).map(drop)
}

fn handle(event: Event, config: Config) -> Result<Verdict, Error> {
    let program = Program::compile(&config.program).map_err(|fault| Error::permanent("invalid-config", fault))?;
    let input = match config.input {
        Input::Event => program::envelope(&event),
        Input::Payload => program::value(&event.payload),
    };
    let output = match program.run(input) {
        Ok(output) => output,
        Err(Failure::NoOutput) => return Ok(Verdict::drop("the jq program gave nothing for this event")),
        Err(Failure::Error(error)) => return Err(error),
    };
    match config.output {
        Output::Payload => Verdict::replace(event.with_payload(output.json()?)),
        Output::Body => {
            let content_type = config.content_type.unwrap_or_else(|| JSON.to_owned());
            // As `jq --raw-output` does, where the body is not JSON.
            let body = match output.text() {
                Some(text) if !is_json(&content_type) => text,
                _ => output.json()?.get().to_owned(),
            };
            Ok(Verdict::Send(Request { headers: Vec::new(), content_type, body: Body::Text(body) }))
        }
    }
}

fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case(JSON) || media_type.to_ascii_lowercase().ends_with("+json")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_is_right() {
        branchline_plugin::testing::run_readme_verdict(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }

    #[test]
    fn every_fixture_holds() {
        branchline_plugin::testing::run_fixtures(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }
}
