//! Whether every tool call of a session was asked for, judged, permitted and ended in that order.

use std::collections::BTreeMap;

use protocol::call::Verdict;
use protocol::event::{Answer, CallOutcome, Event, Ground};
use protocol::ids::{ApprovalId, CallId, Digest, TurnId};

/// The calls of one session.
#[derive(Default)]
pub(super) struct Calls {
    calls: BTreeMap<(TurnId, CallId), Call>,
    /// The newest turn that started.
    turn: Option<TurnId>,
}

#[derive(Default)]
struct Call {
    intended: bool,
    verdict: Option<Verdict>,
    approvals: Vec<Approval>,
    permitted: bool,
    ended: Option<Ended>,
}

struct Approval {
    id: ApprovalId,
    digest: Digest,
    answer: Option<Answer>,
}

#[derive(PartialEq, Eq)]
enum Ended {
    Known,
    Unknown,
}

impl Calls {
    /// What is wrong with this event after those before it.
    pub(super) fn check(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::TurnStarted { turn, .. } => {
                self.turn = self.turn.max(Some(*turn));
                None
            }
            Event::ToolIntent { turn, call, .. } => {
                let state = self.calls.entry((*turn, *call)).or_default();
                let again = std::mem::replace(&mut state.intended, true);
                again.then(|| format!("call {turn}/{call} was asked for before"))
            }
            Event::Decision {
                turn,
                call,
                verdict,
                ..
            } => self.call(*turn, *call, "was judged", |state| {
                match state.verdict.replace(*verdict) {
                    None => Ok(()),
                    Some(_) => Err("was judged before"),
                }
            }),
            Event::ApprovalAsked {
                turn,
                call,
                approval,
                digest,
                ..
            } => self.call(*turn, *call, "was put to a person", |state| {
                state.approvals.push(Approval {
                    id: *approval,
                    digest: *digest,
                    answer: None,
                });
                Ok(())
            }),
            Event::ApprovalAnswered {
                turn,
                call,
                approval,
                answer,
                ..
            } => self.call(*turn, *call, "was answered by a person", |state| {
                state.answer(*approval, *answer)
            }),
            Event::Permit {
                turn,
                call,
                ground,
                digest,
                ..
            } => self.call(*turn, *call, "was permitted", |state| {
                state.permit(ground, *digest)
            }),
            Event::Outcome {
                turn,
                call,
                outcome,
            } => self.call(*turn, *call, "has an outcome", |state| state.end(outcome)),
            Event::Inbound { .. }
            | Event::ModelRequest { .. }
            | Event::ModelResponse { .. }
            | Event::ContextTrimmed { .. }
            | Event::Reply { .. }
            | Event::TurnFailed { .. }
            | Event::StrangerSeen { .. }
            | Event::Paired { .. }
            | Event::Labelled { .. }
            | Event::RulesInForce { .. }
            | Event::Unpaired { .. }
            | Event::GrantMade { .. }
            | Event::GrantRevoked { .. }
            | Event::LoggedIn { .. }
            | Event::PasskeyEnrolled { .. }
            | Event::PasskeyRemoved { .. }
            | Event::ChannelUp { .. }
            | Event::ChannelDown { .. }
            | Event::TunnelOpened { .. }
            | Event::EgressRequest { .. }
            | Event::EgressResponse { .. }
            | Event::LeakStopped { .. }
            | Event::BoxTunnelOpened { .. }
            | Event::BoxTunnelClosed { .. }
            | Event::BoxRequest { .. }
            | Event::BoxResponse { .. }
            | Event::EgressRefused { .. }
            | Event::SecretUsed { .. }
            | Event::VaultChanged { .. }
            | Event::HoneytokenTouched { .. }
            | Event::UndoAsked { .. }
            | Event::UndoEnded { .. }
            | Event::Panicked { .. }
            | Event::Resumed { .. } => None,
        }
    }

    /// Calls of earlier turns that have no outcome; the last turn may still run, or was interrupted.
    pub(super) fn left_open(&self) -> Vec<String> {
        let open = |((turn, call), state): (&(TurnId, CallId), &Call)| {
            (state.ended.is_none() && Some(*turn) < self.turn)
                .then(|| format!("call {turn}/{call} has no outcome, though a later turn started"))
        };
        self.calls.iter().filter_map(open).collect()
    }

    /// How many calls there are whose outcome nobody knows.
    pub(super) fn unknown(&self) -> u64 {
        self.calls
            .values()
            .filter(|state| state.ended != Some(Ended::Known))
            .count() as u64
    }

    fn call(
        &mut self,
        turn: TurnId,
        call: CallId,
        what: &str,
        change: impl FnOnce(&mut Call) -> Result<(), &'static str>,
    ) -> Option<String> {
        match self.calls.get_mut(&(turn, call)) {
            None => Some(format!(
                "call {turn}/{call} {what}, but nothing asked for it"
            )),
            Some(state) => change(state)
                .err()
                .map(|wrong| format!("call {turn}/{call} {wrong}")),
        }
    }
}

impl Call {
    fn answer(&mut self, id: ApprovalId, answer: Answer) -> Result<(), &'static str> {
        let asked = self.approvals.iter_mut().find(|asked| asked.id == id);
        let asked = asked.ok_or("was answered in an approval that was not asked for")?;
        match asked.answer.replace(answer) {
            None => Ok(()),
            Some(_) => Err("was answered twice in one approval"),
        }
    }

    fn permit(&mut self, ground: &Ground, digest: Digest) -> Result<(), &'static str> {
        if std::mem::replace(&mut self.permitted, true) {
            return Err("was permitted before");
        }
        if self.ended.is_some() {
            return Err("was permitted after its outcome");
        }
        match (ground, self.verdict) {
            (Ground::Policy, Some(Verdict::Allow)) | (Ground::Grant, Some(Verdict::AskOnce)) => {
                Ok(())
            }
            (Ground::Approval { approval }, Some(Verdict::AskOnce | Verdict::AskAlways)) => {
                let asked = self.approvals.iter().find(|asked| asked.id == *approval);
                let asked = asked.ok_or("was permitted by an approval that was not asked for")?;
                if asked.answer != Some(Answer::Approve) {
                    Err("was permitted by an approval that was not given")
                } else if asked.digest != digest {
                    Err("was permitted by an approval of another call")
                } else {
                    Ok(())
                }
            }
            (Ground::Policy | Ground::Grant | Ground::Approval { .. }, None) => {
                Err("was permitted, but not judged")
            }
            (Ground::Policy | Ground::Grant | Ground::Approval { .. }, Some(_)) => {
                Err("was permitted on a ground that its decision does not give")
            }
        }
    }

    fn end(&mut self, outcome: &CallOutcome) -> Result<(), &'static str> {
        let ended = match outcome {
            CallOutcome::Ran { .. }
            | CallOutcome::Fetched { .. }
            | CallOutcome::NotFetched { .. }
            | CallOutcome::NotRun { .. } => Ended::Known,
            CallOutcome::Unknown => Ended::Unknown,
        };
        if self.ended.replace(ended).is_some() {
            return Err("had an outcome before");
        }
        match outcome {
            CallOutcome::Ran { .. }
            | CallOutcome::Fetched { .. }
            | CallOutcome::NotFetched { .. }
                if !self.permitted =>
            {
                Err("ran without a permit")
            }
            CallOutcome::Ran { .. }
            | CallOutcome::Fetched { .. }
            | CallOutcome::NotFetched { .. }
            | CallOutcome::NotRun { .. }
            | CallOutcome::Unknown => Ok(()),
        }
    }
}
