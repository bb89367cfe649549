//! What a box changed is kept, discarded or forgotten.

use std::fs;

use super::common::{Place, kept, told};
use protocol::runner::{EntryId, Fate, FileKind};
use protocol::workspace::{LayerKind, UndoTo};

const GIVEN: &str = "mkdir -p d/sub e; echo a > a; echo b > d/b; echo c > d/sub/c; ln a hard; ln -s a link; mkfifo fifo; echo x > e/x";

#[test]
fn a_small_change_is_kept_and_told() {
    let mut place = Place::new();
    place.given(GIVEN);
    let changes = place.step("echo new > d/new; echo more >> a; rm d/b; chmod 700 e");
    assert_eq!(changes.fate, Fate::Kept { entry: EntryId(1) });
    assert_eq!(told(&changes), ["~ a", "- d/b", "+ d/new", "~ e"]);
    let a = &changes.list[0];
    let (before, after) = (a.before.as_ref().unwrap(), a.after.as_ref().unwrap());
    assert_eq!((before.size, after.size), (2, 7));
    assert_eq!(after.what, FileKind::File);
    assert_eq!(after.sha256, Some(protocol::ids::Digest::of("a\nmore\n")));
    assert_eq!(changes.list[3].after.as_ref().unwrap().mode, 0o700);
    assert_eq!(
        fs::read_to_string(place.workspace().join("a")).unwrap(),
        "a\nmore\n"
    );
    assert_eq!(
        fs::read_to_string(place.workspace().join("hard")).unwrap(),
        "a\n"
    );
    assert!(!place.workspace().join("d/b").exists());
    place.assert_tidy();
}

#[test]
fn what_is_undone_is_as_it_was_and_an_undo_is_undone() {
    let mut place = Place::new();
    place.given(GIVEN);
    let before = place.tree();
    place.step("echo new > d/new; echo more >> a; rm -r d/sub e; mkdir e; ln -s x e/l; ln d/new e/h; chmod 711 d; rm fifo; echo f > fifo");
    let after = place.tree();
    assert_ne!(before, after);
    place.undo(UndoTo::Newest);
    assert_eq!(place.tree(), before);
    place.undo(UndoTo::Newest);
    assert_eq!(place.tree(), after);
    place.undo(UndoTo::Newest);
    assert_eq!(place.tree(), before);
    place.assert_tidy();
}

#[test]
fn what_is_discarded_or_forgotten_leaves_nothing() {
    let mut place = Place::new();
    place.given(GIVEN);
    let before = place.tree();
    let over = place.run("rm -r d; echo z > z");
    let changes = place.store.discard(over.layer).unwrap();
    assert_eq!(changes.fate, Fate::Discarded);
    assert_eq!(
        told(&changes),
        ["- d", "- d/b", "- d/sub", "- d/sub/c", "+ z"]
    );
    let over = place.run("rm -r d; echo z > z");
    place.store.forget(over.layer).unwrap();
    assert!(place.store.forget(over.layer).is_err(), "it is gone");
    let over = place.run("cat a > /dev/null; exec 3>>a");
    assert_eq!(place.keep(&over).fate, Fate::Unchanged);
    assert_eq!(place.tree(), before);
    place.assert_tidy();
}

#[test]
fn only_a_layer_that_is_as_new_is_given_out_again() {
    let mut place = Place::new();
    place.given(GIVEN);
    let over = place.run("cat a > /dev/null; echo x > t; rm t");
    place.store.give_back(over.layer).unwrap();
    assert!(place.store.give_back(over.layer).is_err(), "it is gone");
    let again = place.begin();
    assert_eq!(again.over.layer, over.layer);
    again.run("echo new > new");
    let changes = place.keep(&again.over);
    kept(&changes);
    assert_eq!(told(&changes), ["+ new"]);
    for script in ["echo z > z", "rm a"] {
        let over = place.run(script);
        place.store.give_back(over.layer).unwrap();
        let next = place.begin();
        assert_ne!(next.over.layer, over.layer, "{script}");
        place.store.forget(next.over.layer).unwrap();
    }
    // What a box does to the folder itself does not get to the next one.
    for script in [
        "chmod 750 .",
        "python3 -c 'import os; os.setxattr(\".\", \"user.x\", b\"y\")'",
    ] {
        let over = place.run(script);
        place.store.give_back(over.layer).unwrap();
        let next = place.begin();
        next.run(
            "test $(stat -c %a .) = 700; python3 -c 'import os; assert not os.listxattr(\".\")'",
        );
        place.store.forget(next.over.layer).unwrap();
    }
    // What waits for the next boxes is little, and goes when the program ends.
    let all: Vec<_> = (0..12).map(|_| place.begin().over.layer).collect();
    for layer in all {
        place.store.give_back(layer).unwrap();
    }
    let waiting = || {
        std::fs::read_dir(place.history().join("layers"))
            .unwrap()
            .count()
    };
    assert_eq!(waiting(), 8);
    place.store.drop_spare();
    place.assert_tidy();
}

#[test]
fn steps_right_after_one_another_are_no_conflicts() {
    let mut place = Place::new();
    place.given(GIVEN);
    for n in 0..20 {
        let changes = place.step(&format!(
            "echo {n} >> d/sub/c; rm -rf t; mkdir t; echo {n} > t/{n}; chmod 7{}0 d",
            n % 8
        ));
        kept(&changes);
    }
    place.assert_tidy();
}

#[test]
fn a_copy_is_kept_like_an_overlay() {
    let mut place = Place::new();
    place.given(GIVEN);
    let before = place.tree();
    let ready = place.begin_as(LayerKind::Copy);
    ready.run("echo new > d/new; echo more >> link; rm d/b; chmod 700 e; rm -r e/x; mkdir -p n/m; mv d/sub n");
    let changes = place.keep(&ready.over);
    kept(&changes);
    assert_eq!(
        told(&changes),
        [
            "~ a",
            "- d/b",
            "+ d/new",
            "- d/sub",
            "- d/sub/c",
            "~ e",
            "- e/x",
            "~ hard",
            "+ n",
            "+ n/m",
            "+ n/sub",
            "+ n/sub/c"
        ]
    );
    place.undo(UndoTo::Newest);
    assert_eq!(place.tree(), before);
    let ready = place.begin_as(LayerKind::Copy);
    ready.run("cat a");
    assert_eq!(place.keep(&ready.over).fate, Fate::Unchanged);
    place.assert_tidy();
}
