//! A conversation in the terminal: one message, what comes back, and the answers that the
//! person at this terminal gives meanwhile.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use config::Home;
use protocol::channel::{
    ApprovalAnswer, ApprovalCard, CallCard, ChannelEvent, ChannelRequest, MAX_TEXT,
};
use protocol::event::Answer;
use protocol::frame::{Link, LinkError};
use protocol::ids::{
    ApprovalId, CallId, ConversationId, MessageId, SenderId, SessionId, TurnId, hex, random,
};
use protocol::time::Millis;
use serde::Serialize;

use crate::fault::Fault;
use crate::interrupt::Signal;
use crate::terminal::{Lines, Typed, YesNo, can_ask, dim, harmless};
use crate::{cards, connect, interrupt, output};

/// How often typed answers are looked for while something else may come.
const GLANCE: Duration = Duration::from_millis(40);

/// Who writes here, in the terminal's own numbering.
const SENDER: &str = "operator";

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The gateway said something.
    Event(ChannelEvent),
    /// The link is gone.
    Gone(LinkError),
    /// The person wants it to stop.
    Stop(Signal),
}

/// What is shown while the turn runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Display {
    /// Tokens, calls and questions, as they come.
    Live,
    /// Nothing; the caller prints what came of it.
    Nothing,
}

/// When to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// When the turn is over.
    ForEnd,
    /// When it is over, or needs an answer.
    ForQuestion,
}

/// What came of a message. Its JSON form is what scripts use.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Outcome {
    /// Where the message went.
    pub(crate) session: Option<SessionId>,
    /// The turn that answered it.
    pub(crate) turn: Option<TurnId>,
    /// The answer.
    pub(crate) reply: Option<String>,
    /// The calls with their last state, in order.
    pub(crate) calls: Vec<CallCard>,
    /// What waits for an answer.
    pub(crate) pending: Vec<ApprovalCard>,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// A conversation.
pub(crate) struct Conversation {
    home: Home,
    link: Link<ChannelRequest, ChannelEvent>,
    happenings: Receiver<Happening>,
    conversation: ConversationId,
    sender: SenderId,
    lines: Lines,
}

impl Conversation {
    /// Goes on with a session, or begins a new one.
    pub(crate) fn open(home: &Home, session: Option<&SessionId>) -> Result<Self, Fault> {
        let (to_self, happenings) = channel();
        let stops = to_self.clone();
        interrupt::listen(move |signal| {
            // Nobody listens any more only when the process ends.
            let _ = stops.send(Happening::Stop(signal));
        })?;
        let link = connect::terminal(home)?;
        let reader = link.try_clone().map_err(Fault::link("the gateway"))?;
        thread::spawn(move || listen(&reader, &to_self));
        let conversation = match session {
            Some(session) => parsed(ConversationId::parse(format!("session:{session}")))?,
            None => new_conversation()?,
        };
        Ok(Self {
            home: home.clone(),
            link,
            happenings,
            conversation,
            sender: parsed(SenderId::parse(SENDER))?,
            lines: Lines::default(),
        })
    }

    /// Begins a new conversation over the same link.
    pub(crate) fn renew(&mut self) -> Result<(), Fault> {
        self.conversation = new_conversation()?;
        Ok(())
    }

    /// Sends a message and stays with it until its turn is over.
    pub(crate) fn turn(
        &mut self,
        text: &str,
        display: Display,
        wait: Wait,
    ) -> Result<Outcome, Fault> {
        if text.len() > MAX_TEXT {
            return Err(Fault::Usage(format!(
                "the message has {} bytes; at most {MAX_TEXT} are taken. Put long text into a \
                 file in the workspace and name it",
                text.len()
            )));
        }
        let message = parsed(MessageId::parse(hex(&random::<8>()?)))?;
        self.send(&ChannelRequest::Inbound {
            message: message.clone(),
            sender: self.sender.clone(),
            sender_name: "you".to_owned(),
            conversation: self.conversation.clone(),
            text: text.to_owned(),
        })?;
        let mut turn = Turn::new(message, display);
        loop {
            let happening = self.next(&mut turn)?;
            let step = match happening {
                None => Step::GoOn,
                Some(Happening::Gone(error)) => return Err(Fault::link("the gateway")(error)),
                Some(Happening::Stop(signal)) => self.stop(&mut turn, signal)?,
                Some(Happening::Event(event)) => self.handle(&mut turn, event)?,
            };
            let asked = wait == Wait::ForQuestion && !turn.pending.is_empty();
            if matches!(step, Step::Over) || asked {
                return Ok(turn.finish());
            }
        }
    }

    /// Waits for a line of the person. Ctrl-C, and the end of input, are none.
    pub(crate) fn ask_line(&mut self, prompt: &str) -> Result<Option<String>, Fault> {
        eprint!("{prompt}");
        loop {
            match self.lines.next(GLANCE)? {
                Typed::Line(line) => return Ok(Some(line)),
                Typed::End => return Ok(None),
                Typed::Nothing => {}
            }
            match self.happenings.try_recv() {
                Ok(Happening::Stop(_)) => return Ok(None),
                Ok(Happening::Gone(error)) => return Err(Fault::link("the gateway")(error)),
                Ok(Happening::Event(event)) => self.late(event)?,
                Err(_) => {}
            }
        }
    }

    /// The next thing to deal with; typed answers to a question are dealt with here.
    fn next(&mut self, turn: &mut Turn) -> Result<Option<Happening>, Fault> {
        let Some(card) = turn.asked.clone() else {
            return match self.happenings.recv() {
                Ok(happening) => Ok(Some(happening)),
                Err(_) => Ok(Some(Happening::Gone(LinkError::Closed))),
            };
        };
        match self.happenings.recv_timeout(GLANCE) {
            Ok(happening) => return Ok(Some(happening)),
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Some(Happening::Gone(LinkError::Closed)));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let answer = match self.lines.next(Duration::ZERO)? {
            Typed::Nothing => return Ok(None),
            Typed::End => ApprovalAnswer::Deny,
            Typed::Line(line) => match YesNo::of(&line) {
                Some(YesNo::Yes) => ApprovalAnswer::Approve,
                Some(YesNo::No) => ApprovalAnswer::Deny,
                None => {
                    eprint!("{QUESTION}");
                    return Ok(None);
                }
            },
        };
        turn.asked = None;
        self.send(&ChannelRequest::Answer {
            approval: card.approval,
            digest: card.digest,
            nonce: card.nonce,
            sender: self.sender.clone(),
            answer,
            reason: String::new(),
            proof: connect::proof(&self.home, answer, card.digest)?,
        })?;
        Ok(None)
    }

    fn stop(&mut self, turn: &mut Turn, signal: Signal) -> Result<Step, Fault> {
        if !turn.stopping {
            turn.stopping = true;
            self.send(&ChannelRequest::Cancel {
                sender: self.sender.clone(),
                conversation: self.conversation.clone(),
            })?;
            if matches!(signal, Signal::Interrupt) {
                eprintln!("\nstopping; Ctrl-C once more to leave without waiting");
                return Ok(Step::GoOn);
            }
        }
        Err(Fault::Refused(
            "left before the turn was over; `bulkhead audit log` shows how it ended".to_owned(),
        ))
    }

    fn handle(&mut self, turn: &mut Turn, event: ChannelEvent) -> Result<Step, Fault> {
        let mine = |conversation: &ConversationId| *conversation == self.conversation;
        match event {
            ChannelEvent::Accepted { message, session } => {
                if message == turn.message {
                    turn.outcome.session = Some(session);
                }
            }
            ChannelEvent::NotAccepted { message, text, .. } => {
                if message == turn.message {
                    return Err(Fault::Refused(harmless(&text).into_owned()));
                }
            }
            ChannelEvent::TurnStarted {
                conversation,
                session,
                turn: number,
            } => {
                // A later one is the same message again: its turn was interrupted before its end.
                if mine(&conversation) && turn.outcome.turn < Some(number) {
                    turn.begin(session, number)?;
                }
            }
            ChannelEvent::Token {
                conversation,
                turn: number,
                text,
            } => {
                if mine(&conversation) && turn.outcome.turn == Some(number) {
                    turn.token(&text)?;
                }
            }
            ChannelEvent::Call { conversation, card } => {
                if mine(&conversation) && turn.outcome.turn == Some(card.turn) {
                    turn.call(card)?;
                }
            }
            ChannelEvent::Approval { conversation, card } => {
                if mine(&conversation) {
                    turn.approval(card)?;
                    self.ask_next(turn);
                }
            }
            ChannelEvent::ApprovalClosed {
                conversation,
                approval,
                answer,
                ..
            } => {
                if mine(&conversation) {
                    turn.closed(approval, answer);
                    self.ask_next(turn);
                }
            }
            ChannelEvent::AnswerRefused { approval, text, .. } => {
                if turn.pending.iter().any(|card| card.approval == approval) {
                    turn.say(&harmless(&text));
                }
            }
            ChannelEvent::Reply {
                delivery,
                conversation,
                turn: number,
                text,
                ..
            } => {
                if mine(&conversation) {
                    self.send(&ChannelRequest::Delivered { delivery })?;
                    if turn.outcome.turn == Some(number) {
                        turn.reply(text)?;
                        return Ok(Step::Over);
                    }
                    // The answer to an earlier message of this session, whose `ask` has left.
                    turn.say(&format!(
                        "turn {number}, asked earlier:\n{}",
                        harmless(&text)
                    ));
                }
            }
            ChannelEvent::Notice {
                delivery,
                conversation,
                ends_turn,
                text,
            } => {
                if mine(&conversation) {
                    self.send(&ChannelRequest::Delivered { delivery })?;
                    if ends_turn == turn.outcome.turn {
                        turn.outcome.error = Some(text);
                        return Ok(Step::Over);
                    }
                    turn.say(&harmless(&text));
                }
            }
            out_of_order @ (ChannelEvent::Challenge { .. }
            | ChannelEvent::Welcome
            | ChannelEvent::LoggedIn { .. }
            | ChannelEvent::LoginRefused { .. }
            | ChannelEvent::LoggedOut { .. }
            | ChannelEvent::PasskeyEnrolled { .. }
            | ChannelEvent::PasskeyRefused { .. }
            | ChannelEvent::Transcript { .. }
            | ChannelEvent::Grants { .. }
            | ChannelEvent::GrantRevoked { .. }
            | ChannelEvent::GrantNotRevoked { .. }
            | ChannelEvent::Panicked { .. }
            | ChannelEvent::PanicRefused { .. }
            | ChannelEvent::GrantsChanged { .. }) => {
                drop(out_of_order);
                return Err(Fault::Unexpected("the gateway"));
            }
        }
        Ok(Step::GoOn)
    }

    /// What comes between two turns: answers of a turn that was left, and notices.
    fn late(&mut self, event: ChannelEvent) -> Result<(), Fault> {
        let (delivery, conversation, text) = match event {
            ChannelEvent::Reply {
                delivery,
                conversation,
                text,
                ..
            }
            | ChannelEvent::Notice {
                delivery,
                conversation,
                text,
                ..
            } => (delivery, conversation, text),
            ChannelEvent::Accepted { .. }
            | ChannelEvent::NotAccepted { .. }
            | ChannelEvent::TurnStarted { .. }
            | ChannelEvent::Token { .. }
            | ChannelEvent::Call { .. }
            | ChannelEvent::Approval { .. }
            | ChannelEvent::ApprovalClosed { .. }
            | ChannelEvent::AnswerRefused { .. } => return Ok(()),
            ChannelEvent::Challenge { .. }
            | ChannelEvent::Welcome
            | ChannelEvent::LoggedIn { .. }
            | ChannelEvent::LoginRefused { .. }
            | ChannelEvent::LoggedOut { .. }
            | ChannelEvent::PasskeyEnrolled { .. }
            | ChannelEvent::PasskeyRefused { .. }
            | ChannelEvent::Transcript { .. }
            | ChannelEvent::Grants { .. }
            | ChannelEvent::GrantRevoked { .. }
            | ChannelEvent::GrantNotRevoked { .. }
            | ChannelEvent::Panicked { .. }
            | ChannelEvent::PanicRefused { .. }
            | ChannelEvent::GrantsChanged { .. } => return Err(Fault::Unexpected("the gateway")),
        };
        if conversation == self.conversation {
            self.send(&ChannelRequest::Delivered { delivery })?;
            output::line(format!("\n{}", harmless(&text)))?;
        }
        Ok(())
    }

    /// Puts the oldest open question to the person, if none is put and there is a person.
    fn ask_next(&mut self, turn: &mut Turn) {
        if turn.display == Display::Nothing || turn.asked.is_some() || !can_ask() {
            return;
        }
        let Some(card) = turn.pending.first() else {
            return;
        };
        eprint!("\n{}\n{QUESTION}", cards::approval(card, Millis::now()));
        turn.asked = Some(card.clone());
        self.lines.forget();
    }

    fn send(&self, request: &ChannelRequest) -> Result<(), Fault> {
        self.link.send(request).map_err(Fault::link("the gateway"))
    }
}

const QUESTION: &str = "Run this? Type y or n, then Enter: ";

/// Whether the turn goes on.
enum Step {
    GoOn,
    Over,
}

/// A turn as far as it has come.
struct Turn {
    message: MessageId,
    display: Display,
    outcome: Outcome,
    calls: BTreeMap<(TurnId, CallId), CallCard>,
    /// Oldest first.
    pending: Vec<ApprovalCard>,
    /// The question that is put to the person now.
    asked: Option<ApprovalCard>,
    stopping: bool,
    /// What was streamed since the last call.
    streamed: String,
}

impl Turn {
    fn new(message: MessageId, display: Display) -> Self {
        Self {
            message,
            display,
            outcome: Outcome::default(),
            calls: BTreeMap::new(),
            pending: Vec::new(),
            asked: None,
            stopping: false,
            streamed: String::new(),
        }
    }

    fn begin(&mut self, session: SessionId, number: TurnId) -> Result<(), Fault> {
        if self.outcome.turn.is_some() {
            self.end_line()?;
            self.say("the work on this was interrupted and is taken up again");
        }
        self.outcome.session = Some(session);
        self.outcome.turn = Some(number);
        Ok(())
    }

    fn token(&mut self, text: &str) -> Result<(), Fault> {
        if self.display == Display::Live {
            // Blank lines between two rounds are made here already.
            let text = match self.streamed.is_empty() {
                true => text.trim_start_matches('\n'),
                false => text,
            };
            output::text(&harmless(text))?;
            self.streamed.push_str(text);
        }
        Ok(())
    }

    /// Ends a streamed line, so that what follows begins its own.
    fn end_line(&mut self) -> Result<(), Fault> {
        if !self.streamed.is_empty() && !self.streamed.ends_with('\n') {
            output::text("\n")?;
        }
        self.streamed.clear();
        Ok(())
    }

    fn say(&self, text: &str) {
        if self.display == Display::Live {
            eprintln!("{}", dim(text));
        }
    }

    fn call(&mut self, card: CallCard) -> Result<(), Fault> {
        self.end_line()?;
        self.say(&cards::call(&card));
        self.calls.insert((card.turn, card.call), card);
        Ok(())
    }

    fn approval(&mut self, card: ApprovalCard) -> Result<(), Fault> {
        // After a restart of the gateway the same question comes again.
        if self.pending.contains(&card) {
            return Ok(());
        }
        self.end_line()?;
        if self.display == Display::Live && !can_ask() {
            eprintln!("{}", cards::approval(&card, Millis::now()));
            eprintln!(
                "Answer it from another terminal: bulkhead approvals approve {0} (or deny {0})",
                card.approval
            );
        }
        self.pending.retain(|old| old.approval != card.approval);
        self.pending.push(card);
        Ok(())
    }

    fn closed(&mut self, approval: ApprovalId, answer: Answer) {
        let was_asked = self
            .asked
            .as_ref()
            .is_some_and(|card| card.approval == approval);
        if was_asked {
            self.asked = None;
            self.say("");
        }
        let before = self.pending.len();
        self.pending.retain(|card| card.approval != approval);
        if self.pending.len() < before {
            self.say(cards::answer(answer));
        }
    }

    fn reply(&mut self, text: String) -> Result<(), Fault> {
        if self.display == Display::Live {
            if self.streamed.trim() != text.trim() {
                self.end_line()?;
                output::text(&harmless(&text))?;
            }
            self.streamed = text.clone();
            self.end_line()?;
        }
        self.outcome.reply = Some(text);
        Ok(())
    }

    fn finish(mut self) -> Outcome {
        self.outcome.calls = self.calls.into_values().collect();
        self.outcome.pending = self.pending;
        self.outcome
    }
}

fn listen(link: &Link<ChannelRequest, ChannelEvent>, to: &Sender<Happening>) {
    loop {
        let (happening, over) = match link.receive() {
            Ok(event) => (Happening::Event(event), false),
            Err(error) => (Happening::Gone(error), true),
        };
        if to.send(happening).is_err() || over {
            return;
        }
    }
}

fn new_conversation() -> Result<ConversationId, Fault> {
    parsed(ConversationId::parse(format!("c-{}", hex(&random::<8>()?))))
}

fn parsed<T>(id: Result<T, protocol::ids::BadId>) -> Result<T, Fault> {
    id.map_err(|error| Fault::Usage(error.to_string()))
}

#[cfg(test)]
mod tests;
