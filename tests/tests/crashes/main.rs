//! Programs that are killed, stopped or cannot write, in the middle of a turn.

mod calls;
mod conversations;
mod record;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::model::{Script, ScriptedModel, Step, Then};
use testkit::system::{Running, System, is_alive, wait_for};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The end of what is said is held back while it could be the beginning of a secret.
const THINKING: &str = "hm, let me think about this for a while, since there is a lot to look at before \
    anything can be said about it at all, and ";

/// A model that takes these steps, and then repeats what the person wrote.
pub(crate) fn model(steps: impl IntoIterator<Item = Step>) -> ScriptedModel {
    let script = Script {
        then: Then::Echo,
        ..Script::steps(steps)
    };
    ScriptedModel::start(script).expect("a scripted model")
}

pub(crate) fn exec(command: &str) -> Step {
    Step::call("exec", json!({ "command": command }))
}

/// An answer that has begun and does not end by itself in the time of a test.
pub(crate) fn endless() -> Step {
    Step::Stall {
        tokens: vec![THINKING.to_owned()],
        ms: 60_000,
    }
}

pub(crate) fn kill(pid: u32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
}

/// Kills a program and waits until it is back, or another one in its place.
pub(crate) fn kill_and_await(system: &System, name: &str) {
    let pid = system.pid(name);
    kill(pid);
    wait_for(&format!("{name} is started again"), || {
        (system.pid(name) != pid).then_some(())
    });
}

/// The supervisor ends a moment after the last of its sockets.
pub(crate) fn wait_until_gone(all: &[u32]) {
    wait_for("all programs are gone", || {
        (!all.iter().any(|pid| is_alive(*pid))).then_some(())
    });
}

/// The session of the turn that runs.
pub(crate) fn session(system: &System) -> String {
    wait_for("a session", || {
        let status = system.json(&["status"]);
        Some(status["sessions"][0]["session"].as_str()?.to_owned())
    })
}

/// Asks something whose answer has begun and does not end.
pub(crate) fn ask_in_mid_stream(system: &System, model: &ScriptedModel) -> (Running, String) {
    let ask = system.spawn(&["ask", "first"]);
    wait_for("the first word", || {
        ask.out().starts_with("hm, ").then_some(())
    });
    assert_eq!(model.requests().len(), 1);
    let session = session(system);
    (ask, session)
}

/// The session goes on, and the model is still told what was said before.
pub(crate) fn goes_on(system: &System, model: &ScriptedModel, session: &str) {
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
pub(crate) fn turns(system: &System, kind: &str) -> Vec<u64> {
    let rows = system.rows(kind);
    rows.iter()
        .filter_map(|row| row["event"]["turn"].as_u64())
        .collect()
}

/// A system with a call that has written something and does not end by itself, and where in the
/// workspace that would be: it is only in the call's layer.
pub(crate) fn in_mid_call(model: &ScriptedModel) -> (System, Running, PathBuf) {
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "--json", "first"]);
    let card = system.wait_for_approval();
    assert!(system.approve(&card).status.success());
    wait_for("the call has written something", || {
        written(&system).is_some().then_some(())
    });
    let log = system.workspace().join("log");
    assert!(!log.exists());
    (system, ask, log)
}

/// What calls that run have written to `log`, in whichever layer.
pub(crate) fn written(system: &System) -> Option<PathBuf> {
    let layers = fs::read_dir(system.home().join("history/layers")).ok()?;
    let logs = layers.flatten().map(|layer| layer.path().join("upper/log"));
    logs.into_iter()
        .find(|log| fs::read_to_string(log).is_ok_and(|text| text == "x\n"))
}

/// What was cut off in the middle left nothing in the workspace, and nothing beside it.
pub(crate) fn assert_nothing_is_left(system: &System, log: &Path) {
    assert!(!log.exists(), "half of a call was kept");
    wait_for("its layer is gone", || {
        written(system).is_none().then_some(())
    });
}

/// A command that does something once and then runs on, and text that only its processes have.
pub(crate) fn lasting() -> (String, String) {
    // A number that no other process has in its command line.
    let sleep = format!(
        "sleep 60.{}{}",
        std::process::id(),
        testkit::system::free_port()
    );
    (format!("echo x >> log; {sleep}"), sleep)
}

pub(crate) fn outcomes(system: &System) -> Vec<Value> {
    let rows = system.rows("outcome");
    rows.iter()
        .map(|row| row["event"]["outcome"]["result"].clone())
        .collect()
}
