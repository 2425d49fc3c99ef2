//! What a body is said to be: `content-type` and `content-encoding`.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::cloud_event;
use super::refusal::Refusal;

/// How a body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// One envelope or an array of them.
    Envelopes,
    /// An envelope in each line.
    Lines,
    /// A CloudEvent in structured mode.
    CloudEvent,
    /// An array of CloudEvents.
    CloudEventBatch,
    /// The data of a CloudEvent in binary mode.
    CloudEventData,
}

/// What the headers say the body is.
pub(super) fn body_kind(headers: &HeaderMap) -> Result<BodyKind, Refusal> {
    if headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::ContentEncoding);
    }
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let value = values.next().ok_or(Refusal::ContentType)?;
    if values.next().is_some() {
        return Err(Refusal::BadHead("`content-type` is there more than once"));
    }
    let mut parts = value.to_str().map_err(|_| Refusal::ContentType)?.split(';').map(str::trim_ascii);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name.eq_ignore_ascii_case("charset") && !value.trim_matches('"').eq_ignore_ascii_case("utf-8") {
            return Err(Refusal::Charset);
        }
    }
    let binary = cloud_event::is_binary(headers);
    let kind = match essence.as_str() {
        "application/cloudevents+json" => BodyKind::CloudEvent,
        "application/cloudevents-batch+json" => BodyKind::CloudEventBatch,
        "application/json" if binary => return Ok(BodyKind::CloudEventData),
        other if binary && other.starts_with("application/") && other.ends_with("+json") => {
            return Ok(BodyKind::CloudEventData);
        }
        "application/json" => BodyKind::Envelopes,
        "application/x-ndjson" => BodyKind::Lines,
        _ => return Err(Refusal::ContentType),
    };
    // Two CloudEvents in one request: whoever reads only one of them is misled.
    if binary {
        Err(Refusal::BadHead("`ce-` headers have no place beside a body that is not a CloudEvent's data"))
    } else {
        Ok(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_and_what_they_mean() {
        let kind = |headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            body_kind(&map)
        };
        for (value, expected) in [
            ("application/json", BodyKind::Envelopes),
            ("Application/JSON ; Charset=\"UTF-8\"; x=y", BodyKind::Envelopes),
            ("application/x-ndjson", BodyKind::Lines),
            ("application/cloudevents+json; charset=utf-8", BodyKind::CloudEvent),
            ("application/cloudevents-batch+json", BodyKind::CloudEventBatch),
        ] {
            assert_eq!(kind(&[("content-type", value)]), Ok(expected), "{value}");
        }
        for value in ["", "text/plain", "application/jsonp", "application/vnd.x+json", "application/cloudevents+xml"] {
            assert_eq!(kind(&[("content-type", value)]), Err(Refusal::ContentType), "{value}");
        }
        assert_eq!(kind(&[]), Err(Refusal::ContentType));
        assert_eq!(kind(&[("content-type", "application/json; charset=latin1")]), Err(Refusal::Charset));
        let json = ("content-type", "application/json");
        assert_eq!(kind(&[json, ("content-encoding", "gzip")]), Err(Refusal::ContentEncoding));
        assert_eq!(kind(&[json, ("content-encoding", "identity")]), Ok(BodyKind::Envelopes));
        assert!(matches!(kind(&[json, json]), Err(Refusal::BadHead(_))));
        assert_eq!(kind(&[json, ("ce-id", "1")]), Ok(BodyKind::CloudEventData));
        assert_eq!(kind(&[("content-type", "application/vnd.x+json"), ("ce-id", "1")]), Ok(BodyKind::CloudEventData));
        assert!(matches!(
            kind(&[("content-type", "application/cloudevents+json"), ("ce-id", "1")]),
            Err(Refusal::BadHead(_))
        ));
    }
}
