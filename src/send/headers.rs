//! The headers of an attempt, and which of them plugins and endpoints may set.
//!
//! A plugin's headers come first, Branchline's own replace them, the endpoint's replace both. What
//! frames the message, names the host or vouches for the sender is nobody's but Branchline's.

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use super::sign;
use crate::clock::Timestamp;
use crate::delivery::{DeliveryId, EventHead, Request};
use crate::endpoint::Endpoint;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const BRANCHLINE_EVENT: HeaderName = HeaderName::from_static("branchline-event");
const BRANCHLINE_EVENT_TYPE: HeaderName = HeaderName::from_static("branchline-event-type");
const BRANCHLINE_SUBSCRIPTION: HeaderName = HeaderName::from_static("branchline-subscription");
const BRANCHLINE_ATTEMPT: HeaderName = HeaderName::from_static("branchline-attempt");
const OUR_USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("branchline/", env!("CARGO_PKG_VERSION")));
/// Branchline's own headers; room for them is made at once.
const OWN_HEADERS: usize = 10;

/// Headers that a plugin may ask for.
pub const PLUGIN_HEADERS_MAX: usize = 64;
/// Their names and values together, content type included.
pub const PLUGIN_HEADER_BYTES_MAX: usize = 16 * 1024;

/// Why a header can't be sent. Never shows a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// More than [`PLUGIN_HEADERS_MAX`].
    #[error("{0} headers; at most {PLUGIN_HEADERS_MAX} are allowed")]
    TooMany(usize),
    /// More than [`PLUGIN_HEADER_BYTES_MAX`].
    #[error("{0} bytes of headers; at most {PLUGIN_HEADER_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Empty, or with characters that a name can't have.
    #[error("a header's name is not one")]
    Name,
    /// Branchline's to set.
    #[error("the header `{0}` is set by Branchline alone")]
    Reserved(String),
    /// With characters that a value can't have.
    #[error("the value of the header `{0}` has characters that a header can't have")]
    Value(String),
}

/// Checks the headers that a plugin asked for; returns them with their names in lower case, as [`Request`] has them.
///
/// `authorization` and `cookie` are allowed: a plugin's config may hold the receiver's key.
pub fn check_plugin_headers(
    content_type: &str,
    headers: Vec<(String, String)>,
) -> Result<Vec<(String, String)>, HeaderFault> {
    if headers.len() > PLUGIN_HEADERS_MAX {
        return Err(HeaderFault::TooMany(headers.len()));
    }
    let bytes = content_type.len() + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if bytes > PLUGIN_HEADER_BYTES_MAX {
        return Err(HeaderFault::TooLong(bytes));
    }
    if HeaderValue::from_str(content_type).is_err() || content_type.is_empty() {
        return Err(HeaderFault::Value(CONTENT_TYPE.to_string()));
    }
    headers
        .into_iter()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderFault::Name)?;
            if !plugin_may_set(name.as_str()) {
                return Err(HeaderFault::Reserved(name.to_string()));
            }
            if HeaderValue::from_str(&value).is_err() {
                return Err(HeaderFault::Value(name.to_string()));
            }
            Ok((name.to_string(), value))
        })
        .collect()
}

/// Whether a plugin may set the header. `content-type` it gives apart, `user-agent` tells receivers who
/// calls, and whatever else looks like a signature of the standard or a word to a proxy is not a plugin's to say.
fn plugin_may_set(name: &str) -> bool {
    endpoint_may_set(name)
        && !matches!(name, "content-type" | "user-agent")
        && !name.starts_with("webhook-")
        && !name.starts_with("proxy-")
}

/// Whether the operator may set the header on an endpoint: not what frames the message or says where it
/// goes, nor what receivers take as Branchline's word. `name` is in lower case.
pub fn endpoint_may_set(name: &str) -> bool {
    !name.starts_with("branchline-")
        && !matches!(
            name,
            "connection"
                | "content-length"
                | "expect"
                | "host"
                | "keep-alive"
                | "proxy-connection"
                | "te"
                | "traceparent"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "webhook-id"
                | "webhook-signature"
                | "webhook-timestamp"
        )
}

/// Words in the names of headers whose values may be secrets, whoever set them.
const SECRET_WORDS: [&str; 7] = ["authorization", "cookie", "key", "secret", "signature", "token", "password"];

/// Whether the value of a header may be a secret, and must not be shown.
pub fn may_be_secret(name: &HeaderName, value: &HeaderValue) -> bool {
    value.is_sensitive() || SECRET_WORDS.iter().any(|word| name.as_str().contains(word))
}

/// What one attempt's request is made from.
pub struct Heading<'a> {
    /// Where to.
    pub endpoint: &'a Endpoint,
    /// Which delivery.
    pub delivery: &'a DeliveryId,
    /// Of which event.
    pub event: &'a EventHead,
    /// For which subscription.
    pub subscription: &'a str,
    /// Which attempt, from 1.
    pub number: u32,
    /// The machine's time, which receivers compare with theirs.
    pub at: Timestamp,
    /// The span of this attempt; never 0.
    pub span: u64,
    /// What is sent.
    pub request: &'a Request,
}

impl Heading<'_> {
    /// The request as it goes out.
    pub fn request(&self) -> Result<http::Request<Bytes>, HeaderFault> {
        let mut outgoing = http::Request::new(self.request.body.clone());
        *outgoing.headers_mut() = self.headers()?;
        *outgoing.method_mut() = Method::POST;
        *outgoing.uri_mut() = self.endpoint.url.uri().clone();
        Ok(outgoing)
    }

    /// All headers but the ones that frame the message.
    pub fn headers(&self) -> Result<HeaderMap, HeaderFault> {
        let Self { endpoint, delivery, event, request, .. } = self;
        let mut headers = HeaderMap::with_capacity(OWN_HEADERS + request.headers.len() + endpoint.headers.len());
        for (name, value) in &request.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderFault::Name)?;
            let value = HeaderValue::from_str(value).map_err(|_| HeaderFault::Value(name.to_string()))?;
            headers.append(name, value);
        }
        headers.insert(CONTENT_TYPE, content_type(&request.content_type)?);
        headers.insert(USER_AGENT, OUR_USER_AGENT);
        let id = delivery.as_str();
        let timestamp = self.at.as_secs().to_string();
        let signature = sign::signature(&endpoint.signing_keys, id, &timestamp, &request.body);
        if let Some(Ok(mut signature)) = signature.map(HeaderValue::try_from) {
            // No two are the same: HTTP/2 need not remember it to compress the next.
            signature.set_sensitive(true);
            headers.insert(WEBHOOK_SIGNATURE, signature);
        }
        insert(&mut headers, WEBHOOK_ID, id.to_owned());
        insert(&mut headers, WEBHOOK_TIMESTAMP, timestamp);
        insert(&mut headers, TRACEPARENT, traceparent(&event.traceparent, id, self.span));
        insert(&mut headers, BRANCHLINE_EVENT, event.id.as_bytes().clone());
        insert(&mut headers, BRANCHLINE_EVENT_TYPE, event.event_type.as_bytes().clone());
        insert(&mut headers, BRANCHLINE_SUBSCRIPTION, self.subscription.to_owned());
        headers.insert(BRANCHLINE_ATTEMPT, HeaderValue::from(self.number));
        for (index, (name, value)) in endpoint.headers.iter().enumerate() {
            if !endpoint_may_set(name.as_str()) {
                return Err(HeaderFault::Reserved(name.to_string()));
            }
            if endpoint.headers[..index].iter().any(|(earlier, _)| earlier == name) {
                headers.append(name.clone(), value.clone());
            } else {
                headers.insert(name.clone(), value.clone());
            }
        }
        Ok(headers)
    }
}

/// Sets a header of our own; one whose value can't be in a header (an event type with a line feed in
/// it) is left out, since the body has it too and the delivery must not fail for it.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: impl Into<Bytes>) {
    if let Ok(value) = HeaderValue::from_maybe_shared(value.into()) {
        headers.insert(name, value);
    }
}

fn content_type(text: &str) -> Result<HeaderValue, HeaderFault> {
    if text == super::body::JSON {
        return Ok(HeaderValue::from_static(super::body::JSON));
    }
    HeaderValue::from_str(text).map_err(|_| HeaderFault::Value(CONTENT_TYPE.to_string()))
}

/// The W3C trace context of an attempt: in the producer's trace, or else in one that the delivery's id
/// names, so that all attempts of a delivery are in one trace.
fn traceparent(producers: &str, delivery: &str, span: u64) -> String {
    let (trace, flags) = parse_traceparent(producers).unwrap_or_else(|| (trace_of(delivery), "01"));
    let mut text = String::with_capacity(55);
    for part in ["00-", trace, "-", str::from_utf8(&hex(span)).unwrap_or_default(), "-", flags] {
        text.push_str(part);
    }
    text
}

/// The 16 digits of a number.
fn hex(number: u64) -> [u8; 16] {
    std::array::from_fn(|place| b"0123456789abcdef"[(number >> (60 - 4 * place)) as usize & 15])
}

/// Trace id and flags of a valid `traceparent`; of a later version, only what version 00 has is read.
fn parse_traceparent(text: &str) -> Option<(&str, &str)> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let well_formed = is_hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && is_hex(trace, 32)
        && is_hex(parent, 16)
        && is_hex(flags, 2)
        && [trace, parent].iter().all(|id| id.bytes().any(|digit| digit != b'0'));
    well_formed.then_some((trace, flags))
}

/// The digits of `dlv_…`, which are the hex digits of a hash.
fn trace_of(delivery: &str) -> &str {
    let digits = delivery.strip_prefix("dlv_").unwrap_or_default();
    if is_hex(digits, 32) { digits } else { "00000000000000000000000000000001" }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{endpoint, head, request};
    use super::*;

    fn headers_of(endpoint: &Endpoint, event: &EventHead, request: &Request) -> Result<HeaderMap, HeaderFault> {
        Heading {
            endpoint,
            delivery: &DeliveryId::from_stored("dlv_0123456789abcdef0123456789abcdef"),
            event,
            subscription: "warehouse",
            number: 3,
            at: Timestamp::from_millis(1_700_000_000_999),
            span: 0xab,
            request,
        }
        .headers()
    }

    #[test]
    fn an_attempt_carries_branchline_s_headers() {
        let headers = headers_of(&endpoint("http://127.0.0.1/"), &head(), &request("{}")).unwrap();
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "branchline-attempt: 3",
                "branchline-event-type: order.created",
                "branchline-event: evt_1",
                "branchline-subscription: warehouse",
                "content-type: application/json",
                "traceparent: 00-0123456789abcdef0123456789abcdef-00000000000000ab-01",
                concat!("user-agent: branchline/", env!("CARGO_PKG_VERSION")),
                "webhook-id: dlv_0123456789abcdef0123456789abcdef",
                "webhook-timestamp: 1700000000",
            ]
        );
    }

    #[test]
    fn the_endpoint_s_headers_win_over_branchline_s_and_those_over_the_plugin_s() {
        let mut endpoint = endpoint("http://127.0.0.1/");
        let mut request = request("{}");
        for (name, value) in [("x-a", "plugin"), ("x-b", "plugin"), ("webhook-id", "dlv_forged")] {
            request.headers.push((name.to_owned(), value.to_owned()));
        }
        for (name, value) in [("x-a", "one"), ("x-a", "two"), ("user-agent", "ours")] {
            endpoint.headers.push((HeaderName::from_static(name), HeaderValue::from_static(value)));
        }
        let headers = headers_of(&endpoint, &head(), &request).unwrap();
        let all = |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("x-a"), ["one", "two"]);
        assert_eq!(all("x-b"), ["plugin"]);
        assert_eq!(all("user-agent"), ["ours"]);
        assert_eq!(all("webhook-id"), ["dlv_0123456789abcdef0123456789abcdef"]);
    }

    #[test]
    fn no_value_makes_it_panic() {
        let mut event = head();
        event.event_type = "order\r\nx-evil: 1".into();
        event.id = "caf\u{e9}".into();
        let headers = headers_of(&endpoint("http://127.0.0.1/"), &event, &request("{}")).unwrap();
        assert!(!headers.contains_key("branchline-event-type"));
        assert_eq!(headers["branchline-event"].as_bytes(), "caf\u{e9}".as_bytes());
        let mut split = request("{}");
        split.content_type = "text/plain\r\nx-evil: 1".to_owned();
        assert!(headers_of(&endpoint("http://127.0.0.1/"), &event, &split).is_err());
        let mut framed = endpoint("http://127.0.0.1/");
        framed.headers.push((HeaderName::from_static("content-length"), HeaderValue::from_static("1")));
        assert!(headers_of(&framed, &event, &request("{}")).is_err());
    }

    #[test]
    fn a_plugin_can_neither_frame_the_message_nor_vouch_for_it() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "connection",
            "keep-alive",
            "TE",
            "trailer",
            "upgrade",
            "expect",
            "proxy-connection",
            "proxy-authorization",
            "webhook-id",
            "Webhook-Signature",
            "webhook-anything",
            "branchline-attempt",
            "traceparent",
            "user-agent",
            "content-type",
        ] {
            assert_eq!(
                check_plugin_headers("text/plain", vec![(name.to_owned(), "x".to_owned())]),
                Err(HeaderFault::Reserved(name.to_lowercase())),
            );
        }
        for (name, value, fault) in [
            ("", "x", HeaderFault::Name),
            ("x y", "x", HeaderFault::Name),
            ("x\r\ny", "x", HeaderFault::Name),
            (":path", "x", HeaderFault::Name),
            ("x-caf\u{e9}", "x", HeaderFault::Name),
            ("x-a", "x\r\ny: z", HeaderFault::Value("x-a".to_owned())),
            ("x-a", "\0", HeaderFault::Value("x-a".to_owned())),
        ] {
            assert_eq!(check_plugin_headers("text/plain", vec![(name.to_owned(), value.to_owned())]), Err(fault));
        }
        assert_eq!(
            check_plugin_headers("text/plain", vec![("Authorization".to_owned(), "Bearer x".to_owned())]).unwrap(),
            [("authorization".to_owned(), "Bearer x".to_owned())]
        );
        assert!(check_plugin_headers("", vec![]).is_err());
        assert!(check_plugin_headers("a\nb", vec![]).is_err());
        assert!(check_plugin_headers("a/b", vec![("x".to_owned(), String::new()); 65]).is_err());
        assert!(check_plugin_headers("a/b", vec![("x".to_owned(), "y".repeat(16 * 1024))]).is_err());
    }

    #[test]
    fn the_producer_s_trace_goes_on_and_a_broken_one_does_not() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            traceparent(&format!("00-{trace}-00f067aa0ba902b7-00"), "dlv_x", 1),
            format!("00-{trace}-0000000000000001-00")
        );
        assert_eq!(
            traceparent(&format!("cc-{trace}-00f067aa0ba902b7-01-what-the-future-will-be"), "dlv_x", 1),
            format!("00-{trace}-0000000000000001-01")
        );
        for broken in [
            "",
            "00",
            &format!("ff-{trace}-00f067aa0ba902b7-01"),
            &format!("00-{trace}-00f067aa0ba902b7-01-more"),
            &format!("00-{trace}-0000000000000000-01"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            &format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            &format!("00-{trace}-00f067aa0ba902b7-0\u{e9}"),
        ] {
            assert_eq!(
                traceparent(broken, "dlv_0123456789abcdef0123456789abcdef", 2),
                "00-0123456789abcdef0123456789abcdef-0000000000000002-01",
                "{broken}"
            );
        }
    }
}
