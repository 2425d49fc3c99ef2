//! An explanation for a person: a block for each subscription, the reason first.

use std::fmt;
use std::time::Duration;

use anstyle::Style;

use crate::admin::explain::{End, Explained, Explanation, PluginShown, Question, RequestShown};
use crate::admin::operations::pairs::Pair;
use crate::cli::outcome;
use crate::cli::plugin::units;
use crate::cli::terminal::{BAD, Cell, Columns, FAINT, GOOD, HEAD, QUIET, WAITS, styled};
use crate::filter::{Fit, Judged, Misfit};

/// Where the text after a label begins.
const LABEL_WIDTH: usize = 13;
/// How many digits of a component's digest are shown.
const DIGEST_DIGITS: usize = 12;

/// An explanation, and what was asked.
pub struct Shown<'a>(pub &'a Explanation, pub &'a Question);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(explanation, question) = self;
        let event = &explanation.event;
        writeln!(
            f,
            "{}  {} from `{}`, {} of payload, {} {}",
            styled(HEAD, &event.id),
            event.event_type,
            event.source,
            units::bytes(event.payload_bytes),
            if event.position.is_some() { "accepted" } else { "as if accepted" },
            event.accepted_at,
        )?;
        if let Some(pair) = &explanation.recorded {
            recorded(f, pair)?;
        }
        let is_recorded = explanation.recorded.is_some()
            || !explanation.gone.is_empty()
            || explanation.subscriptions.iter().any(|explained| explained.recorded.is_some());
        if event.position.is_some() && !is_recorded && question.subscription.is_none() {
            line(f, WAITS, "recorded", "nothing yet: it waits for its first attempts")?;
        }
        if explanation.subscriptions.is_empty() {
            writeln!(f, "\nthe config has no subscription")?;
        }
        for explained in &explanation.subscriptions {
            subscription(f, explained, &event.event_type, question)?;
        }
        for gone in &explanation.gone {
            let name = gone.subscription.as_deref().unwrap_or_default();
            writeln!(f, "\n{}  {}", styled(HEAD, name), styled(FAINT, "no longer in the config"))?;
            recorded(f, gone)?;
        }
        Ok(())
    }
}

fn subscription(
    f: &mut fmt::Formatter<'_>,
    explained: &Explained,
    event_type: &str,
    question: &Question,
) -> fmt::Result {
    let Explained { subscription, route, endpoint, url, .. } = explained;
    let about = format!("route `{route}`, endpoint `{endpoint}` at {url}");
    writeln!(f, "\n{}  {}", styled(HEAD, subscription), styled(FAINT, about))?;
    fit(f, &explained.fit, event_type)?;
    for plugin in &explained.plugins {
        called(f, plugin)?;
    }
    if let Some(end) = &explained.end {
        ended(f, end, question)?;
    }
    if let Some(known) = &explained.recorded {
        recorded(f, known)?;
    }
    for difference in &explained.differs {
        line(f, WAITS, "differs", difference)?;
    }
    Ok(())
}

/// A label, and what it is about.
fn line(f: &mut fmt::Formatter<'_>, style: Style, label: &str, text: impl fmt::Display) -> fmt::Result {
    let pad = LABEL_WIDTH.saturating_sub(label.len());
    writeln!(f, "  {}{:pad$}{text}", styled(style, label), "")
}

fn below(f: &mut fmt::Formatter<'_>, columns: &[[String; 2]]) -> fmt::Result {
    let mut shown = Columns::indented(2 + LABEL_WIDTH);
    for [name, value] in columns {
        shown.add([Cell::new(FAINT, name), value.into()]);
    }
    write!(f, "{shown}")
}

fn fit(f: &mut fmt::Formatter<'_>, fit: &Fit, event_type: &str) -> fmt::Result {
    match fit {
        Fit::Matched { pattern, condition: None } => line(f, GOOD, "matched", format_args!("`{pattern}`")),
        Fit::Matched { pattern, condition: Some(judged) } => {
            line(f, GOOD, "matched", format_args!("`{pattern}`, and `where` is true: {}", judged.expression))?;
            fields(f, judged)
        }
        Fit::EventType { patterns } => {
            for (number, misfit) in patterns.iter().enumerate() {
                let label = if number == 0 { "not matched" } else { "" };
                line(f, QUIET, label, format_args!("the type is `{event_type}`: {}", describe(misfit)))?;
            }
            Ok(())
        }
        Fit::Source { wanted, saw } => {
            let wanted: Vec<_> = wanted.iter().map(|name| format!("`{name}`")).collect();
            let text = format!("the source is `{saw}`: the route takes events from {} only", wanted.join(", "));
            line(f, QUIET, "not matched", text)
        }
        Fit::Where { condition } => {
            let reason = condition.reason.as_deref().unwrap_or_default();
            line(f, QUIET, "filtered", format_args!("{reason}: {}", condition.expression))?;
            if let Some(part) = &condition.part {
                line(f, QUIET, "", format_args!("in this part: {part}"))?;
            }
            fields(f, condition)
        }
    }
}

fn describe(misfit: &Misfit) -> String {
    let Misfit { pattern, segment, wanted, saw } = misfit;
    match (wanted, saw) {
        (Some(wanted), Some(saw)) => format!("`{pattern}` wants `{wanted}` as segment {segment}, not `{saw}`"),
        (Some(wanted), None) => format!("`{pattern}` wants `{wanted}` as segment {segment}, and the type has ended"),
        (None, Some(saw)) => format!("`{pattern}` has ended before segment {segment}, `{saw}`"),
        (None, None) => format!("`{pattern}` does not fit"),
    }
}

fn fields(f: &mut fmt::Formatter<'_>, judged: &Judged) -> fmt::Result {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "is not in the event".to_owned());
    below(f, &judged.fields.iter().map(|field| [field.name.clone(), value(&field.value)]).collect::<Vec<_>>())
}

fn called(f: &mut fmt::Formatter<'_>, called: &PluginShown) -> fmt::Result {
    let PluginShown { plugin, sha256, shadow, verdict, detail, micros, log } = called;
    let verdict = if detail.is_empty() { verdict.clone() } else { format!("{verdict}: {detail}") };
    let time = units::time(Duration::from_micros(*micros));
    let about = format!("({time}, {}{})", &sha256[..DIGEST_DIGITS], if *shadow { ", shadow: not applied" } else { "" });
    line(f, Style::new(), "plugin", format_args!("{plugin}  {verdict}  {}", styled(FAINT, about)))?;
    below(f, &log.iter().map(|line| ["log".to_owned(), line.clone()]).collect::<Vec<_>>())
}

fn ended(f: &mut fmt::Formatter<'_>, end: &End, question: &Question) -> fmt::Result {
    match end {
        End::Sends { request } => sent(f, request, question),
        End::Dropped { plugin, reason } => line(f, QUIET, "dropped", format_args!("by plugin `{plugin}`: {reason}")),
        End::DeadLetter { plugin, reason } => {
            line(f, BAD, "dead letter", format_args!("by plugin `{plugin}`: {reason}"))
        }
        End::PluginFails { plugin, error, detail, retryable } => {
            let next = if *retryable { "the schedule tries again" } else { "a dead letter at once" };
            line(f, BAD, "fails", format_args!("in plugin `{plugin}`, {error}: {detail}; {next}"))
        }
    }
}

fn sent(f: &mut fmt::Formatter<'_>, request: &RequestShown, question: &Question) -> fmt::Result {
    let RequestShown { method, url, headers, fault, body_bytes, body, body_base64 } = request;
    if let Some(fault) = fault {
        return line(f, BAD, "can't send", format_args!("to {url}: {fault}"));
    }
    let content_type = headers.iter().find(|header| header.name == "content-type");
    let content_type = content_type.map_or("", |header| header.value.as_str());
    line(f, GOOD, "sends", format_args!("{method} {url}, {} of {content_type}", units::bytes(*body_bytes)))?;
    if question.subscription.is_some() {
        below(f, &headers.iter().map(|header| [header.name.clone(), header.value.clone()]).collect::<Vec<_>>())?;
    }
    for (label, text) in [("body", body), ("base64", body_base64)] {
        if let Some(text) = text {
            line(f, Style::new(), label, text)?;
        }
    }
    Ok(())
}

fn recorded(f: &mut fmt::Formatter<'_>, pair: &Pair) -> fmt::Result {
    let Some(last) = &pair.last else { return Ok(()) };
    let before = outcome::earlier(pair).map(|view| ("before", QUIET, view));
    for (label, style, view) in before.chain([("recorded", outcome::style(pair.status), last)]) {
        line(f, style, label, format_args!("{}, at {}", outcome::describe(view), view.at))?;
        for attempt in &view.attempts {
            line(f, Style::new(), "", outcome::attempt(attempt))?;
        }
        for note in &view.notes {
            line(f, Style::new(), "", format_args!("plugin `{}` was not applied: {}", note.plugin, note.detail))?;
        }
    }
    match &pair.waiting {
        Some(waiting) => line(f, WAITS, "due", outcome::due(waiting)),
        None => Ok(()),
    }
}
