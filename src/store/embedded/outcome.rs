//! How outcomes are written: a version byte, then a line of JSON for each record. A row has those of a whole commit.

use super::super::Error;
use super::super::outcome_line::push_outcome;
use crate::delivery::OutcomeRecord;

/// The version this program writes.
const VERSION: u8 = 1;

/// So many events share an entry of the index of outcomes: a commit has those of many events in a row.
const BLOCK_EVENTS: i64 = 64;

/// The block of the index that an event belongs to.
pub(super) fn block_of(event: i64) -> i64 {
    event / BLOCK_EVENTS
}

/// Writes records as lines.
pub(super) fn encode_lines(records: &[OutcomeRecord]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(records.len() * 192);
    for record in records {
        push_outcome(&mut lines, record);
        lines.push(b'\n');
    }
    lines
}

/// Adds lines to a row.
pub(super) fn append_lines(row: &mut Vec<u8>, lines: &[u8]) {
    if row.is_empty() && !lines.is_empty() {
        row.push(VERSION);
    }
    row.extend_from_slice(lines);
}

/// Reads up to `max` records of a row, after the first `skip`.
pub(super) fn decode_row(row: &[u8], skip: usize, max: usize) -> Result<Vec<OutcomeRecord>, Error> {
    let damaged = |detail: String| Error::Damaged { what: "outcome", detail };
    match row.split_first() {
        Some((&VERSION, lines)) => lines
            .split_inclusive(|byte| *byte == b'\n')
            .skip(skip)
            .take(max)
            .map(|line| {
                let told =
                    |error: serde_json::Error| damaged(format!("it is not as expected, at byte {}", error.column()));
                serde_json::from_slice(line).map_err(told)
            })
            .collect(),
        Some((version, _)) => Err(damaged(format!("it has version {version}, this program reads version {VERSION}"))),
        None => Err(damaged("it is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::delivery::Outcome;
    use crate::event::Position;

    #[test]
    fn rows_are_read_back_in_parts() {
        let records: Vec<_> = (0..5_u64)
            .map(|n| OutcomeRecord {
                notes: vec![],
                by: None,
                event_id: format!("evt_{n}").into(),
                position: Position { partition: 0, major: n, minor: 0 },
                subscription: Some("line\nbreak".into()),
                outcome: Some(Outcome::Delivered),
                attempts: vec![],
                at: Timestamp::from_millis(n),
            })
            .collect();
        let mut row = Vec::new();
        append_lines(&mut row, &encode_lines(&records[..2]));
        append_lines(&mut row, &encode_lines(&records[2..]));
        assert_eq!(decode_row(&row, 0, 10).unwrap(), records);
        assert_eq!(decode_row(&row, 1, 3).unwrap(), records[1..4]);
        assert!(decode_row(&row, 5, 3).unwrap().is_empty());
        row[0] = 2;
        assert!(decode_row(&row, 0, 1).unwrap_err().to_string().contains("version 2"));
        assert!(matches!(decode_row(b"\x01{\"a\"", 0, 1), Err(Error::Damaged { .. })));
    }
}
