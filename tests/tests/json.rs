//! `--json`: what a command prints is one JSON value a line, and nothing else.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};
use testkit::model::{Script, ScriptedModel, Step};
use testkit::system::{System, said};

fn exec(command: &str) -> Step {
    Step::call("exec", json!({ "command": command }))
}

/// The values that this printed; it has to have gone well.
fn values(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", said(output));
    lines(output)
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
    };
    text.lines().map(value).collect()
}

fn run(system: &System, line: &str) -> Vec<Value> {
    let arguments: Vec<&str> = line.split(' ').chain(["--json"]).collect();
    values(&system.bulkhead(&arguments))
}

/// The only value, which has these keys.
fn one(values: &[Value], keys: &[&str]) -> Value {
    let [value] = values else {
        panic!("not one value: {values:?}")
    };
    for key in keys {
        assert!(value.get(*key).is_some(), "no {key} in {value}");
    }
    value.clone()
}

#[test]
fn every_command_about_questions_and_grants_has_a_json_form() {
    let model = ScriptedModel::start(Script::steps([
        exec("touch made"),
        exec("rm made"),
        Step::text("done"),
    ]));
    let model = model.expect("a model");
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "--json", "go"]);
    let card = system.wait_for_approval();
    let approval = card["approval"].as_str().expect("an id").to_owned();
    let mut shown = one(
        &run(&system, &format!("approvals show {approval}")),
        &["action", "digest", "past"],
    );
    let past = shown.as_object_mut().and_then(|shown| shown.remove("past"));
    let once = json!({ "calls": 1, "approved": 0, "denied": 0 });
    assert_eq!(past, Some(once), "what a yes would have covered so far");
    assert_eq!(shown, card);
    let digest = card["digest"].as_str().expect("a digest");
    let yes = format!("approvals approve {approval} --confirm-digest {digest}");
    assert_eq!(
        run(&system, &yes),
        [json!({ "done": "approved", "approval": approval })]
    );
    let card = system.wait_for_approval_other_than(&card);
    let approval = card["approval"].as_str().expect("an id").to_owned();
    assert_eq!(
        run(
            &system,
            &format!("approvals deny {approval} --reason later")
        ),
        [json!({ "done": "denied", "approval": approval })]
    );
    assert_eq!(ask.json()["reply"], "done");
    one(
        &run(&system, "approvals stats"),
        &["questions", "a_day", "answers", "rules"],
    );
    let grant = one(
        &run(&system, "grants list"),
        &["principal", "channel", "key", "expires"],
    );
    let number = grant["grant"].as_u64().expect("a number");
    // It is younger than a week.
    assert_eq!(run(&system, "grants advise"), [Value::Null; 0]);
    assert_eq!(
        run(&system, &format!("grants revoke {number}")),
        [json!({ "done": "revoked", "grant": number })]
    );
    assert_eq!(run(&system, "grants list"), [Value::Null; 0]);
    assert_eq!(run(&system, "policy test --against 1d"), [Value::Null; 0]);
    // What is refused is said in words on standard error, as ever, and by the exit code.
    let refused = system.bulkhead(&["grants", "revoke", &number.to_string(), "--json"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stdout.is_empty() && !refused.stderr.is_empty());
}

#[test]
fn every_command_about_people_keys_secrets_and_the_whole_has_a_json_form() {
    let model = ScriptedModel::start(Script::echo()).expect("a model");
    let system = System::start(model.port(), "");
    let url = |values: &[Value]| {
        one(values, &["url"])["url"]
            .as_str()
            .expect("a link")
            .to_owned()
    };
    assert!(url(&run(&system, "login")).contains("/login#"));
    assert!(url(&run(&system, "passkey add laptop")).contains("/passkey#"));
    assert_eq!(run(&system, "passkey list"), [Value::Null; 0]);
    assert_eq!(run(&system, "pair list"), [Value::Null; 0]);
    let channels = run(&system, "channel list");
    assert!(
        channels
            .iter()
            .any(|it| it["channel"] == "web" && it["connected"] == true)
    );

    let keep = ["vault", "add", "key", "--for", "model", "--json"];
    let kept = system.bulkhead_with(&keep, "the value");
    assert_eq!(
        values(&kept),
        [json!({ "done": "kept", "name": "key", "kind": "secret" })]
    );
    one(
        &run(&system, "vault list"),
        &["name", "subject", "created", "last_used"],
    );
    let rotated = system.bulkhead_with(&["vault", "rotate", "key", "--json"], "another");
    assert_eq!(
        values(&rotated),
        [json!({ "done": "rotated", "name": "key", "expired": false })]
    );
    assert_eq!(
        run(&system, "vault remove key"),
        [json!({ "done": "removed", "name": "key" })]
    );

    let add = ["channel", "add", "telegram", "--json"];
    let added = system.bulkhead_with(&add, "123:abc");
    let facts = json!({ "done": "added", "channel": "telegram", "restart": "needed" });
    assert_eq!(values(&added), [facts]);
    let facts = json!({ "done": "removed", "channel": "telegram", "restart": "needed" });
    assert_eq!(run(&system, "channel remove telegram"), [facts]);

    one(
        &run(&system, "status"),
        &["up", "pid", "programs", "channels", "record"],
    );
    let doctor = lines(&system.bulkhead(&["doctor", "--json"]));
    assert!(doctor[0][0].get("check").is_some(), "{doctor:?}");
    one(
        &run(&system, "audit verify"),
        &["ok", "rows", "head", "problems"],
    );
    one(&run(&system, "audit show 1"), &["row", "event"]);
    assert!(!run(&system, "audit log --last 3").is_empty());
    assert_eq!(run(&system, "undo --list"), [Value::Null; 0]);
    let explained = system.bulkhead_with(
        &["policy", "explain", "--json"],
        r#"{"tool": "list_files", "args": {"path": "."}}"#,
    );
    one(
        &values(&explained),
        &["id", "decision", "key", "rule", "reason", "effects"],
    );
}

#[test]
fn a_configuration_is_checked_in_json_whether_it_is_sound_or_not() {
    let model = ScriptedModel::start(Script::echo()).expect("a model");
    let system = System::prepare(model.port(), "");
    let check = || system.bulkhead(&["policy", "check", "--json"]);
    let sound = one(&values(&check()), &["file"]);
    assert_eq!(
        (&sound["ok"], &sound["problems"]),
        (&json!(true), &json!([]))
    );

    fs::write(
        system.home().join("bulkhead.toml"),
        "[model]\nnonsense = 1\n",
    )
    .expect("the file");
    let broken = check();
    assert_eq!(broken.status.code(), Some(1));
    let broken = one(&lines(&broken), &["file"]);
    assert_eq!(broken["ok"], false);
    let problem = broken["problems"][0].as_str().expect("a problem");
    assert!(problem.contains("nonsense"), "{problem}");
    // The same for people.
    let said = system.bulkhead(&["policy", "check"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stderr).contains("nonsense"));
}
