//! The owner's rules: taken while everything runs, and kept where they cannot be used.

use std::fs;

use serde_json::{Value, json};
use testkit::model::{Rule, Script, ScriptedModel, Step};
use testkit::system::{System, said, wait_for};

/// A model that runs what stands behind "run " in a message.
fn runner(commands: &[&str]) -> ScriptedModel {
    let rule = |command: &&str| Rule {
        contains: format!("run {command}"),
        steps: vec![
            Step::call("exec", json!({ "command": command })),
            Step::text("done"),
        ],
    };
    let script = Script {
        rules: commands.iter().map(rule).collect(),
        ..Script::echo()
    };
    ScriptedModel::start(script).expect("a model")
}

/// Writes `[policy]` anew while everything runs.
fn set_rules(system: &System, policy: &str) {
    system.configure(|config| format!("{config}[policy]\n{policy}\n"));
}

fn status(system: &System) -> Value {
    system.json(&["status"])
}

fn in_force(system: &System) -> Vec<Value> {
    let rows = system.rows("rules_in_force");
    rows.iter()
        .map(|row| row["event"]["sha256"].clone())
        .collect()
}

#[test]
fn rules_are_changed_while_everything_runs_and_broken_ones_are_not_taken() {
    let model = runner(&["touch one", "touch two"]);
    let system = System::start(model.port(), "");
    assert_eq!(in_force(&system).len(), 1);
    let ask = system.spawn(&["ask", "--json", "run touch one"]);
    system.wait_for_approval();
    set_rules(&system, "allow = [\"touch *\"]");
    // What a yes would mean now nobody knows.
    let answer = ask.json();
    assert_eq!(answer["calls"][0]["state"], "refused", "{answer}");
    assert!(system.approvals().is_empty());
    assert!(!system.workspace().join("one").exists());

    system.ask("run touch one");
    assert!(system.workspace().join("one").exists());
    let rows = system.rows("decision");
    let last = &rows.last().expect("a decision")["event"];
    assert_eq!(last["verdict"], "allow");
    assert_eq!(last["rule"], "bulkhead.toml: policy.allow 1");
    let changed = in_force(&system);
    assert_eq!(changed.len(), 2);
    assert_ne!(changed[0], changed[1]);
    assert_eq!(status(&system)["rules"]["sha256"], changed[1]);

    set_rules(&system, "allow = [\"touch\"]\nalow = []");
    let problem = wait_for("the fault is shown", || {
        let problem = status(&system)["rules"]["problem"].clone();
        (problem != "").then_some(problem)
    });
    let problem = problem.as_str().expect("a text");
    assert!(problem.contains("line 9"), "{problem}");
    let words = said(&system.bulkhead(&["status"]));
    assert!(words.contains("cannot be used"), "{words}");
    system.ask("run touch two");
    assert!(system.workspace().join("two").exists());

    // They also outlive the gateway, which is started again with the last good ones.
    system.signal("bulkhead-gateway", "KILL");
    wait_for("the gateway is back", || {
        let rows = in_force(&system);
        (rows.len() == 3).then_some(())
    });
    assert_eq!(in_force(&system)[2], changed[1]);
    system.assert_record_is_sound();
}

#[test]
fn a_cedar_file_of_the_owner_holds_and_one_that_is_wrong_keeps_bulkhead_from_starting() {
    let model = runner(&["touch one"]);
    let system = System::prepare(model.port(), "");
    let rules = system.home().join("rules");
    fs::create_dir(&rules).expect("a folder");
    let file = rules.join("mine.cedar");
    fs::write(&file, "permit (principal, action, resource;").expect("a file");
    let checked = system.bulkhead(&["policy", "check"]);
    assert!(!checked.status.success());
    assert!(
        said(&checked).contains("mine.cedar:1:36"),
        "{}",
        said(&checked)
    );
    assert!(!system.bulkhead(&["up", "--detach"]).status.success());

    let text = "@id(\"no-touch\") @because(\"nothing is to be touched\")\n\
                forbid (principal, action, resource)\n\
                when { resource has program && resource.program == \"touch\" };";
    fs::write(&file, text).expect("a file");
    assert!(system.bulkhead(&["policy", "check"]).status.success());
    system.up();
    system.ask("run touch one");
    assert!(!system.workspace().join("one").exists());
    let rows = system.rows("decision");
    let decision = &rows[0]["event"];
    assert_eq!(decision["verdict"], "deny");
    assert_eq!(decision["rule"], "mine.cedar: no-touch");
    let reason = decision["reason"].as_str().expect("a text");
    assert!(reason.contains("nothing is to be touched"), "{reason}");
}

#[test]
fn what_the_owner_keeps_read_only_no_program_changes() {
    let model = runner(&["python3 write.py"]);
    let system = System::prepare(model.port(), "");
    set_rules(
        &system,
        "read_only = [\"docs\"]\nallow = [\"python3 write.py\"]",
    );
    system.up();
    let docs = system.workspace().join("docs");
    fs::create_dir(&docs).expect("a folder");
    fs::write(docs.join("a"), "before").expect("a file");
    fs::write(
        system.workspace().join("write.py"),
        "import os\nos.symlink('docs', 'link')\nopen('link/a', 'w').write('after\\n')",
    )
    .expect("a file");
    let answer = system.ask("run python3 write.py");
    assert_eq!(answer["calls"][0]["state"], "failed", "{answer}");
    assert_eq!(
        fs::read_to_string(docs.join("a")).expect("it is there"),
        "before"
    );
    let told = format!(
        "{:?}",
        model.requests().last().expect("a request").messages()
    );
    assert!(told.contains("docs/a is read-only"), "{told}");

    set_rules(&system, "allow = [\"python3 write.py\"]");
    wait_for("the rules are taken", || {
        (in_force(&system).len() == 2).then_some(())
    });
    system.ask("run python3 write.py");
    assert_eq!(
        fs::read_to_string(docs.join("a")).expect("it is there"),
        "after\n"
    );
}

#[test]
fn a_session_that_looked_outside_is_private_from_then_on() {
    let model = runner(&["cat /etc/passwd"]);
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "--json", "run cat /etc/passwd"]);
    let card = system.wait_for_approval();
    assert!(system.rows("labelled").is_empty(), "nothing ran yet");
    assert!(system.approve(&card).status.success());
    let (code, out, err) = ask.finish();
    assert_eq!(code, Some(0), "{err}");
    let answer: Value = serde_json::from_str(&out).expect("an answer");
    let session = answer["session"].clone();
    let rows = system.rows("labelled");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["event"]["label"], "private");
    assert_eq!(rows[0]["session"], session);
    let labels = |system: &System| status(system)["sessions"][0]["labels"].clone();
    assert_eq!(labels(&system)[0]["label"], "private");
    assert!(said(&system.bulkhead(&["status"])).contains("is private since"));

    assert!(system.bulkhead(&["down"]).status.success());
    system.up();
    system.ask_in(session.as_str().expect("a text"), "hello again");
    assert_eq!(labels(&system)[0]["label"], "private");
    system.assert_record_is_sound();
}

#[test]
fn what_runs_without_a_yes_plants_no_hook_that_git_would_run_on_the_host() {
    let model = runner(&["python3 plant.py", "python3 write.py"]);
    let system = System::prepare(model.port(), "");
    set_rules(&system, "profile = \"contained\"");
    system.up();
    let workspace = system.workspace();
    let hook = workspace.join(".git/hooks/pre-commit");
    fs::create_dir_all(workspace.join(".git/hooks")).expect("a folder");
    let write = |name: &str, path: &str| {
        let text = format!("open('{path}', 'w').write('x')");
        fs::write(workspace.join(name), text).expect("a file");
    };
    write("plant.py", ".git/hooks/pre-commit");
    write("write.py", "made");
    let answer = system.ask("run python3 plant.py");
    assert_eq!(answer["calls"][0]["state"], "failed", "{answer}");
    assert!(!hook.exists());
    let answer = system.ask("run python3 write.py");
    assert_eq!(answer["calls"][0]["state"], "done", "{answer}");
    assert!(workspace.join("made").exists());
    assert!(system.rows("approval_asked").is_empty());
}
