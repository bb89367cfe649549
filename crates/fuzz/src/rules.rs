//! The rules under which everything here is judged: those that come with Bulkhead.

use policy::{
    ApprovalRequest, BadStored, Decision, Judgement, Label, Request, StoredApproval, decide, judge,
};
use protocol::call::ToolCall;

pub(crate) fn judged(call: &ToolCall, workspace: &str, labels: &[Label]) -> Judgement {
    judge(call, workspace, labels)
}

pub(crate) fn decided(request: &Request<'_>) -> Decision {
    decide(request)
}

pub(crate) fn loaded(stored: &str) -> Result<ApprovalRequest, BadStored> {
    StoredApproval::new(stored.to_owned()).load()
}

pub(crate) fn explained(line: &str) -> String {
    policy::explain(line)
}
