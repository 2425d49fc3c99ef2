//! Where every key and value of the merged config came from: a place in a file, or a variable. Gives places for
//! messages, folders for relative paths, and lines of files to show, without what may be secret.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::document::{Spot, below, child};
use super::environment::Setting;
use super::excerpt::{self, SourceFile};
use super::faults::{Excerpt, Place};

/// Keys whose values are shown in a line even when they are not at fault, so that it can be recognised. All other
/// values may be secrets, those of unknown keys too.
const HARMLESS: [&str; 12] = [
    "plugins.*.path",
    "routes[].events[]",
    "routes[].name",
    "routes[].sources[]",
    "routes[].subscriptions[].endpoint",
    "routes[].subscriptions[].name",
    "routes[].subscriptions[].plugins[]",
    "routes[].subscriptions[].plugins[].use",
    "routes[].subscriptions[].retry[]",
    "sources.*.path",
    "endpoints.*.timeout",
    "endpoints.*.retry[]",
];

/// What part of a key's entry is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The key's name.
    Name,
    /// The same; the value is shown beside it where it is a single one, or a list of them.
    NameBesideValue,
    /// The value; shown in the line.
    Value,
    /// The value; not shown, since it may be a secret.
    Secret,
}

/// Where everything came from.
pub(super) struct Origins {
    /// The file or folder that was asked for.
    root: PathBuf,
    files: Vec<SourceFile>,
    /// For each file, what is neither a table nor a list, in the order of the file. Unlike `spots` it keeps what a
    /// variable takes the place of: it still stands in the file, and may still be secret.
    leaves: Vec<Vec<Spot>>,
    /// By whole key; the number is that of the file.
    spots: HashMap<String, (usize, Spot)>,
    /// Variables, by the whole key they set.
    variables: BTreeMap<String, Setting>,
}

impl Origins {
    /// Nothing yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root, files: Vec::new(), leaves: Vec::new(), spots: HashMap::new(), variables: BTreeMap::new() }
    }

    /// Takes a file in. A key that another file had first keeps its place.
    pub fn add_file(&mut self, file: SourceFile, spots: Vec<Spot>) {
        let number = self.files.len();
        self.files.push(file);
        let mut leaves: Vec<Spot> = spots.iter().filter(|spot| spot.leaf).cloned().collect();
        leaves.sort_by_key(|spot| spot.value.start);
        self.leaves.push(leaves);
        for spot in spots {
            self.spots.entry(spot.key.clone()).or_insert((number, spot));
        }
    }

    /// Takes a variable in: from now on its key, and what is below it, came from there.
    pub fn add_variable(&mut self, setting: &Setting, value: &Value) {
        let key = setting.path.iter().fold(String::new(), |key, level| child(&key, level));
        self.set_below(&key, setting, value);
    }

    fn set_below(&mut self, key: &str, setting: &Setting, value: &Value) {
        // A table is merged with what the files have; anything else takes its place.
        if let Value::Object(values) = value {
            for (name, value) in values {
                self.set_below(&child(key, name), setting, value);
            }
        } else {
            self.spots.retain(|spot, _| below(spot, key).is_none());
        }
        self.variables.insert(key.to_owned(), setting.clone());
    }

    /// The variable that set exactly this key.
    pub fn variable(&self, key: &str) -> Option<&Setting> {
        self.variables.get(key)
    }

    /// The place of a key, or of the nearest above it that has one.
    pub fn place(&self, key: &str, part: Part) -> Place {
        match self.find(key) {
            Origin::Spot(file, spot) => self.files[file].place(focus(spot, part).start),
            Origin::Variable(setting) => Place::Variable { variable: setting.variable.clone() },
            Origin::Nowhere => Place::Whole { file: self.root.clone() },
        }
    }

    /// Whether exactly this key is there.
    pub fn sets(&self, key: &str) -> bool {
        self.spots.contains_key(key) || self.variables.contains_key(key)
    }

    /// The place and line of a key's value, or of the part of it that is at fault: bytes of the value, which count
    /// where the file has it as it is, without an escape.
    pub fn narrowed(&self, key: &str, within: Option<Range<usize>>) -> (Place, Option<Excerpt>) {
        let Origin::Spot(number, spot) = self.find(key) else { return (self.place(key, Part::Value), None) };
        let (file, exact) = (&self.files[number], spot.key == key);
        let mut focus = spot.value.clone();
        if let Some(within) = within.filter(|_| exact) {
            let text = &file.text[focus.clone()];
            let mut opening = text.bytes().take_while(|byte| matches!(byte, b'"' | b'\'')).count().min(3);
            if opening == 3 {
                // A line break that follows at once is not part of the text.
                let rest = &text[opening..];
                opening += ["\r\n", "\n"].into_iter().find(|end| rest.starts_with(end)).map_or(0, str::len);
            }
            let part = focus.start + opening + within.start..focus.start + opening + within.end;
            if !text.contains('\\') && part.end <= focus.end && file.text.is_char_boundary(part.start) {
                focus = part;
            }
        }
        (
            file.place(focus.start),
            Some(self.line_of(number, spot, &focus, if exact { Part::Value } else { Part::Secret })),
        )
    }

    /// The folder that a relative path at this key is relative to; empty for the current folder.
    pub fn folder(&self, key: &str) -> PathBuf {
        match self.find(key) {
            Origin::Spot(file, _) => self.files[file].path.parent().unwrap_or(Path::new("")).to_owned(),
            Origin::Variable(_) => PathBuf::new(),
            Origin::Nowhere => self.root_folder(),
        }
    }

    /// The folder of the config, for defaults.
    pub fn root_folder(&self) -> PathBuf {
        if self.root.is_dir() { self.root.clone() } else { self.root.parent().unwrap_or(Path::new("")).to_owned() }
    }

    /// The line at a key's place, without what may be secret.
    pub fn excerpt(&self, key: &str, part: Part) -> Option<Excerpt> {
        let Origin::Spot(number, at_fault) = self.find(key) else { return None };
        let part = if at_fault.key == key { part } else { Part::Secret };
        Some(self.line_of(number, at_fault, &focus(at_fault, part), part))
    }

    fn line_of(&self, number: usize, at_fault: &Spot, focus: &Range<usize>, part: Part) -> Excerpt {
        let (file, leaves) = (&self.files[number], &self.leaves[number]);
        let line = file.line(focus.start);
        let first = leaves.partition_point(|spot| spot.value.end <= line.start);
        let in_line = leaves[first..].iter().take_while(|spot| spot.value.start < line.end);
        let is_shown = |spot: &Spot| match part {
            Part::Value => spot.key == at_fault.key,
            Part::NameBesideValue => spot.key == at_fault.key || is_item(&spot.key, &at_fault.key),
            Part::Name | Part::Secret => false,
        };
        let shown = |spot: &Spot| is_harmless(&spot.key) || is_shown(spot);
        let values = in_line.map(|spot| excerpt::Value { range: spot.value.clone(), shown: shown(spot) });
        excerpt::excerpt(file, values, focus)
    }

    fn find(&self, key: &str) -> Origin<'_> {
        let mut key = key;
        loop {
            if let Some((file, spot)) = self.spots.get(key) {
                return Origin::Spot(*file, spot);
            }
            if let Some(setting) = self.variables.get(key) {
                return Origin::Variable(setting);
            }
            // A table that only variables made has no place of its own: any of them will do.
            if let Some((_, setting)) =
                self.variables.iter().find(|(variable, _)| below(variable, key).is_some() && *variable != key)
            {
                return Origin::Variable(setting);
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return Origin::Nowhere,
            }
        }
    }
}

enum Origin<'o> {
    Spot(usize, &'o Spot),
    Variable(&'o Setting),
    Nowhere,
}

/// Whether `key` is an item of the list at `list`.
fn is_item(key: &str, list: &str) -> bool {
    let number = key.strip_prefix(list).and_then(|rest| rest.strip_prefix('[')?.strip_suffix(']'));
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether the key is one of [`HARMLESS`].
fn is_harmless(key: &str) -> bool {
    let mut parts = key.split('.');
    let section = parts.next().unwrap_or_default();
    let mut shape = section.trim_end_matches(|c: char| c.is_ascii_digit() || "[]".contains(c)).to_owned();
    if section.ends_with(']') {
        shape.push_str("[]");
    }
    for (depth, part) in parts.enumerate() {
        let name = part.split('[').next().unwrap_or_default();
        // The second part names a source, an endpoint or a plugin, except under `routes`.
        shape.push('.');
        shape.push_str(if depth == 0 && section != "routes" && !section.ends_with(']') { "*" } else { name });
        if part.ends_with(']') {
            shape.push_str("[]");
        }
    }
    HARMLESS.contains(&shape.as_str())
}

fn focus(spot: &Spot, part: Part) -> Range<usize> {
    match part {
        Part::Name | Part::NameBesideValue => spot.name.clone(),
        Part::Value | Part::Secret => spot.value.clone(),
    }
}
