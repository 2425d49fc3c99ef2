//! Envelopes → events: one, an array, or a line each. The payload's bytes are shared with the body, never copied.
//!
//! A body that is no JSON is one error; what is wrong with its events is gathered as faults, so that a
//! producer sees all of it at once.

use std::borrow::Cow;

use bytestring::ByteString;

use super::fault::{Faults, Place, shown};
use super::fields::{self, Draft};
use super::json::{self, Document, MEMBERS_MAX, Object, Shape};

/// The keys of an envelope.
const KEYS: [&str; 7] = ["id", "eventType", "aggregateType", "aggregateId", "payload", "occurredAt", "metadata"];
/// How like a known key an unknown one must be to be taken for a slip.
const LIKENESS_MIN: f64 = 0.75;

/// The events of a body.
#[derive(Debug)]
pub(super) struct Parsed {
    /// In their order; incomplete when there are faults.
    pub(super) drafts: Vec<Draft>,
    /// Whether the answer is about one event or lists them.
    pub(super) batch: bool,
    /// What is wrong with them.
    pub(super) faults: Faults,
}

/// Why a body has no events to look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is not JSON; the sentence says where.
    NotJson(String),
    /// It has more events than one request may.
    TooManyEvents,
    /// It is a batch of none.
    Empty,
}

/// How an object becomes a draft: as an envelope, or as a CloudEvent. `None` when there are faults.
pub(super) type Read = fn(&ByteString, Object<'_>, &mut Faults) -> Result<Option<Draft>, Unreadable>;

/// The events of `body`: one object, or (`Array`) one or an array of objects.
pub(super) fn parse(body: &ByteString, array: Array, events_max: usize, read: Read) -> Result<Parsed, Unreadable> {
    let mut faults = Faults::new();
    let mut drafts = Vec::new();
    match json::document(body, events_max).map_err(|error| Unreadable::NotJson(error.to_string()))? {
        Document::TooMany => return Err(Unreadable::TooManyEvents),
        Document::Many(elements) if array != Array::Refused => {
            if elements.is_empty() {
                return Err(Unreadable::Empty);
            }
            drafts.reserve(elements.len());
            for (index, shape) in elements.into_iter().enumerate() {
                faults.at(Place::Element(index));
                drafts.extend(read_shape(body, shape, &mut faults, read)?);
            }
            return Ok(Parsed { drafts, batch: true, faults });
        }
        Document::Many(_) => faults.add("", || "this content type has one event, not an array of them".to_owned()),
        Document::One(_) if array == Array::Required => {
            faults.add("", || "this content type has an array of events".to_owned());
        }
        Document::One(shape) => drafts.extend(read_shape(body, shape, &mut faults, read)?),
    }
    Ok(Parsed { drafts, batch: false, faults })
}

/// Whether a body may, must or must not be an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Array {
    /// One event or an array of them.
    Allowed,
    /// An array.
    Required,
    /// One event.
    Refused,
}

/// The events of a body with one in each line; blank lines are skipped.
pub(super) fn parse_lines(body: &ByteString, events_max: usize) -> Result<Parsed, Unreadable> {
    let mut parsed = Parsed { drafts: Vec::new(), batch: true, faults: Faults::new() };
    let lines = body.split('\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let mut count = 0;
    for (number, line) in lines {
        if count == events_max {
            return Err(Unreadable::TooManyEvents);
        }
        parsed.faults.at(Place::Line(count));
        count += 1;
        let in_line = |detail: String| Unreadable::NotJson(format!("in line {} of the body: {detail}", number + 1));
        let shape = json::shape(line).map_err(|error| in_line(error.to_string()))?;
        let draft = read_shape(body, shape, &mut parsed.faults, read_envelope).map_err(|error| match error {
            Unreadable::NotJson(detail) => in_line(detail),
            Unreadable::TooManyEvents | Unreadable::Empty => error,
        })?;
        parsed.drafts.extend(draft);
    }
    if count == 0 { Err(Unreadable::Empty) } else { Ok(parsed) }
}

fn read_shape(
    body: &ByteString,
    shape: Shape<'_>,
    faults: &mut Faults,
    read: Read,
) -> Result<Option<Draft>, Unreadable> {
    match shape {
        Shape::Object(object) => read(body, object, faults),
        Shape::Other => {
            faults.add("", || "an event is a JSON object".to_owned());
            Ok(None)
        }
    }
}

/// Reads one envelope.
pub(super) fn read_envelope(
    body: &ByteString,
    object: Object<'_>,
    faults: &mut Faults,
) -> Result<Option<Draft>, Unreadable> {
    let before = faults.count();
    let mut values: [Option<&str>; 7] = [None; 7];
    for (name, value) in &object.members {
        let Some(key) = KEYS.iter().position(|key| key == name) else {
            faults.add(name, || unknown(name));
            continue;
        };
        if values[key].replace(value).is_some() {
            faults.add(name, || format!("`{name}` is there more than once"));
        }
    }
    if object.cut {
        faults.add("", || format!("an event has at most {MEMBERS_MAX} members"));
    }
    let [id, event_type, aggregate_type, aggregate_id, payload, occurred_at, metadata] = values;
    let id = text("id", id, fields::id_fault, faults)?;
    if event_type.is_none() {
        faults.add("eventType", || "`eventType` is required".to_owned());
    }
    let event_type = text("eventType", event_type, fields::event_type_fault, faults)?;
    let aggregate_type = text("aggregateType", aggregate_type, fields::name_fault, faults)?;
    let aggregate_id = text("aggregateId", aggregate_id, fields::name_fault, faults)?;
    let occurred_at = text("occurredAt", occurred_at, fields::time_fault, faults)?;
    match payload {
        Some(payload) if !object.checked => checked("payload", payload)?,
        Some(_) => {}
        None => faults.add("payload", || "`payload` is required; it may be any JSON value, also `null`".to_owned()),
    }
    if let Some(metadata) = metadata {
        if !object.checked {
            checked("metadata", metadata)?;
        }
        if !metadata.starts_with('{') {
            faults.add("metadata", || "`metadata` must be an object".to_owned());
        }
    }
    let (Some(event_type), Some(payload), true) = (event_type, payload, faults.count() == before) else {
        return Ok(None);
    };
    let shared = |text: Cow<'_, str>| match text {
        Cow::Borrowed(text) => body.slice_ref(text),
        Cow::Owned(text) => ByteString::from(text),
    };
    Ok(Some(Draft {
        id: id.map(shared),
        event_type: shared(event_type),
        aggregate_type: aggregate_type.map(shared).unwrap_or_default(),
        aggregate_id: aggregate_id.map(shared).unwrap_or_default(),
        occurred_at: occurred_at.map(shared),
        payload: body.slice_ref(payload),
        metadata: metadata.map_or(ByteString::from_static("{}"), |metadata| body.slice_ref(metadata)),
    }))
}

/// The text of the member `name`, if it is there, is a string and follows `rule`; what is wrong with it becomes a fault.
pub(super) fn text<'raw>(
    name: &str,
    raw: Option<&'raw str>,
    rule: fn(&str) -> Option<&'static str>,
    faults: &mut Faults,
) -> Result<Option<Cow<'raw, str>>, Unreadable> {
    let Some(raw) = raw else { return Ok(None) };
    let Some(text) = json::string(raw).map_err(|error| in_member(name, &error))? else {
        faults.add(name, || format!("`{name}` must be a string"));
        return Ok(None);
    };
    if let Some(wrong) = rule(&text) {
        faults.add(name, || format!("`{name}` {wrong}"));
        return Ok(None);
    }
    Ok(Some(text))
}

/// Whether the member's whole value can be passed on.
pub(super) fn checked(name: &str, raw: &str) -> Result<(), Unreadable> {
    json::check(raw).map_err(|error| in_member(name, &error))
}

fn in_member(name: &str, error: &json::Error) -> Unreadable {
    Unreadable::NotJson(format!("in `{name}`, counted from where its value begins: {error}"))
}

fn unknown(name: &str) -> String {
    let like = KEYS
        .iter()
        .map(|key| (strsim::jaro_winkler(key, &name.chars().take(32).collect::<String>()), key))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let shown = shown(name);
    match like {
        Some((_, key)) => format!("an envelope has no key `{shown}`; did you mean `{key}`?"),
        None => format!("an envelope has no key `{shown}`; data of your own goes into `payload` or `metadata`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &str) -> Result<Parsed, Unreadable> {
        parse(&body.into(), Array::Allowed, 3, read_envelope)
    }

    /// Pointers and details of the faults of a body that is JSON.
    fn faults(body: &str) -> Vec<(String, String)> {
        let parsed = parsed(body).unwrap();
        parsed.faults.list().iter().map(|fault| (fault.pointer.clone(), fault.detail.clone())).collect()
    }

    #[test]
    fn an_envelope_keeps_its_payload_and_metadata_byte_for_byte() {
        let payload = r#"{"b": 1.000, "a":12345678901234567890123, "b":[ ],"c":"\u0000\ud83d\ude00"}"#;
        let body = ByteString::from(format!(
            r#" {{"id":"evt_1","event\u0054ype":"user.created","aggregateType":"User","aggregateId":"\u00e9","payload": {payload} ,
                "occurredAt":"2025-01-15T10:30:00+01:00","metadata":{{ "t":1.0 }}}} "#
        ));
        let parsed = parse(&body, Array::Allowed, 1, read_envelope).unwrap();
        assert!(parsed.faults.is_empty() && !parsed.batch);
        let draft = &parsed.drafts[0];
        assert_eq!(
            *draft,
            Draft {
                id: Some("evt_1".into()),
                event_type: "user.created".into(),
                aggregate_type: "User".into(),
                aggregate_id: "é".into(),
                occurred_at: Some("2025-01-15T10:30:00+01:00".into()),
                payload: payload.into(),
                metadata: r#"{ "t":1.0 }"#.into(),
            }
        );
        let range = body.as_bytes().as_ptr_range();
        assert!(range.contains(&draft.payload.as_bytes().as_ptr()), "the payload shares the body's bytes");
    }

    #[test]
    fn what_may_be_left_out_is_left_out() {
        let parsed = parsed(r#"{"eventType":"a","payload":null}"#).unwrap();
        let draft = &parsed.drafts[0];
        assert_eq!((draft.id.as_ref(), draft.occurred_at.as_ref()), (None, None));
        assert_eq!((&*draft.payload, &*draft.metadata), ("null", "{}"));
        assert_eq!((&*draft.aggregate_type, &*draft.aggregate_id), ("", ""));
    }

    #[test]
    fn every_fault_has_its_pointer() {
        for (body, pointers) in [
            ("{}", vec!["/eventType", "/payload"]),
            ("7", vec![""]),
            (r#""text""#, vec![""]),
            ("null", vec![""]),
            (r#"{"eventType":"a","payload":1,"x~/y":2}"#, vec!["/x~0~1y"]),
            (r#"{"eventType":"a","payload":1,"payload":1}"#, vec!["/payload"]),
            (r#"{"eventType":"a","payload":1,"\u0069d":"b","id":"c"}"#, vec!["/id"]),
            (r#"{"eventType":7,"payload":1}"#, vec!["/eventType"]),
            (r#"{"eventType":"a b","payload":1}"#, vec!["/eventType"]),
            (r#"{"eventType":null,"payload":1}"#, vec!["/eventType"]),
            (r#"{"eventType":"a","payload":1,"id":""}"#, vec!["/id"]),
            (r#"{"eventType":"a","payload":1,"id":null}"#, vec!["/id"]),
            (r#"{"eventType":"a","payload":1,"metadata":[]}"#, vec!["/metadata"]),
            (r#"{"eventType":"a","payload":1,"metadata":null}"#, vec!["/metadata"]),
            (r#"{"eventType":"a","payload":1,"occurredAt":"today"}"#, vec!["/occurredAt"]),
            (r#"{"eventType":"a","payload":1,"aggregateId":"\u0000"}"#, vec!["/aggregateId"]),
            (r#"{"eventType":"a","payload":1,"aggregateType":1,"id":2}"#, vec!["/id", "/aggregateType"]),
            (r#"[{"eventType":"a","payload":1},{"eventType":"a"},7]"#, vec!["/1/payload", "/2"]),
        ] {
            let found = faults(body);
            assert_eq!(found.iter().map(|(pointer, _)| pointer).collect::<Vec<_>>(), pointers, "{body}");
        }
    }

    #[test]
    fn faults_name_keys_and_never_quote_values() {
        let found =
            faults(r#"{"event_type":"secret-1","payload":1,"occuredAt":"secret-2","id":"secret 3","zzz":"secret-4"}"#);
        let text = format!("{found:?}");
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("`event_type`; did you mean `eventType`?"), "{text}");
        assert!(text.contains("`occuredAt`; did you mean `occurredAt`?"), "{text}");
        assert!(text.contains("no key `zzz`; data of your own"), "{text}");
    }

    #[test]
    fn a_body_that_is_no_json_is_not_an_envelope_with_faults() {
        let nested =
            |depth: usize| format!(r#"{{"eventType":"a","payload":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(parsed(&nested(127)).unwrap().faults.is_empty());
        let mut bodies = vec![nested(128), nested(100_000)];
        for payload in ["1e999", "NaN", "01", r#""\ud83d""#, "\"\0\"", "{", "[1,]", r#"{"\udc00":1}"#, "tru"] {
            bodies.push(format!(r#"{{"eventType":"a","payload":{payload}}}"#));
            bodies.push(format!(r#"{{"eventType":"a","payload":1,"metadata":{{"a":{payload}}}}}"#));
            bodies.push(payload.to_owned());
            bodies.push(format!("[{payload}"));
        }
        for body in [
            "",
            " ",
            "{} {}",
            r#"{"eventType":"a","payload":1} x"#,
            "\u{feff}{}",
            r#"{"eventType":"\ud83d","payload":1}"#,
        ] {
            bodies.push(body.to_owned());
        }
        for body in bodies {
            let result = parsed(&body);
            assert!(matches!(result, Err(Unreadable::NotJson(_))), "{} gave {result:?}", &body[..body.len().min(60)]);
        }
    }

    #[test]
    fn batches_are_arrays_or_lines_of_a_bounded_number() {
        let one = r#"{"eventType":"a","payload":1}"#;
        let array = |count: usize| format!("[{}]", vec![one; count].join(","));
        assert_eq!(parsed(&array(3)).unwrap().drafts.len(), 3);
        assert!(parsed(&array(1)).unwrap().batch);
        assert_eq!(parsed(&array(4)).unwrap_err(), Unreadable::TooManyEvents);
        assert_eq!(parsed("[]").unwrap_err(), Unreadable::Empty);
        let lines = |text: &str| parse_lines(&text.into(), 2);
        assert_eq!(lines(&format!("\r\n{one}\r\n  \n{one}")).unwrap().drafts.len(), 2);
        assert_eq!(lines(&[one; 3].join("\n")).unwrap_err(), Unreadable::TooManyEvents);
        assert_eq!(lines(" \n\n").unwrap_err(), Unreadable::Empty);
        let faulty = lines(&format!("\n{one}\n{{}}")).unwrap().faults;
        assert_eq!((faulty.list()[0].pointer.as_str(), faulty.list()[0].index), ("/eventType", Some(1)));
        let Err(Unreadable::NotJson(text)) = lines(&format!("{one}\n\n{{\n")) else { panic!("it is no JSON") };
        assert!(text.starts_with("in line 3 of the body: "), "{text}");
    }
}
