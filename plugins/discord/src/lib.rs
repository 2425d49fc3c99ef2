//! Posts an event to Discord through a webhook: an embed from any event, with a description that the
//! config may replace and the payload's fields below it. Nothing an event holds can ping anyone,
//! show as markup, or make Discord refuse the message for its length.

mod colour; // At the embed's edge, by the kind of event.

use branchline_plugin::phrases::{self, Markup};
use branchline_plugin::serde_json::Value;
use branchline_plugin::template::Templates;
use branchline_plugin::{Error, Event, Verdict, check, plugin, text, value};
use serde::{Deserialize, Serialize};

plugin!(handle, check);

// Discord's limits, in characters; it refuses a message that passes one.
const TITLE_CHARACTERS_MAX: usize = 256;
const DESCRIPTION_CHARACTERS_MAX: usize = 4096;
const FIELDS_MAX: usize = 25;
const FIELD_NAME_CHARACTERS_MAX: usize = 256;
const FIELD_VALUE_CHARACTERS_MAX: usize = 1024;
const EMBED_CHARACTERS_MAX: usize = 6000;
const USERNAME_CHARACTERS_MAX: usize = 80;
// Ours: Discord allows 2048, but an event's origin is one line.
const FOOTER_CHARACTERS_MAX: usize = 300;
/// Up to this length a field stands beside others.
const INLINE_CHARACTERS_MAX: usize = 40;

const MARKDOWN: Markup = Markup { bold: "**", alarm: "" };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    username: Option<String>,
    avatar_url: Option<String>,
    #[serde(default)]
    templates: Templates,
    /// The payload's fields below the description; by default all, by their order.
    fields: Option<Vec<String>>,
}

fn check(config: &Config) -> Result<(), String> {
    check::length("username", config.username.as_deref(), USERNAME_CHARACTERS_MAX)?;
    let lower = config.username.as_deref().unwrap_or_default().to_ascii_lowercase();
    if let Some(word) = ["discord", "clyde"].iter().find(|word| lower.contains(*word)) {
        return Err(format!("`username` holds `{word}`, which Discord refuses"));
    }
    check::https_url("avatar_url", config.avatar_url.as_deref())
}

#[derive(Serialize)]
struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
    embeds: [Embed; 1],
    allowed_mentions: AllowedMentions,
}

#[derive(Serialize)]
struct Embed {
    title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    color: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<Field>,
    footer: Footer,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
}

#[derive(Serialize)]
struct Field {
    name: String,
    value: String,
    inline: bool,
}

#[derive(Serialize)]
struct Footer {
    text: String,
}

/// Of all that could be mentioned, nothing is.
#[derive(Serialize)]
struct AllowedMentions {
    parse: [String; 0],
}

fn handle(event: Event, config: Config) -> Result<Verdict, Error> {
    let title = cut(&escape(&text::title(&event.event_type)), TITLE_CHARACTERS_MAX);
    // Discord shows no markup in a footer, so nothing is escaped there.
    let footer = text::truncate(&event.origin(), FOOTER_CHARACTERS_MAX);
    let mut room = EMBED_CHARACTERS_MAX - text::length(&title) - text::length(&footer);

    let built_in = phrases::about(&event.event_type, MARKDOWN);
    let template = config.templates.find(&event.event_type).or(built_in.as_ref());
    let description = match template {
        Some(template) => template.render(&event, escape),
        // A payload that has no fields is shown whole.
        None if !event.payload.is_object() => escape(&value::show(Some(&event.payload))),
        None => String::new(),
    };
    let description = cut(&description, DESCRIPTION_CHARACTERS_MAX.min(room));
    room -= text::length(&description);
    let embed = Embed {
        title,
        description,
        color: colour::of(&event.event_type),
        fields: fields(&event.payload, config.fields.as_deref(), room),
        footer: Footer { text: footer },
        timestamp: Some(event.occurred_at).filter(|text| is_timestamp(text)),
    };
    Verdict::send_json(&Message {
        username: config.username,
        avatar_url: config.avatar_url,
        embeds: [embed],
        allowed_mentions: AllowedMentions { parse: [] },
    })
}

/// As many fields as Discord takes, and as the embed has room for.
fn fields(payload: &Value, wanted: Option<&[String]>, mut room: usize) -> Vec<Field> {
    let chosen: Vec<(&str, Option<&Value>)> = match wanted {
        Some(names) => names.iter().map(|name| (name.as_str(), payload.get(name))).collect(),
        None => {
            value::fields(payload).unwrap_or_default().into_iter().map(|(name, value)| (name, Some(value))).collect()
        }
    };
    let mut fields = Vec::new();
    for (name, value) in chosen.into_iter().take(FIELDS_MAX) {
        let shown = cut(&escape(&value::show_named(name, value)), FIELD_VALUE_CHARACTERS_MAX);
        let name = if name.trim().is_empty() { value::MISSING } else { name };
        let name = cut(&escape(name), FIELD_NAME_CHARACTERS_MAX);
        let Some(left) = room.checked_sub(text::length(&name) + text::length(&shown)) else {
            break;
        };
        room = left;
        let inline = text::length(&shown) <= INLINE_CHARACTERS_MAX;
        fields.push(Field { name, value: shown, inline });
    }
    fields
}

/// Discord refuses a message whose timestamp is none, so a doubtful one is left out.
fn is_timestamp(text: &str) -> bool {
    let shape = |(byte, wanted): (u8, u8)| match wanted {
        b'0' => byte.is_ascii_digit(),
        wanted => byte == wanted,
    };
    let start = "0000-00-00T00:00:00";
    text.len() > start.len() && text.bytes().zip(start.bytes()).all(shape)
}

/// The characters that Discord's Markdown reads anywhere in a line, and those of mentions and links.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '\\' | '*' | '_' | '~' | '`' | '|' | '<' | '[' | ']') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Cuts a text that is escaped already, without leaving the backslash of what was cut off.
fn cut(escaped: &str, limit: usize) -> String {
    let backslashes = |kept: &str| kept.len() - kept.trim_end_matches('\\').len();
    text::truncate_whole(escaped, limit, |kept| backslashes(kept).is_multiple_of(2))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cut_leaves_no_backslash_behind() {
        assert_eq!(super::cut(r"가나\*다라", 4), "가나…");
        assert_eq!(super::cut(r"가나\\다라", 5), r"가나\\…");
        assert_eq!(super::cut(r"가나\*", 4), r"가나\*");
    }

    #[test]
    fn the_readme_is_right() {
        branchline_plugin::testing::run_readme(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }

    #[test]
    fn every_fixture_holds() {
        branchline_plugin::testing::run_fixtures(env!("CARGO_MANIFEST_DIR"), super::handle, super::check);
    }

    #[test]
    fn only_what_looks_like_a_timestamp_is_one() {
        assert!(super::is_timestamp("2025-01-15T10:30:00Z"));
        assert!(super::is_timestamp("2025-01-15T19:30:00.123+09:00"));
        for text in ["", "2025-01-15", "2025-01-15T10:30:00", "yesterday", "2025-01-15 10:30:00Z"] {
            assert!(!super::is_timestamp(text), "{text}");
        }
    }
}
