//! What a plugin returned, checked: nothing it wrote reaches the next stage unread. A verdict that exists can be sent.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use http::{HeaderName, HeaderValue};

use super::bindings::branchline::plugin::types;
use super::decodable::Decodable;
use super::text::tame;
use crate::delivery::{PluginFaultKind, Request};
use crate::event::Event;

/// The longest reason of a `drop` or `dead-letter`, and the longest message of an error; the rest is cut.
const REASON_BYTES_MAX: usize = 1024;
/// The longest code of an error; the rest is cut.
const CODE_BYTES_MAX: usize = 64;
/// Headers of a request that a plugin made.
const HEADERS_MAX: usize = 64;
/// Names and values of those headers together. Servers refuse heads of 8 KiB and more.
const HEADER_BYTES_MAX: usize = 8 << 10;
/// The longest `content-type`.
const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// The longest event type, aggregate type, aggregate id and time.
const NAME_BYTES_MAX: usize = 256;

/// A plugin's verdict on one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on with the event unchanged.
    Pass,
    /// Go on with this event instead.
    Replace(Arc<Event>),
    /// Send exactly this.
    Send(Request),
    /// Do not deliver, for this reason.
    Drop(String),
    /// Give up now, for this reason.
    DeadLetter(String),
}

impl Verdict {
    /// The word in metrics and reports.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Replace(_) => "replace",
            Self::Send(_) => "send",
            Self::Drop(_) => "drop",
            Self::DeadLetter(_) => "dead-letter",
        }
    }

    /// The plugin's reason, where a verdict has one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Drop(reason) | Self::DeadLetter(reason) => Some(reason),
            Self::Pass | Self::Replace(_) | Self::Send(_) => None,
        }
    }
}

/// A call that gave no verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How it failed.
    pub kind: PluginFaultKind,
    /// A sentence for people; at most about 1 KiB, control characters escaped.
    pub detail: String,
    /// Whether a later attempt may succeed.
    pub retryable: bool,
}

impl Fault {
    /// A fault that the plugin did not declare. It may be mended by a new version, so it is tried again on schedule.
    pub(super) fn new(kind: PluginFaultKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retryable: true }
    }
}

/// Checks what a call on `event` returned.
pub(super) fn check(
    returned: Result<types::Verdict, types::Error>,
    event: &Event,
    output_bytes_max: usize,
) -> Result<Verdict, Fault> {
    let verdict = match returned {
        Ok(verdict) => verdict,
        Err(error) => return Err(declared(&error)),
    };
    let bytes = size(&verdict);
    if bytes > output_bytes_max {
        return Err(bad(format!(
            "it returned {bytes} bytes, over its limit of {output_bytes_max} (`output_bytes_max`)"
        )));
    }
    match verdict {
        types::Verdict::Pass => Ok(Verdict::Pass),
        types::Verdict::Replace(replacement) => replace(event, replacement).map(Verdict::Replace).map_err(bad),
        types::Verdict::Send(request) => check_request(request).map(Verdict::Send).map_err(bad),
        types::Verdict::Drop(reason) => Ok(Verdict::Drop(tame(&reason, REASON_BYTES_MAX))),
        types::Verdict::DeadLetter(reason) => Ok(Verdict::DeadLetter(tame(&reason, REASON_BYTES_MAX))),
    }
}

fn bad(detail: String) -> Fault {
    Fault::new(PluginFaultKind::BadOutput, detail)
}

/// The plugin said that it failed.
fn declared(error: &types::Error) -> Fault {
    let code = tame(&error.code, CODE_BYTES_MAX);
    let message = tame(&error.message, REASON_BYTES_MAX);
    let detail = match (code.as_str(), message.as_str()) {
        ("", "") => "it gave neither a code nor a message".to_owned(),
        (_, "") => code,
        ("", _) => message,
        (_, _) => format!("{code}: {message}"),
    };
    Fault { kind: PluginFaultKind::Error, detail, retryable: error.retryable }
}

/// The bytes of all texts and lists.
fn size(verdict: &types::Verdict) -> usize {
    match verdict {
        types::Verdict::Pass => 0,
        types::Verdict::Replace(event) => {
            let fields = [&event.id, &event.event_type, &event.aggregate_type, &event.aggregate_id, &event.occurred_at];
            fields.iter().map(|field| field.len()).sum::<usize>() + event.payload.len() + event.metadata.len()
        }
        types::Verdict::Send(request) => {
            let headers: usize = request.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
            let body = match &request.body {
                types::Body::Text(text) => text.len(),
                types::Body::Binary(bytes) => bytes.len(),
            };
            headers + request.content_type.len() + body
        }
        types::Verdict::Drop(reason) | types::Verdict::DeadLetter(reason) => reason.len(),
    }
}

/// The event with what the plugin changed. Everything may change but the id, which names the event to consumers and
/// operators, and what is not in the record: source, time of acceptance, trace context.
fn replace(event: &Event, new: types::EventResult) -> Result<Arc<Event>, String> {
    if event.id != new.id {
        return Err("`replace` changed the event's `id`, which must stay".to_owned());
    }
    if !is_event_type(&new.event_type) {
        return Err(
            "`replace` gave an `event-type` that is none: segments joined by dots, without spaces, at most 256 bytes"
                .to_owned(),
        );
    }
    for (name, value) in [("aggregate-type", &new.aggregate_type), ("aggregate-id", &new.aggregate_id)] {
        if value.len() > NAME_BYTES_MAX || value.chars().any(char::is_control) {
            return Err(format!(
                "`replace` gave an `{name}` with control characters or more than {NAME_BYTES_MAX} bytes"
            ));
        }
    }
    if event.occurred_at != new.occurred_at
        && (new.occurred_at.len() > NAME_BYTES_MAX || new.occurred_at.parse::<jiff::Timestamp>().is_err())
    {
        return Err("`replace` gave an `occurred-at` that is not RFC 3339".to_owned());
    }
    // The positions are told, the text never is: it is a payload.
    let payload = json("payload", new.payload)?;
    let metadata = json("metadata", new.metadata)?;
    if !metadata.trim_start().starts_with('{') {
        return Err("`replace` gave a `metadata` that is not a JSON object".to_owned());
    }
    Ok(Arc::new(Event {
        id: event.id.clone(),
        source: event.source.clone(),
        event_type: new.event_type.into(),
        aggregate_type: new.aggregate_type.into(),
        aggregate_id: new.aggregate_id.into(),
        occurred_at: new.occurred_at.into(),
        accepted_at: event.accepted_at,
        payload,
        metadata,
        traceparent: event.traceparent.clone(),
    }))
}

fn json(name: &str, text: String) -> Result<ByteString, String> {
    match serde_json::from_str(&text) {
        Ok(Decodable) => Ok(text.into()),
        Err(error) => Err(format!(
            "`replace` gave a `{name}` that is not JSON, at line {} column {}",
            error.line(),
            error.column()
        )),
    }
}

/// Segments of printable characters joined by dots.
fn is_event_type(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.split('.').all(|segment| {
            !segment.is_empty()
                && segment.chars().all(|character| !character.is_whitespace() && !character.is_control())
        })
}

fn check_request(request: types::Request) -> Result<Request, String> {
    if !is_media_type(&request.content_type) {
        return Err("`send` gave a `content-type` that is no media type, for example `application/json`".to_owned());
    }
    if request.headers.len() > HEADERS_MAX {
        return Err(format!("`send` gave {} headers; {HEADERS_MAX} are allowed", request.headers.len()));
    }
    let bytes: usize = request.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    if bytes > HEADER_BYTES_MAX {
        return Err(format!("`send` gave headers of {bytes} bytes; {HEADER_BYTES_MAX} are allowed"));
    }
    let mut headers = Vec::with_capacity(request.headers.len());
    for header in request.headers {
        let shown = || tame(&header.name, CODE_BYTES_MAX);
        // Parsing it also puts it in lower case.
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| format!("`send` gave a header whose name is not valid in HTTP: `{}`", shown()))?;
        if let Some(why) = why_forbidden(name.as_str()) {
            return Err(format!("`send` gave the header `{}`, which plugins may not set: {why}", shown()));
        }
        if HeaderValue::from_str(&header.value).is_err() {
            return Err(format!("`send` gave the header `{}` a value that is not valid in HTTP", shown()));
        }
        headers.push((name.as_str().to_owned(), header.value));
    }
    let body = match request.body {
        types::Body::Text(text) => Bytes::from(text),
        types::Body::Binary(bytes) => Bytes::from(bytes),
    };
    Ok(Request { content_type: request.content_type, headers, body })
}

/// Why a plugin may not set a header, if it may not. `name` is in lower case.
fn why_forbidden(name: &str) -> Option<&'static str> {
    match name {
        "content-type" => Some("it is a field of the request, `content-type`"),
        "host" | "content-length" => Some("it follows from the endpoint and the body"),
        "connection"
        | "expect"
        | "http2-settings"
        | "keep-alive"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "proxy-connection"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade" => Some("it is about the connection, not the request"),
        "traceparent" | "tracestate" => Some("it carries the router's own trace"),
        name if name.starts_with("webhook-") => Some("it carries the router's signature"),
        name if name.starts_with("branchline-") => Some("the name is the router's own"),
        _ => None,
    }
}

/// `type/subtype`, and parameters that are at least valid in a header.
fn is_media_type(text: &str) -> bool {
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    let essence = text.split(';').next().unwrap_or("").trim_end();
    text.len() <= CONTENT_TYPE_BYTES_MAX
        && HeaderValue::from_str(text).is_ok()
        && essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event;

    fn replacement(event: &Event) -> types::EventResult {
        types::EventResult {
            id: event.id.to_string(),
            event_type: event.event_type.to_string(),
            aggregate_type: event.aggregate_type.to_string(),
            aggregate_id: event.aggregate_id.to_string(),
            occurred_at: event.occurred_at.to_string(),
            payload: event.payload.to_string(),
            metadata: event.metadata.to_string(),
        }
    }

    #[test]
    fn a_replacement_keeps_what_it_may_not_change_and_is_checked() {
        let event = event::sample("evt_1", "order.created", r#"{"n": 1.000}"#);
        let same = replace(&event, replacement(&event)).unwrap();
        assert_eq!(*same, event);

        type Change = fn(&mut types::EventResult);
        let refused: [(&str, Change); 10] = [
            ("`id`", |new| new.id = "evt_2".into()),
            ("`event-type`", |new| new.event_type = "order..created".into()),
            ("`event-type`", |new| new.event_type = "order created".into()),
            ("`event-type`", |new| new.event_type = "x".repeat(257)),
            ("`aggregate-id`", |new| new.aggregate_id = "a\nb".into()),
            ("`occurred-at`", |new| new.occurred_at = "yesterday".into()),
            ("`payload` that is not JSON, at line 1 column 7", |new| new.payload = "{\"a\": }".into()),
            ("`payload` that is not JSON", |new| new.payload = r#"["\ud800"]"#.into()),
            ("`metadata` that is not a JSON object", |new| new.metadata = "[]".into()),
            ("`metadata` that is not JSON", |new| new.metadata = String::new()),
        ];
        for (part, change) in refused {
            let mut new = replacement(&event);
            change(&mut new);
            let text = replace(&event, new).unwrap_err();
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        let mut new = replacement(&event);
        new.payload = "7".into();
        new.event_type = "order.renamed".into();
        new.occurred_at = "2026-01-01T00:00:00+01:00".into();
        let changed = replace(&event, new).unwrap();
        assert_eq!(
            (&*changed.payload, &*changed.event_type, changed.accepted_at),
            ("7", "order.renamed", event.accepted_at)
        );
    }

    fn request(headers: &[(&str, &str)], content_type: &str) -> types::Request {
        types::Request {
            headers: headers
                .iter()
                .map(|(name, value)| types::Header { name: (*name).to_owned(), value: (*value).to_owned() })
                .collect(),
            content_type: content_type.to_owned(),
            body: types::Body::Text("{}".to_owned()),
        }
    }

    #[test]
    fn a_request_has_valid_headers_and_none_of_the_routers_own() {
        let sent =
            check_request(request(&[("X-Thing", "a b"), ("authorization", "Bot t")], "text/plain; charset=utf-8"));
        let headers = sent.unwrap().headers;
        assert_eq!(
            headers,
            [("x-thing".to_owned(), "a b".to_owned()), ("authorization".to_owned(), "Bot t".to_owned())]
        );

        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "proxy-authorization",
            "webhook-id",
            "Webhook-Signature",
            "branchline-attempt",
            "content-type",
            "traceparent",
            "expect",
        ] {
            let text = check_request(request(&[(name, "1")], "text/plain")).unwrap_err();
            assert!(text.contains("may not set"), "{name}: {text}");
        }
        for (name, value) in [("", "x"), ("a b", "x"), ("x:y", "x"), ("x", "a\r\nb: c"), ("x", "a\0"), ("größe", "x")]
        {
            let text = check_request(request(&[(name, value)], "text/plain")).unwrap_err();
            assert!(text.contains("not valid in HTTP"), "{name}: {text}");
        }
        let many = vec![("x-a", "1"); HEADERS_MAX + 1];
        assert!(check_request(request(&many, "text/plain")).unwrap_err().contains("65 headers"));
        let long = "v".repeat(HEADER_BYTES_MAX);
        assert!(check_request(request(&[("x", &long)], "text/plain")).unwrap_err().contains("8192 are allowed"));
        for content_type in ["", "json", "a/b/c", "text/", "text/plain\n", "text/plain; x=\u{0}"] {
            assert!(check_request(request(&[], content_type)).is_err(), "{content_type:?}");
        }
    }

    #[test]
    fn reasons_and_errors_are_cut_and_escaped() {
        let event = event::sample("evt_1", "order.created", "{}");
        let verdict = check(Ok(types::Verdict::Drop("é".repeat(1000))), &event, 1 << 20).unwrap();
        assert_eq!(verdict, Verdict::Drop("é".repeat(512)));
        let error = types::Error { code: "missing\n".into(), message: "no `to`\u{7}".into(), retryable: false };
        let fault = check(Err(error), &event, 1 << 20).unwrap_err();
        assert_eq!(
            fault,
            Fault { kind: PluginFaultKind::Error, detail: "missing\\n: no `to`\\u{7}".into(), retryable: false }
        );
        let fault = check(Ok(types::Verdict::Drop("x".repeat(11))), &event, 10).unwrap_err();
        assert_eq!(fault.kind, PluginFaultKind::BadOutput);
    }
}
