//! Posts an event to Slack through an incoming webhook: a Block Kit message from any event, with a
//! text for people that the config may replace. Nothing an event holds can ping anyone, break the
//! message, or make Slack refuse it for its length.

use branchline_plugin::phrases::{self, Markup};
use branchline_plugin::template::Templates;
use branchline_plugin::{Error, Event, Verdict, check, plugin, text, value};
use serde::{Deserialize, Serialize};

plugin!(handle, check);

// Slack's own limits, in characters; it refuses a message that passes one.
const HEADER_CHARACTERS_MAX: usize = 150;
const SECTION_CHARACTERS_MAX: usize = 3000;
// Ours: what is still pleasant to read in a channel.
const CONTEXT_CHARACTERS_MAX: usize = 600;

const MRKDWN: Markup = Markup { bold: "*", alarm: ":warning: " };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    channel: Option<String>,
    username: Option<String>,
    #[serde(default)]
    templates: Templates,
}

fn check(config: &Config) -> Result<(), String> {
    check::not_blank("channel", config.channel.as_deref())?;
    check::not_blank("username", config.username.as_deref())
}

#[derive(Serialize)]
struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Shown in notifications, and where blocks can't be.
    text: String,
    blocks: [Block; 3],
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Header { text: Text },
    Section { text: Text },
    Context { elements: [Text; 1] },
}

/// `verbatim` keeps Slack from making a mention or a channel link of what merely looks like one.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Text {
    PlainText { text: String },
    Mrkdwn { text: String, verbatim: bool },
}

fn handle(event: Event, config: Config) -> Result<Verdict, Error> {
    let title = text::title(&event.event_type);
    let built_in = phrases::about(&event.event_type, MRKDWN);
    let message = match config.templates.find(&event.event_type).or(built_in.as_ref()) {
        Some(template) => template.render(&event, escape),
        None => value::list(&event.payload, escape, |name, shown| format!("*{name}:* {shown}")),
    };
    let message = cut(&message, SECTION_CHARACTERS_MAX);
    let origin = escape(&[&*event.origin(), " · ", &event.occurred_at].concat());
    Verdict::send_json(&Message {
        channel: config.channel,
        username: config.username,
        text: cut(&[&*escape(&title), ": ", &message].concat(), SECTION_CHARACTERS_MAX),
        blocks: [
            Block::Header { text: Text::PlainText { text: text::truncate(&title, HEADER_CHARACTERS_MAX) } },
            Block::Section { text: mrkdwn(message) },
            Block::Context { elements: [mrkdwn(cut(&origin, CONTEXT_CHARACTERS_MAX))] },
        ],
    })
}

fn mrkdwn(text: String) -> Text {
    Text::Mrkdwn { text, verbatim: true }
}

/// The three characters that Slack reads as markup: <https://docs.slack.dev/messaging/formatting-message-text/>.
fn escape(text: &str) -> String {
    text::escape(text, |byte| match byte {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        _ => None,
    })
}

/// Cuts a text that is escaped already, without leaving half an `&amp;` at its end.
fn cut(escaped: &str, limit: usize) -> String {
    let is_whole = |last: &str| last.len() >= "&amp;".len() || last.contains(';');
    text::truncate_whole(escaped, limit, |kept| kept.rfind('&').is_none_or(|at| is_whole(&kept[at..])))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_is_right() {
        branchline_plugin::testing::run_readme(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }

    #[test]
    fn every_fixture_holds() {
        branchline_plugin::testing::run_fixtures(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }

    #[test]
    fn a_cut_leaves_no_half_of_an_escape() {
        assert_eq!(super::cut("가나&amp;다라", 7), "가나…");
        assert_eq!(super::cut("가나&amp;다라", 8), "가나&amp;…");
        assert_eq!(super::cut("가나&amp;다라", 9), "가나&amp;다라");
        assert_eq!(super::cut("R&D 가나다라", 7), "R&D 가나…", "one of the operator's own");
    }
}
