//! The stream of an answer, whatever its wire format.

use protocol::agent::{ModelApi, ToolCalling};
use protocol::event::Tokens;

use crate::Call;
use crate::fault::{CutOff, ModelFault};
use crate::schema::Extractor;
use crate::{ollama, openai};

/// The longest answer in bytes: text, names and arguments together. As JSON in a frame,
/// where a character takes up to six bytes, it still is below `frame::MAX_FRAME`.
pub(crate) const MAX_ANSWER: usize = 512 * 1024;

/// The longest stream in bytes, with all that stands around the answer, and thinking.
pub(crate) const MAX_STREAM: usize = 32 * 1024 * 1024;

/// The most calls in one answer.
pub(crate) const MAX_CALLS: usize = 32;

/// What came of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelEvent {
    /// A piece of the text.
    Text(String),
    /// A tool call; comes when it is complete.
    Call(Call),
    /// With [`ToolCalling::Schema`]: the answer is neither a reply nor a call. Comes once,
    /// before [`Self::Done`]; the model is to be told.
    Unreadable {
        /// What the model wrote, as it came; perhaps shortened.
        text: String,
        /// What was wrong, for the model.
        why: &'static str,
    },
    /// The answer is complete. Last.
    Done(Done),
}

/// The end of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// What the server counted, if it did.
    pub tokens: Option<Tokens>,
    /// Why the model stopped.
    pub stop: Stop,
}

/// Why the model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It had no more to say.
    Complete,
    /// It reached the limit of the answer, or the end of its window.
    Length,
}

/// Reads the body of one answer with status 200. After a fault it is of no more use.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    shape: Shape,
    budget: Budget,
    seen: usize,
    done: bool,
}

#[derive(Debug)]
enum Format {
    Ollama(ollama::Stream),
    Openai(openai::Stream),
}

#[derive(Debug)]
enum Shape {
    Native,
    Schema(Extractor),
}

/// What a wire format found in a piece, before the schema is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Text(String),
    Call(Call),
    Done(Done),
}

/// Counts what an answer holds.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    bytes: usize,
    calls: usize,
}

impl Budget {
    pub(crate) fn text(&mut self, bytes: usize) -> Result<(), ModelFault> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_ANSWER {
            Err(ModelFault::AnswerTooLong(MAX_ANSWER))
        } else {
            Ok(())
        }
    }

    pub(crate) fn call(&mut self) -> Result<(), ModelFault> {
        self.calls += 1;
        if self.calls > MAX_CALLS {
            Err(ModelFault::TooManyCalls(MAX_CALLS))
        } else {
            Ok(())
        }
    }
}

impl Decoder {
    /// For an answer in this format.
    pub fn new(api: ModelApi, tool_calls: ToolCalling) -> Self {
        Self {
            format: match api {
                ModelApi::Ollama => Format::Ollama(ollama::Stream::default()),
                ModelApi::Openai => Format::Openai(openai::Stream::default()),
            },
            shape: match tool_calls {
                ToolCalling::Native => Shape::Native,
                ToolCalling::Schema => Shape::Schema(Extractor::default()),
            },
            budget: Budget::default(),
            seen: 0,
            done: false,
        }
    }

    /// Takes a piece of the body, cut anywhere. What follows [`ModelEvent::Done`] is ignored.
    pub fn push(&mut self, piece: &str) -> Result<Vec<ModelEvent>, ModelFault> {
        if self.done {
            return Ok(Vec::new());
        }
        self.seen = self.seen.saturating_add(piece.len());
        if self.seen > MAX_STREAM {
            return Err(ModelFault::StreamTooLong(MAX_STREAM));
        }
        let found = match &mut self.format {
            Format::Ollama(stream) => stream.push(piece, &mut self.budget)?,
            Format::Openai(stream) => stream.push(piece, &mut self.budget)?,
        };
        self.shape(found)
    }

    /// The body is complete. Gives what was held back; [`CutOff`] if the answer is not complete.
    pub fn end(&mut self) -> Result<Result<Vec<ModelEvent>, CutOff>, ModelFault> {
        if self.done {
            return Ok(Ok(Vec::new()));
        }
        let found = match &mut self.format {
            Format::Ollama(stream) => stream.end(&mut self.budget)?,
            Format::Openai(stream) => stream.end(&mut self.budget)?,
        };
        let events = self.shape(found)?;
        Ok(if self.done { Ok(events) } else { Err(CutOff) })
    }

    /// Whether the answer is complete.
    pub fn is_done(&self) -> bool {
        self.done
    }

    fn shape(&mut self, found: Vec<Found>) -> Result<Vec<ModelEvent>, ModelFault> {
        let mut events = Vec::new();
        for found in found {
            match (&mut self.shape, found) {
                (Shape::Native, Found::Text(text)) => push_text(&mut events, text),
                (Shape::Schema(extractor), Found::Text(text)) => {
                    push_text(&mut events, extractor.push(&text))
                }
                (Shape::Native, Found::Call(call)) => events.push(ModelEvent::Call(call)),
                (Shape::Schema(_), Found::Call(_)) => {
                    return Err(ModelFault::WrongShape("a tool call where none was offered"));
                }
                (shape, Found::Done(done)) => {
                    if let Shape::Schema(extractor) = shape {
                        events.extend(extractor.finish(done.stop));
                    }
                    self.done = true;
                    events.push(ModelEvent::Done(done));
                    break;
                }
            }
        }
        Ok(events)
    }
}

fn push_text(events: &mut Vec<ModelEvent>, text: String) {
    match events.last_mut() {
        _ if text.is_empty() => {}
        Some(ModelEvent::Text(last)) => last.push_str(&text),
        _ => events.push(ModelEvent::Text(text)),
    }
}
