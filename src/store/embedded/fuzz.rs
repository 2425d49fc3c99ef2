//! Fuzzing of rows of outcomes: damaged ones are refused without a word of what is in them, and what can be read is written
//! and read again as it was, whole and in parts. The lines are those that Redis keeps, too.

use super::super::Error;
use super::outcome::{append_lines, decode_row, encode_lines};
use crate::delivery::OutcomeRecord;
use crate::fuzz::fuzz;

/// More than a row of the corpus has.
const ALL: usize = 1_000;

fn in_parts(row: &[u8]) -> Result<Vec<OutcomeRecord>, Error> {
    let mut records = Vec::new();
    loop {
        let part = decode_row(row, records.len(), 2)?;
        if part.is_empty() {
            return Ok(records);
        }
        records.extend(part);
    }
}

#[test]
fn outcomes() {
    let mut read = 0;
    fuzz("outcome", |input| {
        // Most mutations of the first byte end at the version.
        let mended = [&[1], input.get(1..).unwrap_or_default()].concat();
        for row in [input, &mended] {
            match decode_row(row, 0, ALL) {
                Ok(records) => {
                    let mut again = Vec::new();
                    append_lines(&mut again, &encode_lines(&records));
                    if !records.is_empty() {
                        assert_eq!(decode_row(&again, 0, ALL).unwrap(), records);
                    }
                    assert_eq!(in_parts(row).unwrap(), records);
                    read += records.len();
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(matches!(error, Error::Damaged { .. }) && !text.contains("marker"), "{text}");
                }
            }
        }
    });
    assert!(read > 0, "no row could be read");
}
