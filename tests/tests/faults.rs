//! What a model's server does wrong, and what that looks like to a person.

use serde_json::{Value, json};
use testkit::model::{Script, ScriptedModel, Step, Then};
use testkit::system::{System, free_port};

/// The first step is the fault; after it the model is well again.
fn faulty(step: Step) -> ScriptedModel {
    let script = Script {
        then: Then::Echo,
        ..Script::steps([step])
    };
    ScriptedModel::start(script).expect("a scripted model")
}

/// Asks once, expects to be told of the fault in these words, and asks again.
fn is_told(step: Step, words: &str) {
    let model = faulty(step);
    let system = System::prepare(model.port(), "");
    system.configure(impatient);
    system.up();
    check(&system, words);
}

fn check(system: &System, words: &str) {
    let before = system.pids();
    let (code, out, err) = system.spawn(&["ask", "first"]).finish();
    assert_eq!(code, Some(1), "{out}\n{err}");
    assert!(err.contains(words), "{err}");
    assert!(!err.contains("panicked"), "{err}");
    assert_eq!(system.ask("again")["reply"], "You said: again");
    assert!(
        before.iter().all(|pid| system.pids().contains(pid)),
        "nothing died"
    );
    let failed = system.rows("turn_failed");
    assert_eq!(failed.len(), 1, "{failed:?}");
    system.assert_record_is_sound();
}

/// The shortest patience with a silent model, in seconds.
fn impatient(config: &str) -> String {
    config.replace(
        "name = \"scripted\"\n",
        "name = \"scripted\"\nidle_seconds = 1\n",
    )
}

fn pieces() -> Vec<String> {
    vec!["Once ".to_owned(), "upon ".to_owned()]
}

#[test]
fn a_model_that_is_down_is_said_so_and_is_used_again_when_it_is_up() {
    let port = free_port();
    let system = System::start(port, "");
    let (code, _, err) = system.spawn(&["ask", "first"]).finish();
    assert_eq!(code, Some(1));
    assert!(
        err.contains("The model does not answer. Is its server running?"),
        "{err}"
    );
    let model = ScriptedModel::start_on(port, Script::echo()).expect("the port is still free");
    assert_eq!(system.ask("again")["reply"], "You said: again");
    assert_eq!(model.requests().len(), 1);
    system.assert_record_is_sound();
}

#[test]
fn a_model_that_falls_silent_is_given_up() {
    is_told(
        Step::Stall {
            tokens: pieces(),
            ms: 60_000,
        },
        "took too long",
    );
}

#[test]
fn a_model_that_does_not_begin_is_given_up() {
    is_told(
        Step::Late {
            ms: 60_000,
            text: "late".to_owned(),
        },
        "took too long",
    );
}

#[test]
fn an_answer_that_is_cut_off_is_no_answer() {
    is_told(Step::CutOff { tokens: pieces() }, "broke off in the middle");
    is_told(
        Step::EndEarly { tokens: pieces() },
        "broke off in the middle",
    );
}

#[test]
fn a_server_that_hangs_up_is_said_so() {
    is_told(Step::HangUp, "broke off");
}

#[test]
fn a_busy_model_says_when_to_come_back() {
    is_told(Step::busy(7), "try again in 7 seconds");
}

#[test]
fn an_error_of_the_server_is_told_in_its_words() {
    is_told(
        Step::status(500, "out of memory"),
        "HTTP 500): out of memory",
    );
    is_told(
        Step::status(404, "no such model"),
        "HTTP 404): no such model",
    );
}

#[test]
fn an_error_within_the_stream_is_no_answer() {
    is_told(
        Step::ErrorInStream {
            tokens: pieces(),
            message: "the runner crashed".to_owned(),
        },
        "the runner crashed",
    );
}

#[test]
fn what_is_no_json_is_no_answer() {
    is_told(
        Step::BrokenJson { tokens: pieces() },
        "cannot be understood",
    );
    is_told(
        Step::Raw {
            body: "<html>hello</html>".to_owned(),
        },
        "model",
    );
}

#[test]
fn faults_of_ollama_s_own_api_are_told_likewise() {
    let faults = [
        (Step::CutOff { tokens: pieces() }, "broke off"),
        (
            Step::BrokenJson { tokens: pieces() },
            "cannot be understood",
        ),
        (
            Step::ErrorInStream {
                tokens: pieces(),
                message: "the runner crashed".to_owned(),
            },
            "the runner crashed",
        ),
        (Step::status(500, "out of memory"), "out of memory"),
        (Step::busy(7), "try again in 7 seconds"),
    ];
    for (step, words) in faults {
        let model = faulty(step);
        let system = System::prepare(model.port(), "");
        system.configure(|config| config.replace("\"openai\"", "\"ollama\""));
        system.up();
        check(&system, words);
    }
}

#[test]
fn a_fault_after_a_call_keeps_what_the_call_did() {
    let model = ScriptedModel::start(Script {
        then: Then::Echo,
        ..Script::steps([
            Step::call("write_file", json!({ "path": "a.txt", "content": "kept" })),
            Step::CutOff { tokens: pieces() },
        ])
    })
    .expect("a scripted model");
    let system = System::start(model.port(), "");
    let answer = system.ask("write");
    assert_eq!(answer["reply"], Value::Null);
    assert_eq!(answer["calls"][0]["state"], "done");
    let session = answer["session"].as_str().expect("a session").to_owned();
    assert_eq!(system.ask_in(&session, "well?")["reply"], "You said: well?");
    let told = model.requests().last().expect("a request").messages();
    assert!(
        told.iter().any(|message| message.starts_with("tool: ")),
        "{told:?}"
    );
    let text = std::fs::read_to_string(system.workspace().join("a.txt"));
    assert_eq!(text.expect("the file"), "kept");
    system.assert_record_is_sound();
}

#[test]
fn a_model_on_another_machine_is_refused_before_anything_starts() {
    let system = System::prepare(1, "");
    for (url, words) in [
        ("http://192.0.2.1:11434", "192.0.2.1 is not this machine"),
        ("http://0.0.0.0:11434", "0.0.0.0 is not this machine"),
        ("https://models.example.com", "is not this machine"),
    ] {
        system.configure(|config| config.replace("http://127.0.0.1:1\"", &format!("{url}\"")));
        for command in [&["policy", "check"][..], &["up", "--detach"]] {
            let (code, out, err) = system.spawn(command).finish();
            assert_eq!(code, Some(1), "{out}\n{err}");
            assert!(format!("{out}{err}").contains(words), "{out}\n{err}");
        }
    }
    assert_eq!(system.json(&["status"])["up"], false);
}
