//! A process that is killed before each thing that it does to the disk, also while it recovers.
//! Each time the workspace is the state before or after, and the next start is clean.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "clippy knows tests by libtest's attribute, which these have not"
)]

#[path = "../steps/common.rs"]
mod common;
#[path = "../../../sandbox/tests/harness/mod.rs"]
mod harness;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead_workspace::{Step, Steps, Store, make_folder};
use common::{Place, Ready, base, call, kept, sh, tree};
use protocol::control::HistoryLimits;
use protocol::runner::Fate;
use protocol::workspace::{
    Diff, GitFolders, HistoryReply, HistoryRequest, LayerKind, LayerReply, UndoTo,
};

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "a_keep_survives_a_kill_at_any_moment",
        a_keep_survives_a_kill_at_any_moment,
    ),
    (
        "an_undo_survives_a_kill_at_any_moment",
        an_undo_survives_a_kill_at_any_moment,
    ),
    (
        "a_step_that_is_taken_back_survives_a_kill_at_any_moment",
        a_step_that_is_taken_back_survives_a_kill_at_any_moment,
    ),
    (
        "a_prune_survives_a_kill_at_any_moment",
        a_prune_survives_a_kill_at_any_moment,
    ),
];

const GIVEN: &str = "mkdir -p d/sub e/x; echo a > a; echo b > d/b; echo c > d/sub/c; ln a hard; ln -s a link; echo x > e/x/x";
const CHANGE: &str = "echo more >> a; rm d/b; echo n > d/n; rm -r e; mkdir e; echo y > e/y; chmod 711 d; rm -r d/sub; echo f > d/sub; mkdir -p p/q; ln a p/q/l";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["child", what, dir, at] = args[..] {
        return child(what, Path::new(dir), at.parse().unwrap());
    }
    match harness::asked(&args) {
        harness::Asked::List => harness::list(&args, TESTS.iter().map(|(name, _)| *name)),
        harness::Asked::One(wanted) => {
            let test = TESTS.iter().find(|(name, _)| *name == wanted);
            (test.expect("the test is on the list").1)();
        }
        harness::Asked::All => TESTS.iter().for_each(|(_, test)| test()),
    }
}

/// Kills this process before the step of that number. Takes away a folder that the step needs,
/// if it is to fail.
struct Fatal {
    left: Cell<u32>,
    breaks: Option<PathBuf>,
}

impl Steps for Fatal {
    fn before(&self, step: Step) {
        if let (Some(workspace), Step::Commit) = (&self.breaks, step) {
            std::fs::rename(workspace.join("e"), workspace.join("elsewhere")).unwrap();
        }
        let left = self.left.get();
        if left == 1 {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
        self.left.set(left.saturating_sub(1));
    }
}

fn child(what: &str, dir: &Path, at: u32) {
    let limits = HistoryLimits {
        bytes: if what == "prune" { 0 } else { u64::MAX },
        days: 30,
    };
    let steps = Box::new(Fatal {
        left: Cell::new(at),
        breaks: (what == "back").then(|| dir.join("workspace")),
    });
    let mut store =
        Store::open(&dir.join("workspace"), &dir.join("history"), limits, steps).unwrap();
    match what {
        "recover" => {}
        "undo" => {
            let (to, diff) = (UndoTo::Newest, Diff::None);
            let HistoryReply::Preview { preview } = store.history(HistoryRequest::Preview {
                to: to.clone(),
                diff,
            }) else {
                panic!("a preview")
            };
            let digest = preview.digest;
            let reply = store.history(HistoryRequest::Undo { to, digest });
            assert!(matches!(reply, HistoryReply::Undone { .. }), "{reply:?}");
        }
        "keep" | "prune" | "back" => {
            let LayerReply::Begun {
                layer,
                folders,
                sequence,
            } = store.begin(LayerKind::Overlay).unwrap()
            else {
                panic!("a layer")
            };
            let ready = Ready {
                workspace: dir.join("workspace"),
                folders,
                over: common::Over {
                    layer,
                    base: base(&sequence),
                },
            };
            let change = match what {
                "back" => "echo more >> a; rm d/b; chmod 711 d; echo n > e/n; echo z > z",
                _ => CHANGE,
            };
            ready.run(change);
            let changes = store
                .keep(layer, ready.over.base, Some(call(9)), GitFolders::Open)
                .unwrap();
            if what == "back" {
                assert!(matches!(changes.fate, Fate::Conflict { .. }), "{changes:?}");
            } else {
                kept(&changes);
            }
        }
        other => panic!("{other}"),
    }
}

enum Ended {
    Whole,
    Killed,
}

fn start(what: &str, dir: &Path, at: u32) -> Ended {
    let exe = std::env::current_exe().unwrap();
    let output = Command::new(exe)
        .args(["child", what])
        .arg(dir)
        .arg(at.to_string())
        .output()
        .unwrap();
    match (
        output.status.code(),
        std::os::unix::process::ExitStatusExt::signal(&output.status),
    ) {
        (Some(0), _) => Ended::Whole,
        (_, Some(9)) => Ended::Killed,
        _ => panic!("{what} {at}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// What does not depend on when it was done.
fn lasting(dir: &Path) -> String {
    let full = tree(&dir.join("workspace"));
    let lines = full.lines().map(|line| {
        let (start, rest) = line.split_once(" mtime ").unwrap();
        let rest = rest.split_once(' ').map_or("", |(_, rest)| rest);
        format!("{start} {rest}\n")
    });
    lines.collect()
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    sh(
        from,
        &format!("cp -a workspace history {}", to.path().display()),
    );
    std::thread::sleep(std::time::Duration::from_millis(12));
    to
}

fn entries(dir: &Path) -> usize {
    let mut store = common::open(dir, common::LIMITS);
    match store.history(HistoryRequest::Entries { most: 100 }) {
        HistoryReply::Entries { entries } => entries.len(),
        other => panic!("{other:?}"),
    }
}

/// Kills at every moment, then recovers; `more`: also kills the recovery at every moment.
fn at_every_moment(what: &str, given: &Place) {
    let begun = copy(given.dir.path());
    let (before, before_full) = (lasting(begun.path()), tree(&begun.path().join("workspace")));
    assert!(matches!(start(what, begun.path(), 0), Ended::Whole));
    let after = lasting(begun.path());
    assert_ne!(before, after);
    let (mut moments, mut befores, mut afters, mut recoveries) = (0, 0, 0, 0);
    for at in 1.. {
        let dir = copy(given.dir.path());
        let was = entries(dir.path());
        if matches!(start(what, dir.path(), at), Ended::Whole) {
            break;
        }
        moments += 1;
        // Killed while it recovers, again and again, each time a little later.
        for again in 1..100 {
            match start("recover", dir.path(), again) {
                Ended::Killed => recoveries += 1,
                Ended::Whole => break,
            }
        }
        let now = entries(dir.path());
        let state = lasting(dir.path());
        if state == before {
            befores += 1;
            assert_eq!(
                tree(&dir.path().join("workspace")),
                before_full,
                "killed at {at}"
            );
            assert!(now <= was, "killed at {at}");
        } else {
            assert_eq!(state, after, "killed at {at}");
            afters += 1;
        }
        for folder in ["layers", "trash", "lost"] {
            let path = dir.path().join("history").join(folder);
            assert_eq!(
                std::fs::read_dir(path).unwrap().count(),
                0,
                "{folder}, killed at {at}"
            );
        }
        let sequence = std::fs::read(dir.path().join("history/sequence")).unwrap();
        let newest = u64::from_le_bytes(sequence.try_into().unwrap());
        assert!(
            dir.path()
                .join(format!("history/entries/{newest}/done"))
                .exists(),
            "killed at {at}"
        );
        // What is there can be undone, and that undone.
        let (full, undo) = (tree(&dir.path().join("workspace")), "undo");
        assert!(matches!(start(undo, dir.path(), 0), Ended::Whole));
        assert_ne!(lasting(dir.path()), state);
        assert!(matches!(start(undo, dir.path(), 0), Ended::Whole));
        assert_eq!(tree(&dir.path().join("workspace")), full, "killed at {at}");
    }
    println!(
        "{what}: {moments} moments, {befores} before, {afters} after, {recoveries} recoveries killed"
    );
    assert!(moments >= 10 && befores > 0 && afters > 0 && recoveries > 0);
}

/// A step that became true but could not be done, since others took a folder of it away.
fn a_step_that_is_taken_back_survives_a_kill_at_any_moment() {
    let given = place();
    let begun = copy(given.dir.path());
    let untouched = tree(&begun.path().join("workspace"));
    sh(begun.path(), "mv workspace/e workspace/elsewhere");
    let moved = lasting(begun.path());
    let (mut moments, mut recoveries) = (0, 0);
    for at in 1.. {
        let dir = copy(given.dir.path());
        let ended = start("back", dir.path(), at);
        // Killed while it recovers, again and again, each time a little later.
        for again in 1..100 {
            match start("recover", dir.path(), again) {
                Ended::Killed => recoveries += 1,
                Ended::Whole => break,
            }
        }
        assert_eq!(entries(dir.path()), 2, "killed at {at}");
        if dir.path().join("workspace/elsewhere").exists() {
            assert_eq!(lasting(dir.path()), moved, "killed at {at}");
        } else {
            let now = tree(&dir.path().join("workspace"));
            assert_eq!(now, untouched, "killed at {at}");
        }
        for folder in ["layers", "trash", "lost"] {
            let path = dir.path().join("history").join(folder);
            let left = std::fs::read_dir(path).unwrap().count();
            assert_eq!(left, 0, "{folder}, killed at {at}");
        }
        if matches!(ended, Ended::Whole) {
            break;
        }
        moments += 1;
    }
    println!("back: {moments} moments, {recoveries} recoveries killed");
    assert!(moments >= 10 && recoveries > 0);
}

fn place() -> Place {
    let mut place = Place::new();
    make_folder(&place.history()).unwrap();
    place.given(GIVEN);
    kept(&place.step_of(1, "echo first > first; rm -r e/x"));
    kept(&place.step_of(2, "echo second > first; mkdir e/x; echo 2 > e/x/x"));
    place
}

fn a_keep_survives_a_kill_at_any_moment() {
    at_every_moment("keep", &place());
}

fn an_undo_survives_a_kill_at_any_moment() {
    let mut place = place();
    kept(&place.step_of(3, CHANGE));
    at_every_moment("undo", &place);
}

fn a_prune_survives_a_kill_at_any_moment() {
    at_every_moment("prune", &place());
}
