//! Model wire formats, without sockets: a conversation becomes the body of a request, the
//! pieces of an answer's body become events.
//!
//! | module | what |
//! |---|---|
//! | `ollama` | Ollama's own `POST /api/chat`, a JSON object a line |
//! | `openai` | `POST /v1/chat/completions`, server-sent events |
//! | `schema` | the answer as JSON of a schema, where the server cannot do tool calls |
//! | `detect` | which of the two ways of calling tools a server can do |
//!
//! Security: what a server sends is untrusted. It is read with bounds on the line, the
//! answer, the stream and the number of calls; what does not fit the wire format is a
//! [`ModelFault`], never a guess. What the model wrote as arguments is passed on as it is.

mod decoder;
mod detect;
mod fault;
mod lines;
mod ollama;
mod openai;
mod request;
mod schema;
mod text;

pub use decoder::{Decoder, Done, ModelEvent, Stop};
pub use detect::{tool_calling_from_props, tool_calling_from_show};
pub use fault::{CutOff, ModelFault, error_message};
pub use request::{DoneCall, FRAME, Message, chat_path, request_body};

/// A tool call as the model wrote it. Nothing of it was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The tool's name; perhaps of no tool.
    pub name: String,
    /// The arguments; JSON if the model did its job.
    pub args: String,
}
