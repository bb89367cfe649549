//! Sends to Telegram, one after the other, over one connection.
//!
//! A job is tried until Telegram took it or refuses it for good; when Telegram wants silence,
//! nothing is sent before it is over. Of an answer that got lost it is not known whether it
//! was done, and it is sent again: people may see a message twice, but never miss one.

use std::time::{Duration, Instant};

use protocol::ids::{ApprovalId, Digest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::api::{
    AnswerCallbackQuery, EditMessageText, Keyboard, NoPreview, RemoveButtons, SendChatAction,
    SendMessage, Sent,
};
use super::backoff::Backoff;
use super::bot::{CALL_LIMIT, CallError, Line};
use super::cards::Card;
use super::disk::{Disk, Place};
use super::peers::NoToken;
use super::styled::{Entity, Part, utf16};

/// After this a person no longer looks at the button that they pressed.
const PRESS_LIMIT: Duration = Duration::from_secs(60);

/// How long "typing" may take to be of use.
const TYPING_LIMIT: Duration = Duration::from_secs(3);

/// Something to send.
#[derive(Debug)]
pub(super) enum Job {
    /// A delivery of the gateway; it is reported when Telegram has all of it.
    Deliver {
        /// Its number.
        delivery: u64,
        /// Of where it goes and what it says.
        content: Digest,
        /// Where.
        chat: i64,
        /// What.
        parts: Vec<Part>,
    },
    /// A short text of this program; nobody waits for it.
    Say {
        /// Where.
        chat: i64,
        /// What.
        text: String,
        /// Whether it makes a sound.
        sound: Sound,
    },
    /// An approval is asked for. It is not sent again if its buttons stand there already.
    Ask {
        /// Which.
        approval: ApprovalId,
        /// Where.
        chat: i64,
        /// What.
        card: Card,
    },
    /// An approval is over: its last message changes to this, without buttons.
    Close {
        /// Which.
        approval: ApprovalId,
        /// What stands there now.
        text: Part,
    },
    /// The buttons of all other approvals go.
    KeepOnly {
        /// Those that are open.
        open: Vec<ApprovalId>,
    },
    /// A person who pressed a button is answered.
    AnswerPress {
        /// Which press.
        query: String,
        /// What they see.
        text: String,
        /// How.
        notice: PressNotice,
        /// When they pressed.
        since: Instant,
    },
    /// Somebody is at it.
    Typing {
        /// Where.
        chat: i64,
    },
}

/// Whether a message makes a sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sound {
    /// As the person set it.
    Usual,
    /// None.
    Silent,
}

/// How a person who pressed a button sees the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PressNotice {
    /// For a moment.
    Brief,
    /// As a box that has to be closed.
    Alert,
}

/// What the sender tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Telegram has all of this delivery, or refuses it for good.
    Delivered(u64),
    /// It cannot go on, and a restart will not help.
    Failed(String),
}

/// Why a job is over although it was not done.
enum Undone {
    /// Telegram refuses it for good.
    Refused {
        code: u16,
        description: String,
        migrated_to: Option<i64>,
    },
    /// It is too late for it.
    TooLate,
    /// The program ends, or cannot go on.
    End,
}

/// Works until the jobs end or it is told to stop.
pub(super) struct Sender {
    /// Its own connection.
    pub(super) line: Line,
    /// What was sent before.
    pub(super) disk: Disk,
    /// What to do.
    pub(super) jobs: mpsc::Receiver<Job>,
    /// Where it tells.
    pub(super) told: mpsc::UnboundedSender<Told>,
    /// True once the program ends.
    pub(super) stop: watch::Receiver<bool>,
    /// Failures in a row.
    pub(super) backoff: Backoff,
}

impl Sender {
    /// Runs until it is stopped or cannot go on. What is under way when it is stopped is finished
    /// first, so that it is known to be done.
    pub(super) async fn run(mut self) {
        loop {
            let mut stop = self.stop.clone();
            let job = tokio::select! {
                biased;
                // An error means that the program is gone, which is the same.
                _ = stop.wait_for(|stop| *stop) => return,
                job = self.jobs.recv() => job,
            };
            let Some(job) = job else { return };
            if let Err(Undone::End) = self.work(job).await {
                return;
            }
        }
    }

    async fn work(&mut self, job: Job) -> Result<(), Undone> {
        match job {
            Job::Deliver {
                delivery,
                content,
                chat,
                parts,
            } => self.deliver(delivery, content, chat, parts).await,
            Job::Say { chat, text, sound } => self
                .send(message(chat, Part::plain(text), sound, None), None)
                .await
                .map(drop),
            Job::Ask {
                approval,
                chat,
                card,
            } => self.ask(approval, chat, card).await,
            Job::Close { approval, text } => self.close(approval, text).await,
            Job::KeepOnly { open } => self.keep_only(&open).await,
            Job::AnswerPress {
                query,
                text,
                notice,
                since,
            } => {
                let show_alert = notice == PressNotice::Alert;
                let answer = AnswerCallbackQuery {
                    callback_query_id: query,
                    text,
                    show_alert,
                };
                self.insist::<bool>("answerCallbackQuery", &answer, Some(since + PRESS_LIMIT))
                    .await
                    .map(drop)
            }
            Job::Typing { chat } => {
                let action = SendChatAction {
                    chat_id: chat,
                    action: "typing",
                };
                let until = Some(Instant::now() + TYPING_LIMIT);
                self.insist::<bool>("sendChatAction", &action, until)
                    .await
                    .map(drop)
            }
        }
    }

    async fn deliver(
        &mut self,
        delivery: u64,
        content: Digest,
        chat: i64,
        parts: Vec<Part>,
    ) -> Result<(), Undone> {
        let sent = self.disk.parts_sent(delivery, &content);
        for (at, part) in parts.into_iter().enumerate().skip(sent) {
            match self
                .send(message(chat, part, Sound::Usual, None), None)
                .await
            {
                Ok(_) => self.disk.sent(delivery, content, at + 1),
                Err(Undone::Refused { code, .. }) => {
                    // It would be refused again and again, and hold up everything behind it.
                    protocol::log!(
                        "channel telegram: Telegram refuses delivery {delivery} ({code}); it is given up"
                    );
                    break;
                }
                Err(undone) => return Err(undone),
            }
        }
        self.tell(Told::Delivered(delivery))
    }

    async fn ask(&mut self, approval: ApprovalId, chat: i64, card: Card) -> Result<(), Undone> {
        if self.disk.place(&approval).is_some() {
            return Ok(());
        }
        let last = card.parts.len().saturating_sub(1);
        for (at, part) in card.parts.into_iter().enumerate() {
            let keyboard = (at == last).then(|| card.keyboard.clone());
            match self
                .send(message(chat, part, Sound::Usual, keyboard), None)
                .await
            {
                Ok(place) if at == last => self.disk.asked(approval, place),
                Ok(_) => {}
                Err(Undone::Refused { code, .. }) => {
                    protocol::log!(
                        "channel telegram: Telegram refuses to ask about {approval} ({code}); it can be answered with `bulkhead approvals`"
                    );
                    return Ok(());
                }
                Err(undone) => return Err(undone),
            }
        }
        Ok(())
    }

    async fn close(&mut self, approval: ApprovalId, text: Part) -> Result<(), Undone> {
        let Some(Place { chat, message }) = self.disk.place(&approval) else {
            return Ok(());
        };
        let edit = EditMessageText {
            chat_id: chat,
            message_id: message,
            text: text.text,
            entities: text.entities,
            link_preview_options: NoPreview::default(),
        };
        let done = self.insist::<Sent>("editMessageText", &edit, None).await;
        self.buttons_gone(approval, done)
    }

    async fn keep_only(&mut self, open: &[ApprovalId]) -> Result<(), Undone> {
        for approval in self.disk.places() {
            let Some(Place { chat, message }) = self
                .disk
                .place(&approval)
                .filter(|_| !open.contains(&approval))
            else {
                continue;
            };
            let remove = RemoveButtons {
                chat_id: chat,
                message_id: message,
            };
            let done = self
                .insist::<Sent>("editMessageReplyMarkup", &remove, None)
                .await;
            self.buttons_gone(approval, done)?;
        }
        Ok(())
    }

    /// A message that cannot be changed is gone or is as it should be.
    fn buttons_gone(
        &mut self,
        approval: ApprovalId,
        done: Result<Sent, Undone>,
    ) -> Result<(), Undone> {
        match done {
            Ok(_) | Err(Undone::Refused { .. } | Undone::TooLate) => {
                self.disk.closed(&approval);
                Ok(())
            }
            Err(Undone::End) => Err(Undone::End),
        }
    }

    /// Sends a message; if its markup is refused, as code throughout; if the group has moved, there.
    async fn send(
        &mut self,
        mut message: SendMessage,
        until: Option<Instant>,
    ) -> Result<Place, Undone> {
        // Each remedy is tried once.
        let mut remedies = 2;
        loop {
            let refused = match self.insist::<Sent>("sendMessage", &message, until).await {
                Ok(sent) => {
                    return Ok(Place {
                        chat: message.chat_id,
                        message: sent.message_id,
                    });
                }
                Err(refused) => refused,
            };
            match &refused {
                Undone::Refused {
                    migrated_to: Some(chat),
                    ..
                } if remedies > 0 => message.chat_id = *chat,
                Undone::Refused {
                    code: 400,
                    description,
                    ..
                } if remedies > 0 && description.contains("entit") => {
                    message.entities = vec![whole_as_code(&message.text)];
                }
                Undone::Refused { .. } | Undone::TooLate | Undone::End => return Err(refused),
            }
            remedies -= 1;
        }
    }

    /// Calls until it is done or refused for good, or until it is too late.
    async fn insist<R: DeserializeOwned>(
        &mut self,
        method: &'static str,
        parameters: &impl Serialize,
        until: Option<Instant>,
    ) -> Result<R, Undone> {
        loop {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(Undone::TooLate);
            }
            let wait = match self.line.call(method, parameters, CALL_LIMIT).await {
                Ok(result) => {
                    self.backoff.worked();
                    return Ok(result);
                }
                Err(CallError::Refused {
                    code,
                    description,
                    migrated_to,
                }) => {
                    self.backoff.worked();
                    return Err(Undone::Refused {
                        code,
                        description,
                        migrated_to,
                    });
                }
                Err(error) => self.wait_after(&error)?,
            };
            self.rest(wait).await?;
        }
    }

    fn wait_after(&mut self, error: &CallError) -> Result<Duration, Undone> {
        let backoff = self.backoff.failed();
        if self.backoff.is_first() {
            protocol::log!("channel telegram: cannot send: {error}");
        }
        match error {
            CallError::TooMany(wait) => Ok(*wait),
            CallError::BadToken { .. } | CallError::NoToken(NoToken::NotAToken(_)) => {
                self.tell(Told::Failed(error.to_string()))?;
                Err(Undone::End)
            }
            CallError::NoToken(NoToken::Refused(_) | NoToken::Locked | NoToken::NoVault)
            | CallError::Http(_)
            | CallError::Conflict
            | CallError::Refused { .. }
            | CallError::Trouble(_) => Ok(backoff),
        }
    }

    /// Waits, unless the program ends.
    async fn rest(&mut self, wait: Duration) -> Result<(), Undone> {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            _ = stop.wait_for(|stop| *stop) => Err(Undone::End),
        }
    }

    fn tell(&self, what: Told) -> Result<(), Undone> {
        self.told.send(what).map_err(|_| Undone::End)
    }
}

fn message(chat: i64, part: Part, sound: Sound, keyboard: Option<Keyboard>) -> SendMessage {
    SendMessage {
        chat_id: chat,
        text: part.text,
        entities: part.entities,
        link_preview_options: NoPreview::default(),
        disable_notification: sound == Sound::Silent,
        reply_markup: keyboard,
    }
}

/// Markup that no server can refuse, and that lets no app make links.
fn whole_as_code(text: &str) -> Entity {
    Entity {
        kind: "pre",
        offset: 0,
        length: utf16(text),
        language: None,
    }
}
