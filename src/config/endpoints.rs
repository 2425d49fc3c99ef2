//! `[endpoints.NAME]`: where deliveries go, and how.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::files::OwnTls;
use super::reader::{Entry, Table};
use super::secrets::{Plain, Shape};
use super::values::{self, KIB, MILLISECOND, days, seconds};
use crate::endpoint::{BodyFormat, Endpoint, EndpointUrl, SigningKey};
use crate::route::RetrySchedule;
use crate::tls::EndpointTls;

const SIGNING_KEYS_MAX: usize = 8;
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 8 * KIB;
const URL_BYTES_MAX: usize = 8 * KIB;
const RETRIES_MAX: usize = 50;
const TIMEOUT: Duration = seconds(3);
const TIMEOUT_MAX: Duration = seconds(60);
const CONNECT_TIMEOUT: Duration = seconds(5);
const ATTEMPTS_IN_FLIGHT: usize = 64;
/// Failed attempts in a row that open an endpoint's breaker: more than a few that were under way when it restarted.
const BREAKER: u32 = 10;
const BREAKER_MAX: u32 = 10_000;

/// Headers that frame a request or that the router sets itself; so are those that start with `branchline-`.
const OWN_HEADERS: [&str; 17] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// All endpoints, by name.
pub(super) fn endpoints(table: Table<'_>) -> Vec<Arc<Endpoint>> {
    let endpoint = |(name, entry): (Arc<str>, Entry<'_>)| {
        Arc::new(entry.table().map_or_else(|| Endpoint::stand_in(&name), |table| endpoint(Arc::clone(&name), table)))
    };
    table.named().into_iter().map(endpoint).collect()
}

fn endpoint(name: Arc<str>, mut table: Table<'_>) -> Endpoint {
    let url = table.require_secret("url", "where to post, for example `url = { env = \"NAME\" }`");
    let url = url.and_then(|entry| entry.endpoint_url());
    let signing_keys = table.find_secret("secret").and_then(|entry| entry.one_or_list(SIGNING_KEYS_MAX));
    let signing_keys: Vec<SigningKey> =
        signing_keys.into_iter().flatten().filter_map(|entry| entry.signing_key()).collect();
    let timeout = table.duration("timeout", TIMEOUT, MILLISECOND..=TIMEOUT_MAX);
    let connect_timeout = match table.find("connect_timeout") {
        Some(entry) => {
            let limit = entry.parse(|text| values::duration(text, &(MILLISECOND..=TIMEOUT_MAX)));
            if limit.is_some_and(|limit| limit > timeout) {
                entry.fault(format!("is part of the timeout, so it can't exceed {}", values::show_duration(timeout)));
            }
            limit.unwrap_or(timeout)
        }
        None => timeout.min(CONNECT_TIMEOUT),
    };
    let max_in_flight = table.count("max_in_flight", ATTEMPTS_IN_FLIGHT, 1..=10_000);
    let breaker = table.find("breaker").map_or(Some(BREAKER), |entry| entry.breaker());
    let rate = table.find("rate").and_then(|entry| entry.parse(values::rate));
    let headers = table.find_secret("headers").and_then(|entry| entry.headers()).unwrap_or_default();
    let format = table.parsed("format", BodyFormat::default(), body_format);
    let retry = table.find("retry").and_then(|entry| entry.retry());
    let tls = table.find("tls").and_then(|entry| entry.endpoint_tls());
    table.end();
    Endpoint {
        name,
        url: url.unwrap_or_else(EndpointUrl::stand_in),
        signing_keys,
        timeout,
        connect_timeout,
        max_in_flight,
        breaker,
        rate,
        headers,
        format,
        retry,
        tls,
    }
}

impl Endpoint {
    /// One that has the place of what can't be used, or that is named and not there.
    pub(super) fn stand_in(name: &str) -> Self {
        Self::new(name, EndpointUrl::stand_in())
    }

    /// One of which a config says nothing but its URL.
    pub fn new(name: &str, url: EndpointUrl) -> Self {
        Self {
            name: name.into(),
            url,
            signing_keys: Vec::new(),
            timeout: TIMEOUT,
            connect_timeout: TIMEOUT,
            max_in_flight: ATTEMPTS_IN_FLIGHT,
            breaker: Some(BREAKER),
            rate: None,
            headers: Vec::new(),
            format: BodyFormat::default(),
            retry: None,
            tls: None,
        }
    }
}

impl EndpointUrl {
    fn stand_in() -> Self {
        Self::parse("https://stand-in.invalid/").expect("it is a URL")
    }
}

fn body_format(text: &str) -> Result<BodyFormat, String> {
    match text {
        "envelope" => Ok(BodyFormat::Envelope),
        "payload" => Ok(BodyFormat::Payload),
        "cloudevents" => Ok(BodyFormat::CloudEvents),
        _ => Err(format!("must be `envelope`, `payload` or `cloudevents`, not {}", values::quoted(text))),
    }
}

impl Entry<'_> {
    fn endpoint_url(&self) -> Option<EndpointUrl> {
        let secret = self.secret_of(Plain::Fine, Shape::Url)?;
        if secret.expose().len() > URL_BYTES_MAX {
            self.fault(format!("is longer than {}", values::show_bytes(URL_BYTES_MAX)));
            return None;
        }
        let url = match EndpointUrl::parse(secret.expose()) {
            Ok(url) => url,
            Err(error) => {
                self.fault(format!("can't be used: {error}"));
                return None;
            }
        };
        if url.uri().scheme_str() == Some("http") && !url.uri().host().is_some_and(is_loopback) {
            self.warn("is `http`, not `https`: whoever is on the way can read and change what is sent");
        }
        Some(url)
    }

    /// What the endpoint wants of TLS.
    fn endpoint_tls(&self) -> Option<Arc<EndpointTls>> {
        let mut table = self.table()?;
        let files = table.own_tls(self);
        let insecure = table.find("insecure");
        let is_insecure = insecure.as_ref().and_then(Entry::flag).unwrap_or(false);
        table.end();
        if is_insecure {
            self.warn("does not check whose certificate is shown (`insecure`): whoever is on the way can read and change what is sent");
        }
        let OwnTls { own, ca } = files?;
        match EndpointTls::read(own, ca, is_insecure) {
            Ok(tls) => Some(Arc::new(tls)),
            Err(error) => {
                self.fault(format!("can't be used: {error}"));
                None
            }
        }
    }

    /// How many failed attempts open the breaker; `None` for none.
    fn breaker(&self) -> Option<u32> {
        match self.value {
            Value::String(text) if text == "off" => None,
            Value::String(text) => {
                let found = values::quoted(text);
                self.fault(format!("must be a whole number from 1 to {BREAKER_MAX}, or `off`, not {found}"));
                None
            }
            _ => self.count(&(1..=BREAKER_MAX)),
        }
    }

    fn headers(&self) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let entries = self.table()?.entries();
        if entries.len() > HEADERS_MAX {
            self.fault(format!("has more than {HEADERS_MAX} headers"));
            return None;
        }
        Some(entries.into_iter().filter_map(|(name, entry)| entry.header(name)).collect())
    }

    fn header(&self, text: &str) -> Option<(HeaderName, HeaderValue)> {
        let Ok(name) = text.parse::<HeaderName>() else {
            self.fault("is not the name of an HTTP header");
            return None;
        };
        if OWN_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("branchline-") {
            self.fault("is a header that the router sets itself");
            return None;
        }
        let plain = if looks_secret(name.as_str()) { Plain::Warn } else { Plain::Fine };
        let value = self.secret(plain)?;
        match HeaderValue::from_str(value.expose()) {
            Ok(mut value) if value.len() <= HEADER_BYTES_MAX => {
                value.set_sensitive(true);
                Some((name, value))
            }
            Ok(_) => {
                self.fault(format!("is longer than {}", values::show_bytes(HEADER_BYTES_MAX)));
                None
            }
            Err(_) => {
                self.fault("has a line break or another character that no header can carry");
                None
            }
        }
    }

    /// As a retry schedule: a list of waits, which may be empty.
    pub fn retry(&self) -> Option<RetrySchedule> {
        let range = MILLISECOND..=days(30);
        let entries = self.list(RETRIES_MAX)?;
        let waits: Vec<Duration> =
            entries.iter().filter_map(|entry| entry.parse(|text| values::duration(text, &range))).collect();
        Some(RetrySchedule::new(waits))
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

/// Whether a header of this name is likely to carry a secret.
fn looks_secret(name: &str) -> bool {
    ["auth", "cookie", "key", "password", "secret", "signature", "token"].iter().any(|word| name.contains(word))
}
