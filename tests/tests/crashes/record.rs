//! A ledger that stands still or has no room, and a record that was altered.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use config::{FreezeMark, Home};
use serde_json::json;
use testkit::model::Step;
use testkit::system::{System, is_alive, said, wait_for};

use crate::{exec, model, turns};

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
fn with_the_whole_home_on_a_full_disk_a_detached_bulkhead_stays_freezes_and_goes_on() {
    let model = model([]);
    let system = System::prepare(model.port(), "");
    let disk = SmallDisk::over(system.home(), 8 << 20);
    system.configure(str::to_owned);
    system.up();
    let supervisor = system.pids()[0];
    assert_eq!(
        system.ask("is there room?")["reply"],
        "You said: is there room?"
    );

    // Its log lies there too.
    disk.fill();
    for text in ["first", "second"] {
        let (code, _, err) = system.spawn(&["ask", text]).finish();
        assert_eq!(code, Some(1));
        assert!(err.contains("cannot be written"), "{err}");
    }
    let status = system.bulkhead(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(
        said(&status).contains("does not take rows"),
        "{}",
        said(&status)
    );
    let done = system.bulkhead(&["panic", "--reason", "disk full", "--json"]);
    assert!(done.status.success(), "{}", said(&done));
    let done: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(
        (&done["left"], &done["mark"]),
        (&json!(0), &json!("synced"))
    );
    assert!(done["killed"].as_u64() >= Some(3), "{done}");
    let home = Home::at(system.home()).expect("a home");
    let mark = FreezeMark::of(&home).read().expect("a mark");
    assert_eq!(mark.reason, "disk full");
    assert!(is_alive(supervisor));

    disk.free();
    wait_for("the row of the freeze is written", || {
        (system.json(&["status"])["frozen"]["recorded"] == "yes").then_some(())
    });
    assert_eq!(system.rows("panicked")[0]["event"]["reason"], "disk full");
    let resumed = system.bulkhead(&["resume"]);
    assert!(resumed.status.success(), "{}", said(&resumed));
    assert_eq!(system.ask("and now?")["reply"], "You said: and now?");
    assert_eq!(system.pids()[0], supervisor, "it did not end");
    system.assert_record_is_sound();
}

#[test]
fn with_the_gateway_s_own_disk_full_messages_are_refused_and_it_stays() {
    let model = model([]);
    let system = System::prepare(model.port(), "");
    let folder = system.home().join("gateway");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .expect("a folder");
    let disk = SmallDisk::over(&folder, 4 << 20);
    system.up();
    let gateway = system.pid("bulkhead-gateway");

    disk.fill();
    // What was already written leaves some room; it is used up.
    let refused = wait_for("a message is refused", || {
        let (code, _, err) = system.spawn(&["ask", "hello"]).finish();
        (code == Some(1)).then_some(err)
    });
    assert!(refused.contains("cannot be written"), "{refused}");
    disk.free();
    assert_eq!(system.ask("hello again")["reply"], "You said: hello again");
    assert_eq!(system.pid("bulkhead-gateway"), gateway, "it did not end");
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
