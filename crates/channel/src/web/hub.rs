//! Who waits for what: requests for their answers, messages for their acceptance, and open pages
//! for what happens in their conversation.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::body::Bytes;
use protocol::channel::{ChannelEvent, ChannelRequest, GrantCard, Retry, TranscriptEntry};
use protocol::ids::{ConversationId, MessageId, SenderId, TurnId};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::browsers::Browser;
use super::reply::Problem;
use super::serve::Connection;

/// Answers of the gateway that are waited for at one time.
const MAX_ASKED: usize = 128;

/// Open event streams; fewer than connections, so that pages can still send.
const MAX_TABS: usize = 32;

/// Events that wait for a page; one that is further behind is shut out and loads anew.
const TAB_QUEUE: usize = 512;

/// States that wait for the sender of a message; a message has one or two.
const MESSAGE_QUEUE: usize = 4;

/// A line that event streams ignore.
const NOTHING: Bytes = Bytes::from_static(b":\n\n");

/// What the gateway answered.
#[derive(Debug)]
pub(super) enum Answer {
    LoggedIn {
        secret: String,
        sender: SenderId,
        conversation: ConversationId,
    },
    LoginRefused,
    PasskeyEnrolled,
    PasskeyRefused(String),
    Transcript {
        entries: Vec<TranscriptEntry>,
        running: Option<TurnId>,
    },
    Grants {
        grants: Vec<GrantCard>,
        more: u64,
    },
    GrantRevoked,
    GrantNotRevoked(String),
    Panicked,
    PanicRefused(String),
}

/// What became of a message.
#[derive(Clone, Debug)]
pub(super) enum Taken {
    Accepted,
    /// Not yet; it is sent again.
    Later(String),
    Never(String),
}

/// What pages are told besides the gateway's events.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum PageEvent<'a> {
    /// Some page of this conversation sent this, and it was accepted.
    Said {
        message: &'a MessageId,
        text: &'a str,
    },
    /// Whether the gateway is there.
    Link { state: &'static str },
}

#[derive(Debug, Default)]
pub(super) struct Hub {
    last_id: u64,
    asked: HashMap<u64, oneshot::Sender<Answer>>,
    messages: Vec<Unaccepted>,
    tabs: Vec<Tab>,
}

/// A message whose sender waits for its acceptance.
#[derive(Debug)]
struct Unaccepted {
    message: MessageId,
    conversation: ConversationId,
    text: String,
    taken: mpsc::Sender<Taken>,
}

/// An open event stream.
#[derive(Debug)]
struct Tab {
    browser: Browser,
    lines: mpsc::Sender<Bytes>,
    connection: Arc<Connection>,
}

impl Hub {
    /// A number for a request, and where its answer comes.
    pub(super) fn ask(&mut self) -> Result<(u64, oneshot::Receiver<Answer>), Problem> {
        self.asked.retain(|_, waiting| !waiting.is_closed());
        if self.asked.len() >= MAX_ASKED {
            return Err(Problem::Busy);
        }
        let (sender, answer) = oneshot::channel();
        self.last_id += 1;
        self.asked.insert(self.last_id, sender);
        Ok((self.last_id, answer))
    }

    /// Where it comes out what became of this message.
    pub(super) fn await_message(
        &mut self,
        message: MessageId,
        conversation: ConversationId,
        text: String,
    ) -> mpsc::Receiver<Taken> {
        self.messages.retain(|waiting| !waiting.taken.is_closed());
        let (taken, received) = mpsc::channel(MESSAGE_QUEUE);
        self.messages.push(Unaccepted {
            message,
            conversation,
            text,
            taken,
        });
        received
    }

    /// An event stream for this browser.
    pub(super) fn open_tab(
        &mut self,
        browser: Browser,
        connection: Arc<Connection>,
        link: PageEvent<'_>,
    ) -> Result<mpsc::Receiver<Bytes>, Problem> {
        self.tabs.retain(|tab| !tab.lines.is_closed());
        if self.tabs.len() >= MAX_TABS {
            return Err(Problem::Busy);
        }
        let (lines, received) = mpsc::channel(TAB_QUEUE);
        let tab = Tab {
            browser,
            lines,
            connection,
        };
        tab.push(line(&link));
        self.tabs.push(tab);
        Ok(received)
    }

    /// Ends the event streams of this browser.
    pub(super) fn close_tabs(&mut self, sender: &SenderId) {
        self.tabs.retain(|tab| tab.browser.sender != *sender);
    }

    /// Hands an event to whoever it is for. What has to be confirmed to the gateway comes back:
    /// the transcript holds it, whether or not a page is open.
    pub(super) fn take(&mut self, event: ChannelEvent) -> Option<ChannelRequest> {
        match event {
            // The link keeps these two for itself.
            ChannelEvent::Challenge { .. } | ChannelEvent::Welcome => {}
            ChannelEvent::Accepted { message, .. } => self.accepted(&message),
            ChannelEvent::NotAccepted {
                message,
                retry,
                text,
            } => match retry {
                Retry::Later => self.tell_sender(&message, &Taken::Later(text)),
                Retry::Never => self.tell_sender(&message, &Taken::Never(text)),
            },
            ChannelEvent::LoggedIn {
                id,
                cookie,
                sender,
                conversation,
            } => {
                self.answer(
                    id,
                    Answer::LoggedIn {
                        secret: cookie,
                        sender,
                        conversation,
                    },
                );
            }
            ChannelEvent::LoginRefused { id } => self.answer(id, Answer::LoginRefused),
            ChannelEvent::LoggedOut { sender } => self.close_tabs(&sender),
            ChannelEvent::PasskeyEnrolled { id } => self.answer(id, Answer::PasskeyEnrolled),
            ChannelEvent::PasskeyRefused { id, text } => {
                self.answer(id, Answer::PasskeyRefused(text));
            }
            ChannelEvent::Transcript {
                id,
                entries,
                running,
            } => {
                self.answer(id, Answer::Transcript { entries, running });
            }
            ChannelEvent::Grants { id, grants, more } => {
                self.answer(id, Answer::Grants { grants, more });
            }
            ChannelEvent::GrantRevoked { id } => self.answer(id, Answer::GrantRevoked),
            ChannelEvent::GrantNotRevoked { id, text } => {
                self.answer(id, Answer::GrantNotRevoked(text));
            }
            ChannelEvent::Panicked { id } => self.answer(id, Answer::Panicked),
            ChannelEvent::PanicRefused { id, text } => {
                self.answer(id, Answer::PanicRefused(text));
            }
            ref event @ (ChannelEvent::TurnStarted {
                ref conversation, ..
            }
            | ChannelEvent::Token {
                ref conversation, ..
            }
            | ChannelEvent::Call {
                ref conversation, ..
            }
            | ChannelEvent::Approval {
                ref conversation, ..
            }
            | ChannelEvent::ApprovalClosed {
                ref conversation, ..
            }
            | ChannelEvent::GrantsChanged { ref conversation }) => self.tell(conversation, event),
            ref event @ ChannelEvent::AnswerRefused { ref sender, .. } => {
                self.push(&line(event), |browser| browser.sender == *sender);
            }
            ref event @ (ChannelEvent::Reply {
                ref conversation,
                delivery,
                ..
            }
            | ChannelEvent::Notice {
                ref conversation,
                delivery,
                ..
            }) => {
                self.tell(conversation, event);
                return Some(ChannelRequest::Delivered { delivery });
            }
        }
        None
    }

    /// Tells all pages whether the gateway is there. If it is not, nobody gets an answer any more.
    pub(super) fn link_changed(&mut self, link: PageEvent<'_>, up: Up) {
        if up == Up::No {
            self.asked.clear();
        }
        self.push(&line(&link), |_| true);
    }

    pub(super) fn keep_alive(&mut self) {
        self.push(&NOTHING, |_| true);
    }

    fn answer(&mut self, id: u64, answer: Answer) {
        if let Some(waiting) = self.asked.remove(&id) {
            // Who asked may have gone meanwhile.
            let _ = waiting.send(answer);
        }
    }

    /// All pages of the conversation hear of the message before they hear of its turn.
    fn accepted(&mut self, message: &MessageId) {
        self.tell_sender(message, &Taken::Accepted);
        let Some(at) = self
            .messages
            .iter()
            .position(|waiting| waiting.message == *message)
        else {
            return;
        };
        let Unaccepted {
            conversation, text, ..
        } = self.messages.swap_remove(at);
        self.tell(
            &conversation,
            &PageEvent::Said {
                message,
                text: &text,
            },
        );
    }

    fn tell_sender(&self, message: &MessageId, what: &Taken) {
        for waiting in self
            .messages
            .iter()
            .filter(|waiting| waiting.message == *message)
        {
            // Full or gone: whoever waits has heard enough to go on.
            let _ = waiting.taken.try_send(what.clone());
        }
    }

    fn tell(&mut self, conversation: &ConversationId, event: &impl Serialize) {
        self.push(&line(event), |browser| {
            browser.conversation == *conversation
        });
    }

    fn push(&mut self, line: &Bytes, to: impl Fn(&Browser) -> bool) {
        self.tabs
            .retain(|tab| !to(&tab.browser) || tab.push(line.clone()));
    }
}

/// Whether the link to the gateway works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Up {
    Yes,
    No,
}

impl Tab {
    /// Whether the page is still there and keeps up.
    fn push(&self, line: Bytes) -> bool {
        match self.lines.try_send(line) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.connection.cut();
                false
            }
        }
    }
}

/// An event of an event stream (HTML, section 9.2.6). JSON has no newline of its own.
fn line(event: &impl Serialize) -> Bytes {
    match serde_json::to_string(event) {
        Ok(json) => format!("data: {json}\n\n").into(),
        // Only maps with odd keys can fail, and these types have no maps.
        Err(_) => NOTHING,
    }
}

#[cfg(test)]
mod tests {
    use protocol::ids::Digest;

    use super::*;

    fn browser(conversation: &str) -> Browser {
        Browser {
            key: Digest::of(conversation),
            sender: SenderId::parse(format!("s-{conversation}")).unwrap(),
            conversation: ConversationId::parse(conversation).unwrap(),
        }
    }

    fn notice(conversation: &str, delivery: u64) -> ChannelEvent {
        let conversation = ConversationId::parse(conversation).unwrap();
        ChannelEvent::Notice {
            delivery,
            conversation,
            ends_turn: None,
            text: "a\nb".to_owned(),
        }
    }

    fn open(hub: &mut Hub, conversation: &str) -> (mpsc::Receiver<Bytes>, Arc<Connection>) {
        let connection = Arc::<Connection>::default();
        let link = PageEvent::Link { state: "up" };
        let mut lines = hub
            .open_tab(browser(conversation), Arc::clone(&connection), link)
            .unwrap();
        assert_eq!(
            lines.try_recv().unwrap(),
            "data: {\"type\":\"link\",\"state\":\"up\"}\n\n"
        );
        (lines, connection)
    }

    #[test]
    fn events_go_to_their_conversation_only() {
        let mut hub = Hub::default();
        let (mut mine, _a) = open(&mut hub, "mine");
        let (mut second, _b) = open(&mut hub, "mine");
        let (mut other, _c) = open(&mut hub, "other");
        assert_eq!(
            hub.take(notice("mine", 7)),
            Some(ChannelRequest::Delivered { delivery: 7 })
        );
        for lines in [&mut mine, &mut second] {
            let line = lines.try_recv().unwrap();
            assert!(
                line.starts_with(b"data: {\"type\":\"notice\"") && line.ends_with(b"a\\nb\"}\n\n"),
                "{line:?}"
            );
        }
        assert!(other.try_recv().is_err());
        let refused = ChannelEvent::AnswerRefused {
            approval: protocol::ids::ApprovalId([1; 8]),
            sender: browser("other").sender,
            text: "late".to_owned(),
        };
        assert_eq!(hub.take(refused), None);
        assert!(mine.try_recv().is_err() && other.try_recv().is_ok());
    }

    #[test]
    fn a_page_that_does_not_keep_up_is_cut_off_and_others_go_on() {
        let mut hub = Hub::default();
        let (_slow, slow_connection) = open(&mut hub, "c");
        let (mut quick, quick_connection) = open(&mut hub, "c");
        for n in 0..=TAB_QUEUE as u64 {
            hub.take(notice("c", n));
            quick.try_recv().unwrap();
        }
        assert!(slow_connection.is_cut() && !quick_connection.is_cut());
        assert_eq!(hub.tabs.len(), 1);
    }

    #[test]
    fn the_numbers_of_pages_and_questions_are_bounded() {
        let mut hub = Hub::default();
        let tabs: Vec<_> = (0..MAX_TABS).map(|_| open(&mut hub, "c")).collect();
        let link = PageEvent::Link { state: "up" };
        assert!(matches!(
            hub.open_tab(browser("c"), Arc::default(), link),
            Err(Problem::Busy)
        ));
        drop(tabs);
        open(&mut hub, "c");
        let asked: Vec<_> = (0..MAX_ASKED).map(|_| hub.ask().unwrap()).collect();
        assert!(matches!(hub.ask(), Err(Problem::Busy)));
        drop(asked);
        hub.ask().unwrap();
    }

    #[test]
    fn nobody_waits_for_a_gateway_that_is_gone() {
        let mut hub = Hub::default();
        let (_, mut answer) = hub.ask().unwrap();
        hub.link_changed(PageEvent::Link { state: "down" }, Up::No);
        assert!(matches!(
            answer.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        ));
    }
}
