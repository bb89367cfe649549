//! A gateway with a real ledger, and with a test that plays the program that keeps the workspace.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::time::{Duration, Instant};

use ledger::serve::Writer;
use ledger::store::Store;
use protocol::agent::{ModelApi, ModelSpec, ToolCalling};
use protocol::control::{GatewayConfig, NoConfig, ProgramEnd, SupervisorEnd};
use protocol::frame::Link;
use protocol::operator::OperatorRequest;
use protocol::runner::{Change, ChangeKind, Changes, EntryId, Limits};
use protocol::time::Millis;
use protocol::workspace::{Entry, Origin};

use super::super::rules::Governing;
use super::*;
use crate::core::Next;
use crate::core::state::State;
use crate::core::wire::Event;

/// The program that keeps the workspace, as the gateway sees it.
type Keeper = Link<HistoryReply, HistoryRequest>;

const PATIENCE: Duration = Duration::from_secs(10);

struct Rig {
    gateway: Gateway,
    events: Receiver<Event>,
    writer: Writer,
    keeper: Keeper,
    _control: SupervisorEnd<NoConfig>,
    _state: tempfile::TempDir,
}

impl Rig {
    /// Over the record in this folder.
    fn start(record: &Path) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (sender, events) = sync_channel(16);
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.db")).unwrap();
        let rules = Governing::new(&config().rules).unwrap();
        let mut gateway = Gateway::new(config(), ProgramEnd::new(ours), state, rules, sender);
        let writer = Writer::start(Store::open(record).unwrap()).unwrap();
        let keeper = link_keeper(&mut gateway);
        let mut rig = Self {
            gateway,
            events,
            writer,
            keeper,
            _control: SupervisorEnd::new(theirs),
            _state: dir,
        };
        rig.link_ledger();
        rig
    }

    fn link_ledger(&mut self) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.writer.serve(Peer::Gateway, theirs).unwrap();
        self.gateway.linked(Peer::Ledger, ours).unwrap();
    }

    /// What the owner asks; the answer may come at once or later.
    fn ask(&mut self, request: OperatorRequest) -> Receiver<OperatorReply> {
        let (answer, answered) = channel();
        self.gateway.operator_request(request, answer).unwrap();
        answered
    }

    /// Has the gateway take what its links bring next.
    fn take(&mut self) {
        let event = self.events.recv_timeout(PATIENCE).unwrap();
        let next = self.gateway.take(event).unwrap();
        assert!(matches!(next, Next::Serve));
    }

    /// Asks for a preview and has it answered.
    fn preview(&mut self) -> OperatorReply {
        let (to, diff) = (UndoTo::Newest, Diff::None);
        let answered = self.ask(OperatorRequest::UndoPreview { to, diff });
        assert!(matches!(
            self.keeper.receive().unwrap(),
            HistoryRequest::Preview { .. }
        ));
        let preview = preview();
        self.keeper
            .send(&HistoryReply::Preview { preview })
            .unwrap();
        self.take();
        answered.recv().unwrap()
    }

    /// Asks for a preview, then for what it showed.
    fn ask_undo(&mut self) -> Receiver<OperatorReply> {
        self.preview();
        self.ask(order())
    }

    /// The rows about undos.
    fn rows(&mut self) -> Vec<Fact> {
        let rows = self.gateway.record.read(&undo_session()).unwrap();
        rows.into_iter().map(|row| row.event).collect()
    }
}

fn link_keeper(gateway: &mut Gateway) -> Keeper {
    let (ours, theirs) = UnixStream::pair().unwrap();
    gateway.linked(Peer::Workspace, ours).unwrap();
    let keeper = Keeper::new(theirs);
    keeper.set_timeout(Some(PATIENCE)).unwrap();
    keeper
}

/// A configuration with nothing special in it.
pub(in crate::core) fn config() -> GatewayConfig {
    GatewayConfig {
        channels: Vec::new(),
        model: ModelSpec {
            api: ModelApi::Openai,
            name: "m".to_owned(),
            tool_calls: ToolCalling::Native,
            context_tokens: 1024,
            answer_tokens: 16,
        },
        workspace: "/w".into(),
        approval_seconds: 60,
        max_rounds: 5,
        agent_idle_seconds: 60,
        limits: Limits::default(),
        backend: Default::default(),
        web_origin: None,
        rules: protocol::rules::OwnerRules::default(),
        panic_word: None,
    }
}

fn order() -> OperatorRequest {
    OperatorRequest::Undo {
        to: UndoTo::Newest,
        digest: preview().digest,
    }
}

fn preview() -> Preview {
    let entry = |number| Entry {
        entry: EntryId(number),
        time: Millis(0),
        origin: Origin::Run,
        changes: 1,
        bytes: 1,
    };
    Preview {
        digest: Digest::of("shown"),
        entries: vec![entry(9), entry(8)],
        changes: vec![Change {
            path: "a".to_owned(),
            kind: ChangeKind::Deleted,
            before: None,
            after: None,
        }],
        more: 4,
        changed_since: Vec::new(),
        diff: String::new(),
    }
}

fn done() -> HistoryReply {
    let (entry, changes) = (EntryId(10), Changes::default());
    HistoryReply::Undone { entry, changes }
}

fn outcome(rows: &[Fact]) -> &UndoOutcome {
    match rows.last().unwrap() {
        Fact::UndoEnded { outcome, .. } => outcome,
        other => panic!("{other:?} is no outcome"),
    }
}

#[test]
fn an_undo_is_in_the_record_before_it_is_sent_and_its_outcome_before_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    let answered = rig.ask_undo();
    assert!(matches!(
        rig.keeper.receive().unwrap(),
        HistoryRequest::Undo { digest, .. } if digest == preview().digest
    ));
    assert!(matches!(
        rig.rows().as_slice(),
        [Fact::UndoAsked {
            oldest: EntryId(8),
            newest: EntryId(9),
            changes: 5,
            ..
        }]
    ));
    assert!(answered.try_recv().is_err(), "nothing is told yet");
    rig.keeper.send(&done()).unwrap();
    rig.take();
    let OperatorReply::Undone {
        asked,
        outcome: told,
    } = answered.recv().unwrap()
    else {
        panic!("another answer")
    };
    assert_eq!((asked, &told), (RowId(2), outcome(&rig.rows())));
    assert!(matches!(
        told,
        UndoOutcome::Done {
            entry: EntryId(10),
            ..
        }
    ));
}

#[test]
fn what_the_record_does_not_take_is_not_undone() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    rig.preview();
    let (gone, _) = UnixStream::pair().unwrap();
    rig.gateway.record.linked(gone);
    let answered = rig.ask(order());
    assert!(matches!(
        answered.recv().unwrap(),
        OperatorReply::Refused { reason } if reason.contains("Nothing was undone")
    ));
    // As long as it is not known what the record holds, nothing is.
    let again = rig.ask(order());
    assert!(matches!(
        again.recv().unwrap(),
        OperatorReply::Refused { .. }
    ));
    rig.keeper
        .set_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(rig.keeper.receive().is_err(), "nothing was sent");
    rig.link_ledger();
    assert_eq!(rig.rows(), []);
    rig.keeper.set_timeout(Some(PATIENCE)).unwrap();
    rig.ask_undo();
    assert_eq!(rig.rows().len(), 1);
}

#[test]
fn an_undo_is_of_what_was_shown_last_and_of_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    assert!(matches!(
        rig.ask(order()).recv().unwrap(),
        OperatorReply::Refused { reason } if reason.contains("not what was shown")
    ));
    rig.preview();
    let to = UndoTo::Entry { entry: EntryId(1) };
    let digest = preview().digest;
    let other = rig.ask(OperatorRequest::Undo { to, digest });
    assert!(matches!(
        other.recv().unwrap(),
        OperatorReply::Refused { .. }
    ));
    // One at a time, and each preview once.
    rig.ask(order());
    for _ in 0..2 {
        let again = rig.ask(order());
        assert!(matches!(
            again.recv().unwrap(),
            OperatorReply::Refused { .. }
        ));
        rig.keeper.send(&done()).unwrap();
        rig.take();
    }
    assert_eq!(rig.rows().len(), 2);
}

#[test]
fn an_undo_that_the_keeper_refuses_is_recorded_as_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    let answered = rig.ask_undo();
    let (reason, fix) = ("it changed".to_owned(), "look again".to_owned());
    rig.keeper
        .send(&HistoryReply::Refused { reason, fix })
        .unwrap();
    rig.take();
    assert!(matches!(
        answered.recv().unwrap(),
        OperatorReply::Undone { outcome: UndoOutcome::Refused { reason }, .. }
            if reason == "it changed. look again"
    ));
    assert!(matches!(outcome(&rig.rows()), UndoOutcome::Refused { .. }));
}

#[test]
fn an_undo_whose_keeper_dies_has_an_unknown_outcome_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    let answered = rig.ask_undo();
    rig.keeper.receive().unwrap();
    rig.keeper = link_keeper(&mut rig.gateway);
    assert!(matches!(
        answered.recv().unwrap(),
        OperatorReply::Undone {
            outcome: UndoOutcome::Unknown,
            ..
        }
    ));
    assert_eq!(outcome(&rig.rows()), &UndoOutcome::Unknown);
    // The closed link of before is no news any more.
    rig.take();
    let next = rig.ask_undo();
    rig.keeper.receive().unwrap();
    rig.keeper.send(&done()).unwrap();
    rig.take();
    assert!(matches!(
        next.recv().unwrap(),
        OperatorReply::Undone {
            outcome: UndoOutcome::Done { .. },
            ..
        }
    ));
}

#[test]
fn an_undo_whose_gateway_dies_is_closed_as_unknown_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    rig.ask_undo();
    rig.keeper.receive().unwrap();
    let Rig {
        writer, gateway, ..
    } = rig;
    drop(gateway);
    writer.stop();
    let mut rig = Rig::start(dir.path());
    assert_eq!(rig.rows().len(), 2);
    assert_eq!(outcome(&rig.rows()), &UndoOutcome::Unknown);
    // And once only.
    rig.link_ledger();
    assert_eq!(rig.rows().len(), 2);
}

#[test]
fn an_outcome_that_the_record_does_not_take_is_written_when_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    let answered = rig.ask_undo();
    rig.keeper.receive().unwrap();
    let (gone, _) = UnixStream::pair().unwrap();
    rig.gateway.record.linked(gone);
    rig.keeper.send(&done()).unwrap();
    rig.take();
    assert!(matches!(
        answered.recv().unwrap(),
        OperatorReply::Refused { .. }
    ));
    rig.link_ledger();
    assert_eq!(rig.rows().len(), 2);
    assert!(matches!(outcome(&rig.rows()), UndoOutcome::Done { .. }));
}

#[test]
fn a_keeper_that_is_slow_or_gone_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    let undo = rig.ask_undo();
    let slow = rig.ask(OperatorRequest::History { most: 5 });
    let late = Instant::now() + Duration::from_secs(60);
    rig.gateway.workspace.expire(late);
    assert!(matches!(
        slow.recv().unwrap(),
        OperatorReply::Refused { .. }
    ));
    assert!(matches!(
        undo.recv().unwrap(),
        OperatorReply::UndoUnderWay { asked: RowId(2) }
    ));
    // Its outcome is recorded all the same.
    rig.keeper.send(&done()).unwrap();
    rig.take();
    assert!(matches!(outcome(&rig.rows()), UndoOutcome::Done { .. }));
    rig.keeper = {
        let (other, _) = UnixStream::pair().unwrap();
        Keeper::new(other)
    };
    rig.take();
    let gone = rig.ask(OperatorRequest::History { most: 5 });
    assert!(matches!(
        gone.recv().unwrap(),
        OperatorReply::Refused { reason } if reason == NOT_THERE
    ));
}

#[test]
fn a_reply_to_another_question_ends_the_link_and_the_undo_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    let answered = rig.ask_undo();
    rig.keeper.receive().unwrap();
    let entries = Vec::new();
    rig.keeper.send(&HistoryReply::Entries { entries }).unwrap();
    rig.take();
    rig.take();
    assert!(matches!(
        answered.recv().unwrap(),
        OperatorReply::Undone {
            outcome: UndoOutcome::Unknown,
            ..
        }
    ));
}
