//! Which path is what, and with which method. Pure.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::delivery::DeliveryId;

/// What is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Whether the process runs.
    Healthz,
    /// Whether it takes events.
    Readyz,
    /// Figures for a scraper.
    Metrics,
    /// The endpoints, and whether they are held.
    Endpoints,
    /// Releases an endpoint that is disabled.
    Enable(String),
    /// Holds an endpoint.
    Pause(String),
    /// Releases an endpoint that is paused.
    Resume(String),
    /// Which generation of the config is in use.
    Config,
    /// What it says, for whoever has another config.
    Comparison,
    /// Reads the config anew.
    Reload,
    /// What happens, as it happens.
    Tail,
    /// What [`operations`](super::operations) can do.
    Operation(Operation),
}

/// What an operator asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Events,
    Event(String),
    Explain(String),
    ExplainGiven,
    DeadLetters,
    DeadLetter(DeliveryId),
    ReplayDeadLetter(DeliveryId),
    DiscardDeadLetter(DeliveryId),
    Deliveries,
    Replay,
    Audit,
    Stats,
}

impl Route {
    /// What the path is.
    pub fn of(path: &str) -> Option<Self> {
        // An event's id may have any printable character, so a segment is decoded after the path was taken apart.
        let segments: Option<Vec<String>> = path
            .split('/')
            .skip(1)
            .map(|segment| percent_decode_str(segment).decode_utf8().ok().map(Into::into))
            .collect();
        let segments = segments?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        Some(match segments[..] {
            ["healthz"] => Self::Healthz,
            ["readyz"] => Self::Readyz,
            ["metrics"] => Self::Metrics,
            ["api", "v1", "endpoints"] => Self::Endpoints,
            ["api", "v1", "endpoints", name, "enable"] => Self::Enable(name.to_owned()),
            ["api", "v1", "endpoints", name, "pause"] => Self::Pause(name.to_owned()),
            ["api", "v1", "endpoints", name, "resume"] => Self::Resume(name.to_owned()),
            ["api", "v1", "config"] => Self::Config,
            ["api", "v1", "config", "comparison"] => Self::Comparison,
            ["api", "v1", "reload"] => Self::Reload,
            ["api", "v1", "tail"] => Self::Tail,
            ["api", "v1", ref rest @ ..] => Self::Operation(Operation::of(rest)?),
            _ => return None,
        })
    }

    /// The method it takes.
    pub fn method(&self) -> Method {
        match self {
            Self::Healthz | Self::Readyz | Self::Metrics | Self::Endpoints | Self::Config | Self::Tail => Method::GET,
            Self::Enable(_) | Self::Pause(_) | Self::Resume(_) | Self::Comparison | Self::Reload => Method::POST,
            Self::Operation(operation) => operation.method(),
        }
    }

    /// Whether it is for whoever keeps the process running, who has no token.
    pub fn is_probe(&self) -> bool {
        matches!(self, Self::Healthz | Self::Readyz)
    }
}

impl Operation {
    fn of(segments: &[&str]) -> Option<Self> {
        Some(match *segments {
            ["events"] => Self::Events,
            ["events", id] => Self::Event(id.to_owned()),
            ["events", id, "explain"] => Self::Explain(id.to_owned()),
            ["explain"] => Self::ExplainGiven,
            ["dead-letters"] => Self::DeadLetters,
            ["dead-letters", id] => Self::DeadLetter(DeliveryId::from_stored(id)),
            ["dead-letters", id, "replay"] => Self::ReplayDeadLetter(DeliveryId::from_stored(id)),
            ["dead-letters", id, "discard"] => Self::DiscardDeadLetter(DeliveryId::from_stored(id)),
            ["deliveries"] => Self::Deliveries,
            ["replay"] => Self::Replay,
            ["audit"] => Self::Audit,
            ["stats"] => Self::Stats,
            _ => return None,
        })
    }

    fn method(&self) -> Method {
        match self {
            Self::Events | Self::Event(_) | Self::DeadLetters | Self::DeadLetter(_) => Method::GET,
            Self::Explain(_) | Self::Deliveries | Self::Audit | Self::Stats => Method::GET,
            Self::ExplainGiven | Self::ReplayDeadLetter(_) | Self::DiscardDeadLetter(_) | Self::Replay => Method::POST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_they_say_and_ids_may_have_any_character() {
        let event = |id: &str| Some(Route::Operation(Operation::Event(id.to_owned())));
        for (path, expected) in [
            ("/readyz", Some(Route::Readyz)),
            ("/api/v1/endpoints/x/pause", Some(Route::Pause("x".to_owned()))),
            ("/api/v1/events/evt_1", event("evt_1")),
            ("/api/v1/events/a%2Fb%25%7Cc", event("a/b%|c")),
            ("/api/v1/events/%FF", None),
            ("/api/v1/events/a/b", None),
            ("/api/v1", None),
            ("/api/v2/events", None),
            ("/", None),
        ] {
            assert_eq!(Route::of(path), expected, "{path}");
        }
        let replay = Route::of("/api/v1/dead-letters/dlv_1/replay").unwrap();
        assert_eq!((replay.method(), replay.is_probe()), (Method::POST, false));
    }
}
