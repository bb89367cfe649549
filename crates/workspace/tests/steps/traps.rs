//! What a box plants for the host to fall into.

use super::common::{Place, kept, sh, told, tree};
use protocol::runner::Fate;
use protocol::workspace::UndoTo;

#[test]
fn set_id_bits_are_refused_and_nothing_is_kept() {
    for script in [
        "echo x > x; cp /bin/true t; chmod 4755 t",
        "mkdir -p d/e; echo > d/e/t; chmod 2755 d/e/t",
        "mkdir d; chmod 4755 d",
    ] {
        let mut place = Place::new();
        place.given("echo a > a");
        let before = place.tree();
        let changes = place.step(script);
        assert!(
            matches!(&changes.fate, Fate::Failed { reason, .. } if reason.contains("set-")),
            "{script} {changes:?}"
        );
        assert_eq!(place.tree(), before);
        place.assert_tidy();
    }
}

#[test]
fn names_of_any_bytes_are_kept_and_told_without_being_trusted() {
    let mut place = Place::new();
    let script = r#"perl -e 'for ("new\nline", "esc\e[2J", "\xff\xfe", "%41", "a b", "-rf", "\\\"", "x" x 255) { open F, ">", $_ or die; print F "x" }'"#;
    let before = place.tree();
    let changes = place.step(script);
    kept(&changes);
    assert_eq!(changes.list.len(), 8);
    assert!(
        changes
            .list
            .iter()
            .any(|change| change.path == "\u{fffd}\u{fffd}")
    );
    place.undo(UndoTo::Newest);
    assert_eq!(place.tree(), before);
    place.assert_tidy();
}

#[test]
fn fifos_sockets_links_and_sparse_files_neither_block_nor_lead_out() {
    let mut place = Place::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("canary"), "canary").unwrap();
    let canary = tree(outside.path());
    place.given("mkdir d; echo a > d/a; mkfifo d/was");
    let out = outside.path().display();
    let before = place.tree();
    let changes = place.step(&format!(
        "rm -r d; ln -s {out} d; ln -s {out}/canary link; mkfifo -m 666 fifo; mkdir -p n/m; mkfifo n/m/fifo; \
         ln -s / n/root; truncate -s 10T sparse; truncate -s 10T n/sparse; \
         perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => $_, Listen => 1) or die for (\"s\", \"n/s\")'"
    ));
    kept(&changes);
    // Nobody listens at a socket whose box is gone.
    assert!(
        !told(&changes)
            .iter()
            .any(|line| line.ends_with("/s") || line.ends_with(" s"))
    );
    assert!(!place.workspace().join("s").exists());
    let changes = place.step_of(
        2,
        "rm link fifo; echo x > link; rm d; mkdir d; echo y > d/y",
    );
    kept(&changes);
    assert_eq!(tree(outside.path()), canary);
    place.undo(UndoTo::Newest);
    place.undo(UndoTo::Entry {
        entry: protocol::runner::EntryId(1),
    });
    assert_eq!(place.tree(), before);
    assert_eq!(tree(outside.path()), canary);
    place.assert_tidy();
}

#[test]
fn a_device_in_a_layer_is_refused() {
    if !rustix::process::geteuid().is_root() {
        // An ordinary user can make none; that is the same promise.
        let dir = tempfile::tempdir().unwrap();
        let mut mknod = std::process::Command::new("mknod");
        mknod.arg(dir.path().join("null")).args(["c", "1", "3"]);
        assert!(!mknod.status().unwrap().success());
        return;
    }
    let mut place = Place::new();
    let ready = place.begin();
    let protocol::workspace::LayerFolders::Overlay { upper, .. } = &ready.folders else {
        panic!("an overlay")
    };
    super::common::sh(upper, "mkdir d; mknod d/null c 1 3");
    let changes = place.keep(&ready.over);
    assert!(
        matches!(&changes.fate, Fate::Failed { reason, .. } if reason.contains("device")),
        "{changes:?}"
    );
    assert_eq!(std::fs::read_dir(place.workspace()).unwrap().count(), 0);
    place.assert_tidy();
}

/// Root looks into it all the same, and then tells what is there.
#[test]
fn what_its_owner_cannot_look_into_is_never_changed_untold() {
    let mut place = Place::new();
    place.given("mkdir k; echo a > k/f; chmod 311 k");
    let changes = place.step("mkdir e; echo x > e/.envrc; chmod 311 e");
    match &changes.fate {
        Fate::Kept { .. } => assert!(told(&changes).contains(&"+ e/.envrc".to_owned())),
        Fate::Failed { reason, fix } => assert!(
            reason.contains("e cannot be looked into") && fix.contains("chmod u+rwx"),
            "{reason}; {fix}"
        ),
        other => panic!("{other:?}"),
    }
    let ready = place.begin();
    ready.run("chmod 700 k; rm -rf k");
    sh(&place.workspace(), "echo theirs > k/f");
    let changes = place.keep(&ready.over);
    assert!(!matches!(changes.fate, Fate::Kept { .. }), "{changes:?}");
    let text = std::fs::read_to_string(place.workspace().join("k/f"));
    assert_eq!(text.unwrap(), "theirs\n");
}
