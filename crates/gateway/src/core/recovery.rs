//! After a start, and after the record was lost: what the record shows as open is closed,
//! and the turns that were interrupted are taken up again.

use std::time::{Duration, Instant};

use protocol::event::{Event as Fact, TurnEnd};
use protocol::ids::{SessionId, TurnId};

use super::past::{self, Past, open_outcome};
use super::session::{Session, Start};
use super::{Fatal, Gateway, texts};

/// How often one message is tried, counting the first time.
const MAX_ATTEMPTS: usize = 3;

/// How long to wait before the record is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// When to look at the record again.
#[derive(Default)]
pub(super) struct Recovery {
    due: Option<Instant>,
}

impl Recovery {
    /// The record was lost: look again in a while.
    pub(super) fn later(&mut self) {
        self.due = Some(Instant::now() + RETRY);
    }
}

impl Gateway {
    pub(super) fn recover_if_due(&mut self) -> Result<(), Fatal> {
        if self.recovery.due.is_some_and(|due| due <= Instant::now()) {
            self.recover()?;
        }
        Ok(())
    }

    /// Looks for what was left open, and takes it up. Tried again later if the record is lost.
    pub(super) fn recover(&mut self) -> Result<(), Fatal> {
        self.recovery.due = None;
        if self.is_frozen() {
            return self.settle();
        }
        let open = match self.record.unfinished() {
            Ok(open) => open,
            Err(error) => {
                protocol::log!("bulkhead-gateway: {error}");
                self.recovery.later();
                return self.ask_for_ledger();
            }
        };
        if let Err(error) = self.record_rules() {
            return self.record_lost(&error);
        }
        for id in open {
            // What runs in this very moment is not open but under way.
            if !self.sessions.get(&id).is_some_and(Session::is_busy) {
                self.resume_session(&id, TurnEnd::Interrupted)?;
            }
        }
        self.close_open_undo()
            .or_else(|error| self.record_lost(&error))
    }

    /// Closes what is open in a session's record, and takes its message up again.
    pub(super) fn resume_session(&mut self, id: &SessionId, end: TurnEnd) -> Result<(), Fatal> {
        let result = self
            .record
            .read(id)
            .map(|rows| past::past(&rows))
            .and_then(|past| {
                let plan = Plan::new(&past, end);
                self.record.write_and_sign(id, plan.facts.clone())?;
                Ok((past, plan))
            });
        match result {
            Ok((past, plan)) => self.resumed(id, past, plan),
            Err(error) => self.record_lost(&error),
        }
    }

    fn resumed(&mut self, id: &SessionId, past: Past, plan: Plan) -> Result<(), Fatal> {
        let Some(open) = past.open else { return Ok(()) };
        self.state.forget_replies(id, open.turn)?;
        let place = open.message.place.clone();
        if self.state.place(id)?.is_none() {
            self.state.set_session(&place, id)?;
        }
        let session = self
            .sessions
            .entry(id.clone())
            .or_insert_with(|| Session::new(0));
        session.last_turn = past.last_turn;
        session.turn = None;
        session.waiting = past.waiting;
        if plan.tries_again {
            session.waiting.push_front(open.message);
            return self.begin_as(id, Start::Resumed);
        }
        self.notice(&place, Some((id, open.turn)), texts::GIVEN_UP.to_owned())?;
        self.begin(id)
    }
}

/// What is written about an interrupted session.
struct Plan {
    facts: Vec<Fact>,
    tries_again: bool,
}

impl Plan {
    fn new(past: &Past, end: TurnEnd) -> Self {
        let mut facts: Vec<Fact> = Vec::new();
        for (turn, open) in &past.open_calls {
            let (call, outcome) = open_outcome(*open);
            facts.push(Fact::Outcome {
                turn: *turn,
                call,
                outcome,
            });
        }
        let Some(open) = &past.open else {
            return Self {
                facts,
                tries_again: false,
            };
        };
        facts.push(Fact::TurnFailed {
            turn: open.turn,
            fault: end,
        });
        let tries_again = open.attempts < MAX_ATTEMPTS;
        let next = if tries_again {
            Some(&open.message)
        } else {
            past.waiting.front()
        };
        if let Some(message) = next {
            facts.push(Fact::TurnStarted {
                turn: TurnId(past.last_turn + 1),
                message: message.id.clone(),
            });
        }
        Self { facts, tries_again }
    }
}
