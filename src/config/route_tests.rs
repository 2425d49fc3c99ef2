//! `[[tests]]`: what must become of an event, written beside the routes; `branchline test` runs them. `serve` reads them, so that a
//! mistake in one is told like any other, and does nothing with them.

mod words; // Answers and ends, as people write them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::faults::nearest;
use super::reader::{Entry, Table};
use super::routes::resolve;
use super::values::{self, days, seconds};
use crate::clock::Timestamp;
use crate::delivery::DeadLetterReason;

const TESTS_MAX: usize = 10_000;
const ANSWERS_MAX: usize = 100;
/// 2025-01-15T10:30:00Z: the time of a test that says none.
const AT: Timestamp = Timestamp::from_millis(1_736_937_000_000);

/// A test's secrets by their names: where they are printed, the names alone.
#[derive(Clone)]
pub struct TestSecrets(pub Vec<(String, String)>);

impl fmt::Debug for TestSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// One of `[[tests]]`: an event, and what must become of it.
#[derive(Clone, Debug)]
pub struct RouteTest {
    /// `name`: what it shows.
    pub name: String,
    /// Its key, for [`super::Config::place`].
    pub key: String,
    /// `source`: the one that the event comes in by; by default the config's only one.
    pub source: Arc<str>,
    /// `at`: when it is accepted, by a clock that moves only as attempts and waits do.
    pub at: Timestamp,
    /// `event` or `event_file`.
    pub event: TestEvent,
    /// `secrets`: what the config's secrets are in this test, by the names of their variables, or by their files' paths as
    /// the config writes them. It sees no others; stand-ins take the place of the rest.
    pub secrets: TestSecrets,
    /// `only`, default true: whether no subscription may get the event that is not expected to.
    pub only: bool,
    /// `expect`: what must become of it.
    pub expected: Vec<Expectation>,
}

/// Where a test's event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestEvent {
    /// In the test: an envelope as JSON, its keys in alphabetical order.
    Envelope(String),
    /// In a file of its own, which is taken as it is.
    File(PathBuf),
}

/// What must become of an event for one subscription. What is not said is not looked at, except its end.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The subscription.
    pub subscription: Arc<str>,
    /// Its key, for [`super::Config::place`].
    pub key: String,
    /// `outcome`: how it must end; by default it arrives.
    pub end: ExpectedEnd,
    /// What must be sent, the first time.
    pub request: ExpectedRequest,
    /// `answers`: what the endpoint answers, attempt by attempt; the last one for ever, and 200 when there is none.
    pub answers: Vec<Answer>,
    /// `attempts`: when each must be made, from the first.
    pub attempts: Option<Vec<Duration>>,
}

/// How a delivery must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedEnd {
    /// The route does not take the event.
    NotMatched,
    /// The route's `where` keeps it away.
    Filtered,
    /// It arrives.
    Delivered,
    /// A plugin drops it, with this reason if one is given.
    Dropped(Option<String>),
    /// It is given up, for this reason if one is given, and with this in its explanation.
    DeadLetter(Option<DeadLetterReason>, Option<String>),
}

/// What must be sent.
#[derive(Clone, Debug, Default)]
pub struct ExpectedRequest {
    /// `method`.
    pub method: Option<String>,
    /// `url`: all of it.
    pub url: Option<String>,
    /// `headers` that must be there; others may be, too.
    pub headers: Vec<(HeaderName, String)>,
    /// `signature`: the header `webhook-signature` of the first request, or of one after the other.
    pub signatures: Vec<String>,
    /// `body`, compared as JSON.
    pub body: Option<Value>,
    /// `body_file`: a file with the body; `--update` writes it.
    pub body_file: Option<PathBuf>,
}

/// What an endpoint answers to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A status.
    Status {
        /// From 200 to 599.
        status: u16,
        /// `Retry-After`.
        retry_after: Option<HeaderValue>,
    },
    /// Nothing, for as long as the endpoint's timeout.
    Timeout,
    /// It can't be connected to.
    Refused,
}

impl ExpectedRequest {
    /// Whether nothing is said of it.
    pub fn is_empty(&self) -> bool {
        let Self { method, url, headers, signatures, body, body_file } = self;
        let nothing = method.is_none() && url.is_none() && body.is_none() && body_file.is_none();
        nothing && headers.is_empty() && signatures.is_empty()
    }
}

/// Reads all tests. `subscriptions` are all there are, where that is known.
pub(super) fn tests(
    entry: Option<&Entry<'_>>,
    sources: &BTreeSet<String>,
    subscriptions: Option<&BTreeSet<String>>,
) -> Vec<RouteTest> {
    let Some(entry) = entry else { return Vec::new() };
    if entry.value.is_object() {
        entry.fault("must be a list: write `[[tests]]`, with two brackets");
        return Vec::new();
    }
    let names = Names { sources, subscriptions };
    let entries = entry.list(TESTS_MAX).unwrap_or_default();
    entries.iter().filter_map(|entry| test(entry.key.clone(), entry.table()?, &names)).collect()
}

/// What tests may name.
struct Names<'n> {
    sources: &'n BTreeSet<String>,
    subscriptions: Option<&'n BTreeSet<String>>,
}

fn test(key: String, mut table: Table<'_>, names: &Names<'_>) -> Option<RouteTest> {
    let name = table.require("name", "tests say what they show, for example `name = \"large orders reach sales\"`");
    let name = name.and_then(owned);
    let source = source(&mut table, names);
    let at = table.parsed("at", AT, values::time);
    let event = event(&mut table);
    let secrets = table.find_secret("secrets").and_then(|entry| Some(entry.table()?.entries()));
    let secrets = secrets.into_iter().flatten().filter_map(|(name, entry)| Some((name.to_owned(), owned(entry)?)));
    let secrets = TestSecrets(secrets.collect());
    let only = table.find("only").and_then(|entry| entry.flag()).unwrap_or(true);
    let expected = table.require(
        "expect",
        "what must become of the event, by subscription, for example `expect.warehouse = \"delivered\"`",
    );
    let expected = expected.and_then(|entry| Some(entry.table()?.entries()));
    let expected = expected.map(|all| all.into_iter().filter_map(|(name, entry)| expectation(name, &entry, names)));
    let expected = expected.map(Iterator::collect);
    table.end();
    Some(RouteTest { name: name?, key, source: source?, at, event: event?, secrets, only, expected: expected? })
}

fn source(table: &mut Table<'_>, names: &Names<'_>) -> Option<Arc<str>> {
    let Some(entry) = table.find("source") else {
        let mut all = names.sources.iter();
        let only = all.next().filter(|_| all.next().is_none());
        if only.is_none() && !names.sources.is_empty() {
            table.missing("source", "the config has several, and the event comes in by one of them");
        }
        return only.map(|name| name.as_str().into());
    };
    let name = entry.text()?;
    Some(resolve(&entry, "source", &name, names.sources.contains(&*name), names.sources.iter()).into())
}

fn event(table: &mut Table<'_>) -> Option<TestEvent> {
    match (table.find("event"), table.find("event_file")) {
        (Some(event), None) => {
            event.object("an envelope, for example `{ eventType = \"order.completed\", payload = {} }`")?;
            Some(TestEvent::Envelope(event.value.to_string()))
        }
        (None, Some(file)) => file.path().map(TestEvent::File),
        (None, None) => {
            table.missing("event", "the envelope that comes in; or `event_file`, the path of one");
            None
        }
        (Some(_), Some(file)) => {
            file.fault("is one event too many: there is `event`");
            None
        }
    }
}

/// `"filtered"`, or a table with the request, the answers to it and the end.
fn expectation(name: &str, entry: &Entry<'_>, names: &Names<'_>) -> Option<Expectation> {
    if let Some(known) = names.subscriptions.filter(|known| !known.contains(name)) {
        let suggestion = if entry.reading.explains() { nearest(name, known.iter().map(String::as_str)) } else { None };
        entry.fault_suggesting("names no subscription of this config", suggestion);
        return None;
    }
    let (subscription, key) = (name.into(), entry.key.clone());
    if entry.value.is_string() {
        let (request, answers) = (ExpectedRequest::default(), Vec::new());
        return Some(Expectation {
            subscription,
            key,
            end: entry.parse(words::end)?,
            request,
            answers,
            attempts: None,
        });
    }
    let mut table = entry.table()?;
    let end = table.parsed("outcome", ExpectedEnd::Delivered, words::end);
    let request = ExpectedRequest {
        method: table.find("method").and_then(owned),
        url: table.find("url").and_then(owned),
        headers: table.find("headers").and_then(|entry| headers(&entry)).unwrap_or_default(),
        signatures: table.find("signature").map(|entry| signatures(&entry)).unwrap_or_default(),
        body: table.find("body").map(|entry| entry.value.clone()),
        body_file: table.find("body_file").and_then(|entry| entry.path()),
    };
    let answers = table.find("answers").and_then(|entry| entry.list(ANSWERS_MAX));
    let answers = answers.into_iter().flatten().filter_map(|entry| entry.answer()).collect();
    let attempts = table.find("attempts").and_then(|entry| entry.list(ANSWERS_MAX)).map(|entries| {
        let range = seconds(0)..=days(3_650);
        entries.iter().filter_map(|entry| entry.parse(|text| values::duration(text, &range))).collect()
    });
    table.end();
    Some(Expectation { subscription, key, end, request, answers, attempts })
}

fn signatures(entry: &Entry<'_>) -> Vec<String> {
    entry.one_or_list(ANSWERS_MAX).into_iter().flatten().filter_map(owned).collect()
}

fn headers(entry: &Entry<'_>) -> Option<Vec<(HeaderName, String)>> {
    let header = |(name, entry): (&str, Entry<'_>)| {
        let Ok(name) = name.parse::<HeaderName>() else {
            entry.fault("is not the name of an HTTP header");
            return None;
        };
        Some((name, owned(entry)?))
    };
    Some(entry.table()?.entries().into_iter().filter_map(header).collect())
}

#[expect(clippy::needless_pass_by_value, reason = "so that it can stand where an entry is mapped")]
fn owned(entry: Entry<'_>) -> Option<String> {
    Some(entry.text()?.into_owned())
}

impl Entry<'_> {
    /// As what an endpoint answers: `200`, `"429 Retry-After: 120"`, `"timeout"`, `"refused"`.
    fn answer(&self) -> Option<Answer> {
        let Value::Number(status) = self.value else { return self.parse(words::answer) };
        words::answer(&status.to_string()).map_err(|message| self.fault(message)).ok()
    }
}
