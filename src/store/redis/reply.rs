//! Answers of Redis, taken apart. Bytes are moved, never copied.

use bytes::Bytes;
use redis::Value;

use super::fault::Fault;

/// A stream entry's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StreamId {
    pub(super) milliseconds: u64,
    pub(super) sequence: u64,
}

impl StreamId {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (milliseconds, sequence) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { milliseconds: milliseconds.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut digits = itoa::Buffer::new();
        f.write_str(digits.format(self.milliseconds))?;
        f.write_str("-")?;
        f.write_str(digits.format(self.sequence))
    }
}

/// A stream entry: its id and its fields in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: StreamId,
    pub(super) fields: Vec<(Bytes, Bytes)>,
}

impl Entry {
    /// The value of a field.
    pub(super) fn field(&self, name: &[u8]) -> Option<Bytes> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone())
    }
}

/// The elements of an array; none for nil.
pub(super) fn array(value: Value) -> Result<Vec<Value>, Fault> {
    match value {
        Value::Array(elements) => Ok(elements),
        Value::Nil => Ok(Vec::new()),
        _ => Err(Fault::strange("a call that answers an array")),
    }
}

/// A whole number, as an integer or as digits.
pub(super) fn number(value: &Value) -> Result<i64, Fault> {
    let digits = match value {
        Value::Int(number) => return Ok(*number),
        Value::BulkString(digits) => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()),
        Value::SimpleString(digits) => digits.parse().ok(),
        _ => None,
    };
    digits.ok_or_else(|| Fault::strange("a call that answers a number"))
}

/// A number that is not negative; a negative one is 0.
pub(super) fn count(value: &Value) -> Result<u64, Fault> {
    number(value).map(|number| u64::try_from(number).unwrap_or(0))
}

/// Bytes; `None` for nil.
pub(super) fn bytes(value: Value) -> Result<Option<Bytes>, Fault> {
    match value {
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        Value::SimpleString(text) => Ok(Some(text.into_bytes().into())),
        Value::Okay => Ok(Some(Bytes::from_static(b"OK"))),
        Value::Nil => Ok(None),
        _ => Err(Fault::strange("a call that answers a string")),
    }
}

/// A text; empty for nil.
pub(super) fn text(value: Value) -> Result<String, Fault> {
    let bytes = bytes(value)?.unwrap_or_default();
    String::from_utf8(bytes.into()).map_err(|_| Fault::strange("a call that answers a text"))
}

/// Stream entries.
pub(super) fn entries(value: Value) -> Result<Vec<Entry>, Fault> {
    array(value)?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Result<Entry, Fault> {
    let mut parts = array(value)?.into_iter();
    let id = bytes(parts.next().unwrap_or(Value::Nil))?.unwrap_or_default();
    let id = StreamId::parse(&id).ok_or_else(|| Fault::strange("a read of a stream"))?;
    let mut values = array(parts.next().unwrap_or(Value::Nil))?.into_iter();
    let mut fields = Vec::with_capacity(values.len() / 2);
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        fields.push((bytes(name)?.unwrap_or_default(), bytes(value)?.unwrap_or_default()));
    }
    Ok(Entry { id, fields })
}

/// What `XREADGROUP` answers: stream key and entries.
pub(super) fn streams(value: Value) -> Result<Vec<(String, Vec<Entry>)>, Fault> {
    let mut streams = Vec::new();
    for stream in array(value)? {
        let mut parts = array(stream)?.into_iter();
        let key = text(parts.next().unwrap_or(Value::Nil))?;
        streams.push((key, entries(parts.next().unwrap_or(Value::Nil))?));
    }
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_of_streams_is_taken_apart() {
        let answer = b"*1\r\n*2\r\n$3\r\nkey\r\n*1\r\n*2\r\n$4\r\n17-2\r\n*2\r\n$1\r\ne\r\n$2\r\nab\r\n";
        let streams = streams(redis::parse_redis_value(answer).unwrap()).unwrap();
        let (key, entries) = &streams[0];
        assert_eq!((key.as_str(), entries[0].id), ("key", StreamId { milliseconds: 17, sequence: 2 }));
        assert_eq!(entries[0].field(b"e").unwrap(), "ab");
        assert_eq!(entries[0].field(b"x"), None);
    }

    #[test]
    fn numbers_come_as_integers_or_digits() {
        assert_eq!(number(&Value::Int(-3)).unwrap(), -3);
        assert_eq!(number(&Value::BulkString(b"1700000000001".to_vec())).unwrap(), 1_700_000_000_001);
        assert!(number(&Value::Nil).is_err());
        assert_eq!(count(&Value::Int(-3)).unwrap(), 0);
    }
}
