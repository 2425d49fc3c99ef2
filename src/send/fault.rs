//! Why there was no answer: errors of connections as one of our words and a sentence for people.
//!
//! Sentences name scheme, host and port, never path, query or what the endpoint sent.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use super::answer::printable;
use super::pool;
use super::stream::AnswerTooLong;
use crate::delivery::{AttemptResult, SendErrorKind};
use crate::endpoint::EndpointUrl;

/// A sentence's length, in bytes; the operating system and certificates have a say in some.
const DETAIL_BYTES_MAX: usize = 400;

/// The result of an attempt that `error` ended.
pub(super) fn of(error: &pool::Error, url: &EndpointUrl) -> AttemptResult {
    let (kind, sentence) = match error {
        pool::Error::Connect(error) => (error.kind(), error.to_string()),
        pool::Error::Http(error) => classify(error),
    };
    result(kind, url, &sentence)
}

/// The result of an attempt that took longer than it may.
pub(super) fn timed_out(timeout: Duration, connected: bool, url: &EndpointUrl) -> AttemptResult {
    let what = if connected { "no answer" } else { "no connection" };
    result(SendErrorKind::Timeout, url, &format!("{what} within {timeout:?}"))
}

/// The result of an attempt whose request can't be made.
pub(super) fn bad_request(error: &dyn StdError, url: &EndpointUrl) -> AttemptResult {
    result(SendErrorKind::BadRequest, url, &error.to_string())
}

fn result(error: SendErrorKind, url: &EndpointUrl, sentence: &str) -> AttemptResult {
    AttemptResult::Failed { error, detail: sentence_about(url, sentence) }
}

/// A sentence that says what it is about, without what may be a token.
pub(super) fn sentence_about(url: &EndpointUrl, sentence: &str) -> String {
    printable(format!("{url}: {sentence}").as_bytes(), DETAIL_BYTES_MAX).unwrap_or_default()
}

/// Goes down the chain of causes to the first that says what happened.
fn classify(error: &hyper::Error) -> (SendErrorKind, String) {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    let mut fallback = None;
    while let Some(error) = cause {
        if error.is::<AnswerTooLong>() {
            return (SendErrorKind::BadAnswer, error.to_string());
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return (SendErrorKind::Tls, format!("TLS failed: {error}"));
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && let Some(found) = of_http(error)
        {
            // What hyper says of the message is as exact as it gets only where nothing below says more.
            fallback = Some(found);
        }
        cause = match error.downcast_ref::<io::Error>() {
            Some(error) => {
                fallback = Some((SendErrorKind::Broken, format!("the connection broke: {}", of_io(error))));
                // `source` of an io::Error leaves out what it wraps.
                match error.get_ref() {
                    Some(wrapped) => Some(wrapped as &(dyn StdError + 'static)),
                    None => error.source(),
                }
            }
            None => error.source(),
        };
    }
    fallback.unwrap_or_else(|| (SendErrorKind::Broken, "the connection broke".to_owned()))
}

fn of_http(error: &hyper::Error) -> Option<(SendErrorKind, String)> {
    let (kind, sentence) = if error.is_parse_too_large() {
        (SendErrorKind::BadAnswer, "the answer's head is over the limit")
    } else if error.is_parse() {
        (SendErrorKind::BadAnswer, "what it answered is not HTTP")
    } else if error.is_incomplete_message() {
        (SendErrorKind::Broken, "it closed the connection without an answer")
    } else if error.is_user() {
        (SendErrorKind::BadRequest, "the request can't be sent as HTTP")
    } else {
        return None;
    };
    Some((kind, sentence.to_owned()))
}

fn of_io(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionReset => "it was reset",
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotConnected => "it was closed",
        io::ErrorKind::TimedOut => "the other side is gone",
        _ => "reading or writing failed",
    }
}
