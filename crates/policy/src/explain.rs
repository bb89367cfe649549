//! `policy explain --json`: a call in, a decision out, nothing done.

use protocol::call::{ToolCall, Verdict, WORKSPACE};
use protocol::ids::{AgentId, ChannelId, PrincipalId};
use protocol::rules::Label;
use protocol::time::Millis;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::judge::Effects;
use crate::rules::{Rules, Session};
use crate::visible;

/// Explains one line of input with one line of output (design, section 11), without its line
/// feed. What is not a call is denied, with the reason.
pub fn explain(rules: &Rules, line: &str, now: Millis) -> String {
    let asked: Asked = match serde_json::from_str(line) {
        Ok(asked) => asked,
        Err(error) => {
            return refused(
                id_of(line),
                "malformed",
                &format!("this line is not a call: {error}"),
            );
        }
    };
    let workspace = asked.workspace.as_deref().unwrap_or(WORKSPACE);
    if !workspace.starts_with('/') || workspace.trim_end_matches('/').is_empty() {
        return refused(
            asked.id,
            "malformed",
            "workspace is an absolute path to a folder, not the root",
        );
    }
    let call = match call(&asked, workspace) {
        Ok(call) => call,
        Err(error @ tools::BadCall::UnknownTool { .. }) => {
            return refused(asked.id, "unknown-tool", &error.to_string());
        }
        Err(error) => return refused(asked.id, "malformed", &error.to_string()),
    };
    let session = Session {
        principal: &asked.principal,
        channel: &asked.channel,
        agent: &asked.agent,
        labels: &asked.labels,
    };
    let judgement = rules.judge(&call, workspace, &session, now);
    write(&Explained {
        id: asked.id,
        decision: judgement.verdict,
        key: &judgement.key,
        rule: &judgement.rule,
        reason: &judgement.reason,
        effects: &judgement.effects,
    })
}

fn call(asked: &Asked, workspace: &str) -> Result<ToolCall, tools::BadCall> {
    tools::resolve(&asked.tool, &asked.args.to_string(), workspace)
}

/// A line of input. There are no grants here; who asks is the owner in the terminal unless
/// it says otherwise.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    id: Value,
    tool: String,
    args: Value,
    #[serde(default = "owner")]
    principal: PrincipalId,
    #[serde(default = "terminal")]
    channel: ChannelId,
    #[serde(default = "AgentId::main")]
    agent: AgentId,
    #[serde(default)]
    labels: Vec<Label>,
    workspace: Option<String>,
}

fn owner() -> PrincipalId {
    PrincipalId::parse("owner").expect("it is a name")
}

fn terminal() -> ChannelId {
    ChannelId::parse("terminal").expect("it is a name")
}

#[derive(Serialize)]
struct Explained<'a> {
    id: Value,
    decision: Verdict,
    key: &'a str,
    rule: &'a str,
    reason: &'a str,
    effects: &'a Effects,
}

fn refused(id: Value, rule: &str, reason: &str) -> String {
    let reason = visible::text(reason);
    write(&Explained {
        id,
        decision: Verdict::Deny,
        key: "",
        rule,
        reason: &reason,
        effects: &Effects::default(),
    })
}

/// The id of a line that is JSON but no call.
fn id_of(line: &str) -> Value {
    #[derive(Deserialize)]
    struct OnlyId {
        #[serde(default)]
        id: Value,
    }
    serde_json::from_str(line).map_or(Value::Null, |OnlyId { id }| id)
}

fn write(explained: &Explained<'_>) -> String {
    // Texts, numbers and lists of them always have a JSON form, and memory takes it.
    serde_json::to_string(explained).expect("an explanation has a JSON form")
}
