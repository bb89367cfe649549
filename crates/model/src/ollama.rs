//! Ollama's own API, `POST /api/chat`: a JSON object a line, the last one with `"done": true`.
//! Source: docs/api.md of ollama/ollama.

use protocol::agent::{ModelSpec, ToolCalling, ToolSpec};
use protocol::event::Tokens;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::Call;
use crate::decoder::{Budget, Done, Found, Stop};
use crate::fault::{self, ModelFault};
use crate::lines::Lines;
use crate::request::{Wire, object_args, tool_list};
use crate::schema::AnswerSchema;

/// The body of the request.
pub(crate) fn body(spec: &ModelSpec, tools: &[ToolSpec], messages: &[Wire]) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        model: &'a str,
        messages: Vec<Value>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tools: Vec<Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        format: Option<AnswerSchema<'a>>,
        stream: bool,
        options: Value,
    }
    let (tools, format) = match spec.tool_calls {
        ToolCalling::Native => (tool_list(tools), None),
        ToolCalling::Schema => (Vec::new(), Some(AnswerSchema(tools))),
    };
    crate::request::json(&Body {
        model: &spec.name,
        messages: messages.iter().map(message).collect(),
        tools,
        format,
        stream: true,
        options: json!({ "num_ctx": spec.context_tokens, "num_predict": spec.answer_tokens }),
    })
}

fn message(message: &Wire) -> Value {
    match message {
        Wire::System(text) => json!({ "role": "system", "content": text }),
        Wire::User(text) => json!({ "role": "user", "content": text }),
        Wire::Assistant { text, calls } if calls.is_empty() => {
            json!({ "role": "assistant", "content": text })
        }
        Wire::Assistant { text, calls } => {
            let calls: Vec<Value> = calls
                .iter()
                .map(|(_, call)| json!({ "function": { "name": call.name, "arguments": object_args(&call.args) } }))
                .collect();
            json!({ "role": "assistant", "content": text, "tool_calls": calls })
        }
        Wire::Tool { name, text, .. } => {
            json!({ "role": "tool", "tool_name": name, "content": text })
        }
    }
}

/// The stream of an answer.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    lines: Lines,
}

#[derive(Deserialize)]
struct Line {
    error: Option<Value>,
    message: Option<LineMessage>,
    done: Option<bool>,
    done_reason: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
}

#[derive(Deserialize)]
struct LineMessage {
    content: Option<String>,
    tool_calls: Option<Vec<LineCall>>,
}

#[derive(Deserialize)]
struct LineCall {
    function: LineFunction,
}

#[derive(Deserialize)]
struct LineFunction {
    name: String,
    arguments: Option<Box<RawValue>>,
}

impl Stream {
    pub(crate) fn push(
        &mut self,
        piece: &str,
        budget: &mut Budget,
    ) -> Result<Vec<Found>, ModelFault> {
        let mut found = Vec::new();
        self.lines
            .push(piece, |line| match line.trim().is_empty() {
                true => Ok(()),
                false => read(line, budget, &mut found),
            })?;
        Ok(found)
    }

    pub(crate) fn end(&mut self, budget: &mut Budget) -> Result<Vec<Found>, ModelFault> {
        let mut found = Vec::new();
        match self.lines.rest() {
            Some(line) => match read(&line, budget, &mut found) {
                // A line that broke off is not the server's broken JSON.
                Err(ModelFault::NotJson) => Ok(Vec::new()),
                Err(fault) => Err(fault),
                Ok(()) => Ok(found),
            },
            None => Ok(found),
        }
    }
}

fn read(line: &str, budget: &mut Budget, found: &mut Vec<Found>) -> Result<(), ModelFault> {
    let line: Line = fault::parse(line, "not a line of a chat answer")?;
    if let Some(error) = &line.error {
        return Err(fault::reported(error));
    }
    if line.message.is_none() && line.done.is_none() {
        return Err(ModelFault::WrongShape("neither a message nor an end"));
    }
    if let Some(message) = line.message {
        if let Some(text) = message.content.filter(|text| !text.is_empty()) {
            budget.text(text.len())?;
            found.push(Found::Text(text));
        }
        for call in message.tool_calls.unwrap_or_default() {
            let args = call
                .function
                .arguments
                .map_or_else(|| "{}".to_owned(), |raw| written(&raw));
            budget.call()?;
            budget.text(call.function.name.len() + args.len())?;
            found.push(Found::Call(Call {
                name: call.function.name,
                args,
            }));
        }
    }
    if line.done == Some(true) {
        let tokens = match (line.prompt_eval_count, line.eval_count) {
            // A prompt that was cached whole is not counted.
            (prompt, Some(answer)) => Some(Tokens {
                prompt: prompt.unwrap_or(0),
                answer,
            }),
            (_, None) => None,
        };
        let stop = match line.done_reason.as_deref() {
            Some("length") => Stop::Length,
            _ => Stop::Complete,
        };
        found.push(Found::Done(Done { tokens, stop }));
    }
    Ok(())
}

/// The arguments as they were written; some versions write the object as a string.
pub(crate) fn written(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}
