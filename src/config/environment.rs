//! Environment variables: those that set keys (`BRANCHLINE_INGEST__LISTEN`), and those that hold secrets.
//! Passed in as a value, so that nothing but the command line reads the process's environment.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

const PREFIX: &str = "BRANCHLINE_";

/// Environment variables by name. Their values may be secrets and are not printed.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    stand_ins: StandIns,
}

/// Whether something of its shape takes a secret's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StandIns {
    /// Never: a secret that is not there is a fault.
    #[default]
    None,
    /// Where it is not there, with a warning.
    ForTheMissing,
    /// The same, and files count as missing: what they hold is looked for among the variables, by their paths as the config
    /// writes them.
    ForTheMissingAndFiles,
}

/// A variable that sets a key.
#[derive(Clone)]
pub(super) struct Setting {
    /// The variable's name.
    pub variable: String,
    /// The key, a part per level.
    pub path: Vec<String>,
    /// What it is set to.
    pub text: String,
}

impl Environment {
    /// The process's own. Variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The same, with stand-ins for the secrets that are not there: for looking at a config where it does not run.
    pub fn with_stand_ins(self) -> Self {
        Self { stand_ins: StandIns::ForTheMissing, ..self }
    }

    /// The same, and no secret is read from a file either: what a config comes to is then the same on every machine. A
    /// variable that is named as such a file is in the config takes its place.
    pub fn with_stand_ins_for_files(self) -> Self {
        Self { stand_ins: StandIns::ForTheMissingAndFiles, ..self }
    }

    /// Whether a secret that is not there is to be stood in for.
    pub(super) fn stands_in(&self) -> bool {
        self.stand_ins != StandIns::None
    }

    /// Whether files of secrets are left alone.
    pub(super) fn stands_in_for_files(&self) -> bool {
        self.stand_ins == StandIns::ForTheMissingAndFiles
    }

    /// The same, with these variables on top.
    pub fn with(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables.extend(variables);
        self
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The variables that set keys: `BRANCHLINE_` and at least two levels with `__` between them. Others with
    /// the prefix belong to the command line, or to Kubernetes, which sets `BRANCHLINE_SERVICE_HOST` and
    /// the like for a service called `branchline`.
    ///
    /// A level is a key of `values` where one differs from it only by case or by `-` for `_`, since most shells
    /// can set no other; otherwise it is a new key in lower case.
    pub(super) fn settings(&self, values: &Map<String, Value>) -> Vec<Setting> {
        let mut settings = Vec::new();
        for (variable, text) in &self.variables {
            let Some(key) = variable.strip_prefix(PREFIX).filter(|key| key.contains("__")) else { continue };
            let mut table = Some(values);
            let mut path = Vec::new();
            for level in key.split("__") {
                let name = table.and_then(|table| known(table, level)).unwrap_or_else(|| level.to_lowercase());
                table = table.and_then(|table| table.get(&name)).and_then(Value::as_object);
                path.push(name);
            }
            settings.push(Setting { variable: variable.clone(), path, text: text.clone() });
        }
        settings
    }

    /// Variables that would set one of the `known` keys if they had two underscores between levels, each with the
    /// name that does.
    pub(super) fn near_misses<'k>(&self, known: impl IntoIterator<Item = &'k String>) -> Vec<(String, String)> {
        let mut misses = Vec::new();
        for key in known {
            let name = |between: &str| {
                let levels = key.replace('-', "_").to_uppercase().replace('.', between);
                format!("{PREFIX}{levels}")
            };
            if self.variables.contains_key(&name("_")) {
                misses.push((name("_"), name("__")));
            }
        }
        misses
    }
}

/// The key of `table` that `level` stands for.
fn known(table: &Map<String, Value>, level: &str) -> Option<String> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let exact = table.keys().find(|key| *key == level);
    exact.or_else(|| table.keys().find(|key| plain(key) == plain(level))).cloned()
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, stand_ins: StandIns::None }
    }
}

impl<N: Into<String>, V: Into<String>, const COUNT: usize> From<[(N, V); COUNT]> for Environment {
    fn from(variables: [(N, V); COUNT]) -> Self {
        variables.into_iter().collect()
    }
}

impl fmt::Debug for Environment {
    /// The names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_names_a_key_with_two_underscores_between_levels() {
        let values = serde_json::json!({"endpoints": {"orders-slack": {}, "Big": {"timeout": "3s"}}});
        let environment = Environment::from([
            ("BRANCHLINE_INGEST__LISTEN", ""),
            ("BRANCHLINE_ENDPOINTS__ORDERS_SLACK__MAX_IN_FLIGHT", ""),
            ("BRANCHLINE_ENDPOINTS__BIG__TIMEOUT", ""),
            ("BRANCHLINE_CONFIG", ""),
            ("BRANCHLINE_SERVICE_HOST", ""),
            ("OTHER__X", ""),
        ]);
        let paths: Vec<String> =
            environment.settings(values.as_object().unwrap()).iter().map(|setting| setting.path.join(".")).collect();
        assert_eq!(paths, ["endpoints.Big.timeout", "endpoints.orders-slack.max_in_flight", "ingest.listen"]);
    }

    #[test]
    fn a_variable_with_one_underscore_too_few_is_noticed() {
        let environment = Environment::from([
            ("BRANCHLINE_INGEST_LISTEN", ""),
            ("BRANCHLINE_INGEST_SERVICE_HOST", ""),
            ("BRANCHLINE_PORT", ""),
            ("BRANCHLINE_CONFIG", ""),
        ]);
        assert_eq!(
            environment.near_misses(&["ingest.listen".to_owned(), "admin.listen".to_owned()]),
            [("BRANCHLINE_INGEST_LISTEN".to_owned(), "BRANCHLINE_INGEST__LISTEN".to_owned())]
        );
    }

    #[test]
    fn an_environment_does_not_print_its_values() {
        assert_eq!(format!("{:?}", Environment::from([("KEY", "marker-secret")])), r#"{"KEY"}"#);
    }
}
