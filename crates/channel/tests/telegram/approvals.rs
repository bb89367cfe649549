//! Approvals by buttons.

use std::time::Duration;

use protocol::channel::{
    ApprovalAnswer, ApprovalCard, CallCard, CallState, ChannelEvent, ChannelRequest, Needs,
};
use protocol::event::Answer;
use protocol::ids::{ApprovalId, CallId, Digest, Nonce, SenderId, TurnId};
use protocol::passkey::Proof;
use protocol::time::Millis;
use testkit::telegram::BotMessage;

use crate::rig::{
    GatewayEnd, OWNER, Rig, accept, chat, delivered, inbound, opened, reply, session,
};

fn asked(action: &str) -> ApprovalCard {
    ApprovalCard {
        approval: ApprovalId([1; 8]),
        nonce: Nonce([2; 16]),
        digest: Digest([3; 32]),
        session: session(),
        turn: TurnId(1),
        call: CallId(1),
        action: action.to_owned(),
        reason: "rm is asked about every time".to_owned(),
        covers: "this call, once".to_owned(),
        said: "It is harmless.".to_owned(),
        expires: Millis::now().after(Duration::from_secs(600)),
        needs: Needs::Answer,
    }
}

fn ask(rig: &Rig, gateway: &GatewayEnd, card: ApprovalCard) -> BotMessage {
    gateway
        .send(&ChannelEvent::Approval {
            conversation: chat(OWNER),
            card,
        })
        .unwrap();
    let with_buttons = |server: &testkit::telegram::TelegramServer| {
        server
            .messages()
            .into_iter()
            .find(|message| !message.buttons.is_empty())
    };
    rig.server.wait(crate::rig::LIMIT, with_buttons).unwrap()
}

fn data(message: &BotMessage, text: &str) -> String {
    message
        .buttons
        .iter()
        .find(|button| button.text == text)
        .unwrap()
        .callback_data
        .clone()
}

fn close(gateway: &GatewayEnd, answer: Answer) {
    let approval = ApprovalId([1; 8]);
    gateway
        .send(&ChannelEvent::ApprovalClosed {
            conversation: chat(OWNER),
            approval,
            answer,
            over: None,
        })
        .unwrap();
}

#[test]
fn a_press_goes_to_the_gateway_in_the_name_of_who_pressed() {
    let (rig, gateway) = opened(OWNER);
    let message = ask(&rig, &gateway, asked("rm -rf notes"));
    assert!(message.text.contains("rm -rf notes") && message.text.contains("It is harmless."));

    let theirs = rig
        .server
        .user_presses(666, message.id, &data(&message, "Approve"));
    let expected = |sender: &str, answer| ChannelRequest::Answer {
        approval: ApprovalId([1; 8]),
        digest: Digest([3; 32]),
        nonce: Nonce([2; 16]),
        sender: SenderId::parse(sender).unwrap(),
        answer,
        reason: String::new(),
        proof: Proof::Link,
    };
    assert_eq!(
        gateway.receive().unwrap(),
        expected("666", ApprovalAnswer::Approve)
    );
    gateway
        .send(&ChannelEvent::AnswerRefused {
            approval: ApprovalId([1; 8]),
            sender: SenderId::parse("666").unwrap(),
            text: "You may not answer this.".to_owned(),
        })
        .unwrap();
    rig.until("the stranger is told", |server| {
        server.callback_answers().len() == 1
    });
    let told = &rig.server.callback_answers()[0];
    assert_eq!(
        (&told.query, told.text.as_str(), told.alert),
        (&theirs, "You may not answer this.", true)
    );
    assert_eq!(rig.messages(1)[0].buttons.len(), 2, "still open");

    let ours = rig
        .server
        .user_presses(OWNER, message.id, &data(&message, "Deny"));
    assert_eq!(
        gateway.receive().unwrap(),
        expected("7", ApprovalAnswer::Deny)
    );
    close(&gateway, Answer::Deny);
    rig.until("the buttons go", |server| {
        server.messages()[0].buttons.is_empty()
    });
    assert!(
        rig.server.messages()[0].text.ends_with("— Denied."),
        "{:?}",
        rig.server.messages()
    );
    rig.until("the owner is told", |server| {
        server
            .callback_answers()
            .iter()
            .any(|told| told.query == ours)
    });

    rig.server
        .user_presses(OWNER, message.id, &data(&message, "Approve"));
    rig.until("it is over", |server| server.callback_answers().len() == 3);
}

#[test]
fn a_reason_can_be_written_with_a_no_and_nothing_that_is_written_is_a_yes() {
    let (rig, gateway) = opened(OWNER);
    ask(&rig, &gateway, asked("rm -rf notes"));
    rig.writes(OWNER, "/deny not the notes");
    let answer = |sender: &str, why: &str| ChannelRequest::Answer {
        approval: ApprovalId([1; 8]),
        digest: Digest([3; 32]),
        nonce: Nonce([2; 16]),
        sender: SenderId::parse(sender).unwrap(),
        answer: ApprovalAnswer::Deny,
        reason: why.to_owned(),
        proof: Proof::Link,
    };
    assert_eq!(gateway.receive().unwrap(), answer("7", "not the notes"));
    gateway
        .send(&ChannelEvent::AnswerRefused {
            approval: ApprovalId([1; 8]),
            sender: SenderId::parse("7").unwrap(),
            text: "You may not answer this.".to_owned(),
        })
        .unwrap();
    assert_eq!(rig.messages(2)[1].text, "You may not answer this.");

    // Whatever else is written goes to the agent, as ever.
    for text in ["yes", "/approve", "/deny_this"] {
        rig.writes(OWNER, text);
        let (message, said) = inbound(&gateway);
        assert_eq!(said, text);
        accept(&gateway, message);
    }
    rig.writes(OWNER, &format!("/deny {}", "x".repeat(1001)));
    assert!(rig.messages(3)[2].text.contains("1000 bytes"));

    // Where two wait, nobody can tell which is meant.
    gateway
        .send(&ChannelEvent::Approval {
            conversation: chat(OWNER),
            card: ApprovalCard {
                approval: ApprovalId([4; 8]),
                ..asked("rm x")
            },
        })
        .unwrap();
    rig.messages(4);
    rig.writes(OWNER, "/deny");
    assert!(rig.messages(5)[4].text.contains("More than one question"));
    close(&gateway, Answer::Expired);
    rig.until("it is closed", |server| {
        server.messages()[0].buttons.is_empty()
    });
    rig.writes(OWNER, "/deny");
    let ChannelRequest::Answer {
        approval, reason, ..
    } = gateway.receive().unwrap()
    else {
        panic!("no answer")
    };
    assert_eq!((approval, reason.as_str()), (ApprovalId([4; 8]), ""));
    gateway
        .send(&ChannelEvent::ApprovalClosed {
            conversation: chat(OWNER),
            approval,
            answer: Answer::Deny,
            over: None,
        })
        .unwrap();
    rig.until("it is denied", |server| {
        server.messages()[3].text.ends_with("— Denied.")
    });
    rig.writes(OWNER, "/deny");
    assert_eq!(rig.messages(6)[5].text, "Nothing waits for an answer here.");
}

#[test]
fn a_press_that_is_made_up_or_about_another_call_goes_nowhere() {
    let (rig, gateway) = opened(OWNER);
    let message = ask(&rig, &gateway, asked("rm x"));
    let good = data(&message, "Approve");
    let other_digest = good.replace("0303030303030303", "0404040404040404");
    for made_up in ["", "approve", "🦀", other_digest.as_str(), &"x".repeat(64)] {
        rig.server.user_presses(OWNER, message.id, made_up);
    }
    // Under a message in another chat than the one where it was asked.
    rig.writes(8, "hi");
    let (other, _) = inbound(&gateway);
    accept(&gateway, other);
    let notice = ChannelEvent::Notice {
        delivery: 1,
        conversation: chat(8),
        ends_turn: None,
        text: "hello".to_owned(),
    };
    gateway.send(&notice).unwrap();
    assert_eq!(delivered(&gateway), 1);
    let elsewhere = rig.messages(2)[1].id;
    rig.server.user_presses(8, elsewhere, &good);
    rig.until("all are answered", |server| {
        server.callback_answers().len() == 6
    });
    rig.server.user_presses(OWNER, message.id, &good);
    let ChannelRequest::Answer { sender, .. } = gateway.receive().unwrap() else {
        panic!("no answer")
    };
    assert_eq!(sender.as_str(), "7", "the only press that counts");
}

#[test]
fn an_approval_that_comes_again_is_not_asked_twice_and_a_press_finds_it() {
    let (mut rig, gateway) = opened(OWNER);
    let message = ask(&rig, &gateway, asked("rm x"));
    drop(gateway);
    let gateway = rig.gateway();
    ask(&rig, &gateway, asked("rm x"));
    rig.crash();
    // Pressed while nobody was there, and before the card came again.
    rig.server
        .user_presses(OWNER, message.id, &data(&message, "Approve"));
    let gateway = rig.gateway();
    rig.until("it is fetched", |server| server.unconfirmed() == 0);
    ask(&rig, &gateway, asked("rm x"));
    let answer = gateway.receive().unwrap();
    assert!(
        matches!(answer, ChannelRequest::Answer { .. }),
        "{answer:?}"
    );
    close(&gateway, Answer::Approve);
    rig.until("the buttons go", |server| {
        server.messages()[0].buttons.is_empty()
    });
    assert_eq!(rig.server.messages().len(), 1);
    assert!(rig.server.messages()[0].text.ends_with("— Approved."));
}

#[test]
fn buttons_of_approvals_that_are_over_go_after_a_restart() {
    let (mut rig, gateway) = opened(OWNER);
    let message = ask(&rig, &gateway, asked("rm x"));
    // Sent after the card, so the card is known to be sent.
    reply(&gateway, 1, "x");
    assert_eq!(delivered(&gateway), 1);
    drop(gateway);
    rig.crash();
    let gateway = rig.gateway();
    rig.until("the buttons go", |server| {
        server.messages()[0].buttons.is_empty()
    });
    rig.server
        .user_presses(OWNER, message.id, &data(&message, "Approve"));
    rig.until("it is said to be over", |server| {
        server.callback_answers().len() == 1
    });
    assert!(
        rig.server.callback_answers()[0]
            .text
            .contains("no longer open")
    );
    reply(&gateway, 2, "y");
    assert_eq!(delivered(&gateway), 2, "no answer was passed on before");
}

#[test]
fn a_long_action_is_shown_whole_and_a_longer_one_cannot_be_approved() {
    let (rig, gateway) = opened(OWNER);
    let long = format!("write {} end-of-action", "0123456789 ".repeat(900));
    let message = ask(&rig, &gateway, asked(&long));
    let sent = rig.server.messages();
    let all: String = sent.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(
        (
            all.matches("0123456789").count(),
            all.matches("end-of-action").count()
        ),
        (900, 1)
    );
    assert_eq!(
        sent.last(),
        Some(&message),
        "the buttons are under the last part"
    );
    assert!(
        sent.iter()
            .rev()
            .skip(1)
            .all(|message| message.buttons.is_empty())
    );
    let approve = data(&message, "Approve");
    close(&gateway, Answer::Expired);
    rig.until("it is closed", |server| {
        server
            .messages()
            .iter()
            .all(|message| message.buttons.is_empty())
    });

    let message = ask(&rig, &gateway, asked(&"0123456789 ".repeat(20_000)));
    assert_eq!(message.buttons.len(), 1, "only deny");
    rig.server.user_presses(OWNER, message.id, &approve);
    rig.until("it is refused", |server| {
        server.callback_answers().len() == 1
    });
    assert!(rig.server.callback_answers()[0].text.contains("too long"));
}

#[test]
fn calls_that_run_make_no_noise_and_those_that_do_not_are_named() {
    let (rig, gateway) = opened(OWNER);
    for (call, state) in [
        (1, CallState::Running),
        (1, CallState::Done),
        (2, CallState::Refused),
        (2, CallState::Refused),
    ] {
        let card = CallCard {
            turn: TurnId(1),
            call: CallId(call),
            title: format!("call {call}"),
            state,
            detail: String::new(),
        };
        gateway
            .send(&ChannelEvent::Call {
                conversation: chat(OWNER),
                card,
            })
            .unwrap();
    }
    reply(&gateway, 1, "done");
    assert_eq!(delivered(&gateway), 1);
    assert_eq!(rig.server.texts(OWNER), ["Not run: call 2", "done"]);
}
