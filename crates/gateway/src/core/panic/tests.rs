//! A gateway with a real ledger, and with a test that plays the supervisor and the channels.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use ledger::serve::Writer;
use ledger::store::Store;
use protocol::call::Action;
use protocol::channel::{ChannelRequest, Retry};
use protocol::control::{GatewayConfig, NoConfig, ProgramEnd, SupervisorEnd};
use protocol::event::{CallOutcome, Ground};
use protocol::frame::Link;
use protocol::freeze::PanicWord;
use protocol::ids::{CallId, ConversationId, Digest, MessageId, PrincipalId};
use protocol::rules::Person;

use super::super::rules::Governing;
use super::super::state::State;
use super::super::undo::tests::config;
use super::super::wire::ChannelLink;
use super::*;

/// The far end of a channel's link.
type Program = Link<ChannelRequest, ChannelEvent>;

const PAGE: LinkId = 1;
const TELEGRAM: LinkId = 2;
const WORD: &str = "red herring";

struct Rig {
    gateway: Gateway,
    page: Program,
    telegram: Program,
    supervisor: SupervisorEnd<NoConfig>,
    writer: Option<Writer>,
    state: tempfile::TempDir,
}

impl Rig {
    /// With one person of each role in a chat and at a browser, named like it, and without a record.
    fn start() -> Self {
        Self::with(PanicWord::parse(WORD).ok())
    }

    fn with(panic_word: Option<PanicWord>) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let (sender, _) = sync_channel(16);
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.db")).unwrap();
        for name in ["owner", "approver", "user", "guest"] {
            for channel in ["telegram", "web"] {
                let (channel, who) = (channel.parse().unwrap(), name.parse().unwrap());
                let principal = name.parse().unwrap();
                let since = Millis(1);
                state.pair(&channel, &who, "", &principal, since).unwrap();
            }
        }
        let mut config = GatewayConfig {
            panic_word,
            ..config()
        };
        for (name, role) in [("approver", Role::Approver), ("guest", Role::Guest)] {
            let name = name.parse().unwrap();
            config.rules.people.push(Person { name, role });
        }
        let rules = Governing::new(&config.rules).unwrap();
        let mut gateway = Gateway::new(config, ProgramEnd::new(ours), state, rules, sender);
        let page = link(&mut gateway, PAGE, "web");
        let telegram = link(&mut gateway, TELEGRAM, "telegram");
        Self {
            gateway,
            page,
            telegram,
            supervisor: SupervisorEnd::new(theirs),
            writer: None,
            state: dir,
        }
    }

    /// Over the record in this folder.
    fn link_ledger(&mut self, folder: &Path) {
        let mut writer = Writer::start(Store::open(folder).unwrap()).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        writer.serve(Peer::Gateway, theirs).unwrap();
        self.writer = Some(writer);
        self.gateway.linked(Peer::Ledger, ours).unwrap();
    }

    /// Somebody writes this in the chat; what the channel's program hears of it.
    fn writes(&mut self, who: &str, id: &str, text: &str) -> ChannelEvent {
        let request = ChannelRequest::Inbound {
            message: MessageId::parse(id).unwrap(),
            sender: SenderId::parse(who).unwrap(),
            sender_name: String::new(),
            conversation: ConversationId::parse("c").unwrap(),
            text: text.to_owned(),
        };
        self.gateway.channel_request(TELEGRAM, request).unwrap();
        self.telegram.receive().unwrap()
    }

    /// What the gateway asked of the supervisor since, relinks aside.
    fn reports(&self) -> Vec<Report> {
        let received = std::iter::from_fn(|| self.supervisor.receive().ok());
        received
            .map(|(report, _)| report)
            .filter(|report| !matches!(report, Report::Relink { .. }))
            .collect()
    }

    /// Who has everything frozen since the last look.
    fn panics(&self) -> Vec<By> {
        let panic = |report| match report {
            Report::Panic { by } => Some(by),
            _ => None,
        };
        self.reports().into_iter().filter_map(panic).collect()
    }

    fn rows(&mut self, chain: &SessionId) -> Vec<Fact> {
        let rows = self.gateway.record.read(chain).unwrap();
        rows.into_iter().map(|row| row.event).collect()
    }
}

fn link(gateway: &mut Gateway, id: LinkId, channel: &str) -> Program {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ours = ChannelLink::new(ours);
    gateway
        .channel_up(id, channel.parse().unwrap(), ours)
        .unwrap();
    let program = Program::new(theirs);
    program.set_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(program.receive().unwrap(), ChannelEvent::Welcome);
    program
}

fn by(name: &str, channel: &str, how: How) -> By {
    By::Person {
        principal: PrincipalId::parse(name).unwrap(),
        channel: channel.parse().unwrap(),
        how,
    }
}

fn a_freeze() -> Frozen {
    Frozen {
        since: Millis(7),
        by: By::Terminal,
        reason: "odd replies".to_owned(),
    }
}

fn later() -> Millis {
    Millis::now().after(Duration::from_secs(60))
}

fn is_refused_for_good(event: &ChannelEvent, part: &str) -> bool {
    matches!(event, ChannelEvent::NotAccepted { retry: Retry::Never, text, .. } if text.contains(part))
}

#[test]
fn the_word_freezes_from_the_owner_and_approvers_and_is_an_ordinary_message_from_others() {
    let mut rig = Rig::start();
    // There is no record, which holds nothing up.
    for name in ["owner", "approver"] {
        let heard = rig.writes(name, &format!("m-{name}"), " red herring\n");
        assert!(is_refused_for_good(&heard, "bulkhead resume"), "{heard:?}");
        assert_eq!(rig.panics(), [by(name, "telegram", How::Word)]);
    }
    for name in ["user", "guest", "stranger"] {
        rig.writes(name, &format!("m-{name}"), WORD);
        assert_eq!(rig.panics(), [], "{name}");
    }
    for text in ["Red herring", "say red herring", "/red herring"] {
        rig.writes("owner", &format!("x{}", text.len()), text);
        assert_eq!(rig.panics(), [], "{text}");
    }
}

#[test]
fn without_a_word_in_the_configuration_no_message_freezes() {
    let mut rig = Rig::with(None);
    for (number, text) in ["", "red herring", "panic", "/panic", "bulkhead panic"]
        .into_iter()
        .enumerate()
    {
        rig.writes("owner", &format!("m{number}"), text);
    }
    assert_eq!(rig.panics(), []);
}

#[test]
fn the_word_is_not_rate_limited_and_the_same_message_freezes_once() {
    let mut rig = Rig::start();
    for number in 0..100 {
        rig.writes("owner", &format!("m{number}"), "hello");
    }
    let heard = rig.writes("owner", "w1", WORD);
    assert!(is_refused_for_good(&heard, "frozen"), "{heard:?}");
    assert_eq!(rig.panics().len(), 1);
    // The platform brings it again, since the way out was cut before it was confirmed.
    let heard = rig.writes("owner", "w1", WORD);
    assert!(is_refused_for_good(&heard, "before"), "{heard:?}");
    assert_eq!(rig.panics(), []);
    rig.writes("owner", "w2", WORD);
    assert_eq!(rig.panics().len(), 1);
}

#[test]
fn a_word_that_did_not_reach_the_supervisor_was_not_seen() {
    let mut rig = Rig::start();
    let (_, nobody) = UnixStream::pair().unwrap();
    drop(std::mem::replace(
        &mut rig.supervisor,
        SupervisorEnd::new(nobody),
    ));
    let request = ChannelRequest::Inbound {
        message: MessageId::parse("w1").unwrap(),
        sender: SenderId::parse("owner").unwrap(),
        sender_name: String::new(),
        conversation: ConversationId::parse("c").unwrap(),
        text: WORD.to_owned(),
    };
    assert!(rig.gateway.channel_request(TELEGRAM, request).is_err());
    // When the platform brings it again, it freezes.
    let message = MessageId::parse("w1").unwrap();
    let channel = "telegram".parse().unwrap();
    assert_eq!(rig.gateway.state.seen(&channel, &message).unwrap(), None);
}

#[test]
fn the_button_freezes_for_the_owner_at_the_page_and_is_answered_when_everything_is_frozen() {
    let mut rig = Rig::start();
    let press = |rig: &mut Rig, link, who: &str| {
        let sender = SenderId::parse(who).unwrap();
        let request = ChannelRequest::Panic { id: 3, sender };
        rig.gateway.channel_request(link, request).unwrap();
    };
    for who in ["user", "guest", "stranger"] {
        press(&mut rig, PAGE, who);
        let heard = rig.page.receive().unwrap();
        assert!(
            matches!(heard, ChannelEvent::PanicRefused { id: 3, .. }),
            "{heard:?}"
        );
    }
    // Another channel's program has no button, whomever it names.
    press(&mut rig, TELEGRAM, "owner");
    let heard = rig.telegram.receive().unwrap();
    assert!(matches!(heard, ChannelEvent::PanicRefused { .. }));
    assert_eq!(rig.panics(), []);

    press(&mut rig, PAGE, "owner");
    let who = by("owner", "web", How::Button);
    assert_eq!(rig.panics(), std::slice::from_ref(&who));
    let frozen = Frozen {
        by: who,
        ..a_freeze()
    };
    rig.gateway.freeze(frozen).unwrap();
    assert_eq!(
        rig.page.receive().unwrap(),
        ChannelEvent::Panicked { id: 3 }
    );
    let ChannelEvent::Notice { text, .. } = rig.page.receive().unwrap() else {
        panic!("the page was not told")
    };
    assert!(text.contains("owner on web (by the button)"), "{text}");
}

#[test]
fn a_freeze_is_recorded_once_and_its_end_before_it_happens() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::start();
    rig.link_ledger(folder.path());
    rig.gateway.freeze(a_freeze()).unwrap();
    rig.gateway.freeze(a_freeze()).unwrap();
    let since = Millis(7);
    let recorded = Report::FreezeRecorded { since };
    assert_eq!(rig.reports(), [recorded.clone(), recorded]);
    let Frozen { by, reason, .. } = a_freeze();
    let panicked = Fact::Panicked { since, by, reason };
    let chain = freeze_session();
    assert_eq!(rig.rows(&chain), std::slice::from_ref(&panicked));
    let heard = rig.writes("owner", "m1", "hello");
    assert!(is_refused_for_good(&heard, "bulkhead resume"), "{heard:?}");
    drop(rig);

    // Another start of this program, while it lasts.
    let mut rig = Rig::start();
    rig.gateway.freeze(a_freeze()).unwrap();
    rig.link_ledger(folder.path());
    assert_eq!(rig.rows(&chain), std::slice::from_ref(&panicked));
    let key = PublicKey([9; 32]);
    rig.gateway.end_freeze(since, key, later()).unwrap();
    let resumed = Fact::Resumed { since, key };
    assert_eq!(rig.rows(&chain), [panicked.clone(), resumed.clone()]);
    assert!(rig.reports().contains(&Report::Resumed { since }));
    let heard = rig.writes("owner", "m2", "hello");
    assert!(matches!(heard, ChannelEvent::Accepted { .. }), "{heard:?}");
    // The same freeze again, since its mark could not be taken away.
    rig.gateway.freeze(a_freeze()).unwrap();
    assert_eq!(rig.rows(&chain), [panicked.clone(), resumed, panicked]);
    drop(rig.state);
}

#[test]
fn however_often_the_record_is_missed_one_link_to_it_is_asked_for() {
    let mut rig = Rig::start();
    rig.gateway.freeze(a_freeze()).unwrap();
    for _ in 0..5 {
        rig.gateway.freeze(a_freeze()).unwrap();
        let key = PublicKey([9; 32]);
        rig.gateway.end_freeze(Millis(7), key, later()).unwrap();
        rig.gateway.settle().unwrap();
    }
    let received = std::iter::from_fn(|| rig.supervisor.receive().ok());
    let links = received.filter(|(report, _)| matches!(report, Report::Relink { .. }));
    assert_eq!(links.count(), 1);
}

#[test]
fn a_freeze_waits_for_no_record_and_its_end_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::start();
    rig.gateway.freeze(a_freeze()).unwrap();
    assert_eq!(rig.reports(), []);
    let heard = rig.writes("owner", "m1", "hello");
    assert!(is_refused_for_good(&heard, "frozen"), "{heard:?}");
    rig.gateway
        .end_freeze(Millis(7), PublicKey([9; 32]), later())
        .unwrap();
    let reports = rig.reports();
    assert!(
        matches!(reports.as_slice(), [Report::NotResumed { reason }] if reason.contains("record")),
        "{reports:?}"
    );
    assert!(rig.gateway.is_frozen());
    rig.link_ledger(folder.path());
    let since = Millis(7);
    assert_eq!(rig.reports(), [Report::FreezeRecorded { since }]);
    // One that was heard of too late, since this program stood still, is not done.
    rig.gateway
        .end_freeze(since, PublicKey([9; 32]), Millis::now())
        .unwrap();
    assert!(matches!(
        rig.reports().as_slice(),
        [Report::NotResumed { .. }]
    ));
    assert!(rig.gateway.is_frozen());
    assert_eq!(rig.rows(&freeze_session()).len(), 1);
}

/// A record in which a call may run and a second message waits.
fn left_open(folder: &Path) -> SessionId {
    let mut rig = Rig::start();
    rig.link_ledger(folder);
    let session = SessionId::parse("s-1").unwrap();
    let inbound = |id: &str| Fact::Inbound {
        channel: "telegram".parse().unwrap(),
        message: MessageId::parse(id).unwrap(),
        sender: SenderId::parse("owner").unwrap(),
        principal: PrincipalId::parse("owner").unwrap(),
        conversation: ConversationId::parse("c").unwrap(),
        text: "do it".to_owned(),
    };
    let (turn, call) = (TurnId(1), CallId(1));
    let facts = vec![
        inbound("m1"),
        Fact::TurnStarted {
            turn,
            message: MessageId::parse("m1").unwrap(),
        },
        Fact::ToolIntent {
            turn,
            call,
            name: "exec".to_owned(),
            args: "{}".to_owned(),
            said: String::new(),
        },
        Fact::Permit {
            turn,
            call,
            ground: Ground::Policy,
            digest: Digest([0; 32]),
            action: Action::Argv {
                argv: vec!["ls".to_owned()],
            },
        },
        inbound("m2"),
    ];
    rig.gateway.record.write(&session, facts).unwrap();
    session
}

fn agents_asked_for(reports: &[Report]) -> usize {
    let asks = |report: &&Report| matches!(report, Report::StartAgent { .. });
    reports.iter().filter(asks).count()
}

#[test]
fn what_was_open_is_closed_as_frozen_and_never_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let session = left_open(folder.path());
    let mut rig = Rig::start();
    rig.gateway.freeze(a_freeze()).unwrap();
    rig.link_ledger(folder.path());
    rig.gateway
        .end_freeze(Millis(7), PublicKey([9; 32]), later())
        .unwrap();
    assert_eq!(agents_asked_for(&rig.reports()), 0);
    let rows = rig.rows(&session);
    let unknown = rows.iter().any(|fact| {
        matches!(
            fact,
            Fact::Outcome {
                outcome: CallOutcome::Unknown,
                ..
            }
        )
    });
    assert!(unknown, "{rows:?}");
    let frozen = |fact: &&Fact| {
        matches!(
            fact,
            Fact::TurnFailed {
                fault: TurnEnd::Frozen,
                ..
            }
        )
    };
    assert_eq!(rows.iter().filter(frozen).count(), 2, "{rows:?}");
    let mut ended = Vec::new();
    while ended.len() < 2 {
        if let ChannelEvent::Notice { ends_turn, .. } = rig.telegram.receive().unwrap() {
            ended.push(ends_turn);
        }
    }
    assert_eq!(ended, [Some(TurnId(1)), Some(TurnId(2))]);
}

#[test]
fn without_a_freeze_the_same_would_be_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    left_open(folder.path());
    let mut rig = Rig::start();
    rig.link_ledger(folder.path());
    assert_eq!(agents_asked_for(&rig.reports()), 1);
}

#[test]
fn a_runner_that_a_freeze_killed_is_not_linked_twice_when_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::start();
    rig.link_ledger(folder.path());
    let (ours, theirs) = UnixStream::pair().unwrap();
    rig.gateway.linked(Peer::Sandbox, ours).unwrap();
    drop(theirs);
    // Whichever is heard of first.
    for hears_first in ["death", "freeze"] {
        let id = rig.gateway.last_link;
        if hears_first == "death" {
            rig.gateway
                .executor_gone(crate::core::runner::By::Boxes, id)
                .unwrap();
        }
        rig.gateway.freeze(a_freeze()).unwrap();
        rig.gateway
            .executor_gone(crate::core::runner::By::Boxes, id)
            .unwrap();
        rig.gateway
            .end_freeze(Millis(7), PublicKey([9; 32]), later())
            .unwrap();
        assert_eq!(rig.gateway.unlinked, []);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        rig.gateway.linked(Peer::Sandbox, ours).unwrap();
    }
}
