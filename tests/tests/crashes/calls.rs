//! Calls that run while something is killed or stands still: none runs twice.

use testkit::model::Step;
use testkit::system::{System, processes_with, wait_for};

use crate::{
    assert_nothing_is_left, exec, goes_on, in_mid_call, kill, kill_and_await, lasting, model,
    outcomes, session, turns,
};

#[test]
fn a_call_whose_sandbox_is_killed_has_an_unknown_outcome_and_is_not_run_again() {
    let (command, sleep) = lasting();
    let model = model([exec(&command)]);
    let (system, ask, log) = in_mid_call(&model);
    kill_and_await(&system, "bulkhead-sandbox");
    let answer = ask.json();
    assert_eq!(answer["reply"], "You said: first");
    assert_eq!(answer["calls"][0]["state"], "unknown");
    wait_for("nothing of the call is alive", || {
        processes_with(&sleep).is_empty().then_some(())
    });
    let told = model.requests().last().expect("a request").messages();
    assert!(
        told.iter()
            .any(|message| message.contains("outcome not known")),
        "{told:?}"
    );
    assert_nothing_is_left(&system, &log);
    assert_eq!(outcomes(&system), ["unknown"]);
    let session = answer["session"].as_str().expect("a session").to_owned();
    // And there is a box again.
    model.push(exec("ls"));
    model.push(Step::text("seen"));
    let next = system.ask_in(&session, "look");
    assert_eq!(next["calls"][0]["detail"], "(no output)");
    system.assert_record_is_sound();
    assert_eq!(unknown_count(&system), 1);
}

/// How many calls of unknown outcome verification speaks of.
fn unknown_count(system: &System) -> u32 {
    let output = system.bulkhead(&["audit", "verify"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("unknown outcome"));
    line.and_then(|line| line.split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_call_whose_gateway_is_killed_has_an_unknown_outcome_and_is_not_run_again() {
    let (command, sleep) = lasting();
    let model = model([exec(&command)]);
    let (system, ask, log) = in_mid_call(&model);
    kill_and_await(&system, "bulkhead-gateway");
    assert_eq!(ask.finish().0, Some(1));
    wait_for("the message is answered", || {
        (turns(&system, "reply") == [2]).then_some(())
    });
    wait_for("nothing of the call is alive", || {
        processes_with(&sleep).is_empty().then_some(())
    });
    let told = model.requests().last().expect("a request").messages();
    assert!(
        told.iter()
            .any(|message| message.contains("outcome not known")),
        "{told:?}"
    );
    assert_nothing_is_left(&system, &log);
    assert_eq!(outcomes(&system), ["unknown"]);
    system.assert_record_is_sound();
}

#[test]
fn a_call_whose_agent_is_killed_is_killed_and_has_one_outcome() {
    let (command, sleep) = lasting();
    let model = model([exec(&command)]);
    let (system, ask, log) = in_mid_call(&model);
    kill(system.pid("bulkhead-agent"));
    let answer = ask.json();
    assert_eq!(answer["reply"], "You said: first");
    assert!(processes_with(&sleep).is_empty());
    assert_nothing_is_left(&system, &log);
    assert_eq!(outcomes(&system), ["ran"]);
    system.assert_record_is_sound();
}

#[test]
fn a_call_whose_ledger_is_killed_is_not_run_again() {
    let (command, _) = lasting();
    let model = model([exec(&format!("{command}0"))]);
    let (system, ask, log) = in_mid_call(&model);
    kill_and_await(&system, "bulkhead-ledger");
    let session = session(&system);
    let stop = system.spawn(&["ask", "--session", &session, "/stop"]);
    assert!(stop.finish().2.contains("being stopped"));
    ask.finish();
    assert_nothing_is_left(&system, &log);
    goes_on(&system, &model, &session);
    assert_nothing_is_left(&system, &log);
    assert_eq!(system.rows("permit").len(), 1);
}

#[test]
fn a_sandbox_that_stands_still_does_not_hold_up_a_turn_that_is_stopped() {
    let (command, sleep) = lasting();
    let model = model([exec(&command)]);
    let (system, ask, log) = in_mid_call(&model);
    let session = session(&system);
    system.signal("bulkhead-sandbox", "STOP");
    let stop = system.spawn(&["ask", "--session", &session, "/stop"]);
    assert!(stop.finish().2.contains("being stopped"));
    let answer = ask.json();
    assert_eq!(answer["error"], "Stopped.");
    assert_eq!(answer["calls"][0]["state"], "unknown");
    // What it has to say of the call now comes too late to be a second outcome.
    system.signal("bulkhead-sandbox", "CONT");
    wait_for("nothing of the call is alive", || {
        processes_with(&sleep).is_empty().then_some(())
    });
    goes_on(&system, &model, &session);
    assert_eq!(outcomes(&system), ["unknown"]);
    assert_nothing_is_left(&system, &log);
}

#[test]
fn a_gateway_that_dies_while_a_call_is_being_stopped_leaves_no_call_open() {
    let (command, _) = lasting();
    let model = model([exec(&command)]);
    let (system, ask, _) = in_mid_call(&model);
    let session = session(&system);
    system.signal("bulkhead-sandbox", "STOP");
    let stop = system.spawn(&["ask", "--session", &session, "/stop"]);
    assert!(stop.finish().2.contains("being stopped"));
    kill_and_await(&system, "bulkhead-gateway");
    system.signal("bulkhead-sandbox", "CONT");
    ask.finish();
    wait_for("the turn is closed", || {
        (!turns(&system, "turn_failed").is_empty()).then_some(())
    });
    goes_on(&system, &model, &session);
    assert_eq!(outcomes(&system), ["unknown"]);
}
