//! The OpenAI-compatible API, `POST /v1/chat/completions`: server-sent events, the last one
//! `[DONE]`. Sources: OpenAI's API reference; "Server-sent events" in the HTML standard.
//!
//! Lines end with LF or CRLF; no server ends them with a bare CR, which that standard allows too.

use std::collections::BTreeMap;

use protocol::agent::{ModelSpec, ToolCalling, ToolSpec};
use protocol::event::Tokens;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::Call;
use crate::decoder::{Budget, Done, Found, MAX_CALLS, Stop};
use crate::fault::{self, ModelFault};
use crate::lines::{Lines, MAX_LINE};
use crate::ollama::written;
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
        response_format: Option<ResponseFormat<'a>>,
        max_tokens: u32,
        stream: bool,
        stream_options: Value,
    }
    #[derive(Serialize)]
    struct ResponseFormat<'a> {
        #[serde(rename = "type")]
        kind: &'static str,
        json_schema: Named<'a>,
    }
    #[derive(Serialize)]
    struct Named<'a> {
        name: &'static str,
        strict: bool,
        schema: AnswerSchema<'a>,
    }
    let (tools, response_format) = match spec.tool_calls {
        ToolCalling::Native => (tool_list(tools), None),
        ToolCalling::Schema => {
            let json_schema = Named {
                name: "answer",
                strict: true,
                schema: AnswerSchema(tools),
            };
            (
                Vec::new(),
                Some(ResponseFormat {
                    kind: "json_schema",
                    json_schema,
                }),
            )
        }
    };
    crate::request::json(&Body {
        model: &spec.name,
        messages: messages.iter().map(message).collect(),
        tools,
        response_format,
        max_tokens: spec.answer_tokens,
        stream: true,
        stream_options: json!({ "include_usage": true }),
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
                .map(|(id, call)| {
                    // Servers read this text as JSON again, for the model's template.
                    let arguments = object_args(&call.args).to_string();
                    json!({ "id": id, "type": "function", "function": { "name": call.name, "arguments": arguments } })
                })
                .collect();
            json!({ "role": "assistant", "content": text, "tool_calls": calls })
        }
        Wire::Tool { id, text, .. } => {
            json!({ "role": "tool", "tool_call_id": id, "content": text })
        }
    }
}

/// The stream of an answer.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    lines: Lines,
    event: Event,
    answer: Answer,
}

/// The event whose lines are coming in.
#[derive(Debug, Default)]
struct Event {
    data: Option<String>,
}

/// What the chunks so far amount to.
#[derive(Debug, Default)]
struct Answer {
    calls: BTreeMap<usize, Call>,
    finish: Option<Stop>,
    tokens: Option<Tokens>,
    done: bool,
}

#[derive(Deserialize)]
struct Chunk {
    error: Option<Value>,
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    index: Option<usize>,
    function: Option<FunctionDelta>,
}

#[derive(Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Stream {
    pub(crate) fn push(
        &mut self,
        piece: &str,
        budget: &mut Budget,
    ) -> Result<Vec<Found>, ModelFault> {
        let mut found = Vec::new();
        let Self {
            lines,
            event,
            answer,
        } = self;
        lines.push(piece, |line| match event.line(line)? {
            Some(data) => answer.read(&data, budget, &mut found),
            None => Ok(()),
        })?;
        Ok(found)
    }

    pub(crate) fn end(&mut self, budget: &mut Budget) -> Result<Vec<Found>, ModelFault> {
        let mut found = Vec::new();
        if let Some(line) = self.lines.rest() {
            self.event.line(&line)?;
        }
        if let Some(data) = self.event.data.take() {
            match self.answer.read(&data, budget, &mut found) {
                // An event that broke off is not the server's broken JSON.
                Err(ModelFault::NotJson) => {}
                other => other?,
            }
        }
        // Some servers leave out `[DONE]`; a finish reason says as much.
        if self.answer.finish.is_some() {
            self.answer.finish(&mut found);
        }
        Ok(found)
    }
}

impl Event {
    /// Takes a line; gives the data of the event that it ends, if it does.
    fn line(&mut self, line: &str) -> Result<Option<String>, ModelFault> {
        if line.is_empty() {
            return Ok(self.data.take());
        }
        if line.starts_with('{') {
            return Err(bare(line));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => self.hold(value)?,
            // Older llama.cpp.
            "error" => return Err(bare(&format!("{{\"error\":{value}}}"))),
            // A comment, or a field that means nothing here.
            _ => {}
        }
        Ok(None)
    }

    fn hold(&mut self, value: &str) -> Result<(), ModelFault> {
        let Some(data) = &mut self.data else {
            self.data = Some(value.to_owned());
            return Ok(());
        };
        if data.len() + value.len() >= MAX_LINE {
            return Err(ModelFault::LineTooLong(MAX_LINE));
        }
        data.push('\n');
        data.push_str(value);
        Ok(())
    }
}

/// What a JSON object outside of any event means.
fn bare(line: &str) -> ModelFault {
    match serde_json::from_str::<Value>(line)
        .ok()
        .as_ref()
        .and_then(|object| object.get("error"))
    {
        Some(error) => fault::reported(error),
        None => ModelFault::WrongShape("not an event stream"),
    }
}

impl Answer {
    fn read(
        &mut self,
        data: &str,
        budget: &mut Budget,
        found: &mut Vec<Found>,
    ) -> Result<(), ModelFault> {
        if self.done {
            return Ok(());
        }
        if data.trim() == "[DONE]" {
            self.finish(found);
            return Ok(());
        }
        let chunk: Chunk = fault::parse(data, "not a chunk of a chat completion")?;
        if let Some(error) = &chunk.error {
            return Err(fault::reported(error));
        }
        if chunk.choices.is_none() && chunk.usage.is_none() {
            return Err(ModelFault::WrongShape("neither choices nor usage"));
        }
        if let Some(usage) = chunk.usage {
            self.tokens = Some(Tokens {
                prompt: usage.prompt_tokens,
                answer: usage.completion_tokens,
            });
        }
        // One answer was asked for.
        let Some(choice) = chunk.choices.into_iter().flatten().next() else {
            return Ok(());
        };
        if let Some(delta) = choice.delta {
            self.delta(delta, budget, found)?;
        }
        self.finish = match choice.finish_reason.as_deref() {
            None => self.finish,
            Some("length") => Some(Stop::Length),
            Some(_) => Some(Stop::Complete),
        };
        Ok(())
    }

    fn delta(
        &mut self,
        delta: Delta,
        budget: &mut Budget,
        found: &mut Vec<Found>,
    ) -> Result<(), ModelFault> {
        if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
            budget.text(text.len())?;
            found.push(Found::Text(text));
        }
        for piece in delta.tool_calls.unwrap_or_default() {
            self.call(piece, budget)?;
        }
        Ok(())
    }

    fn call(&mut self, piece: CallDelta, budget: &mut Budget) -> Result<(), ModelFault> {
        let function = piece.function.unwrap_or(FunctionDelta {
            name: None,
            arguments: None,
        });
        let name = function.name.unwrap_or_default();
        let last = self.calls.last_key_value().map(|(index, _)| *index);
        // Without an index, a name begins a call and the rest belongs to the last one.
        let index = match (piece.index, last) {
            (Some(index), _) => index,
            (None, Some(last)) if name.is_empty() => last,
            (None, last) => last.map_or(0, |last| last + 1),
        };
        if index >= MAX_CALLS {
            return Err(ModelFault::TooManyCalls(MAX_CALLS));
        }
        if !self.calls.contains_key(&index) {
            budget.call()?;
        }
        let args = function
            .arguments
            .map(|raw| written(&raw))
            .unwrap_or_default();
        budget.text(name.len() + args.len())?;
        let call = self.calls.entry(index).or_insert_with(|| Call {
            name: String::new(),
            args: String::new(),
        });
        // Some servers repeat the name with every piece.
        if call.name.is_empty() {
            call.name = name;
        }
        call.args.push_str(&args);
        Ok(())
    }

    fn finish(&mut self, found: &mut Vec<Found>) {
        for mut call in std::mem::take(&mut self.calls).into_values() {
            // A tool without parameters is often called with nothing at all. Where the answer reached
            // its limit it is not known what would have come.
            if call.args.is_empty() && self.finish != Some(Stop::Length) {
                call.args.push_str("{}");
            }
            found.push(Found::Call(call));
        }
        self.done = true;
        found.push(Found::Done(Done {
            tokens: self.tokens,
            stop: self.finish.unwrap_or(Stop::Complete),
        }));
    }
}
