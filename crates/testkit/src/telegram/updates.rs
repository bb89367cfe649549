//! Updates: made by users, fetched by the bot's one poller, kept until confirmed.

use serde_json::{Map, Value, json};

use super::Chat;
use super::api::{ApiError, Bot, Parameters, now, user};

/// An update that is not confirmed.
#[derive(Clone, Debug)]
pub(super) struct Update {
    /// Its number.
    pub(super) id: i64,
    /// As the API shows it.
    pub(super) body: Value,
}

/// What a poll asked for.
#[derive(Clone, Debug)]
pub(super) struct Poll {
    /// Which poller this is; another one that comes later ends it.
    pub(super) ticket: u64,
    /// How long to wait for the first update, in seconds.
    pub(super) timeout: u64,
    limit: usize,
    from: i64,
}

impl Bot {
    /// Takes a poll in: confirms what is below its offset, and ends the poll before it.
    pub(super) fn begin_poll(&mut self, parameters: &Parameters) -> Result<Poll, ApiError> {
        if self.webhook {
            return Err(ApiError::conflict(
                "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first",
            ));
        }
        if let Some(kinds) = parameters.json("allowed_updates")? {
            let kinds = kinds.as_array().into_iter().flatten();
            self.allowed = kinds
                .filter_map(|kind| kind.as_str().map(str::to_owned))
                .collect();
        }
        let offset = parameters.integer("offset")?.unwrap_or(0);
        let limit = usize::try_from(parameters.integer("limit")?.unwrap_or(100))
            .unwrap_or(1)
            .clamp(1, 100);
        let timeout = u64::try_from(parameters.integer("timeout")?.unwrap_or(0))
            .unwrap_or(0)
            .min(50);
        let from = match offset {
            0 => 0,
            1.. => offset,
            // So many from the end; those before are forgotten.
            _ => {
                let back = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
                let first = self.updates.len().saturating_sub(back);
                self.updates.get(first).map_or(0, |update| update.id)
            }
        };
        self.updates.retain(|update| update.id >= from);
        self.poller += 1;
        Ok(Poll {
            ticket: self.poller,
            timeout,
            limit,
            from,
        })
    }

    /// What this poll gets now; nothing yet if it is empty.
    pub(super) fn poll(&self, poll: &Poll) -> Result<Vec<Value>, ApiError> {
        if self.poller != poll.ticket {
            return Err(ApiError::conflict(
                "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
            ));
        }
        let wanted = self.updates.iter().filter(|update| update.id >= poll.from);
        Ok(wanted
            .take(poll.limit)
            .map(|update| update.body.clone())
            .collect())
    }

    /// A message of a user, with these fields; returns its id.
    pub(super) fn user_message(&mut self, from: i64, chat: &Chat, fields: &[(&str, Value)]) -> i64 {
        self.chats.insert(chat.id, chat.clone());
        let id = self.next_message();
        let mut message = Map::new();
        message.insert("message_id".to_owned(), id.into());
        message.insert("from".to_owned(), user(from));
        message.insert("chat".to_owned(), json!(chat));
        message.insert("date".to_owned(), now().into());
        for (name, value) in fields {
            message.insert((*name).to_owned(), value.clone());
        }
        self.push("message", Value::Object(message));
        id
    }

    /// A press of a button under a message of the bot; returns the query's id.
    pub(super) fn press(&mut self, from: i64, message: i64, data: &str) -> String {
        let query = format!(
            "{}",
            4_000_000_000_000_u64 + self.poller + u64::try_from(self.queries.len()).unwrap_or(0)
        );
        let under = self
            .sent
            .iter()
            .find(|sent| sent.id == message)
            .map(|sent| self.show(sent));
        let body = json!({
            "id": query, "from": user(from), "message": under, "chat_instance": "1", "data": data,
        });
        self.queries.push((query.clone(), Answered::No));
        self.push("callback_query", body);
        query
    }

    fn push(&mut self, kind: &str, body: Value) {
        if !self.allowed.is_empty() && !self.allowed.iter().any(|allowed| allowed == kind) {
            return;
        }
        self.last_update += 1;
        let body = json!({ "update_id": self.last_update, kind: body });
        self.updates.push(Update {
            id: self.last_update,
            body,
        });
    }
}

/// Whether a callback query was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// Not yet.
    No,
    /// Yes; a second answer is refused.
    Yes,
}
