//! The links to egress, the only door out: an agent's to the model, a channel's tunnels, the
//! gateway's for tools.

use serde::{Deserialize, Serialize};

use crate::ids::{CallRef, SecretName, SessionId, ToolName, TurnId};

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum EgressFault {
    /// No rule allows it.
    #[error("{reason}")]
    NotAllowed {
        /// What is missing.
        reason: String,
    },
    /// The name does not resolve, or nobody listens.
    #[error("it cannot be reached: {detail}")]
    Unreachable {
        /// The system's words.
        detail: String,
    },
    /// The connection broke before the body was complete.
    #[error("the connection broke before the answer was complete")]
    CutOff,
    /// No byte for longer than the limit.
    #[error("nothing came for {seconds} s")]
    Slow {
        /// The limit.
        seconds: u32,
    },
    /// Over a size limit.
    #[error("it is over the limit of {bytes} bytes")]
    TooLarge {
        /// The limit.
        bytes: u64,
    },
    /// The other side does not speak the protocol.
    #[error("the server does not keep to the protocol: {detail}")]
    Protocol {
        /// What was wrong, without the bytes themselves.
        detail: String,
    },
    /// The record did not take it, so it was not sent.
    #[error("the record did not take it, so it was not sent")]
    NoRecord,
}

/// From the gateway to egress: what tools ask for, after it was judged and is in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FetchRequest {
    /// Make this request. Several may be on their way; each has one reply.
    Fetch {
        /// For which call; there is one request for a call.
        call: CallRef,
        /// What is asked for.
        order: HttpOrder,
    },
    /// Drop the connection of this request. Its reply is [`FetchFault::Cancelled`], unless the
    /// answer was on its way already.
    Cancel {
        /// Of which call.
        call: CallRef,
    },
}

/// One request of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpOrder {
    /// Which tool asks; rules name it `tool:NAME`.
    pub tool: ToolName,
    /// The method, in capitals.
    pub method: String,
    /// Where to. Egress reads it again, as strictly as whoever judged it.
    pub url: String,
    /// Headers as the model wrote them. Those that are egress' own are refused.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Option<String>,
    /// The secret that is to be attached; the rule has to name it.
    pub credential: Option<SecretName>,
    /// Why it may go out.
    pub approved: Approved,
}

/// Why a tool's request may go out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Approved {
    /// A rule that asks nobody. Egress judges the request by its rules again, and each redirect.
    Rule,
    /// A person, for exactly this URL: no redirect to another one is followed.
    Person,
}

/// From egress to the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FetchReply {
    /// There is an answer, whatever its status.
    Fetched {
        /// Of which call.
        call: CallRef,
        /// The answer.
        outcome: FetchOutcome,
    },
    /// There is none.
    Refused {
        /// Of which call.
        call: CallRef,
        /// Why.
        fault: FetchFault,
    },
    /// Decoys turned up in what a session sends, also to the model. Comes without having been
    /// asked for.
    Touched {
        /// Which session.
        session: SessionId,
        /// Which decoys.
        honeytokens: Vec<SecretName>,
    },
}

/// The answer to a tool's request. All of it is what strangers wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchOutcome {
    /// The HTTP status.
    pub status: u16,
    /// Where the answer came from, after redirects.
    pub final_url: String,
    /// The few headers that are passed on, by lower-case name, in the order of the answer.
    pub headers: Vec<(String, String)>,
    /// The body as far as it is passed on.
    pub body: FetchBody,
    /// Whether that is all of it.
    pub extent: Extent,
    /// Where redirects led, in order; the last is `final_url`.
    pub redirects: Vec<String>,
    /// Bytes that were sent: first lines, headers and bodies.
    pub bytes_up: u64,
    /// Bytes of bodies that were received.
    pub bytes_down: u64,
    /// From the first row to the last byte, in milliseconds.
    pub ms: u64,
}

/// A body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case", deny_unknown_fields)]
pub enum FetchBody {
    /// UTF-8 without control characters other than tab and the ends of lines.
    Text {
        /// The text.
        text: String,
    },
    /// Anything else, in base64 (RFC 4648, padded).
    Base64 {
        /// The bytes.
        base64: String,
    },
}

/// How much of a body there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// All of it.
    Whole,
    /// Its beginning; the rest was not read.
    Truncated,
}

/// Why there is no answer to a tool's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum FetchFault {
    /// The request is not one that egress makes, or nothing allows it.
    #[error("{reason}")]
    NotAllowed {
        /// What is wrong with it.
        reason: String,
    },
    /// The answer leads elsewhere, and what was allowed does not go that far.
    #[error("it answered with status {status} and leads to {target}: {reason}")]
    Redirected {
        /// The status.
        status: u16,
        /// Where to, as far as it is a URL.
        target: String,
        /// Why it was not followed.
        reason: String,
    },
    /// It would have carried a secret out, or the answer brought one back that cannot be cut out.
    #[error("it was stopped, since it holds {}", .kinds.join(", "))]
    Leak {
        /// What was found, in the scanner's words; never the thing itself.
        kinds: Vec<String>,
        /// The decoys among it. Whoever uses one found it where nobody should look.
        honeytokens: Vec<SecretName>,
    },
    /// The rule's budget is used up.
    #[error("the rule `{rule}` allows no more now: {limit}")]
    OverBudget {
        /// Which rule.
        rule: String,
        /// Which limit, and until when.
        limit: String,
    },
    /// The credential could not be attached.
    #[error("the secret was not attached: {reason}")]
    Credential {
        /// Why, without the secret.
        reason: String,
    },
    /// More requests are on their way than are made at once.
    #[error("too many requests are on their way; try again when some of them are over")]
    Busy,
    /// It was cancelled.
    #[error("it was cancelled")]
    Cancelled,
    /// It did not go out whole, or the answer did not come back whole.
    #[error("{cause}")]
    Failed {
        /// How.
        cause: EgressFault,
    },
}

impl From<EgressFault> for FetchFault {
    fn from(fault: EgressFault) -> Self {
        match fault {
            EgressFault::NotAllowed { reason } => Self::NotAllowed { reason },
            other => Self::Failed { cause: other },
        }
    }
}
