//! JSON config files: `serde_json` says whether a text is JSON and what it means; a second scan says where
//! each key stands and finds keys that are there twice, which `serde_json` would let pass.

use std::ops::Range;

use serde_json::Value;

use super::document::{Before, Document, Spot, SyntaxFault, child, element};

/// Parses a file. `before` as in [`Document::parse`].
pub(super) fn parse(text: &str, before: Before) -> Result<Document, Vec<SyntaxFault>> {
    let values = match serde_json::from_str(text) {
        Ok(Value::Object(values)) => values,
        Ok(_) => return Err(vec![SyntaxFault::at(0..0, "the file must hold a JSON object")]),
        Err(error) => {
            let start = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
            let mut at = (start + error.column().saturating_sub(1)).min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            return Err(vec![SyntaxFault::at(at..at, format!("not JSON: {message}"))]);
        }
    };
    let mut scan = Scan { text, at: 0, before, spots: Vec::new(), twice: Vec::new() };
    scan.value("");
    Ok(Document { values, spots: scan.spots, twice: scan.twice })
}

/// Walks a text that is known to be JSON, so that every step may take the grammar for granted.
struct Scan<'text> {
    text: &'text str,
    at: usize,
    before: Before,
    spots: Vec<Spot>,
    twice: Vec<SyntaxFault>,
}

impl Scan<'_> {
    /// Steps over a value; gives its place and whether it is neither an object nor a list.
    fn value(&mut self, path: &str) -> (Range<usize>, bool) {
        self.blank();
        let start = self.at;
        let leaf = match self.here() {
            b'{' => {
                self.object(path);
                false
            }
            b'[' => {
                self.list(path);
                false
            }
            b'"' => {
                self.string();
                true
            }
            _ => {
                while !matches!(self.here(), b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' | 0) {
                    self.at += 1;
                }
                true
            }
        };
        (start..self.at, leaf)
    }

    fn object(&mut self, path: &str) {
        let mut seen = std::collections::HashSet::new();
        self.at += 1;
        self.blank();
        while self.here() == b'"' {
            let name = self.string();
            let text: String = serde_json::from_str(&self.text[name.clone()]).unwrap_or_default();
            let path = child(path, &text);
            self.blank();
            self.at += 1; // The colon.
            let number = self.spots.len();
            self.spots.push(Spot { key: path.clone(), name: name.clone(), value: name.clone(), leaf: false });
            let (value, leaf) = self.value(&path);
            self.spots[number].value = value;
            self.spots[number].leaf = leaf;
            if !seen.insert(text) {
                self.twice.push(SyntaxFault::twice(name, &path));
            }
            self.comma();
        }
        self.at += 1;
    }

    fn list(&mut self, path: &str) {
        self.at += 1;
        self.blank();
        let mut item = self.before.first(path);
        while !matches!(self.here(), b']' | 0) {
            let path = element(path, item);
            let number = self.spots.len();
            self.spots.push(Spot { key: path.clone(), name: 0..0, value: 0..0, leaf: false });
            let (value, leaf) = self.value(&path);
            self.spots[number] = Spot { key: path, name: value.clone(), value, leaf };
            item += 1;
            self.comma();
        }
        self.at += 1;
    }

    fn string(&mut self) -> Range<usize> {
        let start = self.at;
        self.at += 1;
        while !matches!(self.here(), b'"' | 0) {
            self.at += if self.here() == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        start..self.at
    }

    fn comma(&mut self) {
        self.blank();
        if self.here() == b',' {
            self.at += 1;
            self.blank();
        }
    }

    fn blank(&mut self) {
        while matches!(self.here(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
    }

    /// The byte here, or 0 at the end.
    fn here(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_json_file_has_its_place() {
        let text = r#"{ "store" : {"url":"file:a\"b"}, "routes": [ {"events": ["x", 1 ] }, {"é": null} ] }"#;
        let document = parse(text, Before { routes: 3, tests: 0 }).unwrap();
        let places: Vec<String> = document
            .spots
            .iter()
            .map(|spot| format!("{} {} {}", spot.key, &text[spot.value.clone()], spot.leaf))
            .collect();
        assert_eq!(
            places,
            [
                r#"store {"url":"file:a\"b"} false"#,
                r#"store.url "file:a\"b" true"#,
                r#"routes [ {"events": ["x", 1 ] }, {"é": null} ] false"#,
                r#"routes[3] {"events": ["x", 1 ] } false"#,
                r#"routes[3].events ["x", 1 ] false"#,
                r#"routes[3].events[0] "x" true"#,
                r#"routes[3].events[1] 1 true"#,
                r#"routes[4] {"é": null} false"#,
                r#"routes[4]."é" null true"#,
            ]
        );
    }

    #[test]
    fn a_key_that_is_there_twice_is_found() {
        let document = parse(r#"{"a": {"b": 1, "b": 2}}"#, Before::default()).unwrap();
        assert_eq!(document.twice, [SyntaxFault::twice(15..18, "a.b")]);
    }

    #[test]
    fn a_text_that_is_not_json_is_refused_at_its_place() {
        for (text, at, message) in [
            ("{\n  \"a\": tru\n}", 13, "not JSON: expected ident"),
            ("", 0, "not JSON: EOF while parsing a value"),
            ("[]", 0, "the file must hold a JSON object"),
        ] {
            assert_eq!(parse(text, Before::default()).unwrap_err(), [SyntaxFault::at(at..at, message)], "{text}");
        }
    }
}
