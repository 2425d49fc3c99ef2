//! What is wrong with an event, and where: the `errors` of a 422.

use serde::Serialize;

/// Faults that are listed in one answer; the others are only counted.
const FAULTS_MAX: usize = 100;
/// Characters of a producer's name that an answer repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Fault {
    /// JSON pointer (RFC 6901) into the request's JSON; within its line for `application/x-ndjson`.
    pub(super) pointer: String,
    /// A sentence for people; it quotes no value.
    pub(super) detail: String,
    /// Which event of a batch, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<usize>,
}

/// Where an event stands in its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the whole body.
    Whole,
    /// It is this element of an array.
    Element(usize),
    /// It is this one of the lines that are not blank.
    Line(usize),
}

/// What is wrong with a request's events, gathered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Faults {
    list: Vec<Fault>,
    count: usize,
    place: Place,
}

impl Faults {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { list: Vec::new(), count: 0, place: Place::Whole }
    }

    /// What comes is about the event at `place`.
    pub(super) fn at(&mut self, place: Place) {
        self.place = place;
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are; more than are listed, perhaps.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Those that are listed.
    pub(super) fn list(&self) -> &[Fault] {
        &self.list
    }

    /// The member `name` of the event is wrong; an empty name means the event itself.
    pub(super) fn add(&mut self, name: &str, detail: impl FnOnce() -> String) {
        self.count += 1;
        if self.list.len() == FAULTS_MAX {
            return;
        }
        let (mut pointer, index) = match self.place {
            Place::Whole => (String::new(), None),
            Place::Element(index) => (format!("/{index}"), Some(index)),
            Place::Line(index) => (String::new(), Some(index)),
        };
        if !name.is_empty() {
            pointer.push('/');
            pointer.push_str(&shown(name).replace('~', "~0").replace('/', "~1"));
        }
        self.list.push(Fault { pointer, detail: detail(), index });
    }
}

/// A producer's text as an answer or a log line may repeat it: cut, with characters that could move a
/// terminal's cursor or turn the reading direction written out.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(SHOWN_CHARS_MAX * 4));
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN_CHARS_MAX {
            shown.push('…');
            break;
        }
        let turns =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || turns {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_lead_into_the_request() {
        let mut faults = Faults::new();
        faults.add("", String::new);
        faults.at(Place::Element(3));
        faults.add("a/b~c", String::new);
        faults.at(Place::Line(7));
        faults.add("payload", String::new);
        let found: Vec<_> = faults.list().iter().map(|f| (f.pointer.as_str(), f.index)).collect();
        assert_eq!(found, [("", None), ("/3/a~1b~0c", Some(3)), ("/payload", Some(7))]);
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let mut faults = Faults::new();
        for _ in 0..1_000 {
            faults.add("a", String::new);
        }
        assert_eq!((faults.count(), faults.list().len()), (1_000, FAULTS_MAX));
    }

    #[test]
    fn repeated_texts_are_cut_and_harmless() {
        assert_eq!(shown("a\u{1b}[31m\u{202e}é"), "a\\u{1b}[31m\\u{202e}é");
        assert_eq!(shown(&"x".repeat(1_000)).chars().count(), SHOWN_CHARS_MAX + 1);
    }
}
