//! What was kept in the workspace is undone: byte for byte, in the record, and only if it is wanted.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use protocol::event::UndoOutcome;
use protocol::operator::{OperatorReply, OperatorRequest};
use protocol::workspace::{Diff, UndoTo};
use serde_json::{Value, json};
use testkit::model::{Script, ScriptedModel, Step};
use testkit::operator::operator;
use testkit::system::{System, wait_for};

/// A model that makes these calls in one turn.
fn model(calls: impl IntoIterator<Item = Step>) -> ScriptedModel {
    let steps = calls.into_iter().chain([Step::text("done")]);
    ScriptedModel::start(Script::steps(steps)).expect("a model")
}

fn write(path: &str, content: &str) -> Step {
    Step::call("write_file", json!({ "path": path, "content": content }))
}

/// A system whose model has written this file in a first turn; the session.
fn written(path: &str, content: &str) -> (System, ScriptedModel, String) {
    let model = model([write(path, content)]);
    let system = System::start(model.port(), "");
    let answer = system.ask("write");
    assert_eq!(answer["reply"], "done", "{answer}");
    let session = answer["session"].as_str().expect("a session").to_owned();
    (system, model, session)
}

/// Kind, mode and content of all that there is below a folder.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("an entry");
            let content = if metadata.is_symlink() {
                let target = fs::read_link(&path).expect("a link");
                target.into_os_string().into_encoded_bytes()
            } else if metadata.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).expect("a file")
            };
            // The mode holds the kind too, inode(7).
            found.insert(path, (metadata.permissions().mode(), content));
        }
    }
    found
}

/// `bulkhead undo ARGUMENTS --yes`, which has to succeed.
fn undo(system: &System, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["undo"].iter().chain(arguments).copied().collect();
    let printed = system.json(&[arguments.as_slice(), &["--yes"]].concat());
    assert_eq!(printed["outcome"]["result"], "done", "{printed}");
    printed
}

fn undo_outcomes(system: &System) -> Vec<Value> {
    let rows = system.rows("undo_ended");
    let result = |row: &Value| row["event"]["outcome"]["result"].clone();
    rows.iter().map(result).collect()
}

/// Both verifiers say that the record is whole.
fn assert_record_is_sound_to_both(system: &System) {
    system.assert_record_is_sound();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/verify_ledger.py");
    let ledger = system.home().join("ledger");
    let output = Command::new("python3")
        .arg(script)
        .args([ledger.join("ledger.db"), ledger.join("ledger.pub")])
        .output()
        .expect("Python runs");
    assert!(
        output.status.success(),
        "{}",
        testkit::system::said(&output)
    );
}

#[test]
fn a_turn_is_undone_byte_for_byte_and_an_undo_is_undone_too() {
    let script = "rm gone.txt; chmod 600 mode.sh; rm link; ln -s mode.sh link; mkdir -p d/e; cp bin d/e/copy";
    let model = model([
        write("new.txt", "new\n"),
        Step::call(
            "edit_file",
            json!({ "path": "old.txt", "old": "two", "new": "2" }),
        ),
        Step::call("exec", json!({ "command": script })),
    ]);
    let system = System::start(model.port(), "");
    let workspace = system.workspace();
    fs::write(workspace.join("old.txt"), "one\ntwo\n").expect("a file");
    fs::write(workspace.join("gone.txt"), "still here\n").expect("a file");
    fs::write(workspace.join("bin"), [0, 255, 10, 13, 0]).expect("a file");
    fs::write(workspace.join("mode.sh"), "#!/bin/sh\n").expect("a file");
    fs::set_permissions(workspace.join("mode.sh"), fs::Permissions::from_mode(0o755))
        .expect("a mode");
    symlink("gone.txt", workspace.join("link")).expect("a link");
    let before = tree(&workspace);

    let ask = system.spawn(&["ask", "--json", "go"]);
    let card = system.wait_for_approval();
    assert!(system.approve(&card).status.success());
    let answer = ask.json();
    let after = tree(&workspace);
    assert_ne!(after, before);
    assert!(after.contains_key(&workspace.join("d/e/copy")));

    // Each call says what it changed, to whoever watches and to the model.
    let detail = |call: usize| answer["calls"][call]["detail"].to_string();
    assert!(detail(0).contains("new.txt (created)"), "{answer}");
    assert!(detail(1).contains("old.txt (changed)"), "{answer}");
    assert!(detail(2).contains("gone.txt (deleted)"), "{answer}");
    let told = model.requests().last().expect("a request").messages();
    let told = |text: &str| told.iter().any(|message| message.contains(text));
    assert!(told("new.txt (created)") && told("`bulkhead undo`"));

    let printed = undo(&system, &[]);
    assert_eq!(tree(&workspace), before);
    // It is in the record, before and after.
    let asked = &system.rows("undo_asked")[0];
    assert_eq!(asked["row"], printed["row"]);
    assert_eq!(asked["event"]["by"], "owner");
    assert_eq!(asked["event"]["digest"], printed["preview"]["digest"]);
    assert_eq!(
        asked["event"]["origin"]["call"]["session"],
        answer["session"]
    );
    assert_eq!(system.rows("undo_ended")[0]["event"]["asked"], asked["row"]);
    assert_eq!(undo_outcomes(&system), ["done"]);

    undo(&system, &[]);
    assert_eq!(tree(&workspace), after);
    undo(&system, &[]);
    assert_eq!(tree(&workspace), before);
    assert_record_is_sound_to_both(&system);
}

#[test]
fn what_an_older_turn_changed_is_taken_back_with_all_that_came_after_it() {
    let (system, model, session) = written("a.txt", "1");
    let first = tree(&system.workspace());
    for name in ["b.txt", "c.txt"] {
        model.push(write(name, "2"));
        model.push(Step::text("done"));
        assert_eq!(system.ask_in(&session, "more")["reply"], "done");
    }
    let all = tree(&system.workspace());
    let list = system.json_lines(&["undo", "--list"]);
    let turns: Vec<_> = list
        .iter()
        .map(|entry| entry["origin"]["call"]["turn"].clone())
        .collect();
    assert_eq!(turns, [3, 2, 1]);

    // Without a yes it is only shown.
    let turn = format!("{session}/2");
    let output = system.bulkhead(&["undo", &turn]);
    assert_eq!(output.status.code(), Some(2));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    for text in [
        &format!("turn {session}/3"),
        &format!("turn {turn}"),
        "deletes      b.txt",
        "deletes      c.txt",
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    assert!(!shown.contains("a.txt"), "{shown}");
    assert_eq!(tree(&system.workspace()), all);
    assert!(system.rows("undo_asked").is_empty());

    undo(&system, &["2"]);
    assert_eq!(tree(&system.workspace()), first);
    // The undo is the newest entry; before the first turn there was nothing.
    undo(&system, &[&format!("{session}/1")]);
    assert!(tree(&system.workspace()).is_empty());
    assert_record_is_sound_to_both(&system);
}

#[test]
fn what_somebody_changed_since_is_not_undone_unless_they_say_so() {
    let (system, _model, _) = written("a.txt", "the model's");
    let file = system.workspace().join("a.txt");
    fs::write(&file, "mine").expect("it is written");
    let output = system.bulkhead(&["undo", "--yes"]);
    let said = testkit::system::said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("a.txt") && said.contains("--force"), "{said}");
    assert_eq!(fs::read_to_string(&file).expect("the file"), "mine");
    assert!(system.rows("undo_asked").is_empty());

    undo(&system, &["--force"]);
    assert!(!file.exists());
    // It is not lost: the undo can be undone.
    undo(&system, &[]);
    assert_eq!(fs::read_to_string(&file).expect("the file"), "mine");
    assert_record_is_sound_to_both(&system);
}

#[test]
fn what_is_different_from_what_was_shown_is_not_undone() {
    let (system, _model, _) = written("a.txt", "1");
    let gateway = operator(&system);
    let say = |request: &OperatorRequest| {
        gateway.send(request).expect("it is sent");
        gateway.receive().expect("an answer")
    };
    let (to, diff) = (UndoTo::Newest, Diff::Unified);
    let asked = OperatorRequest::UndoPreview {
        to: to.clone(),
        diff,
    };
    let OperatorReply::UndoPreview { preview, .. } = say(&asked) else {
        panic!("no preview")
    };
    assert!(preview.diff.contains("-1"), "{}", preview.diff);
    let mut digest = preview.digest;
    digest.0[0] ^= 1;
    let other = say(&OperatorRequest::Undo {
        to: to.clone(),
        digest,
    });
    assert!(matches!(other, OperatorReply::Refused { .. }), "{other:?}");
    // Shown, but then changed: the program that keeps the workspace refuses, and that is recorded.
    fs::write(system.workspace().join("a.txt"), "changed").expect("it is written");
    let digest = preview.digest;
    let late = say(&OperatorRequest::Undo { to, digest });
    assert!(
        matches!(
            &late,
            OperatorReply::Undone {
                outcome: UndoOutcome::Refused { .. },
                ..
            }
        ),
        "{late:?}"
    );
    let text = fs::read_to_string(system.workspace().join("a.txt"));
    assert_eq!(text.expect("the file"), "changed");
    assert_eq!(undo_outcomes(&system), ["refused"]);
    system.assert_record_is_sound();
}

/// Has an undo asked for that the stopped program does not begin; the gateway's answer is open.
fn undo_under_way(system: &System) -> protocol::frame::Link<OperatorRequest, OperatorReply> {
    let gateway = operator(system);
    let (to, diff) = (UndoTo::Newest, Diff::None);
    let asked = OperatorRequest::UndoPreview {
        to: to.clone(),
        diff,
    };
    gateway.send(&asked).expect("it is sent");
    let Ok(OperatorReply::UndoPreview { preview, .. }) = gateway.receive() else {
        panic!("no preview")
    };
    system.signal("bulkhead-workspace", "STOP");
    let digest = preview.digest;
    gateway
        .send(&OperatorRequest::Undo { to, digest })
        .expect("it is sent");
    wait_for("the undo is in the record", || {
        (system.rows("undo_asked").len() == 1).then_some(())
    });
    assert!(undo_outcomes(system).is_empty());
    gateway
}

#[test]
fn an_undo_whose_gateway_is_killed_has_an_unknown_outcome_after_the_next_start() {
    let (system, _model, _) = written("a.txt", "1");
    let after = tree(&system.workspace());
    let gateway = undo_under_way(&system);
    system.signal("bulkhead-gateway", "KILL");
    assert!(gateway.receive().is_err());
    wait_for("the undo has an outcome", || {
        (undo_outcomes(&system) == ["unknown"]).then_some(())
    });
    let output = system.bulkhead(&["audit", "verify"]);
    let said = testkit::system::said(&output);
    assert!(
        said.contains("1 tool calls or undos have an unknown outcome"),
        "{said}"
    );
    system.signal("bulkhead-workspace", "CONT");
    // What was sent may be done or not, but not half; and what is there can be undone.
    wait_for("the next undo works", || {
        let now = tree(&system.workspace());
        assert!(now == after || now.is_empty(), "{now:?}");
        let output = system.bulkhead(&["undo", "--yes"]);
        output.status.success().then_some(())
    });
    let outcomes = undo_outcomes(&system);
    assert_eq!(outcomes.first(), Some(&json!("unknown")), "{outcomes:?}");
    assert_eq!(outcomes.last(), Some(&json!("done")), "{outcomes:?}");
    assert_record_is_sound_to_both(&system);
}

#[test]
fn an_undo_whose_keeper_is_killed_has_an_unknown_outcome_and_the_next_one_works() {
    let (system, _model, _) = written("a.txt", "1");
    let gateway = undo_under_way(&system);
    system.signal("bulkhead-workspace", "KILL");
    let answer = gateway.receive().expect("an answer");
    assert!(
        matches!(
            &answer,
            OperatorReply::Undone {
                outcome: UndoOutcome::Unknown,
                ..
            }
        ),
        "{answer:?}"
    );
    assert!(system.workspace().join("a.txt").exists());
    wait_for("the history is there again", || {
        let list = system.json_lines(&["undo", "--list"]);
        (!list.is_empty()).then_some(())
    });
    undo(&system, &[]);
    assert!(!system.workspace().join("a.txt").exists());
    assert_eq!(undo_outcomes(&system), ["unknown", "done"]);
    assert_record_is_sound_to_both(&system);
}

#[test]
fn while_the_ledger_stands_still_nothing_is_undone() {
    let (system, _model, _) = written("a.txt", "1");
    let before = tree(&system.workspace());
    system.signal("bulkhead-ledger", "STOP");
    let output = system.bulkhead(&["undo", "--yes"]);
    let said = testkit::system::said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Nothing was undone"), "{said}");
    assert_eq!(tree(&system.workspace()), before);
    system.signal("bulkhead-ledger", "CONT");
    // The row that the ledger wrote after all, if it did, has the outcome that is known.
    wait_for("it can be undone", || {
        let output = system.bulkhead(&["undo", "--yes"]);
        output.status.success().then_some(())
    });
    assert!(tree(&system.workspace()).is_empty());
    assert!(!undo_outcomes(&system).contains(&json!("unknown")));
    assert_record_is_sound_to_both(&system);
}

#[test]
fn the_history_survives_a_restart() {
    let (system, _model, _) = written("a.txt", "1");
    assert!(system.bulkhead(&["down"]).status.success());
    system.up();
    undo(&system, &[]);
    assert!(tree(&system.workspace()).is_empty());
    let checks = system.json(&["doctor"]);
    let history = |check: &&Value| check["check"] == "history";
    let checks = checks.as_array().expect("checks");
    let history = checks.iter().find(history).expect("the check");
    assert_eq!(history["status"], "ok", "{history}");
}
