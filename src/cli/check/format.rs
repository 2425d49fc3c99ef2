//! What was found in a config, as text for people, JSON for programs, SARIF 2.1.0 for code scanners, and the commands that
//! make annotations in GitHub Actions.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::terminal::{BAD, WAITS, styled};
use crate::config::{Fault, Place, Rule, Severity};

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people, with the line at fault.
    Text,
    /// For programs.
    Json,
    /// For code scanners: SARIF 2.1.0.
    Sarif,
    /// Annotations in GitHub Actions.
    Github,
}

impl Format {
    /// All findings; each line ends with a line break.
    pub fn render(self, found: &[Fault]) -> String {
        match self {
            Self::Text => text(found),
            Self::Json => format!("{:#}\n", json(found)),
            Self::Sarif => format!("{:#}\n", sarif(found)),
            Self::Github => found.iter().map(annotation).collect(),
        }
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// `file:line:column: severity: sentence [rule]`, which editors know how to read; the severity in its colour.
fn text(found: &[Fault]) -> String {
    let mut text = String::new();
    for fault in found {
        let style = match fault.severity {
            Severity::Error => BAD,
            Severity::Warning => WAITS,
        };
        let (severity, rule) = (styled(style, word(fault.severity)), fault.rule.as_str());
        let _ = writeln!(text, "{}: {severity}: {} [{rule}]", fault.place, fault.sentence());
        if let Some(picture) = fault.picture() {
            let _ = writeln!(text, "{picture}");
        }
    }
    text
}

fn json(found: &[Fault]) -> Value {
    let errors = found.iter().filter(|fault| fault.severity == Severity::Error).count();
    json!({ "valid": errors == 0, "errors": errors, "warnings": found.len() - errors, "findings": found })
}

/// Where a finding is, in SARIF's and GitHub's terms: a file, a line and a column. A variable has none of them.
fn file_of(place: &Place) -> (Option<&Path>, usize, usize) {
    match place {
        Place::Whole { file } => (Some(file), 1, 1),
        Place::At { file, line, column } => (Some(file), *line, *column),
        Place::Variable { .. } => (None, 1, 1),
    }
}

/// The sentence; with the variable's name where no file has the place.
fn sentence_of(fault: &Fault) -> String {
    match &fault.place {
        Place::Variable { .. } => fault.line(),
        Place::Whole { .. } | Place::At { .. } => fault.sentence(),
    }
}

fn sarif(found: &[Fault]) -> Value {
    let result = |fault: &Fault| {
        let location = match file_of(&fault.place) {
            (Some(file), line, column) => json!([{ "physicalLocation": {
                "artifactLocation": { "uri": uri(file) },
                "region": { "startLine": line, "startColumn": column },
            }}]),
            (None, ..) => json!([]),
        };
        json!({
            "ruleId": fault.rule.as_str(),
            "level": word(fault.severity),
            "message": { "text": sentence_of(fault) },
            "locations": location,
        })
    };
    let rules: Vec<_> = Rule::ALL
        .iter()
        .map(|rule| json!({ "id": rule.as_str(), "shortDescription": { "text": description(*rule) } }))
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "branchline", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": found.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

fn description(rule: Rule) -> &'static str {
    match rule {
        Rule::Config => "A file, key, value, name or variable can't be used, or is worth a second look",
        Rule::Route => "A route's patterns or its `where` can't be compiled",
        Rule::Plugin => "A plugin can't be loaded",
        Rule::PluginConfig => "A plugin refuses its config",
        Rule::Unused => "Nothing uses it",
        Rule::Unreachable => "No event can reach it",
        Rule::Twice => "Another does the same",
        Rule::Certificate => "A certificate has ended, or soon will",
        Rule::Endpoint => "An endpoint can't be reached, or may not be sent to",
        Rule::Store => "The store can't be used as it is",
        Rule::Retention => "Retries go on for longer than what they are about is kept",
    }
}

/// A relative path as it is, with what a URI may not have escaped; an absolute one as a `file:` URI.
fn uri(path: &Path) -> String {
    let mut uri = String::from(if path.is_absolute() { "file://" } else { "" });
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(byte)),
            _ => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}

/// `::error file=…,line=…,col=…,title=…::sentence`
fn annotation(fault: &Fault) -> String {
    let mut properties = String::new();
    if let (Some(file), line, column) = file_of(&fault.place) {
        let _ = write!(properties, "file={},line={line},col={column},", property(&file.to_string_lossy()));
    }
    let (severity, rule) = (word(fault.severity), fault.rule.as_str());
    format!("::{severity} {properties}title=branchline {rule}::{}\n", escaped(&sentence_of(fault)))
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> [Fault; 2] {
        let place = Place::At { file: "a folder/app.toml".into(), line: 3, column: 7 };
        let variable = Place::Variable { variable: "BRANCHLINE_LOG__LEVEL".to_owned() };
        let mut route = Fault::new(Severity::Error, place, "100% wrong\nhere".to_owned());
        route.rule = Rule::Route;
        [route, Fault::new(Severity::Warning, variable, "sets nothing".to_owned())]
    }

    #[test]
    fn annotations_are_escaped() {
        assert_eq!(
            Format::Github.render(&findings()),
            "::error file=a folder/app.toml,line=3,col=7,title=branchline route::100%25 wrong%0Ahere\n\
             ::warning title=branchline config::environment variable BRANCHLINE_LOG__LEVEL: sets nothing\n"
        );
    }

    #[test]
    fn sarif_names_rule_level_and_place() {
        let sarif: Value = serde_json::from_str(&Format::Sarif.render(&findings())).unwrap();
        let result = &sarif["runs"][0]["results"][0];
        assert_eq!((&result["ruleId"], &result["level"]), (&json!("route"), &json!("error")));
        assert_eq!(
            result["locations"][0]["physicalLocation"],
            json!({"artifactLocation": {"uri": "a%20folder/app.toml"}, "region": {"startLine": 3, "startColumn": 7}})
        );
        assert_eq!(sarif["runs"][0]["results"][1]["locations"], json!([]));
        let rules = sarif["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
        assert!(rules.iter().any(|rule| rule["id"] == result["ruleId"]));
    }

    #[test]
    fn json_counts_and_text_is_read_by_editors() {
        let counted: Value = serde_json::from_str(&Format::Json.render(&findings())).unwrap();
        assert_eq!(
            (&counted["valid"], &counted["errors"], &counted["warnings"]),
            (&json!(false), &json!(1), &json!(1))
        );
        assert_eq!(counted["findings"][0]["rule"], "route");
        let text = anstream::adapter::strip_str(&Format::Text.render(&findings())).to_string();
        assert!(text.starts_with("a folder/app.toml:3:7: error: 100% wrong"), "{text}");
    }
}
