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

/// So often two names change places while one call is tried; even, so that all is as it was in the end.
const SWAPS: u32 = 100_000;

/// At least so often the call is tried.
const ROUNDS: u32 = 100;

const CANARY: &str = "the canary sings\n";

fn path(text: &str) -> WorkspacePath {
    WorkspacePath::parse(text).unwrap()
}

fn swap(a: &Path, b: &Path) {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
}

/// Runs the call as long as the swaps go on, and looks at each result.
fn race(work: &Path, names: [(&str, &str); 2], call: &ToolCall, look: impl Fn(&str)) -> u32 {
    let over = AtomicBool::new(false);
    let root = Root::open(work).unwrap();
    let mut results = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let pairs = names.map(|(a, b)| (work.join(a), work.join(b)));
            for _ in 0..SWAPS / 2 {
                for (a, b) in &pairs {
                    swap(a, b);
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut rounds = 0;
        while rounds < ROUNDS || !over.load(Ordering::Relaxed) {
            rounds += 1;
            if let Ok(text) = run(&root, call) {
                results += 1;
                look(&text);
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
    for call in &calls {
        let results = race(
            &work,
            [("real", "folder"), ("file", "link")],
            call,
            |text| {
                assert!(
                    !text.contains("sings")
                        && !text.contains("canary\n")
                        && !text.contains("canary  "),
                    "{text}"
                );
            },
        );
        // One looks for a text that only the file outside holds.
        let never = matches!(call, ToolCall::EditFile { old, .. } if old == "canary");
        assert_eq!(results == 0, never, "{call:?} worked {results} times");
    }
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
