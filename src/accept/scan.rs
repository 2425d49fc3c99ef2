//! Plain JSON in one pass: an object's outermost level, and the strict check of all that it holds, at once.
//!
//! It knows the JSON that producers write, and leaves what is rare (exponents, surrogates, escapes in an outermost name,
//! deep nesting) to the parser in `json`, as it leaves what is wrong: what it takes the parser takes too, and reads the
//! same in it. What it does not take says nothing about the text. A fuzz target holds it to that.

use std::borrow::Cow;

use super::json::{MEMBERS_MAX, Object};
use crate::json::plain_bytes;

/// Nesting that is left to the parser, which knows its own limit.
const DEPTH_MAX: usize = 100;
/// A number of so many characters, without an exponent, is within the range of a double.
const NUMBER_BYTES_MAX: usize = 300;

/// The object that `text` is.
pub(super) fn object(text: &str) -> Option<Object<'_>> {
    let mut scan = Scan { text, at: 0 };
    let object = scan.top()?;
    scan.is_at_end().then_some(object)
}

/// The array of objects that `text` is, of `elements_max` at most.
pub(super) fn objects(text: &str, elements_max: usize) -> Option<Vec<Object<'_>>> {
    let mut scan = Scan { text, at: 0 };
    let mut objects = Vec::new();
    scan.space();
    scan.expect(b'[')?;
    loop {
        if objects.len() == elements_max {
            return None;
        }
        objects.push(scan.top()?);
        scan.space();
        match scan.next()? {
            b',' => {}
            b']' => return scan.is_at_end().then_some(objects),
            _ => return None,
        }
    }
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    /// An object at the outermost level, with space around it.
    fn top(&mut self) -> Option<Object<'a>> {
        let mut members = Vec::with_capacity(8);
        self.space();
        self.expect(b'{')?;
        self.members(1, Some(&mut members))?;
        Some(Object { members, cut: false, checked: true })
    }

    /// What follows an opening brace, to the closing one. Members are kept where there is a place for them.
    fn members(&mut self, depth: usize, mut kept: Option<&mut Vec<(Cow<'a, str>, &'a str)>>) -> Option<()> {
        self.space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.space();
            self.expect(b'"')?;
            let name = self.at;
            self.string()?;
            let name = name..self.at - 1;
            self.space();
            self.expect(b':')?;
            self.space();
            let value = self.at;
            self.value(depth)?;
            if let Some(kept) = &mut kept {
                let (name, value) = (self.text.get(name)?, self.text.get(value..self.at)?);
                if name.contains('\\') || kept.len() == MEMBERS_MAX {
                    return None;
                }
                kept.push((Cow::Borrowed(name), value));
            }
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// What follows an opening bracket, to the closing one.
    fn elements(&mut self, depth: usize) -> Option<()> {
        self.space();
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.space();
            self.value(depth)?;
            self.space();
            match self.next()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.next()? {
            b'"' => self.string(),
            b'{' => self.members(depth + 1, None),
            b'[' => self.elements(depth + 1),
            b't' => self.word(b"rue"),
            b'f' => self.word(b"alse"),
            b'n' => self.word(b"ull"),
            first @ (b'-' | b'0'..=b'9') => self.number(first),
            _ => None,
        }
    }

    /// What follows an opening quote, to the closing one.
    fn string(&mut self) -> Option<()> {
        loop {
            self.at += plain_bytes(&self.text.as_bytes()[self.at..]);
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let digits = self.text.get(self.at..self.at + 4)?;
                        // `from_str_radix` takes a sign as well.
                        let code = u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
                        char::from_u32(code)?;
                        self.at += 4;
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    /// What follows a number's first character.
    fn number(&mut self, first: u8) -> Option<()> {
        let begin = self.at;
        let lead = if first == b'-' { self.next()? } else { first };
        match lead {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            let fraction = self.at;
            self.skip_digits();
            if self.at == fraction {
                return None;
            }
        }
        let is_whole = !matches!(self.peek(), Some(b'e' | b'E'));
        (is_whole && self.at - begin < NUMBER_BYTES_MAX).then_some(())
    }

    fn skip_digits(&mut self) {
        let digits = self.text.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit());
        self.at += digits.count();
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        let is_there = self.text.as_bytes()[self.at..].starts_with(rest);
        self.at += rest.len();
        is_there.then_some(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn is_at_end(&mut self) -> bool {
        self.space();
        self.at == self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_objects_are_taken_with_their_members_as_they_stand() {
        let text = " { \"a\" : {\"b\":[1,-2.50,{}, [ ],true,false,null]} ,\n\"é\":\"x\\n\\u00e9\\\"\", \"a\":0} ";
        let object = object(text).unwrap();
        let value = r#"{"b":[1,-2.50,{}, [ ],true,false,null]}"#;
        assert_eq!(object.members, [("a".into(), value), ("é".into(), r#""x\n\u00e9\"""#), ("a".into(), "0")]);
        assert!(object.checked && !object.cut);
        assert!(super::object("{}").unwrap().members.is_empty());
    }

    #[test]
    fn strings_of_any_length_end_where_they_end() {
        for length in 0..40 {
            let text = format!(r#"{{"a":"{}","b":"{}\\"}}"#, "é".repeat(length), "x".repeat(length));
            let members = object(&text).unwrap().members;
            assert_eq!((members[0].1.len(), members[1].1.len()), (2 * length + 2, length + 4), "{length}");
        }
    }

    #[test]
    fn what_is_rare_or_wrong_is_left_to_the_parser() {
        let deep = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(object(&deep(DEPTH_MAX - 1)).is_some());
        let digits = format!(r#"{{"a":{}}}"#, "9".repeat(NUMBER_BYTES_MAX + 1));
        let many = format!("{{{}\"last\":0}}", "\"a\":1,".repeat(MEMBERS_MAX));
        for text in [
            "",
            " ",
            "{",
            "[]",
            "7",
            "{} x",
            "{}{}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":01}",
            "{\"a\":1e5}",
            "{\"a\":-}",
            "{\"a\":.5}",
            "{\"a\":1.}",
            "{\"a\":+1}",
            "{\"a\":tru}",
            "{\"a\":truex}",
            "{\"a\":[1,]}",
            "{\"a\":[,1]}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\\u+123\"}",
            "{\"a\":\"\\ud83d\\ude00\"}",
            "{\"\\u0061\":1}",
            "{\"a\":\"",
            "{\"a\":\"\\",
            "{\"a\":\"\\u00é\"}",
            "\u{feff}{}",
            &deep(DEPTH_MAX + 1),
            &digits,
            &many,
        ] {
            assert!(object(text).is_none(), "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn arrays_have_objects_and_a_bounded_number_of_them() {
        assert_eq!(objects(" [ {\"a\":1} , {} ] ", 2).unwrap().len(), 2);
        for text in ["[]", "[1]", "[{},]", "[{}", "[{}] 1", "{}", "[{},{},{}]"] {
            assert!(objects(text, 2).is_none(), "{text}");
        }
    }
}
