//! Somebody swaps files and folders for links while the tools work.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bulkhead_tools::inside::{Root, run};
use protocol::call::{ToolCall, WorkspacePath};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

/// So often two names change places; even, so that all is as it was in the end.
const SWAPS: u32 = 20_000;

/// At least so often each call is tried.
const ROUNDS: u32 = 100;

const CANARY: &str = "the canary sings\n";

fn path(text: &str) -> WorkspacePath {
    WorkspacePath::parse(text).unwrap()
}

fn swap(a: &Path, b: &Path) {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
}

/// Runs the calls as long as the swaps go on, and looks at each result.
fn race(work: &Path, names: [(&str, &str); 2], calls: &[ToolCall], look: impl Fn(&str)) -> u32 {
    let over = AtomicBool::new(false);
    let root = Root::open(work).unwrap();
    let mut results = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..SWAPS {
                for (a, b) in names {
                    swap(&work.join(a), &work.join(b));
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut rounds = 0;
        while rounds < ROUNDS || !over.load(Ordering::Relaxed) {
            rounds += 1;
            for call in calls {
                if let Ok(text) = run(&root, call) {
                    results += 1;
                    look(&text);
                }
            }
        }
    });
    results
}

#[test]
fn links_swapped_in_while_a_tool_works_lead_nowhere() {
    let folder = TempDir::new().unwrap();
    let (work, outside) = (folder.path().join("work"), folder.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), CANARY).unwrap();
    fs::write(outside.join("canary"), CANARY).unwrap();
    fs::create_dir_all(work.join("real")).unwrap();
    fs::write(work.join("real/file"), "inside\n").unwrap();
    symlink(&outside, work.join("folder")).unwrap();
    fs::write(work.join("file"), "inside\n").unwrap();
    symlink("../outside/file", work.join("link")).unwrap();

    let calls = [
        ToolCall::ReadFile {
            path: path("real/file"),
            first_line: 1,
            lines: 10,
        },
        ToolCall::ReadFile {
            path: path("file"),
            first_line: 1,
            lines: 10,
        },
        ToolCall::WriteFile {
            path: path("real/file"),
            content: "inside\n".into(),
        },
        ToolCall::WriteFile {
            path: path("file"),
            content: "inside\n".into(),
        },
        ToolCall::WriteFile {
            path: path("real/new/file"),
            content: "inside\n".into(),
        },
        ToolCall::EditFile {
            path: path("real/file"),
            old: "inside".into(),
            new: "inside ".into(),
        },
        ToolCall::EditFile {
            path: path("file"),
            old: "canary".into(),
            new: "cat".into(),
        },
        ToolCall::ListFiles {
            path: path("real"),
            depth: 3,
        },
        ToolCall::SearchFiles {
            text: "canary".into(),
            path: path("."),
        },
        ToolCall::SearchFiles {
            text: "canary".into(),
            path: path("real"),
        },
    ];
    // Two names that are a folder and a link to outside in turn, and a file and a link.
    let results = race(
        &work,
        [("real", "folder"), ("file", "link")],
        &calls,
        |text| {
            assert!(
                !text.contains("sings") && !text.contains("canary\n") && !text.contains("canary  "),
                "{text}"
            );
        },
    );
    assert!(results > 0, "nothing ever worked, so nothing was tried");
    for name in ["file", "canary"] {
        assert_eq!(
            fs::read_to_string(outside.join(name)).unwrap(),
            CANARY,
            "{name}"
        );
    }
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        2,
        "nothing new outside"
    );
}
