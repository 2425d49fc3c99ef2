//! Fuzzing of stored records: damaged ones are refused, and what can be read is written and read again as it was.

use bytes::Bytes;

use super::{
    Error, decode_dead_letter, decode_delivery, decode_event, encode_dead_letter, encode_delivery, encode_event,
};
use crate::fuzz::fuzz;

/// A record is a version, the length of its head, the head, the body. Most mutations break the length, so it is put right.
fn mended(input: &[u8]) -> Bytes {
    let mut record = input.to_vec();
    if record.len() > 5 {
        // The head is JSON and ends at the first brace that closes all others, as far as a test needs to know.
        let mut depth = 0_i32;
        let end = record[5..].iter().position(|byte| {
            depth += i32::from(*byte == b'{') - i32::from(*byte == b'}');
            depth == 0
        });
        let head = u32::try_from(end.map_or(record.len() - 5, |end| end + 1)).unwrap();
        record[0] = 1;
        record[1..5].copy_from_slice(&head.to_le_bytes());
    }
    record.into()
}

/// The same of a head that is a list of fields: the lengths of those are put right too, where they go beyond the end.
fn mended_fields(input: &[u8]) -> Bytes {
    let mut record = input.to_vec();
    if record.len() > 5 {
        let given = u32::from_le_bytes(record[1..5].try_into().unwrap()) as usize;
        let end = given.clamp(1, record.len() - 5) + 5;
        record[0] = 2;
        record[1..5].copy_from_slice(&u32::try_from(end - 5).unwrap().to_le_bytes());
        let mut at = 5;
        while at + 5 <= end {
            let left = end - at - 5;
            let length = u32::from_le_bytes(record[at + 1..at + 5].try_into().unwrap()) as usize;
            let length = if length > left { left.min(8) } else { length };
            record[at + 1..at + 5].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            at += 5 + length;
        }
        record.drain(at..end);
        record[1..5].copy_from_slice(&u32::try_from(at - 5).unwrap().to_le_bytes());
    }
    record.into()
}

fn refused(error: &Error) {
    let text = error.to_string();
    assert!(matches!(error, Error::Damaged { .. }) && !text.contains("marker"), "{text}");
}

#[test]
fn records() {
    let (mut events, mut deliveries, mut letters) = (0, 0, 0);
    fuzz("record", |input| {
        for record in [Bytes::copy_from_slice(input), mended(input), mended_fields(input)] {
            match decode_event(&record) {
                Ok(event) => {
                    assert_eq!(decode_event(&encode_event(&event).into()).unwrap(), event);
                    events += 1;
                }
                Err(error) => refused(&error),
            }
            match decode_delivery(&record) {
                Ok(delivery) => {
                    assert_eq!(decode_delivery(&encode_delivery(&delivery).into()).unwrap(), delivery);
                    deliveries += 1;
                }
                Err(error) => refused(&error),
            }
            match decode_dead_letter(&record) {
                Ok(letter) => {
                    assert_eq!(decode_dead_letter(&encode_dead_letter(&letter).into()).unwrap(), letter);
                    letters += 1;
                }
                Err(error) => refused(&error),
            }
        }
    });
    println!("fuzz record: {events} events, {deliveries} deliveries and {letters} dead letters could be read");
    assert!(events > 0 && deliveries > 0 && letters > 0, "not every kind could be read");
}
