//! The links to egress, the only door out: an agent's to the model, a channel's tunnels.

use serde::{Deserialize, Serialize};

use crate::ids::TurnId;

/// From an agent to egress. Which server and which path is egress' own knowledge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ModelRequest {
    /// Send this body to the model's chat endpoint. One at a time on a link.
    Chat {
        /// A number the agent chose; every reply carries it.
        id: u64,
        /// The turn it belongs to, for the record.
        turn: TurnId,
        /// The JSON body, exactly as it is sent.
        body: String,
    },
    /// Drop the connection of this request; nothing more comes for it.
    Cancel {
        /// Which.
        id: u64,
    },
}

/// From egress to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ModelReply {
    /// The server answered; [`Self::Chunk`]s and [`Self::End`] follow, also after an error status.
    Status {
        /// Of this request.
        id: u64,
        /// The HTTP status.
        status: u16,
        /// The `Retry-After` header in seconds, if there was one.
        retry_after: Option<u32>,
    },
    /// A piece of the body, cut between characters; bytes that are not UTF-8 read as U+FFFD.
    Chunk {
        /// Of this request.
        id: u64,
        /// The piece.
        text: String,
    },
    /// The body is complete.
    End {
        /// Of this request.
        id: u64,
    },
    /// There is no answer, or no more of it.
    Failed {
        /// Of this request.
        id: u64,
        /// Why.
        fault: EgressFault,
    },
}

/// From a channel's program to egress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TunnelRequest {
    /// Open a connection to this host of the channel's rule. The reply comes with a
    /// socket, which carries the raw bytes.
    Open {
        /// A number the channel chose; the reply carries it.
        id: u64,
        /// A name, or an address if the rule has that address.
        host: String,
        /// The port.
        port: u16,
    },
}

/// From egress to a channel's program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TunnelReply {
    /// Connected; the frame carries the socket (`SCM_RIGHTS`, unix(7)).
    Opened {
        /// Of this request.
        id: u64,
    },
    /// Not connected.
    Failed {
        /// Of this request.
        id: u64,
        /// Why.
        fault: EgressFault,
    },
}

/// Why something did not go out, or did not come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum EgressFault {
    /// No rule allows it.
    NotAllowed {
        /// What is missing.
        reason: String,
    },
    /// The name does not resolve, or nobody listens.
    Unreachable {
        /// The system's words.
        detail: String,
    },
    /// The connection broke before the body was complete.
    CutOff,
    /// No byte for longer than the limit.
    Slow {
        /// The limit.
        seconds: u32,
    },
    /// Over a size limit.
    TooLarge {
        /// The limit.
        bytes: u64,
    },
    /// The other side does not speak the protocol.
    Protocol {
        /// What was wrong, without the bytes themselves.
        detail: String,
    },
    /// The record did not take it, so it was not sent.
    NoRecord,
}
