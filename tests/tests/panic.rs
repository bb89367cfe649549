//! Freezing everything, and ending that: with running tools, with programs that hang, over restarts.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use config::{FreezeMark, Home, OPERATOR, ensure_key};
use protocol::channel::ChannelRequest;
use protocol::frame::Link;
use protocol::ids::{ChannelId, ConversationId, MessageId, Nonce, SenderId, Signature};
use protocol::supervisor::{SupervisorReply, SupervisorRequest};
use protocol::time::Millis;
use serde_json::{Value, json};
use testkit::model::{Rule, Script, ScriptedModel, Step};
use testkit::operator::{operator_key, terminal};
use testkit::system::{Running, System, free_port, is_alive, processes_with, said, wait_for};
use testkit::telegram::{Chat, TelegramServer};

/// The programs that a freeze kills, beside agents.
const MORTAL: [&str; 3] = ["bulkhead-vault", "bulkhead-egress", "bulkhead-sandbox"];

/// How many sessions run when it has to be quick.
const SESSIONS: usize = 50;

/// A model that runs this command for "go", and otherwise repeats what it is told.
fn running(command: &str) -> ScriptedModel {
    let rule = Rule {
        contains: "go".to_owned(),
        steps: vec![
            Step::call("exec", json!({ "command": command })),
            Step::text("It is over."),
        ],
    };
    ScriptedModel::start(Script {
        rules: vec![rule],
        ..Script::echo()
    })
    .expect("a scripted model")
}

/// A command that runs for so many seconds, and text that only its processes have.
fn sleeping(seconds: u32) -> String {
    format!("sleep {seconds}.{}{}", std::process::id(), free_port())
}

/// Has the agent begin a command that is asked about, and waits until it runs.
fn begin(system: &System, sleep: &str) -> Running {
    let ask = system.spawn(&["ask", "--json", "go"]);
    let card = system.wait_for_approval();
    let yes = system.approve(&card);
    assert!(yes.status.success(), "{}", said(&yes));
    wait_until_runs(sleep, 1);
    ask
}

fn wait_until_runs(sleep: &str, count: usize) {
    wait_for(&format!("{count} commands run"), || {
        (sleepers(sleep).len() == count).then_some(())
    });
}

/// The processes of commands themselves, without what made their boxes.
fn sleepers(sleep: &str) -> Vec<u32> {
    let is_itself = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"sleep\0")
    };
    processes_with(sleep)
        .into_iter()
        .filter(is_itself)
        .collect()
}

/// A box ends a moment after the program that made it, by the kernel. `bulkhead panic` itself may
/// wait two seconds for the record.
fn wait_until_dead(sleep: &str, began: Instant) {
    wait_until_runs(sleep, 0);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

fn panic(system: &System, reason: &str) -> Value {
    let output = system.bulkhead(&["panic", "--reason", reason, "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

fn resume(system: &System) {
    let output = system.bulkhead(&["resume"]);
    assert!(output.status.success(), "{}", said(&output));
}

/// What the supervisor says of the freeze.
fn freeze(system: &System) -> Value {
    system.json(&["status"])["frozen"].clone()
}

fn wait_until_frozen(system: &System) -> Value {
    wait_for("everything is frozen", || {
        Some(freeze(system)).filter(|freeze| !freeze.is_null())
    })
}

fn state_of(system: &System, name: &str) -> Value {
    let status = system.json(&["status"]);
    let programs = status["programs"].as_array().expect("programs");
    let program = programs.iter().find(|program| program["name"] == name);
    program.expect("a program")["state"]["state"].clone()
}

/// That nothing works, and that whoever asks hears why.
fn assert_nothing_works(system: &System, model: &ScriptedModel) {
    for name in MORTAL {
        assert_eq!(state_of(system, name), "frozen", "{name}");
    }
    let requests = model.requests().len();
    for command in [&["ask", "are you there?"][..], &["vault", "list"]] {
        let refused = system.bulkhead(command);
        assert!(!refused.status.success(), "{}", said(&refused));
        assert!(
            said(&refused).contains("bulkhead resume"),
            "{}",
            said(&refused)
        );
    }
    assert_eq!(model.requests().len(), requests);
}

fn assert_works(system: &System) {
    let answer = system.ask("are you there?");
    let reply = answer["reply"].as_str().unwrap_or_default();
    assert!(reply.ends_with("are you there?"), "{answer}");
    assert_eq!(freeze(system), Value::Null);
}

#[test]
fn a_panic_kills_a_running_tool_before_it_does_anything_more() {
    let sleep = sleeping(4);
    let model = running(&format!("{sleep}; touch canary"));
    let system = System::start(model.port(), "");
    let ask = begin(&system, &sleep);
    let agents: Vec<u32> = system.pids();
    let requests = model.requests().len();

    let began = Instant::now();
    let done = panic(&system, "odd replies");
    wait_until_dead(&sleep, began);
    assert_eq!(
        (&done["done"], &done["left"]),
        (&json!("frozen"), &json!(0))
    );
    assert_eq!(
        (&done["mark"], &done["recorded"]),
        (&json!("synced"), &json!("yes"))
    );
    assert!(done["took_ms"].as_u64().expect("a time") < 1000, "{done}");
    let alive = agents.iter().filter(|pid| is_alive(**pid)).count();
    // An agent, the vault, egress and what makes boxes.
    assert_eq!(
        (done["killed"].clone(), agents.len() - alive),
        (json!(4), 4)
    );

    // The person is told, and the command never comes to its second part.
    let (code, out, _) = ask.finish();
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("everything was frozen"), "{out}");
    assert_nothing_works(&system, &model);
    thread::sleep(Duration::from_secs(6).saturating_sub(began.elapsed()));
    assert!(!system.workspace().join("canary").exists());

    let frozen = freeze(&system);
    assert_eq!(frozen["frozen"]["reason"], "odd replies");
    assert_eq!(frozen["frozen"]["by"]["by"], "terminal");
    let shown = said(&system.bulkhead(&["status"]));
    assert!(
        shown.contains("FROZEN since") && shown.contains("odd replies"),
        "{shown}"
    );
    let doctor = system.bulkhead(&["doctor"]);
    assert!(!doctor.status.success() && said(&doctor).contains("frozen since"));

    // A second one is harmless, and the first one counts.
    let again = panic(&system, "again");
    assert_eq!(
        (
            &again["frozen"]["reason"],
            &again["thrown"],
            &done["thrown"]
        ),
        (&json!("odd replies"), &json!("before"), &json!("now"))
    );
    let again = said(&system.bulkhead(&["panic", "--reason", "again"]));
    assert!(
        again.contains("frozen already, since") && again.contains("odd replies"),
        "{again}"
    );
    let rows = system.rows("panicked");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["event"]["reason"], "odd replies");
    assert_eq!(
        system.rows("outcome")[0]["event"]["outcome"]["result"],
        "unknown"
    );
    let failed = system.rows("turn_failed");
    let last = failed.last().expect("a turn that ended");
    assert_eq!(last["event"]["fault"]["end"], "frozen");

    resume(&system);
    let resumed = &system.rows("resumed")[0]["event"];
    let public = fs::read_to_string(system.home().join("keys/operator.pub")).expect("a key");
    assert_eq!(resumed["key"], public.trim());
    assert_eq!(resumed["since"], rows[0]["event"]["since"]);
    assert_works(&system);
    // What was frozen is not run again: the model was asked about the new message only.
    assert_eq!(model.requests().len(), requests + 1);
    assert!(!system.workspace().join("canary").exists());
    assert_eq!(panic(&system, "another")["frozen"]["reason"], "another");
    resume(&system);
    // A whole turn, with a tool that is asked about and runs.
    let mut ask = system.spawn(&["ask", "--json", "go"]);
    wait_for("the turn is over", || {
        // It may be remembered that this may run.
        if let Some(card) = system.approvals().first() {
            assert!(system.approve(card).status.success());
        }
        ask.is_over().then_some(())
    });
    let answer = ask.json();
    assert_eq!(answer["calls"][0]["state"], "done", "{answer}");
    assert_eq!(answer["reply"], "It is over.");
    assert!(
        system.workspace().join("canary").exists(),
        "or the canary tells nothing"
    );
    assert_eq!(system.rows("panicked").len(), 2);
    system.assert_record_is_sound();
}

#[test]
fn a_question_that_waits_is_withdrawn_and_no_answer_to_it_counts() {
    let model = running("touch made");
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "--json", "go"]);
    let card = system.wait_for_approval();
    panic(&system, "");
    assert!(system.approvals().is_empty());
    assert!(!system.approve(&card).status.success());
    assert_eq!(ask.finish().0, Some(1));
    resume(&system);
    assert!(!system.approve(&card).status.success());
    assert!(system.approvals().is_empty() && !system.workspace().join("made").exists());
    let answered = system.rows("approval_answered");
    assert_eq!(answered.len(), 1);
    assert_eq!(answered[0]["event"]["answer"], "cancelled");
    system.assert_record_is_sound();
}

#[test]
fn a_gateway_that_hangs_holds_no_panic_up() {
    let sleep = sleeping(60);
    let model = running(&format!("{sleep}; touch canary"));
    let system = System::start(model.port(), "");
    let ask = begin(&system, &sleep);
    system.signal("bulkhead-gateway", "STOP");
    let began = Instant::now();
    let done = panic(&system, "it hangs");
    wait_until_dead(&sleep, began);
    assert!(done["took_ms"].as_u64().expect("a time") < 1000, "{done}");
    assert_eq!(
        (&done["mark"], &done["recorded"]),
        (&json!("synced"), &json!("not_yet"))
    );
    // Its end would not come into the record.
    let refused = system.bulkhead(&["resume"]);
    assert!(!refused.status.success(), "{}", said(&refused));
    assert!(
        said(&refused).contains("stays frozen"),
        "{}",
        said(&refused)
    );
    signal_all(&system, "bulkhead-gateway", "CONT");
    wait_for("the row is written", || {
        (freeze(&system)["recorded"] == "yes").then_some(())
    });
    assert_eq!(ask.finish().0, Some(1));
    resume(&system);
    assert_works(&system);
    assert_eq!(system.rows("panicked").len(), 1);
    system.assert_record_is_sound();
}

/// [`System::signal`] waits until the program runs, as the gateway tells; this does not ask it.
fn signal_all(system: &System, name: &str, signal: &str) {
    for pid in processes_with(&system.home().display().to_string()) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(name) {
            let status = Command::new("kill")
                .args([&format!("-{signal}"), &pid.to_string()])
                .status();
            assert!(status.expect("kill runs").success());
        }
    }
}

#[test]
fn a_ledger_that_stands_still_holds_no_panic_up_and_the_row_comes_later() {
    let sleep = sleeping(60);
    let model = running(&format!("{sleep}; touch canary"));
    let system = System::start(model.port(), "");
    let ask = begin(&system, &sleep);
    system.signal("bulkhead-ledger", "STOP");
    let began = Instant::now();
    let output = system.bulkhead(&["panic"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("record takes no rows"),
        "{}",
        said(&output)
    );
    wait_until_dead(&sleep, began);
    assert_eq!(ask.finish().0, Some(1));
    let refused = system.bulkhead(&["resume"]);
    assert!(!refused.status.success(), "{}", said(&refused));
    signal_all(&system, "bulkhead-ledger", "CONT");
    wait_for("the row is written", || {
        (freeze(&system)["recorded"] == "yes").then_some(())
    });
    assert_eq!(system.rows("panicked").len(), 1);
    resume(&system);
    assert_works(&system);
    system.assert_record_is_sound();
}

#[test]
fn a_freeze_survives_every_restart_and_starts_with_one() {
    let model = running("ls");
    let system = System::start(model.port(), "");
    panic(&system, "over night");
    let first = freeze(&system)["frozen"].clone();
    for how in ["down", "kill"] {
        match how {
            "down" => assert!(system.bulkhead(&["down"]).status.success()),
            _ => {
                let pids = system.pids();
                let supervisor = pids[0].to_string();
                let status = Command::new("kill").args(["-9", &supervisor]).status();
                assert!(status.expect("kill runs").success());
                wait_for("all programs are gone", || {
                    (!pids.iter().any(|pid| is_alive(*pid))).then_some(())
                });
            }
        }
        let refused = system.bulkhead(&["resume"]);
        assert!(said(&refused).contains("bulkhead up"), "{}", said(&refused));
        let status = system.bulkhead(&["status"]);
        assert_eq!(status.status.code(), Some(1));
        let told = said(&status);
        assert!(
            told.contains("FROZEN since") && told.contains("over night"),
            "{told}"
        );
        let status = system.bulkhead(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).expect("one line of JSON");
        assert_eq!(
            (&status["up"], &status["frozen"]["frozen"]),
            (&json!(false), &first)
        );
        let up = system.bulkhead(&["up", "--detach"]);
        assert!(
            up.status.success() && said(&up).contains("FROZEN since"),
            "{}",
            said(&up)
        );
        // It came back when the freeze can end: its row is found, over a link to the ledger.
        assert_eq!(freeze(&system)["recorded"], "yes");
        assert_eq!(freeze(&system)["frozen"], first);
        assert_nothing_works(&system, &model);
    }
    resume(&system);
    assert_works(&system);
    assert_eq!(system.rows("panicked").len(), 1);

    // While nothing runs, it is the next start that is frozen.
    assert!(system.bulkhead(&["down"]).status.success());
    assert_eq!(panic(&system, "in the dark")["up"], false);
    system.up();
    assert_nothing_works(&system, &model);
    resume(&system);
    assert_eq!(system.rows("panicked").len(), 2);
    assert_works(&system);
    system.assert_record_is_sound();
}

/// The supervisor's socket, without what `bulkhead` checks itself.
fn supervisor(system: &System) -> Link<SupervisorRequest, SupervisorReply> {
    let home = Home::at(system.home()).expect("a home");
    let link = Link::new(home.connect("supervisor.sock").expect("it listens"));
    link.set_timeout(Some(Duration::from_secs(20)))
        .expect("a limit");
    link
}

fn ask(
    link: &Link<SupervisorRequest, SupervisorReply>,
    request: SupervisorRequest,
) -> SupervisorReply {
    link.send(&request).expect("it is sent");
    link.receive().expect("an answer")
}

fn challenge(link: &Link<SupervisorRequest, SupervisorReply>) -> (Nonce, Millis) {
    match ask(link, SupervisorRequest::AskResume) {
        SupervisorReply::Challenge { nonce, since } => (nonce, since),
        other => panic!("{other:?}"),
    }
}

fn refused(reply: &SupervisorReply) -> bool {
    matches!(reply, SupervisorReply::Refused { .. })
}

#[test]
fn nothing_but_the_operator_key_ends_a_freeze_and_its_signature_counts_once() {
    let model = running("ls");
    let system = System::start(model.port(), "");
    let key = operator_key(&system);
    assert!(refused(&ask(
        &supervisor(&system),
        SupervisorRequest::AskResume
    )));
    panic(&system, "");
    let link = supervisor(&system);
    let signature = Signature([7; 64]);
    let resume = |signature| SupervisorRequest::Resume { signature };
    assert!(refused(&ask(&link, resume(signature))), "no challenge");
    // A wrong signature uses its challenge up.
    let (nonce, since) = challenge(&link);
    assert!(refused(&ask(&link, resume(signature))));
    assert!(refused(&ask(&link, resume(key.resume(nonce, since)))));
    // Nor is it good on another connection.
    let (nonce, since) = challenge(&link);
    let other = supervisor(&system);
    assert!(refused(&ask(&other, resume(key.resume(nonce, since)))));

    // Whoever has the files of a new pair has not the key that was there at the start.
    let home = Home::at(system.home()).expect("a home");
    let (file, kept) = (
        system.home().join("keys/operator.key"),
        system.home().join("kept"),
    );
    fs::rename(&file, &kept).expect("the key is moved");
    ensure_key(&home, &ChannelId::parse(OPERATOR).expect("a name")).expect("a new key");
    let wrong = system.bulkhead(&["resume"]);
    assert!(!wrong.status.success(), "{}", said(&wrong));
    fs::rename(&kept, &file).expect("the key is moved back");
    assert!(system.rows("resumed").is_empty());
    assert_nothing_works(&system, &model);

    let link = supervisor(&system);
    let (nonce, since) = challenge(&link);
    let signature = key.resume(nonce, since);
    assert_eq!(ask(&link, resume(signature)), SupervisorReply::Resumed);
    panic(&system, "");
    assert!(
        refused(&ask(&supervisor(&system), resume(signature))),
        "a replay"
    );
    assert_eq!(system.rows("resumed").len(), 1);
}

#[test]
fn the_word_of_the_owner_freezes_and_that_of_a_guest_or_a_stranger_does_not() {
    const TOKEN: &str = "4242:correct-horse_battery-staple";
    const WORD: &str = "red herring";
    let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
    let server = TelegramServer::start(TOKEN).expect("a Telegram server");
    let extra = format!(
        "[channel.telegram]\napi = \"http://{}\"\n[panic]\nword = \"{WORD}\"\n\
         [policy.people]\ngus = \"guest\"\n",
        server.address()
    );
    let system = System::prepare(model.port(), &extra);
    system.keep_telegram_token(TOKEN);
    system.up();
    let writes = |user: i64, text: &str| server.user_writes(user, &Chat::private(user), text);
    let hears = |user: i64, part: &str| {
        wait_for(&format!("{user} hears {part:?}"), || {
            let texts = server.texts(user).into_iter();
            texts.into_iter().find(|text| text.contains(part))
        })
    };
    let (owner, gus, stranger) = (7, 8, 9);
    for (user, name) in [(owner, "owner"), (gus, "gus")] {
        writes(user, "hello");
        let told = hears(user, "pair approve");
        let code = told.split("pair approve ").nth(1).expect("a code");
        let code: String = code
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect();
        let paired = system.bulkhead(&["pair", "approve", &code, "--as", name]);
        assert!(paired.status.success(), "{}", said(&paired));
    }
    writes(gus, WORD);
    hears(gus, "You said: red herring");
    writes(stranger, WORD);
    hears(stranger, "pair approve");
    writes(owner, "what about red herring");
    hears(owner, "You said: what about red herring");
    assert_eq!(freeze(&system), Value::Null);

    writes(owner, WORD);
    let frozen = wait_until_frozen(&system);
    let by = json!({ "by": "person", "principal": "owner", "channel": "telegram", "how": "word" });
    assert_eq!(frozen["frozen"]["by"], by);
    wait_for("the way out is closed", || {
        (state_of(&system, "bulkhead-egress") == "frozen").then_some(())
    });
    wait_for("the row is written", || {
        (system.rows("panicked").len() == 1).then_some(())
    });
    assert_nothing_works(&system, &model);
    resume(&system);
    // The message comes again, since its confirmation was cut off, and freezes nothing.
    writes(owner, "are you there?");
    hears(owner, "You said: are you there?");
    assert_eq!(freeze(&system), Value::Null);
    assert_eq!(system.rows("panicked").len(), 1);
    system.assert_record_is_sound();
}

#[test]
fn fifty_sessions_with_running_tools_are_frozen_within_a_second() {
    let sleep = sleeping(120);
    let model = running(&sleep);
    let system = System::start(model.port(), &format!("[policy]\nallow = [\"{sleep}\"]\n"));
    let link = terminal(&system);
    for number in 0..SESSIONS {
        let name = format!("c-{number}");
        link.send(&ChannelRequest::Inbound {
            message: MessageId::parse(name.as_str()).expect("an id"),
            sender: SenderId::parse(name.as_str()).expect("an id"),
            sender_name: name.clone(),
            conversation: ConversationId::parse(name.as_str()).expect("an id"),
            text: "go".to_owned(),
        })
        .expect("it is sent");
    }
    wait_until_runs(&sleep, SESSIONS);
    let (commands, programs) = (sleepers(&sleep), processes_with("bulkhead-agent"));
    assert!(programs.len() >= SESSIONS, "{programs:?}");
    let began = Instant::now();
    let panic = system.spawn(&["panic", "--json"]);
    wait_for("all commands are gone", || {
        (!commands.iter().any(|pid| is_alive(*pid))).then_some(())
    });
    let gone = began.elapsed();
    let done = panic.json();
    assert_eq!(done["left"], json!(0), "{done}");
    assert_eq!(done["killed"], json!(SESSIONS + MORTAL.len()));
    let took = done["took_ms"].as_u64().expect("a time");
    println!(
        "frozen within {took} ms, the commands gone after {gone:?} with the start of `bulkhead`"
    );
    assert!(took < 1000, "{took} ms");
    assert!(gone < Duration::from_secs(1), "{gone:?}");
    wait_for("the row is written", || {
        (freeze(&system)["recorded"] == "yes").then_some(())
    });
    let ends = system.rows("turn_failed");
    let frozen = |row: &&Value| row["event"]["fault"]["end"] == "frozen";
    assert_eq!(ends.iter().filter(frozen).count(), SESSIONS);
    resume(&system);
    assert_works(&system);
    system.assert_record_is_sound();
}

#[test]
fn a_mark_that_cannot_be_read_freezes_all_the_same() {
    let model = running("ls");
    let system = System::prepare(model.port(), "");
    let home = Home::at(system.home()).expect("a home");
    fs::write(home.freeze_mark(), "").expect("the mark");
    system.up();
    assert_eq!(freeze(&system)["frozen"]["by"]["by"], "unknown");
    assert_nothing_works(&system, &model);
    resume(&system);
    assert!(FreezeMark::of(&home).read().is_none());
    assert_works(&system);
}
