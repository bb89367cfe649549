//! All programs together: started, stopped, bereft of their supervisor, without root.

use std::fs;
use std::process::Command;

use testkit::model::Step;
use testkit::system::{System, processes_with, said, wait_for};

use crate::{
    ask_in_mid_stream, assert_nothing_is_left, endless, exec, goes_on, in_mid_call, kill,
    kill_and_await, lasting, model, outcomes, turns, wait_until_gone,
};

#[test]
fn nothing_survives_the_supervisor() {
    let (command, sleep) = lasting();
    let model = model([exec(&command)]);
    let (system, ask, log) = in_mid_call(&model);
    let all = system.pids();
    assert!(all.len() > 6, "{all:?}");
    let supervisor = system.json(&["status"])["pid"]
        .as_u64()
        .expect("its number");
    kill(u32::try_from(supervisor).expect("a process id"));
    wait_until_gone(&all);
    wait_for("nothing of the call is alive", || {
        processes_with(&sleep).is_empty().then_some(())
    });
    assert_eq!(ask.finish().0, Some(1));
    // Everything can be started again, and takes up what was left.
    system.up();
    wait_for("the message is answered", || {
        (turns(&system, "reply") == [2]).then_some(())
    });
    assert_nothing_is_left(&system, &log);
    assert_eq!(outcomes(&system), ["unknown"]);
    system.assert_record_is_sound();
}

#[test]
fn down_in_mid_call_leaves_nothing_alive() {
    let (command, sleep) = lasting();
    let model = model([exec(&command)]);
    let (system, ask, _) = in_mid_call(&model);
    let all = system.pids();
    let down = system.bulkhead(&["down"]);
    assert!(down.status.success(), "{}", said(&down));
    wait_until_gone(&all);
    assert!(processes_with(&sleep).is_empty());
    assert!(processes_with(&system.home().display().to_string()).is_empty());
    assert_eq!(ask.finish().0, Some(1));
    system.assert_record_is_sound();
    let down = system.bulkhead(&["down"]);
    assert!(down.status.success() && said(&down).contains("not running"));
}

#[test]
fn it_can_be_started_stopped_and_started_again_at_once() {
    let model = model([]);
    let system = System::start(model.port(), "");
    let session = system.ask("first")["session"].clone();
    let session = session.as_str().expect("a session").to_owned();
    let again = system.bulkhead(&["up", "--detach"]);
    assert!(again.status.success() && said(&again).contains("runs already"));
    for _ in 0..3 {
        assert!(system.bulkhead(&["down"]).status.success());
        let up = system.bulkhead(&["up", "--detach"]);
        assert!(up.status.success(), "{}", said(&up));
        assert!(said(&up).contains("Bulkhead is ready."), "{}", said(&up));
    }
    goes_on(&system, &model, &session);
}

#[test]
fn ctrl_c_in_the_foreground_stops_everything() {
    let model = model([endless()]);
    let system = System::prepare(model.port(), "");
    let up = system.spawn(&["up"]);
    wait_for("it is ready", || {
        up.out().contains("Bulkhead is ready.").then_some(())
    });
    let (ask, _) = ask_in_mid_stream(&system, &model);
    let all = system.pids();
    assert!(all.len() > 6, "{all:?}");
    let interrupt = Command::new("kill")
        .args(["-INT", &up.pid().to_string()])
        .status();
    assert!(interrupt.expect("kill runs").success());
    assert_eq!(up.finish().0, Some(0));
    wait_until_gone(&all);
    assert_eq!(ask.finish().0, Some(1));
    system.assert_record_is_sound();
}

#[test]
fn all_of_it_works_without_root() {
    let calls = ["touch made", "cat /proc/self/status; true"].map(exec);
    let model = model(calls.into_iter().chain([Step::text("done")]));
    // Whoever runs the tests without root is such a user already.
    let system = match rustix::process::geteuid().is_root() {
        true => System::prepare_as(4247, model.port(), ""),
        false => System::prepare(model.port(), ""),
    };
    system.up();
    let ask = system.spawn(&["ask", "--json", "first"]);
    let card = system.wait_for_approval();
    for pid in system.pids() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let uids = uids.expect("user ids");
        assert!(uids.split_whitespace().all(|uid| uid != "0"), "{uids}");
    }
    assert!(system.approve(&card).status.success());
    let next = system.wait_for_approval_other_than(&card);
    assert!(system.approve(&next).status.success());
    let answer = ask.json();
    assert_eq!(answer["reply"], "done", "{answer}");
    let detail = answer["calls"][1]["detail"].as_str().expect("an output");
    let uid = detail.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uids: Vec<&str> = uid.expect("user ids").split_whitespace().collect();
    assert_eq!(uids, ["1000"; 4], "{detail}");
    assert!(system.workspace().join("made").exists());
    let session = answer["session"].as_str().expect("a session").to_owned();
    kill_and_await(&system, "bulkhead-sandbox");
    goes_on(&system, &model, &session);
    let all = system.pids();
    assert!(system.bulkhead(&["down"]).status.success());
    wait_until_gone(&all);
}
