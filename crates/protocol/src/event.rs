//! What the record is made of: one variant for each kind of thing that can happen.

use serde::{Deserialize, Serialize};

use crate::agent::TurnFault;
use crate::call::{Action, Verdict};
use crate::egress::{FetchFault, FetchOutcome};
use crate::freeze::By;
use crate::ids::{
    ApprovalId, CallId, ChannelId, ConversationId, Digest, MessageId, PrincipalId, PublicKey,
    RowId, RuleName, SecretName, SenderId, TurnId,
};
use crate::rules::Label;
use crate::runner::{Changes, EntryId, RunOutcome};
use crate::time::Millis;
use crate::vault::{Subject, VaultChange};
use crate::workspace::{Origin, UndoTo};

/// An event. Its canonical form is the JSON that serde writes: fields in the order of declaration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A message was taken in; from here on it survives a crash.
    Inbound {
        /// Where it came in.
        channel: ChannelId,
        /// The platform's id of it.
        message: MessageId,
        /// The platform's id of who sent it.
        sender: SenderId,
        /// Whom the gateway knows them as.
        principal: PrincipalId,
        /// The platform's id of where.
        conversation: ConversationId,
        /// What they wrote.
        text: String,
    },
    /// An agent was given the message.
    TurnStarted {
        /// The turn.
        turn: TurnId,
        /// The message it answers.
        message: MessageId,
    },
    /// A request goes to the model.
    ModelRequest {
        /// The turn.
        turn: TurnId,
        /// The model asked for.
        model: String,
        /// Of exactly the bytes of the body.
        sha256: Digest,
        /// How many bytes.
        bytes: u64,
    },
    /// The model's answer is complete, or is not coming.
    ModelResponse {
        /// The turn.
        turn: TurnId,
        /// The HTTP status; 0 if there was none.
        status: u16,
        /// Of exactly the bytes of the body, as far as it came.
        sha256: Digest,
        /// How many bytes.
        bytes: u64,
        /// Until the last byte.
        duration_ms: u64,
        /// Tokens read and written, if the server counted them.
        tokens: Option<Tokens>,
        /// Why it is not complete, if so.
        fault: Option<String>,
    },
    /// Old entries were left out so that the rest fits the model's window.
    ContextTrimmed {
        /// The turn.
        turn: TurnId,
        /// Tool results that were shortened to a note.
        results: u32,
        /// Entries that were left out whole.
        items: u32,
    },
    /// The model asked for a tool.
    ToolIntent {
        /// The turn.
        turn: TurnId,
        /// The call.
        call: CallId,
        /// The tool's name as the model wrote it.
        name: String,
        /// The arguments as the model wrote them.
        args: String,
        /// What the model said with it.
        said: String,
    },
    /// What was decided about a call.
    Decision {
        /// The turn.
        turn: TurnId,
        /// The call.
        call: CallId,
        /// What the rules say.
        verdict: Verdict,
        /// The rule.
        rule: String,
        /// Why, in words.
        reason: String,
        /// The key under which an approval of it is remembered.
        key: String,
    },
    /// A person is asked about a call.
    ApprovalAsked {
        /// The turn.
        turn: TurnId,
        /// The call.
        call: CallId,
        /// The approval.
        approval: ApprovalId,
        /// Of the exact call with its nonce.
        digest: Digest,
        /// After this it counts as no.
        expires: Millis,
    },
    /// The one answer that counted.
    ApprovalAnswered {
        /// The turn.
        turn: TurnId,
        /// The call.
        call: CallId,
        /// The approval.
        approval: ApprovalId,
        /// What was answered.
        answer: Answer,
        /// Who; nobody if it expired.
        by: Option<PrincipalId>,
        /// Over which channel; none if it expired.
        channel: Option<ChannelId>,
        /// How long it took, in milliseconds.
        after_ms: u64,
        /// What signed it; absent if nothing did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signed: Option<Signer>,
    },
    /// This call may run, exactly so. Written before it runs.
    Permit {
        /// The turn.
        turn: TurnId,
        /// The call.
        call: CallId,
        /// On what ground.
        ground: Ground,
        /// Of the exact call.
        digest: Digest,
        /// What runs.
        action: Action,
    },
    /// A call is over. Every intent has exactly one, or is shown as "outcome unknown".
    Outcome {
        /// The turn.
        turn: TurnId,
        /// The call.
        call: CallId,
        /// What came of it.
        outcome: CallOutcome,
    },
    /// The turn is over with an answer.
    Reply {
        /// The turn.
        turn: TurnId,
        /// The answer.
        text: String,
    },
    /// The turn is over without one.
    TurnFailed {
        /// The turn.
        turn: TurnId,
        /// Why.
        fault: TurnEnd,
    },
    /// The session touched something for the first time.
    Labelled {
        /// What it carries from now on.
        label: Label,
        /// What it touched.
        why: String,
    },
    /// From here on calls are decided by these rules.
    RulesInForce {
        /// Of everything that a decision depends on beside its request.
        sha256: Digest,
    },
    /// A message from somebody nobody knows; they got a pairing code and nothing else.
    StrangerSeen {
        /// Where.
        channel: ChannelId,
        /// Who, in the platform's numbering.
        sender: SenderId,
    },
    /// A sender became a principal.
    Paired {
        /// Where.
        channel: ChannelId,
        /// Who, in the platform's numbering.
        sender: SenderId,
        /// Whom the gateway knows them as from now on.
        principal: PrincipalId,
    },
    /// A sender is nobody again.
    Unpaired {
        /// Where.
        channel: ChannelId,
        /// Who, in the platform's numbering.
        sender: SenderId,
    },
    /// A grant was made by answering an approval of tier 2.
    GrantMade {
        /// To whom.
        principal: PrincipalId,
        /// For which calls.
        key: String,
        /// Until when.
        expires: Millis,
    },
    /// A grant was taken back.
    GrantRevoked {
        /// From whom.
        principal: PrincipalId,
        /// For which calls.
        key: String,
    },
    /// A browser was let in by a one-time link.
    LoggedIn {
        /// Where.
        channel: ChannelId,
        /// Who.
        principal: PrincipalId,
    },
    /// A passkey was enrolled: what it signs is this person's yes.
    PasskeyEnrolled {
        /// Whose it is.
        principal: PrincipalId,
        /// SHA-256 of its id.
        credential: Digest,
        /// SHA-256 of its public key, as SEC 1 writes points uncompressed.
        key: Digest,
    },
    /// A passkey was removed: what it signs counts for nothing.
    PasskeyRemoved {
        /// Whose it was.
        principal: PrincipalId,
        /// SHA-256 of its id.
        credential: Digest,
    },
    /// A channel's program proved who it is.
    ChannelUp {
        /// Which.
        channel: ChannelId,
    },
    /// A channel's program is gone.
    ChannelDown {
        /// Which.
        channel: ChannelId,
    },
    /// Egress opened a tunnel.
    TunnelOpened {
        /// For whom.
        channel: ChannelId,
        /// Where to.
        host: String,
        /// Which port.
        port: u16,
    },
    /// A tool's request goes out. Written before anything is sent; one for each redirect too.
    EgressRequest {
        /// The turn.
        turn: TurnId,
        /// The call.
        call: CallId,
        /// Who asks, as rules name it.
        subject: String,
        /// The method.
        method: String,
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The path, without query and without what a credential puts into it.
        path: String,
        /// Of the body, before a credential is put into it.
        sha256: Digest,
        /// How many bytes that is.
        bytes: u64,
        /// The rule that it goes by; none if a person allowed it where there is no rule.
        rule: Option<String>,
        /// The secret that is attached; its name only.
        secret: Option<SecretName>,
    },
    /// What came of a tool's request. Written after it; one for each of the rows before.
    EgressResponse {
        /// The turn.
        turn: TurnId,
        /// The call.
        call: CallId,
        /// The HTTP status; 0 if there was none.
        status: u16,
        /// Bytes of the request: its first line, its headers and its body; 0 if none was made.
        bytes_up: u64,
        /// Bytes of the answer's body, as far as it was read.
        bytes_down: u64,
        /// From the row before it to the last byte.
        duration_ms: u64,
        /// Why there is no whole answer, if so.
        fault: Option<String>,
    },
    /// A secret was about to go where it must not, and did not.
    LeakStopped {
        /// Where it was found.
        place: String,
        /// What it is, in the scanner's words.
        what: String,
        /// Which of the vault's, if it is one.
        name: Option<SecretName>,
    },
    /// A decoy turned up in this session, which has no turns any more.
    SessionHalted {
        /// Which decoy.
        decoy: SecretName,
    },
    /// Egress is about to connect a box. Written before it does; one end follows for each.
    BoxTunnelOpened {
        /// The turn.
        turn: TurnId,
        /// The call that the box is for.
        call: CallId,
        /// Counted within the box.
        tunnel: u64,
        /// Where to.
        host: String,
        /// Which port.
        port: u16,
        /// The rule that it goes by.
        rule: RuleName,
        /// Whether egress looks into it; then a row for each request follows.
        inspected: bool,
    },
    /// A connection of a box is over.
    BoxTunnelClosed {
        /// The turn.
        turn: TurnId,
        /// The call that the box is for.
        call: CallId,
        /// Which, counted within the box.
        tunnel: u64,
        /// Bytes from the box.
        bytes_up: u64,
        /// Bytes to the box.
        bytes_down: u64,
        /// How it ended.
        end: String,
    },
    /// A box' request that egress looked into goes out. Written before it does.
    BoxRequest {
        /// The turn.
        turn: TurnId,
        /// The call that the box is for.
        call: CallId,
        /// The connection that it came over.
        tunnel: u64,
        /// Counted on that connection.
        request: u64,
        /// The method.
        method: String,
        /// Scheme, host, port and path; without the query.
        url: String,
        /// The rule that it goes by.
        rule: RuleName,
    },
    /// What came of a box' request.
    BoxResponse {
        /// The turn.
        turn: TurnId,
        /// The call that the box is for.
        call: CallId,
        /// The connection that it came over.
        tunnel: u64,
        /// Counted on that connection.
        request: u64,
        /// The HTTP status; 0 if there was none.
        status: u16,
        /// Bytes of its body.
        bytes_up: u64,
        /// Bytes of the answer's body, as far as it was passed on.
        bytes_down: u64,
        /// Why it is not whole, if so.
        fault: Option<String>,
    },
    /// Egress did not let something out.
    EgressRefused {
        /// Who asked.
        subject: String,
        /// Where to; without path, query and credentials.
        target: String,
        /// Why.
        reason: String,
    },
    /// A secret was opened; its name only.
    SecretUsed {
        /// Which.
        name: SecretName,
        /// By whom.
        subject: Subject,
    },
    /// The vault changed; in the chain of [`crate::record::vault_session`]. An older copy of the vault that is
    /// put back is known by the last of these rows.
    VaultChanged {
        /// How many changes it had by then.
        generation: u64,
        /// Of everything that was sealed in it then.
        state: Digest,
        /// What was done.
        change: VaultChange,
        /// With which secret; none where it was the whole.
        name: Option<SecretName>,
    },
    /// Somebody asked for a decoy, which nobody has a reason to.
    HoneytokenTouched {
        /// Which.
        name: SecretName,
        /// Over whose link.
        subject: Subject,
    },
    /// Something is undone, exactly so. Written before it is.
    UndoAsked {
        /// Who wants it.
        by: PrincipalId,
        /// Over which channel.
        channel: ChannelId,
        /// What they asked for.
        to: UndoTo,
        /// Of the preview that they were shown.
        digest: Digest,
        /// The oldest entry that is undone.
        oldest: EntryId,
        /// What made that entry.
        origin: Origin,
        /// The newest entry that is undone.
        newest: EntryId,
        /// How many files, links and folders change.
        changes: u64,
    },
    /// What came of an undo. Each has exactly one, or it is not over.
    UndoEnded {
        /// The row that asked for it.
        asked: RowId,
        /// What came of it.
        outcome: UndoOutcome,
    },
    /// Everything was frozen: agents, boxes, egress and the vault were killed. The row may come
    /// later than the freeze, which waits for no record.
    Panicked {
        /// When it was.
        since: Millis,
        /// Who wanted it.
        by: By,
        /// Why, in their words.
        reason: String,
    },
    /// The freeze was ended. Written before it is.
    Resumed {
        /// Which freeze.
        since: Millis,
        /// The operator key that signed it.
        key: PublicKey,
    },
}

/// What came of an undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case", deny_unknown_fields)]
pub enum UndoOutcome {
    /// It is undone, which is itself an entry that can be undone.
    Done {
        /// That entry.
        entry: EntryId,
        /// What changed; as many as a row holds.
        changes: Changes,
    },
    /// The workspace is as it was.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// A program died in between; the history tells whether it was undone.
    Unknown,
}

/// Token counts as the model server gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Read.
    pub prompt: u64,
    /// Written.
    pub answer: u64,
}

/// What can be answered to an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Run it.
    Approve,
    /// Do not.
    Deny,
    /// Nobody answered in time.
    Expired,
    /// The turn was stopped while it was asked.
    Cancelled,
}

/// What signed a yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Signer {
    /// The operator key.
    Operator,
    /// A passkey.
    Passkey {
        /// SHA-256 of its id.
        credential: Digest,
    },
}

/// Why a call may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ground", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ground {
    /// Tier 1.
    Policy,
    /// Tier 2, approved before and remembered.
    Grant,
    /// Approved just now.
    Approval {
        /// Which approval.
        approval: ApprovalId,
    },
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case", deny_unknown_fields)]
pub enum CallOutcome {
    /// It ran.
    Ran {
        /// What came of it, with its receipt.
        run: RunOutcome,
    },
    /// A host answered.
    Fetched {
        /// With this.
        answer: FetchOutcome,
    },
    /// No host answered, or what it answered is not passed on. Whether a request reached it the
    /// rows of egress say.
    NotFetched {
        /// Why.
        fault: FetchFault,
    },
    /// It did not run: malformed, refused by the rules, denied by a person, no box.
    NotRun {
        /// Why, as the model was told.
        reason: String,
    },
    /// A program died in between; whether it ran is not known, and it is not run again.
    Unknown,
}

/// Why a turn ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case", deny_unknown_fields)]
pub enum TurnEnd {
    /// The agent said why.
    Fault {
        /// Its words.
        fault: TurnFault,
    },
    /// A decoy turned up in its session.
    Halted,
    /// The agent's program died, or could not be started.
    AgentDied,
    /// Bulkhead stopped, or lost the record, in the middle of it.
    Interrupted,
    /// Everything was frozen; its message is not taken up again.
    Frozen,
    /// The agent broke the protocol and was killed.
    AgentMisbehaved {
        /// How.
        detail: String,
    },
}
