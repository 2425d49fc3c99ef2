//! Where deliveries go. An `Endpoint` that exists is valid: its URL, secrets and headers were parsed at the door.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use crate::rate::Rate;
use crate::route::RetrySchedule;
use crate::secret::Secret;
use crate::tls::EndpointTls;

/// A receiver of deliveries.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The name in the config.
    pub name: Arc<str>,
    /// Where to POST.
    pub url: EndpointUrl,
    /// What signs: the first is the current secret, the others are still accepted by receivers while it is rotated.
    pub signing_keys: Vec<SigningKey>,
    /// The bound on one attempt in all: name look-up, connection, request, answer.
    pub timeout: Duration,
    /// The bound on name look-up and connection, TLS included; part of `timeout`.
    pub connect_timeout: Duration,
    /// How many attempts may be under way at once.
    pub max_in_flight: usize,
    /// How many failed attempts in a row open its breaker; `None` for no breaker.
    pub breaker: Option<u32>,
    /// How many attempts may begin in so much time, by each router; `None` for as many as it takes.
    pub rate: Option<Rate>,
    /// Headers that every request carries. Their values may be secrets and are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What the body is when no plugin made one.
    pub format: BodyFormat,
    /// The schedule for subscriptions that set none of their own.
    pub retry: Option<RetrySchedule>,
    /// What it wants of TLS that is not usual.
    pub tls: Option<Arc<EndpointTls>>,
}

/// What the body of a delivery is when no plugin made one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyFormat {
    /// The event's envelope.
    #[default]
    Envelope,
    /// The payload alone.
    Payload,
    /// A structured CloudEvent 1.0 (`application/cloudevents+json`).
    CloudEvents,
}

/// What signs a delivery, by the Standard Webhooks specification.
#[derive(Clone, PartialEq, Eq)]
pub enum SigningKey {
    /// `whsec_…`: HMAC-SHA256, signature `v1`. 24 to 64 bytes.
    Hmac(Arc<[u8]>),
    /// `whsk_…`: ed25519, signature `v1a`.
    Ed25519(Box<ed25519_dalek::SigningKey>),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hmac(_) => "Hmac(***)",
            Self::Ed25519(_) => "Ed25519(***)",
        })
    }
}

/// An absolute `http` or `https` URL without user info or fragment. Printed without path and query, which may hold a token.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointUrl {
    uri: Uri,
    host: HeaderValue,
}

/// Why a text is not an endpoint's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It does not parse.
    #[error("not a URL")]
    Malformed,
    /// Neither `http` nor `https`.
    #[error("the scheme must be `https` or `http`")]
    Scheme,
    /// No host.
    #[error("the URL has no host")]
    Host,
    /// `:99999`, `:http`.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// `user:password@host`.
    #[error("user info in a URL is not allowed; use `headers` with a secret instead")]
    UserInfo,
    /// `#fragment`.
    #[error("a fragment (`#…`) is never sent; remove it")]
    Fragment,
}

impl EndpointUrl {
    /// Parses and checks a URL.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.contains('#') {
            return Err(UrlError::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        match uri.scheme_str() {
            Some("https" | "http") => {}
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Malformed),
        }
        let authority = uri.authority().ok_or(UrlError::Host)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() || authority.as_str().ends_with(':') {
            return Err(UrlError::Host);
        }
        // The parser lets any text stand for the port and then has none, which would mean the scheme's own.
        match authority.as_str()[host.len()..].strip_prefix(':') {
            Some(port)
                if port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0) => {}
            None if authority.as_str() == host => {}
            Some(_) | None => return Err(UrlError::Port),
        }
        // The scheme's own port goes without saying.
        let host = match (uri.port_u16(), uri.scheme_str()) {
            (None, _) | (Some(443), Some("https")) | (Some(80), Some("http")) => HeaderValue::from_str(host),
            (Some(port), _) => HeaderValue::try_from(format!("{host}:{port}")),
        };
        let host = host.map_err(|_| UrlError::Host)?;
        Ok(Self { uri, host })
    }

    /// The URL for the client. Path and query may hold a token: don't log it.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The header `host` of HTTP/1.1.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Takes the URL in as a secret does: the whole of it, for comparing two.
    pub fn expose(&self) -> Secret {
        Secret::new(self.uri.to_string())
    }
}

impl fmt::Display for EndpointUrl {
    /// Scheme, host and port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.uri.scheme_str().unwrap_or_default(), self.uri.authority().map_or("", |a| a.as_str()))
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_printed_without_their_path() {
        let url = EndpointUrl::parse("https://hooks.example.com:8443/T000/token?x=1").unwrap();
        assert_eq!(url.to_string(), "https://hooks.example.com:8443");
        assert_eq!(EndpointUrl::parse("http://[::1]:65535").unwrap().to_string(), "http://[::1]:65535");
        assert_eq!(EndpointUrl::parse("http://[::1]?x").unwrap().to_string(), "http://[::1]");
        for (text, error) in [
            ("ftp://example.com", UrlError::Scheme),
            ("/relative", UrlError::Malformed),
            ("https://user:pw@example.com/", UrlError::UserInfo),
            ("https://example.com/#part", UrlError::Fragment),
            ("https://", UrlError::Malformed),
            ("https://example.com:/", UrlError::Host),
            ("https://example.com:0/", UrlError::Port),
            ("https://example.com:99999/", UrlError::Port),
            ("https://example.com:+80/", UrlError::Port),
            ("https://example.com:80a/", UrlError::Port),
            ("https://[::1]80/", UrlError::Port),
            ("not a url", UrlError::Malformed),
        ] {
            assert_eq!(EndpointUrl::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_host_is_told_without_the_scheme_s_own_port() {
        for (url, expected) in [
            ("http://hooks.example.com", "hooks.example.com"),
            ("http://Hooks.example.com:80/x?y", "Hooks.example.com"),
            ("https://hooks.example.com:443/", "hooks.example.com"),
            ("https://hooks.example.com:80/", "hooks.example.com:80"),
            ("http://hooks.example.com:443/", "hooks.example.com:443"),
            ("http://hooks.example.com:08080/", "hooks.example.com:8080"),
            ("http://[::1]:8080/", "[::1]:8080"),
            ("https://[::1]/", "[::1]"),
        ] {
            assert_eq!(EndpointUrl::parse(url).unwrap().host(), expected, "{url}");
        }
    }
}
