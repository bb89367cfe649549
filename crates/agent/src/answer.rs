//! One answer of the model: the pieces that egress hands over, until it is a reply, calls,
//! something unreadable, or a fault.

use std::collections::VecDeque;

use model::{Call, CutOff, Decoder, ModelEvent, ModelFault, Stop};
use protocol::agent::{ModelSpec, TurnFault};
use protocol::egress::EgressFault;

/// So much of the body of a refusal is read, in bytes.
const MAX_REFUSAL: usize = 64 * 1024;

/// What a complete answer is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Text for the person.
    Reply {
        /// The model's words; never empty.
        text: String,
        /// What the person is told beside them.
        note: Option<String>,
    },
    /// Tools are wanted.
    Calls {
        /// The text that came with them.
        said: String,
        /// At least one.
        calls: VecDeque<Call>,
    },
    /// Neither.
    Unreadable {
        /// The answer.
        text: String,
        /// What the model is told.
        why: &'static str,
    },
}

/// An answer that is coming in.
#[derive(Debug)]
pub(crate) struct Answer {
    limit: u32,
    stage: Stage,
    gathered: Gathered,
}

#[derive(Debug)]
enum Stage {
    AwaitingStatus(Decoder),
    Reading {
        status: u16,
        decoder: Decoder,
    },
    Refused {
        status: u16,
        retry_after: Option<u32>,
        body: String,
    },
}

#[derive(Debug, Default)]
struct Gathered {
    text: String,
    calls: VecDeque<Call>,
    unreadable: Option<(String, &'static str)>,
    stop: Option<Stop>,
}

impl Answer {
    pub(crate) fn new(spec: &ModelSpec) -> Self {
        Self {
            limit: spec.answer_tokens,
            stage: Stage::AwaitingStatus(Decoder::new(spec.api, spec.tool_calls)),
            gathered: Gathered::default(),
        }
    }

    /// The answer is complete by its own format, though more may come of the connection.
    pub(crate) fn is_done(&self) -> bool {
        self.gathered.stop.is_some()
    }

    pub(crate) fn status(
        &mut self,
        status: u16,
        retry_after: Option<u32>,
    ) -> Result<(), TurnFault> {
        let refused = || Stage::Refused {
            status,
            retry_after,
            body: String::new(),
        };
        let fresh = match std::mem::replace(&mut self.stage, refused()) {
            Stage::AwaitingStatus(decoder) => decoder,
            Stage::Reading { .. } | Stage::Refused { .. } => {
                return Err(broken("a second status came"));
            }
        };
        if (200..300).contains(&status) {
            self.stage = Stage::Reading {
                status,
                decoder: fresh,
            };
        }
        Ok(())
    }

    /// Takes a piece of the body and gives what of it is text for the person.
    pub(crate) fn chunk(&mut self, piece: &str) -> Result<String, TurnFault> {
        match &mut self.stage {
            Stage::AwaitingStatus(_) => Err(broken("a piece came before the status")),
            Stage::Reading { status, decoder } => {
                let events = decoder
                    .push(piece)
                    .map_err(|fault| of_model(fault, *status))?;
                Ok(self.gathered.take(events))
            }
            Stage::Refused { body, .. } => {
                let room = MAX_REFUSAL.saturating_sub(body.len());
                body.push_str(&piece[..piece.floor_char_boundary(room)]);
                Ok(String::new())
            }
        }
    }

    /// The body is complete: the last text for the person, and what the answer is.
    pub(crate) fn end(&mut self) -> Result<(String, Outcome), TurnFault> {
        let rest = match &mut self.stage {
            Stage::AwaitingStatus(_) => return Err(broken("the end came before the status")),
            Stage::Refused { .. } => return Err(self.refusal()),
            Stage::Reading { status, decoder } => {
                let events = decoder.end().map_err(|fault| of_model(fault, *status))?;
                self.gathered
                    .take(events.map_err(|CutOff| TurnFault::ModelCutOff)?)
            }
        };
        Ok((
            rest,
            std::mem::take(&mut self.gathered).outcome(self.limit)?,
        ))
    }

    /// Egress gave up; a refusal by the server stays what it was.
    pub(crate) fn failed(&self, fault: EgressFault) -> TurnFault {
        match (&self.stage, fault) {
            (_, EgressFault::NoRecord) => TurnFault::NoRecord,
            (Stage::Refused { .. }, _) => self.refusal(),
            (_, EgressFault::NotAllowed { reason }) => TurnFault::ModelRefused {
                status: 0,
                message: reason,
            },
            (_, EgressFault::Unreachable { .. }) => TurnFault::ModelDown,
            (_, EgressFault::CutOff) => TurnFault::ModelCutOff,
            (_, EgressFault::Slow { .. }) => TurnFault::ModelSlow,
            (_, EgressFault::TooLarge { bytes }) => {
                broken(&format!("the answer is over {bytes} bytes"))
            }
            (_, EgressFault::Protocol { detail }) => broken(&detail),
        }
    }

    fn refusal(&self) -> TurnFault {
        match &self.stage {
            Stage::Refused {
                status: 429 | 503,
                retry_after,
                ..
            } => TurnFault::ModelBusy {
                retry_after: *retry_after,
            },
            Stage::Refused { status, body, .. } => TurnFault::ModelRefused {
                status: *status,
                message: model::error_message(*status, body),
            },
            Stage::AwaitingStatus(_) | Stage::Reading { .. } => TurnFault::ModelCutOff,
        }
    }
}

impl Gathered {
    fn take(&mut self, events: Vec<ModelEvent>) -> String {
        let mut fresh = String::new();
        for event in events {
            match event {
                ModelEvent::Text(text) => fresh.push_str(&text),
                ModelEvent::Call(call) => self.calls.push_back(call),
                ModelEvent::Unreadable { text, why } => self.unreadable = Some((text, why)),
                ModelEvent::Done(done) => self.stop = Some(done.stop),
            }
        }
        self.text.push_str(&fresh);
        fresh
    }

    fn outcome(self, limit: u32) -> Result<Outcome, TurnFault> {
        let at_limit = self.stop == Some(Stop::Length);
        if let Some((text, why)) = self.unreadable {
            return Ok(Outcome::Unreadable { text, why });
        }
        if !self.calls.is_empty() {
            return Ok(Outcome::Calls {
                said: self.text,
                calls: self.calls,
            });
        }
        if !self.text.trim().is_empty() {
            let note =
                format!("\n\n[The answer ends here: it reached its limit of {limit} tokens.]");
            return Ok(Outcome::Reply {
                text: self.text,
                note: at_limit.then_some(note),
            });
        }
        Err(match at_limit {
            true => broken(&format!(
                "the model reached the limit of {limit} tokens before it answered"
            )),
            false => broken("the answer is empty"),
        })
    }
}

fn broken(detail: &str) -> TurnFault {
    TurnFault::ModelBroken {
        detail: detail.to_owned(),
    }
}

/// `status` is that of the response in which the server reported an error.
fn of_model(fault: ModelFault, status: u16) -> TurnFault {
    match fault {
        ModelFault::Reported {
            status: own,
            message,
        } => TurnFault::ModelRefused {
            status: own.unwrap_or(status),
            message,
        },
        ModelFault::NotJson
        | ModelFault::WrongShape(_)
        | ModelFault::LineTooLong(_)
        | ModelFault::AnswerTooLong(_)
        | ModelFault::StreamTooLong(_)
        | ModelFault::TooManyCalls(_) => broken(&fault.to_string()),
    }
}
