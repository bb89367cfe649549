//! Programs that are killed while the model writes or a person is asked.

use testkit::model::Step;
use testkit::system::{System, said, wait_for};

use crate::{
    PATIENCE, ask_in_mid_stream, endless, exec, goes_on, kill, kill_and_await, model, session,
    turns,
};

#[test]
fn a_killed_agent_is_replaced_and_its_message_answered_by_the_same_command() {
    let model = model([endless()]);
    let system = System::start(model.port(), "");
    let (ask, session) = ask_in_mid_stream(&system, &model);
    kill(system.pid("bulkhead-agent"));
    let (code, out, err) = ask.finish();
    assert_eq!(code, Some(0), "{err}");
    assert!(out.ends_with("You said: first\n"), "{out}");
    assert!(model.wait_for_disconnects(1, PATIENCE));
    assert_eq!(turns(&system, "turn_failed"), [1]);
    assert_eq!(turns(&system, "reply"), [2]);
    goes_on(&system, &model, &session);
}

#[test]
fn a_killed_gateway_takes_the_message_up_again_when_it_is_back() {
    let model = model([endless()]);
    let system = System::start(model.port(), "");
    let (ask, session) = ask_in_mid_stream(&system, &model);
    kill_and_await(&system, "bulkhead-gateway");
    let (code, _, err) = ask.finish();
    assert_eq!(code, Some(1));
    assert!(err.contains("the link to the gateway"), "{err}");
    wait_for("the message is answered", || {
        (turns(&system, "reply") == [2]).then_some(())
    });
    assert_eq!(turns(&system, "turn_failed"), [1]);
    goes_on(&system, &model, &session);
}

#[test]
fn a_killed_egress_fails_the_turn_and_the_next_one_works() {
    let model = model([endless()]);
    let system = System::start(model.port(), "");
    let (ask, session) = ask_in_mid_stream(&system, &model);
    kill_and_await(&system, "bulkhead-egress");
    let (code, _, err) = ask.finish();
    assert_eq!(code, Some(1));
    assert!(err.contains("The model does not answer"), "{err}");
    goes_on(&system, &model, &session);
}

/// An answer that is long enough to be shown while it is still written: its end is held back.
const COUNTED: &str = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen \
                       seventeen eighteen nineteen twenty";

/// Kills a program while the model is in the middle of its answer; the answer comes whole.
fn is_killed_in_mid_answer(program: &str) {
    let model = model([Step::slow_text(COUNTED, 100)]);
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "first"]);
    wait_for("the first word", || {
        ask.out().starts_with("one ").then_some(())
    });
    assert!(!ask.out().contains("twenty"), "it is killed too late");
    let session = session(&system);
    kill_and_await(&system, program);
    let (code, out, err) = ask.finish();
    assert_eq!((code, out), (Some(0), format!("{COUNTED}\n")), "{err}");
    goes_on(&system, &model, &session);
}

#[test]
fn a_killed_ledger_comes_back_and_a_stream_goes_on_over_it() {
    is_killed_in_mid_answer("bulkhead-ledger");
}

#[test]
fn a_killed_web_channel_loses_no_answer_of_the_terminal() {
    is_killed_in_mid_answer("bulkhead-channel-web");
}

#[test]
fn a_killed_vault_comes_back() {
    let model = model([]);
    let system = System::start(model.port(), "");
    kill_and_await(&system, "bulkhead-vault");
    assert_eq!(
        system.ask("still there?")["reply"],
        "You said: still there?"
    );
    system.assert_record_is_sound();
}

#[test]
fn a_question_whose_gateway_is_killed_is_asked_anew() {
    let model = model([exec("touch made"), exec("touch made")]);
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "first"]);
    let card = system.wait_for_approval();
    kill_and_await(&system, "bulkhead-gateway");
    drop(ask);
    let anew = system.wait_for_approval_other_than(&card);
    assert_eq!(system.approve(&card).status.code(), Some(1));
    assert!(!system.workspace().join("made").exists());
    assert!(system.approve(&anew).status.success());
    wait_for("the message is answered", || {
        (!turns(&system, "reply").is_empty()).then_some(())
    });
    assert!(system.workspace().join("made").exists());
    system.assert_record_is_sound();
}

#[test]
fn a_message_whose_agent_dies_again_and_again_is_given_up() {
    let model = model([endless(), endless(), endless()]);
    let system = System::start(model.port(), "");
    let (ask, session) = ask_in_mid_stream(&system, &model);
    for requests in 1..=3 {
        assert!(model.wait_for_requests(requests, PATIENCE));
        kill(system.pid("bulkhead-agent"));
        assert!(model.wait_for_disconnects(requests, PATIENCE));
    }
    let (code, _, err) = ask.finish();
    assert_eq!(code, Some(1));
    assert!(err.contains("I gave up"), "{err}");
    assert_eq!(turns(&system, "turn_failed"), [1, 2, 3]);
    goes_on(&system, &model, &session);
}

#[test]
fn a_program_that_keeps_dying_is_left_and_said_so() {
    let model = model([]);
    let system = System::start(model.port(), "");
    let state = |system: &System| {
        let status = system.json(&["status"]);
        let programs = status["programs"].as_array().expect("programs").clone();
        let sandbox = programs
            .into_iter()
            .find(|program| program["name"] == "bulkhead-sandbox");
        sandbox.expect("the sandbox")
    };
    let mut killed = 0;
    let failed = wait_for("it is given up", || {
        let now = state(&system);
        if let Some(pid) = now["state"]["pid"].as_u64() {
            kill(u32::try_from(pid).expect("a process id"));
            killed += 1;
            wait_for("its death is seen", || {
                (state(&system)["state"]["pid"] != pid).then_some(())
            });
        }
        (now["state"]["state"] == "failed").then_some(now)
    });
    assert_eq!(killed, 6, "{failed}");
    assert_eq!(failed["restarts"], 5);
    let status = system.bulkhead(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(said(&status).contains("kept doing so"), "{}", said(&status));
    // The others go on without it, and say what is missing.
    model.push(exec("ls"));
    let answer = system.ask("look");
    assert_eq!(answer["calls"][0]["state"], "refused");
    assert_eq!(answer["reply"], "You said: look");
    assert_eq!(state(&system), failed);
    system.assert_record_is_sound();
}
