//! Decisions by themselves: from a call as it was read to a permit or a question.

use std::time::{Duration, Instant};

use policy::{Profile, Question, Request, Rules, Session, decide};
use protocol::call::ToolCall;
use protocol::ids::{
    AgentId, ApprovalId, CallId, CallRef, ChannelId, Nonce, PrincipalId, SessionId, TurnId,
};
use protocol::time::Millis;

use super::measure::Measure;
use crate::fault::Fault;

/// What is decided about, and under which name.
const CALLS: [(&str, &str); 4] = [
    ("decide_ordinary", "cargo test --release -p core -- parse"),
    ("decide_ls", "ls -la src"),
    (
        "decide_pipeline",
        "grep -rn \"fn main\" src --include=*.rs | sort | uniq -c | head -20",
    ),
    (
        "decide_opaque",
        "for f in *.txt; do wc -l \"$f\"; done | sort -n",
    ),
];

/// Decides so many times about each.
pub(super) fn measure(count: usize) -> Result<Vec<Measure>, Fault> {
    let wrong = |error: &dyn std::fmt::Display| Fault::Usage(error.to_string());
    let session: SessionId = "bench".parse().map_err(|error| wrong(&error))?;
    let principal: PrincipalId = "owner".parse().map_err(|error| wrong(&error))?;
    let channel: ChannelId = "web".parse().map_err(|error| wrong(&error))?;
    let reference = CallRef {
        session,
        turn: TurnId(1),
        call: CallId(1),
    };
    let profile = Profile::default();
    let question = Question {
        approval: ApprovalId([1; 8]),
        nonce: Nonce([1; 16]),
        expires: Millis(u64::MAX),
    };
    let measure = |(name, command): (&'static str, &str)| {
        let call = ToolCall::Exec {
            command: command.to_owned(),
        };
        let request = Request {
            call: &call,
            reference: &reference,
            rules: Rules::shipped(),
            session: Session {
                principal: &principal,
                channel: &channel,
                agent: &AgentId::main(),
                labels: &[],
            },
            workspace: "/home/owner/work",
            profile: &profile,
            grants: &[],
            now: Millis(1),
            question,
        };
        Measure::of_short_times(name, &times(&request, count))
    };
    Ok(CALLS.into_iter().map(measure).collect())
}

fn times(request: &Request<'_>, count: usize) -> Vec<Duration> {
    let time = || {
        let began = Instant::now();
        let decision = decide(request);
        let took = began.elapsed();
        drop(decision);
        took
    };
    // The first one reads the table of programs.
    let _ = time();
    std::iter::repeat_with(time).take(count).collect()
}
