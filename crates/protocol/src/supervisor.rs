//! The link between `bulkhead` and the supervisor.

use serde::{Deserialize, Serialize};

use crate::time::Millis;

/// From `bulkhead`. Each gets one reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum SupervisorRequest {
    /// Which programs run.
    Status,
    /// Stop all of them in order, then the supervisor. Answered when all but it are gone.
    Down,
}

/// From the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum SupervisorReply {
    /// The programs.
    Status {
        /// The supervisor's own process id.
        pid: u32,
        /// In the order they are started.
        programs: Vec<ProgramStatus>,
    },
    /// All are gone.
    Stopped,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramStatus {
    /// Its name, as `ps` shows it.
    pub name: String,
    /// Its state.
    pub state: ProgramState,
    /// How often it was started again.
    pub restarts: u32,
}

/// The state of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum ProgramState {
    /// Started, has not yet said that it is ready.
    Starting {
        /// Its process id.
        pid: u32,
    },
    /// Ready.
    Running {
        /// Its process id.
        pid: u32,
        /// Since when.
        since: Millis,
    },
    /// Died; will be started again.
    Waiting {
        /// When.
        until: Millis,
        /// How it ended.
        last: String,
    },
    /// Kept dying, or said that it cannot run; will not be started again.
    Failed {
        /// How it ended, and what to do.
        last: String,
    },
}
