//! Turns: begun, answered, stopped, broken.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::agent::{AgentCommand, AgentRequest, MAX_TOKEN, TurnFault};
use protocol::channel::ChannelEvent;
use protocol::control::Report;
use protocol::event::{Event as Fact, TurnEnd};
use protocol::frame::LinkError;
use protocol::ids::{SessionId, TurnId};
use scan::Finding;

use super::calls::Wanted;
use super::inbound::Stopped;
use super::leaks::Speech;
use super::outlet::Outlet;
use super::past::{self, Message};
use super::session::{Agent, Ended, Ending, Session, Start, Turn, those};
use super::wire::{AgentLink, LinkId};
use super::{Fatal, Gateway, texts};

/// How long an agent may take to end a turn that was stopped.
const CANCEL_GRACE: Duration = Duration::from_secs(3);

/// How long what was killed may take to be over; longer than the runner itself gives it.
const QUIET_GRACE: Duration = Duration::from_secs(10);

/// How long the supervisor may take to start an agent.
const START_GRACE: Duration = Duration::from_secs(10);

/// The longest answer, in bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// What may be said in one turn, in all of its answers, in bytes.
const MAX_SPOKEN: usize = 4 * 1024 * 1024;

/// How much of a conversation an agent that starts is given, in bytes of JSON.
const MAX_HISTORY: usize = 2 * 1024 * 1024;

impl Gateway {
    /// Begins the turn of the first message that waits. The record has its start already.
    pub(super) fn begin(&mut self, id: &SessionId) -> Result<(), Fatal> {
        self.begin_as(id, Start::Fresh)
    }

    pub(super) fn begin_as(&mut self, id: &SessionId, start: Start) -> Result<(), Fatal> {
        let Some(session) = self.sessions.get_mut(id) else {
            return Ok(());
        };
        if session.turn.is_some() || self.frozen.is_some() {
            return Ok(());
        }
        let Some(message) = session.waiting.pop_front() else {
            return Ok(());
        };
        session.last_turn += 1;
        let turn = TurnId(session.last_turn);
        let started = ChannelEvent::TurnStarted {
            conversation: message.place.conversation.clone(),
            session: id.clone(),
            turn,
        };
        self.surfaces.show(&message.place, &started);
        session.turn = Some(Turn {
            id: turn,
            message,
            start,
            last_call: 0,
            trimmed: 0,
            open: BTreeMap::new(),
            cancelled: None,
            ending: None,
            speech: Speech::after(&session.said),
            spoken: 0,
        });
        if self.state.is_halted(id)? {
            return self.end_turn(id, Ended::Failed(TurnEnd::Halted));
        }
        let Some(session) = self.sessions.get(id) else {
            return Ok(());
        };
        match &session.agent {
            Agent::Live { .. } => self.hand_turn(id),
            Agent::Asked { .. } => {}
            Agent::None => self.ask_for_agent(id)?,
        }
        Ok(())
    }

    fn ask_for_agent(&mut self, id: &SessionId) -> Result<(), Fatal> {
        if let Some(session) = self.sessions.get_mut(id) {
            session.agent = Agent::Asked { at: Instant::now() };
            self.control.send(&Report::StartAgent {
                session: id.clone(),
            })?;
        }
        Ok(())
    }

    /// Gives a living agent the turn that waits for it.
    fn hand_turn(&self, id: &SessionId) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        if let (Agent::Live { outlet, .. }, Some(turn)) = (&session.agent, &session.turn) {
            let text = match turn.start {
                Start::Fresh => turn.message.text.clone(),
                Start::Resumed => texts::RESUME.to_owned(),
            };
            // An agent that is cut off here is reported gone by its reader.
            let _ = outlet.send(AgentCommand::Turn {
                turn: turn.id,
                text,
            });
        }
    }

    pub(super) fn agent_linked(
        &mut self,
        id: &SessionId,
        link: LinkId,
        stream: AgentLink,
    ) -> Result<(), Fatal> {
        let wanted = self
            .sessions
            .get(id)
            .is_some_and(|session| matches!(session.agent, Agent::Asked { .. }));
        if !wanted {
            stream.close();
            return Ok(());
        }
        let rows = match self.record.read(id) {
            Ok(rows) => rows,
            Err(error) => return self.record_lost(&error),
        };
        let Some(session) = self.sessions.get_mut(id) else {
            return Ok(());
        };
        let fresh = session
            .turn
            .as_ref()
            .is_some_and(|turn| turn.start == Start::Fresh);
        if session.said.is_empty() {
            session.said = past::said(&rows);
            if let Some(turn) = &mut session.turn {
                turn.speech = Speech::after(&session.said);
            }
        }
        let mut history = past::history(&rows);
        if fresh {
            // The message itself comes with the turn.
            history.pop();
        }
        let outlet = Outlet::new(stream)?;
        let start = AgentCommand::Start {
            model: self.config.model.clone(),
            system: texts::SYSTEM.to_owned(),
            tools: self.catalogue.clone(),
            history: newest_that_fit(history),
            max_rounds: self.config.max_rounds,
        };
        // An agent that is cut off here is reported gone by its reader.
        let _ = outlet.send(start);
        session.agent = Agent::Live { link, outlet };
        self.hand_turn(id);
        Ok(())
    }

    pub(super) fn no_agent(&mut self, id: &SessionId, reason: &str) -> Result<(), Fatal> {
        protocol::log!("bulkhead-gateway: no agent for session {id}: {reason}");
        let Some(session) = self.sessions.get_mut(id) else {
            return Ok(());
        };
        session.agent = Agent::None;
        self.interrupted(id, TurnEnd::AgentDied)
    }

    pub(super) fn agent_gone(
        &mut self,
        id: &SessionId,
        link: LinkId,
        error: &LinkError,
    ) -> Result<(), Fatal> {
        let Some(session) = self.sessions.get_mut(id) else {
            return Ok(());
        };
        if !matches!(session.agent, Agent::Live { link: live, .. } if live == link) {
            return Ok(());
        }
        session.agent = Agent::None;
        let end = match error {
            LinkError::Closed | LinkError::Io(_) => TurnEnd::AgentDied,
            LinkError::TooLong(_) | LinkError::Malformed(_) | LinkError::OutOfOrder { .. } => {
                self.control.send(&Report::StopAgent {
                    session: id.clone(),
                })?;
                TurnEnd::AgentMisbehaved {
                    detail: "it sent what is no frame of its link".to_owned(),
                }
            }
        };
        self.interrupted(id, end)
    }

    pub(super) fn agent_request(
        &mut self,
        id: &SessionId,
        link: LinkId,
        request: AgentRequest,
        own: Vec<Finding>,
    ) -> Result<(), Fatal> {
        let Some(session) = self.sessions.get_mut(id) else {
            return Ok(());
        };
        if !matches!(session.agent, Agent::Live { link: live, .. } if live == link) {
            return Ok(());
        }
        let (AgentRequest::Token { turn, .. }
        | AgentRequest::CallTool { turn, .. }
        | AgentRequest::Trimmed { turn, .. }
        | AgentRequest::Finished { turn, .. }
        | AgentRequest::Failed { turn, .. }) = request;
        let Some(running) = session.turn(turn) else {
            // What it still sent of a turn that is over.
            return if turn.0 <= session.last_turn {
                Ok(())
            } else {
                self.misbehaved(id, "it spoke of a turn that is not its own")
            };
        };
        if running.ending.is_some() {
            return Ok(());
        }
        match request {
            AgentRequest::Token { text, .. }
                if text.len() <= MAX_TOKEN && running.spoken + text.len() <= MAX_SPOKEN =>
            {
                running.spoken += text.len();
                self.speak(id, turn, &text)
            }
            AgentRequest::CallTool {
                call,
                name,
                args,
                said,
                ..
            } => {
                self.speak_out(id, turn)?;
                let wanted = Wanted {
                    call,
                    name,
                    args,
                    said,
                    own,
                };
                self.call_tool(id, turn, wanted)
            }
            AgentRequest::Trimmed { .. } if running.trimmed >= self.config.max_rounds => {
                self.misbehaved(id, "it trimmed more often than it may call the model")
            }
            AgentRequest::Trimmed { results, items, .. } => {
                running.trimmed += 1;
                match self.record.write(
                    id,
                    vec![Fact::ContextTrimmed {
                        turn,
                        results,
                        items,
                    }],
                ) {
                    Ok(()) => Ok(()),
                    Err(error) => self.record_lost(&error),
                }
            }
            AgentRequest::Finished { text, .. } if text.len() <= MAX_ANSWER => {
                if running.open.is_empty() {
                    self.speak_out(id, turn)?;
                    let reply = self.presentable(id, turn, &text)?;
                    self.end_turn(id, Ended::Reply(reply))
                } else {
                    self.misbehaved(id, "it ended a turn with calls still open")
                }
            }
            AgentRequest::Failed { fault, .. } => {
                self.speak_out(id, turn)?;
                let fault = self.presentable_fault(id, fault)?;
                self.end_turn(id, Ended::Failed(TurnEnd::Fault { fault }))
            }
            AgentRequest::Token { .. } | AgentRequest::Finished { .. } => {
                self.misbehaved(id, "it sent more text than fits")
            }
        }
    }

    /// Stops an agent that broke its protocol, and with it the turn.
    pub(super) fn misbehaved(&mut self, id: &SessionId, detail: &str) -> Result<(), Fatal> {
        protocol::log!("bulkhead-gateway: the agent of session {id} is stopped: {detail}");
        self.stop_agent(id)?;
        self.end_turn(
            id,
            Ended::Failed(TurnEnd::AgentMisbehaved {
                detail: detail.to_owned(),
            }),
        )
    }

    pub(super) fn end_turn(&mut self, id: &SessionId, ended: Ended) -> Result<(), Fatal> {
        self.end_when_quiet(id, Ending::Closed(ended))
    }

    /// Ends the turn when nothing of it runs any more: in the record, every outcome stands
    /// before the end of its turn.
    fn end_when_quiet(&mut self, id: &SessionId, ending: Ending) -> Result<(), Fatal> {
        let running = |gateway: &Self| {
            let turn = gateway.sessions.get(id)?.turn.as_ref()?;
            turn.ending.is_none().then_some(turn.id)
        };
        let Some(turn) = running(self) else {
            return Ok(());
        };
        self.close_calls(id)?;
        if running(self) != Some(turn) {
            return Ok(());
        }
        let running = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.turn(turn));
        if let Some(running) = running {
            running.ending = Some((ending, Instant::now()));
        }
        self.end_if_quiet(id)
    }

    /// Ends a turn that is to end, if its last call is over.
    pub(super) fn end_if_quiet(&mut self, id: &SessionId) -> Result<(), Fatal> {
        let ending = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.turn.as_mut())
            .filter(|turn| turn.open.is_empty())
            .and_then(|turn| turn.ending.take());
        match ending {
            None => Ok(()),
            Some((Ending::Closed(ended), _)) => self.close_turn(id, ended),
            Some((Ending::Resumed(end), _)) => self.resume_session(id, end),
        }
    }

    /// The turn is over: recorded, signed, told; and the next one begins.
    fn close_turn(&mut self, id: &SessionId, ended: Ended) -> Result<(), Fatal> {
        let Some(session) = self.sessions.get_mut(id) else {
            return Ok(());
        };
        let Some(turn) = session.turn.take() else {
            return Ok(());
        };
        let mut facts = vec![match &ended {
            Ended::Reply(text) => Fact::Reply {
                turn: turn.id,
                text: text.clone(),
            },
            Ended::Failed(fault) => Fact::TurnFailed {
                turn: turn.id,
                fault: fault.clone(),
            },
        }];
        let next = session.waiting.front().map(|next| next.id.clone());
        facts.extend(next.map(|message| Fact::TurnStarted {
            turn: TurnId(session.last_turn + 1),
            message,
        }));
        session.idle_since = Instant::now();
        if let Err(error) = self.record.write_and_sign(id, facts) {
            // As if it had not ended; it is taken up again when the record is back.
            if let Some(session) = self.sessions.get_mut(id) {
                session.turn = Some(turn);
            }
            return self.record_lost(&error);
        }
        self.tell_end(id, &turn, ended)?;
        self.begin(id)
    }

    fn tell_end(&self, id: &SessionId, turn: &Turn, ended: Ended) -> Result<(), Fatal> {
        let place = &turn.message.place;
        match ended {
            Ended::Reply(text) => {
                let (conversation, session) = (place.conversation.clone(), id.clone());
                let event = ChannelEvent::Reply {
                    delivery: 0,
                    conversation,
                    session,
                    turn: turn.id,
                    text,
                };
                self.surfaces
                    .deliver(&self.state, place, Some((id, turn.id)), event);
                Ok(())
            }
            Ended::Failed(end) => self.notice(place, Some((id, turn.id)), texts::turn_end(&end)),
        }
    }

    /// The turn broke off through no fault of the model: it is taken up again, but not for ever.
    pub(super) fn interrupted(&mut self, id: &SessionId, end: TurnEnd) -> Result<(), Fatal> {
        let Some(turn) = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.turn.as_ref())
        else {
            return Ok(());
        };
        if turn.cancelled.is_some() {
            return self.end_turn(
                id,
                Ended::Failed(TurnEnd::Fault {
                    fault: TurnFault::Cancelled,
                }),
            );
        }
        if matches!(end, TurnEnd::AgentMisbehaved { .. }) {
            return self.end_turn(id, Ended::Failed(end));
        }
        self.end_when_quiet(id, Ending::Resumed(end))
    }

    /// Stops the turn of a session, and what runs for it.
    pub(super) fn cancel(&mut self, id: &SessionId) -> Result<Stopped, Fatal> {
        let Some(session) = self.sessions.get_mut(id) else {
            return Ok(Stopped::Nothing);
        };
        let Some(turn) = session.turn.as_mut() else {
            return Ok(Stopped::Nothing);
        };
        turn.cancelled.get_or_insert_with(Instant::now);
        let turn = turn.id;
        match &session.agent {
            Agent::Live { outlet, .. } => {
                // An agent that is cut off here is reported gone by its reader.
                let _ = outlet.send(AgentCommand::Cancel { turn });
                self.close_calls(id)?;
            }
            // It never heard of the turn.
            Agent::None | Agent::Asked { .. } => {
                let fault = TurnFault::Cancelled;
                self.end_turn(id, Ended::Failed(TurnEnd::Fault { fault }))?;
            }
        }
        Ok(Stopped::Something)
    }

    pub(super) fn stop_agent(&mut self, id: &SessionId) -> Result<(), Fatal> {
        if let Some(session) = self.sessions.get_mut(id) {
            session.agent = Agent::None;
            self.control.send(&Report::StopAgent {
                session: id.clone(),
            })?;
        }
        Ok(())
    }

    pub(super) fn stop_stuck_and_idle_agents(&mut self) -> Result<(), Fatal> {
        let loud = |session: &Session| {
            let ending = session.turn.as_ref().and_then(|turn| turn.ending.as_ref());
            ending.is_some_and(|(_, since)| since.elapsed() > QUIET_GRACE)
        };
        for id in those(&self.sessions, loud) {
            self.give_up_calls(&id)?;
        }
        let stuck = |session: &Session| {
            let turn = session.turn.as_ref().filter(|turn| turn.ending.is_none());
            let cancelled = turn.and_then(|turn| turn.cancelled);
            let unstarted =
                matches!(session.agent, Agent::Asked { at } if at.elapsed() > START_GRACE);
            unstarted || cancelled.is_some_and(|at| at.elapsed() > CANCEL_GRACE)
        };
        for id in those(&self.sessions, stuck) {
            self.stop_agent(&id)?;
            self.interrupted(&id, TurnEnd::AgentDied)?;
        }
        let limit = Duration::from_secs(self.config.agent_idle_seconds.into());
        let idle = |session: &Session| !session.is_busy() && session.idle_since.elapsed() > limit;
        for id in those(&self.sessions, idle) {
            if !matches!(self.sessions[&id].agent, Agent::None) {
                self.stop_agent(&id)?;
            }
            self.sessions.remove(&id);
        }
        Ok(())
    }

    /// Drops all that runs, without a word in the record, since there is none to be had. The
    /// record shows later what was left open.
    pub(super) fn abandon_everything(&mut self) -> Result<(), Fatal> {
        for id in those(&self.sessions, Session::is_busy) {
            self.runner.kill_those_of(&id);
            self.runner.forget_those_of(&id);
            self.forget_approvals_of(&id);
            self.stop_agent(&id)?;
            let Some(session) = self.sessions.remove(&id) else {
                continue;
            };
            let told = session
                .turn
                .as_ref()
                .map(|turn| (turn.message.clone(), Some(turn.id)));
            let waiting = session.waiting.into_iter().map(|message| (message, None));
            for (message, turn) in told.into_iter().chain(waiting) {
                self.tell_kept(&message, turn)?;
            }
        }
        Ok(())
    }

    fn tell_kept(&self, message: &Message, ends_turn: Option<TurnId>) -> Result<(), Fatal> {
        let (conversation, text) = (
            message.place.conversation.clone(),
            texts::NO_RECORD_KEPT.to_owned(),
        );
        let event = ChannelEvent::Notice {
            delivery: 0,
            conversation,
            ends_turn,
            text,
        };
        self.surfaces
            .deliver(&self.state, &message.place, None, event);
        Ok(())
    }
}

/// The newest items that fit; the agent trims further, to the model's window.
fn newest_that_fit(
    mut items: Vec<protocol::agent::HistoryItem>,
) -> Vec<protocol::agent::HistoryItem> {
    let mut bytes = 0;
    let fit = items.iter().rev().take_while(|item| {
        bytes += serde_json::to_vec(item).map_or(MAX_HISTORY, |json| json.len());
        bytes <= MAX_HISTORY
    });
    let fit = fit.count();
    items.drain(..items.len() - fit);
    items
}
