//! The gateway's side is played here, over a pair of sockets.

use std::os::unix::net::UnixStream;

use protocol::channel::Retry;

use super::*;
use crate::cards::tests::card;

type Gateway = Link<ChannelEvent, ChannelRequest>;

fn conversation() -> (Conversation, Gateway) {
    let (own, theirs) = UnixStream::pair().unwrap();
    let link = Link::<ChannelRequest, ChannelEvent>::new(own);
    let reader = link.try_clone().unwrap();
    let (to_self, happenings) = channel();
    thread::spawn(move || listen(&reader, &to_self));
    let conversation = Conversation {
        home: Home::at(std::path::Path::new("/nowhere")).unwrap(),
        link,
        happenings,
        conversation: ConversationId::parse("c-1").unwrap(),
        sender: SenderId::parse(SENDER).unwrap(),
        lines: Lines::default(),
    };
    (conversation, Gateway::new(theirs))
}

/// Sends a message and has the gateway say all of this. Gives what came of it, and what
/// the gateway heard after the message.
fn told(
    wait: Wait,
    events: fn(MessageId) -> Vec<ChannelEvent>,
) -> (Result<Outcome, Fault>, Vec<ChannelRequest>) {
    let (mut conversation, gateway) = conversation();
    let gateway = thread::spawn(move || {
        let ChannelRequest::Inbound { message, .. } = gateway.receive().unwrap() else {
            panic!("the message comes first");
        };
        for event in events(message) {
            gateway.send(&event).unwrap();
        }
        let mut heard = Vec::new();
        while let Ok(request) = gateway.receive() {
            heard.push(request);
        }
        heard
    });
    let outcome = conversation.turn("hello", Display::Nothing, wait);
    conversation.link.close();
    (outcome, gateway.join().unwrap())
}

fn place(name: &str) -> ConversationId {
    ConversationId::parse(name).unwrap()
}

fn session() -> SessionId {
    SessionId::parse("s-1").unwrap()
}

fn started(turn: u64) -> ChannelEvent {
    ChannelEvent::TurnStarted {
        conversation: place("c-1"),
        session: session(),
        turn: TurnId(turn),
    }
}

fn reply(conversation: &str, turn: u64) -> ChannelEvent {
    ChannelEvent::Reply {
        delivery: turn,
        conversation: place(conversation),
        session: session(),
        turn: TurnId(turn),
        text: format!("answer {turn}"),
    }
}

fn notice(turn: Option<u64>) -> ChannelEvent {
    ChannelEvent::Notice {
        delivery: 9,
        conversation: place("c-1"),
        ends_turn: turn.map(TurnId),
        text: "no".to_owned(),
    }
}

#[test]
fn only_the_answer_to_this_message_ends_it_and_only_answers_of_here_are_confirmed() {
    let (outcome, heard) = told(Wait::ForEnd, |message| {
        let accepted = ChannelEvent::Accepted {
            message,
            session: session(),
        };
        vec![
            reply("c-1", 1),
            accepted,
            started(2),
            reply("c-2", 2),
            reply("c-1", 2),
        ]
    });
    let outcome = outcome.unwrap();
    assert_eq!(outcome.reply.as_deref(), Some("answer 2"));
    assert_eq!(
        (outcome.session, outcome.turn),
        (Some(session()), Some(TurnId(2)))
    );
    let delivered = |delivery| ChannelRequest::Delivered { delivery };
    assert_eq!(heard, [delivered(1), delivered(2)]);
}

#[test]
fn a_turn_that_failed_has_the_reason_and_no_answer() {
    let (outcome, _) = told(Wait::ForEnd, |_| {
        vec![started(1), notice(None), notice(Some(1))]
    });
    let outcome = outcome.unwrap();
    assert_eq!(
        (outcome.reply, outcome.error.as_deref()),
        (None, Some("no"))
    );
}

#[test]
fn a_message_that_was_not_taken_is_a_refusal_and_another_one_s_is_not() {
    let (outcome, _) = told(Wait::ForEnd, |message| {
        let not_accepted = |message, text: &str| ChannelEvent::NotAccepted {
            message,
            retry: Retry::Later,
            text: text.to_owned(),
        };
        let other = MessageId::parse("other").unwrap();
        vec![
            not_accepted(other, "another's"),
            not_accepted(message, "full\u{1b}"),
        ]
    });
    assert!(matches!(outcome, Err(Fault::Refused(why)) if why == "fullU+001B"));
}

#[test]
fn without_waiting_the_question_is_what_comes_back() {
    let (outcome, heard) = told(Wait::ForQuestion, |_| {
        let asked = ChannelEvent::Approval {
            conversation: place("c-1"),
            card: card(),
        };
        vec![started(2), asked.clone(), asked]
    });
    assert_eq!(outcome.unwrap().pending, [card()]);
    assert!(heard.is_empty(), "nothing was answered: {heard:?}");
}

#[test]
fn a_gateway_that_goes_away_or_speaks_out_of_turn_is_a_fault() {
    let (outcome, _) = told(Wait::ForEnd, |_| vec![started(1), ChannelEvent::Welcome]);
    assert!(matches!(outcome, Err(Fault::Unexpected(_))));
}
