//! Reads files and environment, merges them in layers, and has every table read. The only place that knows figment.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use figment::providers::Serialized;
use serde_json::{Map, Value};

use super::description::Description;
use super::document::{Before, Document, child};
use super::environment::{Environment, Setting};
use super::excerpt::SourceFile;
use super::faults::{Errors, Fault, Place, Rule, Severity};
use super::origins::{Origins, Part};
use super::reader::{Reading, Table};
use super::routes::Names;
use super::values::{self, MIB};
use super::{Config, Places, endpoints, plugins, route_tests, routes, sections, sources, store};

const FILES_MAX: usize = 1_000;
const FILE_BYTES_MAX: usize = 16 * MIB;

/// A config as it was read, with every mistake that the reader found: stand-ins have the places of what can't be used, so that
/// the rest can be looked at, too. Only one without a mistake becomes a [`Config`] that something runs by.
pub struct Draft {
    config: Config,
    faults: Vec<Fault>,
}

impl From<Config> for Draft {
    fn from(config: Config) -> Self {
        Self { config, faults: Vec::new() }
    }
}

impl Draft {
    /// Reads what [`Config::load_with_environment`] reads; the error is about files that could not be read or parsed.
    pub fn read(path: &Path, environment: &Environment) -> Result<Self, Errors> {
        assemble(path, read_files(path)?, environment)
    }

    /// What could be read. To be looked at, not to be run by.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the reader found, in the order of the places.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The config, if nothing is wrong with it.
    pub fn finish(self) -> Result<Config, Errors> {
        let Self { config, faults } = self;
        if faults.is_empty() { Ok(config) } else { Err(Errors { faults, warnings: config.warnings }) }
    }
}

impl Config {
    /// Reads a file (TOML, or JSON if its name ends in `.json`), or every `*.toml` of a folder in the order of their
    /// names, then the `BRANCHLINE_…` variables of the process.
    pub fn load(path: &Path) -> Result<Self, Errors> {
        Self::load_with_environment(path, &Environment::of_process())
    }

    /// The same with other variables than the process's.
    pub fn load_with_environment(path: &Path, environment: &Environment) -> Result<Self, Errors> {
        Draft::read(path, environment)?.finish()
    }

    /// The same from a text that is called `name`; relative paths are relative to the folder of `name`.
    pub fn parse(name: &Path, text: &str, environment: &Environment) -> Result<Self, Errors> {
        assemble(name, vec![SourceFile::new(name.to_owned(), text.to_owned())], environment)?.finish()
    }

    /// A mistake that is found later, in the value of a key such as `routes[0].where` or of the nearest key above it.
    /// The caller vouches that the value is no secret: its line shows it. `within` is the part of the value that is at
    /// fault, in bytes.
    pub fn fault(
        &self,
        severity: Severity,
        rule: Rule,
        key: &str,
        within: Option<Range<usize>>,
        message: String,
    ) -> Fault {
        let (place, excerpt) = self.places.0.narrowed(key, within);
        Fault { rule, key: key.to_owned(), excerpt, ..Fault::new(severity, place, message) }
    }

    /// The same, in a value that may be a secret: its line is shown without it.
    pub fn fault_in_secret(&self, severity: Severity, rule: Rule, key: &str, message: String) -> Fault {
        let (place, excerpt) = (self.places.0.place(key, Part::Secret), self.places.0.excerpt(key, Part::Secret));
        Fault { rule, key: key.to_owned(), excerpt, ..Fault::new(severity, place, message) }
    }

    /// Whether the config, or a variable, sets this key.
    pub fn sets(&self, key: &str) -> bool {
        self.places.0.sets(key)
    }

    /// Where a key's value stands, if it is set.
    pub fn place(&self, key: &str) -> Option<Place> {
        self.sets(key).then(|| self.places.0.place(key, Part::Value))
    }
}

fn read_files(path: &Path) -> Result<Vec<SourceFile>, Errors> {
    let whole = |path: &Path| Place::Whole { file: path.to_owned() };
    let unreadable = |path: &Path, error: std::io::Error| Errors::one(whole(path), format!("can't be read: {error}"));
    let mut paths = Vec::new();
    if path.is_dir() {
        for entry in path.read_dir().map_err(|error| unreadable(path, error))? {
            let file = entry.map_err(|error| unreadable(path, error))?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            // Editors keep their copies in hidden files.
            if name.ends_with(".toml") && !name.starts_with('.') {
                paths.push(file);
            }
        }
        paths.sort();
        if paths.is_empty() {
            return Err(Errors::one(whole(path), "the folder has no `*.toml` file".to_owned()));
        }
        if paths.len() > FILES_MAX {
            return Err(Errors::one(whole(path), format!("the folder has more than {FILES_MAX} files")));
        }
    } else {
        paths.push(path.to_owned());
    }
    let read = paths.into_iter().map(|path| read_file(&path).map(|text| SourceFile::new(path, text)));
    let (mut files, mut faults) = (Vec::new(), Vec::new());
    for file in read {
        match file {
            Ok(file) => files.push(file),
            Err(errors) => faults.extend(errors.faults),
        }
    }
    if faults.is_empty() {
        return Ok(files);
    }
    // What can be read may have mistakes, too; only those of syntax don't depend on the other files.
    if let Err(errors) = merge_files(path, files) {
        faults.extend(errors.faults);
    }
    faults.sort_by(|a, b| a.place.cmp(&b.place));
    Err(Errors { faults, warnings: Vec::new() })
}

fn read_file(path: &Path) -> Result<String, Errors> {
    use std::io::Read;
    let fail = |message: String| Errors::one(Place::Whole { file: path.to_owned() }, message);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| fail(format!("can't be read: {error}")))?;
    file.take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fail(format!("can't be read: {error}")))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(fail(format!("is larger than {}", values::show_bytes(FILE_BYTES_MAX))));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        fail(format!("is not UTF-8 in line {line}"))
    })
}

fn assemble(root: &Path, files: Vec<SourceFile>, environment: &Environment) -> Result<Draft, Errors> {
    let Merged { mut origins, values, twice } = merge_files(root, files)?;
    let values = merge_environment(&mut origins, values, environment);
    let reading = Reading::new(&origins, environment);
    let config = read(reading.root(&values));
    reading.warn_of_near_misses();
    let description = Description::of(&values, &reading.secrets.borrow());
    let (faults, warnings) = reading.end(twice);
    Ok(Draft { config: Config { warnings, description, places: Places(Arc::new(origins)), ..config }, faults })
}

/// All files as one.
pub(super) struct Merged {
    pub origins: Origins,
    pub values: Map<String, Value>,
    /// What is there twice; it was read once.
    twice: Vec<Fault>,
}

/// Parses the files and joins them: tables by key, routes and tests in order. What two files define is a fault.
pub(super) fn merge_files(root: &Path, files: Vec<SourceFile>) -> Result<Merged, Errors> {
    let mut origins = Origins::new(root.to_owned());
    let mut figment = Figment::new();
    let mut first_files: HashMap<String, Place> = HashMap::new();
    let (mut faults, mut twice, mut before) = (Vec::new(), Vec::new(), Before::default());
    for file in files {
        let is_json = file.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let document = match Document::parse(&file.text, is_json, before) {
            Ok(document) => document,
            Err(found) => {
                faults.extend(found.iter().map(|fault| file.syntax_fault(fault)));
                continue;
            }
        };
        before = before.and(&document);
        twice.extend(document.twice.iter().map(|fault| file.syntax_fault(fault)));
        let own_keys = keys_of_one_file(&document.values);
        for spot in document.spots.iter().filter(|spot| own_keys.contains(&spot.key)) {
            let key = spot.key.clone();
            let place = file.place(spot.name.start);
            match first_files.get(&key) {
                Some(first) => {
                    let message = format!("`{key}` is defined in two files; the other place is {first}");
                    let mut alone = Origins::new(file.path.clone());
                    alone.add_file(file.clone(), document.spots.clone());
                    let excerpt = alone.excerpt(&key, Part::Name);
                    twice.push(Fault { key, excerpt, ..Fault::new(Severity::Error, place, message) });
                }
                None => {
                    first_files.insert(key, place);
                }
            }
        }
        figment = figment.admerge(Serialized::defaults(Value::Object(document.values)));
        origins.add_file(file, document.spots);
    }
    if faults.is_empty() {
        return Ok(Merged { origins, values: extract(&figment), twice });
    }
    faults.extend(twice);
    faults.sort_by(|a, b| a.place.cmp(&b.place));
    Err(Errors { faults, warnings: Vec::new() })
}

/// The keys that no other file may define: those of the second level, `endpoints.warehouse` or `ingest.listen`.
fn keys_of_one_file(values: &Map<String, Value>) -> HashSet<String> {
    let mut keys = HashSet::new();
    for (name, value) in values {
        match value {
            Value::Object(fields) => keys.extend(fields.keys().map(|field| child(name, field))),
            Value::Array(_) if Before::LISTS.contains(&name.as_str()) => {}
            _ => keys.extend([child("", name)]),
        }
    }
    keys
}

/// Lays the variables over the files. A variable's text may hold a list, `[a, b]`, or a table, `{env = NAME}`.
fn merge_environment(
    origins: &mut Origins,
    values: Map<String, Value>,
    environment: &Environment,
) -> Map<String, Value> {
    let mut figment = Figment::from(Serialized::defaults(Value::Object(values.clone())));
    for setting in environment.settings(&values) {
        let value = value_of(&setting);
        origins.add_variable(&setting, &value);
        let nested = setting
            .path
            .iter()
            .rev()
            .fold(value, |value, level| Value::Object(Map::from_iter([(level.clone(), value)])));
        figment = figment.merge(Serialized::defaults(nested));
    }
    extract(&figment)
}

fn value_of(setting: &Setting) -> Value {
    let parsed = setting.text.parse::<figment::value::Value>();
    parsed.ok().and_then(|value| value.deserialize().ok()).unwrap_or_else(|| Value::String(setting.text.clone()))
}

fn extract(figment: &Figment) -> Map<String, Value> {
    figment.extract().expect("figment was given JSON objects only, and merged they are one")
}

/// Reads every table. What has a fault has a stand-in, at its place: the caller refuses the whole config then.
pub(super) fn read(mut root: Table<'_>) -> Config {
    let ingest = sections::ingest(root.section("ingest"));
    let admin = sections::admin(root.section("admin"));
    let mut store = store::store(root.section("store"));
    let delivery = sections::delivery(root.section("delivery"));
    let sandbox = sections::sandbox(root.section("sandbox"));
    let log = sections::log(root.section("log"));

    // Names count as known even where what they name has a fault of its own, which is reported there.
    let source_names = root.section("sources").names();
    let sources = sources::sources(root.section("sources"), &ingest);
    let endpoints = endpoints::endpoints(root.section("endpoints"));
    let plugin_names = root.section("plugins").names();
    let plugins = plugins::plugins(root.section("plugins"));
    let names = Names {
        sources: source_names.into_iter().collect(),
        plugins: plugin_names.into_iter().collect(),
        endpoints: endpoints.iter().map(|endpoint| (endpoint.name.to_string(), endpoint)).collect(),
    };
    let routes = routes::routes(root.find("routes").as_ref(), &names);
    // Of routes with faults not every name may be known.
    let subscriptions: BTreeSet<_> =
        routes.iter().flat_map(|route| &route.subscriptions).map(|own| own.name.to_string()).collect();
    let subscriptions = Some(subscriptions).filter(|names| !names.contains("") && !root.reading.has_fault_at("routes"));
    let tests = route_tests::tests(root.find("tests").as_ref(), &names.sources, subscriptions.as_ref());

    store.options.lease = store::lease(&endpoints, &plugins, &routes);
    if ingest.listen == admin.listen && ingest.listen.port() != 0 {
        let message = format!("`admin.listen` and `ingest.listen` are both {}", admin.listen);
        root.reading.fault("admin.listen", Part::Value, message, None);
    }
    root.end();
    Config {
        ingest,
        admin,
        store,
        delivery,
        sandbox,
        log,
        sources,
        endpoints,
        plugins,
        routes,
        tests,
        warnings: Vec::new(),
        description: Description::default(),
        places: Places(Arc::new(Origins::new(PathBuf::new()))),
    }
}
