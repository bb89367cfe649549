//! The link between the program that runs boxes and egress: for a box that may reach something.
//!
//! Such a box has a network namespace with nothing but its own loopback, like any other. On that loopback, at
//! [`PORT`], its builder listens and hands the listening socket out; egress takes the connections that come
//! to it, and speaks HTTP's proxy protocol on them (RFC 9110, 9.3.6; RFC 9112, 3.2.2). So what leads out is a
//! socket of egress, and the box holds no process and no descriptor that could be turned against it.

use serde::{Deserialize, Serialize};

use crate::ids::CallRef;
use crate::outbound::EgressRule;

/// The port of a box' loopback at which egress is reached. A box has its loopback for itself, so that the
/// number can be the same in all of them, and the usual one of HTTP proxies.
pub const PORT: u16 = 3128;

/// From the runner to egress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum BoxRequest {
    /// Take the connections of the box of this run. The frame carries the socket that listens for them. One
    /// reply comes.
    Open {
        /// The call that the box is for, for the record.
        run: CallRef,
        /// What it may reach; at least one.
        rules: Vec<EgressRule>,
    },
    /// The box is gone. No reply comes.
    Close {
        /// Whose.
        run: CallRef,
    },
}

/// From egress to the runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum BoxReply {
    /// Connections are taken.
    Opened {
        /// Of this run.
        run: CallRef,
        /// The certificate of who inspects some of them, PEM; empty if no rule demands that. Its key is known
        /// to egress alone, for this run alone.
        authority: String,
    },
    /// They are not.
    Refused {
        /// Of this run.
        run: CallRef,
        /// Why.
        reason: String,
        /// What to do about it.
        fix: String,
    },
}
