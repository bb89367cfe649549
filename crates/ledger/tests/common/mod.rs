//! What the tests share: events, a record made of them, and the real program.
#![expect(dead_code, reason = "each test program uses its own part of this")]
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it has to be"
)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bulkhead_ledger::LedgerClient;
use bulkhead_ledger::store::{Store, Write};
use protocol::call::{Action, Verdict};
use protocol::control::{Control, NoConfig, Peer, Report, SupervisorEnd};
use protocol::event::{Answer, CallOutcome, Event, Ground};
use protocol::ids::{ApprovalId, CallId, ChannelId, Digest, PublicKey, SessionId, TurnId};
use protocol::record::NewRow;
use protocol::runner::{Changes, Limits, Receipt, RunEnd, RunOutcome};
use protocol::time::Millis;

pub(crate) const TURN: TurnId = TurnId(1);
pub(crate) const CALL: CallId = CallId(1);
pub(crate) const APPROVAL: ApprovalId = ApprovalId([7; 8]);

pub(crate) fn session(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

pub(crate) fn row(name: &str, event: Event) -> NewRow {
    NewRow {
        session: session(name),
        event,
    }
}

pub(crate) fn up(channel: &str) -> Event {
    Event::ChannelUp {
        channel: ChannelId::parse(channel).unwrap(),
    }
}

pub(crate) fn started(turn: u64) -> Event {
    let message = protocol::ids::MessageId::parse(format!("m{turn}")).unwrap();
    Event::TurnStarted {
        turn: TurnId(turn),
        message,
    }
}

pub(crate) fn reply(turn: u64, text: &str) -> Event {
    Event::Reply {
        turn: TurnId(turn),
        text: text.to_owned(),
    }
}

pub(crate) fn intent() -> Event {
    intent_in(TURN)
}

pub(crate) fn intent_in(turn: TurnId) -> Event {
    Event::ToolIntent {
        turn,
        call: CALL,
        name: "exec".to_owned(),
        args: r#"{"command":"make"}"#.to_owned(),
        said: String::new(),
    }
}

pub(crate) fn decision(verdict: Verdict) -> Event {
    let text = |text: &str| text.to_owned();
    Event::Decision {
        turn: TURN,
        call: CALL,
        verdict,
        rule: text("r"),
        reason: text("why"),
        key: text("exec:make"),
    }
}

pub(crate) fn asked(digest: Digest) -> Event {
    Event::ApprovalAsked {
        turn: TURN,
        call: CALL,
        approval: APPROVAL,
        digest,
        expires: Millis(1),
    }
}

pub(crate) fn answered(answer: Answer) -> Event {
    Event::ApprovalAnswered {
        turn: TURN,
        call: CALL,
        approval: APPROVAL,
        answer,
        by: None,
        channel: None,
        after_ms: 5,
        signed: None,
    }
}

pub(crate) fn permit(ground: Ground, digest: Digest) -> Event {
    let action = Action::Argv {
        argv: vec!["make".to_owned()],
    };
    Event::Permit {
        turn: TURN,
        call: CALL,
        ground,
        digest,
        action,
    }
}

pub(crate) fn outcome(outcome: CallOutcome) -> Event {
    Event::Outcome {
        turn: TURN,
        call: CALL,
        outcome,
    }
}

pub(crate) fn ran() -> CallOutcome {
    let run = RunOutcome {
        end: RunEnd::Exited { code: 0 },
        stdout: "ok\n".to_owned(),
        stderr: String::new(),
        truncated: false,
        duration_ms: 3,
        receipt: Receipt {
            limits: Limits::default(),
            ..Receipt::default()
        },
        changes: Changes::default(),
    };
    CallOutcome::Ran { run }
}

pub(crate) fn append(store: &mut Store, rows: Vec<NewRow>, sign: Option<&str>) {
    let write = Write {
        rows,
        sign: sign.map(session),
    };
    for written in store.write(&[write]) {
        written.unwrap();
    }
}

/// A closed record in this folder: 15 rows of three sessions, five signatures, and the last
/// row without one.
pub(crate) fn make_record(dir: &Path) -> (PathBuf, PublicKey) {
    let mut store = Store::open(dir).unwrap();
    append(&mut store, vec![row("system", up("web"))], None);
    for turn in 1..=2 {
        append(
            &mut store,
            vec![row("a", started(turn)), row("b", started(turn))],
            None,
        );
        append(&mut store, vec![row("b", reply(turn, "b says"))], Some("b"));
        append(
            &mut store,
            vec![row("a", reply(turn, "a says")), row("system", up("tg"))],
            Some("a"),
        );
    }
    append(
        &mut store,
        vec![row("a", started(3)), row("a", intent_in(TurnId(3)))],
        None,
    );
    append(&mut store, vec![row("a", reply(3, "done"))], Some("system"));
    append(&mut store, vec![row("system", up("web"))], None);
    let key = store.public_key();
    drop(store);
    (dir.join("ledger.db"), key)
}

/// The real program, started as the supervisor does it.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) control: SupervisorEnd<NoConfig>,
}

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

impl Program {
    /// Starts it; returns when it is ready.
    pub(crate) fn start(dir: &Path) -> Self {
        let program = Self::spawn(&mut bin(dir));
        program.wait_ready();
        program
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        let control = SupervisorEnd::new(ours);
        control
            .send(&Control::Start {
                config: NoConfig {},
            })
            .unwrap();
        Self { child, control }
    }

    pub(crate) fn wait_ready(&self) {
        assert_eq!(self.report(), Report::Ready);
    }

    pub(crate) fn report(&self) -> Report {
        self.control.receive().unwrap().0
    }

    pub(crate) fn link(&self, peer: Peer) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        self.control
            .send_with(&Control::Link { peer }, theirs.into())
            .unwrap();
        ours
    }

    pub(crate) fn client(&self, peer: Peer) -> LedgerClient {
        LedgerClient::new(self.link(peer))
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn stop(mut self) -> ExitStatus {
        self.control.send(&Control::Stop).unwrap();
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the program did not end");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It is gone already where the test ended well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn bin(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-ledger"));
    command.arg("--dir").arg(dir);
    command
}

pub(crate) fn public_key(dir: &Path) -> PublicKey {
    bulkhead_ledger::key::read_public(&dir.join("ledger.pub")).unwrap()
}

/// What the independent verifier prints, and whether it says that all is right.
pub(crate) fn python_verify(db: &Path, public: &Path) -> (serde_json::Value, bool) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/verify_ledger.py");
    let output = Command::new("python3")
        .arg(script)
        .arg(db)
        .arg(public)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {error}"));
    (json, output.status.success())
}
