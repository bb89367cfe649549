//! A gateway without a record, and with tests that play the programs of its channels.

use std::os::unix::net::UnixStream;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use policy::NewGrant;
use protocol::channel::{ApprovalAnswer, ChannelRequest};
use protocol::control::{NoConfig, ProgramEnd, SupervisorEnd};
use protocol::frame::Link;
use protocol::ids::{ApprovalId, Digest, Nonce};
use protocol::passkey::Proof;

use super::super::rules::Governing;
use super::super::state::State;
use super::super::undo::tests::config;
use super::super::wire::ChannelLink;
use super::*;
use protocol::ids::AgentId;

/// The far end of a channel's link.
type Program = Link<ChannelRequest, ChannelEvent>;

const PAGE: LinkId = 1;
const TELEGRAM: LinkId = 2;

struct Rig {
    gateway: Gateway,
    page: Program,
    telegram: Program,
    _control: SupervisorEnd<NoConfig>,
    _state: tempfile::TempDir,
}

impl Rig {
    /// With the owner and Ann at a browser and in a chat each, and two grants of the owner and one of
    /// Ann; their numbers are 1 to 3.
    fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (sender, _) = sync_channel(16);
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.db")).unwrap();
        for (channel, who, principal) in [
            ("web", "browser-1", "owner"),
            ("web", "browser-2", "ann"),
            ("telegram", "7", "owner"),
            ("telegram", "8", "ann"),
        ] {
            let (channel, who) = (channel.parse().unwrap(), sender_id(who));
            let principal = principal.parse().unwrap();
            state
                .pair(&channel, &who, "", &principal, Millis(1))
                .unwrap();
        }
        for (principal, channel, key) in [
            ("owner", "web", r#"exec:["touch","made"]"#),
            ("owner", "telegram", "write_file:notes.md"),
            ("ann", "telegram", r#"exec:["make"]"#),
        ] {
            let grant = NewGrant {
                agent: AgentId::main(),
                principal: principal.parse().unwrap(),
                channel: channel.parse().unwrap(),
                key: key.to_owned(),
                expires: Millis::now().after(Duration::from_secs(60)),
            };
            state.add_grant(&grant).unwrap();
        }
        let rules = Governing::new(&config().rules).unwrap();
        let mut gateway = Gateway::new(config(), ProgramEnd::new(ours), state, rules, sender);
        let page = link(&mut gateway, PAGE, "web");
        let telegram = link(&mut gateway, TELEGRAM, "telegram");
        Self {
            gateway,
            page,
            telegram,
            _control: SupervisorEnd::new(theirs),
            _state: dir,
        }
    }

    /// What the page's program is shown of the grants of whoever it says is there.
    fn seen_by(&mut self, who: &str) -> Vec<GrantCard> {
        let sender = sender_id(who);
        self.say(PAGE, ChannelRequest::Grants { id: 5, sender });
        match self.page.receive().unwrap() {
            ChannelEvent::Grants {
                id: 5,
                grants,
                more: 0,
            } => grants,
            other => panic!("{other:?}"),
        }
    }

    /// What a try to take a grant back is answered.
    fn revoke(&mut self, who: &str, grant: u64) -> Vec<ChannelEvent> {
        let sender = sender_id(who);
        self.say(
            PAGE,
            ChannelRequest::RevokeGrant {
                id: 6,
                sender,
                grant,
            },
        );
        let mut heard = vec![self.page.receive().unwrap()];
        while matches!(heard.last(), Some(ChannelEvent::GrantsChanged { .. })) {
            heard.push(self.page.receive().unwrap());
        }
        heard
    }

    fn say(&mut self, link: LinkId, request: ChannelRequest) {
        self.gateway.channel_request(link, request).unwrap();
    }

    fn numbers(&self) -> Vec<u64> {
        let grants = self.gateway.state.grants(Millis::now()).unwrap();
        grants.iter().map(|grant| grant.grant).collect()
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

fn sender_id(text: &str) -> SenderId {
    SenderId::parse(text).unwrap()
}

#[test]
fn a_browser_is_shown_the_grants_of_whoever_is_at_it_and_no_others() {
    let mut rig = Rig::start();
    let seen = rig.seen_by("browser-1");
    assert_eq!(
        seen.iter().map(|card| card.grant).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(seen[0].what, "touch made");
    assert_eq!(
        seen[0].covers,
        "exactly this command, when you ask for it on this page"
    );
    assert_eq!(
        seen[1].covers,
        "writing any text to this file, when you ask for it over telegram"
    );
    assert_eq!(rig.seen_by("browser-2")[0].grant, 3);
    assert_eq!(rig.seen_by("browser-3"), []);
    // A chat's sender is nobody at the page.
    assert_eq!(rig.seen_by("7"), []);
}

#[test]
fn a_browser_takes_back_the_grants_of_whoever_is_at_it_and_no_others() {
    let mut rig = Rig::start();
    for (who, grant) in [
        ("browser-1", 3),
        ("browser-2", 1),
        ("browser-3", 1),
        ("7", 1),
        ("browser-1", 4),
    ] {
        let heard = rig.revoke(who, grant);
        let refused = ChannelEvent::GrantNotRevoked {
            id: 6,
            text: texts::NO_SUCH_GRANT.to_owned(),
        };
        assert_eq!(heard, [refused], "{who} {grant}");
    }
    assert_eq!(rig.numbers(), [1, 2, 3]);

    // Less is always allowed, and there is no record here.
    let changed = ChannelEvent::GrantsChanged {
        conversation: page().conversation,
    };
    let revoked = ChannelEvent::GrantRevoked { id: 6 };
    assert_eq!(rig.revoke("browser-1", 1), [changed, revoked.clone()]);
    assert_eq!(rig.numbers(), [2, 3]);
    assert_eq!(rig.revoke("browser-2", 3), [revoked]);
    assert_eq!(rig.numbers(), [2]);
    assert_eq!(rig.revoke("browser-1", 1).len(), 1, "it is gone already");
}

#[test]
fn another_channel_s_program_sees_and_takes_back_nothing() {
    let mut rig = Rig::start();
    for who in ["7", "browser-1"] {
        let (id, sender) = (9, sender_id(who));
        let grants = ChannelRequest::Grants {
            id,
            sender: sender.clone(),
        };
        rig.say(TELEGRAM, grants);
        assert_eq!(
            rig.telegram.receive().unwrap(),
            ChannelEvent::Grants {
                id,
                grants: Vec::new(),
                more: 0
            }
        );
        let revoke = ChannelRequest::RevokeGrant {
            id,
            sender,
            grant: 1,
        };
        rig.say(TELEGRAM, revoke);
        assert!(matches!(
            rig.telegram.receive().unwrap(),
            ChannelEvent::GrantNotRevoked { .. }
        ));
    }
    assert_eq!(rig.numbers(), [1, 2, 3]);
}

#[test]
fn of_too_many_grants_the_newest_are_shown_and_the_rest_is_counted() {
    let mut rig = Rig::start();
    for number in 0..MAX_SHOWN {
        let grant = NewGrant {
            agent: AgentId::main(),
            principal: "owner".parse().unwrap(),
            channel: "web".parse().unwrap(),
            key: format!("{number:\"<512}"),
            expires: Millis::now().after(Duration::from_secs(60)),
        };
        rig.gateway.state.add_grant(&grant).unwrap();
    }
    let sender = sender_id("browser-1");
    rig.say(PAGE, ChannelRequest::Grants { id: 5, sender });
    let ChannelEvent::Grants { grants, more, .. } = rig.page.receive().unwrap() else {
        panic!("no grants")
    };
    assert_eq!((grants.len(), more), (MAX_SHOWN, 2));
    assert!(grants.iter().all(|card| card.grant > 3));
}

#[test]
fn a_yes_with_a_reason_for_a_no_is_neither() {
    let mut rig = Rig::start();
    let (approval, digest, nonce) = (ApprovalId([1; 8]), Digest([2; 32]), Nonce([3; 16]));
    rig.say(
        PAGE,
        ChannelRequest::Answer {
            approval,
            digest,
            nonce,
            sender: sender_id("browser-1"),
            answer: ApprovalAnswer::Approve,
            reason: "no".to_owned(),
            proof: Proof::Link,
        },
    );
    let ChannelEvent::AnswerRefused { text, .. } = rig.page.receive().unwrap() else {
        panic!("it was taken")
    };
    assert_eq!(text, texts::does_not_count(&texts::REASON_WITH_YES));
}

#[test]
fn keys_are_told_in_words_and_nothing_in_them_is_lost() {
    for (key, what, calls) in [
        (
            r#"exec:["ls","-l","a b","it's"]"#,
            r"ls -l 'a b' 'it'\''s'",
            "exactly this command",
        ),
        // What a shell would not show stays in its JSON form.
        (
            r#"exec:["echo","a\nb"]"#,
            r#"["echo","a\nb"]"#,
            "exactly this command",
        ),
        (
            "exec:touch a && touch b",
            "touch a && touch b",
            "exactly this command",
        ),
        ("exec:[]", "[]", "exactly this command"),
        (
            "edit_file:a:b.md",
            "a:b.md",
            "any change of text in this file",
        ),
        (
            "exec:sha256:00ff",
            "exec:sha256:00ff",
            "exactly one call, too long to be kept; this is its digest",
        ),
        ("another:kind", "another:kind", "all calls with this key"),
        ("bare", "bare", "all calls with this key"),
    ] {
        assert_eq!(in_words(key), (what.to_owned(), calls), "{key}");
    }
}
