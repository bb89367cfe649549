//! The exact call: everything that a yes is said to, as bytes.

use protocol::call::{Action, ToolCall, WORKSPACE};
use protocol::ids::{AgentId, ApprovalId, CallRef, ChannelId, Digest, Nonce, PrincipalId};
use protocol::outbound::EgressRule;
use protocol::rules::Label;
use protocol::runner::{Leaves, Limits};
use protocol::time::Millis;
use serde::{Deserialize, Serialize};

use crate::decision::{Question, Request};
use crate::judge::Judgement;
use crate::rules::Session;

/// Keeps digests of this form apart from all others.
const DOMAIN: &str = "bulkhead exact call 2";

/// The box that a call runs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name of the sandbox profile.
    pub sandbox: String,
    /// The name of the environment that programs get.
    pub environment: String,
    /// The bounds of a run.
    pub limits: Limits,
}

impl Default for Profile {
    /// The native box with its own clean environment and the usual limits.
    fn default() -> Self {
        Self {
            sandbox: "native".into(),
            environment: "box".into(),
            limits: Limits::default(),
        }
    }
}

/// The facts of a call that are the same whether or not it is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exact {
    pub(crate) call: ToolCall,
    pub(crate) reference: CallRef,
    pub(crate) principal: PrincipalId,
    pub(crate) channel: ChannelId,
    pub(crate) agent: AgentId,
    pub(crate) workspace: String,
    pub(crate) labels: Vec<Label>,
    pub(crate) profile: Profile,
    /// The version of the rules.
    pub(crate) policy: String,
}

impl Exact {
    pub(crate) fn of(request: &Request<'_>) -> Self {
        Self {
            call: request.call.clone(),
            reference: request.reference.clone(),
            principal: request.session.principal.clone(),
            channel: request.session.channel.clone(),
            agent: request.session.agent.clone(),
            workspace: request.workspace.to_owned(),
            labels: request.session.labels.to_vec(),
            profile: request.profile.clone(),
            policy: request.rules.version().to_owned(),
        }
    }

    /// Who asks, where, and what the session has touched.
    pub(crate) fn session(&self) -> Session<'_> {
        Session {
            principal: &self.principal,
            channel: &self.channel,
            agent: &self.agent,
            labels: &self.labels,
        }
    }

    /// SHA-256 of the canonical form: JSON, fields in this order.
    pub(crate) fn digest(&self, judgement: &Judgement, question: Option<Question>) -> Digest {
        #[derive(Serialize)]
        struct Canonical<'a> {
            domain: &'a str,
            exact: &'a Exact,
            action: &'a Action,
            leaves: Leaves,
            #[serde(skip_serializing_if = "<[EgressRule]>::is_empty")]
            network: &'a [EgressRule],
            cwd: &'a str,
            approval: Option<ApprovalId>,
            nonce: Option<Nonce>,
            expires: Option<Millis>,
        }
        let canonical = Canonical {
            domain: DOMAIN,
            exact: self,
            action: &judgement.action,
            leaves: judgement.leaves(),
            network: &judgement.network,
            cwd: WORKSPACE,
            approval: question.map(|question| question.approval),
            nonce: question.map(|question| question.nonce),
            expires: question.map(|question| question.expires),
        };
        // Texts, numbers and lists of them always have a JSON form, and memory takes it.
        Digest::of(serde_json::to_vec(&canonical).expect("an exact call has a JSON form"))
    }
}
