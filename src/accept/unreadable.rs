//! Requests that hyper refuses by itself, since it can't read them as such: it answers with a status and no body.
//! Such an answer is recognised on its way out, and goes out as the problem that every refusal is.

use http::StatusCode;

use super::refusal::Refusal;

/// The answer to write in place of `written`, when that is hyper's own: an error's head without a content type.
///
/// hyper writes such a head at once and with nothing behind it. Ours all have a content type, and what comes after
/// their head is JSON in one line, so no later part of one of them is taken for a head.
pub(super) fn answer_instead_of(written: &[u8]) -> Option<Vec<u8>> {
    let status_line = written.strip_prefix(b"HTTP/1.")?;
    let status = StatusCode::from_bytes(status_line.get(2..5)?).ok()?;
    if !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    let head = std::str::from_utf8(written.strip_suffix(b"\r\n\r\n")?).ok()?;
    if head.contains("\r\n\r\n") || head.contains("\r\ncontent-type:") {
        return None;
    }
    let body = Refusal::Unreadable(status).body();
    let kept = head.split("\r\n").enumerate().filter(|(line, text)| *line == 0 || text.starts_with("date:"));
    let mut answer: String = kept.flat_map(|(_, text)| [text, "\r\n"]).collect();
    answer.push_str("content-type: application/problem+json\r\nconnection: close\r\n");
    answer.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    Some([answer.into_bytes(), body].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hypers_own_answers_become_problems_of_the_same_status() {
        for (status, kind) in [("400 Bad Request", "bad-request"), ("431 Too Large", "head-too-large")] {
            let bare = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n");
            let answer = String::from_utf8(answer_instead_of(bare.as_bytes()).unwrap()).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let length = body.len();
            assert_eq!(
                head,
                format!(
                    "HTTP/1.1 {status}\r\ndate: now\r\ncontent-type: application/problem+json\r\n\
                     connection: close\r\ncontent-length: {length}"
                )
            );
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(problem["type"], format!("/problems/{kind}"));
            assert_eq!(problem["status"].to_string(), status[..3]);
        }
    }

    #[test]
    fn all_other_answers_go_out_as_they_are() {
        for written in [
            "",
            "HTTP/1.1 4",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed\r\ncontent-type: application/problem+json\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n\r\n{}",
            "HTTP/1.1 400 Bad Request\r\n\r\nHTTP/1.1 400 Bad Request\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\n",
        ] {
            assert_eq!(answer_instead_of(written.as_bytes()), None, "{written}");
        }
    }
}
