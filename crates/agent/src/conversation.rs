//! What was said in a session, and what of it fits the model's window.

use model::{Call, DoneCall, Message};
use protocol::agent::{HistoryItem, ModelSpec};
use protocol::frame::MAX_FRAME;

use crate::page;

/// Bytes of JSON that count as one token. English takes four to five bytes of a token, code
/// about three and a half, other scripts two to three; too small a figure trims early, too
/// large a one is refused by the server.
const BYTES_PER_TOKEN: usize = 3;

/// The longest body in bytes, whatever the window: inside a frame each of its quotes takes
/// a second byte.
const MAX_BODY: usize = MAX_FRAME / 2 - 1024;

/// The longest result that the model is shown, in bytes, and the shortest bound for it.
const MAX_RESULT: usize = 64 * 1024;
const MIN_RESULT: usize = 512;

/// Results shorter than this, in bytes, are not worth a note in their place.
const NOTE_FROM: usize = 160;

/// How much a request may hold, in bytes of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    bytes: usize,
}

/// What was left out so that the rest fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Tool results shortened to a note.
    pub results: u32,
    /// Messages left out whole.
    pub items: u32,
}

/// Even trimmed, the turn does not fit the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// The messages of a session, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    messages: Vec<Message>,
    /// Where the message of the turn stands that runs now.
    current: usize,
}

impl Window {
    /// The model's window less the longest answer.
    pub fn of(spec: &ModelSpec) -> Self {
        let tokens = spec.context_tokens.saturating_sub(spec.answer_tokens) as usize;
        Self {
            bytes: tokens.saturating_mul(BYTES_PER_TOKEN).min(MAX_BODY),
        }
    }

    /// Whether a body can be sent at all.
    pub fn takes(body: &str) -> bool {
        body.len() <= MAX_BODY
    }

    /// The longest result of one call: a quarter of the window.
    fn result(self) -> usize {
        (self.bytes / 4).clamp(MIN_RESULT, MAX_RESULT)
    }
}

impl Conversation {
    /// From the record. Results are bounded as those of new calls are.
    pub fn from_history(history: Vec<HistoryItem>, window: Window) -> Self {
        let message = |item| match item {
            HistoryItem::User { text } => Message::User(text),
            HistoryItem::Assistant { text } => Message::Assistant(text),
            HistoryItem::Tool {
                name, args, result, ..
            } => {
                let result = bounded(page::told(result), window);
                Message::Calls {
                    said: String::new(),
                    calls: vec![DoneCall {
                        call: Call { name, args },
                        result,
                    }],
                }
            }
        };
        let messages: Vec<Message> = history.into_iter().map(message).collect();
        Self {
            current: messages.len(),
            messages,
        }
    }

    /// All messages, oldest first.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// A new turn begins with this message.
    pub fn begin(&mut self, text: String) {
        self.current = self.messages.len();
        self.messages.push(Message::User(text));
    }

    /// The turn goes on with this.
    pub fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// Leaves out what does not fit beside `fixed` bytes of system text and tools: first old
    /// results become notes, then old turns go whole, then old rounds of this turn. Once
    /// something must go, a quarter of the window is freed, so that not every request trims
    /// again and servers can keep what they have read.
    pub fn fit(&mut self, window: Window, fixed: usize) -> Result<Trimmed, TooLong> {
        let mut trimmed = Trimmed::default();
        let room = window.bytes.checked_sub(fixed).ok_or(TooLong)?;
        let mut total = self.messages.iter().map(Message::bytes).sum();
        if total <= room {
            return Ok(trimmed);
        }
        let goal = room - room / 4;
        // The newest message is what the model has to react to.
        let older = self.messages.len() - 1;
        shorten_results(&mut self.messages[..older], &mut total, goal, &mut trimmed);
        self.drop_old_turns(&mut total, goal, &mut trimmed);
        self.drop_old_rounds(&mut total, goal, &mut trimmed);
        shorten_results(&mut self.messages, &mut total, room, &mut trimmed);
        if total <= room {
            Ok(trimmed)
        } else {
            Err(TooLong)
        }
    }

    /// A turn goes whole: an answer without its question, or a conversation that does not
    /// begin with the person, is refused by many templates.
    fn drop_old_turns(&mut self, total: &mut usize, goal: usize, trimmed: &mut Trimmed) {
        while *total > goal && self.current > 0 {
            let next = self.messages[1..=self.current]
                .iter()
                .position(|message| matches!(message, Message::User(_)));
            let count = next.map_or(self.current, |at| at + 1);
            self.drop(0, count, total, trimmed);
            self.current -= count;
        }
    }

    fn drop_old_rounds(&mut self, total: &mut usize, goal: usize, trimmed: &mut Trimmed) {
        while *total > goal && self.messages.len() > self.current + 2 {
            self.drop(self.current + 1, 1, total, trimmed);
        }
    }

    fn drop(&mut self, from: usize, count: usize, total: &mut usize, trimmed: &mut Trimmed) {
        for message in self.messages.drain(from..from + count) {
            *total -= message.bytes();
            trimmed.items = trimmed.items.saturating_add(1);
        }
    }
}

fn shorten_results(
    messages: &mut [Message],
    total: &mut usize,
    goal: usize,
    trimmed: &mut Trimmed,
) {
    for message in messages {
        let before = message.bytes();
        let Message::Calls { calls, .. } = message else {
            continue;
        };
        let mut saved = 0;
        for done in calls {
            if *total - saved <= goal {
                break;
            }
            if done.result.len() >= NOTE_FROM {
                let note = format!(
                    "[a result of {} bytes, left out to make room]",
                    done.result.len()
                );
                saved += done.result.len() - note.len();
                done.result = note;
                trimmed.results = trimmed.results.saturating_add(1);
            }
        }
        // Exact again: bytes of JSON are more than those of the text.
        *total -= before - message.bytes();
        if *total <= goal {
            break;
        }
    }
}

/// A result of at most so many bytes: its beginning and its end, and between them how much
/// is missing.
pub fn bounded(result: String, window: Window) -> String {
    let limit = window.result();
    if result.len() <= limit {
        return result;
    }
    let head = result.floor_char_boundary(limit - limit / 4);
    let tail = result.ceil_char_boundary(result.len() - limit / 4);
    let missing = tail - head;
    format!(
        "{}\n[.. {missing} bytes left out ..]\n{}",
        &result[..head],
        &result[tail..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::agent::{ModelApi, ToolCalling};
    use protocol::ids::CallId;

    fn window(tokens: u32) -> Window {
        Window::of(&ModelSpec {
            api: ModelApi::Ollama,
            name: "m".to_owned(),
            tool_calls: ToolCalling::Native,
            context_tokens: tokens + 100,
            answer_tokens: 100,
        })
    }

    fn round(result: &str) -> Message {
        let call = Call {
            name: "read_file".to_owned(),
            args: "{}".to_owned(),
        };
        Message::Calls {
            said: String::new(),
            calls: vec![DoneCall {
                call,
                result: result.to_owned(),
            }],
        }
    }

    fn turn(conversation: &mut Conversation, n: usize, result: &str) {
        conversation.begin(format!("question {n}"));
        conversation.push(round(result));
        conversation.push(Message::Assistant(format!("answer {n}")));
    }

    fn bytes(conversation: &Conversation) -> usize {
        conversation.messages().iter().map(Message::bytes).sum()
    }

    #[test]
    fn what_fits_is_left_alone() {
        let mut conversation = Conversation::default();
        turn(&mut conversation, 1, "r");
        let before = conversation.clone();
        assert_eq!(conversation.fit(window(1_000), 100), Ok(Trimmed::default()));
        assert_eq!(conversation, before);
    }

    #[test]
    fn old_results_become_notes_before_anything_is_left_out() {
        let mut conversation = Conversation::default();
        for n in 1..=4 {
            turn(&mut conversation, n, &"r".repeat(1_000));
        }
        conversation.begin("now".to_owned());
        // 4,000 bytes of results and some 1,500 of the rest; room for 5,000.
        let trimmed = conversation.fit(window(2_000), 1_000).unwrap();
        assert!(trimmed.results >= 1 && trimmed.results < 4, "{trimmed:?}");
        assert_eq!(trimmed.items, 0);
        assert_eq!(conversation.messages().len(), 13);
        assert!(bytes(&conversation) <= 3_750 + 1);
        let Message::Calls { calls, .. } = &conversation.messages()[1] else {
            panic!()
        };
        assert_eq!(
            calls[0].result,
            "[a result of 1000 bytes, left out to make room]"
        );
        let Message::Calls { calls, .. } = &conversation.messages()[10] else {
            panic!()
        };
        assert_eq!(calls[0].result.len(), 1_000, "the newest stays");
        // Nothing more has to go for the next request.
        assert_eq!(
            conversation.fit(window(2_000), 1_000),
            Ok(Trimmed::default())
        );
    }

    #[test]
    fn old_turns_go_whole_and_the_rest_begins_with_the_person() {
        let mut conversation = Conversation::default();
        for n in 1..=30 {
            turn(&mut conversation, n, "short");
        }
        conversation.begin("now".to_owned());
        let trimmed = conversation.fit(window(1_000), 0).unwrap();
        assert!(trimmed.items > 0 && trimmed.items % 3 == 0, "{trimmed:?}");
        assert!(
            matches!(&conversation.messages()[0], Message::User(text) if text.starts_with("question"))
        );
        assert_eq!(
            conversation.messages().last(),
            Some(&Message::User("now".to_owned()))
        );
        assert!(bytes(&conversation) <= 3_000);
    }

    #[test]
    fn old_rounds_of_a_long_turn_go_last_and_its_message_stays() {
        let mut conversation = Conversation::default();
        turn(&mut conversation, 1, "short");
        conversation.begin("now".to_owned());
        for n in 0..50 {
            conversation.push(round(&format!("result {n}")));
        }
        conversation.fit(window(1_000), 0).unwrap();
        assert_eq!(conversation.messages()[0], Message::User("now".to_owned()));
        assert_eq!(conversation.messages().last(), Some(&round("result 49")));
        assert!(bytes(&conversation) <= 3_000);
    }

    #[test]
    fn a_message_that_does_not_fit_alone_is_too_long() {
        let mut conversation = Conversation::default();
        turn(&mut conversation, 1, "short");
        conversation.begin("x".repeat(4_000));
        assert_eq!(conversation.fit(window(1_000), 0), Err(TooLong));
        assert_eq!(Conversation::default().fit(window(10), 31), Err(TooLong));
    }

    #[test]
    fn the_newest_results_are_shortened_only_where_nothing_else_helps() {
        let mut conversation = Conversation::default();
        conversation.begin("now".to_owned());
        let call = |n: usize| DoneCall {
            call: Call {
                name: "x".to_owned(),
                args: "{}".to_owned(),
            },
            result: "\u{1}".repeat(n),
        };
        conversation.push(Message::Calls {
            said: String::new(),
            calls: vec![call(400), call(400), call(100)],
        });
        let trimmed = conversation.fit(window(1_000), 0).unwrap();
        assert_eq!(trimmed.results, 2, "control characters take six bytes each");
        assert!(bytes(&conversation) <= 3_000);
    }

    #[test]
    fn a_long_result_keeps_its_beginning_and_its_end() {
        let window = window(1_000);
        let result = bounded(format!("head{}tail", "é".repeat(5_000)), window);
        assert!(result.starts_with("head") && result.ends_with("tail"));
        assert!(result.contains(" bytes left out ..]"));
        assert!(result.len() <= 3_000 / 4 + 40, "{}", result.len());
        assert_eq!(bounded("short".to_owned(), window), "short");
    }

    #[test]
    fn history_is_taken_over_with_its_calls_and_results() {
        let history = vec![
            HistoryItem::User {
                text: "q".to_owned(),
            },
            HistoryItem::Tool {
                call: CallId(1),
                name: "read_file".to_owned(),
                args: "{}".to_owned(),
                result: protocol::agent::Told::Text {
                    text: "r".to_owned(),
                },
            },
            HistoryItem::Assistant {
                text: "a".to_owned(),
            },
        ];
        let conversation = Conversation::from_history(history, window(1_000));
        let expected = [
            Message::User("q".to_owned()),
            round("r"),
            Message::Assistant("a".to_owned()),
        ];
        assert_eq!(conversation.messages(), expected);
    }

    #[test]
    fn a_window_larger_than_a_frame_is_bounded_by_the_frame() {
        let mut conversation = Conversation::default();
        for n in 0..100 {
            turn(&mut conversation, n, &"\"".repeat(60_000));
        }
        conversation.fit(window(10_000_000), 0).unwrap();
        let total = bytes(&conversation);
        assert!(total > 500_000 && total <= MAX_BODY, "{total}");
    }
}
