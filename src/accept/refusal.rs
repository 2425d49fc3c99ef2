//! Every answer that is no success, in one table: RFC 9457 problems that say whose fault it is and whether to
//! send again. They repeat names of keys, cut and made harmless, and never a value, a key or a header.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::fault::{Fault, Faults};
use super::gate::Closure;
use super::listener::{HEAD_BYTES_MAX, HEADERS_MAX};

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request's head is wrong; says what.
    BadHead(&'static str),
    /// What came can't be read as a request; hyper has chosen the status.
    Unreadable(StatusCode),
    /// No source has the path.
    UnknownPath,
    /// Not `POST`.
    Method,
    /// No key, or none of the source's.
    Unauthorized,
    /// No certificate of the client, or none that the source takes.
    Certificate,
    /// Neither a length nor chunks.
    LengthRequired,
    /// The body is longer than the source allows.
    TooLarge {
        /// What it allows.
        body_bytes_max: usize,
    },
    /// More events than a request may have.
    TooManyEvents {
        /// What it may have.
        batch_events_max: usize,
    },
    /// No `content-type`, or one that is not taken.
    ContentType,
    /// JSON in another encoding than UTF-8.
    Charset,
    /// A compressed body.
    ContentEncoding,
    /// An `expect` that is not `100-continue`.
    Expectation,
    /// The body did not arrive in time.
    SlowBody {
        /// How long it may take.
        body_timeout: Duration,
    },
    /// The body ended early, or its chunks are wrong.
    BrokenBody,
    /// The body is empty, not UTF-8 or not JSON; says where.
    NotJson(Cow<'static, str>),
    /// The body's events are not what events are.
    NotAnEnvelope(Faults),
    /// The source has sent as many events as its quota lets it.
    OverQuota {
        /// When these may be sent.
        wait: Duration,
    },
    /// The gate is shut.
    Shut(Closure),
    /// The listener, or the peer's address, has as many connections and requests as it may.
    NoPlace,
    /// The bodies that are being read or stored take all the memory they may.
    BodiesFull,
    /// The store has no room.
    StoreFull,
    /// The store did not answer, or with an error.
    StoreUnsure,
    /// A bug of this program.
    Internal,
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: Cow<'a, str>,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
}

const AGAIN: &str = "nothing was stored; it is safe to send the request again";
const UNSURE: &str = "it is unknown whether the events are stored; it is safe to send them again with the same ids, \
    since a stored one is then answered as a duplicate";
const UNCHANGED: &str = "sending the request again unchanged gives the same answer";

impl Refusal {
    /// Status, the last part of `type`, title, and detail.
    fn parts(&self) -> (StatusCode, &'static str, &'static str, Cow<'_, str>) {
        use StatusCode as S;
        let unchanged = |what: &str| Cow::Owned(format!("{what}; {UNCHANGED}"));
        let again = |what: &str| Cow::Owned(format!("{what}; {AGAIN}"));
        match self {
            Self::BadHead(what) => (S::BAD_REQUEST, "bad-request", "The request is malformed", unchanged(what)),
            Self::Unreadable(status @ (S::REQUEST_HEADER_FIELDS_TOO_LARGE | S::URI_TOO_LONG)) => (
                *status,
                "head-too-large",
                "The request's head is too large",
                unchanged(&format!("a head has at most {HEADERS_MAX} header lines and {HEAD_BYTES_MAX} bytes")),
            ),
            Self::Unreadable(status) => {
                (*status, "bad-request", "The request is malformed", unchanged("its head is not one of HTTP/1.1"))
            }
            Self::UnknownPath => (
                S::NOT_FOUND,
                "unknown-path",
                "No source has this path",
                unchanged("sources and their paths are set in the router's config"),
            ),
            Self::Method => (
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Events are sent with POST",
                unchanged("a source takes `POST` only"),
            ),
            // One text for no key, an unknown one and a wrong scheme: it tells a stranger nothing.
            Self::Unauthorized => (
                S::UNAUTHORIZED,
                "unauthorized",
                "A key of this source is needed",
                "send `authorization: Bearer KEY` with one of the source's keys; nothing was stored".into(),
            ),
            Self::Certificate => (
                S::FORBIDDEN,
                "client-certificate",
                "A client certificate of this source is needed",
                unchanged(
                    "the connection must show a certificate that has one of the source's names; nothing was stored",
                ),
            ),
            Self::LengthRequired => (
                S::LENGTH_REQUIRED,
                "length-required",
                "The body's length is needed",
                unchanged("send `content-length`, or `transfer-encoding: chunked`"),
            ),
            Self::TooLarge { body_bytes_max } => (
                S::PAYLOAD_TOO_LARGE,
                "too-large",
                "The body is too large",
                unchanged(&format!("a body of this source has at most {body_bytes_max} bytes")),
            ),
            Self::TooManyEvents { batch_events_max } => (
                S::PAYLOAD_TOO_LARGE,
                "too-many-events",
                "The batch has too many events",
                unchanged(&format!("a request has at most {batch_events_max} events; nothing was stored")),
            ),
            Self::ContentType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "content-type",
                "The content type is not taken",
                unchanged(
                    "send `application/json`, `application/x-ndjson`, `application/cloudevents+json` or \
                     `application/cloudevents-batch+json`",
                ),
            ),
            Self::Charset => {
                (S::UNSUPPORTED_MEDIA_TYPE, "charset", "The encoding is not taken", unchanged("JSON is sent in UTF-8"))
            }
            Self::ContentEncoding => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "content-encoding",
                "Compressed bodies are not taken",
                unchanged("send the body without `content-encoding`"),
            ),
            Self::Expectation => (
                S::EXPECTATION_FAILED,
                "expectation",
                "The expectation can't be met",
                unchanged("`expect` may only be `100-continue`"),
            ),
            Self::SlowBody { body_timeout } => (
                S::REQUEST_TIMEOUT,
                "slow-body",
                "The body did not arrive in time",
                again(&format!("a whole body must arrive within {}", humantime::format_duration(*body_timeout))),
            ),
            Self::BrokenBody => (
                S::BAD_REQUEST,
                "broken-body",
                "The body is broken",
                again("the body ended before its declared length, or its chunks are malformed"),
            ),
            Self::NotJson(what) => (S::BAD_REQUEST, "not-json", "The body is not JSON", unchanged(what)),
            Self::NotAnEnvelope(faults) => {
                let (count, listed) = (faults.count(), faults.list().len());
                let cut = if count > listed {
                    format!("; the first {listed} of {count} errors are listed")
                } else {
                    String::new()
                };
                (
                    S::UNPROCESSABLE_ENTITY,
                    "not-an-envelope",
                    "The body is JSON, but not an event",
                    unchanged(&format!("nothing of the request was stored{cut}")),
                )
            }
            Self::OverQuota { .. } => (
                S::TOO_MANY_REQUESTS,
                "over-quota",
                "The source is over its quota",
                again("the source has sent as many events as its `rate` in the router's config lets it"),
            ),
            Self::Shut(Closure::Backlog) => (
                S::SERVICE_UNAVAILABLE,
                "backlog-full",
                "Too many events wait to be delivered",
                again("the router takes no events until some are delivered"),
            ),
            Self::Shut(Closure::StoreShort) => (
                S::SERVICE_UNAVAILABLE,
                "store-nearly-full",
                "The store is nearly full",
                again("the router takes no events until its store has room again"),
            ),
            Self::Shut(Closure::StoreAway) => (
                S::SERVICE_UNAVAILABLE,
                "store-away",
                "The store can't be reached",
                again("the router takes no events until its store is back"),
            ),
            Self::Shut(Closure::Draining) => (
                S::SERVICE_UNAVAILABLE,
                "stopping",
                "The router is stopping",
                again("the router takes no more events before it is started again"),
            ),
            Self::NoPlace => (
                S::SERVICE_UNAVAILABLE,
                "too-many-connections",
                "Too many connections",
                again(
                    "the router has as many connections as it may, and each request on one of HTTP/2 counts like one",
                ),
            ),
            Self::BodiesFull => (
                S::SERVICE_UNAVAILABLE,
                "bodies-full",
                "Too many bodies at once",
                again("the bodies of all requests take the memory they may"),
            ),
            Self::StoreFull => (S::SERVICE_UNAVAILABLE, "store-full", "The store is full", UNSURE.into()),
            Self::StoreUnsure => (S::SERVICE_UNAVAILABLE, "store-unsure", "The store did not answer", UNSURE.into()),
            Self::Internal => (
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "Branchline failed",
                again("this is a bug of the router; its log has more"),
            ),
        }
    }

    /// When a producer may try again, in seconds.
    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Shut(Closure::Backlog | Closure::StoreShort) | Self::StoreFull => Some(10),
            Self::Shut(Closure::StoreAway | Closure::Draining) | Self::StoreUnsure => Some(5),
            Self::BodiesFull | Self::NoPlace => Some(1),
            // Whole seconds, and never too early.
            Self::OverQuota { wait } => Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
            Self::BadHead(_)
            | Self::Unreadable(_)
            | Self::UnknownPath
            | Self::Method
            | Self::Unauthorized
            | Self::Certificate
            | Self::LengthRequired
            | Self::TooLarge { .. }
            | Self::TooManyEvents { .. }
            | Self::ContentType
            | Self::Charset
            | Self::ContentEncoding
            | Self::Expectation
            | Self::SlowBody { .. }
            | Self::BrokenBody
            | Self::NotJson(_)
            | Self::NotAnEnvelope(_)
            | Self::Internal => None,
        }
    }

    /// Whether the connection ends with the answer, because what follows on it can't be trusted or is not wanted.
    pub(super) const fn closes(&self) -> bool {
        matches!(
            self,
            Self::BadHead(_)
                | Self::Unreadable(_)
                | Self::LengthRequired
                | Self::TooLarge { .. }
                | Self::Expectation
                | Self::SlowBody { .. }
                | Self::BrokenBody
                | Self::BodiesFull
                | Self::Shut(Closure::Draining)
        )
    }

    /// The status it is answered with.
    pub(super) fn status(&self) -> StatusCode {
        self.parts().0
    }

    /// The last part of `type`: its name in logs.
    pub(super) fn name(&self) -> &'static str {
        self.parts().1
    }

    /// The problem as JSON.
    pub(super) fn body(&self) -> Vec<u8> {
        let (status, name, title, detail) = self.parts();
        let errors = if let Self::NotAnEnvelope(faults) = self { faults.list() } else { &[] };
        let problem = Problem { r#type: format!("/problems/{name}"), title, status: status.as_u16(), detail, errors };
        serde_json::to_vec(&problem).expect("a problem has string keys only")
    }

    /// The answer.
    pub(super) fn response(&self, close: bool) -> Response<Full<Bytes>> {
        let status = self.status();
        let mut response = Response::new(Full::new(Bytes::from(self.body())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_refusal_is_a_problem_with_pointers() {
        let mut faults = Faults::new();
        faults.add("payload", || "`payload` is required".to_owned());
        let response = Refusal::NotAnEnvelope(faults).response(false);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            body,
            r#"{"type":"/problems/not-an-envelope","title":"The body is JSON, but not an event","status":422,"detail":"nothing of the request was stored; sending the request again unchanged gives the same answer","errors":[{"pointer":"/payload","detail":"`payload` is required"}]}"#
        );
    }

    #[test]
    fn every_503_says_when_to_come_back() {
        for refusal in [
            Refusal::Shut(Closure::Backlog),
            Refusal::Shut(Closure::StoreShort),
            Refusal::Shut(Closure::StoreAway),
            Refusal::Shut(Closure::Draining),
            Refusal::BodiesFull,
            Refusal::NoPlace,
            Refusal::StoreFull,
            Refusal::StoreUnsure,
        ] {
            let response = refusal.response(false);
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(response.headers().contains_key(RETRY_AFTER), "{refusal:?}");
        }
        assert!(Refusal::Shut(Closure::Draining).closes());
        assert_eq!(Refusal::Shut(Closure::Draining).response(true).headers()[CONNECTION], "close");
    }

    #[test]
    fn a_405_and_a_401_say_what_is_wanted() {
        assert_eq!(Refusal::Method.response(false).headers()[ALLOW], "POST");
        assert_eq!(Refusal::Unauthorized.response(false).headers()[WWW_AUTHENTICATE], "Bearer");
        assert!(!Refusal::Unauthorized.response(false).headers().contains_key(CONNECTION));
        assert_eq!(Refusal::Unauthorized.response(true).headers()[CONNECTION], "close");
    }
}
