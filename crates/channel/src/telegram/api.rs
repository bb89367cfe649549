//! What is read of the Bot API (<https://core.telegram.org/bots/api>), and no more. Telegram adds
//! fields at any time, so unknown ones are ignored here, unlike on Bulkhead's own links.

use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::styled::Entity;

/// The envelope of every answer.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<T> {
    /// Whether it was done.
    pub(super) ok: bool,
    /// If it was.
    #[serde(default = "Option::default")]
    pub(super) result: Option<T>,
    /// If it was not.
    #[serde(default)]
    pub(super) error_code: Option<u16>,
    /// Likewise.
    #[serde(default)]
    pub(super) description: Option<String>,
    /// What helps to go on.
    #[serde(default)]
    pub(super) parameters: Option<Hints>,
}

/// What helps to go on after an error.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Hints {
    /// Seconds to wait.
    #[serde(default)]
    pub(super) retry_after: Option<u64>,
    /// The group has this id from now on.
    #[serde(default)]
    pub(super) migrate_to_chat_id: Option<i64>,
}

/// A part of an answer that is not worth failing for when it has another form.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Lenient<T> {
    /// As expected.
    Known(T),
    /// Not.
    Other(IgnoredAny),
}

impl<T> Lenient<T> {
    /// The value, if it has the expected form.
    pub(super) fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Other(_) => None,
        }
    }
}

/// Something that happened.
#[derive(Debug, Deserialize)]
pub(super) struct Update {
    /// Its number, by which it is confirmed.
    pub(super) update_id: i64,
    /// A new message.
    #[serde(default = "Option::default")]
    pub(super) message: Option<Lenient<Message>>,
    /// A button was pressed.
    #[serde(default = "Option::default")]
    pub(super) callback_query: Option<Lenient<CallbackQuery>>,
}

/// A message. Which fields stand for content that is not text is in [`Message::has_media`].
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    /// Within its chat.
    pub(super) message_id: i64,
    /// Who; none in channels.
    pub(super) from: Option<User>,
    /// Where.
    pub(super) chat: Chat,
    /// If it is a text.
    pub(super) text: Option<String>,
    /// What it answers to.
    pub(super) reply_to_message: Option<Box<RepliedTo>>,
    photo: Option<IgnoredAny>,
    video: Option<IgnoredAny>,
    voice: Option<IgnoredAny>,
    audio: Option<IgnoredAny>,
    document: Option<IgnoredAny>,
    sticker: Option<IgnoredAny>,
    animation: Option<IgnoredAny>,
    video_note: Option<IgnoredAny>,
    location: Option<IgnoredAny>,
    contact: Option<IgnoredAny>,
    poll: Option<IgnoredAny>,
}

impl Message {
    /// Whether a person sent something that is not text.
    pub(super) fn has_media(&self) -> bool {
        let media = [
            &self.photo,
            &self.video,
            &self.voice,
            &self.audio,
            &self.document,
            &self.sticker,
            &self.animation,
            &self.video_note,
            &self.location,
            &self.contact,
            &self.poll,
        ];
        media.into_iter().any(Option::is_some)
    }
}

/// The message that another one answers to.
#[derive(Debug, Deserialize)]
pub(super) struct RepliedTo {
    /// Who wrote it.
    pub(super) from: Option<User>,
}

/// A person or a bot.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct User {
    /// For ever the same.
    pub(super) id: i64,
    /// Whether it is a bot.
    pub(super) is_bot: bool,
    /// As they call themselves.
    pub(super) first_name: String,
    /// Likewise.
    pub(super) last_name: Option<String>,
    /// Without the `@`.
    pub(super) username: Option<String>,
}

/// A chat.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Chat {
    /// Negative for groups.
    pub(super) id: i64,
    /// What kind it is.
    #[serde(rename = "type")]
    pub(super) kind: ChatKind,
}

/// What kind a chat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ChatKind {
    /// With one person.
    Private,
    /// With several.
    Group,
    /// With many.
    Supergroup,
    /// Anything else.
    #[serde(other)]
    Other,
}

/// A press of a button.
#[derive(Debug, Deserialize)]
pub(super) struct CallbackQuery {
    /// To be answered.
    pub(super) id: String,
    /// Who.
    pub(super) from: User,
    /// Under which message; none if it is too old.
    pub(super) message: Option<Lenient<UnderMessage>>,
    /// What the button brings.
    pub(super) data: Option<String>,
}

/// The message that a button is under.
#[derive(Debug, Deserialize)]
pub(super) struct UnderMessage {
    /// Where.
    pub(super) chat: Chat,
}

/// What is kept of a message that was sent.
#[derive(Debug, Deserialize)]
pub(super) struct Sent {
    /// Within its chat.
    pub(super) message_id: i64,
}

/// `getUpdates`.
#[derive(Debug, Serialize)]
pub(super) struct GetUpdates {
    /// Confirms everything below.
    pub(super) offset: i64,
    /// At most so many.
    pub(super) limit: u8,
    /// Seconds to wait for the first.
    pub(super) timeout: u64,
    /// The kinds wanted.
    pub(super) allowed_updates: [&'static str; 2],
}

/// `deleteWebhook`.
#[derive(Debug, Serialize)]
pub(super) struct DeleteWebhook {
    /// Never, so that nothing is lost.
    pub(super) drop_pending_updates: bool,
}

/// `getMe`.
#[derive(Debug, Serialize)]
pub(super) struct GetMe {}

/// `sendMessage`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SendMessage {
    /// Where.
    pub(super) chat_id: i64,
    /// What, as it is.
    pub(super) text: String,
    /// What of it is marked up.
    pub(super) entities: Vec<Entity>,
    /// No previews: a preview is a request to whoever is named.
    pub(super) link_preview_options: NoPreview,
    /// Whether it makes no sound.
    pub(super) disable_notification: bool,
    /// Buttons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reply_markup: Option<Keyboard>,
}

/// `editMessageText`; buttons go with it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct EditMessageText {
    /// Where.
    pub(super) chat_id: i64,
    /// Which.
    pub(super) message_id: i64,
    /// What stands there now.
    pub(super) text: String,
    /// What of it is marked up.
    pub(super) entities: Vec<Entity>,
    /// As in [`SendMessage`].
    pub(super) link_preview_options: NoPreview,
}

/// `editMessageReplyMarkup` without buttons.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RemoveButtons {
    /// Where.
    pub(super) chat_id: i64,
    /// Which.
    pub(super) message_id: i64,
}

/// `answerCallbackQuery`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct AnswerCallbackQuery {
    /// Which.
    pub(super) callback_query_id: String,
    /// At most 200 characters.
    pub(super) text: String,
    /// Whether as a box that has to be closed.
    pub(super) show_alert: bool,
}

/// `sendChatAction`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SendChatAction {
    /// Where.
    pub(super) chat_id: i64,
    /// `typing`.
    pub(super) action: &'static str,
}

/// `LinkPreviewOptions` that allow none.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct NoPreview {
    is_disabled: bool,
}

impl Default for NoPreview {
    fn default() -> Self {
        Self { is_disabled: true }
    }
}

/// `InlineKeyboardMarkup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Keyboard {
    /// Row by row.
    pub(super) inline_keyboard: Vec<Vec<Button>>,
}

/// A button.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Button {
    /// What it says.
    pub(super) text: &'static str,
    /// What comes back; at most 64 bytes.
    pub(super) callback_data: String,
}

/// Who this bot is.
#[derive(Clone, Debug)]
pub(super) struct Me {
    /// Its id.
    pub(super) id: i64,
    /// Its name without the `@`, in lower case.
    pub(super) username: String,
}

impl fmt::Display for Me {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.username)
    }
}
