//! Verification finds tool calls that were not asked for, judged, permitted and ended in that order.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it has to be"
)]

mod common;

use bulkhead_ledger::store::Store;
use bulkhead_ledger::{Report, verify};
use common::{
    APPROVAL, TURN, answered, append, asked, decision, intent, outcome, permit, ran, reply, row,
    started,
};
use protocol::call::Verdict;
use protocol::event::{Answer, CallOutcome, Event, Ground, UndoOutcome};
use protocol::freeze::By;
use protocol::ids::{ChannelId, Digest, PrincipalId, PublicKey, RowId};
use protocol::runner::{Changes, EntryId};
use protocol::time::Millis;
use protocol::workspace::{Origin, UndoTo};

fn digest() -> Digest {
    Digest::of("the call")
}

fn report(events: Vec<Event>) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    for event in events {
        append(&mut store, vec![row("a", event)], None);
    }
    let key = store.public_key();
    verify(&dir.path().join("ledger.db"), &key)
}

/// The row and the text of the one problem.
fn only_problem(events: Vec<Event>) -> (u64, String) {
    let report = report(events);
    assert!(!report.ok);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    let problem = &report.problems[0];
    assert_eq!(
        problem.session.as_ref().map(ToString::to_string).as_deref(),
        Some("a")
    );
    (problem.row.unwrap(), problem.what.clone())
}

fn by_approval() -> Ground {
    Ground::Approval { approval: APPROVAL }
}

#[test]
fn calls_in_order_are_no_problem() {
    let not_run = || CallOutcome::NotRun {
        reason: "no".to_owned(),
    };
    let good = [
        vec![
            intent(),
            decision(Verdict::Allow),
            permit(Ground::Policy, digest()),
            outcome(ran()),
        ],
        vec![
            intent(),
            decision(Verdict::AskOnce),
            permit(Ground::Grant, digest()),
            outcome(ran()),
        ],
        vec![intent(), decision(Verdict::Deny), outcome(not_run())],
        vec![intent(), outcome(not_run())],
        vec![
            intent(),
            decision(Verdict::AskAlways),
            asked(digest()),
            answered(Answer::Approve),
            permit(by_approval(), digest()),
            outcome(ran()),
        ],
        vec![
            intent(),
            decision(Verdict::AskAlways),
            asked(digest()),
            answered(Answer::Expired),
            outcome(not_run()),
        ],
    ];
    for events in good {
        let report = report(events);
        assert!(report.ok, "{:?}", report.problems);
        assert_eq!(report.unknown, 0);
    }
}

#[test]
fn an_outcome_that_is_not_known_is_counted_and_is_no_problem_in_the_last_turn() {
    let open = report(vec![
        started(1),
        intent(),
        decision(Verdict::Allow),
        permit(Ground::Policy, digest()),
    ]);
    assert!(open.ok, "{:?}", open.problems);
    assert_eq!(open.unknown, 1);
    let told = report(vec![
        started(1),
        intent(),
        outcome(CallOutcome::Unknown),
        started(2),
        reply(2, "hi"),
    ]);
    assert!(told.ok, "{:?}", told.problems);
    assert_eq!(told.unknown, 1);
}

#[test]
fn a_call_that_was_left_open_by_an_earlier_turn_is_a_problem() {
    let (_, what) = only_problem(vec![started(1), intent(), reply(1, "x"), started(2)]);
    assert!(what.contains("no outcome"), "{what}");
}

#[test]
fn two_outcomes_and_an_outcome_of_nothing_are_problems() {
    let not_run = || {
        outcome(CallOutcome::NotRun {
            reason: "no".to_owned(),
        })
    };
    let (row, what) = only_problem(vec![intent(), not_run(), not_run()]);
    assert!(row == 3 && what.contains("outcome before"), "{row}: {what}");
    let (row, what) = only_problem(vec![started(TURN.0), not_run()]);
    assert!(
        row == 2 && what.contains("nothing asked for it"),
        "{row}: {what}"
    );
}

#[test]
fn what_ran_without_a_permit_is_a_problem() {
    let (row, what) = only_problem(vec![intent(), decision(Verdict::Allow), outcome(ran())]);
    assert!(
        row == 3 && what.contains("without a permit"),
        "{row}: {what}"
    );
}

#[test]
fn a_permit_needs_the_decision_or_the_approval_that_it_names() {
    let end = || outcome(ran());
    let bad: [(Vec<Event>, u64, &str); 9] = [
        (
            vec![intent(), permit(Ground::Policy, digest()), end()],
            2,
            "not judged",
        ),
        (
            vec![
                intent(),
                decision(Verdict::Deny),
                permit(Ground::Policy, digest()),
                end(),
            ],
            3,
            "does not give",
        ),
        (
            vec![
                intent(),
                decision(Verdict::AskOnce),
                permit(Ground::Policy, digest()),
                end(),
            ],
            3,
            "does not give",
        ),
        (
            vec![
                intent(),
                decision(Verdict::AskAlways),
                permit(Ground::Grant, digest()),
                end(),
            ],
            3,
            "does not give",
        ),
        (
            vec![
                intent(),
                decision(Verdict::AskAlways),
                permit(by_approval(), digest()),
                end(),
            ],
            3,
            "not asked for",
        ),
        (
            vec![
                intent(),
                decision(Verdict::AskAlways),
                asked(digest()),
                permit(by_approval(), digest()),
                end(),
            ],
            4,
            "not given",
        ),
        (
            vec![
                intent(),
                decision(Verdict::AskAlways),
                asked(digest()),
                answered(Answer::Deny),
                permit(by_approval(), digest()),
                end(),
            ],
            5,
            "not given",
        ),
        (
            vec![
                intent(),
                decision(Verdict::AskAlways),
                asked(digest()),
                answered(Answer::Approve),
                permit(by_approval(), Digest::of("another call")),
                end(),
            ],
            5,
            "another call",
        ),
        (
            vec![
                intent(),
                outcome(CallOutcome::Unknown),
                decision(Verdict::Allow),
                permit(Ground::Policy, digest()),
            ],
            4,
            "after its outcome",
        ),
    ];
    for (events, row, part) in bad {
        let found = only_problem(events);
        assert!(
            found.0 == row && found.1.contains(part),
            "expected {part:?} in row {row}, got {found:?}"
        );
    }
}

#[test]
fn a_call_is_asked_for_judged_answered_and_permitted_once() {
    let bad = [
        (vec![intent(), intent()], 2),
        (
            vec![intent(), decision(Verdict::Allow), decision(Verdict::Allow)],
            3,
        ),
        (
            vec![
                intent(),
                decision(Verdict::AskOnce),
                asked(digest()),
                answered(Answer::Deny),
                answered(Answer::Approve),
            ],
            5,
        ),
        (
            vec![
                intent(),
                decision(Verdict::Allow),
                permit(Ground::Policy, digest()),
                permit(Ground::Policy, digest()),
            ],
            4,
        ),
        (vec![intent(), answered(Answer::Approve)], 2),
    ];
    for (events, row) in bad {
        let found = only_problem(events);
        assert_eq!(found.0, row, "{found:?}");
    }
}

fn undo_asked() -> Event {
    Event::UndoAsked {
        by: PrincipalId::parse("owner").unwrap(),
        channel: ChannelId::parse("operator").unwrap(),
        to: UndoTo::Newest,
        digest: digest(),
        oldest: EntryId(1),
        origin: Origin::Run,
        newest: EntryId(2),
        changes: 3,
    }
}

fn undo_ended(asked: u64, outcome: UndoOutcome) -> Event {
    let asked = RowId(asked);
    Event::UndoEnded { asked, outcome }
}

fn undone() -> UndoOutcome {
    UndoOutcome::Done {
        entry: EntryId(3),
        changes: Changes::default(),
    }
}

/// Verifies a record of these rows in the chain of undos.
fn undo_report(chain: &str, events: Vec<Event>) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    for event in events {
        append(&mut store, vec![row(chain, event)], None);
    }
    let key = store.public_key();
    verify(&dir.path().join("ledger.db"), &key)
}

#[test]
fn an_undo_is_asked_for_and_ends_once_before_the_next_one() {
    let good = undo_report(
        "undo",
        vec![
            undo_asked(),
            undo_ended(1, undone()),
            undo_asked(),
            undo_ended(3, UndoOutcome::Unknown),
            undo_asked(),
        ],
    );
    assert!(good.ok, "{:?}", good.problems);
    // One that a program died over, and one that may be under way.
    assert_eq!(good.unknown, 2);
    let bad = [
        (vec![undo_ended(1, undone())], 1, "asked for no undo"),
        (
            vec![
                undo_asked(),
                undo_ended(1, undone()),
                undo_ended(1, undone()),
            ],
            3,
            "asked for no undo",
        ),
        (
            vec![undo_asked(), undo_ended(9, undone())],
            2,
            "asked for no undo",
        ),
        (vec![undo_asked(), undo_asked()], 2, "before that of row 1"),
    ];
    for (events, row, what) in bad {
        let report = undo_report("undo", events);
        let problem = &report.problems[0];
        assert!(
            problem.row == Some(row) && problem.what.contains(what),
            "{:?}",
            report.problems
        );
    }
    let elsewhere = undo_report("system", vec![undo_asked()]);
    assert!(elsewhere.problems[0].what.contains("chain of system"));
}

#[test]
fn a_freeze_is_recorded_once_and_its_end_names_it() {
    let frozen = |since| Event::Panicked {
        since: Millis(since),
        by: By::Terminal,
        reason: String::new(),
    };
    let resumed = |since| Event::Resumed {
        since: Millis(since),
        key: PublicKey([1; 32]),
    };
    let good = vec![
        frozen(1),
        resumed(1),
        frozen(1),
        resumed(1),
        frozen(2),
        frozen(3),
    ];
    let good = undo_report("freeze", good);
    assert!(good.ok, "{:?}", good.problems);
    let bad = [
        (vec![resumed(1)], 1, "not there"),
        (vec![frozen(1), frozen(1)], 2, "before"),
        (vec![frozen(1), resumed(2)], 2, "not there"),
        (vec![frozen(1), resumed(1), resumed(1)], 3, "not there"),
    ];
    for (events, row, what) in bad {
        let report = undo_report("freeze", events);
        let problem = &report.problems[0];
        assert!(
            problem.row == Some(row) && problem.what.contains(what),
            "{:?}",
            report.problems
        );
    }
    let elsewhere = undo_report("system", vec![frozen(1)]);
    assert!(elsewhere.problems[0].what.contains("chain of system"));
}
