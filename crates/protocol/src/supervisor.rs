//! The link between `bulkhead` and the supervisor.

use serde::{Deserialize, Serialize};

use crate::freeze::Frozen;
use crate::ids::{Nonce, Signature};
use crate::time::Millis;

/// From `bulkhead`. Each gets one reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum SupervisorRequest {
    /// Which programs run.
    Status,
    /// Stop all of them in order, then the supervisor. Answered when all but it are gone.
    Down,
    /// Freeze everything at once. Answered by [`SupervisorReply::Frozen`] when what was killed is gone.
    Panic {
        /// Why; at most [`crate::freeze::MAX_REASON`] bytes. Empty if nothing is said.
        reason: String,
    },
    /// What has to be signed to end the freeze. Answered by [`SupervisorReply::Challenge`].
    AskResume,
    /// End the freeze. Answered by [`SupervisorReply::Resumed`] when that is in the record.
    Resume {
        /// The operator key's, over the challenge; see [`crate::identity`].
        signature: Signature,
    },
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
        /// The freeze, while there is one.
        frozen: Option<FreezeStatus>,
    },
    /// All are gone.
    Stopped,
    /// Everything is frozen.
    Frozen {
        /// The freeze; an earlier one if there was one already.
        frozen: FreezeStatus,
        /// Which of the two.
        thrown: Thrown,
        /// How many programs were killed, agents included.
        killed: u32,
        /// How many of them are still there, since the kernel has not ended them yet.
        left: u32,
        /// How long all of it took, in milliseconds.
        took_ms: u64,
    },
    /// Sign this to end the freeze. Good once, on this connection.
    Challenge {
        /// To be signed, with [`Frozen::since`].
        nonce: Nonce,
        /// Which freeze.
        since: Millis,
    },
    /// The freeze is over, and in the record; what was killed is being started again.
    Resumed,
    /// Not done.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// What a request to freeze everything met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thrown {
    /// Nothing was frozen, and now all is.
    Now,
    /// Everything was frozen before. That freeze counts; the reason given now is not kept.
    Before,
}

/// A freeze and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeStatus {
    /// The freeze.
    pub frozen: Frozen,
    /// Whether it survives a restart.
    pub mark: Mark,
    /// Whether its row is written.
    pub recorded: Recorded,
}

/// Whether a freeze survives a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Its mark is on the disk.
    Synced,
    /// Its mark is written; the disk has not confirmed it yet.
    Unconfirmed,
    /// It could not be written, so the freeze ends with the supervisor.
    Missing,
}

/// Whether the row of a freeze is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recorded {
    /// It is.
    Yes,
    /// As soon as the record takes rows.
    NotYet,
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
    /// Killed, or not started, because everything is frozen; started when the freeze ends.
    Frozen,
    /// Kept dying, or said that it cannot run; will not be started again.
    Failed {
        /// How it ended, and what to do.
        last: String,
    },
}
