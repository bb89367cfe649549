//! The link between `bulkhead` and the gateway, for whoever holds the operator key.
//!
//! Phases as on a channel's link; the challenge is answered as channel `operator`. The
//! same socket takes the terminal, which answers as channel `terminal` and then speaks
//! [`crate::channel`].

use serde::{Deserialize, Serialize};

use crate::channel::ApprovalCard;
use crate::event::UndoOutcome;
use crate::ids::{
    AgentId, ApprovalId, ChannelId, Digest, Nonce, PrincipalId, RowId, RuleName, SenderId,
    SessionId, Signature, TurnId,
};
use crate::passkey::Enrolled;
use crate::rules::Label;
use crate::time::Millis;
use crate::workspace::{Diff, Entry, Preview, UndoTo};

/// The longest reason for a no, in bytes.
pub const MAX_REASON: usize = 1000;

/// The longest name of a passkey, in bytes.
pub const MAX_NAME: usize = 64;

/// From `bulkhead`, after the proof. Each gets one reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum OperatorRequest {
    /// What is going on.
    Status,
    /// What waits for an answer.
    Approvals,
    /// Let a call run.
    Approve {
        /// Which approval.
        approval: ApprovalId,
        /// The digest that was shown.
        digest: Digest,
        /// The nonce that came with it.
        nonce: Nonce,
        /// The operator key's, over the digest; see [`crate::identity`].
        signature: Signature,
    },
    /// Do not let a call run.
    Deny {
        /// Which approval.
        approval: ApprovalId,
        /// The digest that was shown.
        digest: Digest,
        /// The nonce that came with it.
        nonce: Nonce,
        /// Why, for the model; at most [`MAX_REASON`] bytes. Empty if nothing was said.
        reason: String,
    },
    /// Who is known, and who asked to be.
    Pairs,
    /// Make a sender with a pairing code known as this principal.
    PairApprove {
        /// The code that they were shown.
        code: String,
        /// Who they are.
        principal: PrincipalId,
    },
    /// Make a sender unknown again.
    PairRevoke {
        /// Where.
        channel: ChannelId,
        /// Who.
        sender: SenderId,
    },
    /// The grants in force.
    Grants,
    /// Take a grant back.
    GrantRevoke {
        /// Its number in the list.
        grant: u64,
    },
    /// A new one-time link to the web page.
    LoginLink,
    /// A new one-time link with which the page enrols a passkey.
    PasskeyLink {
        /// What it is to be called; at most [`MAX_NAME`] bytes.
        name: String,
    },
    /// The passkeys.
    Passkeys,
    /// Forget a passkey.
    PasskeyRemove {
        /// Its number in the list.
        passkey: u64,
    },
    /// What can be undone.
    History {
        /// At most so many entries, newest first.
        most: u32,
    },
    /// What undoing would change. Nothing is changed.
    UndoPreview {
        /// How far back.
        to: UndoTo,
        /// Whether texts are compared line by line.
        diff: Diff,
    },
    /// Undo exactly what a preview showed.
    Undo {
        /// How far back.
        to: UndoTo,
        /// Of that preview.
        digest: Digest,
    },
}

/// From the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum OperatorReply {
    /// What is going on.
    Status {
        /// The channels and whether their programs are there.
        channels: Vec<ChannelStatus>,
        /// The sessions with a living agent.
        sessions: Vec<SessionStatus>,
        /// How many approvals wait.
        approvals: u32,
        /// Whether the record can be written.
        record: RecordStatus,
        /// By what is decided.
        rules: RulesStatus,
    },
    /// What waits.
    Approvals {
        /// Oldest first.
        cards: Vec<ApprovalCard>,
    },
    /// Who is known, and who asked to be.
    Pairs {
        /// Both.
        pairs: Vec<Pair>,
    },
    /// The grants.
    Grants {
        /// By number.
        grants: Vec<Grant>,
    },
    /// The link.
    LoginLink {
        /// With its token; good once, for ten minutes.
        url: String,
    },
    /// The link.
    PasskeyLink {
        /// With its code; good once, for ten minutes.
        url: String,
    },
    /// The passkeys.
    Passkeys {
        /// By number.
        passkeys: Vec<Enrolled>,
    },
    /// What can be undone.
    History {
        /// Newest first.
        entries: Vec<Entry>,
    },
    /// What undoing would change.
    UndoPreview {
        /// All of it.
        preview: Preview,
        /// How many calls run in boxes meanwhile. What one of them changes in the same files
        /// is not kept.
        running: u32,
    },
    /// An undo is over, and its outcome recorded.
    Undone {
        /// The row that asked for it.
        asked: RowId,
        /// What came of it.
        outcome: UndoOutcome,
    },
    /// An undo goes on, and takes longer than an answer may; the record will tell its end.
    UndoUnderWay {
        /// The row that asked for it.
        asked: RowId,
    },
    /// Done and recorded.
    Done,
    /// Not done.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// Whether the record can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordStatus {
    /// The last row was written.
    Ok,
    /// The last row was not; nothing runs until one is.
    Unavailable,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelStatus {
    /// Which.
    pub channel: ChannelId,
    /// Whether its program is there and proved who it is.
    pub connected: bool,
}

/// A session with a living agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionStatus {
    /// Which.
    pub session: SessionId,
    /// Whose.
    pub principal: PrincipalId,
    /// Where it began.
    pub channel: ChannelId,
    /// The turn that runs, if one does.
    pub running: Option<TurnId>,
    /// What it has touched.
    pub labels: Vec<SessionLabel>,
}

/// Something that a session carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionLabel {
    /// What.
    pub label: Label,
    /// What it touched.
    pub why: String,
    /// Since when.
    pub since: Millis,
}

/// The rules in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesStatus {
    /// Of everything that a decision depends on beside its request.
    pub sha256: Digest,
    /// Why what stands in the configuration now is not in force; empty if it is.
    pub problem: String,
    /// The egress rules that count no more.
    pub expired: Vec<RuleName>,
}

/// A sender that is known or asked to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Where.
    pub channel: ChannelId,
    /// Who, in the platform's numbering.
    pub sender: SenderId,
    /// The name they show; chosen by them.
    pub sender_name: String,
    /// Known as this, or waiting with a code.
    pub state: PairState,
    /// Since when.
    pub since: Millis,
}

/// Whether a sender is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum PairState {
    /// Known.
    Paired {
        /// As whom.
        principal: PrincipalId,
    },
    /// Has a code that the owner can approve.
    Waiting {
        /// The code.
        code: String,
        /// Until when it is good.
        expires: Millis,
    },
}

/// A remembered approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Its number.
    pub grant: u64,
    /// To whom.
    pub principal: PrincipalId,
    /// For calls that came in over this channel.
    pub channel: ChannelId,
    /// For calls of this agent.
    pub agent: AgentId,
    /// For which calls.
    pub key: String,
    /// Until when.
    pub expires: Millis,
}
