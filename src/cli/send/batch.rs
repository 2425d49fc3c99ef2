//! JSON in, batches of events out: one event, an array, or events one after another. An event without an `id` is given one,
//! so that a batch can be sent again without being stored twice.

use std::io::Read;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::EventText;

/// A batch is sent when it is this large; a larger event is sent by itself.
const BODY_BYTES: usize = 512 * 1024;

/// Events that go in one request.
pub struct Batch {
    /// Each with its number in the input, from 1.
    pub events: Vec<(u64, EventText)>,
    bytes: usize,
}

impl Batch {
    fn new() -> Self {
        Self { events: Vec::new(), bytes: 0 }
    }

    /// A batch of these events.
    pub fn of(events: Vec<(u64, EventText)>) -> Self {
        let bytes = events.iter().map(|(_, text)| text.len()).sum();
        Self { events, bytes }
    }

    /// Whether there is nothing (left) to send.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events as a JSON array.
    pub fn body(&self) -> Bytes {
        let mut body = Vec::with_capacity(self.bytes + self.events.len() + 2);
        body.push(b'[');
        for (place, (_, text)) in self.events.iter().enumerate() {
            if place > 0 {
                body.push(b',');
            }
            body.extend_from_slice(text);
        }
        body.push(b']');
        body.into()
    }
}

/// Reads events and hands them over in batches, until `hand_over` says that nobody takes them any more. Gives whether all were
/// handed over; the error is a sentence for people.
pub fn read(input: impl Read, events_max: usize, mut hand_over: impl FnMut(Batch) -> bool) -> Result<bool, String> {
    let mut gathering = Gathering { events_max, batch: Batch::new(), count: 0, hand_over: &mut hand_over };
    let mut documents = serde_json::Deserializer::from_reader(input).into_iter::<Document>();
    for document in &mut documents {
        let document = document.map_err(|error| format!("the input is not JSON: {error}"));
        // What came before the fault is sent, and the fault is told.
        let document = match document {
            Ok(document) => document,
            Err(fault) => {
                gathering.flush();
                return Err(fault);
            }
        };
        for event in document.0 {
            if !gathering.add(&event) {
                return Ok(false);
            }
        }
    }
    Ok(gathering.flush())
}

struct Gathering<'a> {
    events_max: usize,
    batch: Batch,
    count: u64,
    hand_over: &'a mut dyn FnMut(Batch) -> bool,
}

impl Gathering<'_> {
    fn add(&mut self, event: &RawValue) -> bool {
        let text = with_id(event.get());
        let is_full = self.batch.events.len() == self.events_max || self.batch.bytes + text.len() > BODY_BYTES;
        if is_full && !self.flush() {
            return false;
        }
        self.count += 1;
        self.batch.bytes += text.len();
        self.batch.events.push((self.count, text));
        true
    }

    fn flush(&mut self) -> bool {
        let batch = std::mem::replace(&mut self.batch, Batch::new());
        batch.is_empty() || (self.hand_over)(batch)
    }
}

/// The event with an `id` of the form that a router makes, where it has none. What is no object is left for the router to refuse.
fn with_id(text: &str) -> EventText {
    #[derive(Deserialize)]
    struct Head {
        // Also one of `null`, which the router refuses.
        #[serde(default, deserialize_with = "present")]
        id: bool,
    }
    fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| true)
    }
    let members = text.strip_prefix('{').map(str::trim_start);
    match (members, serde_json::from_str::<Head>(text)) {
        (Some(members), Ok(Head { id: false })) => {
            let comma = if members.starts_with('}') { "" } else { "," };
            format!(r#"{{"id":"evt_{}"{comma}{members}"#, uuid::Uuid::now_v7().simple()).into()
        }
        _ => Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// One value of the input: an event, or an array of events.
struct Document(Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if !raw.get().starts_with('[') {
            return Ok(Self(vec![raw]));
        }
        serde_json::from_str(raw.get()).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(input: &str, events_max: usize) -> (Vec<Vec<u64>>, Vec<String>, Result<bool, String>) {
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        let done = read(input.as_bytes(), events_max, |batch| {
            numbers.push(batch.events.iter().map(|(number, _)| *number).collect());
            texts.extend(batch.events.iter().map(|(_, text)| String::from_utf8(text.to_vec()).unwrap()));
            true
        });
        (numbers, texts, done)
    }

    #[test]
    fn one_event_an_array_and_lines_are_read_alike() {
        let one = r#"{"id":"a","payload":1.00}"#;
        for (input, expected) in [
            (one.to_owned(), vec![vec![1]]),
            (format!("[{one},\n {one} , {one}]"), vec![vec![1, 2], vec![3]]),
            (format!("{one}\n{one}\n\n{one}\n"), vec![vec![1, 2], vec![3]]),
            (String::new(), vec![]),
            (" [ ] ".to_owned(), vec![]),
        ] {
            let (numbers, texts, done) = batches(&input, 2);
            assert_eq!((numbers, done), (expected, Ok(true)), "{input}");
            assert!(texts.iter().all(|text| text == one), "{texts:?}");
        }
    }

    #[test]
    fn what_came_before_a_fault_is_handed_over() {
        let (numbers, _, done) = batches("{\"id\":\"a\"}\n{\"id\":", 10);
        assert_eq!(numbers, [[1]]);
        assert!(done.unwrap_err().contains("line 2"));
    }

    #[test]
    fn an_event_without_an_id_gets_one_and_keeps_its_bytes() {
        for (given, rest) in [(r#"{ "payload" : [1.00 ] }"#, r#","payload" : [1.00 ] }"#), ("{}", "}")] {
            let text = String::from_utf8(with_id(given).to_vec()).unwrap();
            let id = text.strip_prefix(r#"{"id":"evt_"#).unwrap().split_once('"').unwrap();
            assert_eq!((id.0.len(), id.1), (32, rest), "{text}");
        }
        for given in [r#"{"payload":{"id":1},"id":"x"}"#, "7", r#"{"id":1,"id":2}"#, r#"{"id":null}"#] {
            assert_eq!(with_id(given), given.as_bytes(), "{given}");
        }
    }

    #[test]
    fn large_events_go_in_small_batches() {
        let large = format!(r#"{{"id":"a","payload":"{}"}}"#, "x".repeat(BODY_BYTES / 2));
        let (numbers, _, _) = batches(&format!("{large}\n{large}\n{large}"), 100);
        assert_eq!(numbers, [[1], [2], [3]]);
    }
}
