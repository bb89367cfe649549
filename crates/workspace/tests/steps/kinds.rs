//! Every kind of change, kept and undone.

use super::common::{Place, kept, told};
use protocol::runner::FileKind;
use protocol::workspace::{LayerKind, UndoTo};

/// Given, what the box does, what is told.
const KINDS: &[(&str, &str, &[&str])] = &[
    ("echo a > a", "echo b > a", &["~ a"]),
    ("echo a > a", "chmod 600 a", &["~ a"]),
    ("echo a > a", "rm a", &["- a"]),
    ("true", "echo a > a", &["+ a"]),
    (
        "true",
        "mkdir -p a/b/c; echo x > a/b/c/x",
        &["+ a", "+ a/b", "+ a/b/c", "+ a/b/c/x"],
    ),
    ("mkdir a", "chmod 750 a", &["~ a"]),
    ("mkdir a; echo x > a/x", "rm -r a", &["- a", "- a/x"]),
    (
        "mkdir a; echo x > a/x; echo y > a/y",
        "rm -r a; mkdir a; echo x > a/x; echo z > a/z",
        &["- a/y", "+ a/z"],
    ),
    (
        "mkdir a; echo x > a/x",
        "rm -r a; echo f > a",
        &["~ a", "- a/x"],
    ),
    (
        "echo f > a",
        "rm a; mkdir a; echo x > a/x",
        &["~ a", "+ a/x"],
    ),
    ("ln -s x a", "ln -sfn y a", &["~ a"]),
    ("mkdir a", "rmdir a; ln -s /etc a", &["~ a"]),
    ("echo a > a", "rm a; mkfifo a", &["~ a"]),
    ("mkfifo a", "rm a", &["- a"]),
    ("mkfifo a", "chmod 600 a", &["~ a"]),
    ("echo a > a; ln a b; ln a c", "echo x >> b", &["~ b"]),
    ("echo a > a; ln a b; ln a c", "rm b", &["- b"]),
    (
        "true",
        "echo a > a; ln a b; mkdir d; ln a d/c",
        &["+ a", "+ b", "+ d", "+ d/c"],
    ),
    (
        "mkdir -p a/b a/c; echo x > a/b/x",
        "mv a/b/x a/c/y",
        &["- a/b/x", "+ a/c/y"],
    ),
    (
        "mkdir -p a/b; echo x > a/b/x",
        "mv a z",
        &["- a", "- a/b", "- a/b/x", "+ z", "+ z/b", "+ z/b/x"],
    ),
    (
        "mkdir a; echo x > a/x; chmod 555 a",
        "chmod 755 a; echo y > a/y; chmod 555 a",
        &["+ a/y"],
    ),
    (
        "mkdir -p a/b; echo x > a/b/x; chmod 555 a/b",
        "chmod 755 a/b; rm -r a",
        &["- a", "- a/b", "- a/b/x"],
    ),
    (
        "true",
        "mkdir -p a/b; echo x > a/b/x; chmod 000 a/b/x; chmod 555 a/b a",
        &["+ a", "+ a/b", "+ a/b/x"],
    ),
    ("echo a > a", "touch -d 2001-01-01 a", &[]),
    (
        "echo a > a; mkdir d; chmod 2775 d",
        "echo x > d/x",
        &["+ d/x"],
    ),
];

#[test]
fn every_kind_of_change_is_kept_told_and_undone() {
    for (given, script, expected) in KINDS {
        for kind in [LayerKind::Overlay, LayerKind::Copy] {
            let mut place = Place::new();
            place.given(given);
            let before = place.tree();
            let ready = place.begin_as(kind);
            ready.run(script);
            let changes = place.keep(&ready.over);
            kept(&changes);
            // In a copy a file keeps its other names; an overlay parts them.
            let all_names = ["~ a", "~ b", "~ c"];
            let expected = match kind {
                LayerKind::Copy if *script == "echo x >> b" => &all_names,
                LayerKind::Copy | LayerKind::Overlay => *expected,
            };
            assert_eq!(told(&changes), expected, "{script} {kind:?}");
            let after = place.tree();
            assert_ne!(after, before, "{script} {kind:?}");
            for state in [&before, &after, &before] {
                place.undo(UndoTo::Newest);
                assert_eq!(place.tree(), *state, "{script} {kind:?}");
            }
            place.assert_tidy();
        }
    }
}

#[test]
fn attributes_and_hard_links_come_back_with_their_files() {
    let mut place = Place::new();
    place.given("echo a > a; ln a b; mkdir d; ln a d/c");
    let a = place.workspace().join("a");
    rustix::fs::setxattr(&a, "user.test", b"value", rustix::fs::XattrFlags::CREATE).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(12));
    let before = place.tree();
    assert!(before.contains("\"b\" 100644 links 3"));
    kept(&place.step("rm a; echo other > a; rm -r d"));
    assert_ne!(place.tree(), before);
    place.undo(UndoTo::Newest);
    assert_eq!(place.tree(), before);
}

#[test]
fn overlays_own_attributes_are_not_kept() {
    let mut place = Place::new();
    place.given("mkdir -p d/sub; echo a > a; echo x > d/sub/x");
    kept(&place.step("echo b >> a; rm -r d/sub; mkdir d/sub; echo y > d/sub/y"));
    for path in ["a", "d", "d/sub", "d/sub/y"] {
        let mut list = vec![0; 4096];
        let path = place.workspace().join(path);
        let len = rustix::fs::llistxattr(&path, list.as_mut_slice()).unwrap();
        assert_eq!(len, 0, "{}", String::from_utf8_lossy(&list[..len]));
    }
}

#[test]
fn states_tell_kind_mode_size_links_hash_and_target() {
    let mut place = Place::new();
    let changes = place.step(
        "echo a > a; ln a b; ln -s /x/y l; mkfifo -m 640 f; mkdir -m 750 d; truncate -s 1G big",
    );
    let state = |name: &str| {
        let change = changes
            .list
            .iter()
            .find(|change| change.path == name)
            .unwrap();
        assert_eq!(change.before, None);
        change.after.clone().unwrap()
    };
    assert_eq!((state("a").links, state("a").size), (2, 2));
    assert!(state("a").sha256.is_some() && state("a").sha256 == state("b").sha256);
    assert_eq!(state("l").target.as_deref(), Some("/x/y"));
    assert_eq!(
        (state("l").what, state("f").what),
        (FileKind::Link, FileKind::Fifo)
    );
    assert_eq!((state("f").mode, state("d").mode), (0o640, 0o750));
    assert_eq!((state("big").size, state("big").sha256), (1 << 30, None));
}
