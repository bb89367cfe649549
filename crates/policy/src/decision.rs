//! From a call and its facts to a decision.

use protocol::call::{ToolCall, Verdict};
use protocol::event::Ground;
use protocol::ids::{ApprovalId, CallRef, Nonce};
use protocol::operator::Grant;
use protocol::time::Millis;

use crate::approval::ApprovalRequest;
use crate::exact::{Exact, Profile};
use crate::judge::{Judgement, Reason};
use crate::permit::Permit;
use crate::rules::{Rules, Session};

/// What is decided about, and all that the decision may depend on.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The call, as it was read.
    pub call: &'a ToolCall,
    /// Which call it is.
    pub reference: &'a CallRef,
    /// By what is decided.
    pub rules: &'a Rules,
    /// Who asks, where, and what the session has touched.
    pub session: Session<'a>,
    /// Where the workspace is on the host; a path below it is a path in the workspace.
    pub workspace: &'a str,
    /// The box that it would run in.
    pub profile: &'a Profile,
    /// The grants in force; those of others, for other calls or out of date count for nothing.
    pub grants: &'a [Grant],
    /// The time.
    pub now: Millis,
    /// Under which numbers a person would be asked.
    pub question: Question,
}

/// The numbers of a question to a person. They have to be new and, the nonce, unguessable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// What the approval is called by.
    pub approval: ApprovalId,
    /// Good for one answer.
    pub nonce: Nonce,
    /// From then on it is a no.
    pub expires: Millis,
}

/// What is to happen with a call.
#[must_use]
#[derive(Debug)]
pub enum Decision {
    /// It may run, exactly so.
    Allow(Permit),
    /// A person has to be asked.
    Ask(ApprovalRequest),
    /// It must not run.
    Deny(Reason),
}

impl Decision {
    /// What the rules say of the call, for the record.
    pub fn judgement(&self) -> &Judgement {
        match self {
            Self::Allow(permit) => permit.judgement(),
            Self::Ask(request) => request.judgement(),
            Self::Deny(reason) => reason.judgement(),
        }
    }
}

/// Decides.
pub fn decide(request: &Request<'_>) -> Decision {
    let judgement = request.rules.judge(
        request.call,
        request.workspace,
        &request.session,
        request.now,
    );
    let exact = Exact::of(request);
    match judgement.verdict {
        Verdict::Allow => Decision::Allow(Permit::new(exact, judgement, Ground::Policy)),
        Verdict::AskOnce if granted(request, &judgement.key) => {
            Decision::Allow(Permit::new(exact, judgement, Ground::Grant))
        }
        Verdict::AskOnce | Verdict::AskAlways => {
            Decision::Ask(ApprovalRequest::new(exact, judgement, request.question))
        }
        Verdict::Deny => Decision::Deny(Reason::from(judgement)),
    }
}

/// Whether this principal was allowed calls of this agent with this key on this channel, and
/// still is.
fn granted(request: &Request<'_>, key: &str) -> bool {
    let session = &request.session;
    request.grants.iter().any(|grant| {
        grant.key == key
            && grant.principal == *session.principal
            && grant.channel == *session.channel
            && grant.agent == *session.agent
            && request.now < grant.expires
    })
}
