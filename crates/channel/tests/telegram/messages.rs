//! Messages both ways.

use std::time::Duration;

use protocol::channel::{ChannelEvent, ChannelRequest, Retry};
use protocol::control::Control;
use protocol::ids::{SenderId, TurnId};
use testkit::telegram::{Chat, Fault};

use crate::rig::{OWNER, Rig, accept, chat, delivered, inbound, opened, reply, session};

#[test]
fn a_conversation_there_and_back() {
    let (rig, gateway) = Rig::with_gateway();
    let number = rig.writes(OWNER, "what is the time?");
    let request = gateway.receive().unwrap();
    let ChannelRequest::Inbound {
        message,
        sender,
        sender_name,
        conversation,
        text,
    } = request
    else {
        panic!("{request:?}")
    };
    assert_eq!(message.as_str(), format!("4242:7:{number}"));
    assert_eq!(
        (sender, sender_name.as_str()),
        (SenderId::parse("7").unwrap(), "User 7")
    );
    assert_eq!(
        (conversation, text.as_str()),
        (chat(OWNER), "what is the time?")
    );
    assert_eq!(rig.server.unconfirmed(), 1, "not in the record yet");
    accept(&gateway, message);
    rig.until("the update is confirmed", |server| {
        server.unconfirmed() == 0
    });

    let turn = TurnId(1);
    gateway
        .send(&ChannelEvent::TurnStarted {
            conversation: chat(OWNER),
            session: session(),
            turn,
        })
        .unwrap();
    rig.until("typing", |server| {
        server
            .typing()
            .first()
            .is_some_and(|(chat, _)| *chat == OWNER)
    });
    reply(&gateway, 5, "It is **noon**.");
    assert_eq!(delivered(&gateway), 5);
    let sent = rig.messages(1);
    assert_eq!(
        (sent[0].chat, sent[0].text.as_str()),
        (OWNER, "It is noon.")
    );
    let [bold] = sent[0].entities.as_slice() else {
        panic!("{sent:?}")
    };
    assert_eq!(
        (bold.kind.as_str(), bold.offset, bold.length),
        ("bold", 6, 4)
    );
}

#[test]
fn typing_comes_again_while_the_turn_runs_and_ends_with_it() {
    let (rig, gateway) = opened(OWNER);
    let started = ChannelEvent::TurnStarted {
        conversation: chat(OWNER),
        session: session(),
        turn: TurnId(1),
    };
    gateway.send(&started).unwrap();
    rig.until("typing twice", |server| server.typing().len() == 2);
    let typing = rig.server.typing();
    let apart = typing[1].1 - typing[0].1;
    assert!(
        apart > Duration::from_secs(4) && apart < Duration::from_secs(9),
        "{apart:?}"
    );
    reply(&gateway, 1, "done");
    delivered(&gateway);
    let count = rig.server.typing().len();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(rig.server.typing().len(), count);
}

#[test]
fn a_crash_before_the_record_loses_nothing_and_doubles_nothing() {
    let (mut rig, gateway) = Rig::with_gateway();
    rig.writes(OWNER, "one");
    rig.writes(OWNER, "two");
    let (first, text) = inbound(&gateway);
    assert_eq!(text, "one");
    accept(&gateway, first.clone());
    let (second, text) = inbound(&gateway);
    assert_eq!(text, "two");
    // Time enough for a poll that would confirm too much.
    std::thread::sleep(Duration::from_millis(1500));
    rig.crash();
    assert!(
        rig.server.unconfirmed() >= 1,
        "the second was never accepted"
    );
    let gateway = rig.gateway();
    // The first may come again, but then under its id, by which the gateway drops it.
    let mut again = inbound(&gateway);
    if again.0 == first {
        accept(&gateway, again.0);
        again = inbound(&gateway);
    }
    assert_eq!(again, (second.clone(), "two".to_owned()));
    accept(&gateway, second);
    rig.until("both are confirmed", |server| server.unconfirmed() == 0);
}

#[test]
fn without_a_gateway_messages_stay_with_telegram() {
    let rig = Rig::new();
    rig.writes(OWNER, "early");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(rig.server.unconfirmed(), 1);
    let gateway = rig.gateway();
    let (message, text) = inbound(&gateway);
    assert_eq!(text, "early");
    // The record is not to be had: the person is told once, and the message comes again.
    for _ in 0..2 {
        let text = "The record is not to be had; I will try again.".to_owned();
        let later = ChannelEvent::NotAccepted {
            message: message.clone(),
            retry: Retry::Later,
            text,
        };
        gateway.send(&later).unwrap();
        assert_eq!(inbound(&gateway).0, message);
    }
    assert_eq!(rig.server.unconfirmed(), 1);
    drop(gateway);
    let gateway = rig.gateway();
    assert_eq!(inbound(&gateway).0, message, "over the new link");
    accept(&gateway, message);
    rig.until("it is confirmed", |server| server.unconfirmed() == 0);
    assert_eq!(rig.server.texts(OWNER).len(), 1);
}

#[test]
fn what_waits_for_the_record_holds_up_nobody_else() {
    let (rig, gateway) = Rig::with_gateway();
    rig.writes(OWNER, "first");
    let (first, _) = inbound(&gateway);
    rig.writes(8, "second");
    let (second, text) = inbound(&gateway);
    assert_eq!(text, "second");
    accept(&gateway, second);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(
        rig.server.unconfirmed(),
        2,
        "the first is not in the record"
    );
    accept(&gateway, first);
    rig.until("both are confirmed", |server| server.unconfirmed() == 0);
}

#[test]
fn a_message_refused_for_good_is_confirmed_and_the_person_told() {
    let (rig, gateway) = Rig::with_gateway();
    rig.writes(OWNER, "x");
    let (message, _) = inbound(&gateway);
    let text = "That is too long.".to_owned();
    gateway
        .send(&ChannelEvent::NotAccepted {
            message,
            retry: Retry::Never,
            text,
        })
        .unwrap();
    rig.until("it is confirmed", |server| server.unconfirmed() == 0);
    assert_eq!(rig.messages(1)[0].text, "That is too long.");
}

#[test]
fn a_stranger_gets_the_gateway_s_notice_and_no_link_in_it() {
    let (rig, gateway) = Rig::with_gateway();
    rig.writes(666, "let me in");
    let (message, _) = inbound(&gateway);
    accept(&gateway, message);
    let text = "Pairing code: 1234. The owner runs: bulkhead pair approve 1234".to_owned();
    gateway
        .send(&ChannelEvent::Notice {
            delivery: 1,
            conversation: chat(666),
            ends_turn: None,
            text: text.clone(),
        })
        .unwrap();
    assert_eq!(delivered(&gateway), 1);
    assert_eq!(rig.server.texts(666), [text]);
}

#[test]
fn a_photo_is_answered_with_a_hint_and_a_group_s_chatter_is_not_read() {
    let (rig, gateway) = Rig::with_gateway();
    rig.server.user_sends_photo(OWNER, &Chat::private(OWNER));
    rig.server.user_sends_photo(OWNER, &Chat::private(OWNER));
    let group = Chat::group(-1005);
    rig.server.user_writes(OWNER, &group, "just chatting");
    rig.server
        .user_writes(OWNER, &group, "@testkit_bot what now?");
    let (_, text) = inbound(&gateway);
    assert_eq!(text, "@testkit_bot what now?");
    assert_eq!(rig.messages(1)[0].text, "I can read text only for now.");
    rig.until("all but the last are confirmed", |server| {
        server.unconfirmed() == 1
    });
    assert_eq!(rig.server.messages().len(), 1, "one hint is enough");
}

#[test]
fn a_long_reply_comes_in_parts_that_telegram_takes() {
    let (rig, gateway) = opened(OWNER);
    let code = "    let s = \"😀😀😀😀😀😀😀😀😀😀😀😀\";\n".repeat(120);
    let words = "👩‍👩‍👧‍👦 семья and some **bold** words\n".repeat(150);
    reply(
        &gateway,
        1,
        &format!("{words}\n```rust\n{code}```\n\nthe end"),
    );
    assert_eq!(delivered(&gateway), 1);
    let sent = rig.server.messages();
    assert!(sent.len() > 2, "{}", sent.len());
    let all: String = sent.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(all.matches("😀").count(), 120 * 12);
    assert_eq!(all.matches("👩‍👩‍👧‍👦").count(), 150);
    assert!(all.ends_with("the end"));
    let with_code: Vec<_> = sent
        .iter()
        .filter(|message| message.text.contains("let s"))
        .collect();
    assert!(with_code.len() > 1, "the code is cut");
    for message in with_code {
        let pre = message
            .entities
            .iter()
            .find(|entity| entity.kind == "pre")
            .unwrap();
        assert_eq!(pre.language.as_deref(), Some("rust"));
    }
}

#[test]
fn nothing_in_a_reply_becomes_markup_or_a_link_of_its_own() {
    let (rig, gateway) = opened(OWNER);
    let hostile = "<a href=\"https://evil.example/?q=secret\">tap</a> [bank](https://evil.example/?q=secret) \
        ![x](https://evil.example/p.png?q=secret) https://evil.example/ evil.example/x </pre><b>\n\
        [r]: https://evil.example/ref\n[text][r] <script>x</script> tg://user?id=7 `` ` `` ]]> &amp; \u{202e}x **ev**il.com";
    reply(&gateway, 1, hostile);
    assert_eq!(delivered(&gateway), 1);
    let sent = rig.messages(1);
    assert!(
        sent[0].text.contains("<script>x</script>"),
        "{}",
        sent[0].text
    );
    assert!(!sent[0].previews);
    let kinds: Vec<_> = sent[0]
        .entities
        .iter()
        .map(|entity| entity.kind.as_str())
        .collect();
    assert!(
        kinds.iter().all(|kind| *kind == "code"),
        "{kinds:?} in {}",
        sent[0].text
    );
}

#[test]
fn a_reply_that_comes_again_is_not_sent_again() {
    let (mut rig, gateway) = opened(OWNER);
    reply(&gateway, 1, "once");
    assert_eq!(delivered(&gateway), 1);
    drop(gateway);
    let gateway = rig.gateway();
    reply(&gateway, 1, "once");
    assert_eq!(delivered(&gateway), 1);
    rig.crash();
    let gateway = rig.gateway();
    reply(&gateway, 1, "once");
    assert_eq!(delivered(&gateway), 1);
    assert_eq!(rig.server.texts(OWNER), ["once"]);
    // A gateway that begins anew counts from one, too.
    reply(&gateway, 1, "another");
    assert_eq!(delivered(&gateway), 1);
    assert_eq!(rig.server.texts(OWNER), ["once", "another"]);
}

#[test]
fn told_to_stop_it_confirms_what_is_settled_and_ends_well() {
    let (mut rig, gateway) = opened(OWNER);
    rig.until("the first is confirmed", |server| server.unconfirmed() == 0);
    rig.server.fail_next("getUpdates", 1, Fault::Hang);
    rig.writes(OWNER, "last words");
    let (message, _) = inbound(&gateway);
    accept(&gateway, message);
    // The poll that would confirm it is the one that hangs.
    rig.until("that poll", |server| server.next_faults() == 0);
    assert_eq!(rig.server.unconfirmed(), 1);
    rig.supervisor.send(&Control::Stop).unwrap();
    assert_eq!(rig.exit(), Some(0));
    assert_eq!(rig.server.unconfirmed(), 0);
}
