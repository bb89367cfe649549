//! Turns: from the moment a message is sent on the terminal's channel to the moment its
//! answer is there, less what the model takes for the same.

use std::time::{Duration, Instant};

use config::BaseUrl;
use protocol::channel::{ApprovalAnswer, ApprovalCard, CallCard, CallState};
use protocol::ids::SessionId;
use serde_json::json;

use super::Extent;
use super::measure::{ms, percentile};
use crate::fault::Fault;
use crate::http;
use crate::scratch::{End, Person, Speaker};

/// Asks for an answer without a call.
pub(super) const NO_TOOLS: &str = "say something";

/// Asks for one call.
pub(super) const ONE_TOOL: &str = "look around";

/// How long the model may take when it is asked directly.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was measured, in milliseconds where it is less the model's own time.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The model alone, over a connection of its own each time.
    pub(super) direct: Vec<Duration>,
    /// Added to a turn with one model call.
    pub(super) no_tools: Vec<f64>,
    /// Added to a turn with one tool call, so two model calls.
    pub(super) one_tool: Vec<f64>,
    /// Added to the first turn of a session, which starts its agent.
    pub(super) first: Vec<f64>,
}

/// Who asks.
pub(super) struct Line {
    speaker: Speaker,
    model: BaseUrl,
}

impl Line {
    pub(super) fn new(speaker: Speaker, model: BaseUrl) -> Self {
        Self { speaker, model }
    }

    /// Takes so many turns. The model is asked directly in between, so that both meet the
    /// same machine.
    pub(super) fn measure(mut self, extent: Extent) -> Result<Turns, Fault> {
        let (mut no_tools, mut one_tool, mut first) = (Vec::new(), Vec::new(), Vec::new());
        let mut direct = Vec::new();
        for _ in 0..extent.sessions {
            self.speaker.renew()?;
            first.push(self.turn(NO_TOOLS, 0)?);
            for _ in 0..extent.turns {
                no_tools.push(self.turn(NO_TOOLS, 0)?);
                direct.push(self.direct()?);
                one_tool.push(self.turn(ONE_TOOL, 1)?);
            }
        }
        let mut sorted: Vec<f64> = direct.iter().map(|time| ms(*time)).collect();
        sorted.sort_by(f64::total_cmp);
        let model = percentile(&sorted, 50);
        let less = |times: Vec<Duration>, calls: f64| {
            let added = |time: Duration| (ms(time) - calls * model).max(0.0);
            times.into_iter().map(added).collect()
        };
        Ok(Turns {
            direct,
            no_tools: less(no_tools, 1.0),
            one_tool: less(one_tool, 2.0),
            first: less(first, 1.0),
        })
    }

    fn turn(&mut self, text: &str, calls: usize) -> Result<Duration, Fault> {
        let mut person = Nobody::default();
        let began = Instant::now();
        let end = self.speaker.turn(text, &mut person)?;
        let took = began.elapsed();
        match end {
            End::Reply(_) if person.done == calls => Ok(took),
            End::Reply(_) => Err(Fault::Refused(format!(
                "a turn had {} calls that were carried out instead of {calls}",
                person.done
            ))),
            End::Notice(text) => Err(Fault::Refused(text)),
        }
    }

    fn direct(&self) -> Result<Duration, Fault> {
        let body = json!({
            "model": "scripted",
            "stream": true,
            "messages": [{ "role": "user", "content": NO_TOOLS }],
        });
        let began = Instant::now();
        let answer = http::post(&self.model, "/v1/chat/completions", &body, PATIENCE)
            .map_err(|error| Fault::Refused(format!("the scripted model: {error}")))?;
        let took = began.elapsed();
        match answer.status {
            200 => Ok(took),
            status => Err(Fault::Refused(format!(
                "the scripted model answered with status {status}"
            ))),
        }
    }
}

/// Nobody sits at the terminal; what is asked is not allowed.
#[derive(Default)]
struct Nobody {
    /// Calls that were carried out.
    done: usize,
}

impl Person for Nobody {
    fn answer(&mut self, _card: &ApprovalCard) -> ApprovalAnswer {
        ApprovalAnswer::Deny
    }

    fn see(&mut self, _session: &SessionId, card: &CallCard) -> Result<(), Fault> {
        if card.state == CallState::Done {
            self.done += 1;
        }
        Ok(())
    }
}
