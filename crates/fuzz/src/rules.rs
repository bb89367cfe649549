//! The rules under which everything here is judged: those that come with Bulkhead.

use policy::{ApprovalRequest, BadStored, Judgement, Label, Rules, Session, StoredApproval};
use protocol::call::ToolCall;
use protocol::ids::{AgentId, ChannelId, PrincipalId};
use protocol::time::Millis;

/// The shipped rules are the same at all times.
const NOW: Millis = Millis(1_000_000);

pub(crate) fn judged(call: &ToolCall, workspace: &str, labels: &[Label]) -> Judgement {
    let principal = PrincipalId::parse("owner").expect("it is a name");
    let channel = ChannelId::parse("web").expect("it is a name");
    let session = Session {
        principal: &principal,
        channel: &channel,
        agent: &AgentId::main(),
        labels,
    };
    Rules::shipped().judge(call, workspace, &session, NOW)
}

pub(crate) fn loaded(stored: &str) -> Result<ApprovalRequest, BadStored> {
    StoredApproval::new(stored.to_owned()).load(Rules::shipped(), NOW)
}

pub(crate) fn explained(line: &str) -> String {
    policy::explain(Rules::shipped(), line, NOW)
}
