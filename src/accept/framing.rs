//! What hyper hides of a request's head: a repeated `content-length`, one beside `transfer-encoding`, and lines
//! that end without a carriage return. Each lets a proxy in front read other requests out of the same bytes.
//!
//! The watch sees every byte that hyper reads and follows the framing only as far as it must to tell heads from
//! bodies. It judges, hyper parses: where the two could disagree, hyper refuses the request or closes by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is kept of a line: enough for any name and value that matter here.
const LINE_BYTES_MAX: usize = 128;

/// What is wrong with a head that its parsed form does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadFault {
    /// `content-length` more than once, or in a form that nobody writes.
    Length,
    /// `content-length` beside `transfer-encoding`.
    LengthAndCoding,
    /// A line that ends with a bare line feed.
    BareLineFeed,
}

impl HeadFault {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Length => "`content-length` must be there once, as plain digits",
            Self::LengthAndCoding => "`content-length` and `transfer-encoding` exclude each other",
            Self::BareLineFeed => "lines end with a carriage return and a line feed",
        }
    }
}

/// The first faulty head of a connection, as the watch tells it to the requests' answers.
///
/// The connection ends with that answer, so there is never a second one to tell.
#[derive(Clone, Debug)]
pub(super) struct FirstFault(Arc<AtomicU64>);

impl FirstFault {
    const NONE: u64 = u64::MAX;

    fn set(&self, head: u64, fault: HeadFault) {
        let code = match fault {
            HeadFault::Length => 0,
            HeadFault::LengthAndCoding => 1,
            HeadFault::BareLineFeed => 2,
        };
        // The later of two faults of one head does not matter.
        let _ = self.0.compare_exchange(Self::NONE, head << 2 | code, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What is wrong with the `head`-th head of the connection, counted from 0.
    pub(super) fn of(&self, head: u64) -> Option<HeadFault> {
        let value = self.0.load(Ordering::Relaxed);
        if value == Self::NONE || value >> 2 != head {
            return None;
        }
        Some(match value & 3 {
            0 => HeadFault::Length,
            1 => HeadFault::LengthAndCoding,
            _ => HeadFault::BareLineFeed,
        })
    }
}

/// Follows a connection's bytes from head to head.
#[derive(Debug)]
pub(super) struct HeadWatch {
    stage: Stage,
    line: Vec<u8>,
    head: Head,
    heads: u64,
    first_fault: FirstFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// In a head, or before one.
    Head,
    /// In a body or a chunk with this many bytes to come.
    Data { left: u64, chunk: bool },
    /// In the line that gives a chunk's size.
    ChunkSize,
    /// In the line end after a chunk.
    ChunkEnd,
    /// In the lines after the last chunk.
    Trailers,
    /// The framing is broken; hyper ends the connection.
    Lost,
}

/// What was seen of the head that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    begun: bool,
    lengths: u32,
    length: Option<u64>,
    coded: bool,
    bare: bool,
}

impl HeadWatch {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Head,
            line: Vec::with_capacity(LINE_BYTES_MAX),
            head: Head::default(),
            heads: 0,
            first_fault: FirstFault(Arc::new(AtomicU64::new(FirstFault::NONE))),
        }
    }

    /// Where requests' answers ask for what was found.
    pub(super) fn first_fault(&self) -> FirstFault {
        self.first_fault.clone()
    }

    /// Whether the connection is between two requests.
    pub(super) fn at_rest(&self) -> bool {
        self.stage == Stage::Head && !self.head.begun && self.line.is_empty()
    }

    /// Takes in what was read.
    pub(super) fn observe(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.stage {
                Stage::Lost => return,
                Stage::Data { left, chunk } => {
                    let seen = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[seen..];
                    let left = left - seen as u64;
                    self.stage = match (left, chunk) {
                        (0, true) => Stage::ChunkEnd,
                        (0, false) => Stage::Head,
                        (left, chunk) => Stage::Data { left, chunk },
                    };
                }
                Stage::Head | Stage::ChunkSize | Stage::ChunkEnd | Stage::Trailers => {
                    let (part, rest) = match bytes.iter().position(|byte| *byte == b'\n') {
                        Some(end) => bytes.split_at(end + 1),
                        None => (bytes, &[][..]),
                    };
                    bytes = rest;
                    match part.strip_suffix(b"\n") {
                        // Most lines are whole in what was read and need no copy.
                        Some(line) if self.line.is_empty() => self.take_line(line),
                        Some(end) => {
                            let mut line = std::mem::take(&mut self.line);
                            keep(&mut line, end);
                            self.take_line(&line);
                            line.clear();
                            self.line = line;
                        }
                        None => keep(&mut self.line, part),
                    }
                }
            }
        }
    }

    /// A line without its line feed, cut where it is long.
    fn take_line(&mut self, line: &[u8]) {
        let (line, bare) = match line.strip_suffix(b"\r") {
            Some(line) => (line, false),
            None => (line, true),
        };
        match self.stage {
            // Empty lines before a request are skipped, as hyper does.
            Stage::Head if line.is_empty() && !self.head.begun => {}
            Stage::Head if line.is_empty() => {
                self.head.bare |= bare;
                self.end_head();
            }
            Stage::Head => {
                self.head.bare |= bare;
                if self.head.begun {
                    self.head.take_field(line);
                }
                self.head.begun = true;
            }
            Stage::ChunkSize => {
                self.stage = match chunk_size(line) {
                    Some(0) => Stage::Trailers,
                    Some(left) => Stage::Data { left, chunk: true },
                    None => Stage::Lost,
                }
            }
            Stage::ChunkEnd => self.stage = if line.is_empty() { Stage::ChunkSize } else { Stage::Lost },
            Stage::Trailers => {
                if line.is_empty() {
                    self.stage = Stage::Head;
                }
            }
            Stage::Data { .. } | Stage::Lost => {}
        }
    }

    fn end_head(&mut self) {
        let head = std::mem::take(&mut self.head);
        let fault = if head.coded && head.lengths > 0 {
            Some(HeadFault::LengthAndCoding)
        } else if head.lengths > 1 || (head.lengths == 1 && head.length.is_none()) {
            Some(HeadFault::Length)
        } else if head.bare {
            Some(HeadFault::BareLineFeed)
        } else {
            None
        };
        if let Some(fault) = fault {
            self.first_fault.set(self.heads, fault);
        }
        self.heads += 1;
        self.stage = match head.length {
            _ if fault.is_some() => Stage::Lost,
            _ if head.coded => Stage::ChunkSize,
            Some(left) if left > 0 => Stage::Data { left, chunk: false },
            Some(_) | None => Stage::Head,
        };
    }
}

impl Head {
    fn take_field(&mut self, line: &[u8]) {
        // Only these two names matter, and few others begin like them.
        if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
            return;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit) && line.len() < LINE_BYTES_MAX - 1;
            let text = std::str::from_utf8(value).ok().filter(|_| digits);
            self.length = text.and_then(|text| text.parse().ok());
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.coded = true;
        }
    }
}

fn keep(line: &mut Vec<u8>, part: &[u8]) {
    let room = LINE_BYTES_MAX - line.len();
    line.extend_from_slice(&part[..part.len().min(room)]);
    // A cut line keeps its last byte, since that may be the carriage return.
    if let Some(last) = part.last().filter(|_| part.len() > room) {
        line[LINE_BYTES_MAX - 1] = *last;
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faults of the first three heads, whatever the pieces in which the bytes come.
    fn faults(bytes: &[u8]) -> [Option<HeadFault>; 3] {
        let found = [1, 2, 3, 7, bytes.len().max(1)].map(|size| {
            let mut watch = HeadWatch::new();
            bytes.chunks(size).for_each(|piece| watch.observe(piece));
            [0, 1, 2].map(|head| watch.first_fault().of(head))
        });
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?}");
        found[0]
    }

    const GOOD: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab\n";

    #[test]
    fn good_requests_have_no_fault() {
        let chunked = "\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n\n\n\r\n0\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n";
        let empty = "GET / HTTP/1.1\r\nContent-Length:0\r\n\r\n";
        let long = format!("POST / HTTP/1.1\r\nCookie: {}\r\nT: t\r\n\r\n", "c".repeat(1_000));
        for requests in [GOOD.repeat(3), chunked.repeat(3), format!("{empty}{GOOD}{chunked}"), long.repeat(2)] {
            assert_eq!(faults(requests.as_bytes()), [None; 3], "{requests}");
        }
    }

    #[test]
    fn what_hyper_hides_is_found_at_its_head() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        let zeros = format!("Content-Length: {}3", "0".repeat(200));
        let long = format!("Cookie: {}\nX: y", "c".repeat(500));
        for (fields, fault) in [
            ("Content-Length: 3\r\ncontent-length: 3", HeadFault::Length),
            ("Content-Length: 3, 3", HeadFault::Length),
            ("Content-Length: +3", HeadFault::Length),
            ("Content-Length: 18446744073709551616", HeadFault::Length),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked", HeadFault::LengthAndCoding),
            ("Transfer-Encoding: chunked\r\nContent-Length: 3", HeadFault::LengthAndCoding),
            (zeros.as_str(), HeadFault::Length),
            ("Host: a\nX: y", HeadFault::BareLineFeed),
            (long.as_str(), HeadFault::BareLineFeed),
        ] {
            assert_eq!(faults(head(fields).as_bytes())[0], Some(fault), "{fields}");
            let second = format!("{GOOD}{}", head(fields));
            assert_eq!(faults(second.as_bytes()), [None, Some(fault), None], "{fields}");
        }
        assert_eq!(faults(b"POST / HTTP/1.1\r\nHost: a\r\n\n")[0], Some(HeadFault::BareLineFeed));
    }

    #[test]
    fn a_connection_is_at_rest_between_requests_only() {
        let mut watch = HeadWatch::new();
        assert!(watch.at_rest());
        for (index, byte) in GOOD.bytes().enumerate() {
            watch.observe(&[byte]);
            assert_eq!(watch.at_rest(), index + 1 == GOOD.len(), "after {} bytes", index + 1);
        }
    }
}
