//! Whether a request may be a web page's doing. A browser on the operator's machine reaches the admin listener, so
//! any page it shows could change things by a form that goes to another site; and read and change them by a name of the
//! page's own that suddenly leads to this listener's address (DNS rebinding).

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;

/// Says why the request is refused, if it is.
pub(super) fn check(headers: &HeaderMap, has_tokens: bool) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        (Some(_) | None, _) => None,
    };
    let host = host.ok_or("a request needs one `host` header")?;
    // A page that was rebound sends no token, but with none configured none is missed.
    if !has_tokens && !is_ones_own(host.host()) {
        return Err("without `admin.tokens` a request must be sent to an IP address or `localhost`, not to a name");
    }
    for origin in headers.get_all(ORIGIN) {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        if !origin.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host.as_str())) {
            return Err("a request must not come from a page of another site; see its `origin` header");
        }
    }
    Ok(())
}

/// An IP address, or the one name that nobody else can give a meaning to.
fn is_ones_own(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_from_programs_and_from_pages_of_the_same_host() {
        for (headers, without_tokens, with_tokens) in [
            (&[("host", "127.0.0.1:9090")][..], true, true),
            (&[("host", "[::1]:9090")], true, true),
            (&[("host", "LocalHost:9090")], true, true),
            (&[("host", "127.0.0.1:9090"), ("origin", "http://127.0.0.1:9090")], true, true),
            (&[("host", "admin.example"), ("origin", "https://Admin.example")], false, true),
            (&[("host", "admin.example:9090")], false, true),
            (&[("host", "localhost.example")], false, true),
            (&[("host", "127.0.0.1.example")], false, true),
            (&[("host", "127.0.0.1:9090"), ("origin", "http://evil.example")], false, false),
            (&[("host", "127.0.0.1:9090"), ("origin", "http://127.0.0.1:8080")], false, false),
            (&[("host", "127.0.0.1"), ("origin", "http://127.0.0.1"), ("origin", "http://a")], false, false),
            (&[("host", "127.0.0.1"), ("origin", "null")], false, false),
            (&[("host", "a"), ("host", "127.0.0.1")], false, false),
            (&[("host", "a b")], false, false),
            (&[], false, false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            for (has_tokens, expected) in [(false, without_tokens), (true, with_tokens)] {
                assert_eq!(check(&map, has_tokens).is_ok(), expected, "{headers:?}, tokens: {has_tokens}");
            }
        }
    }
}
