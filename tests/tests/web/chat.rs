//! A conversation over HTTP: what streams, what is asked, and what survives.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::model::{Script, ScriptedModel, Step};
use testkit::system::{System, said, wait_for};

use crate::{Browser, deleting, next, question, with_files};

#[test]
fn an_answer_comes_word_by_word_while_the_model_still_writes() {
    // The end of what is said is held back while it could be the beginning of a secret.
    let counted =
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen";
    let slow = Step::slow_text(counted, 150);
    let model = ScriptedModel::start(Script::steps([slow])).expect("a scripted model");
    let system = System::start(model.port(), "");
    let browser = Browser::log_in(&system);
    let mut events = browser.events();
    assert_eq!(
        events.next(),
        Some(json!({ "type": "link", "state": "up" }))
    );
    browser.says("m-1", "count");
    assert_eq!(next(&mut events, "said")["text"], "count");
    let mut pieces = Vec::new();
    let reply = loop {
        let event = events.next().expect("the stream goes on");
        match event["type"].as_str() {
            Some("token") => pieces.push((
                event["text"].as_str().expect("a text").to_owned(),
                Instant::now(),
            )),
            Some("reply") => break event,
            _ => {}
        }
    };
    assert_eq!(reply["text"], counted);
    let all: String = pieces.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(all, counted);
    // Fourteen words, 150 ms apart: the first was there long before the last.
    let (first, last) = (pieces[0].1, pieces[pieces.len() - 1].1);
    assert!(
        last.duration_since(first) > Duration::from_millis(400),
        "{pieces:?}"
    );
    system.assert_record_is_sound();
}

#[test]
fn a_call_is_shown_from_its_start_to_its_end_and_stands_in_the_transcript() {
    let script = Script::steps([
        Step::call("write_file", json!({ "path": "a.txt", "content": "hello" })),
        Step::call("read_file", json!({ "path": "missing.txt" })),
        Step::call("no_such_tool", json!({})),
        Step::text("Written."),
    ]);
    let model = ScriptedModel::start(script).expect("a scripted model");
    let system = System::start(model.port(), "");
    let browser = Browser::log_in(&system);
    let mut events = browser.events();
    browser.says("m-1", "write it");
    let mut states = Vec::new();
    for event in events.by_ref() {
        match event["type"].as_str() {
            Some("call") => states.push(format!(
                "{} {}",
                event["card"]["call"], event["card"]["state"]
            )),
            Some("reply") => break,
            _ => {}
        }
    }
    let expected = [
        "1 \"running\"",
        "1 \"done\"",
        "2 \"running\"",
        "2 \"failed\"",
        "3 \"refused\"",
    ];
    assert_eq!(states, expected);
    assert_eq!(
        std::fs::read_to_string(system.workspace().join("a.txt")).expect("the file"),
        "hello"
    );
    let transcript = browser.transcript();
    let kinds: Vec<_> = transcript
        .iter()
        .map(|entry| entry["entry"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(kinds, ["user", "call", "call", "call", "assistant"]);
    let last: Vec<_> = transcript
        .iter()
        .filter_map(|entry| entry["card"]["state"].as_str())
        .collect();
    assert_eq!(last, ["done", "failed", "refused"]);
}

#[test]
fn a_call_runs_after_a_yes_and_not_after_a_no() {
    let model = deleting(&["one", "two"]);
    let system = with_files(&model, &["one", "two"]);
    let browser = Browser::log_in(&system);
    let mut events = browser.events();
    let passkey = browser.enrols(&system);

    browser.says("m-1", "delete one");
    let card = question(&mut events);
    assert!(
        card["action"]
            .as_str()
            .expect("an action")
            .contains("rm one"),
        "{card}"
    );
    assert!(system.workspace().join("one").exists());
    browser.signs(&card, &passkey);
    assert_eq!(next(&mut events, "approval_closed")["answer"], "approve");
    assert_eq!(next(&mut events, "reply")["text"], "That was one.");
    assert!(!system.workspace().join("one").exists());

    browser.says("m-2", "delete two");
    let card = question(&mut events);
    browser.answers(&card, "deny");
    assert_eq!(next(&mut events, "approval_closed")["answer"], "deny");
    assert_eq!(next(&mut events, "reply")["text"], "That was two.");
    assert!(system.workspace().join("two").exists());

    let answers = system.rows("approval_answered");
    let said: Vec<_> = answers
        .iter()
        .map(|row| (&row["event"]["answer"], &row["event"]["channel"]))
        .collect();
    assert_eq!(
        said,
        [
            (&json!("approve"), &json!("web")),
            (&json!("deny"), &json!("web"))
        ]
    );
    assert_eq!(system.rows("permit").len(), 1);
    system.assert_record_is_sound();
}

#[test]
fn an_answer_with_one_byte_changed_or_given_again_does_not_count() {
    let model = deleting(&["one"]);
    let system = with_files(&model, &["one"]);
    let browser = Browser::log_in(&system);
    let mut events = browser.events();
    let passkey = browser.enrols(&system);
    browser.says("m-1", "delete one");
    let card = question(&mut events);
    for field in ["approval", "digest", "nonce"] {
        let mut changed = card.clone();
        let text = changed[field].as_str().expect("hexadecimal digits");
        let last = if text.ends_with('0') { "1" } else { "0" };
        changed[field] = json!(format!("{}{last}", &text[..text.len() - 1]));
        browser.signs(&changed, &passkey);
        let refused = next(&mut events, "answer_refused");
        assert_eq!(refused["approval"], changed["approval"], "{field}");
    }
    assert_eq!(system.rows("approval_answered").len(), 0);
    assert!(system.workspace().join("one").exists());

    browser.signs(&card, &passkey);
    next(&mut events, "reply");
    browser.signs(&card, &passkey);
    assert_eq!(
        next(&mut events, "answer_refused")["approval"],
        card["approval"]
    );
    assert_eq!(system.rows("approval_answered").len(), 1);
    assert_eq!(system.rows("permit").len(), 1);
}

#[test]
fn of_two_answers_at_once_exactly_one_counts_and_both_sides_hear_which() {
    const NAMES: [&str; 4] = ["one", "two", "three", "four"];
    let model = deleting(&NAMES);
    let system = with_files(&model, &NAMES);
    let browser = Browser::log_in(&system);
    let mut events = browser.events();
    let passkey = browser.enrols(&system);
    for (round, name) in NAMES.into_iter().enumerate() {
        browser.says(&format!("m-{round}"), &format!("delete {name}"));
        let card = question(&mut events);
        let approval = card["approval"].as_str().expect("an id").to_owned();
        let denied = thread::scope(|scope| {
            let denied = scope.spawn(|| system.bulkhead(&["approvals", "deny", &approval]));
            // The command takes a while to start; who comes first differs from round to round.
            thread::sleep(Duration::from_millis(8 * round as u64));
            browser.signs(&card, &passkey);
            denied.join().expect("the other answer")
        });
        let closed = next(&mut events, "approval_closed");
        assert_eq!(closed["approval"], card["approval"]);
        if denied.status.success() {
            assert_eq!(closed["answer"], "deny", "{}", said(&denied));
            // The page hears that its own answer came too late, if it was not first.
            assert_eq!(
                next(&mut events, "answer_refused")["approval"],
                card["approval"]
            );
        } else {
            assert_eq!(closed["answer"], "approve", "{}", said(&denied));
            assert!(
                said(&denied).contains("answered") || said(&denied).contains("closed"),
                "{}",
                said(&denied)
            );
        }
        wait_for("the turn is over", || {
            (system.rows("reply").len() == round + 1).then_some(())
        });
        let approved = closed["answer"] == "approve";
        assert_eq!(system.workspace().join(name).exists(), !approved);
        let answers = system.rows("approval_answered");
        assert_eq!(answers.len(), round + 1);
        assert_eq!(answers[round]["event"]["answer"], closed["answer"]);
    }
    system.assert_record_is_sound();
}

#[test]
fn two_browsers_see_the_same_and_either_can_answer() {
    let model = deleting(&["one"]);
    let system = with_files(&model, &["one"]);
    let (first, second) = (Browser::log_in(&system), Browser::log_in(&system));
    assert_ne!(first.cookie, second.cookie);
    let (mut at_first, mut at_second) = (first.events(), second.events());
    first.says("m-1", "delete one");
    assert_eq!(next(&mut at_second, "said")["text"], "delete one");
    let card = question(&mut at_second);
    assert_eq!(question(&mut at_first), card);
    // Whose browser it is says nothing; the passkey is the owner's.
    second.signs(&card, &first.enrols(&system));
    for events in [&mut at_first, &mut at_second] {
        assert_eq!(next(events, "approval_closed")["answer"], "approve");
        assert_eq!(next(events, "reply")["text"], "That was one.");
    }
    assert_eq!(first.transcript(), second.transcript());
}

#[test]
fn a_question_is_still_there_for_a_page_that_is_opened_later() {
    let model = deleting(&["one"]);
    let system = with_files(&model, &["one"]);
    let browser = Browser::log_in(&system);
    let mut events = browser.events();
    browser.says("m-1", "delete one");
    let card = question(&mut events);
    drop(events);
    let mut events = browser.events();
    browser.transcript();
    assert_eq!(question(&mut events), card);
    browser.answers(&card, "deny");
    assert_eq!(next(&mut events, "approval_closed")["answer"], "deny");
}

#[test]
fn stopping_ends_the_turn_and_the_model_s_stream() {
    let slow = Step::slow_text(&"word ".repeat(200), 100);
    let model = ScriptedModel::start(Script::steps([slow])).expect("a scripted model");
    let system = System::start(model.port(), "");
    let browser = Browser::log_in(&system);
    let mut events = browser.events();
    browser.says("m-1", "go on for ever");
    next(&mut events, "token");
    assert_eq!(browser.post("/stop", &json!({})).send().status, 202);
    assert!(!next(&mut events, "notice")["ends_turn"].is_null());
    assert!(model.wait_for_disconnects(1, Duration::from_secs(10)));
    assert_eq!(
        browser.get("/transcript").send().json()["running"],
        Value::Null
    );
}

#[test]
fn the_answer_is_there_although_the_page_s_server_was_killed_in_the_middle_of_it() {
    let said = "it is here all the same, whatever became of the page while it was being said, word by word";
    let slow = Step::slow_text(said, 150);
    let model = ScriptedModel::start(Script::steps([slow])).expect("a scripted model");
    let system = System::start(model.port(), "");
    let browser = Browser::log_in(&system);
    let mut events = browser.events();
    browser.says("m-1", "are you there?");
    next(&mut events, "token");
    system.signal("bulkhead-channel-web", "KILL");
    // Nothing more comes but what was on its way.
    assert!(events.all(|event| event["type"] == "token"));
    wait_for("the page is served again", || {
        std::net::TcpStream::connect(("127.0.0.1", system.web_port())).ok()
    });
    browser.wait_for_answer(said);
    assert_eq!(model.requests().len(), 1);
    let kinds: Vec<_> = browser
        .transcript()
        .iter()
        .map(|entry| entry["entry"].clone())
        .collect();
    assert_eq!(kinds, ["user", "assistant"]);
}

#[test]
fn a_message_sent_while_the_gateway_is_dead_is_answered_once_it_is_back() {
    let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
    let system = System::start(model.port(), "");
    let browser = Browser::log_in(&system);
    browser.says("m-1", "first");
    browser.wait_for_answer("You said: first");
    system.signal("bulkhead-gateway", "KILL");
    wait_for("the message is taken", || {
        let answer = browser
            .post("/message", &json!({ "id": "m-2", "text": "second" }))
            .send();
        assert!([202, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 202).then_some(())
    });
    browser.wait_for_answer("You said: second");
    // The same message once more is the same message.
    browser.says("m-2", "second");
    browser.says("m-3", "third");
    browser.wait_for_answer("You said: third");
    assert_eq!(system.rows("inbound").len(), 3);
    assert_eq!(system.rows("reply").len(), 3);
    system.assert_record_is_sound();
}
