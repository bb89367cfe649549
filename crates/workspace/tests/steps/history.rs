//! The past: turns, undo, and its limits.

use super::common::{Place, before_turn, kept, open, told};
use protocol::control::HistoryLimits;
use protocol::runner::{Changes, EntryId};
use protocol::workspace::{Entry, HistoryReply, HistoryRequest, Origin, UndoTo};

fn entries(place: &mut Place) -> Vec<Entry> {
    match place.store.history(HistoryRequest::Entries { most: 100 }) {
        HistoryReply::Entries { entries } => entries,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_turn_and_all_after_it_are_undone_as_one_step() {
    let mut place = Place::new();
    place.given("mkdir -p a/b; echo 0 > a/b/f; echo 0 > g; ln -s t l");
    let mut states = vec![place.tree()];
    let scripts = [
        "echo 1 > a/b/f; echo 1 > new",
        "rm -r a; echo 2 >> g",
        "mkdir -p a/b; echo 3 > a/b/f; chmod 700 a; rm l; mkdir l; echo 3 > l/x",
        "echo 4 > a/b/f; rm new; echo 4 > l/x; chmod 755 a",
    ];
    for (turn, script) in (1..).zip(scripts) {
        kept(&place.step_of(turn, script));
        states.push(place.tree());
    }
    // Each undo is an entry of its own; back and forth from anywhere to anywhere.
    for turn in [4, 1, 3, 2, 1, 4, 2, 3] {
        let preview = place.preview(before_turn(turn));
        let (_, changes) = place.undo(before_turn(turn));
        assert_eq!(
            place.tree(),
            states[turn as usize - 1],
            "before turn {turn}"
        );
        assert_eq!(
            preview.changes, changes.list,
            "what was shown is what was done"
        );
        assert_eq!(preview.changed_since, Vec::<String>::new());
    }
    let newest = &entries(&mut place)[0];
    assert_eq!(newest.origin, Origin::Undo { entry: EntryId(3) });
    place.undo(UndoTo::Entry { entry: EntryId(1) });
    assert_eq!(place.tree(), states[0]);
    place.assert_tidy();
}

#[test]
fn the_newest_turn_is_all_its_calls() {
    let mut place = Place::new();
    place.given("echo 0 > a");
    kept(&place.step_of(1, "echo 1 > a"));
    let before = place.tree();
    kept(&place.step_of(2, "echo 2 > a"));
    kept(&place.step_of(2, "echo 3 > b"));
    let preview = place.preview(UndoTo::Newest);
    assert_eq!(preview.entries.len(), 2);
    assert!(preview.diff.contains("-2\n+1\n"), "{}", preview.diff);
    place.undo(UndoTo::Newest);
    assert_eq!(place.tree(), before);
}

#[test]
fn old_entries_go_and_the_newest_stays() {
    let mut place = Place::new();
    place.given("head -c 100000 /dev/zero > big; echo 0 > a");
    for n in 1..=5 {
        kept(&place.step_of(
            n,
            &format!("head -c {n}00000 /dev/zero > big; echo {n} > a"),
        ));
    }
    assert_eq!(entries(&mut place).len(), 5);
    let after = place.tree();
    let limit = |bytes| HistoryLimits { bytes, days: 30 };
    place.store = open(place.dir.path(), limit(700_000));
    assert_eq!(
        entries(&mut place).len(),
        1,
        "an old entry of 400 kB, one of 300 kB and their small files do not fit"
    );
    place.store = open(place.dir.path(), limit(0));
    assert_eq!(entries(&mut place).len(), 1);
    assert_eq!(place.tree(), after);
    let left = std::fs::read_dir(place.history().join("entries"))
        .unwrap()
        .count();
    assert_eq!(left, 1);
    // What an undo brought out can still come back, although the entry that it is of is gone.
    place.undo(UndoTo::Newest);
    assert_ne!(place.tree(), after);
    assert_eq!(entries(&mut place).len(), 1);
    place.undo(UndoTo::Newest);
    assert_eq!(place.tree(), after);
    let none = HistoryLimits {
        bytes: u64::MAX,
        days: 0,
    };
    place.store = open(place.dir.path(), none);
    assert_eq!(entries(&mut place).len(), 1);
}

#[test]
fn a_list_of_changes_is_bounded_and_counts_the_rest() {
    let mut place = Place::new();
    let changes = place.step(
        "mkdir d; cd d; perl -e 'for (1..3000) { open F, \">\", \"\\e\" x 200 . $_ or die }'",
    );
    kept(&changes);
    assert!(changes.list.len() <= Changes::MOST);
    assert_eq!(changes.list.len() as u64 + changes.more, 3001);
    let size = serde_json::to_vec(&changes).unwrap().len();
    assert!(size < protocol::frame::MAX_FRAME, "{size}");
    let preview = place.preview(UndoTo::Newest);
    assert!(serde_json::to_vec(&preview).unwrap().len() < protocol::frame::MAX_FRAME);
    assert_eq!(preview.changes.len() as u64 + preview.more, 3001);
}

#[test]
fn what_cannot_be_undone_is_refused_with_a_reason() {
    let mut place = Place::new();
    let mut refused = |to| match place.store.history(HistoryRequest::Preview {
        to,
        diff: protocol::workspace::Diff::None,
    }) {
        HistoryReply::Refused { reason, fix } => assert!(!reason.is_empty() && !fix.is_empty()),
        other => panic!("{other:?}"),
    };
    refused(UndoTo::Newest);
    refused(before_turn(7));
    refused(UndoTo::Entry { entry: EntryId(1) });
    place.given("mkdir d; echo a > d/a");
    kept(&place.step("echo b > d/a; echo c > c"));
    place.given("rm -r d");
    let reply = place.store.history(HistoryRequest::Preview {
        to: UndoTo::Newest,
        diff: protocol::workspace::Diff::None,
    });
    assert!(
        matches!(&reply, HistoryReply::Refused { reason, .. } if reason.contains('d')),
        "{reply:?}"
    );
    place.given("mkdir d");
    place.undo(UndoTo::Newest);
    assert_eq!(
        std::fs::read_to_string(place.workspace().join("d/a")).unwrap(),
        "a\n"
    );
    assert_eq!(told(&place.step("true")), Vec::<String>::new());
}
