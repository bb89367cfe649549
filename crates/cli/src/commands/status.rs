//! `bulkhead status`: what runs and what waits.

use clap::Args;
use config::Home;
use protocol::operator::{
    ChannelStatus, OperatorReply, OperatorRequest, RecordStatus, RulesStatus, SessionStatus,
};
use protocol::supervisor::{ProgramState, ProgramStatus, SupervisorReply, SupervisorRequest};
use protocol::time::Millis;
use serde::Serialize;

use crate::cards::{shown, until};
use crate::connect::{Operator, Supervisor};
use crate::fault::Fault;
use crate::output;
use crate::terminal::harmless_line;

/// What can be said with `status`.
#[derive(Debug, Default, Args)]
pub(crate) struct Arguments {
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What the gateway knows.
#[derive(Debug, Serialize)]
struct Inside {
    channels: Vec<ChannelStatus>,
    sessions: Vec<SessionStatus>,
    approvals: u32,
    record: RecordStatus,
    rules: RulesStatus,
}

/// Everything. What the gateway knows is missing while it does not answer.
#[derive(Debug, Serialize)]
struct Status {
    up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    programs: Vec<ProgramStatus>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    inside: Option<Inside>,
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    let supervisor = match Supervisor::connect(home) {
        Ok(supervisor) => supervisor,
        Err(Fault::NotUp) if arguments.json => {
            output::json(&Status {
                up: false,
                pid: None,
                programs: Vec::new(),
                inside: None,
            })?;
            return Err(Fault::Said);
        }
        Err(fault) => return Err(fault),
    };
    let SupervisorReply::Status { pid, programs } = supervisor.ask(&SupervisorRequest::Status)?
    else {
        return Err(Fault::Unexpected("the supervisor"));
    };
    // A gateway that is being started again is part of the picture, not a reason to show none.
    let (inside, silence) = match inside(home) {
        Ok(inside) => (Some(inside), None),
        Err(fault) => (None, Some(fault)),
    };
    let status = Status {
        up: true,
        pid: Some(pid),
        programs,
        inside,
    };
    match arguments.json {
        true => output::json(&status)?,
        false => print(&status, silence)?,
    }
    if status.is_sound() {
        Ok(())
    } else {
        Err(Fault::Said)
    }
}

impl Status {
    /// Whether nothing has failed for good and the record takes rows.
    fn is_sound(&self) -> bool {
        let failed = |program: &ProgramStatus| matches!(program.state, ProgramState::Failed { .. });
        let recorded = |inside: &Inside| inside.record == RecordStatus::Ok;
        !self.programs.iter().any(failed) && self.inside.as_ref().is_some_and(recorded)
    }
}

fn inside(home: &Home) -> Result<Inside, Fault> {
    match Operator::connect(home)?.ask(&OperatorRequest::Status)? {
        OperatorReply::Status {
            channels,
            sessions,
            approvals,
            record,
            rules,
        } => Ok(Inside {
            channels,
            sessions,
            approvals,
            record,
            rules,
        }),
        _ => Err(Fault::Unexpected("the gateway")),
    }
}

fn print(status: &Status, silence: Option<Fault>) -> Result<(), Fault> {
    let rows: Vec<_> = status.programs.iter().map(program_row).collect();
    output::table(["PROGRAM", "STATE", "RESTARTS", "DETAIL"], &rows)?;
    let Some(inside) = &status.inside else {
        let why = silence.map(|fault| fault.to_string()).unwrap_or_default();
        return output::line(format!("\nThe gateway does not answer: {why}"));
    };
    let channels: Vec<String> = inside.channels.iter().map(channel_word).collect();
    output::line(format!("\nchannels   {}", channels.join(", ")))?;
    let record = match inside.record {
        RecordStatus::Ok => "takes rows",
        RecordStatus::Unavailable => {
            "does not take rows; nothing runs until it does. The log says why; often the disk is full"
        }
    };
    output::line(format!("record     {record}"))?;
    let rules = match inside.rules.problem.as_str() {
        "" => format!("SHA-256 {}", inside.rules.sha256),
        problem => format!(
            "those before the last change, which cannot be used: {}",
            harmless_line(problem)
        ),
    };
    output::line(format!("rules      {rules}"))?;
    if !inside.rules.expired.is_empty() {
        let expired: Vec<String> = (inside.rules.expired.iter())
            .map(ToString::to_string)
            .collect();
        output::line(format!(
            "           expired egress rules, which count for nothing: {}",
            expired.join(", ")
        ))?;
    }
    let approvals = match inside.approvals {
        0 => "nothing waits for your answer".to_owned(),
        count => format!("{count} waiting; see `bulkhead approvals`"),
    };
    output::line(format!("approvals  {approvals}"))?;
    if inside.sessions.is_empty() {
        return output::line("sessions   no agent runs");
    }
    output::line("")?;
    let rows: Vec<_> = inside.sessions.iter().map(session_row).collect();
    output::table(["SESSION", "PRINCIPAL", "CHANNEL", "TURN", "LABELS"], &rows)?;
    for session in &inside.sessions {
        for held in &session.labels {
            output::line(format!(
                "{} is {} since {}: {}",
                session.session,
                held.label.name(),
                shown(held.since),
                harmless_line(&held.why)
            ))?;
        }
    }
    Ok(())
}

fn program_row(program: &ProgramStatus) -> [String; 4] {
    let (state, detail) = match &program.state {
        ProgramState::Starting { pid } => ("starting", format!("pid {pid}")),
        ProgramState::Running { pid, since } => {
            ("running", format!("pid {pid}, since {}", shown(*since)))
        }
        ProgramState::Waiting { until: next, last } => {
            let next = until(*next, Millis::now());
            (
                "waiting",
                format!("{}; starts again {next}", harmless_line(last)),
            )
        }
        ProgramState::Failed { last } => ("failed", harmless_line(last).into_owned()),
    };
    let restarts = program.restarts.to_string();
    [program.name.clone(), state.to_owned(), restarts, detail]
}

fn channel_word(channel: &ChannelStatus) -> String {
    match channel.connected {
        true => channel.channel.to_string(),
        false => format!("{} (not connected)", channel.channel),
    }
}

fn session_row(session: &SessionStatus) -> [String; 5] {
    let labels: Vec<_> = (session.labels.iter())
        .map(|held| held.label.name())
        .collect();
    let turn = session
        .running
        .map_or("-".to_owned(), |turn| format!("{turn} runs"));
    [
        session.session.to_string(),
        session.principal.to_string(),
        session.channel.to_string(),
        turn,
        labels.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_without_the_gateway_s_part_is_still_json_of_the_same_form() {
        let status = Status {
            up: true,
            pid: Some(7),
            programs: Vec::new(),
            inside: None,
        };
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"up":true,"pid":7,"programs":[]}"#
        );
        assert!(!status.is_sound());
        let status = Status {
            inside: Some(Inside {
                channels: Vec::new(),
                sessions: Vec::new(),
                approvals: 2,
                record: RecordStatus::Ok,
                rules: RulesStatus {
                    sha256: protocol::ids::Digest([0; 32]),
                    problem: String::new(),
                    expired: Vec::new(),
                },
            }),
            ..status
        };
        assert!(
            serde_json::to_string(&status)
                .unwrap()
                .contains(r#""approvals":2,"record":"ok""#)
        );
        assert!(status.is_sound());
    }
}
