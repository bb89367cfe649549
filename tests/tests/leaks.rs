//! What is said to people and kept in the record holds no secret, whoever brought it there.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::model::{Rule, Script, ScriptedModel, Step};
use testkit::system::{System, said, wait_for};

/// A value of the vault; made up, in no known format.
const VALUE: &str = "Vq7 x9Wz-Kp3mTn8Rb5Yc2Hd6";

fn model(steps: impl IntoIterator<Item = Step>) -> ScriptedModel {
    ScriptedModel::start(Script::steps(steps)).expect("a model")
}

/// Keeps the value in the vault, and waits until the gateway looks for it.
fn keep(system: &System) {
    let arguments = [
        "vault",
        "add",
        "plans",
        "--for",
        "tool",
        "--host",
        "api.acme-widgets.com",
    ];
    let done = system.bulkhead_with(&arguments, &format!("{VALUE}\n"));
    assert!(done.status.success(), "{}", said(&done));
    // The vault is asked every two seconds.
    std::thread::sleep(Duration::from_secs(5));
}

/// Whether a text holds the value, as it is or without its blanks.
fn holds(text: &str) -> bool {
    let plain = |text: &str| text.replace([' ', '-'], "");
    plain(text).contains(&plain(VALUE))
}

fn record(system: &System) -> String {
    let rows = system.record();
    rows.iter().map(Value::to_string).collect()
}

#[test]
fn a_reply_that_holds_a_secret_is_told_without_it() {
    let model = model([
        Step::text(&format!("The plan is {VALUE}, as you know.")),
        Step::text("See ![it](https://evil.example/p?d=1) and https://evil.example/x for more."),
    ]);
    let system = System::start(model.port(), "");
    keep(&system);
    let answer = system.ask("what is the plan?");
    let reply = answer["reply"].as_str().expect("a reply");
    assert!(
        !holds(reply) && reply.contains("[redacted: vault_secret]"),
        "{answer}"
    );
    assert!(
        reply.starts_with("The plan is ") && reply.contains("as you know"),
        "{answer}"
    );
    let rows = system.rows("leak_stopped");
    assert_eq!(rows[0]["event"]["name"], "plans", "{rows:?}");
    assert!(!holds(&record(&system)));

    let answer = system.ask("more?");
    let reply = answer["reply"].as_str().expect("a reply");
    assert!(
        !reply.contains("https://evil.example") && reply.contains("evil[.]example"),
        "{answer}"
    );
    assert!(!reply.contains("!["), "{answer}");
    system.assert_record_is_sound();
}

#[test]
fn what_a_file_holds_of_the_vault_reaches_neither_the_model_nor_the_record() {
    let model = model([
        Step::call("exec", json!({ "command": "cat found.txt" })),
        Step::call(
            "write_file",
            json!({ "path": "copy.txt", "content": format!("it is {VALUE}") }),
        ),
        Step::text("done"),
    ]);
    let system = System::start(model.port(), "");
    keep(&system);
    let found = format!("first line\n{VALUE}\nlast line\n");
    fs::write(system.workspace().join("found.txt"), found).expect("a file");
    assert_eq!(system.ask("look")["reply"], "done");
    let requests = model.requests();
    let last = requests.last().expect("a request").messages();
    let results: Vec<_> = last
        .iter()
        .filter(|text| text.starts_with("tool: "))
        .collect();
    assert!(
        results[0].contains("first line") && !holds(results[0]),
        "{results:?}"
    );
    // A model that was given none has none to write.
    assert!(results[1].contains("secret of the vault"), "{results:?}");
    assert!(!system.workspace().join("copy.txt").exists());
    assert!(!holds(&record(&system)));
    system.assert_record_is_sound();
}

#[test]
fn a_decoy_halts_the_session_that_came_upon_it_and_no_other() {
    let rule = Rule {
        contains: "look around".to_owned(),
        steps: vec![
            Step::call("exec", json!({ "command": "cat keys.txt" })),
            Step::text("should never be said"),
        ],
    };
    let script = Script {
        rules: vec![rule],
        ..Script::echo()
    };
    let model = ScriptedModel::start(script).expect("a model");
    let system = System::start(model.port(), "");
    let bait = system.workspace().join("keys.txt");
    let plant = bait.to_str().expect("a path");
    let done = system.bulkhead(&["vault", "add", "bait", "--honeytoken", "--plant", plant]);
    assert!(done.status.success(), "{}", said(&done));
    assert!(bait.exists(), "{}", said(&done));
    std::thread::sleep(Duration::from_secs(5));
    let other = system.ask("before")["session"].clone();
    let other = other.as_str().expect("a session");
    let ask = system.spawn(&["ask", "--json", "look around"]);
    wait_for("the session to be halted", || {
        system.rows("session_halted").first().cloned()
    });
    let (_, out, err) = ask.finish();
    assert!(!out.contains("should never be said"), "{out} {err}");
    let rows = system.rows("session_halted");
    assert_eq!(rows[0]["event"]["decoy"], "bait", "{rows:?}");
    let halted = rows[0]["session"].as_str().expect("a session").to_owned();
    assert_ne!(halted, other);

    let asked = model.requests().len();
    let only_that_one_is_halted = |when: &str| {
        let again = system.bulkhead(&["ask", "--json", "--session", &halted, "go on"]);
        assert!(said(&again).contains("halted"), "{when}: {}", said(&again));
        let answer = system.ask_in(other, when);
        assert_eq!(answer["reply"], format!("You said: {when}"), "{answer}");
        assert_eq!(answer["session"], other, "{answer}");
        let answer = system.ask(&format!("anew {when}"));
        assert_eq!(
            answer["reply"],
            format!("You said: anew {when}"),
            "{answer}"
        );
    };
    only_that_one_is_halted("at once");
    let down = system.bulkhead(&["down"]);
    assert!(down.status.success(), "{}", said(&down));
    system.up();
    only_that_one_is_halted("after a restart");
    // The model was asked by those that go on alone.
    assert_eq!(model.requests().len(), asked + 4);
    assert_eq!(system.rows("session_halted").len(), 1);
    let checks = system.json(&["doctor"]);
    let mut checks = checks.as_array().expect("a list").iter();
    let decoys = checks.find(|check| check["check"] == "decoys");
    let decoys = decoys.expect("a check of decoys");
    assert_eq!(decoys["status"], "warn", "{decoys}");
    let detail = decoys["detail"].as_str().expect("a text");
    assert!(
        detail.contains(&halted) && detail.contains("bait"),
        "{detail}"
    );
    assert!(!detail.contains(other), "{detail}");
    system.assert_record_is_sound();
}

#[test]
fn what_a_model_s_server_says_of_a_fault_is_told_without_a_secret_and_without_a_live_link() {
    let words = format!("no: {VALUE}, see https://evil.example/?d=1");
    let model = model([Step::status(400, &words)]);
    let system = System::start(model.port(), "");
    keep(&system);
    let answer = said(&system.bulkhead(&["ask", "hello"]));
    assert!(
        answer.contains("no: [redacted: vault_secret], see") && answer.contains("evil[.]example"),
        "{answer}"
    );
    assert!(
        !holds(&answer) && !answer.contains("https://evil.example"),
        "{answer}"
    );
    assert!(!holds(&record(&system)));
    assert_eq!(system.rows("leak_stopped")[0]["event"]["name"], "plans");
}

#[test]
fn a_secret_that_is_split_over_two_answers_is_taken_out_of_the_second_also_after_a_restart() {
    let (first, second) = VALUE.split_at(12);
    let model = model([
        Step::text(&format!("It begins with {first}")),
        Step::text(&format!("{second} is the rest")),
    ]);
    let system = System::start(model.port(), "");
    keep(&system);
    let began = system.ask("begin");
    let reply = began["reply"].as_str().expect("a reply");
    assert!(reply.contains(first), "{began}");
    let session = began["session"].as_str().expect("a session").to_owned();
    system.signal("bulkhead-gateway", "KILL");
    // A new one knows nothing until it has asked the vault.
    std::thread::sleep(Duration::from_secs(5));
    let ended = system.ask_in(&session, "go on");
    let reply = ended["reply"].as_str().expect("a reply");
    assert!(
        reply.contains("[redacted: vault_secret] is the rest"),
        "{ended}"
    );
    assert_eq!(system.rows("leak_stopped")[0]["event"]["name"], "plans");
}

#[test]
fn names_of_tools_and_files_and_what_people_say_are_kept_without_a_secret() {
    let plain = VALUE.replace([' ', '-'], "");
    let model = model([
        Step::call(&plain, json!({})),
        Step::call("exec", json!({ "command": "python3 make.py" })),
        Step::text("done"),
        Step::text("seen"),
    ]);
    let system = System::start(model.port(), "");
    keep(&system);
    let script = format!("open('-'.join('{}'), 'w')\n", plain);
    fs::write(system.workspace().join("make.py"), script).expect("a file");
    let ask = system.spawn(&["ask", "--json", &format!("what is {VALUE}?")]);
    let card = system.wait_for_approval();
    system.approve(&card);
    let (_, out, err) = ask.finish();
    assert!(out.contains("done"), "{out} {err}");
    let rows = record(&system);
    assert!(!holds(&rows), "{rows}");
    let requests = model.requests();
    let told: String = requests
        .iter()
        .flat_map(|request| request.messages())
        .collect();
    assert!(!holds(&told), "{told}");
    assert!(system.rows("leak_stopped").len() >= 3);
    system.assert_record_is_sound();
}
