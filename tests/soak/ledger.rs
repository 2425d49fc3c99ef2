//! The invariant checker, as one pure function: what producers were told, what receivers got, what the store says,
//! and when something was disturbed, in; what does not fit together, out. Nobody is asked to look at a log.

#[cfg(test)]
mod tests; // The checker is checked: each kind of harm must be found.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

/// One event to one subscription.
pub type Pair = (String, String);

/// What must become of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    Filtered,
    DeadLetter,
}

/// An event that a producer sent, once or several times.
#[derive(Clone, Debug)]
pub struct Sent {
    pub id: String,
    /// Whether it was ever answered 2xx.
    pub acknowledged: bool,
    /// Whether it was ever answered otherwise, or not at all.
    pub refused: bool,
    /// What must become of it, by subscription.
    pub fates: BTreeMap<String, Fate>,
    /// The body that these subscriptions must get, as a digest; the others' bodies are made by the router.
    pub bodies: BTreeMap<String, u64>,
}

/// What a receiver did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A whole 2xx.
    Success,
    /// Nothing that could be taken for success.
    Failure,
    /// It began as a success and did not end as one.
    Unclear,
}

/// A request that a receiver got.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub pair: Pair,
    pub webhook_id: String,
    pub attempt: u32,
    pub body: u64,
    pub answer: Answer,
    /// Milliseconds since the run began.
    pub at: u64,
    /// How far the time of its signature is ahead of the receiver's clock, in seconds.
    pub signed_ahead: i64,
}

/// What the store says when everything is over.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Final outcomes, in the order in which they were recorded.
    pub finals: Vec<(Pair, Fate)>,
    /// Events that are recorded as wanted by nobody.
    pub unmatched: Vec<String>,
    /// Dead letters, with the digest of the bytes they would send.
    pub dead: Vec<(Pair, Option<u64>)>,
    /// Deliveries that still wait.
    pub waiting: Vec<Pair>,
    /// Events accepted and not settled.
    pub backlog: u64,
    /// What the store holds that nothing refers to.
    pub orphans: Vec<String>,
}

/// A time in which something was done to the system.
#[derive(Clone, Debug)]
pub struct Disturbance {
    pub what: &'static str,
    pub from: u64,
    pub to: u64,
    /// How many repeats it may cost: what can be under way when it is done. A rolling restart may cost none.
    pub repeats_max: usize,
    /// Whether the store may have lost what it had not acknowledged: another server has taken its place.
    pub may_forget: bool,
}

/// Everything that is known of a run.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    pub sent: Vec<Sent>,
    pub receipts: Vec<Receipt>,
    pub kept: Kept,
    pub disturbances: Vec<Disturbance>,
}

/// What does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// An acknowledged event has no final outcome for a subscription that wants it.
    Lost(Pair),
    /// An event that nobody acknowledged is there for some of its subscriptions and not for others.
    HalfThere(Pair),
    /// A pair has more than one final outcome.
    SettledTwice(Pair),
    /// A pair ended in another way than it had to.
    WrongFate(Pair, String),
    /// The store says delivered, and no receiver has answered 2xx.
    DeliveredUnseen(Pair),
    /// A receiver got what nobody sent, or what its subscription does not want.
    Ghost(Pair),
    /// A pair has a second `webhook-id`, or shares one with another pair.
    WebhookId(Pair),
    /// The bytes differ between two attempts, or from what was sent.
    ChangedBody(Pair),
    /// A pair arrived again after it had been answered 2xx, and nothing was disturbed in between: when, and as which attempt.
    RepeatWithoutFault(Pair, u64, u32),
    /// A fault, or all of them, cost more repeats than can have been under way: how many, and how many may be.
    TooManyRepeats(&'static str, usize, usize),
    /// A dead letter is recorded and not kept.
    DeadLetterGone(Pair),
    /// Something still waits although everything is over.
    StillWaits(String),
    /// The store holds what nothing refers to.
    Orphan(String),
}

impl Violation {
    /// The event that it is about.
    pub fn event(&self) -> Option<&str> {
        match self {
            Self::Lost(pair)
            | Self::HalfThere(pair)
            | Self::SettledTwice(pair)
            | Self::WrongFate(pair, _)
            | Self::DeliveredUnseen(pair)
            | Self::Ghost(pair)
            | Self::WebhookId(pair)
            | Self::ChangedBody(pair)
            | Self::RepeatWithoutFault(pair, ..)
            | Self::DeadLetterGone(pair) => Some(&pair.0),
            Self::TooManyRepeats(..) | Self::StillWaits(_) | Self::Orphan(_) => None,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What the checker found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub violations: BTreeSet<Violation>,
    /// Events answered 2xx.
    pub acknowledged: usize,
    /// Pairs checked.
    pub pairs: usize,
    /// Requests that receivers got.
    pub requests: usize,
    /// Requests that came again after a 2xx, each with a disturbance that explains it.
    pub repeats: usize,
    /// How many there may be, by what was disturbed.
    pub repeats_max: usize,
    /// Pairs that a lost server had given out before anybody was told that they are stored, and that came again as new ones.
    pub forgotten: usize,
}

/// Checks every promise about what was accepted.
pub fn check(evidence: &Evidence) -> Findings {
    let mut findings = Findings { requests: evidence.receipts.len(), ..Findings::default() };
    let sent: HashMap<&str, &Sent> = evidence.sent.iter().map(|sent| (sent.id.as_str(), sent)).collect();
    let receipts = by_pair(&evidence.receipts);
    check_outcomes(evidence, &sent, &receipts, &mut findings);
    check_requests(evidence, &sent, &receipts, &mut findings);
    check_rest(&evidence.kept, &mut findings);
    findings
}

type ReceiptsByPair<'a> = HashMap<&'a Pair, Vec<&'a Receipt>>;

fn by_pair(receipts: &[Receipt]) -> ReceiptsByPair<'_> {
    let mut by_pair = ReceiptsByPair::new();
    for receipt in receipts {
        by_pair.entry(&receipt.pair).or_default().push(receipt);
    }
    for receipts in by_pair.values_mut() {
        receipts.sort_by_key(|receipt| receipt.at);
    }
    by_pair
}

/// Exactly one final outcome for every pair that there must be, and no other.
fn check_outcomes(
    evidence: &Evidence,
    sent: &HashMap<&str, &Sent>,
    receipts: &ReceiptsByPair<'_>,
    findings: &mut Findings,
) {
    let mut finals: HashMap<&Pair, Vec<Fate>> = HashMap::new();
    for (pair, fate) in &evidence.kept.finals {
        finals.entry(pair).or_default().push(*fate);
    }
    let there: HashSet<&str> = evidence.kept.finals.iter().map(|((event, _), _)| event.as_str()).collect();
    let dead: HashMap<&Pair, Option<u64>> = evidence.kept.dead.iter().map(|(pair, body)| (pair, *body)).collect();
    let mut found = |violation| {
        findings.violations.insert(violation);
    };
    for event in &evidence.sent {
        findings.acknowledged += usize::from(event.acknowledged);
        for (subscription, fate) in &event.fates {
            let pair = (event.id.clone(), subscription.clone());
            let own = receipts.get(&pair).map_or(&[][..], |all| last_life(event, &evidence.disturbances, all));
            findings.pairs += 1;
            match finals.get(&pair).map_or(&[][..], Vec::as_slice) {
                [] if event.acknowledged => found(Violation::Lost(pair)),
                [] if there.contains(event.id.as_str()) => found(Violation::HalfThere(pair)),
                [] => {}
                [one] if one != fate => found(Violation::WrongFate(pair, format!("{one:?} instead of {fate:?}"))),
                [Fate::Delivered] => {
                    if !own.iter().any(|receipt| receipt.answer != Answer::Failure) {
                        found(Violation::DeliveredUnseen(pair));
                    }
                }
                [Fate::DeadLetter] => match dead.get(&pair) {
                    None => found(Violation::DeadLetterGone(pair)),
                    Some(None) => {}
                    Some(Some(body)) => {
                        if own.iter().any(|receipt| receipt.body != *body) {
                            found(Violation::ChangedBody(pair));
                        }
                    }
                },
                [Fate::Filtered] => {}
                [_, _, ..] => found(Violation::SettledTwice(pair)),
            }
        }
    }
    for pair in finals.keys() {
        if !sent.get(pair.0.as_str()).is_some_and(|event| event.fates.contains_key(&pair.1)) {
            found(Violation::Ghost((*pair).clone()));
        }
    }
    for event in &evidence.kept.unmatched {
        let wanted = sent.get(event.as_str()).is_none_or(|event| !event.fates.is_empty());
        if wanted {
            found(Violation::Ghost((event.clone(), String::new())));
        }
    }
}

/// Nothing that was not sent, one `webhook-id` a pair, the same bytes each time, and repeats only around a fault.
fn check_requests(
    evidence: &Evidence,
    sent: &HashMap<&str, &Sent>,
    receipts: &ReceiptsByPair<'_>,
    findings: &mut Findings,
) {
    let mut of_id: HashMap<&str, &Pair> = HashMap::new();
    let mut explained = Explained::new(&evidence.disturbances);
    for (pair, receipts) in receipts {
        let mut found = |violation| {
            findings.violations.insert(violation);
        };
        let event = sent.get(pair.0.as_str());
        match event.and_then(|event| event.fates.get(&pair.1)) {
            Some(Fate::Delivered | Fate::DeadLetter) => {}
            Some(Fate::Filtered) | None => found(Violation::Ghost((*pair).clone())),
        }
        // What was forgotten and sent again is another event to the router: it has another time, and so another id.
        let again = event.filter(|event| event.refused).and_then(|_| forgotten(&evidence.disturbances, receipts));
        findings.forgotten += usize::from(again.is_some());
        for lives in [&receipts[..again.unwrap_or(receipts.len())], &receipts[again.unwrap_or(receipts.len())..]] {
            let Some(first) = lives.first() else { continue };
            let must_be = event.and_then(|event| event.bodies.get(&pair.1)).copied().unwrap_or(first.body);
            if lives.iter().any(|receipt| receipt.body != must_be) {
                found(Violation::ChangedBody((*pair).clone()));
            }
            for receipt in lives {
                if *of_id.entry(&receipt.webhook_id).or_insert(pair) != *pair || receipt.webhook_id != first.webhook_id
                {
                    found(Violation::WebhookId((*pair).clone()));
                }
            }
        }
        let mut succeeded: Option<u64> = None;
        for receipt in receipts {
            if let Some(since) = succeeded
                && !explained.explains(since, receipt.at)
            {
                let pair = (*pair).clone();
                findings.violations.insert(Violation::RepeatWithoutFault(pair, receipt.at, receipt.attempt));
            }
            if receipt.answer == Answer::Success {
                succeeded = Some(receipt.at);
            }
        }
    }
    explained.check(findings);
}

/// The requests that are those of what the store has now.
fn last_life<'r>(event: &Sent, disturbances: &[Disturbance], receipts: &'r [&'r Receipt]) -> &'r [&'r Receipt] {
    let again = event.refused.then(|| forgotten(disturbances, receipts)).flatten();
    &receipts[again.unwrap_or(0)..]
}

/// Where a pair's second life begins, if a fail-over lies between the end of its first and that.
fn forgotten(disturbances: &[Disturbance], receipts: &[&Receipt]) -> Option<usize> {
    let again = receipts.iter().position(|receipt| receipt.webhook_id != receipts[0].webhook_id)?;
    let (last, next) = (receipts[again - 1].at, receipts[again].at);
    disturbances.iter().any(|fault| fault.may_forget && fault.from <= next && last <= fault.to).then_some(again)
}

/// The repeats that disturbances explain.
struct Explained<'a> {
    disturbances: &'a [Disturbance],
    repeats: usize,
    /// By disturbance: of those, the ones that nothing else explains.
    by_it_alone: Vec<usize>,
}

impl<'a> Explained<'a> {
    fn new(disturbances: &'a [Disturbance]) -> Self {
        Self { disturbances, repeats: 0, by_it_alone: vec![0; disturbances.len()] }
    }

    /// Counts a repeat, if something was disturbed between the success and it, and before the success can have been
    /// settled for long: what is settled no crash brings back. What follows the success by at most a moment can't be its
    /// cause, but the clocks of two tasks may be that far apart.
    fn explains(&mut self, success: u64, repeat: u64) -> bool {
        const MOMENT_MS: u64 = 50;
        const SETTLED_WITHIN_MS: u64 = 10_000;
        let causes = |fault: &Disturbance| {
            fault.repeats_max > 0
                && fault.from <= repeat.min(success.saturating_add(SETTLED_WITHIN_MS))
                && success <= fault.to.saturating_add(MOMENT_MS)
        };
        let mut causes = self.disturbances.iter().enumerate().filter(|(_, fault)| causes(fault));
        let Some((first, _)) = causes.next() else { return false };
        self.repeats += 1;
        self.by_it_alone[first] += usize::from(causes.next().is_none());
        true
    }

    /// None may have cost more than was under way, nor may all of them together.
    fn check(self, findings: &mut Findings) {
        findings.repeats = self.repeats;
        findings.repeats_max = self.disturbances.iter().map(|fault| fault.repeats_max).sum();
        let each = self.disturbances.iter().zip(self.by_it_alone);
        let each = each.map(|(fault, count)| (fault.what, count, fault.repeats_max));
        for (what, count, most) in each.chain([("all faults", self.repeats, findings.repeats_max)]) {
            if count > most {
                findings.violations.insert(Violation::TooManyRepeats(what, count, most));
            }
        }
    }
}

/// Nothing waits and nothing is left over.
fn check_rest(kept: &Kept, findings: &mut Findings) {
    for (event, subscription) in &kept.waiting {
        findings.violations.insert(Violation::StillWaits(format!("{event} for {subscription}")));
    }
    if kept.backlog > 0 {
        findings.violations.insert(Violation::StillWaits(format!("{} events", kept.backlog)));
    }
    findings.violations.extend(kept.orphans.iter().cloned().map(Violation::Orphan));
}
