//! A file's text in, its values and where each of them stands out. TOML by `toml_edit`, JSON by `serde_json`
//! and a scan of what it accepted. Knows nothing of what the keys mean.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::{Map, Number, Value};
use toml_edit::{Item, TableLike};

use super::json;

/// A file, parsed.
#[derive(Debug)]
pub(super) struct Document {
    /// The top-level table.
    pub values: Map<String, Value>,
    /// Where each key stands, in the order of the file.
    pub spots: Vec<Spot>,
    /// Keys that are there for the second time. What they say is not among the values, or takes the place of the first.
    pub twice: Vec<SyntaxFault>,
}

/// Where a key and its value stand in a file, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// The whole key, for example `routes[0].name`.
    pub key: String,
    /// The key's last part; the value's place in a list.
    pub name: Range<usize>,
    /// The value; the header of a table that has one.
    pub value: Range<usize>,
    /// Whether the value is neither a table nor a list.
    pub leaf: bool,
}

/// Why a text can't be read. The message never holds any of the text but a key's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxFault {
    pub range: Range<usize>,
    /// Whether `range` is known to be a key.
    pub is_key: bool,
    pub message: String,
}

impl SyntaxFault {
    /// A fault at one place.
    pub fn at(range: Range<usize>, message: impl Into<String>) -> Self {
        Self { range, is_key: false, message: message.into() }
    }

    /// A key that is there for the second time.
    pub fn twice(range: Range<usize>, key: &str) -> Self {
        Self { range, is_key: true, message: format!("`{key}` is defined twice") }
    }
}

impl Document {
    /// Parses TOML, or JSON when the file's name says so. `before` is what other files have given.
    pub fn parse(text: &str, is_json: bool, before: Before) -> Result<Self, Vec<SyntaxFault>> {
        if is_json { json::parse(text, before) } else { toml(text, before) }
    }
}

/// The lists that go on from file to file, and how many elements the files before have given: a file's first route has the
/// number that comes next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    pub routes: usize,
    pub tests: usize,
}

impl Before {
    /// The names of these lists.
    pub const LISTS: [&str; 2] = ["routes", "tests"];

    /// The number of the first element of the list at `path`.
    pub fn first(self, path: &str) -> usize {
        match path {
            "routes" => self.routes,
            "tests" => self.tests,
            _ => 0,
        }
    }

    /// Counts a file's own.
    pub fn and(self, document: &Document) -> Self {
        let count = |name: &str| document.values.get(name).and_then(Value::as_array).map_or(0, Vec::len);
        Self { routes: self.routes + count("routes"), tests: self.tests + count("tests") }
    }
}

/// The key of `name` in the table `parent`, quoted where TOML would quote it.
pub(super) fn child(parent: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let name = if bare { name.to_owned() } else { format!("{name:?}") };
    if parent.is_empty() { name } else { format!("{parent}.{name}") }
}

/// What follows `above` in `key`, where that is it or something in it.
pub fn below<'k>(key: &'k str, above: &str) -> Option<&'k str> {
    key.strip_prefix(above).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The key of a list's element.
pub(super) fn element(parent: &str, number: usize) -> String {
    format!("{parent}[{number}]")
}

/// How many keys of a file may be there twice before nothing else of it is read: each takes another parse.
const TWICE_MAX: usize = 20;

fn toml(text: &str, before: Before) -> Result<Document, Vec<SyntaxFault>> {
    let mut twice = Vec::new();
    let mut text = Cow::Borrowed(text);
    let document = loop {
        let error = match toml_edit::Document::parse(&*text) {
            Ok(document) => break document,
            Err(error) => error,
        };
        let range = error.span().unwrap_or(0..0);
        match (error.message(), text.get(range.clone())) {
            ("duplicate key", Some(key)) => twice.push(SyntaxFault::twice(range.clone(), key)),
            // What comes after the first line of a value that was taken out is no mistake of its own.
            _ if !twice.is_empty() => return Err(twice),
            (message, _) => return Err(vec![SyntaxFault::at(range, message)]),
        }
        match without_line_of(&text, &range) {
            Some(rest) if twice.len() < TWICE_MAX => text = Cow::Owned(rest),
            Some(_) | None => return Err(twice),
        }
    };
    let mut walk = TomlWalk { before, spots: Vec::new(), faults: Vec::new() };
    let values = walk.table(document.as_table(), "");
    if walk.faults.is_empty() { Ok(Document { values, spots: walk.spots, twice }) } else { Err(walk.faults) }
}

/// The text with blanks for the line that begins with this key, so that the rest stands where it stood; `None` where the key does
/// not begin one.
fn without_line_of(text: &str, key: &Range<usize>) -> Option<String> {
    let start = text[..key.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[key.start..].find('\n').map_or(text.len(), |at| key.start + at);
    let begins = text[start..key.start].trim().is_empty();
    begins.then(|| format!("{}{}{}", &text[..start], " ".repeat(end - start), &text[end..]))
}

struct TomlWalk {
    before: Before,
    spots: Vec<Spot>,
    faults: Vec<SyntaxFault>,
}

impl TomlWalk {
    fn table(&mut self, table: &dyn TableLike, path: &str) -> Map<String, Value> {
        let mut values = Map::new();
        for (name, _) in table.iter() {
            let Some((key, item)) = table.get_key_value(name) else { continue };
            let path = child(path, name);
            let name_range = key.span().unwrap_or(0..0);
            let range = item.span().unwrap_or_else(|| name_range.clone());
            let leaf = item.as_value().is_some_and(|value| !value.is_array() && !value.is_inline_table());
            self.spots.push(Spot { key: path.clone(), name: name_range, value: range, leaf });
            let value = match item {
                Item::None => continue,
                Item::Value(value) => self.value(value, &path),
                Item::Table(table) => Value::Object(self.table(table, &path)),
                Item::ArrayOfTables(tables) => {
                    let tables: Vec<&dyn TableLike> = tables.iter().map(|table| table as &dyn TableLike).collect();
                    let first = self.before.first(&path);
                    let mut list = Vec::with_capacity(tables.len());
                    for ((number, table), header) in (first..).zip(tables).zip(headers(item)) {
                        let path = element(&path, number);
                        self.spots.push(Spot { key: path.clone(), name: header.clone(), value: header, leaf: false });
                        list.push(Value::Object(self.table(table, &path)));
                    }
                    Value::Array(list)
                }
            };
            values.insert(name.to_owned(), value);
        }
        values
    }

    fn value(&mut self, value: &toml_edit::Value, path: &str) -> Value {
        match value {
            toml_edit::Value::String(text) => Value::String(text.value().clone()),
            toml_edit::Value::Integer(number) => Value::Number((*number.value()).into()),
            toml_edit::Value::Float(number) => match Number::from_f64(*number.value()) {
                Some(number) => Value::Number(number),
                None => {
                    let range = value.span().unwrap_or(0..0);
                    self.faults.push(SyntaxFault::at(range, "`inf` and `nan` are not values here"));
                    Value::Null
                }
            },
            toml_edit::Value::Boolean(truth) => Value::Bool(*truth.value()),
            toml_edit::Value::Datetime(time) => Value::String(time.value().to_string()),
            toml_edit::Value::Array(array) => {
                let first = self.before.first(path);
                let mut list = Vec::with_capacity(array.len());
                for (number, value) in (first..).zip(array.iter()) {
                    let path = element(path, number);
                    let range = value.span().unwrap_or(0..0);
                    let leaf = !value.is_array() && !value.is_inline_table();
                    self.spots.push(Spot { key: path.clone(), name: range.clone(), value: range, leaf });
                    list.push(self.value(value, &path));
                }
                Value::Array(list)
            }
            toml_edit::Value::InlineTable(table) => Value::Object(self.table(table, path)),
        }
    }
}

/// The places of `[[…]]` headers.
fn headers(item: &Item) -> Vec<Range<usize>> {
    item.as_array_of_tables()
        .map(|tables| tables.iter().map(|table| table.span().unwrap_or(0..0)).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands at a key, as `name -> value`.
    pub(in super::super) fn shown(text: &str, document: &Document, key: &str) -> String {
        let spot = document.spots.iter().find(|spot| spot.key == key).unwrap_or_else(|| panic!("no {key}"));
        format!("{} -> {}", &text[spot.name.clone()], &text[spot.value.clone()])
    }

    #[test]
    fn every_key_of_a_toml_file_has_its_place() {
        let text = "[endpoints.a]\nurl = 'x' # why\nheaders = { \"x.y\" = 1 }\n\n[[routes]]\nevents = ['a', 'b']\n\
                    [[routes.subscriptions]]\nname = 's'\n";
        let document = Document::parse(text, false, Before { routes: 2, tests: 0 }).unwrap();
        for (key, expected) in [
            ("endpoints.a", "a -> [endpoints.a]"),
            ("endpoints.a.url", "url -> 'x'"),
            ("endpoints.a.headers.\"x.y\"", "\"x.y\" -> 1"),
            ("routes[2]", "[[routes]] -> [[routes]]"),
            ("routes[2].events[1]", "'b' -> 'b'"),
            ("routes[2].subscriptions[0].name", "name -> 's'"),
        ] {
            assert_eq!(shown(text, &document, key), expected, "{key}");
        }
        assert_eq!(Before::default().and(&document).first("routes"), 1);
    }

    #[test]
    fn what_is_there_twice_does_not_hide_the_rest() {
        let text = "[a]\nx = 1\nx = 2\n[b]\ny = 1\ny = 2 # \u{e9}\nz = 3\n";
        let document = Document::parse(text, false, Before::default()).unwrap();
        assert_eq!(document.twice, [SyntaxFault::twice(10..11, "x"), SyntaxFault::twice(26..27, "y")]);
        assert_eq!(
            document.values,
            serde_json::json!({"a": {"x": 1}, "b": {"y": 1, "z": 3}}).as_object().unwrap().clone()
        );
        assert_eq!(shown(text, &document, "b.z"), "z -> 3");
        // Neither a table nor a value of several lines can be taken out as if it had not been there.
        for text in ["[a]\n[a]\nx = inf\n", "x = 1\nx = [\n1]\ny = inf\n"] {
            let faults = Document::parse(text, false, Before::default()).unwrap_err();
            assert!(faults.len() == 1 && faults[0].message.ends_with("is defined twice"), "{faults:?}");
        }
    }

    #[test]
    fn a_date_is_its_text_and_infinity_is_refused() {
        let document = Document::parse("day = 2025-01-15\n", false, Before::default()).unwrap();
        assert_eq!(document.values["day"], "2025-01-15");
        assert!(Document::parse("x = inf\n", false, Before::default()).is_err());
    }
}
