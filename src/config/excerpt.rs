//! A file's lines as messages show them. A line may hold secrets beside what is at fault, so a value is shown
//! only where the caller says that it is harmless, and a comment never.

use std::ops::Range;
use std::path::PathBuf;

use super::document::SyntaxFault;
use super::faults::{Excerpt, Fault, Place, Severity};

/// How much of a long line is shown.
const CHARACTERS_MAX: usize = 120;

/// A file's path and text.
#[derive(Clone)]
pub(super) struct SourceFile {
    pub path: PathBuf,
    pub text: String,
    /// Where each line begins, in bytes.
    line_starts: Vec<usize>,
}

/// A value that is neither a table nor a list, as it stands in a file.
pub(super) struct Value {
    pub range: Range<usize>,
    /// Whether it may be shown; otherwise `…` stands for it.
    pub shown: bool,
}

/// The line in which `focus` begins. `values` are those that stand in it, in their order.
pub(super) fn excerpt(file: &SourceFile, values: impl Iterator<Item = Value>, focus: &Range<usize>) -> Excerpt {
    let line = file.line(focus.start);
    let end = Value { range: line.end..line.end, shown: true };
    let mut characters = Vec::new(); // Each with its place in the file.
    let mut at = line.start;
    for value in values.chain([end]) {
        let (start, end) = (value.range.start.max(at), value.range.end.min(line.end));
        let between = file.text[at..start].char_indices().map(|(offset, character)| (at + offset, character));
        characters.extend(between.take_while(|(_, character)| *character != '#'));
        if file.text[at..start].contains('#') {
            break; // The rest is a comment.
        }
        if value.shown {
            characters.extend(file.text[start..end].char_indices().map(|(offset, c)| (start + offset, c)));
        } else {
            characters.push((start, '…'));
        }
        at = end;
    }
    while characters.last().is_some_and(|(_, character)| character.is_whitespace()) {
        characters.pop();
    }
    let column = |at: usize| characters.iter().position(|(place, _)| *place >= at).unwrap_or(characters.len());
    let (caret, end) = (column(focus.start), column(focus.end));
    // Of a line that is too long, the part around the caret.
    let skipped = caret.saturating_sub(CHARACTERS_MAX / 2).min(characters.len().saturating_sub(CHARACTERS_MAX));
    let caret = caret - skipped;
    Excerpt {
        line: file.line_number(line.start),
        text: characters.iter().skip(skipped).take(CHARACTERS_MAX).map(|(_, character)| character).collect(),
        caret,
        caret_length: end.saturating_sub(skipped + caret).min(CHARACTERS_MAX - caret),
    }
}

impl SourceFile {
    /// Takes a file's text in.
    pub fn new(path: PathBuf, text: String) -> Self {
        let line_starts = [0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { path, text, line_starts }
    }

    /// The place of a byte.
    pub fn place(&self, at: usize) -> Place {
        let at = at.min(self.text.len());
        let line = self.line_number(at);
        let column = self.text[self.line_starts[line - 1]..at].chars().count() + 1;
        Place::At { file: self.path.clone(), line, column }
    }

    /// A fault of a text that could not be parsed.
    pub fn syntax_fault(&self, fault: &SyntaxFault) -> Fault {
        let place = self.place(fault.range.start);
        Fault { excerpt: self.syntax_excerpt(fault), ..Fault::new(Severity::Error, place, fault.message.clone()) }
    }

    /// Of a line that could not be parsed only a plain key is shown: nothing tells what the rest is, and it may
    /// be a secret whose quotes were forgotten. Upper case and digits are in secrets rather than in our keys.
    fn syntax_excerpt(&self, fault: &SyntaxFault) -> Option<Excerpt> {
        let line = self.line(fault.range.start);
        let before = &self.text[..line.start];
        if before.contains("\"\"") || before.contains("''") {
            return None; // It may be a line of a longer text, or should have been.
        }
        let plain_key =
            |key: &&str| !key.trim().is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || "_-. ".contains(c));
        let key = self.text[line.clone()].split_once('=').map(|(key, _)| key).filter(plain_key);
        let header = || {
            let header = self.text.get(line.start..fault.range.end)?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-.[ ".contains(c);
            (fault.is_key && header.starts_with('[') && header.chars().all(plain)).then_some(header)
        };
        // JSON: only the key itself, whatever else its line holds.
        let name = || {
            let name = self.text.get(fault.range.clone()).filter(|_| fault.is_key)?;
            name.strip_prefix('"')?.strip_suffix('"').filter(plain_key).map(|_| name)
        };
        let (text, rest, start) = match (key, name()) {
            (Some(key), _) => (key, "= …", line.start),
            (None, Some(name)) => (name, ": …", fault.range.start),
            (None, None) => match header() {
                Some(header) => (header, " …", line.start),
                None => (self.plain_header(&line)?, "", line.start),
            },
        };
        let caret = fault.range.start - start;
        let (caret, caret_length) = match caret < text.len() {
            true => (caret, fault.range.len().min(text.len() - caret)),
            false => (text.len() + rest.len().min(2), 1),
        };
        Some(Excerpt { line: self.line_number(line.start), text: format!("{text}{rest}"), caret, caret_length })
    }

    /// The line, if it is a table's header or was to be one. As of keys, only what is in names is shown.
    fn plain_header(&self, line: &Range<usize>) -> Option<&str> {
        let header = self.text[line.clone()].split('#').next().unwrap_or_default().trim_end();
        let plain = |c: char| c.is_ascii_lowercase() || "_-.[] ".contains(c);
        let is_json = self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        (!is_json && header.starts_with('[') && header.chars().all(plain)).then_some(header)
    }

    /// The line that has this byte, without its end.
    pub fn line(&self, at: usize) -> Range<usize> {
        let line = self.line_number(at);
        let end = self.line_starts.get(line).map_or(self.text.len(), |next| next - 1);
        self.line_starts[line - 1]..end
    }

    /// From 1.
    fn line_number(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }
}
