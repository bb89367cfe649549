//! Questions to a person: who answers, how often, in time, and to what exactly.

use std::fs;
use std::time::Duration;

use config::{Home, read_key};
use protocol::channel::{ApprovalAnswer, ApprovalCard, ChannelEvent, ChannelRequest};
use protocol::identity::IdentityKey;
use protocol::ids::{SenderId, Signature};
use protocol::operator::{OperatorReply, OperatorRequest};
use protocol::passkey::Proof;
use serde_json::{Value, json};
use testkit::model::{Script, ScriptedModel, Step};
use testkit::operator::{operator, operator_key, terminal};
use testkit::passkey::{Made, SoftKey};
use testkit::system::{Running, System, wait_for};

/// A model that wants this command run, and then says that it is done.
fn wanting(command: &str) -> ScriptedModel {
    let call = Step::call("exec", json!({ "command": command }));
    ScriptedModel::start(Script::steps([call, Step::text("done")])).expect("a model")
}

/// A question that waits, and the `ask` that waits with it.
fn asked(system: &System) -> (Running, Value) {
    let ask = system.spawn(&["ask", "--json", "go"]);
    let card = system.wait_for_approval();
    (ask, card)
}

fn answers(system: &System) -> Vec<Value> {
    let rows = system.rows("approval_answered");
    rows.iter()
        .map(|row| row["event"]["answer"].clone())
        .collect()
}

fn text<'a>(card: &'a Value, key: &str) -> &'a str {
    card[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} in {card}"))
}

#[test]
fn a_yes_lets_exactly_this_run_once() {
    let model = wanting("sh -c 'echo x >> log'");
    let system = System::start(model.port(), "");
    let (ask, card) = asked(&system);
    assert!(text(&card, "action").contains("echo x >> log"));
    assert!(!system.workspace().join("log").exists());
    let yes = system.approve(&card);
    assert!(yes.status.success());
    let answer = ask.json();
    assert_eq!(answer["reply"], "done");
    assert_eq!(answer["calls"][0]["state"], "done");
    let log = fs::read_to_string(system.workspace().join("log"));
    assert_eq!(log.expect("the file"), "x\n");

    // The same yes once more is one to a question that is closed.
    let again = system.approve(&card);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(answers(&system), ["approve"]);
    let asked = system.rows("approval_asked").remove(0);
    let permit = system.rows("permit").remove(0);
    assert_eq!(asked["event"]["digest"], permit["event"]["digest"]);
    system.assert_record_is_sound();
}

#[test]
fn a_no_is_told_to_the_model_and_nothing_runs() {
    let model = wanting("rm -rf log");
    let system = System::start(model.port(), "");
    fs::write(system.workspace().join("log"), "x").expect("a file");
    let (ask, card) = asked(&system);
    assert!(system.deny(&card).status.success());
    let answer = ask.json();
    assert_eq!(answer["calls"][0]["state"], "refused");
    assert!(system.workspace().join("log").exists());
    let told = model.requests().last().expect("a request").messages();
    let last = told.last().expect("a message");
    assert!(last.contains("a person said no"), "{last}");
    assert_eq!(answers(&system), ["deny"]);
    assert!(system.rows("permit").is_empty());
    system.assert_record_is_sound();
}

#[test]
fn silence_is_no() {
    let model = wanting("touch made");
    let system = System::start(model.port(), "[approvals]\nexpire_seconds = 10\n");
    let (ask, card) = asked(&system);
    let answer = ask.json();
    assert_eq!(answer["calls"][0]["state"], "refused");
    assert!(text(&answer["calls"][0], "detail").contains("nobody answered in time"));
    assert_eq!(answers(&system), ["expired"]);
    assert_eq!(system.approve(&card).status.code(), Some(1));
    assert!(!system.workspace().join("made").exists());
    system.assert_record_is_sound();
}

#[test]
fn of_many_answers_at_once_exactly_one_counts() {
    let model = wanting("sh -c 'echo x >> log'");
    let system = System::start(model.port(), "");
    let (ask, card) = asked(&system);
    let (approval, digest) = (text(&card, "approval"), text(&card, "digest"));
    let racers: Vec<Running> = (0..6)
        .map(|number| match number % 2 {
            0 => system.spawn(&["approvals", "approve", approval, "--confirm-digest", digest]),
            _ => system.spawn(&["approvals", "deny", approval]),
        })
        .collect();
    let codes: Vec<_> = racers.into_iter().map(|racer| racer.finish().0).collect();
    let won = codes.iter().position(|code| *code == Some(0));
    let won = won.expect("somebody was first");
    assert_eq!(
        codes.iter().filter(|code| **code == Some(0)).count(),
        1,
        "{codes:?}"
    );
    let state = ask.json()["calls"][0]["state"].clone();
    let log = fs::read_to_string(system.workspace().join("log")).unwrap_or_default();
    match won % 2 {
        0 => {
            assert_eq!((state, log.as_str()), (json!("done"), "x\n"));
            assert_eq!(answers(&system), ["approve"]);
        }
        _ => {
            assert_eq!((state, log.as_str()), (json!("refused"), ""));
            assert_eq!(answers(&system), ["deny"]);
        }
    }
    system.assert_record_is_sound();
}

#[test]
fn a_digest_with_one_digit_changed_approves_nothing() {
    let model = wanting("touch made");
    let system = System::start(model.port(), "");
    let (ask, card) = asked(&system);
    let digest = text(&card, "digest");
    for at in [0, 15, digest.len() - 1] {
        let other = if digest.as_bytes()[at] == b'0' {
            "1"
        } else {
            "0"
        };
        let mut changed = digest.to_owned();
        changed.replace_range(at..=at, other);
        let approval = text(&card, "approval");
        let arguments = [
            "approvals",
            "approve",
            approval,
            "--confirm-digest",
            &changed,
        ];
        let (code, _, err) = system.spawn(&arguments).finish();
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("nothing was approved"), "{err}");
    }
    assert!(!system.workspace().join("made").exists());
    assert!(answers(&system).is_empty());
    assert!(system.approve(&card).status.success());
    assert_eq!(ask.json()["reply"], "done");
    system.assert_record_is_sound();
}

#[test]
fn the_gateway_itself_refuses_an_answer_with_one_byte_changed_and_a_replay() {
    let model = wanting("touch made");
    let system = System::start(model.port(), "");
    let (ask, card) = asked(&system);
    let card: ApprovalCard = serde_json::from_value(card).expect("a card");
    let gateway = operator(&system);
    let key = operator_key(&system);
    let (approval, right) = (card.approval, key.approve(card.digest));
    let say = |request| {
        gateway.send(&request).expect("it is sent");
        gateway.receive().expect("an answer")
    };
    let yes = |digest, nonce, signature| {
        say(OperatorRequest::Approve {
            approval,
            digest,
            nonce,
            signature,
        })
    };
    let no = |digest, nonce| {
        let reason = String::new();
        say(OperatorRequest::Deny {
            approval,
            digest,
            nonce,
            reason,
        })
    };
    let refused = |reply| matches!(reply, OperatorReply::Refused { .. });
    for at in [0, 13, 31] {
        let mut digest = card.digest;
        digest.0[at] ^= 1;
        assert!(refused(yes(digest, card.nonce, right)));
        assert!(refused(yes(digest, card.nonce, key.approve(digest))));
        assert!(refused(no(digest, card.nonce)));
        // Signed for another call.
        assert!(refused(yes(card.digest, card.nonce, key.approve(digest))));
    }
    for at in [0, 15] {
        let mut nonce = card.nonce;
        nonce.0[at] ^= 0x80;
        assert!(refused(yes(card.digest, nonce, right)));
        assert!(refused(no(card.digest, nonce)));
    }
    for at in [0, 40, 63] {
        let mut signature = right;
        signature.0[at] ^= 1;
        assert!(refused(yes(card.digest, card.nonce, signature)));
    }
    assert_eq!(system.approvals().len(), 1);
    assert!(answers(&system).is_empty());
    assert_eq!(yes(card.digest, card.nonce, right), OperatorReply::Done);
    assert!(refused(yes(card.digest, card.nonce, right)));
    assert_eq!(ask.json()["reply"], "done");
    assert_eq!(system.rows("permit").len(), 1);
    let answered = system.rows("approval_answered").remove(0);
    assert_eq!(answered["event"]["signed"], json!({ "by": "operator" }));
    system.assert_record_is_sound();
}

/// What stands for a channel's program that was taken over: the link and key of the terminal,
/// and everything that it was shown, but not the operator key.
#[test]
fn whoever_holds_a_channel_s_link_and_key_cannot_approve_tier_3() {
    let model = wanting("rm made");
    let system = System::start(model.port(), "");
    fs::write(system.workspace().join("made"), "x").expect("a file");
    let (ask, card) = asked(&system);
    assert_eq!(card["needs"], "signature");
    let card: ApprovalCard = serde_json::from_value(card).expect("a card");
    let channel = terminal(&system);
    let (thief, _) = IdentityKey::generate().expect("a key");
    let keys = Home::at(system.home()).expect("a home");
    let terminal_key = read_key(&keys, &"terminal".parse().expect("a name")).expect("its key");
    for proof in [
        Proof::Link,
        Proof::Operator {
            signature: thief.approve(card.digest),
        },
        Proof::Operator {
            signature: terminal_key.approve(card.digest),
        },
        Proof::Operator {
            signature: Signature([0; 64]),
        },
        Proof::Passkey {
            assertion: SoftKey::generate().sign(&Made::yes(card.digest, "http://localhost:1")),
        },
    ] {
        let sender = SenderId::parse("somebody").expect("an id");
        let answer = ChannelRequest::Answer {
            approval: card.approval,
            digest: card.digest,
            nonce: card.nonce,
            sender,
            answer: ApprovalAnswer::Approve,
            reason: String::new(),
            proof,
        };
        channel.send(&answer).expect("it is sent");
        let told = channel.receive().expect("an answer");
        assert!(
            matches!(told, ChannelEvent::AnswerRefused { .. }),
            "{told:?}"
        );
    }
    assert!(answers(&system).is_empty());
    assert!(system.workspace().join("made").exists());
    let card = system.wait_for_approval();
    assert!(system.approve(&card).status.success());
    assert_eq!(ask.json()["reply"], "done");
    assert!(!system.workspace().join("made").exists());
    system.assert_record_is_sound();
}

#[test]
fn a_no_can_have_a_reason_that_the_model_sees() {
    let model = wanting("rm log");
    let system = System::start(model.port(), "");
    fs::write(system.workspace().join("log"), "x").expect("a file");
    let (ask, card) = asked(&system);
    let approval = text(&card, "approval");
    let reason = "not the log, take the copies";
    let denied = system.bulkhead(&["approvals", "deny", approval, "--reason", reason]);
    assert!(denied.status.success());
    assert_eq!(ask.json()["calls"][0]["state"], "refused");
    let told = model.requests().last().expect("a request").messages();
    let last = told.last().expect("a message");
    assert!(
        last.contains("a person said no: not the log, take the copies"),
        "{last}"
    );
    system.assert_record_is_sound();
}

#[test]
fn an_approval_of_one_call_is_none_of_another() {
    let model = wanting("rm a");
    let system = System::start(model.port(), "");
    let (ask, first) = asked(&system);
    assert!(system.approve(&first).status.success());
    assert_eq!(ask.json()["reply"], "done");
    // The same command in a later turn is another call with another digest and nonce.
    model.push(Step::call("exec", json!({ "command": "rm a" })));
    model.push(Step::text("done"));
    let (ask, second) = asked(&system);
    assert_eq!(first["action"], second["action"]);
    for key in ["approval", "digest", "nonce"] {
        assert_ne!(first[key], second[key]);
    }
    let (approval, digest) = (text(&second, "approval"), text(&first, "digest"));
    let replay = system.spawn(&["approvals", "approve", approval, "--confirm-digest", digest]);
    assert_eq!(replay.finish().0, Some(1));
    assert!(system.deny(&second).status.success());
    assert_eq!(ask.json()["calls"][0]["state"], "refused");
    system.assert_record_is_sound();
}

#[test]
fn a_yes_in_the_chat_is_inert() {
    let model = wanting("touch made");
    let system = System::start(model.port(), "");
    let (ask, card) = asked(&system);
    let session = text(&card, "session").to_owned();
    // It becomes the next message of the session and waits for its turn.
    model.push(Step::text("what do you mean?"));
    let yes = system.spawn(&["ask", "--json", "--session", &session, "yes, approve it"]);
    wait_for("the message is in the record", || {
        (system.rows("inbound").len() == 2).then_some(())
    });
    assert_eq!(system.approvals().len(), 1);
    assert!(answers(&system).is_empty());
    assert!(!system.workspace().join("made").exists());
    assert!(system.deny(&card).status.success());
    assert_eq!(ask.json()["calls"][0]["state"], "refused");
    assert_eq!(yes.json()["reply"], "what do you mean?");
    assert!(!system.workspace().join("made").exists());
    system.assert_record_is_sound();
}

#[test]
fn who_stops_the_turn_withdraws_its_question() {
    let model = wanting("touch made");
    let system = System::start(model.port(), "");
    let (ask, card) = asked(&system);
    let session = text(&card, "session").to_owned();
    system
        .spawn(&["ask", "--session", &session, "/stop"])
        .finish();
    let answer = ask.json();
    assert_eq!(answer["reply"], Value::Null);
    assert_eq!(answer["pending"], json!([]));
    assert_eq!(answers(&system), ["cancelled"]);
    assert_eq!(system.approve(&card).status.code(), Some(1));
    assert!(!system.workspace().join("made").exists());
    system.assert_record_is_sound();
}

#[test]
fn a_question_is_told_to_scripts_that_do_not_wait() {
    let model = wanting("touch made");
    let system = System::start(model.port(), "");
    let left = system.json(&["ask", "--no-wait", "go"]);
    assert_eq!(left["pending"].as_array().map(Vec::len), Some(1));
    let card = &left["pending"][0];
    assert_eq!(*card, system.wait_for_approval());
    assert!(system.approve(card).status.success());
    wait_for("the turn ends without anybody there", || {
        (!system.rows("reply").is_empty()).then_some(())
    });
    assert!(system.workspace().join("made").exists());
    system.assert_record_is_sound();
}

#[test]
fn many_questions_of_one_answer_are_each_put() {
    let calls = ["rm a", "rm b", "rm c"].map(|command| ("exec", json!({ "command": command })));
    let script = Script::steps([Step::calls(calls), Step::text("done")]);
    let model = ScriptedModel::start(script).expect("a model");
    let system = System::start(model.port(), "");
    for name in ["a", "b", "c"] {
        fs::write(system.workspace().join(name), "").expect("a file");
    }
    let ask = system.spawn(&["ask", "--json", "go"]);
    let first = system.wait_for_approval();
    assert!(system.approve(&first).status.success());
    let second = system.wait_for_approval_other_than(&first);
    assert!(system.deny(&second).status.success());
    let third = system.wait_for_approval_other_than(&second);
    assert!(system.approve(&third).status.success());
    assert_eq!(ask.json()["reply"], "done");
    let left = |name: &str| system.workspace().join(name).exists();
    assert_eq!([left("a"), left("b"), left("c")], [false, true, false]);
    assert!(model.wait_for_requests(2, Duration::from_secs(30)));
    system.assert_record_is_sound();
}
