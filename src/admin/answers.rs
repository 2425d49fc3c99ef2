//! Answers: JSON, text, a stream of lines, and what is wrong as a problem document (RFC 9457).

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde::Serialize;
use serde_json::json;

use super::{Refused, operations};
use crate::store;

/// An answer's body: whole, or as it comes.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An answer.
pub(super) type Answer = Response<Body>;

/// A body that is there as a whole.
pub(super) fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// JSON, and all is well.
pub(super) fn json_answer(body: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(body).expect("an answer has string keys only");
    text(StatusCode::OK, "application/json", body)
}

/// What is wrong.
pub(super) fn problem(status: StatusCode, detail: &str) -> Answer {
    let body = json!({
        "title": status.canonical_reason().unwrap_or("error"), "status": status.as_u16(), "detail": detail,
    });
    text(status, "application/problem+json", body.to_string())
}

/// A config was not taken: each fault with its place, beside what stays in use.
pub(super) fn not_reloaded(refused: &Refused) -> Answer {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let errors = refused.faults.iter().map(|fault| {
        let mut error = json!(fault);
        error["detail"] = fault.line().into();
        error
    });
    let mut body = refused.status.clone();
    body["title"] = "The config can't be used".into();
    body["status"] = status.as_u16().into();
    body["detail"] = refused.detail.as_str().into();
    body["errors"] = errors.collect();
    text(status, "application/problem+json", body.to_string())
}

/// The store did not do it.
pub(super) fn store_problem(error: &store::Error) -> Answer {
    problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}

/// The path takes another method.
pub(super) fn wrong_method(takes: &Method) -> Answer {
    let mut refused = problem(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method; see `allow`");
    refused.headers_mut().insert(ALLOW, takes.as_str().parse().expect("a method is a header value"));
    refused
}

/// No token, or none that is known.
pub(super) fn no_token() -> Answer {
    let mut refused = problem(StatusCode::UNAUTHORIZED, "send one of `admin.tokens` as `Authorization: Bearer …`");
    refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}

/// An operation was not carried out.
pub(super) fn refused(error: &operations::Error) -> Answer {
    let status = match error {
        operations::Error::NotFound(_) => StatusCode::NOT_FOUND,
        operations::Error::Invalid(_) => StatusCode::BAD_REQUEST,
        operations::Error::Conflict(_) => StatusCode::CONFLICT,
        operations::Error::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        operations::Error::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, &error.to_string())
}
