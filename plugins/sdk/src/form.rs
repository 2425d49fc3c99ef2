//! Bodies of the type `application/x-www-form-urlencoded`, as HTML forms send them: names and values
//! with everything but letters, digits and `-._*` as `%` and two hexadecimal digits, spaces as `+`.

use crate::{Body, Request};

/// The `content-type` of a form.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// A form, to which fields are added in the order in which they are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(String);

impl Form {
    /// The same form with one more field. A name may be there more than once.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        encode(name, &mut self.0);
        self.0.push('=');
        encode(value, &mut self.0);
        self
    }

    /// The request that sends this form.
    pub fn into_request(self) -> Request {
        Request { headers: Vec::new(), content_type: FORM.to_owned(), body: Body::Text(self.0) }
    }
}

/// A name or a value of a form.
pub fn encode(text: &str, into: &mut String) {
    percent(text, into, |byte| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte), true);
}

/// A part of an address: as in a form, but a space is `%20`, and `~` stands as it is.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    percent(text, &mut encoded, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte), false);
    encoded
}

/// What [`percent_encode`] was given. A `%` without two hexadecimal digits is left as it is; bytes
/// that are not UTF-8 become `�`.
pub fn percent_decode(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, digit(after.first()), digit(after.get(1))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn percent(text: &str, into: &mut String, plain: impl Fn(u8) -> bool, plus: bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    into.reserve(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' if plus => into.push('+'),
            byte if plain(byte) => into.push(char::from(byte)),
            byte => {
                into.push('%');
                into.push(char::from(DIGITS[usize::from(byte >> 4)]));
                into.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_what_a_browser_would_send() {
        let form = Form::default().field("to", "a+b@c.kr").field("h:Reply-To", "홍 <x@y.kr>").field("", "&=%\r\n*~");
        assert_eq!(
            form.into_request().body,
            Body::Text("to=a%2Bb%40c.kr&h%3AReply-To=%ED%99%8D+%3Cx%40y.kr%3E&=%26%3D%25%0D%0A*%7E".to_owned())
        );
    }

    #[test]
    fn a_part_of_an_address_comes_back() {
        assert_eq!(percent_encode("가 a~/?"), "%EA%B0%80%20a~%2F%3F");
        for text in ["", "가 a~/?", "100%", "%zz", "%e"] {
            assert_eq!(percent_decode(&percent_encode(text)), text);
        }
        assert_eq!(percent_decode("100%, %zz, %ff"), "100%, %zz, \u{fffd}");
    }
}
