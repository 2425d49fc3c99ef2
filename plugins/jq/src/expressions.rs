//! Regular expressions: the three functions on which the definitions of `test`, `match`, `capture`, `scan`,
//! `split`, `sub` and `gsub` rest. The engine takes time that grows with the text, never exponentially.

use jaq_core::native::{bome, v};
use jaq_core::{Cv, ValT};
use jaq_json::{Error, Val};
use regex_lite::{Match, Regex, RegexBuilder};

use crate::functions::{Data, Native, text};

pub fn functions() -> Vec<Native> {
    vec![
        ("_matches", v(2), |cv| bome(search(cv, Wanted::Matches))),
        ("_pieces", v(2), |cv| bome(search(cv, Wanted::Pieces))),
        ("_parts", v(2), |cv| bome(search(cv, Wanted::Both))),
    ]
}

/// What of a text that is searched: the matches, the pieces between them, or both in their order.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Matches,
    Pieces,
    Both,
}

fn search(mut cv: Cv<'_, Data>, wanted: Wanted) -> Result<Val, Error> {
    let flags = cv.0.pop_var();
    let expression = cv.0.pop_var();
    let flags = if matches!(flags, Val::Null) { "" } else { text(&flags)? };
    let expression = build(text(&expression)?, flags)?;
    let searched = text(&cv.1)?;
    let piece = |from, to| Val::from(searched[from..to].to_owned());
    let mut found = Vec::new();
    let mut end = 0;
    for captures in expression.captures_iter(searched) {
        // The first group is the whole match, so it always is there.
        let Some(whole) = captures.get(0) else { continue };
        if flags.contains('n') && whole.as_str().is_empty() {
            continue;
        }
        if wanted != Wanted::Matches {
            found.push(piece(end, whole.start()));
            end = whole.end();
        }
        if wanted != Wanted::Pieces {
            let groups = captures.iter().zip(expression.capture_names()).skip(1);
            let groups = groups.map(|(group, name)| describe_group(searched, group, name));
            let groups = groups.collect::<Result<Val, _>>()?;
            found.push(object(place(searched, Some(whole)).into_iter().chain([("captures", groups)]))?);
        }
        if !flags.contains('g') {
            break;
        }
    }
    if wanted != Wanted::Matches {
        found.push(piece(end, searched.len()));
    }
    Ok(found.into_iter().collect())
}

fn describe_group(searched: &str, group: Option<Match<'_>>, name: Option<&str>) -> Result<Val, Error> {
    let name = name.map_or(Val::Null, |name| Val::from(name.to_owned()));
    object(place(searched, group).into_iter().chain([("name", name)]))
}

/// A match in jq's words. Offset and length count characters, not bytes.
fn place(searched: &str, found: Option<Match<'_>>) -> [(&'static str, Val); 3] {
    let Some(found) = found else {
        return [("offset", Val::from(-1isize)), ("length", Val::from(0usize)), ("string", Val::Null)];
    };
    [
        ("offset", Val::from(searched[..found.start()].chars().count())),
        ("length", Val::from(found.as_str().chars().count())),
        ("string", Val::from(found.as_str().to_owned())),
    ]
}

fn object(members: impl Iterator<Item = (&'static str, Val)>) -> Result<Val, Error> {
    Val::from_map(members.map(|(key, value)| (Val::from(key.to_owned()), value)))
}

fn build(expression: &str, flags: &str) -> Result<Regex, Error> {
    let mut builder = RegexBuilder::new(expression);
    for flag in flags.chars() {
        match flag {
            'g' | 'n' => &mut builder,
            'i' => builder.case_insensitive(true),
            'x' => builder.ignore_whitespace(true),
            's' => builder.dot_matches_new_line(true),
            'm' => builder.multi_line(true),
            'l' => builder.swap_greed(true),
            'p' => builder.multi_line(true).dot_matches_new_line(true),
            _ => return Err(Error::str("unknown flag of a regular expression")),
        };
    }
    builder.build().map_err(|_| Error::str("not a regular expression"))
}
