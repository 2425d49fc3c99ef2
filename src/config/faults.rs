//! Mistakes in the config: all of them, each with its place and key, printed so that the place can be opened
//! and the mistake seen. A fault never holds the value of a key that may be secret.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// How many faults are printed; the rest are counted.
const FAULTS_PRINTED_MAX: usize = 100;

/// Everything that is wrong with a config, in the order of the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Errors {
    /// At least one.
    pub faults: Vec<Fault>,
    /// What would only be warned of.
    #[serde(skip)]
    pub warnings: Vec<Fault>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Whether the config can't be used because of it.
    pub severity: Severity,
    /// What kind of mistake it is.
    pub rule: Rule,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// The key, for example `routes[0].subscriptions[1].endpoint`; empty when no key is at fault.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
    /// What was probably meant, when something near is known.
    pub suggestion: Option<String>,
    /// The line, with what is not at fault and what may be secret taken out.
    #[serde(skip)]
    pub(super) excerpt: Option<Excerpt>,
}

/// How bad a mistake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The config can't be used.
    Error,
    /// It can, but it may not be what is meant.
    Warning,
}

/// What kinds of mistakes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A file, key, value, name or variable.
    Config,
    /// A route's patterns or its `where`.
    Route,
    /// A plugin's file.
    Plugin,
    /// What a plugin says of a subscription's config for it.
    PluginConfig,
    /// Something that nothing uses.
    Unused,
    /// A route or subscription that no event can reach.
    Unreachable,
    /// Two that do the same.
    Twice,
    /// Retries that go on for longer than what they are about is kept.
    Retention,
    /// A listener's certificate that has ended, or soon will.
    Certificate,
    /// An endpoint that no delivery may go to, or, looked for only where that is asked, that can't be reached.
    Endpoint,
    /// A store that can't be used as it is; looked at only where that is asked.
    Store,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Config,
        Self::Route,
        Self::Plugin,
        Self::PluginConfig,
        Self::Unused,
        Self::Unreachable,
        Self::Twice,
        Self::Retention,
        Self::Certificate,
        Self::Endpoint,
        Self::Store,
    ];

    /// The word for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Route => "route",
            Self::Plugin => "plugin",
            Self::PluginConfig => "plugin-config",
            Self::Unused => "unused",
            Self::Unreachable => "unreachable",
            Self::Twice => "twice",
            Self::Retention => "retention",
            Self::Certificate => "certificate",
            Self::Endpoint => "endpoint",
            Self::Store => "store",
        }
    }
}

/// Where a key or a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Place {
    /// A file or folder as a whole.
    Whole {
        /// Its path.
        file: PathBuf,
    },
    /// A place in a file.
    At {
        /// Its path.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// An environment variable.
    Variable {
        /// Its name.
        variable: String,
    },
}

/// A line of a file, with the part at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub line: usize,
    pub text: String,
    /// In characters of `text`, from 0.
    pub caret: usize,
    pub caret_length: usize,
}

impl Errors {
    /// One fault and no other.
    pub(super) fn one(place: Place, message: String) -> Self {
        Self { faults: vec![Fault::new(Severity::Error, place, message)], warnings: Vec::new() }
    }
}

impl Fault {
    /// A fault of no key.
    pub fn new(severity: Severity, place: Place, message: String) -> Self {
        Self { severity, rule: Rule::Config, place, key: String::new(), message, suggestion: None, excerpt: None }
    }

    /// The whole sentence, without its place.
    pub fn sentence(&self) -> String {
        match &self.suggestion {
            Some(suggestion) => format!("{}; did you mean `{suggestion}`?", self.message),
            None => self.message.clone(),
        }
    }

    /// Place and sentence in one line, for logs.
    pub fn line(&self) -> String {
        format!("{}: {}", self.place, self.sentence())
    }

    /// The line of the file with the part at fault marked, in three lines.
    pub fn picture(&self) -> Option<String> {
        let excerpt = self.excerpt.as_ref()?;
        let number = excerpt.line.to_string();
        let gutter = " ".repeat(number.len());
        // Tabs are kept, so that the caret stands under its character whatever a tab's width is.
        let indent: String =
            excerpt.text.chars().take(excerpt.caret).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let caret = "^".repeat(excerpt.caret_length.max(1));
        Some(format!("{gutter} |\n{number} | {}\n{gutter} | {indent}{caret}", excerpt.text))
    }
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.faults.iter().take(FAULTS_PRINTED_MAX).enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        if self.faults.len() > FAULTS_PRINTED_MAX {
            write!(f, "\n… and {} more mistakes", self.faults.len() - FAULTS_PRINTED_MAX)?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    /// The sentence in one line, then the line of the file, if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())?;
        self.picture().map_or(Ok(()), |picture| write!(f, "\n{picture}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { file } => write!(f, "{}", file.display()),
            Self::At { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Variable { variable } => write!(f, "environment variable {variable}"),
        }
    }
}

/// What is said of a subscription that a config does not have.
pub(crate) fn no_subscription<'n>(name: &str, known: impl IntoIterator<Item = &'n str> + Clone) -> String {
    let hint = nearest(name, known).map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"));
    format!("the config has no subscription `{name}`{hint}")
}

/// How alike two words that begin alike must be for one to be a form of the other, from 0 to 1.
const ALIKE_MIN: f64 = 0.85;

/// The name of `known` that `word` is probably meant to be: misspelled, or another form of it, like `retries` for `retry`. None
/// when nothing is near.
pub(super) fn nearest<'n>(word: &str, known: impl IntoIterator<Item = &'n str> + Clone) -> Option<String> {
    misspelled(word, known.clone()).or_else(|| {
        let word = plain(word);
        let alike = known.into_iter().map(|name| (strsim::jaro_winkler(&word, &plain(name)), name));
        let nearest = alike.filter(|(alike, _)| *alike >= ALIKE_MIN).max_by(|a, b| a.0.total_cmp(&b.0));
        nearest.map(|(_, name)| name.to_owned())
    })
}

/// The name of `known` that `word` is a slip of the pen for.
pub(super) fn misspelled<'n>(word: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let word = plain(word);
    let length = word.chars().count();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&word, &plain(name)), name))
        .filter(|(distance, _)| *distance <= (length / 3).max(1) && *distance < length)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.to_owned())
}

fn plain(text: &str) -> String {
    text.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        let known = ["endpoint", "plugins", "retry", "name"];
        for (word, suggestion) in [
            ("endpont", Some("endpoint")),
            ("Endpoint", Some("endpoint")),
            ("plugin", Some("plugins")),
            ("nmae", Some("name")),
            ("retrys", Some("retry")),
            ("retries", Some("retry")),
            ("retires", Some("retry")),
            ("endpoint_name", Some("endpoint")),
            ("retry_policy", Some("retry")),
            ("attempts", None),
            ("x", None),
            ("timeout", None),
        ] {
            assert_eq!(nearest(word, known).as_deref(), suggestion, "{word}");
        }
    }

    #[test]
    fn a_fault_points_at_its_part_of_the_line() {
        let fault = Fault {
            severity: Severity::Error,
            rule: Rule::Config,
            place: Place::At { file: "config/app.toml".into(), line: 12, column: 2 },
            key: "routes[0].subscriptions[1].endpont".to_owned(),
            message: "unknown key `endpont` in `routes[0].subscriptions[1]`".to_owned(),
            suggestion: Some("endpoint".to_owned()),
            excerpt: Some(Excerpt { line: 12, text: "\tendpont = …".to_owned(), caret: 1, caret_length: 7 }),
        };
        assert_eq!(
            fault.to_string(),
            "config/app.toml:12:2: unknown key `endpont` in `routes[0].subscriptions[1]`; did you mean `endpoint`?\n   \
             |\n12 | \tendpont = …\n   | \t^^^^^^^"
        );
    }
}
