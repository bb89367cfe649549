//! The bot and its methods.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::updates::{Answered, Update};
use super::{BotMessage, Button, CallbackAnswer, Chat, Entity, Fault, Faults, Request, text};

/// All that the server knows.
#[derive(Debug)]
pub(super) struct Bot {
    pub(super) token: String,
    pub(super) updates: Vec<Update>,
    pub(super) last_update: i64,
    pub(super) allowed: Vec<String>,
    pub(super) poller: u64,
    pub(super) webhook: bool,
    pub(super) chats: HashMap<i64, Chat>,
    pub(super) blocked_by: Vec<i64>,
    pub(super) sent: Vec<BotMessage>,
    pub(super) queries: Vec<(String, Answered)>,
    pub(super) callback_answers: Vec<CallbackAnswer>,
    pub(super) typing: Vec<(i64, Instant)>,
    pub(super) faults: Faults,
    pub(super) rate: Option<(usize, Duration)>,
    pub(super) requests: Vec<Request>,
    pub(super) violations: Vec<String>,
    held: HashMap<String, Instant>,
    recent: Vec<Instant>,
    last_message: i64,
}

/// An answer with `"ok": false`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: u16,
    pub(super) description: String,
    pub(super) retry_after: Option<u64>,
}

impl ApiError {
    pub(super) fn new(code: u16, description: impl Into<String>) -> Self {
        Self {
            code,
            description: description.into(),
            retry_after: None,
        }
    }

    pub(super) fn bad(description: &str) -> Self {
        Self::new(400, format!("Bad Request: {description}"))
    }

    pub(super) fn conflict(description: &str) -> Self {
        Self::new(409, description)
    }

    fn too_many(seconds: u64) -> Self {
        let description = format!("Too Many Requests: retry after {seconds}");
        Self {
            code: 429,
            description,
            retry_after: Some(seconds),
        }
    }
}

/// The parameters of a request; a form brings numbers and objects as text.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters(pub(super) Map<String, Value>);

impl Parameters {
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let wrong = || ApiError::bad(&format!("invalid {name} specified"));
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => number.as_i64().map(Some).ok_or_else(wrong),
            Some(Value::String(text)) => text.parse().map(Some).map_err(|_| wrong()),
            Some(_) => Err(wrong()),
        }
    }

    pub(super) fn json(&self, name: &str) -> Result<Option<Value>, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text)
                .map(Some)
                .map_err(|_| ApiError::bad(&format!("can't parse {name}"))),
            Some(value) => Ok(Some(value.clone())),
        }
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn truth(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Value::Bool(true)))
            || self.text(name).eq_ignore_ascii_case("true")
    }
}

impl Bot {
    pub(super) fn new(token: &str) -> Self {
        Self {
            token: token.to_owned(),
            updates: Vec::new(),
            last_update: 700_000_000,
            allowed: Vec::new(),
            poller: 0,
            webhook: false,
            chats: HashMap::new(),
            blocked_by: Vec::new(),
            sent: Vec::new(),
            queries: Vec::new(),
            callback_answers: Vec::new(),
            typing: Vec::new(),
            faults: Faults::new(),
            rate: None,
            requests: Vec::new(),
            violations: Vec::new(),
            held: HashMap::new(),
            recent: Vec::new(),
            last_message: 100,
        }
    }

    /// Whether the path's token opens this bot.
    pub(super) fn authorize(&self, token: &str) -> Result<(), ApiError> {
        let formed = token.split_once(':').is_some_and(|(id, secret)| {
            !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) && !secret.is_empty()
        });
        if !formed {
            return Err(ApiError::new(404, "Not Found"));
        }
        if token != self.token {
            return Err(ApiError::new(401, "Unauthorized"));
        }
        Ok(())
    }

    /// What was asked to go wrong with a request of this method.
    pub(super) fn next_fault(&mut self, method: &str) -> Option<Fault> {
        let at = self.faults.iter().position(|(name, _)| name == method)?;
        self.faults.remove(at).map(|(_, fault)| fault)
    }

    /// Answers 429 to this request and, for so long, to others of its method.
    pub(super) fn hold(&mut self, method: &str, seconds: u64) -> ApiError {
        self.held.insert(
            method.to_owned(),
            Instant::now() + Duration::from_secs(seconds),
        );
        ApiError::too_many(seconds)
    }

    /// Refuses requests of a method that was told to wait, and messages over the rate.
    pub(super) fn check_limits(&mut self, method: &str) -> Result<(), ApiError> {
        let now = Instant::now();
        if let Some(until) = self.held.get(method).filter(|until| **until > now) {
            let left = until.duration_since(now);
            self.violations
                .push(format!("{method} came {} ms too early", left.as_millis()));
            return Err(ApiError::too_many(left.as_secs() + 1));
        }
        let Some((count, window)) = self.rate.filter(|_| method == "sendMessage") else {
            return Ok(());
        };
        self.recent.retain(|at| now.duration_since(*at) < window);
        if self.recent.len() >= count {
            return Err(self.hold(method, window.as_secs().max(1)));
        }
        self.recent.push(now);
        Ok(())
    }

    /// All methods but `getUpdates`, which waits.
    pub(super) fn call(
        &mut self,
        method: &str,
        parameters: &Parameters,
    ) -> Result<Value, ApiError> {
        match method {
            "getMe" => Ok(self.me()),
            "deleteWebhook" => {
                self.webhook = false;
                if parameters.truth("drop_pending_updates") {
                    self.updates.clear();
                }
                Ok(true.into())
            }
            "sendMessage" => self.send_message(parameters),
            "editMessageText" => self.edit_text(parameters),
            "editMessageReplyMarkup" => self.edit_buttons(parameters),
            "answerCallbackQuery" => self.answer_query(parameters),
            "sendChatAction" => self.send_action(parameters),
            _ => Err(ApiError::new(404, "Not Found: method not found")),
        }
    }

    pub(super) fn next_message(&mut self) -> i64 {
        self.last_message += 1;
        self.last_message
    }

    /// A message as the API shows it.
    pub(super) fn show(&self, message: &BotMessage) -> Value {
        let mut shown = json!({
            "message_id": message.id,
            "from": self.me(),
            "chat": self.chats.get(&message.chat),
            "date": now(),
            "text": message.text,
        });
        if !message.entities.is_empty() {
            shown["entities"] = json!(message.entities);
        }
        if !message.buttons.is_empty() {
            shown["reply_markup"] = json!({ "inline_keyboard": [message.buttons] });
        }
        shown
    }

    fn me(&self) -> Value {
        let id: i64 = self
            .token
            .split(':')
            .next()
            .and_then(|id| id.parse().ok())
            .unwrap_or(0);
        json!({
            "id": id, "is_bot": true, "first_name": "Testkit", "username": "testkit_bot",
            "can_join_groups": true, "can_read_all_group_messages": false, "supports_inline_queries": false,
        })
    }

    fn send_message(&mut self, parameters: &Parameters) -> Result<Value, ApiError> {
        let chat = self.known_chat(parameters)?;
        let (text, entities) = checked_text(parameters)?;
        let message = BotMessage {
            id: self.next_message(),
            chat,
            text,
            entities,
            buttons: checked_buttons(parameters)?,
            edits: 0,
            previews: previews(parameters)?,
        };
        let shown = self.show(&message);
        self.sent.push(message);
        Ok(shown)
    }

    fn edit_text(&mut self, parameters: &Parameters) -> Result<Value, ApiError> {
        let (text, entities) = checked_text(parameters)?;
        let buttons = checked_buttons(parameters)?;
        self.edit(parameters, |message| {
            message.text = text;
            message.entities = entities;
            message.buttons = buttons;
        })
    }

    fn edit_buttons(&mut self, parameters: &Parameters) -> Result<Value, ApiError> {
        let buttons = checked_buttons(parameters)?;
        self.edit(parameters, |message| message.buttons = buttons)
    }

    fn edit(
        &mut self,
        parameters: &Parameters,
        change: impl FnOnce(&mut BotMessage),
    ) -> Result<Value, ApiError> {
        let chat = self.known_chat(parameters)?;
        let id = parameters
            .integer("message_id")?
            .ok_or_else(|| ApiError::bad("message identifier is not specified"))?;
        let message = self
            .sent
            .iter_mut()
            .find(|message| message.id == id && message.chat == chat);
        let message = message.ok_or_else(|| ApiError::bad("message to edit not found"))?;
        let before = message.clone();
        change(message);
        if *message == before {
            return Err(ApiError::bad(
                "message is not modified: specified new message content and reply markup are exactly the same as a current content and reply markup of the message",
            ));
        }
        message.edits += 1;
        let edited = message.clone();
        Ok(self.show(&edited))
    }

    fn answer_query(&mut self, parameters: &Parameters) -> Result<Value, ApiError> {
        let id = parameters.text("callback_query_id");
        let answer = parameters.text("text");
        if text::utf16(answer) > 200 {
            return Err(ApiError::bad("MESSAGE_TOO_LONG"));
        }
        let open = self
            .queries
            .iter_mut()
            .find(|(query, answered)| query == id && *answered == Answered::No);
        let Some((_, answered)) = open else {
            return Err(ApiError::bad(
                "query is too old and response timeout expired or query ID is invalid",
            ));
        };
        *answered = Answered::Yes;
        self.callback_answers.push(CallbackAnswer {
            query: id.to_owned(),
            text: answer.to_owned(),
            alert: parameters.truth("show_alert"),
        });
        Ok(true.into())
    }

    fn send_action(&mut self, parameters: &Parameters) -> Result<Value, ApiError> {
        let chat = self.known_chat(parameters)?;
        if parameters.text("action") != "typing" {
            return Err(ApiError::bad("wrong parameter action in request"));
        }
        self.typing.push((chat, Instant::now()));
        Ok(true.into())
    }

    fn known_chat(&self, parameters: &Parameters) -> Result<i64, ApiError> {
        let id = parameters
            .integer("chat_id")?
            .ok_or_else(|| ApiError::bad("chat_id is empty"))?;
        if self.blocked_by.contains(&id) {
            return Err(ApiError::new(403, "Forbidden: bot was blocked by the user"));
        }
        if !self.chats.contains_key(&id) {
            return Err(ApiError::bad("chat not found"));
        }
        Ok(id)
    }
}

fn checked_text(parameters: &Parameters) -> Result<(String, Vec<Entity>), ApiError> {
    if !parameters.text("parse_mode").is_empty() {
        return Err(ApiError::bad("unsupported parse_mode"));
    }
    let entities = match parameters.json("entities")? {
        None => Vec::new(),
        Some(value) => {
            serde_json::from_value(value).map_err(|_| ApiError::bad("can't parse entities"))?
        }
    };
    text::accept(parameters.text("text"), entities)
        .map_err(|description| ApiError::new(400, description))
}

fn checked_buttons(parameters: &Parameters) -> Result<Vec<Button>, ApiError> {
    let Some(markup) = parameters.json("reply_markup")? else {
        return Ok(Vec::new());
    };
    let rows = markup
        .get("inline_keyboard")
        .cloned()
        .ok_or_else(|| ApiError::bad("object expected as reply markup"))?;
    let rows: Vec<Vec<Button>> = serde_json::from_value(rows)
        .map_err(|_| ApiError::bad("can't parse inline keyboard button"))?;
    let buttons: Vec<Button> = rows.into_iter().flatten().collect();
    for button in &buttons {
        if button.text.is_empty() {
            return Err(ApiError::bad(
                "text of inline keyboard button must be non-empty",
            ));
        }
        if !(1..=64).contains(&button.callback_data.len()) {
            return Err(ApiError::bad("BUTTON_DATA_INVALID"));
        }
    }
    Ok(buttons)
}

fn previews(parameters: &Parameters) -> Result<bool, ApiError> {
    let options = parameters.json("link_preview_options")?;
    let disabled = options
        .as_ref()
        .and_then(|options| options.get("is_disabled"))
        .and_then(Value::as_bool);
    Ok(disabled != Some(true))
}

/// A user as the API shows it.
pub(super) fn user(id: i64) -> Value {
    json!({ "id": id, "is_bot": false, "first_name": format!("User {id}"), "language_code": "en" })
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
