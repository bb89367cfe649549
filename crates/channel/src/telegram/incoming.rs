//! What an update means. Pure.

use protocol::ids::{ConversationId, MessageId, SenderId};

use super::api::{CallbackQuery, ChatKind, Lenient, Me, Message, Update, User};

/// What an update means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A text for the agent.
    Text(Text),
    /// A press of a button.
    Press(Press),
    /// A person sent something that is not text, to the bot alone.
    NotText {
        /// Where.
        chat: i64,
    },
    /// Nothing for us.
    Nothing,
}

/// A text for the agent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    /// Names bot, chat and message, since messages are counted for each pair of them.
    pub(super) message: MessageId,
    /// The user's id.
    pub(super) sender: SenderId,
    /// As they call themselves.
    pub(super) sender_name: String,
    /// The chat's id.
    pub(super) conversation: ConversationId,
    /// The chat's id as a number.
    pub(super) chat: i64,
    /// What.
    pub(super) text: String,
}

/// A press of a button.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Press {
    /// To be answered.
    pub(super) query: String,
    /// The user's id.
    pub(super) sender: SenderId,
    /// Under a message of this chat; unknown for old messages.
    pub(super) chat: Option<i64>,
    /// What the button brings.
    pub(super) data: String,
}

/// Reads an update for this bot.
pub(super) fn understand(update: Update, me: &Me) -> Incoming {
    if let Some(message) = update.message.and_then(Lenient::known) {
        return understand_message(message, me);
    }
    update
        .callback_query
        .and_then(Lenient::known)
        .and_then(press)
        .map_or(Incoming::Nothing, Incoming::Press)
}

fn understand_message(message: Message, me: &Me) -> Incoming {
    let person = message.from.as_ref().filter(|from| !from.is_bot);
    let Some(person) = person else {
        return Incoming::Nothing;
    };
    let text = match (message.chat.kind, &message.text) {
        (ChatKind::Private, Some(text)) => Some(own_command(text, me)),
        (ChatKind::Group | ChatKind::Supergroup, Some(text)) => for_the_bot(text, &message, me),
        (ChatKind::Private, None) if message.has_media() => {
            return Incoming::NotText {
                chat: message.chat.id,
            };
        }
        (ChatKind::Private | ChatKind::Group | ChatKind::Supergroup, None)
        | (ChatKind::Other, _) => None,
    };
    let text = text.map(|text| as_text(&message, person, text, me));
    text.and_then(Result::ok)
        .map_or(Incoming::Nothing, Incoming::Text)
}

fn as_text(
    message: &Message,
    person: &User,
    text: String,
    me: &Me,
) -> Result<Text, protocol::ids::BadId> {
    let chat = message.chat.id;
    Ok(Text {
        message: MessageId::parse(format!("{}:{chat}:{}", me.id, message.message_id))?,
        sender: SenderId::parse(person.id.to_string())?,
        sender_name: shown_name(person),
        conversation: ConversationId::parse(chat.to_string())?,
        chat,
        text,
    })
}

/// The text, if a message in a group is meant for the bot: a command, a mention, an answer to it.
fn for_the_bot(text: &str, message: &Message, me: &Me) -> Option<String> {
    let replied = message
        .reply_to_message
        .as_ref()
        .and_then(|message| message.from.as_ref());
    let answers_me = replied.is_some_and(|from| from.id == me.id);
    let mentions_me = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '@' && c != '_')
        .any(|word| {
            word.strip_prefix('@')
                .is_some_and(|name| name.eq_ignore_ascii_case(&me.username))
        });
    let command = text
        .strip_prefix('/')
        .map(|rest| rest.split_whitespace().next().unwrap_or_default());
    let for_another = command
        .and_then(|command| command.split_once('@'))
        .is_some_and(|(_, bot)| !bot.eq_ignore_ascii_case(&me.username));
    let mine = !for_another && (command.is_some() || mentions_me || answers_me);
    mine.then(|| own_command(text, me))
}

/// `/stop@this_bot` is `/stop`.
fn own_command(text: &str, me: &Me) -> String {
    let Some(word) = text
        .split_whitespace()
        .next()
        .filter(|word| text.starts_with('/') && word.starts_with('/'))
    else {
        return text.to_owned();
    };
    match word.split_once('@') {
        Some((command, bot)) if bot.eq_ignore_ascii_case(&me.username) => {
            format!("{command}{}", &text[word.len()..])
        }
        Some(_) | None => text.to_owned(),
    }
}

/// The name a person chose, without what cannot be seen, at most 64 characters, and the
/// unique one.
fn shown_name(user: &User) -> String {
    let last = user.last_name.iter().flat_map(|name| [" ", name.as_str()]);
    let name: String = std::iter::once(user.first_name.as_str())
        .chain(last)
        .collect();
    let name: String = name
        .chars()
        .filter(|c| !super::cards::is_invisible(*c))
        .take(64)
        .collect();
    match &user.username {
        Some(unique) => format!("{name} (@{unique})"),
        None => name,
    }
}

fn press(query: CallbackQuery) -> Option<Press> {
    Some(Press {
        query: query.id,
        sender: SenderId::parse(query.from.id.to_string()).ok()?,
        chat: query
            .message
            .and_then(Lenient::known)
            .map(|message| message.chat.id),
        data: query.data?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn me() -> Me {
        Me {
            id: 42,
            username: "a_bot".to_owned(),
        }
    }

    fn read(update: Value) -> Incoming {
        understand(serde_json::from_value(update).unwrap(), &me())
    }

    fn message(chat: i64, kind: &str, fields: Value) -> Incoming {
        let mut message = json!({
            "message_id": 5, "date": 1, "chat": { "id": chat, "type": kind, "title": "t" },
            "from": { "id": 7, "is_bot": false, "first_name": "An\u{202e}na", "last_name": "B", "username": "anna" },
        });
        for (name, value) in fields.as_object().unwrap() {
            message[name] = value.clone();
        }
        read(json!({ "update_id": 1, "message": message }))
    }

    fn text_of(incoming: Incoming) -> Option<String> {
        match incoming {
            Incoming::Text(text) => Some(text.text),
            Incoming::Press(_) | Incoming::NotText { .. } | Incoming::Nothing => None,
        }
    }

    #[test]
    fn a_private_text_has_its_sender_and_chat() {
        let Incoming::Text(text) = message(7, "private", json!({ "text": "hi" })) else {
            panic!("no text")
        };
        assert_eq!(
            (text.message.as_str(), text.sender.as_str()),
            ("42:7:5", "7")
        );
        assert_eq!(
            (text.conversation.as_str(), text.sender_name.as_str()),
            ("7", "Anna B (@anna)")
        );
    }

    #[test]
    fn in_a_group_only_what_is_for_the_bot_is_read() {
        let group = |fields| text_of(message(-9, "supergroup", fields));
        assert_eq!(group(json!({ "text": "hello all" })), None);
        assert_eq!(group(json!({ "text": "/stop" })).as_deref(), Some("/stop"));
        assert_eq!(
            group(json!({ "text": "/stop@A_Bot now" })).as_deref(),
            Some("/stop now")
        );
        assert_eq!(group(json!({ "text": "/stop@other_bot" })), None);
        assert_eq!(
            group(json!({ "text": "hey @a_bot, x" })).as_deref(),
            Some("hey @a_bot, x")
        );
        assert_eq!(group(json!({ "text": "hey @a_bottle" })), None);
        let answered = json!({ "from": { "id": 42, "is_bot": true, "first_name": "b" } });
        assert_eq!(
            group(json!({ "text": "yes", "reply_to_message": answered })).as_deref(),
            Some("yes")
        );
    }

    #[test]
    fn bots_channels_photos_and_odd_forms_are_no_texts() {
        let bot = json!({ "text": "x", "from": { "id": 8, "is_bot": true, "first_name": "b" } });
        assert_eq!(message(7, "private", bot), Incoming::Nothing);
        assert_eq!(
            message(7, "private", json!({ "photo": [] })),
            Incoming::NotText { chat: 7 }
        );
        assert_eq!(
            message(-7, "group", json!({ "photo": [] })),
            Incoming::Nothing
        );
        assert_eq!(
            message(7, "private", json!({ "pinned_message": {} })),
            Incoming::Nothing
        );
        assert_eq!(
            message(7, "channel", json!({ "text": "x" })),
            Incoming::Nothing
        );
        assert_eq!(
            read(json!({ "update_id": 1, "message": { "odd": [1, { "x": null }] } })),
            Incoming::Nothing
        );
        assert_eq!(
            read(json!({ "update_id": 1, "edited_message": {} })),
            Incoming::Nothing
        );
    }

    #[test]
    fn a_press_names_who_pressed() {
        let user = json!({ "id": 7, "is_bot": false, "first_name": "A" });
        let under = json!({ "message_id": 3, "date": 0, "chat": { "id": -9, "type": "group" } });
        let query =
            json!({ "id": "q", "from": user, "message": under, "chat_instance": "1", "data": "d" });
        let expected = Press {
            query: "q".to_owned(),
            sender: SenderId::parse("7").unwrap(),
            chat: Some(-9),
            data: "d".to_owned(),
        };
        assert_eq!(
            read(json!({ "update_id": 1, "callback_query": query })),
            Incoming::Press(expected)
        );
    }
}
