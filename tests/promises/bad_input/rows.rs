//! The rows: what is sent, and the statuses that come back.

use crate::support::door::request;

pub const GOOD: &str = r#"{"eventType":"a","payload":1}"#;

/// A request head with these lines, and what follows it.
pub fn post(lines: &str, rest: &str) -> Vec<u8> {
    format!("POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{lines}\r\n\r\n{rest}").into()
}

/// A good request with one more header line.
pub fn with(line: &str) -> Vec<u8> {
    request("/v1/events", &format!("{line}\r\n"), GOOD).into()
}

/// A good request with another first line.
pub fn line(first: &str) -> Vec<u8> {
    request("/v1/events", "", GOOD).replacen("POST /v1/events HTTP/1.1", first, 1).into()
}

/// An event with this payload.
fn payload(json: &str) -> Vec<u8> {
    body(&format!(r#"{{"eventType":"a","payload":{json}}}"#))
}

/// A request with this body.
pub fn body(text: &str) -> Vec<u8> {
    request("/v1/events", "", text).into()
}

/// A request in chunks.
fn chunked(rest: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked", rest)
}

fn whole_chunk() -> String {
    format!("{:x}\r\n{GOOD}\r\n0\r\n\r\n", GOOD.len())
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

/// A payload that makes the body `bytes` long.
fn sized(bytes: usize) -> Vec<u8> {
    let around = r#"{"eventType":"a","payload":""}"#.len();
    payload(&format!("\"{}\"", "x".repeat(bytes - around)))
}

/// A CloudEvent with these members.
fn cloud_event(members: &str) -> Vec<u8> {
    request("/v1/events", "Content-Type: application/cloudevents+json\r\n", &format!("{{{members}}}")).into()
}

/// A batch of this many good events.
fn batch(count: usize) -> Vec<u8> {
    body(&format!("[{}]", vec![GOOD; count].join(",")))
}

/// A name that begins with the row's number, the bytes, the statuses.
pub type Row = (&'static str, Vec<u8>, &'static [u16]);

pub fn framing() -> Vec<Row> {
    let length = GOOD.len();
    let raw = |lines: &str| post(lines, GOOD);
    vec![
        ("1 valid", body(GOOD), &[202]),
        (
            "2 length and chunks",
            post(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"), &whole_chunk()),
            &[400],
        ),
        ("2 chunks and length", post("Transfer-Encoding: chunked\r\nContent-Length: 3", &whole_chunk()), &[400]),
        ("3 two lengths", raw(&format!("Content-Length: {length}\r\nContent-Length: 7")), &[400]),
        ("4 two equal lengths", raw(&format!("Content-Length: {length}\r\nContent-Length: {length}")), &[400]),
        (
            "4 two equal lengths behind a good request",
            [body(GOOD), raw(&format!("Content-Length: {length}\r\ncontent-length: {length}"))].concat(),
            &[202, 400],
        ),
        ("5 list of lengths", raw("Content-Length: 7, 7"), &[400]),
        ("6 negative length", raw("Content-Length: -1"), &[400]),
        ("7 length with plus", raw("Content-Length: +7"), &[400]),
        ("8 hex length", raw("Content-Length: 0x7"), &[400]),
        ("9 length of 2^64", raw("Content-Length: 18446744073709551616"), &[400]),
        ("10 declared 999,999,999 then FIN", post("Content-Length: 999999999", ""), &[413]),
        ("12 shorter than declared, FIN", raw(&format!("Content-Length: {}", length + 1)), &[400]),
        ("13 no length", raw("X: y"), &[411]),
        ("14 gzip, chunked", post("Transfer-Encoding: gzip, chunked", &whole_chunk()), &[400]),
        ("15 chunked, identity", post("Transfer-Encoding: chunked, identity", &whole_chunk()), &[400]),
        ("16 xchunked", post("Transfer-Encoding: xchunked", &whole_chunk()), &[400]),
        ("17 chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", &whole_chunk()), &[400]),
        ("17 chunked twice in a line", post("Transfer-Encoding: chunked, chunked", &whole_chunk()), &[400]),
        ("18 space before the colon", post("Transfer-Encoding : chunked", &whole_chunk()), &[400]),
        (
            "19 chunks on HTTP/1.0",
            String::from_utf8(chunked(&whole_chunk())).unwrap().replace("HTTP/1.1", "HTTP/1.0").into(),
            &[400],
        ),
        ("20 valid chunks", chunked(&whole_chunk()), &[202]),
        ("21 chunk size zz", chunked("zz\r\n{}\r\n0\r\n\r\n"), &[400]),
        ("22 chunk size overflow", chunked("fffffffffffffffff\r\n{}\r\n0\r\n\r\n"), &[400]),
        ("23 100 kB chunk extension", chunked(&format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(100_000))), &[400]),
        ("24 bare LF in chunks", chunked(&format!("{length:x}\n{GOOD}\n0\n\n")), &[400]),
        (
            "25 2,000 trailers",
            chunked(&whole_chunk().replace("0\r\n\r\n", &format!("0\r\n{}\r\n", "a: b\r\n".repeat(2_000)))),
            &[400],
        ),
        ("26 chunks over the limit", chunked(&format!("50000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x50000))), &[413]),
        ("27 bare LF in the head", String::from_utf8(body(GOOD)).unwrap().replace("\r\n", "\n").into(), &[400]),
        ("27 one bare LF in the head", with("X: y\nZ: z"), &[400]),
    ]
}

pub fn heads() -> Vec<Row> {
    let many = |count: usize| with("A: b\r\n".repeat(count).trim_end());
    vec![
        ("28 header without colon", with("nocolon"), &[400]),
        ("29 NUL in a value", with("X: a\0b"), &[400]),
        ("30 CR in a value", with("X: a\rb"), &[400]),
        ("31 space in a name", with("X y: z"), &[400]),
        ("32 folded header", with("X: a\r\n b"), &[400]),
        ("33 bytes above 0x7f in a value", with("X: é"), &[202]),
        ("34 64 headers", many(61), &[202]),
        ("34 65 headers", many(62), &[431]),
        ("35 40 kB header", with(&format!("X: {}", "y".repeat(40_000))), &[431]),
        ("36 40 kB URI", line(&format!("POST /{} HTTP/1.1", "y".repeat(40_000))), &[431]),
        ("37 space in URI", line("POST /v1/events x HTTP/1.1"), &[400]),
        ("38 NUL in URI", line("POST /v1/events\0 HTTP/1.1"), &[400]),
        ("39 %00 in the path", line("POST /v1/%00events HTTP/1.1"), &[404]),
        ("40 %zz in the path", line("POST /v1/%zzevents HTTP/1.1"), &[404]),
        ("41 %ff in the path", line("POST /v1/%ffevents HTTP/1.1"), &[404]),
        ("42 raw UTF-8 in the path", line("POST /v1/évents HTTP/1.1"), &[404]),
        ("43 %2e%2e%2f in the path", line("POST /v1/%2e%2e%2fevents HTTP/1.1"), &[404]),
        ("44 /../../admin", line("POST /../../admin HTTP/1.1"), &[404]),
        ("45 absolute-form target", line("POST http://a/v1/events HTTP/1.1"), &[400]),
        ("46 no Host", String::from_utf8(body(GOOD)).unwrap().replace("Host: localhost\r\n", "").into(), &[400]),
        ("47 two Hosts", with("Host: localhost"), &[400]),
        ("47 a Host that is none", String::from_utf8(body(GOOD)).unwrap().replace("localhost", "a/b").into(), &[400]),
        ("48 HTTP/0.9", b"GET /v1/events\r\n\r\n".to_vec(), &[400]),
        ("49 HTTP/2.0 in the line", line("POST /v1/events HTTP/2.0"), &[400]),
        ("50 HTTP/1.9", line("POST /v1/events HTTP/1.9"), &[400]),
        ("51 post", line("post /v1/events HTTP/1.1"), &[405]),
        ("52 FOO", line("FOO /v1/events HTTP/1.1"), &[405]),
        ("53 10 kB method", line(&format!("{} /v1/events HTTP/1.1", "A".repeat(10_000))), &[405]),
        ("54 GET", b"GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), &[405]),
        ("55 CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".to_vec(), &[405]),
        ("56 TRACE", b"TRACE /v1/events HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), &[405]),
        ("57 TLS ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(30), &[400]),
        ("58 random bytes", (0..400_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(), &[400]),
        ("59 connect, FIN", Vec::new(), &[]),
        ("64 Expect: 100-continue", with("Expect: 100-continue"), &[100, 202]),
        (
            "64 Expect: 100-continue over the limit",
            post("Expect: 100-continue\r\nContent-Length: 999999999", ""),
            &[413],
        ),
        ("65 Expect: bogus", with("Expect: bogus"), &[417]),
        (
            "66 Upgrade: h2c",
            with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"),
            &[202],
        ),
        ("67 Content-Encoding: gzip", with("Content-Encoding: gzip"), &[415]),
        (
            "68 no Content-Type",
            String::from_utf8(body(GOOD)).unwrap().replace("Content-Type: application/json\r\n", "").into(),
            &[415],
        ),
        ("69 wrong Content-Type", with("Content-Type: text/plain"), &[415]),
        ("69 charset other than UTF-8", with("Content-Type: application/json; charset=iso-8859-1"), &[415]),
        ("69 two Content-Types", with("Content-Type: application/json\r\nContent-Type: application/json"), &[400]),
    ]
}

pub fn bodies() -> Vec<Row> {
    let keys: Vec<_> = (0..20_000).map(|n| format!("\"k{n}\":1")).collect();
    let mut invalid = body("{\"eventType\":\"a\",\"payload\":\"??\"}");
    let place = invalid.windows(2).position(|pair| pair == b"??").unwrap();
    invalid[place..place + 2].copy_from_slice(b"\xc3\x28");
    let two = |second: &[u8]| [body(GOOD), second.to_vec()].concat();
    vec![
        ("70 empty body", body(""), &[400]),
        ("71 truncated JSON", body(r#"{"eventType":"a","payl"#), &[400]),
        ("72 trailing garbage", body(&format!("{GOOD}x")), &[400]),
        ("73 two values", body(&format!("{GOOD} {GOOD}")), &[400]),
        ("74 BOM", body(&format!("\u{feff}{GOOD}")), &[400]),
        ("75 invalid UTF-8", invalid, &[400]),
        ("76 lone surrogate", payload(r#""\ud800""#), &[400]),
        ("76 lone surrogate in a key", payload(r#"{"\udc00":1}"#), &[400]),
        ("77 raw NUL in a string", payload("\"a\0b\""), &[400]),
        ("78 escaped NUL", payload(r#""\u0000""#), &[202]),
        ("79 depth 127", payload(&nested(127)), &[202]),
        ("80 depth 128", payload(&nested(128)), &[400]),
        ("81 depth 100,000", payload(&nested(100_000)), &[400]),
        ("81 depth 100,000 outside an event", body(&nested(100_000)), &[400]),
        ("82 NaN", payload("NaN"), &[400]),
        ("83 1e999", payload("1e999"), &[400]),
        ("84 2^64", payload("18446744073709551616"), &[202]),
        ("85 100 k digits", payload(&"9".repeat(100_000)), &[400]),
        ("86 leading zero", payload("01"), &[400]),
        ("87 repeated keys", payload(r#"{"a":1,"a":2}"#), &[202]),
        ("88 20 k keys", payload(&format!("{{{}}}", keys.join(","))), &[202]),
        ("88 20 k keys in the envelope", body(&format!("{{{}}}", keys.join(","))), &[422]),
        ("89 a scalar as payload", payload("7"), &[202]),
        ("89 a scalar as envelope", body("7"), &[422]),
        ("90 exactly the limit", sized(256 * 1024), &[202]),
        ("91 one byte more", sized(256 * 1024 + 1), &[413]),
        ("92 two pipelined", two(&body(GOOD)), &[202, 202]),
        ("93 one and garbage", two(b"\x00garbage\r\n\r\n"), &[202, 400]),
        ("94 h2 preface and garbage", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxxxxxx".to_vec(), &[]),
        ("95 no key", request("/v1/keyed", "", GOOD).into(), &[401]),
        ("95 unknown key", request("/v1/keyed", "Authorization: Bearer x\r\n", GOOD).into(), &[401]),
        ("95 no key, Expect", request("/v1/keyed", "Expect: 100-continue\r\n", GOOD).into(), &[401]),
        ("97 key in the query", request("/v1/keyed?key=key-one", "", GOOD).into(), &[401]),
        (
            "98 two Authorizations",
            request("/v1/keyed", "Authorization: Bearer key-one\r\nAuthorization: Bearer key-one\r\n", GOOD).into(),
            &[400],
        ),
        ("102 id with a space", body(r#"{"id":"a b","eventType":"a","payload":1}"#), &[422]),
        ("102 id with a control character", body(r#"{"id":"a\u0007","eventType":"a","payload":1}"#), &[422]),
        ("102 id of 129", body(&format!(r#"{{"id":"{}","eventType":"a","payload":1}}"#, "i".repeat(129))), &[422]),
        ("102 id with a dot and a bar", body(r#"{"id":"a.b|c","eventType":"a","payload":1}"#), &[202]),
        ("107 unknown path", request("/v1/nobody", "", GOOD).into(), &[404]),
        ("108 CloudEvent without anything", cloud_event(""), &[422]),
        (
            "108 CloudEvent of another version",
            cloud_event(r#""specversion":"0.3","id":"1","source":"s","type":"t""#),
            &[422],
        ),
        (
            "108 CloudEvent with a bad time",
            cloud_event(r#""specversion":"1.0","id":"1","source":"s","type":"t","time":"noon""#),
            &[422],
        ),
        ("108 binary CloudEvent without a source", with("ce-specversion: 1.0\r\nce-id: 1\r\nce-type: t"), &[422]),
        (
            "108 binary and structured",
            request("/v1/events", "Content-Type: application/cloudevents+json\r\nce-id: 1\r\n", "{}").into(),
            &[400],
        ),
        ("109 empty batch", body("[]"), &[422]),
        ("109 a batch of the most", batch(1_000), &[202]),
        ("109 a batch of one more", batch(1_001), &[413]),
        ("109 one invalid", body(&format!("[{GOOD},{{}}]")), &[422]),
        ("114 admin path", request("/metrics", "", GOOD).into(), &[404]),
    ]
}

/// The last part of the problem's `type` that goes with a status in a row.
pub fn problem(name: &str, status: u16) -> &'static str {
    let number: u32 = name.split(' ').next().and_then(|number| number.parse().ok()).expect("a row has a number");
    match (status, number) {
        (400, 12 | 21..=25) => "broken-body",
        (400, 70..=91) => "not-json",
        (400, _) => "bad-request",
        (401, _) => "unauthorized",
        (404, _) => "unknown-path",
        (405, _) => "method-not-allowed",
        (411, _) => "length-required",
        (413, 109) => "too-many-events",
        (413, _) => "too-large",
        (415, 67) => "content-encoding",
        (415, _) if name.contains("charset") => "charset",
        (415, _) => "content-type",
        (417, _) => "expectation",
        (422, _) => "not-an-envelope",
        (431, _) => "head-too-large",
        (other, _) => panic!("{name}: no row should be answered {other}"),
    }
}
