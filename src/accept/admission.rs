//! A request's head: well-formed, to a source, by POST, with a key, of a length, of a kind. In this order, so
//! that nobody without a key learns more than that the path exists.

use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, Method, Version};

use super::framing::HeadFault;
use super::media_type::{self, BodyKind};
use super::refusal::Refusal;
use super::sources::{ByPath, Way};
use crate::config::{Source, SourceAuth};
use crate::secret::Secret;

/// Keys longer than this are not compared: nobody has one.
const KEY_BYTES_MAX: usize = 4096;

/// What a request may go on with.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its source, and what is left of its quota.
    pub(super) way: Way,
    /// How its body is to be read.
    pub(super) kind: BodyKind,
    /// Its body's declared length, at most what the source allows; `None` for chunks.
    pub(super) length: Option<usize>,
}

/// A request that may not, and the source it was for, if that is known.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) source: Option<Arc<Source>>,
    pub(super) refusal: Refusal,
}

/// Checks a head; `hidden` is what is wrong with it that its parts don't show, `names` those of the client's certificate.
pub(super) fn admit(
    head: &Parts,
    hidden: Option<HeadFault>,
    names: &[String],
    sources: &ByPath,
) -> Result<Admitted, Refused> {
    let early = |refusal| Refused { source: None, refusal };
    check_form(head, hidden).map_err(early)?;
    let way = sources.get(head.uri.path()).cloned().ok_or_else(|| early(Refusal::UnknownPath))?;
    match check_for(&way.source, head, names) {
        Ok((kind, length)) => Ok(Admitted { way, kind, length }),
        Err(refusal) => Err(Refused { source: Some(way.source), refusal }),
    }
}

fn check_for(source: &Source, head: &Parts, names: &[String]) -> Result<(BodyKind, Option<usize>), Refusal> {
    if head.method != Method::POST {
        return Err(Refusal::Method);
    }
    check_key(&source.auth, &head.headers, names)?;
    if head.headers.get_all(EXPECT).iter().any(|expected| !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Refusal::Expectation);
    }
    let length = check_length(head, source.body_bytes_max)?;
    let kind = media_type::body_kind(&head.headers)?;
    Ok((kind, length))
}

/// What makes two programs on the way read two different requests out of the same bytes is refused.
fn check_form(head: &Parts, hidden: Option<HeadFault>) -> Result<(), Refusal> {
    if let Some(fault) = hidden {
        return Err(Refusal::BadHead(fault.as_str()));
    }
    // These are no requests for a resource of ours, whatever their target looks like.
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method);
    }
    if head.uri.authority().is_some() || head.uri.scheme().is_some() {
        return Err(Refusal::BadHead("the request's target must be a path: this is no proxy"));
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => {}
        (Some(_), None) => return Err(Refusal::BadHead("`host` is not a host's name")),
        (Some(_), Some(_)) => return Err(Refusal::BadHead("`host` is there more than once")),
        (None, _) if head.version < Version::HTTP_11 => {}
        (None, _) => return Err(Refusal::BadHead("`host` is missing")),
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {}
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
        (Some(_), _) => return Err(Refusal::BadHead("`transfer-encoding` may only be one `chunked`")),
    }
    if head.headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
        return Err(Refusal::BadHead("`authorization` is there more than once"));
    }
    Ok(())
}

fn is_host(host: &[u8]) -> bool {
    !host.is_empty() && host.iter().all(|b| b.is_ascii_alphanumeric() || b".-_~:[]%!$&'()*+,;=".contains(b))
}

fn check_key(auth: &SourceAuth, headers: &HeaderMap, names: &[String]) -> Result<(), Refusal> {
    let keys = match auth {
        SourceAuth::None => return Ok(()),
        SourceAuth::Bearer(keys) => keys,
        SourceAuth::ClientCertificate(wanted) if names.iter().any(|name| wanted.contains(name)) => return Ok(()),
        SourceAuth::ClientCertificate(_) => return Err(Refusal::Certificate),
    };
    let candidate = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes())).unwrap_or_default();
    if matches_any(keys, candidate) { Ok(()) } else { Err(Refusal::Unauthorized) }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(b"Bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"Bearer ") && key.len() <= KEY_BYTES_MAX).then(|| key.trim_ascii())
}

/// Compares with every key, also after a match, so that the time tells nothing about which one it is.
fn matches_any(keys: &[Secret], candidate: &[u8]) -> bool {
    let matched = keys.iter().fold(false, |matched, key| matched | key.matches(candidate));
    // An empty secret in a config must not let everybody in.
    matched & !candidate.is_empty()
}

fn check_length(head: &Parts, body_bytes_max: usize) -> Result<Option<usize>, Refusal> {
    match head.headers.get(CONTENT_LENGTH) {
        Some(length) => {
            // hyper has parsed it; what does not fit into a `usize` is too large on any machine.
            let length = length.to_str().ok().and_then(|text| text.parse::<usize>().ok());
            length.filter(|length| *length <= body_bytes_max).map(Some).ok_or(Refusal::TooLarge { body_bytes_max })
        }
        None if head.headers.contains_key(TRANSFER_ENCODING) => Ok(None),
        // A body's frames say themselves which is the last.
        None if head.version == Version::HTTP_2 => Ok(None),
        None => Err(Refusal::LengthRequired),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::super::sources::Sources;
    use super::*;

    fn admit_with(auth: SourceAuth, request: http::request::Builder) -> Result<Admitted, Refusal> {
        let source = Source { name: "app".into(), path: "/v1/events".into(), auth, body_bytes_max: 100, quota: None };
        let sources = Sources::new(&[Arc::new(source)]);
        let (head, ()) = request.body(()).unwrap().into_parts();
        admit(&head, None, &[], &sources.now()).map_err(|refused| refused.refusal)
    }

    fn good() -> http::request::Builder {
        Request::post("/v1/events?x=1")
            .header("host", "localhost:8080")
            .header("content-length", "7")
            .header("content-type", "application/json")
    }

    fn refusal(request: http::request::Builder) -> Refusal {
        admit_with(SourceAuth::None, request).unwrap_err()
    }

    #[test]
    fn a_good_head_is_admitted() {
        let admitted = admit_with(SourceAuth::None, good()).unwrap();
        assert_eq!((admitted.kind, admitted.length), (BodyKind::Envelopes, Some(7)));
        let chunked = Request::post("/v1/events")
            .header("host", "[::1]")
            .header("transfer-encoding", "Chunked")
            .header("expect", "100-Continue")
            .header("content-type", "application/json");
        assert_eq!(admit_with(SourceAuth::None, chunked).unwrap().length, None);
    }

    #[test]
    fn heads_are_refused_in_the_documented_order() {
        let keys = || SourceAuth::Bearer(vec![Secret::new("k1")]);
        let refused = |request| admit_with(keys(), request).unwrap_err();
        let base = || Request::builder().header("host", "a").header("content-encoding", "gzip");
        assert_eq!(refused(base().method("GET").uri("/")), Refusal::UnknownPath);
        assert_eq!(refused(base().method("GET").uri("/v1/events")), Refusal::Method);
        let post = || base().method("POST").uri("/v1/events");
        assert_eq!(refused(post()), Refusal::Unauthorized);
        let post = || base().method("POST").uri("/v1/events").header("authorization", "bearer  k1");
        assert_eq!(refused(post().header("expect", "x")), Refusal::Expectation);
        assert_eq!(refused(post()), Refusal::LengthRequired);
        assert_eq!(refused(post().header("content-length", "101")), Refusal::TooLarge { body_bytes_max: 100 });
        assert_eq!(refused(post().header("content-length", "1")), Refusal::ContentEncoding);
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        let bare = || Request::post("/v1/events");
        for request in [
            bare(),
            bare().header("host", "a").header("host", "a"),
            bare().header("host", ""),
            bare().header("host", "a/b"),
            bare().header("host", "a@b"),
            good().header("transfer-encoding", "gzip, chunked"),
            good().header("transfer-encoding", "chunked").header("transfer-encoding", "chunked"),
            good().header("authorization", "Bearer a").header("authorization", "Bearer a"),
            good().uri("http://localhost/v1/events"),
        ] {
            let text = format!("{request:?}");
            assert!(matches!(refusal(request), Refusal::BadHead(_)), "{text}");
        }
        assert_eq!(refusal(Request::builder().method("CONNECT").uri("example.com:443")), Refusal::Method);
        let old = Request::post("/v1/events").version(Version::HTTP_10).header("content-length", "x");
        assert_eq!(refusal(old), Refusal::TooLarge { body_bytes_max: 100 });
    }

    #[test]
    fn only_a_key_of_the_source_lets_in() {
        let keys = || SourceAuth::Bearer(vec![Secret::new("k1"), Secret::new("k2"), Secret::new("")]);
        for good_key in ["Bearer k1", "bearer k2", "BEARER   k2"] {
            assert!(admit_with(keys(), good().header("authorization", good_key)).is_ok(), "{good_key}");
        }
        for bad in ["", "k1", "Bearer", "Bearer ", "Bearerk1", "Basic k1", "Bearer k", "Bearer k11", "Bearer k1 k2"] {
            let refused = admit_with(keys(), good().header("authorization", bad));
            assert_eq!(refused.unwrap_err(), Refusal::Unauthorized, "{bad}");
        }
        assert_eq!(admit_with(keys(), good().uri("/v1/events?key=k1")).unwrap_err(), Refusal::Unauthorized);
        assert!(admit_with(SourceAuth::None, good().header("authorization", "anything")).is_ok());
    }
}
