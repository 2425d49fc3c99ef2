//! Fuzzing of patterns, against a matcher that is as simple as the documentation, and of `where`.

use super::condition::{Condition, ENVIRONMENT, Variables};
use super::pattern::{TypeIndex, TypePattern};
use crate::event;
use crate::fuzz::{Parts, fuzz};

/// What README says of patterns, word for word.
fn fits(pattern: &[&str], event_type: &[&str]) -> bool {
    match (pattern.split_first(), event_type.split_first()) {
        (Some((&"**", [])), _) => true,
        (Some((&"*", rest)), Some((_, types))) => fits(rest, types),
        (Some((exact, rest)), Some((own, types))) => exact == own && fits(rest, types),
        (None, None) => true,
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[test]
fn patterns() {
    fuzz("pattern", |input| {
        let mut parts = Parts(input);
        let event_type = parts.line();
        let (mut index, mut expected) = (TypeIndex::default(), Vec::new());
        for number in 0..8 {
            let text = parts.line();
            let Ok(pattern) = TypePattern::parse(&text) else { continue };
            index.insert(&pattern, number);
            let is_fit = fits(&text.split('.').collect::<Vec<_>>(), &event_type.split('.').collect::<Vec<_>>());
            assert_eq!(pattern.matches(&event_type), is_fit, "{text} and {event_type}");
            if is_fit {
                expected.push(number);
            }
        }
        assert_eq!(index.lookup(&event_type), expected, "{event_type}");
    });
}

#[test]
fn conditions() {
    let (mut true_of, mut refused) = (0, 0);
    fuzz("where", |input| {
        let mut parts = Parts(input);
        let text = parts.line();
        let (condition, is_refused) = match Condition::compile(&text) {
            Ok(condition) => (condition, false),
            // A name that there is not is refused wherever it stands.
            Err(errors)
                if errors
                    .iter()
                    .any(|error| error.message.contains(" is not known") || error.message.contains("function")) =>
            {
                return;
            }
            Err(_) => match ENVIRONMENT.compile(&text) {
                Ok(program) => (Condition::unforeseen(program, &text), true),
                Err(_) => return,
            },
        };
        let payload = parts.line();
        if serde_json::from_str::<&serde_json::value::RawValue>(&payload).is_err() {
            return;
        }
        let event = event::sample("evt_1", "order.created", &payload);
        let again = || condition.refuses(&Variables::of(&event));
        let reason = again();
        assert_eq!(reason, again(), "a filter is pure");
        assert!(!is_refused || reason.is_some(), "`{text}` is refused, and true of {payload}");
        if let Some(reason) = reason {
            assert!(reason.chars().count() <= 400);
            refused += 1;
        } else {
            true_of += 1;
        }
    });
    println!("fuzz where: {true_of} true, {refused} not");
    assert!(true_of > 0 && refused > 0, "not both were seen");
}
