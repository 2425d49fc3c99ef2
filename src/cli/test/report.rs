//! The tests that were run: in words for people, as JUnit's XML for CI, as JSON for programs.

use std::fmt::Write;
use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use serde_json::{Value, json};

use super::{Done, Suite};
use crate::cli::plugin::units;
use crate::cli::terminal::{BAD, GOOD, WAITS, styled};
use crate::config::{Config, Place};
use crate::dispatch::Rehearsed;
use crate::settle;

/// A test in a line, and below it what differs with its place.
pub fn line(done: &Done, config: &Config) -> String {
    let (style, word) = match (done.failed(), done.updated) {
        (true, _) => (BAD, "FAILED"),
        (false, true) => (WAITS, "updated"),
        (false, false) => (GOOD, "ok"),
    };
    let mut text = format!("{} {}  {}\n", styled(style, format!("{word:<8}")), done.name, units::time(done.took));
    for difference in &done.differences {
        let place = config.place(&difference.key).or_else(|| done.place.clone());
        let place = place.map_or_else(String::new, |place| format!("{place}: "));
        // Writing to a text does not fail.
        let _ = writeln!(text, "         {place}{}", difference.what);
        for line in difference.diff.lines() {
            let _ = writeln!(text, "           {line}");
        }
    }
    text
}

/// How many there were.
pub fn summary(all: usize, failed: usize, updated: usize) -> String {
    let updated = if updated > 0 { format!(", {updated} updated") } else { String::new() };
    format!("{} passed, {failed} failed{updated}", all - failed)
}

/// Each config is a suite.
pub fn junit(suites: &[Suite]) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    writer
        .create_element("testsuites")
        .write_inner_content(|writer| suites.iter().try_for_each(|own| suite(writer, own)))?;
    Ok(writer.into_inner())
}

fn suite(writer: &mut Writer<Vec<u8>>, suite: &Suite) -> io::Result<()> {
    let name = printable(&suite.config.to_string_lossy());
    let failures = suite.tests.iter().filter(|done| done.failed()).count().to_string();
    let (count, took) = (suite.tests.len().to_string(), seconds(suite.tests.iter().map(|done| done.took).sum()));
    let attributes = [("name", &*name), ("tests", &*count), ("failures", &*failures), ("time", &*took)];
    let element = writer.create_element("testsuite").with_attributes(attributes);
    element.write_inner_content(|writer| suite.tests.iter().try_for_each(|done| case(writer, &name, done)))?;
    Ok(())
}

fn case(writer: &mut Writer<Vec<u8>>, suite: &str, done: &Done) -> io::Result<()> {
    let (name, took) = (printable(&done.name), seconds(done.took));
    let mut element = writer.create_element("testcase");
    element = element.with_attributes([("classname", suite), ("name", &*name), ("time", &*took)]);
    if let Some(Place::At { file, line, .. }) = &done.place {
        let (file, line) = (printable(&file.to_string_lossy()), line.to_string());
        element = element.with_attributes([("file", &*file), ("line", &*line)]);
    }
    if !done.failed() {
        element.write_empty()?;
        return Ok(());
    }
    element.write_inner_content(|writer| {
        done.differences.iter().try_for_each(|difference| {
            let (what, diff) = (printable(&difference.what), printable(&difference.diff));
            let failure = writer.create_element("failure").with_attribute(("message", &*what));
            failure.write_text_content(BytesText::new(&diff)).map(drop)
        })
    })?;
    Ok(())
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{:.6}", duration.as_secs_f64())
}

/// What XML 1.0 may hold; other characters are left out, since not even an escape may stand for them.
fn printable(text: &str) -> String {
    let is_allowed =
        |c: &char| !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    text.chars().filter(is_allowed).collect()
}

/// Counts, and each test with what became of its event and what differs.
pub fn json(suites: &[Suite]) -> Value {
    let all = suites.iter().flat_map(|suite| suite.tests.iter().map(move |done| (suite, done)));
    let tests: Vec<Value> = all
        .map(|(suite, done)| {
            let differences: Vec<_> = done
                .differences
                .iter()
                .map(|own| json!({ "key": own.key, "what": own.what, "diff": own.diff }))
                .collect();
            json!({
                "config": suite.config,
                "name": done.name,
                "place": done.place.as_ref().map(ToString::to_string),
                "passed": !done.failed(),
                "updated": done.updated,
                "micros": u64::try_from(done.took.as_micros()).unwrap_or(u64::MAX),
                "subscriptions": done.ends.iter().map(end).collect::<Vec<_>>(),
                "differences": differences,
            })
        })
        .collect();
    let failed = suites.iter().flat_map(|suite| &suite.tests).filter(|done| done.failed()).count();
    json!({ "passed": tests.len() - failed, "failed": failed, "tests": tests })
}

fn end(end: &Rehearsed) -> Value {
    let first = end.attempts.first().map(|attempt| attempt.at).unwrap_or_default();
    let attempts: Vec<_> = end
        .attempts
        .iter()
        .map(|attempt| json!({ "afterMs": attempt.at.since(first).as_millis(), "result": settle::describe(attempt) }))
        .collect();
    json!({
        "subscription": end.subscription,
        "end": end.outcome,
        "attempts": attempts,
        "notes": end.notes,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::judge::Difference;
    use super::*;

    #[test]
    fn a_report_is_well_formed_whatever_stands_in_it() {
        let failed =
            Difference { key: "tests[0]".into(), what: "`<a>` & \"b\"".into(), diff: "- 1\n+ ]]>\u{1}\n".into() };
        let done = |name: &str, differences| Done {
            name: name.into(),
            place: Some(Place::At { file: "app.toml".into(), line: 7, column: 1 }),
            took: Duration::from_millis(2),
            ends: vec![],
            differences,
            updated: false,
        };
        let tests = vec![done("good", vec![]), done("bad", vec![failed])];
        let xml = junit(&[Suite { config: "app.toml".into(), tests }]).unwrap();
        let xml = String::from_utf8(xml).unwrap();
        assert!(xml.contains("tests=\"2\" failures=\"1\" time=\"0.004000\""), "{xml}");
        assert!(xml.contains("name=\"good\" time=\"0.002000\" file=\"app.toml\" line=\"7\"/>"), "{xml}");
        let failure = "<failure message=\"`&lt;a&gt;` &amp; &quot;b&quot;\">- 1\n+ ]]&gt;\n</failure>";
        assert!(xml.contains(failure), "{xml}");
    }
}
