//! What came of an event beside what must come of it: pure, apart from the file of a body. Values that may be secret are not shown.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::script::Sent;
use crate::cli::diff::diff;
use crate::config::{Expectation, ExpectedEnd, ExpectedRequest, RouteTest};
use crate::delivery::Outcome;
use crate::dispatch::Rehearsed;
use crate::send::may_be_secret;

/// One thing that is not as it must be.
pub struct Difference {
    /// The key of the expectation.
    pub key: String,
    /// In a few words.
    pub what: String,
    /// Line by line; empty where words are enough.
    pub diff: String,
}

impl Difference {
    /// One that needs no more than words.
    pub fn of(key: &str, what: impl Into<String>) -> Self {
        Self { key: key.to_owned(), what: what.into(), diff: String::new() }
    }
}

/// What became of an event for one subscription.
pub struct Came<'r> {
    /// `None` when the route does not take it.
    pub end: Option<&'r Rehearsed>,
    /// What was sent, attempt by attempt.
    pub sent: Vec<Sent>,
    /// Whether the endpoint's URL holds nothing that may be secret.
    pub shows_url: bool,
}

impl Came<'_> {
    /// In the words of tests.
    fn described(&self) -> String {
        let Some(end) = self.end else { return "not matched".to_owned() };
        match &end.outcome {
            Outcome::Delivered => "delivered".to_owned(),
            Outcome::Filtered { reason } => format!("filtered: {reason}"),
            Outcome::Dropped { reason, .. } => format!("dropped: {reason}"),
            Outcome::DeadLetter { reason, detail } => format!("dead-letter: {}: {detail}", reason.as_str()),
            outcome @ (Outcome::Scheduled { .. } | Outcome::Discarded { .. }) => {
                format!("{}: it has not ended", outcome.as_str())
            }
        }
    }

    fn ends_as(&self, expected: &ExpectedEnd) -> bool {
        match (expected, self.end.map(|end| &end.outcome)) {
            (ExpectedEnd::NotMatched, None)
            | (ExpectedEnd::Filtered, Some(Outcome::Filtered { .. }))
            | (ExpectedEnd::Delivered, Some(Outcome::Delivered)) => true,
            (ExpectedEnd::Dropped(wanted), Some(Outcome::Dropped { reason, .. })) => {
                wanted.as_ref().is_none_or(|wanted| wanted == reason)
            }
            (ExpectedEnd::DeadLetter(wanted, part), Some(Outcome::DeadLetter { reason, detail })) => {
                wanted.is_none_or(|wanted| wanted == *reason)
                    && part.as_ref().is_none_or(|part| detail.contains(part.as_str()))
            }
            (
                ExpectedEnd::NotMatched
                | ExpectedEnd::Filtered
                | ExpectedEnd::Delivered
                | ExpectedEnd::Dropped(_)
                | ExpectedEnd::DeadLetter(..),
                _,
            ) => false,
        }
    }

    /// Writes the first body into its file, unless it is there already. Gives whether it was written.
    pub fn write_body(&self, file: &Path) -> Result<bool, String> {
        let Some(body) = self.sent.first().map(|sent| sent.request.body()) else { return Ok(false) };
        if std::fs::read(file).is_ok_and(|known| same_body(&known, body)) {
            return Ok(false);
        }
        let fail = |error: std::io::Error| format!("can't write `{}`: {error}", file.display());
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(fail)?;
        }
        let text = match serde_json::from_slice::<Value>(body) {
            Ok(json) => format!("{json:#}\n").into_bytes(),
            Err(_) => body.to_vec(),
        };
        std::fs::write(file, text).map_err(fail)?;
        Ok(true)
    }
}

/// Everything that differs.
pub fn judge(expected: &Expectation, came: &Came<'_>) -> Vec<Difference> {
    let key = &expected.key;
    let mut found = Vec::new();
    if !came.ends_as(&expected.end) {
        let (subscription, wanted, came) = (&expected.subscription, wanted(&expected.end), came.described());
        found.push(Difference::of(key, format!("`{subscription}` must end as `{wanted}` and ended as `{came}`")));
    }
    if let Some(times) = &expected.attempts {
        let attempts = came.end.map_or(&[][..], |end| &end.attempts);
        let first = attempts.first().map(|attempt| attempt.at).unwrap_or_default();
        let made: Vec<Duration> = attempts.iter().map(|attempt| attempt.at.since(first)).collect();
        if made != *times {
            let what = "the attempts are made at other times".to_owned();
            found.push(Difference { key: format!("{key}.attempts"), what, diff: diff(&lines(times), &lines(&made)) });
        }
    }
    if !expected.request.is_empty() {
        match came.sent.first() {
            Some(first) => {
                judge_request(key, &expected.request, &first.request, came.shows_url, &mut found);
                judge_signatures(key, &expected.request.signatures, &came.sent, &mut found);
            }
            None => found.push(Difference::of(key, format!("nothing was sent: it ended as `{}`", came.described()))),
        }
    }
    found
}

/// Who got the event without being named.
pub fn others(test: &RouteTest, ends: &[Rehearsed]) -> Vec<Difference> {
    let is_named = |end: &&Rehearsed| test.expected.iter().any(|own| own.subscription == end.subscription);
    let got = |end: &&Rehearsed| !matches!(end.outcome, Outcome::Filtered { .. } | Outcome::Dropped { .. });
    ends.iter()
        .filter(|end| got(end) && !is_named(end))
        .map(|end| {
            let name = &end.subscription;
            let what = format!("`{name}` gets the event too: add `expect.{name}`, or `only = false` where others may");
            Difference::of(&test.key, what)
        })
        .collect()
}

/// The signatures of the attempts, from the first on.
fn judge_signatures(key: &str, expected: &[String], sent: &[Sent], found: &mut Vec<Difference>) {
    for (number, wanted) in expected.iter().enumerate() {
        let header = sent.get(number).and_then(|sent| sent.request.headers().get("webhook-signature"));
        let came = header.map_or("(none)".into(), |value| String::from_utf8_lossy(value.as_bytes()));
        if came != *wanted {
            let what = format!("`signature` of request {} is another", number + 1);
            found.push(Difference { key: format!("{key}.signature"), what, diff: diff(wanted, &came) });
        }
    }
}

fn judge_request(
    key: &str,
    expected: &ExpectedRequest,
    request: &http::Request<Bytes>,
    shows_url: bool,
    found: &mut Vec<Difference>,
) {
    let mut text = |name: &str, wanted: &str, came: &str| {
        if wanted != came {
            let what = format!("`{name}` is another");
            found.push(Difference { key: format!("{key}.{name}"), what, diff: diff(wanted, came) });
        }
    };
    if let Some(method) = &expected.method {
        text("method", method, request.method().as_str());
    }
    if let Some(url) = &expected.url {
        let came = request.uri().to_string();
        let hidden = "(not shown: it stands in the config, and may hold a token)";
        text("url", url, if shows_url || came == *url { &came } else { hidden });
    }
    for (name, wanted) in &expected.headers {
        let values: Vec<_> = request.headers().get_all(name).iter().collect();
        if values.iter().any(|value| value.as_bytes() == wanted.as_bytes()) {
            continue;
        }
        let shown = |value: &&http::HeaderValue| {
            if may_be_secret(name, value) {
                "(not shown: it may be a secret)".to_owned()
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            }
        };
        let came = if values.is_empty() {
            "(none)".to_owned()
        } else {
            values.iter().map(shown).collect::<Vec<_>>().join("\n")
        };
        let what = format!("the header `{name}` is another");
        found.push(Difference { key: format!("{key}.headers"), what, diff: diff(wanted, &came) });
    }
    if let Some(body) = &expected.body {
        let came = serde_json::from_slice::<Value>(request.body());
        if came.as_ref().ok() != Some(body) {
            let what = "the body is another".to_owned();
            let diff = diff(&format!("{body:#}"), &pretty(request.body()));
            found.push(Difference { key: format!("{key}.body"), what, diff });
        }
    }
    if let Some(file) = &expected.body_file {
        let key = format!("{key}.body_file");
        match std::fs::read(file) {
            Ok(known) if same_body(&known, request.body()) => {}
            Ok(known) => {
                let what = format!("the body is not the one in `{}`; `--update` writes it", file.display());
                found.push(Difference { key, what, diff: diff(&pretty(&known), &pretty(request.body())) });
            }
            Err(error) => {
                let what = format!("can't read `{}`: {error}; `--update` writes it", file.display());
                found.push(Difference::of(&key, what));
            }
        }
    }
}

/// Whether two bodies are the same JSON, or the same bytes.
fn same_body(one: &[u8], other: &[u8]) -> bool {
    let json = |body: &[u8]| serde_json::from_slice::<Value>(body).ok();
    one == other || json(one).is_some_and(|one| json(other).is_some_and(|other| one == other))
}

fn pretty(body: &[u8]) -> String {
    match serde_json::from_slice::<Value>(body) {
        Ok(json) => format!("{json:#}"),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    }
}

fn lines(times: &[Duration]) -> String {
    times.iter().map(|time| format!("{}\n", humantime::format_duration(*time))).collect()
}

fn wanted(end: &ExpectedEnd) -> String {
    let with = |word: &str, reason: &Option<String>| match reason {
        Some(reason) => format!("{word}: {reason}"),
        None => word.to_owned(),
    };
    match end {
        ExpectedEnd::NotMatched => "not matched".to_owned(),
        ExpectedEnd::Filtered => "filtered".to_owned(),
        ExpectedEnd::Delivered => "delivered".to_owned(),
        ExpectedEnd::Dropped(reason) => with("dropped", reason),
        ExpectedEnd::DeadLetter(None, _) => "dead-letter".to_owned(),
        ExpectedEnd::DeadLetter(Some(reason), part) => with(&format!("dead-letter: {}", reason.as_str()), part),
    }
}
