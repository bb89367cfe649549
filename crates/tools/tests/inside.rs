//! `bulkhead-tool` as the box starts it, over workspaces that somebody prepared.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use protocol::call::{ToolCall, WorkspacePath};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

/// No call takes longer; a tool that waits for the other end of a fifo would.
const SOON: Duration = Duration::from_secs(20);

/// A workspace, and beside it a folder that nobody may touch.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/canary"), "the canary sings\n").unwrap();
        Self { folder }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join("work").join(path)
    }

    fn outside(&self) -> std::path::PathBuf {
        self.folder.path().join("outside")
    }

    fn canary_sings(&self) {
        assert_eq!(
            fs::read_to_string(self.outside().join("canary")).unwrap(),
            "the canary sings\n"
        );
        assert_eq!(fs::read_dir(self.outside()).unwrap().count(), 1);
    }

    /// What the tool says: its result, or its error.
    fn run(&self, call: &ToolCall) -> Result<String, String> {
        self.feed(&serde_json::to_vec(call).unwrap())
    }

    fn feed(&self, input: &[u8]) -> Result<String, String> {
        let started = Instant::now();
        let mut tool = Command::new(env!("CARGO_BIN_EXE_bulkhead-tool"))
            .args([OsStr::new("--root"), self.at("").as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = tool.stdin.take().unwrap();
        let (stdout, stderr) = (tool.stdout.take().unwrap(), tool.stderr.take().unwrap());
        let (status, stdout, stderr) = std::thread::scope(|scope| {
            // A tool that has seen enough closes its end.
            scope.spawn(|| drop({ stdin }.write_all(input)));
            let stdout = scope.spawn(|| all_of(stdout));
            let stderr = scope.spawn(|| all_of(stderr));
            let status = loop {
                match tool.try_wait().unwrap() {
                    None if started.elapsed() > SOON => tool.kill().unwrap(),
                    None => std::thread::sleep(Duration::from_millis(1)),
                    Some(status) => break status,
                }
            };
            (status, stdout.join().unwrap(), stderr.join().unwrap())
        });
        assert!(started.elapsed() < SOON, "it hung and was killed");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        match status.code() {
            Some(0) => Ok(text(stdout)),
            Some(1) => {
                assert!(stdout.is_empty());
                Err(text(stderr))
            }
            other => panic!("exit code {other:?}: {}", text(stderr)),
        }
    }
}

fn all_of(mut end: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    end.read_to_end(&mut bytes).unwrap();
    bytes
}

fn path(text: &str) -> WorkspacePath {
    WorkspacePath::parse(text).unwrap()
}

fn read(at: &str) -> ToolCall {
    ToolCall::ReadFile {
        path: path(at),
        first_line: 1,
        lines: 2000,
    }
}

fn read_lines(at: &str, first_line: u32, lines: u32) -> ToolCall {
    ToolCall::ReadFile {
        path: path(at),
        first_line,
        lines,
    }
}

fn write(at: &str, content: &str) -> ToolCall {
    ToolCall::WriteFile {
        path: path(at),
        content: content.into(),
    }
}

fn edit(at: &str, old: &str, new: &str) -> ToolCall {
    ToolCall::EditFile {
        path: path(at),
        old: old.into(),
        new: new.into(),
    }
}

fn list(at: &str, depth: u32) -> ToolCall {
    ToolCall::ListFiles {
        path: path(at),
        depth,
    }
}

fn search(text: &str, at: &str) -> ToolCall {
    ToolCall::SearchFiles {
        text: text.into(),
        path: path(at),
    }
}

fn fifo(at: &Path) {
    mknodat(CWD, at, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
}

#[track_caller]
fn refused(result: Result<String, String>, says: &str) {
    let error = result.unwrap_err();
    assert!(error.contains(says), "{error}");
}

#[test]
fn files_are_written_read_edited_listed_and_searched() {
    let place = Place::new();
    assert_eq!(
        place.run(&write("a/b/c.txt", "one\ntwo\nthree\n")).unwrap(),
        "created a/b/c.txt, 14 bytes\n"
    );
    assert_eq!(place.run(&read("a/b/c.txt")).unwrap(), "one\ntwo\nthree\n");
    assert_eq!(
        place.run(&edit("a/b/c.txt", "two", "2")).unwrap(),
        "edited a/b/c.txt at line 2\n"
    );
    assert_eq!(place.run(&read("a/b/c.txt")).unwrap(), "one\n2\nthree\n");
    assert_eq!(
        place.run(&write("a/b/c.txt", "")).unwrap(),
        "replaced a/b/c.txt, 0 bytes\n"
    );
    assert_eq!(place.run(&read("a/b/c.txt")).unwrap(), "");
    assert_eq!(
        place.run(&write("d", "x three y\nthree")).unwrap(),
        "created d, 15 bytes\n"
    );
    assert_eq!(
        place.run(&list(".", 5)).unwrap(),
        "a/\na/b/\na/b/c.txt  0\nd  15\n"
    );
    assert_eq!(place.run(&list(".", 1)).unwrap(), "a/\nd  15\n");
    assert_eq!(place.run(&list("a", 2)).unwrap(), "a/b/\na/b/c.txt  0\n");
    assert_eq!(
        place.run(&search("three", ".")).unwrap(),
        "d:1: x three y\nd:2: three\n"
    );
    assert_eq!(
        place.run(&search("three", "d")).unwrap(),
        "d:1: x three y\nd:2: three\n"
    );
    assert_eq!(
        place.run(&search("nowhere", ".")).unwrap(),
        "[no line holds it]\n"
    );
    assert_eq!(
        fs::read_dir(place.at("a/b")).unwrap().count(),
        1,
        "no temporary file stays"
    );
}

#[test]
fn lines_are_taken_from_where_they_are_wanted() {
    let place = Place::new();
    fs::write(place.at("a"), "1\n2\n3\n4\n5").unwrap();
    assert_eq!(
        place.run(&read_lines("a", 2, 2)).unwrap(),
        "2\n3\n[the file goes on; read on with first_line 4]\n"
    );
    assert_eq!(place.run(&read_lines("a", 4, 2)).unwrap(), "4\n5");
    assert_eq!(place.run(&read_lines("a", 5, 2000)).unwrap(), "5");
    refused(
        place.run(&read_lines("a", 6, 1)),
        "no line 6; it ends after line 5",
    );
    refused(
        place.run(&read_lines("a", u32::MAX, 100_000)),
        "ends after line 5",
    );
    fs::write(place.at("empty"), "").unwrap();
    assert_eq!(place.run(&read("empty")).unwrap(), "");
    refused(place.run(&read_lines("empty", 2, 1)), "no line 2");
}

#[test]
fn an_edit_needs_exactly_one_place() {
    let place = Place::new();
    fs::write(place.at("a"), "xx aaa\n").unwrap();
    refused(place.run(&edit("a", "nothing", "y")), "does not stand");
    refused(place.run(&edit("a", "x", "y")), "more than once");
    refused(place.run(&edit("a", "aa", "y")), "more than once");
    refused(place.run(&edit("gone/a", "aa", "y")), "does not exist");
    assert!(!place.at("gone").exists(), "an edit makes no folders");
    fs::write(place.at("binary"), b"\xff\xfe x").unwrap();
    refused(place.run(&edit("binary", "x", "y")), "not a text file");
    assert_eq!(fs::read_to_string(place.at("a")).unwrap(), "xx aaa\n");
}

#[test]
fn what_is_not_there_is_said_to_be_missing() {
    let place = Place::new();
    for call in [
        read("no"),
        list("no", 1),
        search("x", "no"),
        edit("no", "a", "b"),
        read("no/no"),
    ] {
        refused(place.run(&call), "does not exist");
    }
    fs::write(place.at("file"), "x").unwrap();
    for call in [
        read("file/x"),
        list("file", 1),
        list("file/x", 1),
        write("file/x", "y"),
    ] {
        refused(place.run(&call), "not a folder");
    }
}

#[test]
fn links_that_lead_out_are_not_followed() {
    let place = Place::new();
    fs::create_dir_all(place.at("sub/deep")).unwrap();
    let outside = place.outside();
    symlink(outside.join("canary"), place.at("absolute")).unwrap();
    symlink("../outside/canary", place.at("up")).unwrap();
    symlink("../../../outside/canary", place.at("sub/deep/up")).unwrap();
    symlink(&outside, place.at("folder")).unwrap();
    symlink("../outside", place.at("upfolder")).unwrap();
    symlink("/proc/self/root", place.at("magic")).unwrap();
    symlink("upfolder", place.at("twice")).unwrap();
    symlink("loop", place.at("loop")).unwrap();
    symlink(place.at("sub"), place.at("absolute-inside")).unwrap();
    let files = [
        "absolute",
        "up",
        "sub/deep/up",
        "folder/canary",
        "upfolder/canary",
        "twice/canary",
        "magic/etc/passwd",
        "loop",
        "absolute-inside/deep",
    ];
    for file in files {
        for call in [
            read(file),
            edit(file, "sings", "x"),
            write(file, "x"),
            search("sings", file),
        ] {
            refused(place.run(&call), "symbolic link");
        }
    }
    for folder in ["folder", "upfolder", "twice", "magic"] {
        for call in [
            list(folder, 2),
            search("sings", folder),
            write(&format!("{folder}/new"), "x"),
            write(&format!("{folder}/a/new"), "x"),
        ] {
            refused(place.run(&call), "symbolic link");
        }
    }
    assert_eq!(
        place.run(&search("sings", ".")).unwrap(),
        "[no line holds it]\n"
    );
    assert!(
        !place.run(&list(".", 5)).unwrap().contains("/canary  "),
        "a folder behind a link is not listed"
    );
    place.canary_sings();
}

#[test]
fn links_that_stay_inside_are_read_but_not_written_through() {
    let place = Place::new();
    fs::create_dir(place.at("sub")).unwrap();
    fs::write(place.at("sub/file"), "text\n").unwrap();
    symlink("sub/file", place.at("link")).unwrap();
    symlink("sub", place.at("folder")).unwrap();
    assert_eq!(place.run(&read("link")).unwrap(), "text\n");
    assert_eq!(place.run(&read("folder/file")).unwrap(), "text\n");
    assert_eq!(place.run(&list("folder", 1)).unwrap(), "folder/file  5\n");
    assert_eq!(
        place.run(&search("text", "link")).unwrap(),
        "link:1: text\n"
    );
    for call in [
        write("link", "x"),
        edit("link", "text", "x"),
        write("folder/file", "x"),
        edit("folder/file", "text", "x"),
        write("folder/new", "x"),
    ] {
        refused(place.run(&call), "symbolic link");
    }
    assert_eq!(fs::read_to_string(place.at("sub/file")).unwrap(), "text\n");
    assert_eq!(
        place.run(&list(".", 1)).unwrap(),
        "folder -> sub\nlink -> sub/file\nsub/\n"
    );
}

#[test]
fn a_file_with_other_names_is_not_written() {
    let place = Place::new();
    fs::hard_link(place.outside().join("canary"), place.at("hard")).unwrap();
    for call in [write("hard", "x"), edit("hard", "sings", "x")] {
        refused(place.run(&call), "2 names");
    }
    place.canary_sings();
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let place = Place::new();
    fifo(&place.at("fifo"));
    let _listener = UnixListener::bind(place.at("socket")).unwrap();
    fs::create_dir(place.at("folder")).unwrap();
    for (name, says) in [
        ("fifo", "a fifo"),
        ("socket", "a socket"),
        ("folder", "a folder"),
    ] {
        for call in [read(name), write(name, "x"), edit(name, "a", "b")] {
            refused(place.run(&call), says);
        }
    }
    refused(place.run(&search("x", "fifo")), "a fifo");
    assert_eq!(
        place.run(&list(".", 1)).unwrap(),
        "fifo  (a fifo)\nfolder/\nsocket  (a socket)\n"
    );
    assert_eq!(
        place.run(&search("x", ".")).unwrap(),
        "[no line holds it]\n"
    );
}

#[test]
fn a_device_is_refused() {
    let place = Place::new();
    // Major 1, minor 3 is /dev/null. Only root may make one, and not everywhere; a link to
    // the real one has to be refused anyway.
    let made = mknodat(
        CWD,
        place.at("null"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    );
    if made.is_err() {
        symlink("/dev/null", place.at("null")).unwrap();
    }
    for call in [
        read("null"),
        write("null", "x"),
        edit("null", "a", "b"),
        search("x", "null"),
    ] {
        let error = place.run(&call).unwrap_err();
        let says = if made.is_ok() {
            ["a device", "Permission denied"]
        } else {
            ["symbolic link"; 2]
        };
        assert!(says.iter().any(|words| error.contains(words)), "{error}");
    }
}

#[test]
fn a_written_file_keeps_its_mode_but_no_privilege() {
    let place = Place::new();
    for (mode, expected) in [
        (0o4755, 0o755),
        (0o2755, 0o755),
        (0o640, 0o640),
        (0o755, 0o755),
    ] {
        fs::write(place.at("a"), "x").unwrap();
        fs::set_permissions(place.at("a"), fs::Permissions::from_mode(mode)).unwrap();
        place.run(&write("a", "y")).unwrap();
        assert_eq!(
            fs::metadata(place.at("a")).unwrap().mode() & 0o7777,
            expected,
            "{mode:o}"
        );
        fs::remove_file(place.at("a")).unwrap();
    }
    place.run(&write("new", "y")).unwrap();
    assert_eq!(fs::metadata(place.at("new")).unwrap().mode() & 0o7111, 0);
    fs::set_permissions(place.at("new"), fs::Permissions::from_mode(0o444)).unwrap();
    refused(place.run(&write("new", "z")), "read-only");
}

#[test]
fn large_files_cost_no_time_and_no_memory() {
    let place = Place::new();
    let huge = fs::File::create(place.at("huge")).unwrap();
    huge.set_len(1 << 40).unwrap();
    refused(place.run(&read("huge")), "not a text file");
    refused(place.run(&edit("huge", "a", "b")), "the limit of this tool");
    refused(place.run(&search("a", "huge")), "the limit of this tool");
    assert!(
        place
            .run(&search("a", "."))
            .unwrap()
            .contains("1 files left out")
    );
    assert_eq!(place.run(&list(".", 1)).unwrap(), "huge  1099511627776\n");

    let mut file = fs::File::create(place.at("text")).unwrap();
    file.write_all(&b"a line\n".repeat(4000)).unwrap();
    file.set_len(1 << 40).unwrap();
    refused(
        place.run(&read_lines("text", 4_000_000, 1)),
        "further in is not looked",
    );

    fs::write(place.at("wide"), "w".repeat(300_000)).unwrap();
    refused(place.run(&read("wide")), "a line there that is longer");
    fs::write(place.at("long"), "0123456789abcdef\n".repeat(40_000)).unwrap();
    let text = place.run(&read_lines("long", 1, 100_000)).unwrap();
    assert!(
        text.len() <= 256 * 1024 + 100 && text.ends_with("read on with first_line 15421]\n"),
        "{}",
        &text[text.len() - 100..]
    );
    refused(
        place.run(&write("big", &"x".repeat(1024 * 1024 + 1))),
        "the limit of this tool",
    );
    assert!(!place.at("big").exists());
    fs::write(
        place.at("grows"),
        format!("a{}", "x".repeat(1024 * 1024 - 1)),
    )
    .unwrap();
    refused(
        place.run(&edit("grows", "a", "bb")),
        "the limit of this tool",
    );
}

#[test]
fn lists_and_searches_are_cut_and_say_so() {
    let place = Place::new();
    for number in 0..1001 {
        fs::write(place.at(&format!("{number:04}")), "hit\n").unwrap();
    }
    let text = place.run(&list(".", 1)).unwrap();
    assert_eq!(text.lines().count(), 1001);
    assert!(text.contains("0999  4\n[there is more"), "{text}");
    let text = place.run(&search("hit", ".")).unwrap();
    assert_eq!(text.lines().count(), 201);
    assert!(text.ends_with("search a folder further in]\n"));
}

#[test]
fn names_cannot_pretend_to_be_lines_and_text_that_is_none_is_shown() {
    let place = Place::new();
    for name in [
        &b"a\nb"[..],
        b"\x1b[2Jx",
        b"\xff\xfe",
        "\u{202e}txt".as_bytes(),
        b"back\\slash",
    ] {
        fs::write(place.at("").join(OsStr::from_bytes(name)), "hit\n").unwrap();
    }
    symlink("a\nb", place.at("link")).unwrap();
    let text = place.run(&list(".", 1)).unwrap();
    assert_eq!(
        text,
        "\\u{1b}[2Jx  4\na\\u{a}b  4\nback\\\\slash  4\nlink -> a\\u{a}b\n\\u{202e}txt  4\n\\xff\\xfe  4\n"
    );
    let text = place.run(&search("hit", ".")).unwrap();
    assert_eq!(text.lines().count(), 5);
    assert!(text.contains("\\xff\\xfe:1: hit\n"));
}

#[test]
fn binary_files_are_left_out_of_a_search() {
    let place = Place::new();
    fs::write(place.at("binary"), b"hit\0").unwrap();
    fs::write(place.at("latin"), b"hit \xe9\n").unwrap();
    assert_eq!(
        place.run(&search("hit", ".")).unwrap(),
        "latin:1: hit \u{fffd}\n[1 files left out: binary, over 1048576 bytes or not readable]\n"
    );
}

#[test]
fn folders_without_end_have_an_end() {
    let place = Place::new();
    let deep = (0..60).map(|_| "d").collect::<Vec<_>>().join("/");
    fs::create_dir_all(place.at(&deep)).unwrap();
    fs::write(place.at(&deep).join("f"), "hit").unwrap();
    assert_eq!(
        place.run(&search("hit", ".")).unwrap(),
        "[no line holds it]\n"
    );
    assert_eq!(place.run(&list(".", 5)).unwrap().lines().count(), 5);
    assert_eq!(place.run(&read(&format!("{deep}/f"))).unwrap(), "hit");
}

#[test]
fn what_is_not_one_call_is_refused() {
    let place = Place::new();
    for input in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"tool":"read_file","args":{"path":"../outside/canary","first_line":1,"lines":1}}"#,
        r#"{"tool":"x","args":{}}"#,
    ] {
        refused(place.feed(input.as_bytes()), "no tool call");
    }
    let twice = [serde_json::to_vec(&read("a")).unwrap(), b"{}".to_vec()].concat();
    refused(place.feed(&twice), "no tool call");
    refused(place.feed(&vec![b' '; 4 * 1024 * 1024 + 1]), "longer than");
    refused(
        place.run(&ToolCall::Exec {
            command: "id".into(),
        }),
        "not a file tool",
    );
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [&["--root"][..], &["--help"], &["/"], &["--root", "/", "x"]] {
        let status = Command::new(env!("CARGO_BIN_EXE_bulkhead-tool"))
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(2), "{arguments:?}");
    }
}
