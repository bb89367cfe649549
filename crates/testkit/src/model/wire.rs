//! The bodies of answers in both formats, as a list of things to do.

use std::time::Duration;

use serde_json::{Value, json};

use super::script::{ScriptedCall, Step};

/// How long the pieces before a break get to leave the machine.
const FLUSH: Duration = Duration::from_millis(20);

/// A wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Ollama,
    Openai,
}

/// One thing to do while a body is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    Send(String),
    Wait(Duration),
    /// The connection breaks.
    Break,
}

/// What a request asks for.
pub(super) struct Asked<'a> {
    pub(super) format: Format,
    body: &'a Value,
}

impl<'a> Asked<'a> {
    pub(super) fn new(format: Format, body: &'a Value) -> Self {
        Self { format, body }
    }

    /// Why the request cannot be answered, if so.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        let streams = match self.format {
            Format::Ollama => self.body["stream"] != false,
            Format::Openai => self.body["stream"] == true,
        };
        let has_messages = self.body["messages"]
            .as_array()
            .is_some_and(|messages| !messages.is_empty());
        match (streams, has_messages) {
            (false, _) => Some("this server only streams"),
            (true, false) => Some("'messages' is required"),
            (true, true) => None,
        }
    }

    /// Whether the answer has to be JSON of a schema.
    fn constrained(&self) -> bool {
        match self.format {
            Format::Ollama => self.body["format"].is_object(),
            Format::Openai => self.body["response_format"]["type"] == "json_schema",
        }
    }

    fn wants_usage(&self) -> bool {
        self.body["stream_options"]["include_usage"] == true
    }

    /// The body of the answer; `None` where there is no answer with status 200.
    pub(super) fn acts(&self, step: &Step) -> Option<Vec<Act>> {
        let mut acts = Acts {
            asked: self,
            list: Vec::new(),
            pieces: 0,
        };
        match step {
            Step::Text {
                tokens,
                delay_ms,
                thinking,
                finish,
            } => {
                let delay = Duration::from_millis(*delay_ms);
                for piece in thinking {
                    acts.wait(delay);
                    acts.thinking(piece);
                }
                acts.text(tokens, delay);
                acts.finish(finish);
            }
            Step::ToolCalls { said, calls } => match calls.first() {
                Some(call) if self.constrained() => {
                    acts.piece(&format!("{{\"tool\":{},\"arguments\":", json!(call.name)));
                    acts.piece(&format!("{}}}", call.written()));
                    acts.finish("stop");
                }
                _ => {
                    if !said.is_empty() {
                        acts.piece(said);
                    }
                    acts.calls(calls);
                    acts.finish("tool_calls");
                }
            },
            Step::Raw { body } => acts.list.push(Act::Send(body.clone())),
            Step::CutOff { tokens } => {
                acts.open_text(tokens);
                acts.wait(FLUSH);
                acts.list.push(Act::Break);
            }
            Step::EndEarly { tokens } => acts.open_text(tokens),
            Step::Stall { tokens, ms } => {
                acts.open_text(tokens);
                acts.wait(Duration::from_millis(*ms));
                acts.finish("stop");
            }
            Step::Late { text, .. } => {
                acts.text(std::slice::from_ref(text), Duration::ZERO);
                acts.finish("stop");
            }
            Step::BrokenJson { tokens } => {
                acts.open_text(tokens);
                acts.line("{\"choices\":[{\"delta\":{\"content\":");
            }
            Step::ErrorInStream { tokens, message } => {
                acts.open_text(tokens);
                let error = match self.format {
                    Format::Ollama => json!({ "error": message }),
                    Format::Openai => {
                        json!({ "error": { "code": 500, "message": message, "type": "server_error" } })
                    }
                };
                acts.line(&error.to_string());
            }
            Step::Status { .. } | Step::HangUp => return None,
        }
        Some(acts.list)
    }
}

struct Acts<'a> {
    asked: &'a Asked<'a>,
    list: Vec<Act>,
    pieces: usize,
}

impl Acts<'_> {
    fn wait(&mut self, time: Duration) {
        if !time.is_zero() {
            self.list.push(Act::Wait(time));
        }
    }

    /// An event of the stream with this data.
    fn line(&mut self, data: &str) {
        self.list.push(Act::Send(match self.asked.format {
            Format::Ollama => format!("{data}\n"),
            Format::Openai => format!("data: {data}\n\n"),
        }));
    }

    /// A piece of the content.
    fn piece(&mut self, text: &str) {
        self.pieces += 1;
        self.line(&self.message(&json!({ "role": "assistant", "content": text })));
    }

    fn thinking(&mut self, text: &str) {
        self.line(&match self.asked.format {
            Format::Ollama => {
                self.message(&json!({ "role": "assistant", "content": "", "thinking": text }))
            }
            Format::Openai => self.message(&json!({ "reasoning_content": text })),
        });
    }

    /// A whole text; as a reply of the schema if one was asked for.
    fn text(&mut self, tokens: &[String], delay: Duration) {
        if self.asked.constrained() {
            self.piece("{\"reply\":\"");
        }
        for token in tokens {
            self.wait(delay);
            self.token(token);
        }
        if self.asked.constrained() {
            self.piece("\"}");
        }
    }

    /// A text that goes no further.
    fn open_text(&mut self, tokens: &[String]) {
        if self.asked.constrained() {
            self.piece("{\"reply\":\"");
        }
        for token in tokens {
            self.token(token);
        }
    }

    fn token(&mut self, token: &str) {
        if self.asked.constrained() {
            let quoted = json!(token).to_string();
            self.piece(&quoted[1..quoted.len() - 1]);
        } else {
            self.piece(token);
        }
    }

    fn calls(&mut self, calls: &[ScriptedCall]) {
        match self.asked.format {
            Format::Ollama => {
                let function = |call: &ScriptedCall| json!({ "function": { "name": call.name, "arguments": call.args } });
                let calls: Vec<Value> = calls.iter().map(function).collect();
                self.line(
                    &self.message(
                        &json!({ "role": "assistant", "content": "", "tool_calls": calls }),
                    ),
                );
            }
            Format::Openai => {
                for (index, call) in calls.iter().enumerate() {
                    self.call_in_pieces(index, call);
                }
            }
        }
    }

    /// The name first, then the arguments in two pieces.
    fn call_in_pieces(&mut self, index: usize, call: &ScriptedCall) {
        let args = call.written();
        let (left, right) = args.split_at(args.floor_char_boundary(args.len() / 2));
        let first = json!({ "index": index, "id": format!("scripted_{index}"), "type": "function", "function": { "name": call.name, "arguments": "" } });
        let more = |args: &str| json!({ "index": index, "function": { "arguments": args } });
        for delta in [first, more(left), more(right)] {
            self.line(&self.message(&json!({ "tool_calls": [delta] })));
        }
    }

    fn message(&self, message: &Value) -> String {
        match self.asked.format {
            Format::Ollama => {
                json!({ "model": self.asked.body["model"], "message": message, "done": false })
            }
            Format::Openai => self.chunk(message, &Value::Null),
        }
        .to_string()
    }

    fn chunk(&self, delta: &Value, finish: &Value) -> Value {
        json!({
            "id": "chatcmpl-scripted",
            "object": "chat.completion.chunk",
            "model": self.asked.body["model"],
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        })
    }

    fn finish(&mut self, reason: &str) {
        // So many as if a token were four bytes.
        let read = self.asked.body["messages"].to_string().len() / 4;
        match self.asked.format {
            Format::Ollama => {
                let reason = if reason == "tool_calls" {
                    "stop"
                } else {
                    reason
                };
                let end = json!({
                    "model": self.asked.body["model"],
                    "message": { "role": "assistant", "content": "" },
                    "done": true,
                    "done_reason": reason,
                    "prompt_eval_count": read,
                    "eval_count": self.pieces,
                });
                self.line(&end.to_string());
            }
            Format::Openai => {
                self.line(&self.chunk(&json!({}), &json!(reason)).to_string());
                if self.asked.wants_usage() {
                    let usage = json!({
                        "object": "chat.completion.chunk",
                        "choices": [],
                        "usage": { "prompt_tokens": read, "completion_tokens": self.pieces, "total_tokens": read + self.pieces },
                    });
                    self.line(&usage.to_string());
                }
                self.line("[DONE]");
            }
        }
    }
}
