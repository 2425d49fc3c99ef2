//! The part of the library that is written in jq. Of its definitions a program gets those it names,
//! and those that these name: with all of them, a call would take fifty times as long.

use jaq_core::load::{self, parse::Def};

const LIBRARY: &str = include_str!("definitions.jq");

/// The definitions that this program needs, in their order.
pub fn definitions(program: &str) -> Vec<Def<&'static str>> {
    let library: Vec<&'static str> = split(LIBRARY).collect();
    let mut taken = vec![false; library.len()];
    let mut unread = vec![program];
    while let Some(text) = unread.pop() {
        for word in words(text) {
            for (index, definition) in library.iter().enumerate() {
                if !taken[index] && name(definition) == word {
                    taken[index] = true;
                    unread.push(definition);
                }
            }
        }
    }
    let needed = library.into_iter().zip(taken).filter(|(_, taken)| *taken).map(|(definition, _)| definition);
    needed.filter_map(|definition| load::parse(definition, |parser| parser.defs())).flatten().collect()
}

/// The definitions of a library in which each starts a line.
fn split(library: &'static str) -> impl Iterator<Item = &'static str> {
    let mut rest = library;
    std::iter::from_fn(move || {
        let start = if rest.starts_with("def ") { 0 } else { rest.find("\ndef ")? + 1 };
        let end = rest[start..].find("\ndef ").map_or(rest.len(), |at| start + at + 1);
        let definition = &rest[start..end];
        rest = &rest[end..];
        Some(definition)
    })
}

fn name(definition: &str) -> &str {
    definition.strip_prefix("def ").and_then(|rest| words(rest).next()).unwrap_or_default()
}

/// All that could be the name of a function, in texts and comments too: a definition too many does no harm.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_' && character != '@')
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_parses_and_has_a_name() {
        for definition in split(LIBRARY) {
            let parsed = load::parse(definition, |parser| parser.defs());
            let parsed = parsed.unwrap_or_else(|| panic!("does not parse: {definition}"));
            assert_eq!(parsed.iter().map(|definition| definition.name).collect::<Vec<_>>(), [name(definition)]);
        }
        assert_eq!(split(LIBRARY).count(), LIBRARY.lines().filter(|line| line.starts_with("def ")).count());
    }

    #[test]
    fn a_program_gets_what_it_needs_and_no_more() {
        let names = |program| -> Vec<&str> { definitions(program).iter().map(|definition| definition.name).collect() };
        assert_eq!(names(".a + 1"), [""; 0]);
        assert_eq!(names("unique"), ["unique_by", "unique"]);
        assert_eq!(names("\"\\(.a | todate)\""), ["todate"]);
        assert_eq!(names("@html \"x\""), ["@html"]);
    }
}
