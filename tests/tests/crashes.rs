//! Programs that are killed, stopped or cannot write, in the middle of a turn.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::model::{Script, ScriptedModel, Step, Then};
use testkit::system::{Running, System, is_alive, processes_with, said, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

/// A model that takes these steps, and then repeats what the person wrote.
fn model(steps: impl IntoIterator<Item = Step>) -> ScriptedModel {
    let script = Script {
        then: Then::Echo,
        ..Script::steps(steps)
    };
    ScriptedModel::start(script).expect("a scripted model")
}

fn exec(command: &str) -> Step {
    Step::call("exec", json!({ "command": command }))
}

/// An answer that has begun and does not end by itself in the time of a test.
fn endless() -> Step {
    Step::Stall {
        tokens: vec!["hm ".to_owned()],
        ms: 60_000,
    }
}

fn kill(pid: u32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
}

/// Kills a program and waits until it is back, or another one in its place.
fn kill_and_await(system: &System, name: &str) {
    let pid = system.pid(name);
    kill(pid);
    wait_for(&format!("{name} is started again"), || {
        (system.pid(name) != pid).then_some(())
    });
}

/// The supervisor ends a moment after the last of its sockets.
fn wait_until_gone(all: &[u32]) {
    wait_for("all programs are gone", || {
        (!all.iter().any(|pid| is_alive(*pid))).then_some(())
    });
}

/// The session of the turn that runs.
fn session(system: &System) -> String {
    wait_for("a session", || {
        let status = system.json(&["status"]);
        Some(status["sessions"][0]["session"].as_str()?.to_owned())
    })
}

/// Asks something whose answer has begun and does not end.
fn ask_in_mid_stream(system: &System, model: &ScriptedModel) -> (Running, String) {
    let ask = system.spawn(&["ask", "first"]);
    wait_for("the first word", || (ask.out() == "hm ").then_some(()));
    assert_eq!(model.requests().len(), 1);
    let session = session(system);
    (ask, session)
}

/// The session goes on, and the model is still told what was said before.
fn goes_on(system: &System, model: &ScriptedModel, session: &str) {
    let answer = wait_for("the session answers", || {
        let answer = system.ask_in(session, "are you there?");
        (answer["reply"] != Value::Null).then_some(answer)
    });
    let reply = answer["reply"].as_str().expect("a reply");
    assert!(reply.ends_with("are you there?"), "{reply}");
    // What nobody answered may stand in one message with what came after it.
    let told = model.requests().last().expect("a request").messages();
    let first = |message: &String| message.starts_with("user: first");
    assert!(told.iter().any(first), "{told:?}");
    system.assert_record_is_sound();
}

/// The turns of the record that have this kind of end.
fn turns(system: &System, kind: &str) -> Vec<u64> {
    let rows = system.rows(kind);
    rows.iter()
        .filter_map(|row| row["event"]["turn"].as_u64())
        .collect()
}

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

#[test]
fn a_killed_ledger_comes_back_and_a_stream_goes_on_over_it() {
    let model = model([Step::slow_text(
        "a b c d e f g h i j k l m n o p q r s t",
        100,
    )]);
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "first"]);
    wait_for("the first word", || {
        ask.out().starts_with("a ").then_some(())
    });
    let session = session(&system);
    kill_and_await(&system, "bulkhead-ledger");
    let (code, out, err) = ask.finish();
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out, "a b c d e f g h i j k l m n o p q r s t\n");
    goes_on(&system, &model, &session);
}

#[test]
fn a_killed_web_channel_loses_no_answer_of_the_terminal() {
    let model = model([Step::slow_text("a b c d e f g h i j", 100)]);
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "first"]);
    wait_for("the first word", || {
        ask.out().starts_with("a ").then_some(())
    });
    let session = session(&system);
    kill_and_await(&system, "bulkhead-channel-web");
    assert_eq!(ask.finish().1, "a b c d e f g h i j\n");
    goes_on(&system, &model, &session);
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

/// A system with a call that has had its effect and does not end by itself; its session.
fn in_mid_call(model: &ScriptedModel) -> (System, Running, PathBuf) {
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "--json", "first"]);
    let card = system.wait_for_approval();
    assert!(system.approve(&card).status.success());
    let log = system.workspace().join("log");
    wait_for("the call has had its effect", || {
        (fs::read_to_string(&log).ok()? == "x\n").then_some(())
    });
    (system, ask, log)
}

/// A command that does something once and then runs on, and text that only its processes have.
fn lasting() -> (String, String) {
    // A number that no other process has in its command line.
    let sleep = format!(
        "sleep 60.{}{}",
        std::process::id(),
        testkit::system::free_port()
    );
    (format!("echo x >> log; {sleep}"), sleep)
}

fn outcomes(system: &System) -> Vec<Value> {
    let rows = system.rows("outcome");
    rows.iter()
        .map(|row| row["event"]["outcome"]["result"].clone())
        .collect()
}

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
    assert_eq!(fs::read_to_string(&log).expect("the log"), "x\n");
    assert_eq!(outcomes(&system), ["unknown"]);
    let session = answer["session"].as_str().expect("a session").to_owned();
    // And there is a box again.
    model.push(exec("ls"));
    model.push(Step::text("seen"));
    let next = system.ask_in(&session, "look");
    assert_eq!(next["calls"][0]["detail"], "log\n");
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
    assert_eq!(fs::read_to_string(&log).expect("the log"), "x\n");
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
    assert_eq!(fs::read_to_string(&log).expect("the log"), "x\n");
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
    assert_eq!(fs::read_to_string(&log).expect("the log"), "x\n");
    goes_on(&system, &model, &session);
    assert_eq!(fs::read_to_string(&log).expect("the log"), "x\n");
    assert_eq!(system.rows("permit").len(), 1);
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
    assert_eq!(fs::read_to_string(&log).expect("the log"), "x\n");
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

#[test]
fn while_the_ledger_stands_still_nothing_runs_and_the_person_is_told() {
    let model = model([Step::call(
        "write_file",
        json!({ "path": "made", "content": "x" }),
    )]);
    let system = System::start(model.port(), "");
    system.signal("bulkhead-ledger", "STOP");
    let (code, _, err) = system.spawn(&["ask", "first"]).finish();
    assert_eq!(code, Some(1));
    assert!(err.contains("the record cannot be written"), "{err}");
    assert!(model.requests().is_empty());
    assert!(!system.workspace().join("made").exists());
    // Long enough that links on which it was asked in vain have been given up.
    let log = system.home().join("log/bulkhead.log");
    wait_for("it was asked again and again", || {
        let log = fs::read_to_string(&log).ok()?;
        (log.matches("the record cannot be written").count() >= 3).then_some(())
    });
    system.signal("bulkhead-ledger", "CONT");
    wait_for("the record takes rows again", || {
        let answer = system.ask("second");
        (answer["reply"] == "You said: second").then_some(())
    });
    assert!(system.workspace().join("made").exists());
    system.assert_record_is_sound();
}

#[test]
fn a_ledger_that_stops_in_mid_turn_stops_the_call_too() {
    let model = model([exec("touch made"), Step::text("never mind")]);
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "first"]);
    let card = system.wait_for_approval();
    system.signal("bulkhead-ledger", "STOP");
    // The yes cannot be recorded, so it counts for nothing.
    system.approve(&card);
    let (code, _, err) = ask.finish();
    assert_eq!(code, Some(1));
    assert!(err.contains("Your message is kept"), "{err}");
    assert!(!system.workspace().join("made").exists());
    system.signal("bulkhead-ledger", "CONT");
    wait_for("the message is answered when the record is back", || {
        (!turns(&system, "reply").is_empty()).then_some(())
    });
    assert!(!system.workspace().join("made").exists());
    system.assert_record_is_sound();
}

/// A disk of its own for one folder; gone when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn over(folder: &Path, bytes: u64) -> Self {
        let options = format!("size={bytes},mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder)
            .output()
            .expect("mount runs");
        assert!(
            mounted.status.success(),
            "this test fills a disk of its own, which only root can mount: {}",
            said(&mounted)
        );
        Self(folder.to_owned())
    }

    /// Leaves no room for anything else.
    fn fill(&self) {
        let mut stuffing = fs::File::create(self.stuffing()).expect("a file");
        let full = io::copy(&mut io::repeat(0), &mut stuffing).expect_err("it has an end");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        fs::remove_file(self.stuffing()).expect("it is removed");
    }

    fn stuffing(&self) -> PathBuf {
        self.0.join("stuffing")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, as a failed test may leave programs that have it open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn with_the_disk_full_nothing_runs_and_the_message_is_answered_when_there_is_room() {
    let model = model([exec("touch made"), Step::text("made it")]);
    let system = System::prepare(model.port(), "");
    let ledger = system.home().join("ledger");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&ledger)
        .expect("a folder");
    let disk = SmallDisk::over(&ledger, 8 << 20);
    system.up();

    // A message that does not even come in is refused, and the model does not hear of it.
    disk.fill();
    let (code, _, err) = system.spawn(&["ask", "refused"]).finish();
    assert_eq!(code, Some(1));
    assert!(err.contains("the record cannot be written"), "{err}");
    assert!(model.requests().is_empty());
    let status = system.bulkhead(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(
        said(&status).contains("does not take rows"),
        "{}",
        said(&status)
    );
    disk.free();

    // One that came in before is kept, and what it wanted does not run.
    let ask = wait_for("the record takes rows again", || {
        let mut ask = system.spawn(&["ask", "kept"]);
        wait_for("a question or the end", || {
            (ask.is_over() || !system.approvals().is_empty()).then_some(())
        });
        (!ask.is_over()).then_some(ask)
    });
    let card = system.wait_for_approval();
    disk.fill();
    assert_eq!(system.approvals().len(), 1);
    system.approve(&card);
    let (code, _, err) = ask.finish();
    assert_eq!(code, Some(1));
    assert!(err.contains("Your message is kept"), "{err}");
    assert!(!system.workspace().join("made").exists());
    let asked = model.requests().len();
    assert_eq!(asked, 1);

    disk.free();
    wait_for("the message is answered", || {
        (!turns(&system, "reply").is_empty()).then_some(())
    });
    let reply = system.rows("reply").remove(0);
    assert_eq!(reply["event"]["text"], "made it");
    assert!(!system.workspace().join("made").exists());
    assert!(system.rows("permit").is_empty());
    system.assert_record_is_sound();
}

#[test]
fn one_altered_row_is_named() {
    let model = model([]);
    let system = System::start(model.port(), "");
    system.ask("an innocent question");
    system.ask("another one");
    assert!(system.bulkhead(&["down"]).status.success());
    let row = system.rows("reply").remove(0)["row"]
        .as_u64()
        .expect("a number");

    let mut bytes = fs::read(system.home().join("ledger/ledger.db")).expect("the record");
    let text = b"You said: an innocent";
    let at = bytes.windows(text.len()).position(|piece| piece == text);
    bytes[at.expect("the reply is in the file")] = b'y';
    let copy = system.home().join("copy.db");
    fs::write(&copy, bytes).expect("a copy");
    let verify =
        |db: &Path| system.json(&["audit", "verify", "--db", db.to_str().expect("a path")]);
    let found = verify(&copy);
    assert_eq!(found["ok"], false);
    let problems = found["problems"].as_array().expect("problems");
    assert!(!problems.is_empty());
    assert!(
        problems.iter().all(|problem| problem["row"] == row),
        "{found}"
    );
    assert_eq!(verify(&system.home().join("ledger/ledger.db"))["ok"], true);
    system.assert_record_is_sound();
}

#[test]
fn all_of_it_works_without_root() {
    let calls = ["touch made", "cat /proc/self/status; true"].map(exec);
    let model = model(calls.into_iter().chain([Step::text("done")]));
    // Whoever runs the tests without root is such a user already.
    let system = match rustix::process::geteuid().is_root() {
        true => System::prepare_as(4242, model.port(), ""),
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
