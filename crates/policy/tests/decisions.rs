//! From a request to a permit, and all the ways that do not lead to one.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use std::collections::HashSet;
use std::time::Duration;

use bulkhead_policy::{
    ApprovalRequest, Approved, BadStored, Consent, Decision, GRANT_TIME, Label, Permit, Profile,
    Question, Request, Rules, Session, Signed, StoredApproval, WhyRefused, decide,
};
use protocol::call::{Action, ToolCall, Verdict, WorkspacePath};
use protocol::channel::Needs;
use protocol::event::{Event, Ground, Signer};
use protocol::identity::IdentityKey;
use protocol::ids::{AgentId, ApprovalId, CallId, CallRef, Digest, Nonce, TurnId};
use protocol::operator::Grant;
use protocol::record::Recordable;
use protocol::runner::Leaves;
use protocol::time::Millis;

const NOW: Millis = Millis(1_000_000);
const EXPIRES: Millis = Millis(1_600_000);
const QUESTION: Question = Question {
    approval: ApprovalId([1; 8]),
    nonce: Nonce([2; 16]),
    expires: EXPIRES,
};

/// All that a request borrows from.
struct Facts {
    call: ToolCall,
    reference: CallRef,
    principal: String,
    channel: String,
    workspace: String,
    labels: Vec<Label>,
    profile: Profile,
    grants: Vec<Grant>,
    now: Millis,
    question: Question,
}

impl Facts {
    fn exec(command: &str) -> Self {
        Self {
            call: ToolCall::Exec {
                command: command.into(),
            },
            reference: CallRef {
                session: "s1".parse().unwrap(),
                turn: TurnId(3),
                call: CallId(4),
            },
            principal: "owner".into(),
            channel: "web".into(),
            workspace: "/home/o/w".into(),
            labels: Vec::new(),
            profile: Profile::default(),
            grants: Vec::new(),
            now: NOW,
            question: QUESTION,
        }
    }

    fn decide(&self) -> Decision {
        decide(&Request {
            call: &self.call,
            reference: &self.reference,
            rules: Rules::shipped(),
            session: Session {
                principal: &self.principal.parse().unwrap(),
                channel: &self.channel.parse().unwrap(),
                agent: &AgentId::main(),
                labels: &self.labels,
            },
            workspace: &self.workspace,
            profile: &self.profile,
            grants: &self.grants,
            now: self.now,
            question: self.question,
        })
    }

    fn ask(&self) -> ApprovalRequest {
        match self.decide() {
            Decision::Ask(request) => request,
            other => panic!("{other:?}"),
        }
    }

    fn allow(&self) -> Permit {
        match self.decide() {
            Decision::Allow(permit) => permit,
            other => panic!("{other:?}"),
        }
    }
}

fn yes(request: &ApprovalRequest) -> Approved {
    Approved {
        approval: request.id(),
        digest: request.digest(),
        nonce: request.nonce(),
    }
}

/// The operator's signature over this request.
fn signed(request: &ApprovalRequest) -> Consent {
    let key = IdentityKey::from_seed(&[7; 32]);
    let signature = key.approve(request.digest());
    Consent::Signed(Signed::by_operator(&key.public(), request.digest(), &signature).unwrap())
}

fn grant(principal: &str, channel: &str, key: &str, expires: Millis) -> Grant {
    Grant {
        grant: 1,
        principal: principal.parse().unwrap(),
        channel: channel.parse().unwrap(),
        agent: AgentId::main(),
        key: key.into(),
        expires,
    }
}

#[test]
fn what_the_rules_allow_gets_a_permit_for_exactly_its_words() {
    let permit = Facts::exec("ls -l 'a b'").allow();
    assert_eq!(
        permit.action(),
        &Action::Argv {
            argv: vec!["ls".into(), "-l".into(), "a b".into()]
        }
    );
    assert_eq!(permit.ground(), Ground::Policy);
    assert_eq!(permit.grant(NOW), None);
    let row = permit.row();
    assert_eq!(row.session.as_str(), "s1");
    let Event::Permit {
        turn,
        call,
        ground,
        digest,
        action,
    } = row.event
    else {
        panic!()
    };
    assert_eq!(
        (turn, call, ground, digest),
        (TurnId(3), CallId(4), Ground::Policy, permit.digest())
    );
    assert_eq!(&action, permit.action());
}

#[test]
fn what_only_reads_may_leave_nothing_behind() {
    for (command, leaves) in [
        ("ls -la", Leaves::Nothing),
        ("cat a | sort", Leaves::Nothing),
        ("cat a > b", Leaves::Files),
    ] {
        let Decision::Allow(permit) = Facts::exec(command).decide() else {
            panic!("{command} was asked about");
        };
        assert_eq!(permit.leaves(), leaves, "{command}");
    }
    for command in ["touch a", "ls $x", "find . -delete", "make"] {
        let request = Facts::exec(command).ask();
        assert_eq!(request.judgement().leaves(), Leaves::Changes, "{command}");
    }
}

#[test]
fn what_is_not_understood_is_asked_about_as_the_script_it_is() {
    let request = Facts::exec("ls $x | sh").ask();
    assert_eq!(request.verdict(), Verdict::AskAlways);
    let permit = {
        let (yes, by) = (yes(&request), signed(&request));
        request.approved(&yes, &by, NOW).unwrap()
    };
    assert_eq!(
        permit.action(),
        &Action::Shell {
            script: "ls $x | sh".into()
        }
    );
    assert_eq!(
        permit.ground(),
        Ground::Approval {
            approval: QUESTION.approval
        }
    );
    assert_eq!(permit.grant(NOW), None, "tier 3 is never remembered");
}

#[test]
fn what_cannot_be_a_command_is_denied() {
    for command in ["", "ls\0", &"a".repeat(100_000)] {
        let decision = Facts::exec(command).decide();
        assert_eq!(decision.judgement().verdict, Verdict::Deny);
        assert!(matches!(decision, Decision::Deny(_)));
    }
}

#[test]
fn a_yes_to_tier_2_is_remembered_for_thirty_days_for_exactly_this_call() {
    let mut facts = Facts::exec("cargo build");
    let request = facts.ask();
    assert_eq!(request.verdict(), Verdict::AskOnce);
    let permit = {
        let yes = yes(&request);
        request.approved(&yes, &Consent::Unsigned, NOW).unwrap()
    };
    let new = permit.grant(NOW).unwrap();
    assert_eq!(new.key, r#"exec:["cargo","build"]"#);
    assert_eq!(new.expires, NOW.after(GRANT_TIME));
    facts.grants = vec![grant(
        new.principal.as_str(),
        new.channel.as_str(),
        &new.key,
        new.expires,
    )];
    assert_eq!(facts.allow().ground(), Ground::Grant);
    facts.now = Millis(new.expires.0 - 1);
    assert_eq!(
        facts.allow().grant(facts.now),
        None,
        "a grant does not prolong itself"
    );
    facts.now = new.expires;
    let _ = facts.ask();
    facts.now = NOW;
    facts.call = ToolCall::Exec {
        command: "cargo build --release".into(),
    };
    let _ = facts.ask();
}

#[test]
fn a_grant_of_another_person_or_channel_or_key_counts_for_nothing() {
    let mut facts = Facts::exec("cargo build");
    let key = r#"exec:["cargo","build"]"#;
    let far = Millis(u64::MAX);
    for other in [
        grant("guest", "web", key, far),
        grant("owner", "telegram", key, far),
        grant("owner", "web", r#"exec:["cargo","build","x"]"#, far),
        grant("owner", "web", "exec:", far),
        grant("owner", "web", "", far),
        grant("owner", "web", key, NOW),
    ] {
        facts.grants = vec![other];
        let _ = facts.ask();
    }
}

#[test]
fn no_grant_covers_tier_3() {
    for command in [
        "rm a",
        "ls; rm a",
        "ls; $(id)",
        "python3 -c 1",
        "find . -delete",
    ] {
        let mut facts = Facts::exec(command);
        let key = facts.decide().judgement().key.clone();
        facts.grants = vec![grant("owner", "web", &key, Millis(u64::MAX))];
        assert_eq!(facts.ask().verdict(), Verdict::AskAlways, "{command}");
    }
}

#[test]
fn a_label_takes_a_grant_away() {
    let mut facts = Facts::exec("cargo build");
    facts.grants = vec![grant(
        "owner",
        "web",
        r#"exec:["cargo","build"]"#,
        Millis(u64::MAX),
    )];
    let _ = facts.allow();
    facts.labels = vec![Label::Untrusted];
    assert_eq!(facts.ask().verdict(), Verdict::AskAlways);
}

#[test]
fn keys_of_different_calls_differ() {
    let commands = [
        "a b c",
        "a 'b c'",
        "'a b' c",
        "a b 'c '",
        "a 'b\",\"c'",
        "a b <U+000A>",
        "a '<U+202E>'",
        "a b",
    ];
    let keys: Vec<_> = commands
        .iter()
        .map(|command| Facts::exec(command).decide().judgement().key.clone())
        .collect();
    for (i, key) in keys.iter().enumerate() {
        assert!(!keys[..i].contains(key), "{key}");
    }
    let long = |end: &str| {
        Facts::exec(&format!("a {}{end}", "b".repeat(5000)))
            .decide()
            .judgement()
            .key
            .clone()
    };
    assert_ne!(long("x"), long("y"));
    assert!(long("x").len() < 600);
}

#[test]
fn a_yes_that_does_not_match_makes_no_permit_and_leaves_the_request_open() {
    let mut request = Facts::exec("rm a").ask();
    let (right, by) = (yes(&request), signed(&request));
    for (wrong, expected) in [
        (
            Approved {
                approval: ApprovalId([9; 8]),
                ..right
            },
            WhyRefused::OtherApproval,
        ),
        (
            Approved {
                digest: Digest([9; 32]),
                ..right
            },
            WhyRefused::OtherCall,
        ),
        (
            Approved {
                nonce: Nonce([9; 16]),
                ..right
            },
            WhyRefused::OtherNonce,
        ),
    ] {
        let refused = request.approved(&wrong, &by, NOW).unwrap_err();
        assert_eq!(refused.why, expected);
        request = *refused.request;
    }
    for bit in 0..256 {
        let mut digest = right.digest;
        digest.0[bit / 8] ^= 1 << (bit % 8);
        let refused = request
            .approved(&Approved { digest, ..right }, &by, NOW)
            .unwrap_err();
        assert_eq!(refused.why, WhyRefused::OtherCall);
        request = *refused.request;
    }
    let in_time = Millis(EXPIRES.0 - 1);
    let permit = request.approved(&right, &by, in_time).unwrap();
    assert_eq!(permit.digest(), right.digest);
}

#[test]
fn a_yes_that_comes_too_late_is_a_no() {
    for now in [EXPIRES, Millis(EXPIRES.0 + 1), Millis(u64::MAX)] {
        let request = Facts::exec("rm a").ask();
        let (yes, by) = (yes(&request), signed(&request));
        assert!(request.is_expired(now));
        assert_eq!(
            request.approved(&yes, &by, now).unwrap_err().why,
            WhyRefused::Expired
        );
    }
}

#[test]
fn tier_3_takes_a_signature_over_its_digest_and_nothing_less() {
    let request = Facts::exec("rm a").ask();
    assert_eq!(request.needs(), Needs::Signature);
    assert_eq!(request.card("").needs, Needs::Signature);
    let (yes, by) = (yes(&request), signed(&request));
    let refused = request.approved(&yes, &Consent::Unsigned, NOW).unwrap_err();
    assert_eq!(refused.why, WhyRefused::NotSigned);
    // A signature that holds, over the same command asked about under another number.
    let mut again = Facts::exec("rm a");
    again.question.nonce = Nonce([3; 16]);
    let other = signed(&again.ask());
    let refused = refused.request.approved(&yes, &other, NOW).unwrap_err();
    assert_eq!(refused.why, WhyRefused::OtherSigned);
    let permit = refused.request.approved(&yes, &by, NOW).unwrap();
    assert_eq!(permit.digest(), yes.digest);
    let Consent::Signed(signed) = by else {
        panic!("it is signed")
    };
    assert_eq!(signed.by(), Signer::Operator);

    let tier_2 = Facts::exec("cargo build").ask();
    assert_eq!(tier_2.needs(), Needs::Answer);
    // A signature over something else shows that something is wrong, whether or not it is needed.
    let yes = self::yes(&tier_2);
    let refused = tier_2.approved(&yes, &other, NOW).unwrap_err();
    assert_eq!(refused.why, WhyRefused::OtherSigned);
}

#[test]
fn only_the_operator_key_signs_as_the_operator() {
    let digest = Facts::exec("rm a").ask().digest();
    let (key, other) = (
        IdentityKey::from_seed(&[7; 32]),
        IdentityKey::from_seed(&[8; 32]),
    );
    assert!(Signed::by_operator(&key.public(), digest, &key.approve(digest)).is_ok());
    assert!(Signed::by_operator(&key.public(), digest, &other.approve(digest)).is_err());
    for bit in 0..512 {
        let mut altered = key.approve(digest);
        altered.0[bit / 8] ^= 1 << (bit % 8);
        assert!(Signed::by_operator(&key.public(), digest, &altered).is_err());
    }
}

#[test]
fn every_fact_of_a_call_is_in_its_digest() {
    let base = Facts::exec("rm a").ask().digest();
    type Change = fn(&mut Facts);
    let changes: [Change; 15] = [
        |f| {
            f.call = ToolCall::Exec {
                command: "rm b".into(),
            }
        },
        |f| {
            f.call = ToolCall::Exec {
                command: "rm  a".into(),
            }
        },
        |f| f.reference.session = "s2".parse().unwrap(),
        |f| f.reference.turn = TurnId(4),
        |f| f.reference.call = CallId(5),
        |f| f.principal = "guest".into(),
        |f| f.channel = "telegram".into(),
        |f| f.workspace = "/home/o/w2".into(),
        |f| f.labels = vec![Label::Private],
        |f| f.profile.sandbox = "docker".into(),
        |f| f.profile.environment = "other".into(),
        |f| f.profile.limits.wall_seconds += 1,
        |f| f.question.approval = ApprovalId([3; 8]),
        |f| f.question.nonce = Nonce([3; 16]),
        |f| f.question.expires = Millis(EXPIRES.0 + 1),
    ];
    let mut seen = vec![base];
    for change in changes {
        let mut facts = Facts::exec("rm a");
        change(&mut facts);
        let digest = facts.ask().digest();
        assert!(!seen.contains(&digest));
        seen.push(digest);
    }
    let again = Facts {
        now: Millis(5),
        ..Facts::exec("rm a")
    };
    assert_eq!(
        again.ask().digest(),
        base,
        "the time of asking is not a part of the call"
    );
}

#[test]
fn a_stored_approval_comes_back_as_it_was() {
    for command in [
        "rm a",
        "cargo build",
        "ls | sh",
        "ls $(x)",
        "cat a > b; make",
        "rm 'é \"x\" \\ 日'",
    ] {
        let request = Facts::exec(command).ask();
        let text = request.stored().as_str().to_owned();
        let back = StoredApproval::new(text)
            .load(Rules::shipped(), NOW)
            .unwrap();
        assert_eq!(back.digest(), request.digest());
        assert_eq!(back.card(""), request.card(""));
        assert_eq!(back.verdict(), request.verdict());
        let (yes, by) = (yes(&request), signed(&request));
        assert_eq!(
            back.approved(&yes, &by, NOW).unwrap().action(),
            request.approved(&yes, &by, NOW).unwrap().action()
        );
    }
}

#[test]
fn a_stored_approval_with_one_byte_changed_is_refused() {
    let stored = Facts::exec("rm a").ask().stored();
    let bytes = stored.as_str().as_bytes();
    for at in 0..bytes.len() {
        for byte in [bytes[at] ^ 1, bytes[at] ^ 0x20, b' ', b'0', b'"', b'9'] {
            let mut changed = bytes.to_vec();
            changed[at] = byte;
            let Ok(changed) = String::from_utf8(changed) else {
                continue;
            };
            if changed != stored.as_str() {
                assert!(
                    StoredApproval::new(changed.clone())
                        .load(Rules::shipped(), NOW)
                        .is_err(),
                    "{changed}"
                );
            }
        }
        let mut shorter = bytes.to_vec();
        shorter.remove(at);
        assert!(
            StoredApproval::new(String::from_utf8(shorter).unwrap())
                .load(Rules::shipped(), NOW)
                .is_err()
        );
        let mut longer = bytes.to_vec();
        longer.insert(at, b' ');
        assert!(
            StoredApproval::new(String::from_utf8(longer).unwrap())
                .load(Rules::shipped(), NOW)
                .is_err()
        );
    }
    let other = stored.as_str().replace("rules ", "rules 1");
    assert_eq!(
        StoredApproval::new(other)
            .load(Rules::shipped(), NOW)
            .unwrap_err(),
        BadStored::OtherRules
    );
    for text in ["", "{}", "null"] {
        assert!(matches!(
            StoredApproval::new(text.into()).load(Rules::shipped(), NOW),
            Err(BadStored::Broken(_))
        ));
    }
}

#[test]
fn a_call_that_needs_no_approval_cannot_be_stored_as_one() {
    let stored = Facts::exec("rm a").ask().stored();
    let forged = stored.as_str().replace("rm a", "ls a");
    assert_eq!(
        StoredApproval::new(forged)
            .load(Rules::shipped(), NOW)
            .unwrap_err(),
        BadStored::Changed
    );
}

#[test]
fn the_card_shows_all_of_it_and_nothing_that_deceives() {
    let said = "Please \u{202e}approve\u{1b}[2J";
    let script = format!("rm a{}\u{200b}; curl p\u{430}ypal.com", " ".repeat(400));
    let card = Facts::exec(&script).ask().card(said);
    assert!(
        card.action
            .contains("rm a<U+0020 x 400><U+200B>; curl p\u{430}ypal.com"),
        "{}",
        card.action
    );
    assert!(card.action.contains("WARNING: U+0430"), "{}", card.action);
    assert_eq!(card.said, "Please <U+202E>approve<U+001B>[2J");
    assert!(card.covers.contains("this one call"));
    assert_eq!(
        (card.digest, card.nonce, card.expires),
        (Facts::exec(&script).ask().digest(), QUESTION.nonce, EXPIRES)
    );
    let card = Facts::exec("cargo build").ask().card("");
    assert!(
        card.covers.contains("30 days")
            && card.covers.contains("owner")
            && card.covers.contains("web")
    );
}

#[test]
fn a_script_is_shown_with_every_word_every_pipe_and_every_redirection() {
    let shown = |command: &str| Facts::exec(command).ask().text();
    assert_eq!(
        shown("cat 'a b' c\\;d|tee \"x\" >'e f' 2>&1 && rm -f *.o || make &>>log"),
        "run without a shell: cat 'a b' 'c;d' | tee x > 'e f' 2>&1 && rm -f *.o || make >> log 2>&1"
    );
    assert!(shown("cargo build > p\u{430}ypal").contains("WARNING: U+0430"));
    // A pattern and a name that looks like one are not shown alike.
    assert_ne!(shown("rm *.o"), shown("rm '*.o'"));
}

#[test]
fn what_would_run_otherwise_has_another_digest_and_another_key() {
    let commands = [
        "cat a | tee b",
        "cat a; tee b",
        "cat a && tee b",
        "cat a || tee b",
        "cat a '|' tee b | tee b",
        "cat a | tee b > c",
        "cat a | tee b >> c",
        "cat a | tee b 2> c",
        "cat a > c | tee b",
        "cat a | tee b < c",
        "cat a | tee b 2>&1",
        "cat a | tee b > /tmp/c",
    ];
    let requests = commands.map(|command| Facts::exec(command).ask());
    let digests: HashSet<_> = requests
        .iter()
        .map(|request| request.digest().to_string())
        .collect();
    let keys: HashSet<_> = requests
        .iter()
        .map(|request| &request.judgement().key)
        .collect();
    assert_eq!(
        (digests.len(), keys.len()),
        (commands.len(), commands.len())
    );
}

#[test]
fn a_write_that_is_asked_about_shows_the_whole_content() {
    let mut facts = Facts::exec("");
    let content = format!("{}the last line", "x\n".repeat(10_000));
    facts.call = ToolCall::WriteFile {
        path: WorkspacePath::parse(".git/config").unwrap(),
        content,
    };
    let text = facts.ask().text();
    assert!(text.starts_with("write_file .git/config") && text.ends_with("the last line"));
}

#[test]
fn a_decision_takes_no_time_to_speak_of() {
    let started = std::time::Instant::now();
    for _ in 0..1000 {
        let _ = Facts::exec("grep -rn 'fn main' src --include=a").decide();
    }
    // A generous bound for an unoptimised build on a busy machine; the bench measures it.
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}
