//! Conversations in the terminal, through all programs: streamed, continued, stopped, bounded.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use testkit::model::{Script, ScriptedModel, Speaks, Step, Then};
use testkit::system::{Running, System, processes_with, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

/// The end of what is said is held back while it could be the beginning of a secret.
const THINKING: &str = "hm, let me think about this for a while, since there is a lot to look at before \
    anything can be said about it at all, and ";

fn model(script: Script) -> ScriptedModel {
    ScriptedModel::start(script).expect("a scripted model")
}

/// Sends Ctrl-C to a command.
fn interrupt(command: &Running) {
    let status = Command::new("kill")
        .args(["-INT", &command.pid().to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

/// What the model was told last.
fn last_result(model: &ScriptedModel) -> String {
    let requests = model.requests();
    requests
        .last()
        .expect("a request")
        .messages()
        .last()
        .expect("a message")
        .clone()
}

#[test]
fn an_answer_streams_in_order_while_the_model_still_writes() {
    let text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen";
    let model = model(Script::steps([
        Step::Text {
            tokens: vec![text[..8].to_owned()],
            delay_ms: 0,
            thinking: Vec::new(),
            finish: "stop".to_owned(),
        },
        Step::Stall {
            tokens: text
                .split_inclusive(' ')
                .take(13)
                .map(str::to_owned)
                .collect(),
            ms: 60_000,
        },
    ]));
    let system = System::start(model.port(), "");
    assert_eq!(system.ask("first")["reply"], "one two ");
    let mut ask = system.spawn(&["ask", "second"]);
    // The model is far from done, and yet what it wrote is there.
    wait_for("the first words", || {
        ask.out().starts_with("one two three ").then_some(())
    });
    assert!(!ask.is_over());
    interrupt(&ask);
    let (code, ..) = ask.finish();
    assert_eq!(code, Some(1));
    system.assert_record_is_sound();
}

#[test]
fn a_conversation_goes_on_in_its_session_and_begins_anew_without() {
    let model = model(Script::echo());
    let system = System::start(model.port(), "");
    let first = system.ask("my name is Ada");
    let session = first["session"].as_str().expect("a session").to_owned();
    let second = system.ask_in(&session, "what is my name?");
    assert_eq!(second["session"], first["session"]);
    assert_eq!(second["turn"], 2);
    let told = model.requests().last().expect("a request").messages();
    let said: Vec<&str> = told.iter().map(String::as_str).skip(1).collect();
    assert_eq!(
        said,
        [
            "user: my name is Ada",
            "assistant: You said: my name is Ada",
            "user: what is my name?"
        ]
    );
    let other = system.ask("and now?");
    assert_ne!(other["session"], first["session"]);
    assert!(!last_request_mentions(&model, "Ada"));
    system.assert_record_is_sound();
}

fn last_request_mentions(model: &ScriptedModel, word: &str) -> bool {
    let requests = model.requests();
    let last = requests.last().expect("a request");
    last.messages().iter().any(|message| message.contains(word))
}

#[test]
fn ctrl_c_stops_the_model_s_stream() {
    let model = model(Script {
        then: Then::Echo,
        ..Script::steps([Step::Stall {
            tokens: vec![THINKING.to_owned()],
            ms: 60_000,
        }])
    });
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "think long"]);
    wait_for("the first word", || {
        ask.out().starts_with("hm, ").then_some(())
    });
    interrupt(&ask);
    let (code, _, err) = ask.finish();
    assert_eq!(code, Some(1));
    assert!(err.contains("Stopped."), "{err}");
    assert!(model.wait_for_disconnects(1, PATIENCE));
    assert_eq!(system.ask("next")["reply"], "You said: next");
    system.assert_record_is_sound();
}

#[test]
fn stop_in_another_terminal_ends_the_turn_and_both_commands() {
    let model = model(Script::steps([Step::Stall {
        tokens: vec![THINKING.to_owned()],
        ms: 60_000,
    }]));
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "think long"]);
    wait_for("the first word", || {
        ask.out().starts_with("hm, ").then_some(())
    });
    let session = wait_for("the session", || {
        let sessions = system.json(&["status"])["sessions"].clone();
        Some(sessions[0]["session"].as_str()?.to_owned())
    });
    let stop = system.spawn(&["ask", "--session", &session, "/stop"]);
    let (code, _, err) = stop.finish();
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("being stopped"), "{err}");
    let (code, _, err) = ask.finish();
    assert_eq!(code, Some(1));
    assert!(err.contains("Stopped."), "{err}");
    assert!(model.wait_for_disconnects(1, PATIENCE));
    let again = system.spawn(&["ask", "--session", &session, "/stop"]);
    assert!(again.finish().2.contains("Nothing is going on."));
    system.assert_record_is_sound();
}

#[test]
fn ctrl_c_kills_a_running_tool_and_all_that_it_started() {
    // A number that no other process has in its command line.
    let seconds = format!("60.{}", std::process::id());
    let command = format!("sleep {seconds} & sleep {seconds}");
    let model = model(Script {
        then: Then::Echo,
        ..Script::steps([Step::call("exec", json!({ "command": command }))])
    });
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "sleep"]);
    let card = system.wait_for_approval();
    assert!(system.approve(&card).status.success());
    let sleeping = format!("sleep {seconds}");
    wait_for("both sleeps run", || {
        let shells = processes_with(&command);
        let sleeps = processes_with(&sleeping);
        (sleeps.iter().filter(|pid| !shells.contains(pid)).count() == 2).then_some(())
    });
    interrupt(&ask);
    assert_eq!(ask.finish().0, Some(1));
    wait_for("nothing of it is alive", || {
        processes_with(&sleeping).is_empty().then_some(())
    });
    let kinds: Vec<String> = system
        .record()
        .iter()
        .map(|row| row["event"]["kind"].as_str().unwrap_or_default().to_owned())
        .collect();
    let at = |kind: &str| kinds.iter().position(|other| other == kind);
    assert!(
        at("outcome").expect("an outcome") < at("turn_failed").expect("an end"),
        "{kinds:?}"
    );
    let outcome = system.rows("outcome").remove(0);
    assert_eq!(
        outcome["event"]["outcome"]["run"]["end"]["end"], "killed",
        "{outcome}"
    );
    assert_eq!(system.ask("next")["reply"], "You said: next");
    system.assert_record_is_sound();
}

#[test]
fn a_turn_has_a_bounded_number_of_rounds() {
    let model = model(Script::endless("list_files", json!({})));
    let system = System::start(model.port(), "[agent]\nmax_rounds = 3\n");
    let (code, _, err) = system.spawn(&["ask", "look around"]).finish();
    assert_eq!(code, Some(1));
    assert!(err.contains("3 times without coming to an answer"), "{err}");
    assert_eq!(model.requests().len(), 3);
    system.assert_record_is_sound();
}

#[test]
fn wrong_arguments_and_unknown_tools_are_errors_that_the_model_sees() {
    let model = model(Script::steps([
        Step::call("read_file", json!({ "path": 7 })),
        Step::call("exec", json!({ "command": ["ls"] })),
        Step::call("exec", json!("not { json")),
        Step::call("launch_rocket", json!({ "to": "moon" })),
        Step::text("I give up."),
    ]));
    let system = System::start(model.port(), "");
    let answer = system.ask("try");
    assert_eq!(answer["reply"], "I give up.");
    let states: Vec<_> = answer["calls"]
        .as_array()
        .expect("calls")
        .iter()
        .map(|call| call["state"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(states, ["refused"; 4]);
    let requests = model.requests();
    let results: Vec<String> = requests[1..]
        .iter()
        .map(|request| request.messages().pop().expect("a result"))
        .collect();
    assert!(
        results[0].contains("the arguments of read_file are wrong"),
        "{results:?}"
    );
    assert!(
        results[1].contains("the arguments of exec are wrong"),
        "{results:?}"
    );
    assert!(
        results[2].contains("the arguments of exec are wrong"),
        "{results:?}"
    );
    assert!(
        results[3].contains("there is no tool \"launch_rocket\""),
        "{results:?}"
    );
    assert!(system.rows("permit").is_empty());
    system.assert_record_is_sound();
}

/// A conversation with a tool call, with this script's manners and this change to the configuration.
fn talks(script: Script, change: impl Fn(&str) -> String) {
    let model = model(script);
    let system = System::prepare(model.port(), "");
    system.configure(change);
    system.up();
    std::fs::create_dir_all(system.workspace()).expect("the workspace");
    std::fs::write(system.workspace().join("note.txt"), "the cat is out\n").expect("a file");
    let answer = system.ask("what is in the note?");
    assert_eq!(answer["reply"], "The cat is out.");
    assert_eq!(answer["calls"][0]["state"], "done");
    assert!(
        last_result(&model).contains("the cat is out"),
        "{}",
        last_result(&model)
    );
    system.assert_record_is_sound();
}

fn reads_the_note() -> Script {
    Script::steps([
        Step::call("read_file", json!({ "path": "note.txt" })),
        Step::text("The cat is out."),
    ])
}

#[test]
fn ollama_s_own_api_is_spoken() {
    talks(
        Script {
            speaks: Speaks::Ollama,
            ..reads_the_note()
        },
        |config| config.replace("\"openai\"", "\"ollama\""),
    );
}

#[test]
fn the_openai_compatible_api_is_spoken() {
    talks(
        Script {
            speaks: Speaks::Openai,
            ..reads_the_note()
        },
        str::to_owned,
    );
}

#[test]
fn a_server_without_tool_calls_is_asked_for_json_by_a_schema() {
    let schema = |config: &str| {
        config.replace(
            "name = \"scripted\"\n",
            "name = \"scripted\"\ntool_calls = \"schema\"\n",
        )
    };
    talks(reads_the_note(), schema);
    talks(
        Script {
            speaks: Speaks::Ollama,
            ..reads_the_note()
        },
        |config| schema(config).replace("\"openai\"", "\"ollama\""),
    );
}
