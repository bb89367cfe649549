//! Several sessions, other programs of the user, and other processes on one workspace.

use super::common::{LIMITS, Place, base, before_turn, call, kept, open, told};
use protocol::call::WorkspacePath;
use protocol::runner::{EntryId, Fate};
use protocol::workspace::{
    GitFolders, HistoryReply, HistoryRequest, LayerKind, LayerReply, UndoTo,
};

const GIVEN: &str = "mkdir -p d/sub e; echo a > a; echo b > d/b; echo c > d/sub/c";

/// What one box does, what another does meanwhile, and whether that is a conflict for the second.
const PAIRS: &[(&str, &str, bool)] = &[
    ("echo 1 > a", "echo 2 > a", true),
    ("echo 1 > a", "echo 2 > d/b", false),
    ("echo 1 > d/b", "echo 2 > d/sub/c", false),
    ("echo 1 > d/new", "echo 2 > d/other", false),
    ("echo 1 > n", "echo 2 > n", true),
    ("rm a", "echo 2 >> a", true),
    ("echo 1 >> a", "rm a", true),
    ("rm -r d", "echo 2 > d/sub/new", true),
    ("echo 1 > d/sub/new", "rm -r d", true),
    ("rm d/b", "rm -r d", true),
    ("mkdir n; echo 1 > n/1", "mkdir n; echo 2 > n/2", true),
    ("chmod 700 d", "rm -r d", true),
    ("chmod 700 d", "chmod 711 d", true),
    ("rm -r e", "rm -r d", false),
];

#[test]
fn two_sessions_do_not_lose_one_anothers_writes() {
    for (first, second, conflict) in PAIRS {
        for kind in [LayerKind::Overlay, LayerKind::Copy] {
            let mut place = Place::new();
            place.given(GIVEN);
            let (one, two) = (place.begin_as(kind), place.begin_as(kind));
            one.run(first);
            two.run(second);
            kept(&place.keep(&one.over));
            let before = place.tree();
            let changes = place.keep(&two.over);
            let is_conflict =
                matches!(&changes.fate, Fate::Conflict { paths } if !paths.is_empty());
            assert_eq!(
                is_conflict, *conflict,
                "{first} | {second} {kind:?}: {changes:?}"
            );
            if is_conflict {
                assert_eq!(place.tree(), before, "{first} | {second}");
            } else {
                kept(&changes);
            }
            place.assert_tidy();
        }
    }
}

#[test]
fn a_mode_that_another_changed_is_never_changed_back_by_guess() {
    // An overlay does not tell how the mode of a folder was; a copy's index does.
    for (kind, conflict) in [(LayerKind::Overlay, true), (LayerKind::Copy, false)] {
        let mut place = Place::new();
        place.given(GIVEN);
        let (one, two) = (place.begin_as(kind), place.begin_as(kind));
        one.run("chmod 700 d");
        two.run("echo 2 > d/sub/new");
        kept(&place.keep(&one.over));
        let changes = place.keep(&two.over);
        assert_eq!(
            matches!(changes.fate, Fate::Conflict { .. }),
            conflict,
            "{changes:?}"
        );
        assert!(place.tree().contains("\"d\" 40700"), "{kind:?}");
    }
}

#[test]
fn what_others_change_meanwhile_is_a_conflict() {
    for (theirs, mine, conflict) in PAIRS {
        let mut place = Place::new();
        place.given(GIVEN);
        let ready = place.begin();
        ready.run(mine);
        place.given(theirs);
        let before = place.tree();
        let changes = place.keep(&ready.over);
        let is_conflict = matches!(changes.fate, Fate::Conflict { .. });
        // Without the history nobody can say that what is gone was there, or was made by two.
        let unseen = matches!(*theirs, "rm a")
            || theirs.starts_with("mkdir n")
            || theirs.starts_with("rm -r d");
        if *conflict && !unseen {
            assert!(is_conflict, "{theirs} | {mine}: {changes:?}");
            assert_eq!(place.tree(), before);
        } else if !conflict {
            kept(&changes);
        }
        place.assert_tidy();
    }
}

#[test]
fn what_the_owner_keeps_read_only_no_step_changes_by_whatever_name() {
    let mut place = Place::new();
    place.given("mkdir -p a/docs b; echo 1 > a/docs/x; ln -s a/docs link; echo 1 > b/y");
    place
        .store
        .set_read_only(&[WorkspacePath::parse("a/docs").unwrap()]);
    for kind in [LayerKind::Overlay, LayerKind::Copy] {
        for (script, kept) in [
            ("echo 2 > a/docs/x", false),
            ("echo 2 > link/x", false),
            ("echo 2 > a/docs/new", false),
            ("rm a/docs/x", false),
            ("rm -r a", false),
            ("mv a c", false),
            ("mv a/docs a/other", false),
            ("chmod 700 a/docs", false),
            ("rm -r a/docs; ln -s ../b a/docs", false),
            ("cat a/docs/x; echo 2 > a/z; rm a/z", true),
            ("echo 3 >> b/y", true),
        ] {
            let before = place.tree();
            let one = place.begin_as(kind);
            one.run(script);
            let changes = place.keep(&one.over);
            let is_barred = matches!(changes.fate, Fate::ReadOnly { .. });
            assert_eq!(is_barred, !kept, "{kind:?} {script}: {changes:?}");
            if !kept {
                assert_eq!(place.tree(), before, "{script}");
            }
        }
    }
    place.assert_tidy();
}

#[test]
fn where_nobody_said_yes_to_it_no_step_plants_what_git_obeys() {
    let mut place = Place::new();
    place.given("mkdir -p .git/hooks .git/objects; echo a > .git/config; echo b > .git/index");
    for (script, git, kept) in [
        ("echo x > .git/hooks/pre-commit", GitFolders::Closed, false),
        ("echo x >> .git/config", GitFolders::Closed, false),
        (
            "mkdir -p new/.git; echo x > new/.git/config",
            GitFolders::Closed,
            false,
        ),
        ("echo x > .gitconfig", GitFolders::Closed, false),
        ("mv .git away", GitFolders::Closed, false),
        (
            "echo x > .git/index; echo y > .git/objects/o; echo z > a",
            GitFolders::Closed,
            true,
        ),
        ("echo x > .git/hooks/pre-commit", GitFolders::Open, true),
    ] {
        let before = place.tree();
        let one = place.begin();
        one.run(script);
        let changes = (place.store)
            .keep(one.over.layer, one.over.base, Some(call(1)), git)
            .unwrap();
        let is_kept = matches!(changes.fate, Fate::Kept { .. });
        assert_eq!(is_kept, kept, "{script} {git:?}: {changes:?}");
        if !kept {
            assert_eq!(place.tree(), before, "{script}");
        }
    }
}

#[test]
fn whatever_the_order_no_write_of_a_kept_session_is_lost() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |most: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % most
    };
    let mut place = Place::new();
    place.given("mkdir -p 0/0 0/1 1/0 1/1; for d in 0 1; do for e in 0 1; do echo > $d/$e/0; echo > $d/$e/1; done; done");
    let (mut conflicts, mut both) = (0, 0);
    for round in 0..40 {
        let mut sessions = Vec::new();
        for session in 0..2 {
            let (mut script, mut effects) = (String::new(), Vec::new());
            for _ in 0..=random(2) {
                let path = format!("{}/{}/{}", random(2), random(2), random(4));
                let deletes = random(4) == 0;
                let text = format!("{round} {session} {}", random(1000));
                script += &if deletes {
                    format!("rm -f {path};")
                } else {
                    format!("echo {text} > {path};")
                };
                effects.retain(|(at, _)| *at != path);
                effects.push((path, (!deletes).then(|| format!("{text}\n"))));
            }
            let ready = place.begin();
            ready.run(&script);
            sessions.push((ready, effects));
        }
        if random(2) == 0 {
            sessions.reverse();
        }
        let mut visible = Vec::new();
        for (ready, effects) in sessions {
            match place.keep(&ready.over).fate {
                Fate::Kept { .. } | Fate::Unchanged => visible.push(effects),
                Fate::Conflict { .. } => conflicts += 1,
                other => panic!("{other:?}"),
            }
        }
        both += u32::from(visible.len() == 2);
        assert!(!visible.is_empty());
        for (path, text) in visible.iter().flatten() {
            let now = std::fs::read_to_string(place.workspace().join(path)).ok();
            assert_eq!(now, *text, "round {round} {path}");
        }
    }
    assert!(conflicts >= 3 && both >= 10, "{conflicts} {both}");
    place.assert_tidy();
}

#[test]
fn two_processes_do_not_step_on_one_another() {
    let mut place = Place::new();
    place.given(GIVEN);
    let ready = place.begin();
    // The second one leaves the layer of the first alone, and sees what it keeps.
    let mut other = open(place.dir.path(), LIMITS);
    ready.run("echo 1 > a");
    let LayerReply::Begun {
        layer,
        folders,
        sequence,
    } = other.begin(LayerKind::Overlay).unwrap()
    else {
        panic!("a layer")
    };
    let second = super::common::Ready {
        workspace: place.workspace(),
        folders,
        over: super::common::Over {
            layer,
            base: base(&sequence),
        },
    };
    second.run("echo 2 > a; echo 2 > e/two");
    assert_eq!(kept(&place.keep(&ready.over)), EntryId(1));
    let changes = other
        .keep(second.over.layer, second.over.base, None, GitFolders::Open)
        .unwrap();
    assert!(matches!(changes.fate, Fate::Conflict { .. }), "{changes:?}");
    let LayerReply::Begun {
        layer,
        folders,
        sequence,
    } = other.begin(LayerKind::Overlay).unwrap()
    else {
        panic!("a layer")
    };
    let third = super::common::Ready {
        workspace: place.workspace(),
        folders,
        over: super::common::Over {
            layer,
            base: base(&sequence),
        },
    };
    third.run("echo 3 > a");
    assert_eq!(
        kept(
            &other
                .keep(
                    third.over.layer,
                    third.over.base,
                    Some(call(3)),
                    GitFolders::Open
                )
                .unwrap()
        ),
        EntryId(2)
    );
    assert_eq!(kept(&place.step_of(4, "echo 4 > e/four")), EntryId(3));
    match other.history(HistoryRequest::Entries { most: 10 }) {
        HistoryReply::Entries { entries } => assert_eq!(entries.len(), 3),
        reply => panic!("{reply:?}"),
    }
    drop(other);
    place.undo(before_turn(3));
    assert_eq!(
        std::fs::read_to_string(place.workspace().join("a")).unwrap(),
        "1\n"
    );
    place.assert_tidy();
}

#[test]
fn an_undo_tells_what_others_changed_since_and_refuses_when_more_did() {
    let mut place = Place::new();
    place.given(GIVEN);
    kept(&place.step("echo 1 > a; echo 1 > n; rm -r e; mkdir m; echo 1 > m/1"));
    assert_eq!(
        place.preview(UndoTo::Newest).changed_since,
        Vec::<String>::new()
    );
    place.given("echo mine > a; echo mine > m/2");
    let preview = place.preview(UndoTo::Newest);
    assert!(
        preview.changed_since.contains(&"a".to_owned()),
        "{preview:?}"
    );
    assert!(
        preview.changed_since.contains(&"m/2".to_owned()),
        "{preview:?}"
    );
    assert!(
        !preview.changed_since.contains(&"n".to_owned()),
        "{preview:?}"
    );
    place.given("echo more > n");
    let before = place.tree();
    let request = HistoryRequest::Undo {
        to: UndoTo::Newest,
        digest: preview.digest,
    };
    let reply = place.store.history(request);
    assert!(
        matches!(&reply, HistoryReply::Refused { reason, .. } if reason.contains("not as it was")),
        "{reply:?}"
    );
    assert_eq!(place.tree(), before);
    // What somebody else wrote goes out of the workspace, and comes back with the undo of the undo.
    place.undo(UndoTo::Newest);
    assert_eq!(
        std::fs::read_to_string(place.workspace().join("a")).unwrap(),
        "a\n"
    );
    place.undo(UndoTo::Newest);
    assert_eq!(place.tree(), before);
    assert!(told(&place.step("true")).is_empty());
    place.assert_tidy();
}

#[test]
fn the_layer_of_an_earlier_start_is_nobody_s() {
    let mut place = Place::new();
    place.given(GIVEN);
    let ready = place.begin();
    // The first of these is there before the one that made the layer is gone.
    for _ in 0..2 {
        place.store = open(place.dir.path(), LIMITS);
    }
    let next = place.begin();
    assert_ne!(next.over.layer, ready.over.layer);
    let kept = place
        .store
        .keep(ready.over.layer, ready.over.base, None, GitFolders::Open);
    assert!(kept.is_err(), "{kept:?}");
    assert!(place.store.give_back(ready.over.layer).is_err());
    place.store.forget(next.over.layer).unwrap();
    place.assert_tidy();
}
