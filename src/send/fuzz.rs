//! Fuzzing of where deliveries may go, against a list that was written independently of the router's, and of `Retry-After`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};

use super::address::{Permit, verdict};
use super::answer::retry_after;
use super::connect::Host;
use crate::clock::Timestamp;
use crate::endpoint::EndpointUrl;
use crate::fuzz::{Parts, fuzz};

/// Whether an IPv4 address is a public one, by its octets: what reliability lists have, written anew.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let private = a == 10 || (a == 172 && b / 16 == 1) || (a == 192 && b == 168) || (a == 100 && b / 64 == 1);
    let own = a == 0 || a == 127 || (a == 169 && b == 254);
    let special = (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && b / 2 == 9)
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113);
    let metadata = (a, b, c, d) == (168, 63, 129, 16);
    !(private || own || special || metadata || a >= 224)
}

/// Whether an IPv6 address is a public one that hides no other IPv4 address than a public one.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let bits = address.to_bits();
    let [s0, s1, .., s4, s5, _, _] = address.segments();
    let low = Ipv4Addr::from_bits(bits as u32);
    if bits >> 32 == 0xffff {
        return is_public_v4(low);
    }
    let global = s0 >> 13 == 1;
    let protocols = s0 == 0x2001 && s1 < 0x200;
    let documentation = (s0 == 0x2001 && s1 == 0xdb8) || (s0 == 0x3fff && s1 < 0x1000);
    let tunnel = s0 == 0x2002;
    let isatap = (s4 == 0 || s4 == 0x200) && s5 == 0x5efe && !is_public_v4(low);
    global && !protocols && !documentation && !tunnel && !isatap
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

#[test]
fn addresses() {
    fuzz("address", |input| {
        let mut parts = Parts(input);
        let text = parts.line();
        let written = text.trim().parse::<IpAddr>().ok();
        // And whatever the bytes are as an address, near the beginning of what is special.
        let first =
            [0_u8, 10, 100, 127, 169, 172, 192, 198, 203, 224, 0x20, 0x3f, 0xfc, 0xfe][usize::from(parts.byte() % 14)];
        let rest: [u8; 15] = std::array::from_fn(|_| parts.byte());
        let v4 = Ipv4Addr::new(first, rest[0], rest[1], rest[2]);
        let mut octets = [first; 16];
        octets[1..].copy_from_slice(&rest);
        let v6 = Ipv6Addr::from(octets);
        for address in written.into_iter().chain([IpAddr::from(v4), v6.into(), v4.to_ipv6_mapped().into()]) {
            let permit = verdict(address, &[]);
            assert_eq!(permit.is_ok(), is_public(address), "{address}: {permit:?}");
            // One that is listed by itself is allowed unless it carries another that is not.
            let listed = verdict(address, &[address.to_canonical().into()]);
            assert!(
                listed == Ok(Permit::Listed) || listed.is_err_and(|refused| refused.carried.is_some()),
                "{address}"
            );
        }
    });
}

/// A URL that exists has a host that is an address in its plain form, or a name; what a system may read as an IPv4
/// address in another form is a name here, whose addresses are judged after the look-up.
#[test]
fn urls() {
    fuzz("url", |input| {
        let text = String::from_utf8_lossy(input);
        let Ok(url) = EndpointUrl::parse(text.trim_end_matches('\n')) else { return };
        let shown = url.to_string();
        assert!(!shown.contains(['?', '#', '@']) && shown.matches('/').count() == 2, "{shown}");
        match Host::parse(url.uri().host().unwrap()) {
            Ok(Host::Address(IpAddr::V4(address))) => assert_eq!(url.uri().host().unwrap(), address.to_string()),
            Ok(Host::Address(IpAddr::V6(_))) => assert!(url.uri().host().unwrap().starts_with('[')),
            Ok(Host::Name(name)) => assert!(name.is_ascii() && !name.contains(['%', '@', '/', ':', '['])),
            Err(_) => {}
        }
    });
}

#[test]
fn retry_after_headers() {
    fuzz("retry-after", |input| {
        let Ok(value) = HeaderValue::from_bytes(input.trim_ascii_end()) else { return };
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value.clone())]);
        let wait = retry_after(&headers, Timestamp::from_millis(1_736_937_000_000));
        assert!(wait.is_none_or(|wait| wait <= 7 * 86_400_000), "{wait:?}");
        // Another reading: plain seconds.
        if let Some(seconds) = value.to_str().ok().and_then(|text| text.trim().parse::<u32>().ok()) {
            let plain = value.to_str().unwrap().trim().bytes().all(|byte| byte.is_ascii_digit());
            assert_eq!(wait, plain.then_some((u64::from(seconds) * 1000).min(7 * 86_400_000)));
        }
    });
}
