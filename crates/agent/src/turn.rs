//! The turn: what an agent does about each thing that happens, without doing it.
//!
//! Every state is named after what it waits for and is used up by what comes. Whatever does
//! not belong to the request, the turn or the call that is waited for came too late and is
//! ignored; a command that the gateway must not send now is an [`OutOfOrder`].

use std::collections::VecDeque;
use std::time::Duration;

use model::{Call, DoneCall, Message};
use protocol::agent::{AgentCommand, AgentRequest, MAX_TOKEN, ModelSpec, ToolSpec, TurnFault};
use protocol::egress::{EgressFault, ModelReply, ModelRequest};
use protocol::ids::{CallId, TurnId};

use crate::answer::{Answer, Outcome};
use crate::conversation::{Conversation, Trimmed, Window, bounded};
use crate::page;

/// Without a word from egress for so long, the model counts as too slow. Egress has its own,
/// shorter limit; this one is for an egress that hangs.
const SILENCE: Duration = Duration::from_secs(3600);

/// So many unreadable answers in a row end the turn.
const MAX_UNREADABLE: u32 = 3;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The gateway wants something.
    Command(AgentCommand),
    /// Egress has news of the model.
    Reply(ModelReply),
    /// There is no egress, or no more.
    ModelLost,
    /// Time passed; by any clock that never goes back.
    Tick(Duration),
}

/// Something to send, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To the gateway.
    Gateway(AgentRequest),
    /// To egress.
    Model(ModelRequest),
}

/// The gateway sent what this state does not allow; the link must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway sent {got} to an agent that is {state}")]
pub struct OutOfOrder {
    /// What the agent waits for.
    pub state: &'static str,
    /// What came.
    pub got: &'static str,
}

/// An agent. One at a time in one of these states.
#[derive(Debug, Default)]
pub enum Agent {
    /// Knows nothing yet.
    #[default]
    AwaitingStart,
    /// No turn runs.
    AwaitingTurn(AwaitingTurn),
    /// The model was asked.
    AwaitingModel(AwaitingModel),
    /// A tool was asked for.
    AwaitingTool(AwaitingTool),
}

/// What outlives a turn.
#[derive(Debug)]
struct Session {
    model: ModelSpec,
    system: String,
    tools: Vec<ToolSpec>,
    max_rounds: u32,
    conversation: Conversation,
    /// How many requests were made; their ids are never used again.
    requests: u64,
}

/// What outlives a round.
#[derive(Debug)]
struct Turn {
    id: TurnId,
    rounds: u32,
    calls: u32,
    unreadable: u32,
    /// Whether the person has seen text of an earlier round.
    spoke: Spoke,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoke {
    Nothing,
    ThisRound,
    Before,
}

/// See [`Agent::AwaitingTurn`].
#[derive(Debug)]
pub struct AwaitingTurn {
    session: Session,
}

/// See [`Agent::AwaitingModel`].
#[derive(Debug)]
pub struct AwaitingModel {
    session: Session,
    turn: Turn,
    request: u64,
    answer: Answer,
    /// The first tick after the last word of egress.
    silent_since: Option<Duration>,
}

/// See [`Agent::AwaitingTool`].
#[derive(Debug)]
pub struct AwaitingTool {
    session: Session,
    turn: Turn,
    said: String,
    done: Vec<DoneCall>,
    asked: Call,
    left: VecDeque<Call>,
}

impl Agent {
    /// Takes what happened; what is to be sent is added to `out`.
    pub fn handle(self, input: Input, out: &mut Vec<Output>) -> Result<Self, OutOfOrder> {
        match self {
            Self::AwaitingStart => start(input),
            Self::AwaitingTurn(state) => state.handle(input, out),
            Self::AwaitingModel(state) => state.handle(input, out),
            Self::AwaitingTool(state) => state.handle(input, out),
        }
    }

    /// Whether time matters now.
    pub fn wants_ticks(&self) -> bool {
        matches!(self, Self::AwaitingModel(_))
    }
}

fn start(input: Input) -> Result<Agent, OutOfOrder> {
    let out_of_order = |got| {
        Err(OutOfOrder {
            state: "awaiting its start",
            got,
        })
    };
    match input {
        Input::Command(AgentCommand::Start {
            model,
            system,
            tools,
            history,
            max_rounds,
        }) => {
            let conversation = Conversation::from_history(history, Window::of(&model));
            let session = Session {
                model,
                system,
                tools,
                max_rounds,
                conversation,
                requests: 0,
            };
            Ok(Agent::AwaitingTurn(AwaitingTurn { session }))
        }
        Input::Command(AgentCommand::Turn { .. }) => out_of_order("a turn"),
        Input::Command(AgentCommand::ToolResult { .. }) => out_of_order("a tool result"),
        Input::Command(AgentCommand::Cancel { .. }) => out_of_order("a cancel"),
        Input::Reply(_) | Input::ModelLost | Input::Tick(_) => Ok(Agent::AwaitingStart),
    }
}

impl AwaitingTurn {
    fn handle(mut self, input: Input, out: &mut Vec<Output>) -> Result<Agent, OutOfOrder> {
        match input {
            Input::Command(AgentCommand::Turn { turn, text }) => {
                self.session.conversation.begin(text);
                let turn = Turn {
                    id: turn,
                    rounds: 0,
                    calls: 0,
                    unreadable: 0,
                    spoke: Spoke::Nothing,
                };
                Ok(self.session.ask_model(turn, out))
            }
            Input::Command(AgentCommand::Start { .. }) => Err(OutOfOrder {
                state: "awaiting a turn",
                got: "a second start",
            }),
            // Of a turn that is over.
            Input::Command(AgentCommand::ToolResult { .. } | AgentCommand::Cancel { .. })
            | Input::Reply(_)
            | Input::ModelLost
            | Input::Tick(_) => Ok(Agent::AwaitingTurn(self)),
        }
    }
}

impl AwaitingModel {
    fn handle(mut self, input: Input, out: &mut Vec<Output>) -> Result<Agent, OutOfOrder> {
        match input {
            Input::Command(AgentCommand::Cancel { turn }) if turn == self.turn.id => {
                Ok(self.abandon(TurnFault::Cancelled, out))
            }
            Input::Command(AgentCommand::Start { .. }) => Err(OutOfOrder {
                state: "awaiting the model",
                got: "a second start",
            }),
            Input::Command(AgentCommand::Turn { .. }) => Err(OutOfOrder {
                state: "awaiting the model",
                got: "a turn",
            }),
            Input::Command(AgentCommand::ToolResult { .. } | AgentCommand::Cancel { .. }) => {
                Ok(Agent::AwaitingModel(self))
            }
            Input::Reply(reply) if id_of(&reply) == self.request => Ok(self.reply(reply, out)),
            // Of a request that was dropped.
            Input::Reply(_) => Ok(Agent::AwaitingModel(self)),
            Input::ModelLost => match self.answer.is_done() {
                true => Ok(self.complete(out)),
                false => Ok(self.session.fail(&self.turn, TurnFault::ModelDown, out)),
            },
            Input::Tick(now) => match self.silent_since {
                None => {
                    self.silent_since = Some(now);
                    Ok(Agent::AwaitingModel(self))
                }
                Some(since) if now.saturating_sub(since) < SILENCE => {
                    Ok(Agent::AwaitingModel(self))
                }
                Some(_) => Ok(self.abandon(TurnFault::ModelSlow, out)),
            },
        }
    }

    fn reply(mut self, reply: ModelReply, out: &mut Vec<Output>) -> Agent {
        self.silent_since = None;
        match reply {
            ModelReply::Status {
                status,
                retry_after,
                ..
            } => match self.answer.status(status, retry_after) {
                Ok(()) => Agent::AwaitingModel(self),
                Err(fault) => self.abandon(fault, out),
            },
            ModelReply::Chunk { text, .. } => match self.answer.chunk(&text) {
                Ok(text) => {
                    self.turn.speak(text, out);
                    Agent::AwaitingModel(self)
                }
                Err(fault) => self.abandon(fault, out),
            },
            ModelReply::End { .. } => self.complete(out),
            // The answer is whole by its own format; how the connection went down does not matter.
            ModelReply::Failed {
                fault: EgressFault::CutOff | EgressFault::Slow { .. },
                ..
            } if self.answer.is_done() => self.complete(out),
            ModelReply::Failed { fault, .. } => {
                let fault = self.answer.failed(fault);
                self.session.fail(&self.turn, fault, out)
            }
        }
    }

    fn complete(mut self, out: &mut Vec<Output>) -> Agent {
        let (rest, outcome) = match self.answer.end() {
            Ok(complete) => complete,
            Err(fault) => return self.session.fail(&self.turn, fault, out),
        };
        self.turn.speak(rest, out);
        match outcome {
            Outcome::Reply { text, note } => self.session.finish(self.turn, text, note, out),
            Outcome::Calls { said, calls } => self.session.call_tools(self.turn, said, calls, out),
            Outcome::Unreadable { text, why } => self.session.ask_again(self.turn, text, why, out),
        }
    }

    /// Ends the turn and the request with it.
    fn abandon(self, fault: TurnFault, out: &mut Vec<Output>) -> Agent {
        out.push(Output::Model(ModelRequest::Cancel { id: self.request }));
        self.session.fail(&self.turn, fault, out)
    }
}

impl AwaitingTool {
    fn handle(self, input: Input, out: &mut Vec<Output>) -> Result<Agent, OutOfOrder> {
        match input {
            Input::Command(AgentCommand::ToolResult { turn, call, result })
                if turn == self.turn.id && call == CallId(self.turn.calls) =>
            {
                Ok(self.result(page::told(result), out))
            }
            Input::Command(AgentCommand::Cancel { turn }) if turn == self.turn.id => {
                Ok(self.cancel(out))
            }
            Input::Command(AgentCommand::Start { .. }) => Err(OutOfOrder {
                state: "awaiting a tool",
                got: "a second start",
            }),
            Input::Command(AgentCommand::Turn { .. }) => Err(OutOfOrder {
                state: "awaiting a tool",
                got: "a turn",
            }),
            Input::Command(AgentCommand::ToolResult { .. } | AgentCommand::Cancel { .. })
            | Input::Reply(_)
            | Input::ModelLost
            | Input::Tick(_) => Ok(Agent::AwaitingTool(self)),
        }
    }

    fn result(mut self, text: String, out: &mut Vec<Output>) -> Agent {
        let result = bounded(text, Window::of(&self.session.model));
        self.done.push(DoneCall {
            call: self.asked,
            result,
        });
        match self.left.pop_front() {
            Some(call) => self
                .session
                .ask_tool(self.turn, self.said, self.done, call, self.left, out),
            None => {
                self.session.conversation.push(Message::Calls {
                    said: self.said,
                    calls: self.done,
                });
                self.session.ask_model(self.turn, out)
            }
        }
    }

    /// What was done stays in memory; the calls not yet asked for were never made.
    fn cancel(mut self, out: &mut Vec<Output>) -> Agent {
        let result = "The person stopped the turn. Whether this ran is not known.".to_owned();
        self.done.push(DoneCall {
            call: self.asked,
            result,
        });
        self.session.conversation.push(Message::Calls {
            said: self.said,
            calls: self.done,
        });
        self.session.fail(&self.turn, TurnFault::Cancelled, out)
    }
}

impl Session {
    /// Begins a round, unless there were too many or it does not fit.
    fn ask_model(mut self, mut turn: Turn, out: &mut Vec<Output>) -> Agent {
        if turn.rounds >= self.max_rounds {
            return self.fail_rounds(&turn, out);
        }
        let fixed = model::request_body(&self.model, &self.system, &self.tools, &[]).len();
        match self.conversation.fit(Window::of(&self.model), fixed) {
            Err(_) => return self.fail(&turn, TurnFault::TooLong, out),
            Ok(trimmed) if trimmed == Trimmed::default() => {}
            Ok(Trimmed { results, items }) => {
                out.push(Output::Gateway(AgentRequest::Trimmed {
                    turn: turn.id,
                    results,
                    items,
                }));
            }
        }
        let body = model::request_body(
            &self.model,
            &self.system,
            &self.tools,
            self.conversation.messages(),
        );
        if !Window::takes(&body) {
            return self.fail(&turn, TurnFault::TooLong, out);
        }
        self.requests += 1;
        turn.rounds += 1;
        turn.spoke = turn.spoke.next_round();
        let request = self.requests;
        out.push(Output::Model(ModelRequest::Chat {
            id: request,
            turn: turn.id,
            body,
        }));
        let answer = Answer::new(&self.model);
        Agent::AwaitingModel(AwaitingModel {
            session: self,
            turn,
            request,
            answer,
            silent_since: None,
        })
    }

    /// The calls of an answer, one after another: the next one may build on what this one did.
    fn call_tools(
        self,
        turn: Turn,
        said: String,
        mut calls: VecDeque<Call>,
        out: &mut Vec<Output>,
    ) -> Agent {
        if turn.rounds >= self.max_rounds {
            // Nobody would read the results.
            return self.fail_rounds(&turn, out);
        }
        let turn = Turn {
            unreadable: 0,
            ..turn
        };
        match calls.pop_front() {
            Some(call) => self.ask_tool(turn, said, Vec::new(), call, calls, out),
            None => self.finish(turn, said, None, out),
        }
    }

    fn ask_tool(
        self,
        mut turn: Turn,
        said: String,
        done: Vec<DoneCall>,
        asked: Call,
        left: VecDeque<Call>,
        out: &mut Vec<Output>,
    ) -> Agent {
        turn.calls += 1;
        out.push(Output::Gateway(AgentRequest::CallTool {
            turn: turn.id,
            call: CallId(turn.calls),
            name: asked.name.clone(),
            args: asked.args.clone(),
            said: said.clone(),
        }));
        Agent::AwaitingTool(AwaitingTool {
            session: self,
            turn,
            said,
            done,
            asked,
            left,
        })
    }

    fn ask_again(
        mut self,
        mut turn: Turn,
        text: String,
        why: &'static str,
        out: &mut Vec<Output>,
    ) -> Agent {
        turn.unreadable += 1;
        self.conversation.push(Message::Unreadable { text, why });
        if turn.unreadable >= MAX_UNREADABLE {
            let detail = format!(
                "{MAX_UNREADABLE} answers in a row were neither a reply nor a tool call: {why}"
            );
            return self.fail(&turn, TurnFault::ModelBroken { detail }, out);
        }
        self.ask_model(turn, out)
    }

    fn finish(
        mut self,
        mut turn: Turn,
        text: String,
        note: Option<String>,
        out: &mut Vec<Output>,
    ) -> Agent {
        self.conversation.push(Message::Assistant(text.clone()));
        let note = note.unwrap_or_default();
        turn.speak(note.clone(), out);
        out.push(Output::Gateway(AgentRequest::Finished {
            turn: turn.id,
            text: text + &note,
        }));
        Agent::AwaitingTurn(AwaitingTurn { session: self })
    }

    fn fail_rounds(self, turn: &Turn, out: &mut Vec<Output>) -> Agent {
        let limit = self.max_rounds;
        self.fail(turn, TurnFault::TooManyRounds { limit }, out)
    }

    fn fail(self, turn: &Turn, fault: TurnFault, out: &mut Vec<Output>) -> Agent {
        out.push(Output::Gateway(AgentRequest::Failed {
            turn: turn.id,
            fault,
        }));
        Agent::AwaitingTurn(AwaitingTurn { session: self })
    }
}

impl Turn {
    /// Passes a piece of text on; one that follows an earlier round's text begins a paragraph.
    fn speak(&mut self, text: String, out: &mut Vec<Output>) {
        if text.is_empty() {
            return;
        }
        let text = if self.spoke == Spoke::Before {
            format!("\n\n{text}")
        } else {
            text
        };
        self.spoke = Spoke::ThisRound;
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(MAX_TOKEN));
            out.push(Output::Gateway(AgentRequest::Token {
                turn: self.id,
                text: piece.to_owned(),
            }));
            rest = after;
        }
    }
}

impl Spoke {
    fn next_round(self) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::ThisRound | Self::Before => Self::Before,
        }
    }
}

fn id_of(reply: &ModelReply) -> u64 {
    match reply {
        ModelReply::Status { id, .. }
        | ModelReply::Chunk { id, .. }
        | ModelReply::End { id }
        | ModelReply::Failed { id, .. } => *id,
    }
}
