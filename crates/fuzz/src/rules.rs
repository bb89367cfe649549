//! The rules under which everything here is judged: those that come with Bulkhead.

use policy::{ApprovalRequest, BadStored, Judgement, Label, Rules, Session, StoredApproval};
use protocol::call::ToolCall;
use protocol::ids::{AgentId, ChannelId, PrincipalId};

pub(crate) fn judged(call: &ToolCall, workspace: &str, labels: &[Label]) -> Judgement {
    let principal = PrincipalId::parse("owner").expect("it is a name");
    let channel = ChannelId::parse("web").expect("it is a name");
    let session = Session {
        principal: &principal,
        channel: &channel,
        agent: &AgentId::main(),
        labels,
    };
    Rules::shipped().judge(call, workspace, &session)
}

pub(crate) fn loaded(stored: &str) -> Result<ApprovalRequest, BadStored> {
    StoredApproval::new(stored.to_owned()).load(Rules::shipped())
}

pub(crate) fn explained(line: &str) -> String {
    policy::explain(Rules::shipped(), line)
}
