//! An agent under test, and the lines a model server would stream to it.

use bulkhead_agent::turn::{Agent, Input, OutOfOrder, Output};
use protocol::agent::{
    AgentCommand, AgentRequest, HistoryItem, ModelApi, ModelSpec, Told, ToolCalling, ToolSpec,
    TurnFault,
};
use protocol::egress::{EgressFault, ModelReply, ModelRequest};
use protocol::ids::{CallId, ToolName, TurnId};
use serde_json::{Value, json};

pub(crate) const TURN: TurnId = TurnId(7);

/// An agent and what it sent, taken out as it is looked at.
pub(crate) struct Bench {
    pub(crate) agent: Option<Agent>,
    pub(crate) out: std::collections::VecDeque<Output>,
    pub(crate) requests: u64,
}

pub(crate) fn spec() -> ModelSpec {
    ModelSpec {
        api: ModelApi::Ollama,
        name: "m".to_owned(),
        tool_calls: ToolCalling::Native,
        context_tokens: 4_000,
        answer_tokens: 500,
    }
}

pub(crate) fn start(model: ModelSpec, history: Vec<HistoryItem>, max_rounds: u32) -> AgentCommand {
    let tools = vec![ToolSpec {
        name: ToolName::parse("read_file").unwrap(),
        description: "Read a file.".to_owned(),
        parameters: json!({ "type": "object", "properties": { "path": { "type": "string" } }, "required": ["path"] }),
    }];
    AgentCommand::Start {
        model,
        system: "be brief".to_owned(),
        tools,
        history,
        max_rounds,
    }
}

impl Bench {
    pub(crate) fn with(start: AgentCommand) -> Self {
        let mut bench = Self {
            agent: Some(Agent::default()),
            out: Default::default(),
            requests: 0,
        };
        bench.command(start);
        bench
    }

    pub(crate) fn new() -> Self {
        Self::with(start(spec(), Vec::new(), 20))
    }

    /// A bench with a turn that awaits the model.
    pub(crate) fn asked(text: &str) -> Self {
        let mut bench = Self::new();
        bench.turn(text);
        bench.body();
        bench
    }

    pub(crate) fn feed(&mut self, input: Input) -> Result<(), OutOfOrder> {
        let mut out = Vec::new();
        let result = self.agent.take().unwrap().handle(input, &mut out);
        self.out.extend(out);
        result.map(|agent| self.agent = Some(agent))
    }

    pub(crate) fn command(&mut self, command: AgentCommand) {
        self.feed(Input::Command(command)).unwrap();
    }

    pub(crate) fn turn(&mut self, text: &str) {
        self.command(AgentCommand::Turn {
            turn: TURN,
            text: text.to_owned(),
        });
    }

    pub(crate) fn result(&mut self, call: u32, text: &str) {
        self.command(AgentCommand::ToolResult {
            turn: TURN,
            call: CallId(call),
            result: Told::Text {
                text: text.to_owned(),
            },
        });
    }

    pub(crate) fn reply(&mut self, reply: ModelReply) {
        self.feed(Input::Reply(reply)).unwrap();
    }

    pub(crate) fn status(&mut self, status: u16) {
        self.reply(ModelReply::Status {
            id: self.requests,
            status,
            retry_after: Some(9),
        });
    }

    pub(crate) fn chunk(&mut self, text: &str) {
        self.reply(ModelReply::Chunk {
            id: self.requests,
            text: text.to_owned(),
        });
    }

    pub(crate) fn end(&mut self) {
        self.reply(ModelReply::End { id: self.requests });
    }

    pub(crate) fn failed(&mut self, fault: EgressFault) {
        self.reply(ModelReply::Failed {
            id: self.requests,
            fault,
        });
    }

    /// A whole answer: status, lines, end.
    pub(crate) fn answer(&mut self, lines: &[String]) {
        self.status(200);
        for line in lines {
            self.chunk(line);
        }
        self.chunk(&done("stop"));
        self.end();
    }

    /// The next thing sent is a question to the model; its body.
    pub(crate) fn body(&mut self) -> Value {
        self.requests += 1;
        match self.out.pop_front() {
            Some(Output::Model(ModelRequest::Chat {
                id,
                turn: TURN,
                body,
            })) if id == self.requests => serde_json::from_str(&body).unwrap(),
            other => panic!("no question {}: {other:?}", self.requests),
        }
    }

    pub(crate) fn sent(&mut self) -> AgentRequest {
        match self.out.pop_front() {
            Some(Output::Gateway(request)) => request,
            other => panic!("nothing for the gateway: {other:?}"),
        }
    }

    pub(crate) fn token(&mut self, text: &str) {
        assert_eq!(
            self.sent(),
            AgentRequest::Token {
                turn: TURN,
                text: text.to_owned()
            }
        );
    }

    pub(crate) fn call(&mut self, call: u32, name: &str, args: &str, said: &str) {
        let expected = AgentRequest::CallTool {
            turn: TURN,
            call: CallId(call),
            name: name.to_owned(),
            args: args.to_owned(),
            said: said.to_owned(),
        };
        assert_eq!(self.sent(), expected);
    }

    pub(crate) fn finished(&mut self, text: &str) {
        assert_eq!(
            self.sent(),
            AgentRequest::Finished {
                turn: TURN,
                text: text.to_owned()
            }
        );
        self.idle();
    }

    pub(crate) fn fails_with(&mut self, fault: TurnFault) {
        assert_eq!(self.sent(), AgentRequest::Failed { turn: TURN, fault });
        self.idle();
    }

    /// Nothing was sent that was not looked at, and a turn can begin.
    pub(crate) fn idle(&mut self) {
        self.quiet();
        assert!(
            matches!(self.agent, Some(Agent::AwaitingTurn(_))),
            "{:?}",
            self.agent
        );
    }

    pub(crate) fn quiet(&mut self) {
        assert!(self.out.is_empty(), "{:?}", self.out);
    }

    /// The request that runs is dropped.
    pub(crate) fn dropped(&mut self) {
        assert_eq!(
            self.out.pop_front(),
            Some(Output::Model(ModelRequest::Cancel { id: self.requests }))
        );
    }
}

pub(crate) fn text(content: &str) -> String {
    format!(
        "{}\n",
        json!({ "message": { "role": "assistant", "content": content }, "done": false })
    )
}

pub(crate) fn calls(content: &str, calls: &[(&str, Value)]) -> String {
    let calls: Vec<Value> = calls
        .iter()
        .map(|(name, args)| json!({ "function": { "name": name, "arguments": args } }))
        .collect();
    format!(
        "{}\n",
        json!({ "message": { "content": content, "tool_calls": calls }, "done": false })
    )
}

pub(crate) fn done(reason: &str) -> String {
    format!(
        "{}\n",
        json!({ "message": { "content": "" }, "done": true, "done_reason": reason, "eval_count": 1 })
    )
}

pub(crate) fn broken(detail: &str) -> TurnFault {
    TurnFault::ModelBroken {
        detail: detail.to_owned(),
    }
}

pub(crate) fn contents(body: &Value) -> Vec<String> {
    let messages = body["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|m| {
            format!(
                "{}: {}",
                m["role"].as_str().unwrap(),
                m["content"].as_str().unwrap()
            )
        })
        .collect()
}
