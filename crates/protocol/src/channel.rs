//! The link between a channel's program and the gateway. The terminal of `bulkhead ask`
//! and `chat` is a channel too.
//!
//! Phases: the gateway sends [`ChannelEvent::Challenge`]; the program answers with
//! [`ChannelRequest::Prove`]; the gateway sends [`ChannelEvent::Welcome`]. Before that
//! nothing else is allowed, after that `Prove` is not.

use serde::{Deserialize, Serialize};

use crate::event::Answer;
use crate::ids::{
    ApprovalId, CallId, ChannelId, ConversationId, Digest, MessageId, Nonce, SenderId, SessionId,
    Signature, TurnId,
};
use crate::passkey::{Enrolment, Proof};
use crate::time::Millis;

/// The longest message taken in, in bytes.
pub const MAX_TEXT: usize = 64 * 1024;

/// From a channel's program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ChannelRequest {
    /// The answer to the challenge.
    Prove {
        /// Which channel this is; has to be the one the link was made for.
        channel: ChannelId,
        /// See [`crate::identity`].
        signature: Signature,
    },
    /// Somebody wrote something. Answered by [`ChannelEvent::Accepted`] or [`ChannelEvent::NotAccepted`].
    Inbound {
        /// The platform's id; the same id again is dropped, and accepted again.
        message: MessageId,
        /// Who.
        sender: SenderId,
        /// The name they show, for the owner's eyes only.
        sender_name: String,
        /// Where.
        conversation: ConversationId,
        /// What; at most [`MAX_TEXT`] bytes.
        text: String,
    },
    /// Somebody answered an approval.
    Answer {
        /// Which.
        approval: ApprovalId,
        /// The digest that was shown; another one is refused.
        digest: Digest,
        /// The nonce that came with it.
        nonce: Nonce,
        /// Who.
        sender: SenderId,
        /// What.
        answer: ApprovalAnswer,
        /// Why not, for the model; at most [`crate::operator::MAX_REASON`] bytes. Empty if nothing
        /// was said; a yes has none.
        reason: String,
        /// What shows that a person gave it.
        proof: Proof,
    },
    /// Somebody wants the turn of this conversation stopped.
    Cancel {
        /// Who.
        sender: SenderId,
        /// Where.
        conversation: ConversationId,
    },
    /// This delivery has reached the platform and need not come again.
    Delivered {
        /// Which.
        delivery: u64,
    },
    /// A browser brings the token of a one-time link. Answered by `LoggedIn` or `LoginRefused`.
    Login {
        /// A number the channel chose; the answer carries it.
        id: u64,
        /// The token.
        token: String,
    },
    /// A browser brings a cookie that this program does not know (any more). Answered likewise.
    Resume {
        /// A number the channel chose; the answer carries it.
        id: u64,
        /// The cookie's value.
        cookie: String,
    },
    /// A browser logs out: its cookie is good no more.
    Logout {
        /// Which browser.
        sender: SenderId,
    },
    /// A browser made a passkey. Answered by `PasskeyEnrolled` or `PasskeyRefused`.
    EnrolPasskey {
        /// A number the channel chose; the answer carries it.
        id: u64,
        /// Which browser.
        sender: SenderId,
        /// The one-time code that the owner was given in a terminal.
        code: String,
        /// The passkey.
        enrolment: Enrolment,
    },
    /// What was said in this conversation, and what is pending. Answered by `Transcript`.
    History {
        /// A number the channel chose; the answer carries it.
        id: u64,
        /// Who asks.
        sender: SenderId,
        /// Which.
        conversation: ConversationId,
    },
    /// The grants of whoever is at this browser. Answered by `Grants`.
    Grants {
        /// A number the channel chose; the answer carries it.
        id: u64,
        /// Which browser.
        sender: SenderId,
    },
    /// Take back a grant of whoever is at this browser. Answered by `GrantRevoked` or
    /// `GrantNotRevoked`.
    RevokeGrant {
        /// A number the channel chose; the answer carries it.
        id: u64,
        /// Which browser.
        sender: SenderId,
        /// Its number in the list.
        grant: u64,
    },
    /// Whoever is at this browser wants everything frozen. Answered by `Panicked` or
    /// `PanicRefused`.
    Panic {
        /// A number the channel chose; the answer carries it.
        id: u64,
        /// Which browser.
        sender: SenderId,
    },
}

/// What a person can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalAnswer {
    /// Run it.
    Approve,
    /// Do not.
    Deny,
}

/// From the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ChannelEvent {
    /// Prove who you are.
    Challenge {
        /// To be signed.
        nonce: Nonce,
    },
    /// Proven; from now on all other events may come.
    Welcome,
    /// The message is in the record.
    Accepted {
        /// Which.
        message: MessageId,
        /// The session it went to.
        session: SessionId,
    },
    /// The message was not taken; it is not in the record.
    NotAccepted {
        /// Which.
        message: MessageId,
        /// Whether to try again.
        retry: Retry,
        /// For the person; holds no internals.
        text: String,
    },
    /// Work on an answer has begun.
    TurnStarted {
        /// Where.
        conversation: ConversationId,
        /// In which session.
        session: SessionId,
        /// Which turn.
        turn: TurnId,
    },
    /// A piece of the answer, as it comes; the whole follows as [`Self::Reply`].
    Token {
        /// Where.
        conversation: ConversationId,
        /// Which turn.
        turn: TurnId,
        /// The piece.
        text: String,
    },
    /// The state of a tool call.
    Call {
        /// Where.
        conversation: ConversationId,
        /// The call.
        card: CallCard,
    },
    /// A call needs an answer from a person. Comes again after a restart while it is pending.
    Approval {
        /// Where the call was asked for.
        conversation: ConversationId,
        /// What is asked.
        card: ApprovalCard,
    },
    /// An approval is answered, expired or no longer needed.
    ApprovalClosed {
        /// Where.
        conversation: ConversationId,
        /// Which.
        approval: ApprovalId,
        /// How.
        answer: Answer,
        /// Over which channel the answer came that counts; none if nobody's did.
        over: Option<ChannelId>,
    },
    /// Somebody's answer to an approval did not count.
    AnswerRefused {
        /// Which approval.
        approval: ApprovalId,
        /// Whose answer.
        sender: SenderId,
        /// For the person.
        text: String,
    },
    /// The turn is over with an answer. Comes again until it is [`ChannelRequest::Delivered`].
    Reply {
        /// To be confirmed.
        delivery: u64,
        /// Where.
        conversation: ConversationId,
        /// In which session.
        session: SessionId,
        /// Which turn.
        turn: TurnId,
        /// The whole answer, Markdown.
        text: String,
    },
    /// Something the gateway has to say: the turn failed, a pairing code, an answer to a
    /// command. Comes again until it is [`ChannelRequest::Delivered`].
    Notice {
        /// To be confirmed.
        delivery: u64,
        /// Where.
        conversation: ConversationId,
        /// The turn that is over with this, if one is.
        ends_turn: Option<TurnId>,
        /// Plain text.
        text: String,
    },
    /// The token or cookie is good.
    LoggedIn {
        /// Of this request.
        id: u64,
        /// What the browser brings from now on.
        cookie: String,
        /// Who this browser is.
        sender: SenderId,
        /// Its conversation.
        conversation: ConversationId,
    },
    /// The token or cookie is not good.
    LoginRefused {
        /// Of this request.
        id: u64,
    },
    /// The passkey counts from now on.
    PasskeyEnrolled {
        /// Of this request.
        id: u64,
    },
    /// The passkey was not taken.
    PasskeyRefused {
        /// Of this request.
        id: u64,
        /// For the person.
        text: String,
    },
    /// The owner revoked a browser: its pages are closed, and its cookie is good no more.
    LoggedOut {
        /// Which browser.
        sender: SenderId,
    },
    /// What was said, oldest first; cards of pending approvals follow as [`Self::Approval`].
    Transcript {
        /// Of this request.
        id: u64,
        /// The entries.
        entries: Vec<TranscriptEntry>,
        /// The turn that runs now, if one does.
        running: Option<TurnId>,
    },
    /// The grants in force.
    Grants {
        /// Of this request.
        id: u64,
        /// By number, the newest if there are too many for one frame.
        grants: Vec<GrantCard>,
        /// How many there are beside these.
        more: u64,
    },
    /// The grant is taken back: from the next call on it is asked again.
    GrantRevoked {
        /// Of this request.
        id: u64,
    },
    /// The grant is not taken back.
    GrantNotRevoked {
        /// Of this request.
        id: u64,
        /// For the person.
        text: String,
    },
    /// Everything is frozen.
    Panicked {
        /// Of this request.
        id: u64,
    },
    /// Nothing was frozen.
    PanicRefused {
        /// Of this request.
        id: u64,
        /// For the person.
        text: String,
    },
    /// There are other grants than before; whoever shows them asks again.
    GrantsChanged {
        /// Where they are shown.
        conversation: ConversationId,
    },
}

/// Whether a message that was not taken may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// Later: the record is not to be had, or too much came at once.
    Later,
    /// Never: too long, or from nobody.
    Never,
}

/// An entry of a transcript.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case", deny_unknown_fields)]
pub enum TranscriptEntry {
    /// What the person wrote.
    User {
        /// The text.
        text: String,
    },
    /// What the agent answered.
    Assistant {
        /// Markdown.
        text: String,
    },
    /// What the gateway said.
    Notice {
        /// Plain text.
        text: String,
    },
    /// A tool call.
    Call {
        /// Its last state.
        card: CallCard,
    },
}

/// What a person is shown of a tool call. Written by the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallCard {
    /// The turn.
    pub turn: TurnId,
    /// The call.
    pub call: CallId,
    /// What it is, in one line, with nothing invisible in it.
    pub title: String,
    /// Where it stands.
    pub state: CallState,
    /// The beginning of its output, or why it did not run; empty while it runs.
    pub detail: String,
}

/// Where a tool call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// A person is asked.
    Waiting,
    /// It runs.
    Running,
    /// It ran and succeeded.
    Done,
    /// It ran and failed.
    Failed,
    /// It did not run.
    Refused,
    /// Whether it ran is not known.
    Unknown,
}

/// What a person is asked. Written by the gateway from resolved facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalCard {
    /// The approval.
    pub approval: ApprovalId,
    /// Comes back with the answer.
    pub nonce: Nonce,
    /// Of the exact call; comes back with the answer.
    pub digest: Digest,
    /// In which session.
    pub session: SessionId,
    /// The turn.
    pub turn: TurnId,
    /// The call.
    pub call: CallId,
    /// What would run, whole, with nothing cut and nothing invisible in it.
    pub action: String,
    /// Why it is asked.
    pub reason: String,
    /// What a yes covers: this call, or calls like it for so many days.
    pub covers: String,
    /// What the model said with it; untrusted, to be shown as a quotation.
    pub said: String,
    /// After this it counts as no.
    pub expires: Millis,
    /// What a yes takes.
    pub needs: Needs,
}

/// What a yes to an approval takes. A no is taken from whoever may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Needs {
    /// An answer over a channel.
    Answer,
    /// A signature over the digest that no channel's program can make: tier 3.
    Signature,
}

/// What a person is shown of a grant. Written by the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantCard {
    /// Its number.
    pub grant: u64,
    /// What it is about, with nothing invisible in it: a command, a file.
    pub what: String,
    /// Which calls it covers, in words.
    pub covers: String,
    /// Until when.
    pub expires: Millis,
}
