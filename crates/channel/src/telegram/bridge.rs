//! Between the gateway and Telegram: what each event and each update leads to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::channel::{
    ApprovalAnswer, ApprovalCard, CallCard, CallState, ChannelEvent, ChannelRequest, Retry,
};
use protocol::event::Answer;
use protocol::ids::{
    ApprovalId, CallId, ChannelId, ConversationId, Digest, MessageId, SenderId, TurnId,
};
use protocol::operator::MAX_REASON;
use protocol::passkey::Proof;
use tokio::sync::mpsc;

use super::api::Me;
use super::cards::{self, Card, Choice, Scope};
use super::incoming::{Incoming, Press, Text, understand};
use super::poll::{Fetched, Inbox};
use super::sender::{Job, PressNotice, Sound, Told};
use super::split::{MAX_UNITS, split};
use super::styled::{Part, Style, Styled};
use super::{markdown, typing::Typing};
use crate::link::Gateway;

/// A reply of more messages is cut; the whole is in the record.
const MAX_PARTS: usize = 20;

/// How long an answer to an approval may take until the person is told so.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long after a new link cards of open approvals may come.
const CARDS_LIMIT: Duration = Duration::from_secs(10);

/// At most one such hint per chat and this time.
const HINT_PAUSE: Duration = Duration::from_secs(60);

/// The longest answer to a press, in characters.
const MAX_PRESS_TEXT: usize = 200;

/// As many calls are remembered; after that one may be shown twice.
const MAX_CALLS: usize = 1024;

/// Jobs that one event can lead to, at most.
pub(super) const JOBS_PER_EVENT: usize = 16;

/// What is under way between both sides.
pub(super) struct Bridge {
    channel: ChannelId,
    gateway: Gateway,
    inbox: Arc<Inbox>,
    jobs: mpsc::Sender<Job>,
    me: Option<Me>,
    /// Messages that the gateway has not taken yet.
    waiting: HashMap<MessageId, Waiting>,
    open: HashMap<ApprovalId, Open>,
    presses: Vec<Pressed>,
    /// Noes that were written, until the gateway has taken or refused them.
    denials: Vec<Denial>,
    typing: Typing,
    /// Calls whose outcome was shown or asked about.
    shown_calls: HashSet<(ConversationId, TurnId, CallId)>,
    hints: HashMap<i64, Instant>,
    /// When the buttons of approvals that did not come again are to go.
    sweep_at: Option<Instant>,
}

/// A message that the gateway has not taken yet.
struct Waiting {
    update: i64,
    chat: i64,
    knows: PersonKnows,
}

/// Whether the person knows that their message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PersonKnows {
    No,
    Yes,
}

/// An approval that is open.
struct Open {
    asked: ApprovalCard,
    chat: i64,
    card: Card,
    /// When it came last.
    since: Instant,
}

/// A no that was written as `/deny REASON`.
struct Denial {
    approval: ApprovalId,
    sender: SenderId,
    chat: i64,
}

/// A press that is not answered.
struct Pressed {
    choice: Choice,
    press: Press,
    since: Instant,
    state: PressState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PressState {
    /// The approval is not known yet; it may come.
    Parked,
    /// The gateway was asked.
    Asked,
}

impl Bridge {
    pub(super) fn new(
        channel: ChannelId,
        gateway: Gateway,
        inbox: Arc<Inbox>,
        jobs: mpsc::Sender<Job>,
    ) -> Self {
        Self {
            channel,
            gateway,
            inbox,
            jobs,
            me: None,
            waiting: HashMap::new(),
            open: HashMap::new(),
            presses: Vec::new(),
            denials: Vec::new(),
            typing: Typing::default(),
            shown_calls: HashSet::new(),
            hints: HashMap::new(),
            sweep_at: None,
        }
    }

    /// Something from the poller. An error where the program cannot go on.
    pub(super) fn fetched(&mut self, fetched: Fetched) -> Result<(), String> {
        match (fetched, &self.me) {
            (Fetched::Failed(reason), _) => return Err(reason),
            (Fetched::Me(me), _) => {
                protocol::log!("channel {}: is {me}", self.channel);
                self.me = Some(me);
            }
            (Fetched::Update(update), Some(me)) => {
                let number = update.update_id;
                match understand(update, me) {
                    Incoming::Text(text) => self.text(number, text),
                    Incoming::Press(press) => self.pressed(number, press),
                    Incoming::NotText { chat } => self.not_text(number, chat),
                    Incoming::Nothing => self.inbox.settle(number),
                }
            }
            // The poller tells who the bot is before anything else.
            (Fetched::Update(update), None) => self.inbox.put_back(update.update_id),
        }
        Ok(())
    }

    fn text(&mut self, update: i64, text: Text) {
        if let Some(reason) = cards::denial(&text.text) {
            // If it gets lost now, the question is still there.
            self.inbox.settle(update);
            if let Err(why) = self.deny(text.chat, text.sender, reason) {
                self.say(text.chat, why, Sound::Usual);
            }
            return;
        }
        let request = ChannelRequest::Inbound {
            message: text.message.clone(),
            sender: text.sender,
            sender_name: text.sender_name,
            conversation: text.conversation,
            text: text.text,
        };
        if self.gateway.send(request).is_err() {
            self.inbox.put_back(update);
            return;
        }
        let knows = self
            .waiting
            .remove(&text.message)
            .map_or(PersonKnows::No, |waiting| waiting.knows);
        self.waiting.insert(
            text.message,
            Waiting {
                update,
                chat: text.chat,
                knows,
            },
        );
    }

    /// Passes a written no on; whether this person may say it, the gateway decides. What is written
    /// can only ever be a no.
    fn deny(&mut self, chat: i64, sender: SenderId, reason: &str) -> Result<(), String> {
        if reason.len() > MAX_REASON {
            return Err(format!(
                "Nothing was answered: a reason has at most {MAX_REASON} bytes."
            ));
        }
        let mut here = self.open.values().filter(|open| open.chat == chat);
        let asked = match (here.next(), here.next()) {
            (Some(open), None) => &open.asked,
            (Some(_), Some(_)) => {
                return Err(
                    "More than one question waits here; press Deny under the one you mean."
                        .to_owned(),
                );
            }
            (None, _) => return Err("Nothing waits for an answer here.".to_owned()),
        };
        let answer = ChannelRequest::Answer {
            approval: asked.approval,
            digest: asked.digest,
            nonce: asked.nonce,
            sender: sender.clone(),
            answer: ApprovalAnswer::Deny,
            reason: reason.to_owned(),
            proof: Proof::Link,
        };
        let denial = Denial {
            approval: asked.approval,
            sender,
            chat,
        };
        self.gateway.send(answer).map_err(|_| {
            "Nothing was answered: Bulkhead is not ready. Send it again in a moment.".to_owned()
        })?;
        self.denials.push(denial);
        Ok(())
    }

    fn not_text(&mut self, update: i64, chat: i64) {
        let now = Instant::now();
        self.hints
            .retain(|_, at| now.duration_since(*at) < HINT_PAUSE);
        if let std::collections::hash_map::Entry::Vacant(entry) = self.hints.entry(chat) {
            entry.insert(now);
            self.say(
                chat,
                "I can read text only for now.".to_owned(),
                Sound::Usual,
            );
        }
        self.inbox.settle(update);
    }

    fn pressed(&mut self, update: i64, press: Press) {
        // If it gets lost now, the buttons are still there.
        self.inbox.settle(update);
        match Choice::parse(&press.data) {
            None => self.answer_press(
                press.query,
                "This button is not mine.",
                PressNotice::Brief,
                Instant::now(),
            ),
            Some(choice) => {
                let since = Instant::now();
                self.decide(Pressed {
                    choice,
                    press,
                    since,
                    state: PressState::Parked,
                });
            }
        }
    }

    /// Passes a press on to the gateway, which decides whether this person may answer.
    fn decide(&mut self, mut pressed: Pressed) {
        let Some(open) = self.open.get(&pressed.choice.approval) else {
            if self.sweep_at.is_some() {
                self.presses.push(pressed);
            } else {
                self.close_press(pressed, "This is no longer open.", PressNotice::Alert);
            }
            return;
        };
        let elsewhere = pressed.press.chat.is_some_and(|chat| chat != open.chat);
        if elsewhere || !pressed.choice.is_about(&open.asked.digest) {
            self.close_press(
                pressed,
                "This is not what is asked now; look for the newest message.",
                PressNotice::Alert,
            );
            return;
        }
        let why_not = match (pressed.choice.answer, open.card.scope) {
            (ApprovalAnswer::Deny, _) | (ApprovalAnswer::Approve, Scope::Both) => None,
            (ApprovalAnswer::Approve, Scope::TooLong) => {
                Some("This is too long to be approved here.")
            }
            // There is no such button; whoever made this one up gets the gateway's answer.
            (ApprovalAnswer::Approve, Scope::SignedElsewhere) => None,
        };
        if let Some(why_not) = why_not {
            self.close_press(pressed, why_not, PressNotice::Alert);
            return;
        }
        let answer = ChannelRequest::Answer {
            approval: open.asked.approval,
            digest: open.asked.digest,
            nonce: open.asked.nonce,
            sender: pressed.press.sender.clone(),
            answer: pressed.choice.answer,
            reason: String::new(),
            proof: Proof::Link,
        };
        if self.gateway.send(answer).is_err() {
            self.close_press(
                pressed,
                "Bulkhead is not ready; press again in a moment.",
                PressNotice::Alert,
            );
            return;
        }
        pressed.state = PressState::Asked;
        self.presses.push(pressed);
    }

    /// Something from the gateway.
    pub(super) fn event(&mut self, event: ChannelEvent) {
        match event {
            ChannelEvent::Accepted { message, .. } => self.settle(&message),
            ChannelEvent::NotAccepted {
                message,
                retry,
                text,
            } => self.not_accepted(&message, retry, text),
            ChannelEvent::TurnStarted {
                conversation, turn, ..
            } => {
                self.typing.begin(conversation, turn);
                self.send_typing();
            }
            ChannelEvent::Call { conversation, card } => self.call(conversation, &card),
            ChannelEvent::Approval { conversation, card } => self.approval(conversation, card),
            ChannelEvent::ApprovalClosed {
                conversation,
                approval,
                answer,
                ..
            } => {
                self.approval_closed(&conversation, approval, answer);
            }
            ChannelEvent::AnswerRefused {
                approval,
                sender,
                text,
            } => self.answer_refused(approval, &sender, &text),
            ChannelEvent::Reply {
                delivery,
                conversation,
                turn,
                text,
                ..
            } => {
                self.typing.end(&conversation, turn);
                self.deliver(delivery, &conversation, &text, markdown::render(&text));
            }
            ChannelEvent::Notice {
                delivery,
                conversation,
                ends_turn,
                text,
            } => {
                if let Some(turn) = ends_turn {
                    self.typing.end(&conversation, turn);
                }
                let mut plain = Styled::default();
                plain.push(&text, &Style::default());
                self.deliver(delivery, &conversation, &text, plain.without_links());
            }
            // The whole answer follows as a reply; the handshake is over; the rest is for pages.
            ChannelEvent::Token { .. }
            | ChannelEvent::Challenge { .. }
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
            | ChannelEvent::GrantsChanged { .. } => {}
        }
    }

    fn settle(&mut self, message: &MessageId) {
        if let Some(waiting) = self.waiting.remove(message) {
            self.inbox.settle(waiting.update);
        }
    }

    fn not_accepted(&mut self, message: &MessageId, retry: Retry, text: String) {
        let Some(waiting) = self.waiting.get_mut(message) else {
            return;
        };
        let knew = std::mem::replace(&mut waiting.knows, PersonKnows::Yes);
        let chat = waiting.chat;
        if knew == PersonKnows::No && !text.is_empty() {
            self.say(chat, text, Sound::Usual);
        }
        match retry {
            // The link sends it again by itself.
            Retry::Later => {}
            Retry::Never => self.settle(message),
        }
    }

    /// Calls that run are not shown: the answer tells of them. What did not run is.
    fn call(&mut self, conversation: ConversationId, card: &CallCard) {
        let word = match card.state {
            CallState::Refused => "Not run",
            CallState::Unknown => "Outcome unknown",
            CallState::Waiting | CallState::Running | CallState::Done | CallState::Failed => return,
        };
        let Some(chat) = chat_of(&conversation) else {
            return;
        };
        if self.note_call((conversation, card.turn, card.call)) {
            let line = format!("{word}: {}", card.title);
            let short: String = line.chars().take(400).collect();
            self.say(chat, short, Sound::Silent);
        }
    }

    /// Whether this call was not noted before.
    fn note_call(&mut self, call: (ConversationId, TurnId, CallId)) -> bool {
        if self.shown_calls.len() >= MAX_CALLS {
            self.shown_calls.clear();
        }
        self.shown_calls.insert(call)
    }

    fn approval(&mut self, conversation: ConversationId, asked: ApprovalCard) {
        let Some(chat) = chat_of(&conversation) else {
            return;
        };
        self.typing.pause(&conversation);
        self.note_call((conversation, asked.turn, asked.call));
        let approval = asked.approval;
        let card = cards::card(&asked);
        self.post(Job::Ask {
            approval,
            chat,
            card: card.clone(),
        });
        self.open.insert(
            approval,
            Open {
                asked,
                chat,
                card,
                since: Instant::now(),
            },
        );
        let (now_known, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.presses)
            .into_iter()
            .partition(|pressed| {
                pressed.state == PressState::Parked && pressed.choice.approval == approval
            });
        self.presses = others;
        for pressed in now_known {
            self.decide(pressed);
        }
    }

    fn approval_closed(
        &mut self,
        conversation: &ConversationId,
        approval: ApprovalId,
        answer: Answer,
    ) {
        self.typing.resume(conversation);
        self.denials.retain(|denial| denial.approval != approval);
        for pressed in self.take_presses(|pressed| pressed.choice.approval == approval) {
            self.close_press(pressed, cards::outcome(answer), PressNotice::Brief);
        }
        if let Some(open) = self.open.remove(&approval) {
            self.post(Job::Close {
                approval,
                text: cards::closed(&open.card, answer),
            });
        }
    }

    fn answer_refused(&mut self, approval: ApprovalId, sender: &SenderId, text: &str) {
        let theirs = |pressed: &Pressed| {
            pressed.choice.approval == approval && pressed.press.sender == *sender
        };
        for pressed in self.take_presses(theirs) {
            self.close_press(pressed, text, PressNotice::Alert);
        }
        let (refused, kept) = std::mem::take(&mut self.denials)
            .into_iter()
            .partition(|denial| denial.approval == approval && denial.sender == *sender);
        self.denials = kept;
        let refused: Vec<Denial> = refused;
        for denial in refused {
            self.say(denial.chat, text.to_owned(), Sound::Usual);
        }
    }

    fn deliver(
        &mut self,
        delivery: u64,
        conversation: &ConversationId,
        text: &str,
        styled: Styled,
    ) {
        let Some(chat) = chat_of(conversation) else {
            protocol::log!(
                "channel {}: delivery {delivery} is for no chat of Telegram; it is given up",
                self.channel
            );
            self.delivered(delivery);
            return;
        };
        let mut parts = split(&styled, MAX_UNITS);
        if parts.len() > MAX_PARTS {
            parts.truncate(MAX_PARTS - 1);
            parts.push(Part::plain(format!(
                "(The answer goes on: it has {} characters. All of it is on the web page and in the record.)",
                text.chars().count()
            )));
        }
        let content = Digest::of(format!("{conversation}\n{text}"));
        self.post(Job::Deliver {
            delivery,
            content,
            chat,
            parts,
        });
    }

    /// Something from the sender. An error where the program cannot go on.
    pub(super) fn told(&mut self, told: Told) -> Result<(), String> {
        match told {
            Told::Delivered(delivery) => {
                self.delivered(delivery);
                Ok(())
            }
            Told::Failed(reason) => Err(reason),
        }
    }

    fn delivered(&self, delivery: u64) {
        // Without a link it comes again with the next one, and is known to be sent then.
        let _ = self.gateway.send(ChannelRequest::Delivered { delivery });
    }

    /// The gateway proved to be there: what is open comes again now, or came just before this.
    pub(super) fn link_up(&mut self) {
        self.sweep_at = Some(Instant::now() + CARDS_LIMIT);
    }

    /// The gateway is gone, and with it the turns.
    pub(super) fn link_down(&mut self) {
        self.typing.clear();
        self.denials.clear();
    }

    /// Once a second.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        self.send_typing();
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep_at = None;
            self.open
                .retain(|_, open| now.duration_since(open.since) < CARDS_LIMIT * 2);
            self.post(Job::KeepOnly {
                open: self.open.keys().copied().collect(),
            });
            for pressed in self.take_presses(|pressed| pressed.state == PressState::Parked) {
                self.decide(pressed);
            }
        }
        for pressed in self.take_presses(|pressed| {
            pressed.state == PressState::Asked && now.duration_since(pressed.since) > ANSWER_LIMIT
        }) {
            self.close_press(pressed, "No answer from Bulkhead yet.", PressNotice::Brief);
        }
    }

    fn send_typing(&mut self) {
        for conversation in self.typing.due(Instant::now()) {
            if let Some(chat) = chat_of(&conversation) {
                self.post(Job::Typing { chat });
            }
        }
    }

    fn take_presses(&mut self, wanted: impl Fn(&Pressed) -> bool) -> Vec<Pressed> {
        let (taken, kept) = std::mem::take(&mut self.presses)
            .into_iter()
            .partition(wanted);
        self.presses = kept;
        taken
    }

    fn close_press(&self, pressed: Pressed, text: &str, notice: PressNotice) {
        self.answer_press(pressed.press.query, text, notice, pressed.since);
    }

    fn answer_press(&self, query: String, text: &str, notice: PressNotice, since: Instant) {
        let text = text.chars().take(MAX_PRESS_TEXT).collect();
        self.post(Job::AnswerPress {
            query,
            text,
            notice,
            since,
        });
    }

    fn say(&self, chat: i64, text: String, sound: Sound) {
        self.post(Job::Say { chat, text, sound });
    }

    /// Whoever calls has seen to room for [`JOBS_PER_EVENT`]; only what nobody misses goes when
    /// there is none.
    fn post(&self, job: Job) {
        if self.jobs.try_send(job).is_err() {
            protocol::log!(
                "channel {}: too much waits to be sent; something is left out",
                self.channel
            );
        }
    }
}

fn chat_of(conversation: &ConversationId) -> Option<i64> {
    conversation.as_str().parse().ok()
}
