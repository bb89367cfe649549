//! The link to the ledger, the only writer of the record.

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::ids::{Digest, RowId, SessionId};
use crate::time::Millis;

/// A row to be written: the session's chain it belongs to, and the event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRow {
    /// Whose chain; [`system_session`], [`undo_session`] and [`freeze_session`] for events of no session.
    pub session: SessionId,
    /// What happened.
    pub event: Event,
}

/// The chain of events that belong to no session.
pub fn system_session() -> SessionId {
    SessionId::parse("system").expect("`system` has only letters")
}

/// The chain of what was undone: the workspace is one, whatever the session.
pub fn undo_session() -> SessionId {
    SessionId::parse("undo").expect("`undo` has only letters")
}

/// The chain of freezes and their ends.
pub fn freeze_session() -> SessionId {
    SessionId::parse("freeze").expect("`freeze` has only letters")
}

/// The chain of the vault's changes, whose last row the vault is held to.
pub fn vault_session() -> SessionId {
    SessionId::parse("vault").expect("`vault` has only letters")
}

/// A row as it was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its number.
    pub row: RowId,
    /// When it was written.
    pub time: Millis,
    /// Its chain.
    pub session: SessionId,
    /// What happened.
    pub event: Event,
    /// Its hash in the chain.
    pub hash: Digest,
}

/// Something that becomes a row; what is recorded comes back as proof that it was.
pub trait Recordable {
    /// The row.
    fn row(&self) -> NewRow;
}

/// From the gateway or egress to the ledger. Each gets one reply, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LedgerRequest {
    /// Write these rows, all or none, durable before the reply.
    Append {
        /// In this order; at least one.
        rows: Vec<NewRow>,
    },
    /// Write these rows likewise, then sign the head of this session's chain.
    AppendAndSign {
        /// In this order; at least one.
        rows: Vec<NewRow>,
        /// Whose head.
        session: SessionId,
    },
    /// The rows of a session, oldest first. Only for the gateway.
    Read {
        /// Which chain.
        session: SessionId,
        /// Only rows after this one.
        after: RowId,
        /// At most so many.
        limit: u32,
    },
    /// The sessions with a turn that started and did not end. Only for the gateway.
    Unfinished,
    /// The last row of [`vault_session`], answered by one row or none. Only for the vault.
    LastVaultChange,
}

/// From the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LedgerReply {
    /// Written and synced.
    Appended {
        /// The first row's number; the others follow it without gaps.
        first: RowId,
    },
    /// What was asked for, as many as fit a frame; none means that there are no more.
    Rows {
        /// Oldest first.
        rows: Vec<Row>,
    },
    /// The sessions.
    Sessions {
        /// In the order of their oldest open turn.
        sessions: Vec<SessionId>,
    },
    /// Nothing was written.
    Failed {
        /// Why, for the log and the operator; holds nothing of the rows.
        reason: String,
    },
}
