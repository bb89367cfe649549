//! The link between an agent and the gateway. The agent is assumed to be hijacked: nothing
//! it says is taken for more than a request.

use serde::{Deserialize, Serialize};

use crate::ids::{CallId, ToolName, TurnId};

/// A tool as the model is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolSpec {
    /// What the model calls it.
    pub name: ToolName,
    /// What it does, in a sentence or two.
    pub description: String,
    /// JSON Schema of the arguments object.
    pub parameters: serde_json::Value,
}

/// Which wire format the model server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelApi {
    /// Ollama's own, `POST /api/chat`.
    Ollama,
    /// OpenAI's, `POST /v1/chat/completions`: llama.cpp, vLLM, LM Studio.
    Openai,
}

/// How the model is brought to call tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolCalling {
    /// The server's own tool calls.
    Native,
    /// Constrained decoding: the answer is JSON of a schema that is either a reply or one call.
    Schema,
}

/// What an agent has to know of the model. Not where it is: egress knows that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The wire format.
    pub api: ModelApi,
    /// The model's name at the server.
    pub name: String,
    /// How it calls tools.
    pub tool_calls: ToolCalling,
    /// The model's window, in tokens.
    pub context_tokens: u32,
    /// The longest answer asked for, in tokens.
    pub answer_tokens: u32,
}

/// One entry of a conversation, as the record has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case", deny_unknown_fields)]
pub enum HistoryItem {
    /// What the person wrote.
    User {
        /// The text.
        text: String,
    },
    /// What the agent answered.
    Assistant {
        /// The text.
        text: String,
    },
    /// A tool call and what came of it.
    Tool {
        /// The call within its turn.
        call: CallId,
        /// The tool's name as the model wrote it.
        name: String,
        /// The arguments as the model wrote them, JSON.
        args: String,
        /// What the model was told.
        result: Told,
    },
}

/// What the model is told of a call. A page is made into text by the agent: its parser reads
/// what strangers wrote, and the agent is the program that has nothing to lose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case", deny_unknown_fields)]
pub enum Told {
    /// As it stands.
    Text {
        /// The text.
        text: String,
    },
    /// An HTML document.
    Page {
        /// What stands before it: where it is from, and what the server said of it.
        about: String,
        /// The document, as it came.
        html: String,
    },
}

/// From the gateway to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum AgentCommand {
    /// First, and once: what the agent is to know.
    Start {
        /// The model.
        model: ModelSpec,
        /// What the agent is told of itself.
        system: String,
        /// The catalogue.
        tools: Vec<ToolSpec>,
        /// The session so far, oldest first.
        history: Vec<HistoryItem>,
        /// The most model calls in one turn.
        max_rounds: u32,
    },
    /// A message to answer. Comes only while no turn runs.
    Turn {
        /// The new turn.
        turn: TurnId,
        /// What the person wrote.
        text: String,
    },
    /// What came of a call.
    ToolResult {
        /// The turn.
        turn: TurnId,
        /// Which call of it.
        call: CallId,
        /// What the model is told.
        result: Told,
    },
    /// Stop this turn; the answer is [`AgentRequest::Finished`] or [`AgentRequest::Failed`].
    Cancel {
        /// Which turn; another one's cancel is ignored.
        turn: TurnId,
    },
}

/// The longest piece of an answer, in bytes. A server that does not stream sends it all at
/// once; the agent cuts it.
pub const MAX_TOKEN: usize = 16 * 1024;

/// From an agent to the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum AgentRequest {
    /// A piece of the answer, as it comes.
    Token {
        /// The turn.
        turn: TurnId,
        /// The piece; at most [`MAX_TOKEN`] bytes.
        text: String,
    },
    /// Ask for a tool. The gateway answers each with one [`AgentCommand::ToolResult`].
    CallTool {
        /// The turn.
        turn: TurnId,
        /// The call; each turn counts from 1 without gaps.
        call: CallId,
        /// The tool's name as the model wrote it.
        name: String,
        /// The arguments as the model wrote them; JSON if the model did its job.
        args: String,
        /// What the model said with the call, to be quoted.
        said: String,
    },
    /// Old entries were left out so that the rest fits the model's window.
    Trimmed {
        /// The turn.
        turn: TurnId,
        /// How many tool results were shortened to a note.
        results: u32,
        /// How many entries were left out whole.
        items: u32,
    },
    /// The turn is over with an answer.
    Finished {
        /// The turn.
        turn: TurnId,
        /// The whole answer.
        text: String,
    },
    /// The turn is over without one.
    Failed {
        /// The turn.
        turn: TurnId,
        /// Why.
        fault: TurnFault,
    },
}

/// Why a turn ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum TurnFault {
    /// The person stopped it.
    Cancelled,
    /// Nobody answers at the model's address.
    ModelDown,
    /// The model server took longer than the limit.
    ModelSlow,
    /// The stream ended before the answer was complete.
    ModelCutOff,
    /// The server says to come back later (429, 503).
    ModelBusy {
        /// In so many seconds, if it said so.
        retry_after: Option<u32>,
    },
    /// The server refused the request.
    ModelRefused {
        /// The HTTP status.
        status: u16,
        /// The server's own message, shortened.
        message: String,
    },
    /// What came is not what the wire format says.
    ModelBroken {
        /// What was wrong, without the bytes themselves.
        detail: String,
    },
    /// The record did not take the model call, so it was not made.
    NoRecord,
    /// The model asked for tools round after round.
    TooManyRounds {
        /// The limit.
        limit: u32,
    },
    /// The conversation does not fit the model's window, even trimmed.
    TooLong,
}
