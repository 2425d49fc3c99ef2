//! Reads tables key by key. A table notes each key it is asked for; what is left at its end is unknown. Every
//! mistake becomes a fault and reading goes on, so that all of them are found: what stands in for a bad value
//! is never used, because a config with a fault is refused as a whole.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::document::{child, element};
use super::environment::Environment;
use super::faults::{Fault, Place, Severity, misspelled, nearest};
use super::origins::{Origins, Part};
use super::secrets::Secrets;
use super::values;

/// After so many faults the rest are noted without their lines and without a look for what may be meant, which takes
/// a walk over all names: a file with a mistake in each of its thousands of rows is answered at once too.
const FAULTS_EXPLAINED_MAX: usize = 1_000;

/// One reading of a config.
pub(super) struct Reading<'a> {
    pub origins: &'a Origins,
    pub environment: &'a Environment,
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<Fault>>,
    /// What no message may show.
    pub secrets: RefCell<Secrets>,
    /// The whole keys that some table was asked for.
    known: RefCell<BTreeSet<String>>,
}

/// A value with its whole key.
#[derive(Clone)]
pub(super) struct Entry<'a> {
    pub reading: &'a Reading<'a>,
    pub key: String,
    pub value: &'a Value,
    /// Whether no message may show the value.
    secret: bool,
}

/// A table that is being read.
pub(super) struct Table<'a> {
    pub reading: &'a Reading<'a>,
    pub key: String,
    /// `None` for a table that is not there: every key has its default.
    fields: Option<&'a Map<String, Value>>,
    asked: Vec<&'static str>,
    secret: bool,
}

impl<'a> Reading<'a> {
    /// Starts.
    pub fn new(origins: &'a Origins, environment: &'a Environment) -> Self {
        Self {
            origins,
            environment,
            faults: RefCell::default(),
            warnings: RefCell::default(),
            secrets: RefCell::default(),
            known: RefCell::default(),
        }
    }

    /// The top-level table.
    pub fn root(&'a self, values: &'a Map<String, Value>) -> Table<'a> {
        Table { reading: self, key: String::new(), fields: Some(values), asked: Vec::new(), secret: false }
    }

    /// Notes a mistake at a key.
    pub fn fault(&self, key: &str, part: Part, message: impl Into<String>, suggestion: Option<String>) {
        let excerpt = if self.explains() { self.origins.excerpt(key, part) } else { None };
        let place = self.origins.place(key, part);
        self.faults.borrow_mut().push(Fault {
            key: key.to_owned(),
            suggestion,
            excerpt,
            ..Fault::new(Severity::Error, place, message.into())
        });
    }

    /// Whether there is one at exactly this key.
    pub fn has_fault_at(&self, key: &str) -> bool {
        self.faults.borrow().iter().any(|fault| fault.key == key)
    }

    /// Whether the next fault is worth an explanation.
    pub fn explains(&self) -> bool {
        self.faults.borrow().len() < FAULTS_EXPLAINED_MAX
    }

    /// Notes what is allowed but worth telling. The value is not shown: it may be a secret.
    pub fn warn(&self, key: &str, message: impl Display) {
        let place = self.origins.place(key, Part::Secret);
        let excerpt = self.origins.excerpt(key, Part::Secret);
        let fault = Fault::new(Severity::Warning, place, message.to_string());
        self.warnings.borrow_mut().push(Fault { key: key.to_owned(), excerpt, ..fault });
    }

    /// Warns of variables that look as if they set a key and do not.
    pub fn warn_of_near_misses(&self) {
        for (variable, right) in self.environment.near_misses(&*self.known.borrow()) {
            let message = format!("sets nothing; did you mean {right}?");
            self.warnings.borrow_mut().push(Fault::new(Severity::Warning, Place::Variable { variable }, message));
        }
    }

    /// The whole keys that some table was asked for.
    #[cfg(test)]
    pub fn known(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    /// All that was found: the faults in the order of their places, `others` among them, and the warnings.
    pub fn end(self, others: Vec<Fault>) -> (Vec<Fault>, Vec<Fault>) {
        let (mut faults, warnings) = (self.faults.into_inner(), self.warnings.into_inner());
        faults.extend(others);
        faults.sort_by(|a, b| (&a.place, &a.key, &a.message).cmp(&(&b.place, &b.key, &b.message)));
        faults.dedup(); // A table that is asked for twice complains twice.
        (faults, warnings)
    }
}

impl<'a> Table<'a> {
    /// The value of a key, if it is there.
    pub fn find(&mut self, name: &'static str) -> Option<Entry<'a>> {
        self.asked.push(name);
        let value = self.fields?.get(name)?;
        Some(Entry { reading: self.reading, key: child(&self.key, name), value, secret: self.secret })
    }

    /// The value of a key that no message may show.
    pub fn find_secret(&mut self, name: &'static str) -> Option<Entry<'a>> {
        self.reading.secrets.borrow_mut().add(child(&self.key, name));
        self.find(name).map(|entry| Entry { secret: true, ..entry })
    }

    /// The value of a key that must be there. Where a slip of the pen for it is there instead, which the end of the table
    /// reports, that is read, so that what depends on it is not reported as well.
    pub fn require(&mut self, name: &'static str, meaning: &str) -> Option<Entry<'a>> {
        let entry = self.find(name).or_else(|| self.slip(name));
        if entry.is_none() {
            self.missing(name, meaning);
        }
        entry
    }

    /// What is there instead of a key, as a slip of the pen for it.
    fn slip(&self, name: &'static str) -> Option<Entry<'a>> {
        let is_slip = |known: &&String| !self.asked.contains(&known.as_str()) && misspelled(known, [name]).is_some();
        let (slip, value) = self.fields?.iter().find(|(key, _)| is_slip(key))?;
        Some(Entry { reading: self.reading, key: child(&self.key, slip), value, secret: self.secret })
    }

    /// The value of a key that must be there and that no message may show.
    pub fn require_secret(&mut self, name: &'static str, meaning: &str) -> Option<Entry<'a>> {
        self.reading.secrets.borrow_mut().add(child(&self.key, name));
        let entry = self.require(name, meaning)?;
        self.reading.secrets.borrow_mut().add(entry.key.clone());
        Some(Entry { secret: true, ..entry })
    }

    /// Says that a key is missing, unless what is there instead is a slip of the pen for it.
    pub fn missing(&self, name: &'static str, meaning: &str) {
        if self.slip(name).is_some() {
            return; // The end of the table reports the unknown key and suggests this one.
        }
        let message = format!("`{}` has no `{name}`: {meaning}", self.key);
        self.reading.fault(&self.key, Part::Name, message, None);
    }

    /// The table of a section; an empty one when it is not there.
    pub fn section(&mut self, name: &'static str) -> Table<'a> {
        let fields = self.find(name).and_then(|entry| entry.object("a table"));
        Table { reading: self.reading, key: child(&self.key, name), fields, asked: Vec::new(), secret: self.secret }
    }

    /// The keys, where the config gives them.
    pub fn names(&self) -> Vec<String> {
        self.fields.into_iter().flat_map(Map::keys).cloned().collect()
    }

    /// The entries, where the config gives their keys.
    pub fn entries(&self) -> Vec<(&'a str, Entry<'a>)> {
        let entry = |(name, value): (&'a String, &'a Value)| {
            let key = child(&self.key, name);
            (name.as_str(), Entry { reading: self.reading, key, value, secret: self.secret })
        };
        self.fields.into_iter().flatten().map(entry).collect()
    }

    /// The entries of a table whose keys are names.
    pub fn named(self) -> Vec<(Arc<str>, Entry<'a>)> {
        let named = |(name, entry): (&str, Entry<'a>)| {
            if let Err(message) = values::name(name) {
                self.reading.fault(&entry.key, Part::Name, format!("`{}` {message}", entry.key), None);
            }
            (Arc::from(name), entry)
        };
        self.entries().into_iter().map(named).collect()
    }

    /// A text that `parse` understands, or the default.
    pub fn parsed<T>(&mut self, name: &'static str, default: T, parse: impl Fn(&str) -> Result<T, String>) -> T {
        self.find(name).and_then(|entry| entry.parse(parse)).unwrap_or(default)
    }

    /// A whole number.
    pub fn count<T>(&mut self, name: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<u64> + PartialOrd + Display,
    {
        self.find(name).and_then(|entry| entry.count(&range)).unwrap_or(default)
    }

    /// A size in bytes.
    pub fn bytes(&mut self, name: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        self.find(name).and_then(|entry| entry.bytes(&range)).unwrap_or(default)
    }

    /// A duration.
    pub fn duration(&mut self, name: &'static str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        self.parsed(name, default, |text| values::duration(text, &range))
    }

    /// Reports the keys that nobody asked for.
    pub fn end(self) {
        self.reading.known.borrow_mut().extend(self.asked.iter().map(|name| child(&self.key, name)));
        let fields = self.fields.into_iter().flatten();
        for (name, value) in fields.filter(|(name, _)| !self.asked.contains(&name.as_str())) {
            let key = child(&self.key, name);
            let within = if self.key.is_empty() { String::new() } else { format!(" in `{}`", self.key) };
            let suggestion = nearest(name, self.asked.iter().copied());
            // What is meant for a key that is no secret is none; of any other nobody knows.
            let meant = suggestion.as_ref().map(|meant| child(&self.key, meant));
            let is_slip = misspelled(name, self.asked.iter().copied()).is_some() || values::is_plain(value);
            let may_be_secret = |meant: &String| self.secret || self.reading.secrets.borrow().may_be(meant);
            let is_harmless = is_slip && meant.is_some_and(|meant| !may_be_secret(&meant));
            let part = if is_harmless { Part::NameBesideValue } else { Part::Name };
            let mut message = format!("unknown key `{}`{within}", values::shortened(name));
            if suggestion.is_none() {
                let _ = write!(message, "; known here: {}", self.asked.join(", "));
            }
            self.reading.fault(&key, part, message, suggestion);
        }
    }
}

impl<'a> Entry<'a> {
    /// Notes a mistake in this value; `message` goes on where the key ends: "must be …".
    pub fn fault(&self, message: impl Display) {
        self.fault_suggesting(message, None);
    }

    /// The same, with what was probably meant.
    pub fn fault_suggesting(&self, message: impl Display, suggestion: Option<String>) {
        let part = if self.secret { Part::Secret } else { Part::Value };
        self.reading.fault(&self.key, part, format!("`{}` {message}", self.key), suggestion);
    }

    /// The same entry, whose value has turned out to be no secret.
    pub fn shown(&self) -> Self {
        Self { secret: false, ..self.clone() }
    }

    /// Notes what is allowed but worth telling.
    pub fn warn(&self, message: impl Display) {
        self.reading.warn(&self.key, format!("`{}` {message}", self.key));
    }

    /// Its fields, if it is a table; `kind` says what it must be.
    pub fn object(&self, kind: &str) -> Option<&'a Map<String, Value>> {
        let fields = self.value.as_object();
        if fields.is_none() {
            // What stands where a table should may be what belongs into it: a key, a URL with a token.
            let hidden = Self { secret: true, ..self.clone() };
            hidden.fault(format!("must be {kind}, not {}", values::kind(self.value)));
        }
        fields
    }

    /// As a table.
    pub fn table(&self) -> Option<Table<'a>> {
        let fields = self.object("a table")?;
        Some(Table {
            reading: self.reading,
            key: self.key.clone(),
            fields: Some(fields),
            asked: Vec::new(),
            secret: self.secret,
        })
    }

    /// As a list of at most `items_max`.
    pub fn list(&self, items_max: usize) -> Option<Vec<Entry<'a>>> {
        let Some(items) = self.value.as_array() else {
            self.fault(format!("must be a list, not {}", values::kind(self.value)));
            return None;
        };
        if items.len() > items_max {
            self.fault(format!("must have at most {items_max} items, not {}", items.len()));
            return None;
        }
        let entry = |(number, value)| Entry {
            reading: self.reading,
            key: element(&self.key, number),
            value,
            secret: self.secret,
        };
        Some(items.iter().enumerate().map(entry).collect())
    }

    /// As a list, or as the one item of a list.
    pub fn one_or_list(&self, items_max: usize) -> Option<Vec<Entry<'a>>> {
        if self.value.is_array() { self.list(items_max) } else { Some(vec![self.clone()]) }
    }

    /// As text. What a variable sets is text even where it looks like a number.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match self.value {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Number(_) | Value::Bool(_) | Value::Null if self.is_set_by_variable() => {
                self.reading.origins.variable(&self.key).map(|setting| Cow::Owned(setting.text.clone()))
            }
            other => {
                self.fault(format!("must be text, not {}", values::kind(other)));
                None
            }
        }
    }

    /// As text that `parse` understands.
    pub fn parse<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        if let Value::Number(number) = self.value
            && !self.is_set_by_variable()
            && let Err(message) = parse(&number.to_string())
        {
            // `timeout = 3` is a duration without its unit rather than "not text".
            self.fault(message);
            return None;
        }
        match parse(&self.text()?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.fault(message);
                None
            }
        }
    }

    /// As a whole number in a range.
    pub fn count<T: TryFrom<u64> + PartialOrd + Display>(&self, range: &RangeInclusive<T>) -> Option<T> {
        let count = self.value.as_u64().and_then(|number| T::try_from(number).ok());
        let count = count.filter(|count| range.contains(count));
        if count.is_none() {
            let found = values::number_or_kind(self.value);
            self.fault(format!("must be a whole number from {} to {}, not {found}", range.start(), range.end()));
        }
        count
    }

    /// As `true` or `false`.
    pub fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.fault(format!("must be `true` or `false`, not {}", values::number_or_kind(self.value)));
        }
        flag
    }

    /// As a size in bytes in a range: a number, or text with a unit.
    pub fn bytes(&self, range: &RangeInclusive<usize>) -> Option<usize> {
        let parsed = match self.value {
            Value::String(text) => values::bytes(text),
            Value::Number(number) => number.as_u64(),
            _ => None,
        };
        let bytes = parsed.and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| range.contains(bytes));
        if bytes.is_none() {
            let (low, high) = (values::show_bytes(*range.start()), values::show_bytes(*range.end()));
            let found = match self.value {
                Value::String(text) => values::quoted(text),
                other => values::number_or_kind(other),
            };
            self.fault(format!("must be a size from {low} to {high} such as `256KiB`, not {found}"));
        }
        bytes
    }

    /// Whether a variable set exactly this value.
    pub fn is_set_by_variable(&self) -> bool {
        self.reading.origins.variable(&self.key).is_some()
    }
}
