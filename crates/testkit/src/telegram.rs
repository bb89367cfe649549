//! A stand-in for the Telegram Bot API, faithful where it matters.
//!
//! It keeps to <https://core.telegram.org/bots/api> in what a careful bot depends on: updates
//! are kept until a higher offset confirms them, a long poll waits, a second poller ends the
//! first with 409, a wrong token is 401, limits answer 429 with `retry_after`, texts and
//! entities are checked and counted in UTF-16, callback queries are answered once, an edit
//! that changes nothing is an error, dates are in seconds.
//!
//! Not here: files, `parse_mode` (refused), webhooks beyond their conflict with polling.

mod api;
mod http;
mod text;
mod updates;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use api::Bot;

/// A server on a free port of 127.0.0.1 with one bot; it ends when this is dropped.
#[derive(Debug)]
pub struct TelegramServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A chat as `Chat` of the API, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chat {
    /// Negative for groups.
    pub id: i64,
    /// `private` or `supergroup`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// A group's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl Chat {
    /// The private chat of this user with the bot.
    pub fn private(user: i64) -> Self {
        Self {
            id: user,
            kind: "private",
            title: None,
        }
    }

    /// A group; the id has to be negative.
    pub fn group(id: i64) -> Self {
        Self {
            id,
            kind: "supergroup",
            title: Some("A group".to_owned()),
        }
    }
}

/// A message of the bot as it stands in the chat, edits applied.
#[derive(Clone, Debug, PartialEq)]
pub struct BotMessage {
    /// Its id.
    pub id: i64,
    /// Where.
    pub chat: i64,
    /// Its text, trimmed as the server does.
    pub text: String,
    /// What is marked up, including links that the server found by itself.
    pub entities: Vec<Entity>,
    /// The buttons, row after row.
    pub buttons: Vec<Button>,
    /// How often it was edited.
    pub edits: u32,
    /// Whether a preview of links may be made.
    pub previews: bool,
}

/// A part of a text that is marked up; offset and length in UTF-16 code units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Entity {
    /// `bold`, `code`, `pre`, `url` ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it begins.
    pub offset: usize,
    /// How long it is.
    pub length: usize,
    /// Of `text_link`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Of `pre`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// A button under a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Button {
    /// What it says.
    pub text: String,
    /// What comes back when it is pressed.
    pub callback_data: String,
}

/// An answer to a callback query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackAnswer {
    /// Of this query.
    pub query: String,
    /// What the person sees.
    pub text: String,
    /// Whether as a box that has to be closed.
    pub alert: bool,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Its parameters.
    pub parameters: serde_json::Map<String, Value>,
    /// When.
    pub at: Instant,
    /// What it got; `None` while it waits or if the connection broke.
    pub status: Option<u16>,
}

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An answer with this status and description.
    Status(u16, &'static str),
    /// 429; requests of the same method within so many seconds get it too, and count as
    /// violations.
    TooMany(u64),
    /// No answer at all.
    Hang,
    /// The connection is closed; nothing was done.
    CutBefore,
    /// It is done, and the connection closed without an answer.
    CutAfter,
    /// A page of a proxy instead of an answer.
    BadGateway,
}

#[derive(Debug)]
struct Shared {
    bot: Mutex<Bot>,
    /// Counts changes, so that those who wait look again.
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Bot> {
        self.bot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

impl TelegramServer {
    /// Starts a server whose only bot has this token, `<id>:<letters>`, and the name `testkit_bot`.
    pub fn start(token: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            bot: Mutex::new(Bot::new(token)),
            changed: watch::Sender::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("telegram".to_owned())
            .spawn(move || runtime.block_on(http::serve(listener, serving, stopped)))?;
        Ok(Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A user writes a text. Returns the message's id.
    pub fn user_writes(&self, user: i64, chat: &Chat, text: &str) -> i64 {
        self.change(|bot| bot.user_message(user, chat, &[("text", Value::from(text))]))
    }

    /// A user sends a photo. Returns the message's id.
    pub fn user_sends_photo(&self, user: i64, chat: &Chat) -> i64 {
        let photo =
            serde_json::json!([{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}]);
        self.change(|bot| bot.user_message(user, chat, &[("photo", photo)]))
    }

    /// A user presses a button that brings `data`. Returns the query's id.
    pub fn user_presses(&self, user: i64, message: i64, data: &str) -> String {
        self.change(|bot| bot.press(user, message, data))
    }

    /// A user blocks the bot: messages to them are 403 from now on.
    pub fn user_blocks(&self, user: i64) {
        self.change(|bot| bot.blocked_by.push(user));
    }

    /// The token is another one from now on.
    pub fn rotate(&self, token: &str) {
        self.change(|bot| token.clone_into(&mut bot.token));
    }

    /// The next so many requests of this method go wrong.
    pub fn fail_next(&self, method: &str, count: usize, fault: Fault) {
        self.change(|bot| {
            bot.faults
                .extend(std::iter::repeat_n((method.to_owned(), fault), count));
        });
    }

    /// How many of those requests are still to come.
    pub fn next_faults(&self) -> usize {
        self.shared.lock().faults.len()
    }

    /// At most so many messages within a time; more get 429.
    pub fn limit_messages(&self, count: usize, window: Duration) {
        self.change(|bot| bot.rate = Some((count, window)));
    }

    /// A webhook is set, so polling is refused until it is deleted.
    pub fn set_webhook(&self) {
        self.change(|bot| bot.webhook = true);
    }

    /// The bot's messages, oldest first.
    pub fn messages(&self) -> Vec<BotMessage> {
        self.shared.lock().sent.clone()
    }

    /// The texts of the bot's messages to this chat, oldest first.
    pub fn texts(&self, chat: i64) -> Vec<String> {
        let messages = self.messages().into_iter();
        messages
            .filter(|message| message.chat == chat)
            .map(|message| message.text)
            .collect()
    }

    /// The chats to which "typing" was sent, and when.
    pub fn typing(&self) -> Vec<(i64, Instant)> {
        self.shared.lock().typing.clone()
    }

    /// The answers to callback queries.
    pub fn callback_answers(&self) -> Vec<CallbackAnswer> {
        self.shared.lock().callback_answers.clone()
    }

    /// All requests.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// Requests of a method that was told to wait, before the wait was over.
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }

    /// Updates that the bot has not confirmed.
    pub fn unconfirmed(&self) -> usize {
        self.shared.lock().updates.len()
    }

    /// Waits until `look` finds something; `None` after `limit`.
    pub fn wait<T>(&self, limit: Duration, mut look: impl FnMut(&Self) -> Option<T>) -> Option<T> {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = look(self) {
                return Some(found);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Bot) -> T) -> T {
        let result = change(&mut self.shared.lock());
        self.shared.wake();
        result
    }
}

impl Drop for TelegramServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself; there is nothing to stop then.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

/// Faults wait in the order in which they were asked for.
type Faults = VecDeque<(String, Fault)>;
