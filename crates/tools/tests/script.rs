//! Scripts of programs, as the box starts them: what a shell would do, without one.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

fn run_in(folder: &Path, steps: Value) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bulkhead-tool"))
        .arg("--script")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let script = json!({ "steps": steps }).to_string();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn step(when: &str, pipeline: Value) -> Value {
    json!({"when": when, "pipeline": pipeline})
}

fn argv(words: &[&str]) -> Value {
    json!({ "argv": words })
}

fn file(stream: &str, way: &str, path: &str) -> Value {
    json!({"stream": stream, "to": {"do": way, "file": {"in": "workspace", "path": path}}})
}

fn error_joins_output() -> Value {
    json!({"stream": "error", "to": {"do": "join", "stream": "output"}})
}

fn said(output: &Output) -> (String, String, i32) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code().unwrap(),
    )
}

#[test]
fn the_output_of_each_program_is_the_input_of_the_next_and_the_code_is_the_last_ones() {
    let folder = TempDir::new().unwrap();
    let pipe = |programs: &[&[&str]]| {
        let all: Vec<_> = programs.iter().map(|words| argv(words)).collect();
        said(&run_in(folder.path(), json!([step("always", json!(all))])))
    };
    assert_eq!(
        pipe(&[&["printf", "b\\na\\n"], &["sort"], &["head", "-n1"]]),
        ("a\n".into(), String::new(), 0)
    );
    assert_eq!(pipe(&[&["true"], &["false"]]).2, 1);
    assert_eq!(pipe(&[&["false"], &["true"]]).2, 0);
    // The first one never ends but by the signal of a pipe that nobody reads.
    assert_eq!(pipe(&[&["yes"], &["head", "-n2"]]).0, "y\ny\n");
    assert_eq!(pipe(&[&["yes"], &["true"]]).2, 0);
    assert_eq!(pipe(&[&["no-such-program-anywhere"], &["cat"]]).2, 0);
    assert_eq!(pipe(&[&["no-such-program-anywhere"]]).2, 127);
    assert_eq!(pipe(&[&["/"]]).2, 126);
    assert_eq!(pipe(&[&["sh", "-c", "kill -TERM $$"]]).2, 128 + 15);
    // The script itself is not left in anybody's input.
    assert_eq!(pipe(&[&["cat"]]).0, "");
}

#[test]
fn and_and_or_look_at_the_last_pipeline_that_ran() {
    let folder = TempDir::new().unwrap();
    let echo = |when, text| step(when, json!([argv(&["echo", text])]));
    let just = |when, program| step(when, json!([argv(&[program])]));
    for (steps, expected, code) in [
        (
            vec![just("always", "true"), echo("succeeded", "x")],
            "x\n",
            0,
        ),
        (vec![just("always", "false"), echo("succeeded", "x")], "", 1),
        (vec![just("always", "false"), echo("failed", "x")], "x\n", 0),
        (vec![just("always", "true"), echo("failed", "x")], "", 0),
        (vec![just("always", "false"), echo("always", "x")], "x\n", 0),
        (
            vec![
                just("always", "false"),
                echo("succeeded", "x"),
                echo("failed", "y"),
            ],
            "y\n",
            0,
        ),
        (
            vec![
                just("always", "true"),
                echo("failed", "x"),
                echo("succeeded", "y"),
            ],
            "y\n",
            0,
        ),
        (vec![echo("always", "x"), just("always", "false")], "x\n", 1),
    ] {
        let (out, _, status) = said(&run_in(folder.path(), json!(steps)));
        assert_eq!((out.as_str(), status), (expected, code), "{steps:?}");
    }
}

#[test]
fn redirections_go_from_the_left_to_the_right() {
    let folder = TempDir::new().unwrap();
    let both = ["sh", "-c", "echo out; echo err >&2"];
    let run = |redirections: Value| {
        let program = json!({"argv": both, "redirections": redirections});
        said(&run_in(
            folder.path(),
            json!([step("always", json!([program]))]),
        ))
    };
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(
        run(json!([file("output", "write", "a"), error_joins_output()])).0,
        ""
    );
    assert_eq!(read("a"), "out\nerr\n");
    // The other way round the errors go where the output went before.
    assert_eq!(
        run(json!([error_joins_output(), file("output", "write", "a")])).0,
        "err\n"
    );
    assert_eq!(read("a"), "out\n");
    run(json!([
        file("output", "append", "a"),
        file("error", "write", "b")
    ]));
    assert_eq!(
        (read("a").as_str(), read("b").as_str()),
        ("out\nout\n", "err\n")
    );
    let nowhere = json!({"stream": "error", "to": {"do": "write", "file": {"in": "nowhere"}}});
    assert_eq!(run(json!([nowhere])), ("out\n".into(), String::new(), 0));
    let cat = json!({"argv": ["cat"], "redirections": [file("input", "read", "b")]});
    let output = run_in(folder.path(), json!([step("always", json!([cat]))]));
    assert_eq!(said(&output).0, "err\n");
}

#[test]
fn a_redirection_that_cannot_be_made_keeps_its_program_from_running() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("real"), "old").unwrap();
    fs::create_dir(at("folder")).unwrap();
    symlink("real", at("link")).unwrap();
    symlink("/etc", at("out")).unwrap();
    fs::hard_link(at("real"), at("second")).unwrap();
    fs::write(at("single"), "old").unwrap();
    for (way, path) in [
        ("write", "link"),
        ("append", "link"),
        ("write", "second"),
        ("write", "out/bulkhead-test"),
        ("write", "folder"),
        ("write", "missing/file"),
        ("read", "missing"),
        ("read", "out/passwd"),
    ] {
        let stream = if way == "read" { "input" } else { "output" };
        let touch = json!({"argv": ["touch", "ran"], "redirections": [file(stream, way, path)]});
        let after = step("always", json!([argv(&["echo", "after"])]));
        let output = run_in(
            folder.path(),
            json!([step("always", json!([touch])), after]),
        );
        let (out, error, _) = said(&output);
        assert_eq!(out, "after\n", "{way} {path}: {error}");
        assert!(!error.is_empty() && !at("ran").exists(), "{way} {path}");
    }
    assert_eq!(fs::read_to_string(at("real")).unwrap(), "old");
    let emptied = json!({"argv": ["true"], "redirections": [file("output", "write", "single")]});
    run_in(folder.path(), json!([step("always", json!([emptied]))]));
    assert_eq!(fs::read_to_string(at("single")).unwrap(), "");
}

#[test]
fn what_is_no_script_starts_nothing() {
    let folder = TempDir::new().unwrap();
    let touch = argv(&["touch", "ran"]);
    for steps in [
        json!([]),
        json!([step("always", json!([]))]),
        json!([step("always", json!([touch, argv(&[])]))]),
        json!([step("perhaps", json!([touch]))]),
        json!([{"when": "always", "pipeline": [touch], "then": 1}]),
        json!([step(
            "always",
            json!([{
                "argv": ["touch", "ran"],
                "redirections": [file("output", "write", "../out")],
            }])
        )]),
    ] {
        let output = run_in(folder.path(), steps.clone());
        assert!(!output.status.success(), "{steps}");
        assert!(!folder.path().join("ran").exists(), "{steps}");
    }
}

#[test]
fn a_pattern_stands_for_names_that_are_there_and_never_for_an_option() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["b.rs", "a.rs", "c d.rs", ".hidden.rs", "-n"] {
        fs::write(at(name), "").unwrap();
    }
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("sub/e.rs"), "").unwrap();
    let run = |words: &[&str], patterns: &[u32]| {
        let program = json!({"argv": words, "patterns": patterns});
        said(&run_in(
            folder.path(),
            json!([step("always", json!([program]))]),
        ))
    };
    let printed = |pattern: &str| run(&["printf", "%s|", pattern], &[2]).0;
    assert_eq!(printed("*.rs"), "a.rs|b.rs|c d.rs|");
    assert_eq!(printed("[ab].*"), "a.rs|b.rs|");
    assert_eq!(printed("*/*.rs"), "sub/e.rs|");
    assert_eq!(printed("s*/"), "sub/|");
    assert_eq!(printed(".*"), ".hidden.rs|");
    assert_eq!(printed("*"), "./-n|a.rs|b.rs|c d.rs|sub|");
    assert_eq!(printed("*.none"), "*.none|");
    assert_eq!(printed("/de?/nul[l]"), "/dev/null|");
    // A word that is no pattern stays what it is, and a program is never one.
    assert_eq!(run(&["printf", "%s|", "*.rs"], &[]).0, "*.rs|");
    assert_ne!(run(&["print?", "x"], &[0]).2, 0);
}

#[test]
fn a_step_that_goes_to_a_folder_is_followed_by_steps_that_run_there() {
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    fs::write(folder.path().join("a/b/x.rs"), "one\n").unwrap();
    fs::write(folder.path().join("top"), "").unwrap();
    let go = |folder: &str| json!([argv(&["cd", folder])]);
    let run = |steps: Value| said(&run_in(folder.path(), steps));
    let pattern = json!([{ "argv": ["wc", "-l", "*.rs"], "patterns": [2] }]);
    assert_eq!(
        run(json!([
            step("always", go("a")),
            step("succeeded", go("b")),
            step("succeeded", pattern),
        ])),
        ("1 x.rs\n".into(), String::new(), 0)
    );
    // What cannot be gone to is passed by or not, as a shell would.
    let (out, error, code) = run(json!([
        step("always", go("none")),
        step("succeeded", json!([argv(&["cat", "top"])])),
        step("failed", json!([argv(&["ls"])])),
    ]));
    assert_eq!((out.as_str(), code), ("a\ntop\n", 0));
    assert!(error.starts_with("cd: "), "{error}");
    assert_eq!(run(json!([step("always", go("top"))])).2, 1);
}

#[test]
fn no_step_goes_out_of_the_workspace_or_through_a_link() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    symlink(outside.path(), folder.path().join("out")).unwrap();
    symlink(outside.path(), folder.path().join("a/out")).unwrap();
    symlink("b", folder.path().join("a/near")).unwrap();
    let cat = step("always", json!([argv(&["ls"])]));
    for (goes, stays) in [
        (vec!["out"], "a\nout\n"),
        (vec!["a", "out"], "b\nnear\nout\n"),
        // Above it lies something else than above the folder that it leads to.
        (vec!["a/near"], "a\nout\n"),
        (vec!["a", "near"], "b\nnear\nout\n"),
    ] {
        let mut steps: Vec<Value> = goes
            .iter()
            .map(|folder| step("always", json!([argv(&["cd", folder])])))
            .collect();
        steps.push(cat.clone());
        let (out, error, _) = said(&run_in(folder.path(), json!(steps)));
        assert_eq!(out, stays, "{goes:?}");
        assert!(error.contains("cd: "), "{goes:?}: {error}");
    }
    // A path that leads out is no part of a script, and nothing of it runs.
    for wrong in ["..", "a/../..", "/etc", "/"] {
        let steps = json!([step("always", json!([argv(&["cd", wrong])])), cat.clone()]);
        let (out, _, code) = said(&run_in(folder.path(), steps));
        assert_eq!((out.as_str(), code), ("", 1), "{wrong}");
    }
}
