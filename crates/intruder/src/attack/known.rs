//! What an attacker in a channel's place says as somebody whom the gateway knows: the owner, paired or logged in as
//! ever. Whoever is a stranger is turned away before roles, signatures and sessions are looked at.

use std::io;
use std::time::{Duration, Instant};

use protocol::channel::{ApprovalAnswer, ApprovalCard, ChannelRequest};
use protocol::ids::{ConversationId, MessageId, SenderId};
use protocol::passkey::Proof;
use sandbox::Program;
use serde_json::Value;

use super::links::answer_with_everything;
use super::wire::{ANSWER, Wire};
use super::{Attacker, Place};
use crate::scene::{Line, ORDINARY, SERIOUS};
use crate::table::Asset;

/// How long until the owner has paired it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes the owner's place on this channel, and tries what only others may.
pub(super) fn attack(place: &Place, attacker: &Attacker, wire: &Wire) -> io::Result<()> {
    let owner = match place.program {
        Program::ChannelWeb => log_in(attacker, wire)?,
        _ => be_paired(attacker, wire)?,
    };
    // What shows that its answers are looked at: to a question of tier 2 the same one counts.
    let card = be_asked(&owner, wire, ORDINARY)?;
    press(&owner, wire, &card, ApprovalAnswer::Approve)?;
    attacker.reporter.tell(&Line::Counted);
    let card = be_asked(&owner, wire, SERIOUS)?;
    answer_with_everything(attacker, &card, &owner.0, wire, " as the owner");
    press(&owner, wire, &card, ApprovalAnswer::Deny)?;
    if let Some(card) = &attacker.later.card {
        answer_with_everything(
            attacker,
            card,
            &owner.0,
            wire,
            " as the owner, to another channel",
        );
    }
    ask_for_another_s_transcript(attacker, &owner.0, wire);
    Ok(())
}

type Somebody = (SenderId, ConversationId);

fn parsed<T: serde::de::DeserializeOwned>(value: &Value) -> io::Result<T> {
    serde_json::from_value(value.clone()).map_err(io::Error::other)
}

/// With the one-time link of the owner.
fn log_in(attacker: &Attacker, wire: &Wire) -> io::Result<Somebody> {
    let token = attacker.later.login.clone();
    let login = ChannelRequest::Login { id: 3, token };
    let answer = wire.ask(&login, &["logged_in"])?;
    Ok((parsed(&answer["sender"])?, parsed(&answer["conversation"])?))
}

/// As a stranger, until the owner has let it in.
fn be_paired(attacker: &Attacker, wire: &Wire) -> io::Result<Somebody> {
    let sender = SenderId::parse("7").map_err(io::Error::other)?;
    let owner = (
        sender,
        ConversationId::parse("7").map_err(io::Error::other)?,
    );
    let until = Instant::now() + PATIENCE;
    for knock in 0.. {
        let answer = say(&owner, wire, &format!("knock-{knock}"), "hello")?;
        if answer["type"] == "accepted" {
            return Ok(owner);
        }
        if Instant::now() > until {
            return Err(io::Error::other("nobody let it in"));
        }
        attacker.reporter.tell(&Line::Knocked);
        std::thread::sleep(ANSWER / 10);
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn say(owner: &Somebody, wire: &Wire, message: &str, text: &str) -> io::Result<Value> {
    let inbound = ChannelRequest::Inbound {
        message: MessageId::parse(message).map_err(io::Error::other)?,
        sender: owner.0.clone(),
        sender_name: "owner".to_owned(),
        conversation: owner.1.clone(),
        text: text.to_owned(),
    };
    wire.ask(&inbound, &["accepted", "not_accepted"])
}

/// Says something for which the model wants a call that a person is asked about.
fn be_asked(owner: &Somebody, wire: &Wire, text: &str) -> io::Result<ApprovalCard> {
    let taken = say(owner, wire, text, text)?;
    if taken["type"] != "accepted" {
        return Err(io::Error::other(taken.to_string()));
    }
    parsed(&wire.await_one(&["approval"])?["card"])
}

/// Answers with a press, which has to count.
fn press(
    owner: &Somebody,
    wire: &Wire,
    card: &ApprovalCard,
    answer: ApprovalAnswer,
) -> io::Result<()> {
    let answer = ChannelRequest::Answer {
        approval: card.approval,
        digest: card.digest,
        nonce: card.nonce,
        sender: owner.0.clone(),
        answer,
        reason: String::new(),
        proof: Proof::Link,
    };
    let said = wire.ask(&answer, &["answer_refused", "approval_closed"])?;
    match said["type"] == "approval_closed" {
        true => Ok(()),
        false => Err(io::Error::other(said.to_string())),
    }
}

fn ask_for_another_s_transcript(attacker: &Attacker, owner: &SenderId, wire: &Wire) {
    let Ok(conversation) = ConversationId::parse(attacker.later.conversation.clone()) else {
        return;
    };
    let history = ChannelRequest::History {
        id: 4,
        sender: owner.clone(),
        conversation,
    };
    let told = wire.transcript(&history);
    let probe = "ask for its transcript as the owner";
    attacker.reporter.attempt(Asset::OtherSession, probe, &told);
}
