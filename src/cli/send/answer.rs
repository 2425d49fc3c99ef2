//! What a batch was answered, event by event.

use http::StatusCode;
use serde::Deserialize;

use super::batch::Batch;
use crate::cli::http::{Answer, ProblemError};

/// What became of one event.
pub enum Fate {
    /// It is stored.
    Accepted { id: String },
    /// It was stored before.
    Duplicate { id: String },
    /// It is not stored, and why.
    Refused { errors: Vec<ProblemError> },
    /// No router was asked, or none answered that it is there.
    Unsent { why: String },
    /// It was sent and not answered: it may be stored.
    Unanswered { why: String },
}

impl Fate {
    /// The word for programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Duplicate { .. } => "duplicate",
            Self::Refused { .. } => "refused",
            Self::Unsent { .. } => "unsent",
            Self::Unanswered { .. } => "unanswered",
        }
    }
}

/// What became of a batch.
#[derive(Default)]
pub struct Answered {
    /// Each event's number in the input, and its fate; in the order of the input.
    pub fates: Vec<(u64, Fate)>,
    /// Whether other batches would be refused as this one was.
    pub is_for_all: bool,
}

#[derive(Deserialize)]
struct Statuses {
    events: Vec<Status>,
}

#[derive(Deserialize)]
struct Status {
    id: String,
    status: String,
}

impl Answered {
    /// The batch has its answer, which is no refusal of single events.
    pub fn settle(&mut self, batch: &Batch, answer: &Answer) {
        if answer.status.is_success() {
            return self.accept(batch, answer);
        }
        self.is_for_all = !matches!(answer.status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE);
        self.refuse_all(batch, &answer.describe());
    }

    /// The batch is stored; `answer` says under which ids, and which events were stored before.
    fn accept(&mut self, batch: &Batch, answer: &Answer) {
        let statuses = serde_json::from_slice::<Statuses>(&answer.body).map(|answer| answer.events);
        match statuses {
            Ok(statuses) if statuses.len() == batch.events.len() => {
                for ((number, _), Status { id, status }) in batch.events.iter().zip(statuses) {
                    let fate = if status == "duplicate" { Fate::Duplicate { id } } else { Fate::Accepted { id } };
                    self.add(*number, fate);
                }
            }
            Ok(_) | Err(_) => {
                let why =
                    format!("the answer is {}, but not one of a Branchline source; is the URL right?", answer.status);
                self.refuse_all(batch, &why);
                self.is_for_all = true;
            }
        }
    }

    /// The batch is refused for some of its events: gives the others.
    pub fn refuse_faulty(&mut self, batch: Batch, answer: &Answer) -> Batch {
        let errors = answer.problem().map(|problem| problem.errors).unwrap_or_default();
        if !errors.iter().any(|error| error.index.is_some_and(|index| index < batch.events.len())) {
            self.refuse_all(&batch, &answer.describe());
            return Batch::of(Vec::new());
        }
        let mut good = Vec::new();
        for (place, (number, text)) in batch.events.into_iter().enumerate() {
            let of_event = errors.iter().filter(|error| error.index == Some(place));
            let errors: Vec<_> = of_event.map(|error| within_event(error, place)).collect();
            if errors.is_empty() {
                good.push((number, text));
            } else {
                self.add(number, Fate::Refused { errors });
            }
        }
        Batch::of(good)
    }

    /// None of the batch is stored, for one reason.
    pub fn refuse_all(&mut self, batch: &Batch, why: &str) {
        for (number, _) in &batch.events {
            let error = ProblemError { pointer: String::new(), detail: why.to_owned(), index: None };
            self.add(*number, Fate::Refused { errors: vec![error] });
        }
    }

    /// The batch is given up without an answer.
    pub fn leave(&mut self, batch: &Batch, why: &str, may_be_stored: bool) {
        for (number, _) in &batch.events {
            let why = why.to_owned();
            self.add(*number, if may_be_stored { Fate::Unanswered { why } } else { Fate::Unsent { why } });
        }
    }

    /// Why the first of those is not stored that are not.
    pub fn why(&self) -> Option<String> {
        self.fates.iter().find_map(|(_, fate)| match fate {
            Fate::Accepted { .. } | Fate::Duplicate { .. } => None,
            Fate::Refused { errors } => errors.first().map(|error| error.detail.clone()),
            Fate::Unsent { why } | Fate::Unanswered { why } => Some(why.clone()),
        })
    }

    fn add(&mut self, number: u64, fate: Fate) {
        let place = self.fates.partition_point(|(earlier, _)| *earlier < number);
        self.fates.insert(place, (number, fate));
    }
}

/// The error as one of the event alone: the batch is ours, and the sender does not know its places.
fn within_event(error: &ProblemError, place: usize) -> ProblemError {
    let pointer = error.pointer.strip_prefix(&format!("/{place}")).unwrap_or(&error.pointer);
    ProblemError { pointer: pointer.to_owned(), detail: error.detail.clone(), index: None }
}
