//! The checker is checked: a run without harm passes, and each kind of harm is found and named.

use super::*;

fn pair(event: &str, subscription: &str) -> Pair {
    (event.to_owned(), subscription.to_owned())
}

fn receipt(event: &str, subscription: &str, at: u64, answer: Answer) -> Receipt {
    let webhook_id = format!("dlv_{event}_{subscription}");
    Receipt { pair: pair(event, subscription), webhook_id, attempt: 1, body: 7, answer, at, signed_ahead: 0 }
}

/// One acknowledged event for three subscriptions: one gets it at the second attempt, one filters it, one gives it up.
fn harmless() -> Evidence {
    let fates = [("audit", Fate::Delivered), ("sales", Fate::Filtered), ("doomed", Fate::DeadLetter)];
    let fates: BTreeMap<_, _> = fates.into_iter().map(|(name, fate)| (name.to_owned(), fate)).collect();
    let finals = fates.iter().map(|(name, fate)| (pair("evt_1", name), *fate)).collect();
    Evidence {
        sent: vec![Sent {
            id: "evt_1".to_owned(),
            acknowledged: true,
            refused: false,
            fates,
            bodies: BTreeMap::from([("audit".to_owned(), 7)]),
        }],
        receipts: vec![
            receipt("evt_1", "audit", 100, Answer::Failure),
            receipt("evt_1", "audit", 300, Answer::Success),
            receipt("evt_1", "doomed", 100, Answer::Failure),
        ],
        kept: Kept { finals, dead: vec![(pair("evt_1", "doomed"), Some(7))], ..Kept::default() },
        disturbances: vec![],
    }
}

fn disturbed(from: u64, to: u64, may_repeat: bool) -> Disturbance {
    Disturbance { what: "a fault", from, to, repeats_max: usize::from(may_repeat), may_forget: false }
}

/// What is found when this harm is done to a run without harm.
fn found(harm: impl FnOnce(&mut Evidence)) -> Vec<Violation> {
    let mut evidence = harmless();
    harm(&mut evidence);
    check(&evidence).violations.into_iter().collect()
}

#[test]
fn a_run_without_harm_passes() {
    let findings = check(&harmless());
    assert!(findings.violations.is_empty(), "{:?}", findings.violations);
    assert_eq!((findings.acknowledged, findings.pairs, findings.requests, findings.repeats), (1, 3, 3, 0));
}

#[test]
fn a_lost_acknowledgement_is_found() {
    let lost = found(|evidence| {
        evidence.kept = Kept::default();
        evidence.receipts.clear();
    });
    let all = ["audit", "doomed", "sales"].map(|name| Violation::Lost(pair("evt_1", name)));
    assert_eq!(lost, all);
}

#[test]
fn a_settlement_that_was_dropped_is_found() {
    let dropped = found(|evidence| drop(evidence.kept.finals.remove(0)));
    assert_eq!(dropped, [Violation::Lost(pair("evt_1", "audit"))]);
}

#[test]
fn an_event_that_nobody_acknowledged_is_there_as_a_whole_or_not_at_all() {
    let unknown = |evidence: &mut Evidence| evidence.sent[0].acknowledged = false;
    assert_eq!(found(unknown), []);
    let absent = found(|evidence| {
        unknown(evidence);
        evidence.kept = Kept::default();
        evidence.receipts.clear();
    });
    assert_eq!(absent, []);
    let half = found(|evidence| {
        unknown(evidence);
        evidence.kept.finals.remove(0);
    });
    assert_eq!(half, [Violation::HalfThere(pair("evt_1", "audit"))]);
}

#[test]
fn a_second_outcome_is_found() {
    let twice = found(|evidence| evidence.kept.finals.push((pair("evt_1", "audit"), Fate::Delivered)));
    assert_eq!(twice, [Violation::SettledTwice(pair("evt_1", "audit"))]);
}

#[test]
fn a_wrong_fate_is_found() {
    let given_up = found(|evidence| evidence.kept.finals[0].1 = Fate::DeadLetter);
    assert!(matches!(&given_up[..], [Violation::WrongFate(..)]), "{given_up:?}");
}

#[test]
fn delivered_without_a_receipt_is_found() {
    let unseen = found(|evidence| evidence.receipts.retain(|receipt| receipt.answer == Answer::Failure));
    assert_eq!(unseen, [Violation::DeliveredUnseen(pair("evt_1", "audit"))]);
    let unclear = found(|evidence| evidence.receipts[1].answer = Answer::Unclear);
    assert_eq!(unclear, [], "a 2xx that broke off may have been taken for a success");
}

#[test]
fn a_ghost_is_found_whether_received_or_recorded() {
    let ghosts = [
        found(|evidence| evidence.receipts.push(receipt("evt_9", "audit", 5, Answer::Success))),
        found(|evidence| evidence.receipts.push(receipt("evt_1", "sales", 5, Answer::Success))),
        found(|evidence| evidence.kept.finals.push((pair("evt_9", "audit"), Fate::Delivered))),
        found(|evidence| evidence.kept.unmatched.push("evt_1".to_owned())),
    ];
    for ghost in ghosts {
        assert!(matches!(&ghost[..], [Violation::Ghost(_)]), "{ghost:?}");
    }
}

#[test]
fn changed_bytes_are_found() {
    let changed = [
        // Between two attempts, from what was sent, and in the dead letter.
        found(|evidence| evidence.receipts[1].body = 8),
        found(|evidence| evidence.receipts.iter_mut().take(2).for_each(|receipt| receipt.body = 8)),
        found(|evidence| evidence.kept.dead[0].1 = Some(8)),
    ];
    for changed in changed {
        assert!(matches!(&changed[..], [Violation::ChangedBody(_)]), "{changed:?}");
    }
}

#[test]
fn a_second_webhook_id_and_a_shared_one_are_found() {
    let second = found(|evidence| evidence.receipts[1].webhook_id = "dlv_other".to_owned());
    assert_eq!(second, [Violation::WebhookId(pair("evt_1", "audit"))]);
    let shared = found(|evidence| evidence.receipts[2].webhook_id = "dlv_evt_1_audit".to_owned());
    assert!(matches!(&shared[..], [Violation::WebhookId(_)]), "{shared:?}");
}

#[test]
fn a_second_webhook_id_needs_a_fail_over_and_a_producer_that_was_refused() {
    let again = |refused, may_forget, from, to| {
        let second = |evidence: &mut Evidence| {
            evidence.sent[0].refused = refused;
            evidence.receipts[1].webhook_id = "dlv_other".to_owned();
            evidence.disturbances = vec![Disturbance { may_forget, ..disturbed(from, to, true) }];
        };
        found(second)
    };
    assert_eq!(again(true, true, 50, 250), []);
    for (refused, may_forget, from, to) in
        [(false, true, 50, 250), (true, false, 50, 250), (true, true, 50, 90), (true, true, 310, 400)]
    {
        assert_eq!(again(refused, may_forget, from, to), [Violation::WebhookId(pair("evt_1", "audit"))]);
    }
}

#[test]
fn a_repeat_needs_a_fault_between_the_success_and_itself() {
    let again = |disturbances: Vec<Disturbance>| {
        let mut evidence = harmless();
        evidence.receipts.push(receipt("evt_1", "audit", 900, Answer::Success));
        evidence.disturbances = disturbances;
        check(&evidence)
    };
    for disturbances in
        [vec![], vec![disturbed(100, 200, true)], vec![disturbed(1_000, 1_100, true)], vec![disturbed(400, 500, false)]]
    {
        let findings = again(disturbances.clone());
        let violations: Vec<_> = findings.violations.iter().cloned().collect();
        assert_eq!(violations, [Violation::RepeatWithoutFault(pair("evt_1", "audit"), 900, 1)], "{disturbances:?}");
    }
    for disturbance in [disturbed(400, 500, true), disturbed(200, 310, true), disturbed(890, 5_000, true)] {
        let findings = again(vec![disturbance.clone()]);
        assert!(findings.violations.is_empty(), "{disturbance:?}: {:?}", findings.violations);
        assert_eq!(findings.repeats, 1);
    }
}

#[test]
fn a_fault_long_after_a_success_does_not_explain_its_repeat() {
    let again = |from| {
        found(|evidence| {
            evidence.receipts.push(receipt("evt_1", "audit", 30_000, Answer::Success));
            evidence.disturbances = vec![disturbed(from, from + 100, true)];
        })
    };
    assert_eq!(again(10_000), []);
    assert_eq!(again(20_000), [Violation::RepeatWithoutFault(pair("evt_1", "audit"), 30_000, 1)]);
}

#[test]
fn more_repeats_than_were_under_way_are_found() {
    let again = |disturbances: Vec<Disturbance>| {
        found(|evidence| {
            evidence.receipts.extend([900, 950].map(|at| receipt("evt_1", "audit", at, Answer::Success)));
            evidence.disturbances = disturbances;
        })
    };
    let disturbance = disturbed(200, 5_000, true);
    let too_many = |what| Violation::TooManyRepeats(what, 2, 1);
    assert_eq!(again(vec![disturbance.clone()]), [too_many("a fault"), too_many("all faults")]);
    // One of them may be another's.
    assert_eq!(again(vec![disturbance.clone(), disturbed(800, 910, true)]), []);
    // Another that explains neither helps in the sum alone.
    assert_eq!(again(vec![disturbance, disturbed(1_000, 1_100, true)]), [too_many("a fault")]);
}

#[test]
fn what_is_left_over_is_found() {
    assert_eq!(found(|evidence| evidence.kept.dead.clear()), [Violation::DeadLetterGone(pair("evt_1", "doomed"))]);
    assert!(matches!(&found(|evidence| evidence.kept.backlog = 2)[..], [Violation::StillWaits(_)]));
    assert!(matches!(&found(|e| e.kept.waiting.push(pair("evt_1", "audit")))[..], [Violation::StillWaits(_)]));
    assert!(matches!(&found(|e| e.kept.orphans.push("{bl:0}:d:x".to_owned()))[..], [Violation::Orphan(_)]));
}
