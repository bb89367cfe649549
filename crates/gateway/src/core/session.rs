//! The living sessions: their turn, their agent, and what waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use protocol::agent::AgentCommand;
use protocol::event::TurnEnd;
use protocol::ids::{CallId, SessionId, TurnId};

use super::leaks::Speech;
use super::outlet::Outlet;
use super::past::Message;
use super::wire::LinkId;

/// Messages that may wait in one session.
pub(super) const MAX_WAITING: usize = 50;

/// Tool calls in one turn.
pub(super) const MAX_CALLS: u32 = 200;

/// Tool calls of one turn that may be open at the same time.
pub(super) const MAX_OPEN_CALLS: usize = 16;

/// A session that has something to do, or had a moment ago.
pub(super) struct Session {
    /// The number of its newest turn.
    pub(super) last_turn: u64,
    /// What waits for its turn.
    pub(super) waiting: VecDeque<Message>,
    /// The turn that runs.
    pub(super) turn: Option<Turn>,
    /// The program that works for it.
    pub(super) agent: Agent,
    /// The end of what was said in it: a secret can be split over two answers.
    pub(super) said: String,
    /// Since when it has had nothing to do.
    pub(super) idle_since: Instant,
}

/// The program that works for a session.
pub(super) enum Agent {
    /// There is none.
    None,
    /// The supervisor was asked for one.
    Asked {
        /// When.
        at: Instant,
    },
    /// It is there.
    Live {
        /// Its link.
        link: LinkId,
        /// Likewise.
        outlet: Outlet<AgentCommand>,
    },
}

/// A turn that runs.
pub(super) struct Turn {
    /// Which.
    pub(super) id: TurnId,
    /// What it answers.
    pub(super) message: Message,
    /// Whether the message, or an earlier turn of it, is in the history already.
    pub(super) start: Start,
    /// The number of the newest call.
    pub(super) last_call: u32,
    /// How often the conversation was trimmed for it.
    pub(super) trimmed: u32,
    /// Calls without outcome, with their names and arguments for the card.
    pub(super) open: BTreeMap<CallId, OpenCall>,
    /// When somebody wanted it stopped.
    pub(super) cancelled: Option<Instant>,
    /// What follows when nothing of it runs any more, and since when that is waited for.
    pub(super) ending: Option<(Ending, Instant)>,
    /// How much was said in it, in bytes.
    pub(super) spoken: usize,
    /// What of its answer is not shown yet.
    pub(super) speech: Speech,
}

/// What follows on a turn.
pub(super) enum Ending {
    /// It is over.
    Closed(Ended),
    /// Its message is taken up again.
    Resumed(TurnEnd),
}

/// How a turn ended.
pub(super) enum Ended {
    /// With an answer.
    Reply(String),
    /// Without one.
    Failed(TurnEnd),
}

/// How a turn begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With its message.
    Fresh,
    /// With what an earlier turn of the same message left.
    Resumed,
}

/// A call without outcome.
pub(super) struct OpenCall {
    /// What it is, in one line.
    pub(super) title: String,
}

/// All living sessions.
pub(super) type Sessions = BTreeMap<SessionId, Session>;

impl Session {
    /// One that has nothing to do yet.
    pub(super) fn new(last_turn: u64) -> Self {
        Self {
            last_turn,
            waiting: VecDeque::new(),
            turn: None,
            said: String::new(),
            agent: Agent::None,
            idle_since: Instant::now(),
        }
    }

    /// The turn with this number, if it is the one that runs.
    pub(super) fn turn(&mut self, id: TurnId) -> Option<&mut Turn> {
        self.turn.as_mut().filter(|turn| turn.id == id)
    }

    /// Whether something of this session runs or waits.
    pub(super) fn is_busy(&self) -> bool {
        self.turn.is_some() || !self.waiting.is_empty()
    }
}

/// The ids of sessions that have this and that; looked up first, so that they can be changed after.
pub(super) fn those(sessions: &Sessions, wanted: impl Fn(&Session) -> bool) -> BTreeSet<SessionId> {
    sessions
        .iter()
        .filter(|(_, session)| wanted(session))
        .map(|(id, _)| id.clone())
        .collect()
}
