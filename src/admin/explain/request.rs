//! What would be sent, as an operator may see it: no path or query of the URL, no value of a header that may be a secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::delivery::{DeliveryId, EventHead, Request};
use crate::endpoint::Endpoint;
use crate::send::{Heading, may_be_secret};

/// A request that would be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestShown {
    /// Always `POST`.
    pub method: String,
    /// Scheme, host and port.
    pub url: String,
    /// The headers; those of a first attempt made now.
    pub headers: Vec<Header>,
    /// Why the attempt would fail: no headers can be made, or no delivery may go to this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// How long the body is.
    pub body_bytes: usize,
    /// The body, where it was asked for and is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in base64, where it was asked for and is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// A header of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// In lower case.
    pub name: String,
    /// `***` where it may be a secret.
    pub value: String,
}

impl RequestShown {
    pub(super) fn of(
        endpoint: &Endpoint,
        delivery: &DeliveryId,
        event: &EventHead,
        subscription: &str,
        request: &Request,
        with_body: bool,
        at: Timestamp,
    ) -> Self {
        let heading = Heading { endpoint, delivery, event, subscription, number: 1, at, span: 1, request };
        let (headers, fault) = match heading.headers() {
            Ok(headers) => (shown(&headers), None),
            Err(fault) => (Vec::new(), Some(fault.to_string())),
        };
        let text = std::str::from_utf8(&request.body).ok();
        Self {
            method: http::Method::POST.to_string(),
            url: endpoint.url.to_string(),
            headers,
            fault,
            body_bytes: request.body.len(),
            body: text.filter(|_| with_body).map(str::to_owned),
            body_base64: (with_body && text.is_none()).then(|| STANDARD.encode(&request.body)),
        }
    }
}

fn shown(headers: &HeaderMap) -> Vec<Header> {
    let show = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let value = if may_be_secret(name, value) {
            "***".to_owned()
        } else {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        Header { name: name.to_string(), value }
    };
    let mut headers: Vec<_> = headers.iter().map(show).collect();
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    headers
}
