//! `traceparent` of W3C Trace Context: taken as it is when it is well-formed, and otherwise as if it were not there.

use http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The request's trace context, or empty.
pub(super) fn traceparent(headers: &HeaderMap) -> &str {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().filter(|text| is_traceparent(text)).unwrap_or_default(),
        _ => "",
    }
}

/// Version 00: `00-` 32 digits `-` 16 digits `-` 2 digits, lower-case hex, neither id all zeros.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let id = |part: &str, length: usize| hex(part, length) && part.bytes().any(|b| b != b'0');
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    matches!(parts[..], ["00", trace, parent, flags] if id(trace, 32) && id(parent, 16) && hex(flags, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_is_taken() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let bad = [
            "",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c8031-b7ad6b7169203331-01",
        ];
        assert!(is_traceparent(good));
        for bad in bad {
            assert!(!is_traceparent(bad), "{bad}");
        }
        let mut headers = HeaderMap::new();
        headers.append("traceparent", good.parse().unwrap());
        assert_eq!(traceparent(&headers), good);
        headers.append("traceparent", good.parse().unwrap());
        assert_eq!(traceparent(&headers), "");
    }
}
