//! `bulkhead status`: what runs and what waits.

use clap::Args;
use config::{FreezeMark, Home};
use protocol::freeze::Frozen;
use protocol::ids::SecretName;
use protocol::operator::{
    ChannelStatus, OperatorReply, OperatorRequest, RecordStatus, RulesStatus, SessionStatus,
};
use protocol::supervisor::{
    FreezeStatus, ProgramState, ProgramStatus, SupervisorReply, SupervisorRequest,
};
use protocol::time::Millis;
use protocol::vault::{LockState, VaultState};
use serde::Serialize;

use super::vault::{in_words, reminders};
use crate::cards::{shown, until};
use crate::connect::{Operator, Supervisor};
use crate::fault::Fault;
use crate::terminal::harmless_line;
use crate::vault_link::VaultLink;
use crate::{frozen, output};

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
    #[serde(skip_serializing_if = "Option::is_none")]
    frozen: Option<Freeze>,
    programs: Vec<ProgramStatus>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    inside: Option<Inside>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vault: Option<VaultStatus>,
}

/// A freeze: as the supervisor tells it, or no more than its mark says while nothing runs.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Freeze {
    Told(FreezeStatus),
    Marked { frozen: Frozen },
}

/// What is to be known of the vault.
#[derive(Debug, Serialize)]
struct VaultStatus {
    #[serde(flatten)]
    state: VaultState,
    /// Names of what has expired.
    expired: Vec<SecretName>,
    /// Names of what is to be rotated.
    due: Vec<SecretName>,
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    let supervisor = match Supervisor::connect(home) {
        Ok(supervisor) => supervisor,
        Err(Fault::NotUp) => return down(arguments, home),
        Err(fault) => return Err(fault),
    };
    let SupervisorReply::Status {
        pid,
        programs,
        frozen,
    } = supervisor.ask(&SupervisorRequest::Status)?
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
        frozen: frozen.map(Freeze::Told),
        programs,
        inside,
        // One that is being started again is missing likewise; its row says so.
        vault: vault_status(home).ok(),
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

/// What there is to say while nothing runs.
fn down(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    let frozen = FreezeMark::of(home).read();
    if arguments.json {
        output::json(&Status {
            up: false,
            pid: None,
            frozen: frozen.map(|frozen| Freeze::Marked { frozen }),
            programs: Vec::new(),
            inside: None,
            vault: None,
        })?;
        return Err(Fault::Said);
    }
    if let Some(frozen) = frozen {
        output::line(format!("FROZEN {}", frozen::line(&frozen)))?;
        output::line(
            "`bulkhead up` starts it, still frozen; then `bulkhead resume` ends the freeze.\n",
        )?;
    }
    Err(Fault::NotUp)
}

impl Status {
    /// Whether nothing has failed for good or is frozen, and the record takes rows.
    fn is_sound(&self) -> bool {
        let failed = |program: &ProgramStatus| matches!(program.state, ProgramState::Failed { .. });
        let recorded = |inside: &Inside| inside.record == RecordStatus::Ok;
        self.frozen.is_none()
            && !self.programs.iter().any(failed)
            && self.inside.as_ref().is_some_and(recorded)
    }
}

fn vault_status(home: &Home) -> Result<VaultStatus, Fault> {
    let mut link = VaultLink::running(home)?;
    let state = link.state()?;
    let entries = match state.lock {
        LockState::Open => link.ask(|vault| vault.list())?,
        LockState::Locked => Vec::new(),
    };
    let (expired, due) = reminders(&entries);
    Ok(VaultStatus {
        state,
        expired,
        due,
    })
}

fn print_vault(vault: &VaultStatus) -> Result<(), Fault> {
    for line in in_words(&vault.state) {
        output::line(format!("vault      {line}"))?;
    }
    for name in &vault.expired {
        output::line(format!("vault      {name} has expired; rotate it"))?;
    }
    for name in &vault.due {
        output::line(format!("vault      {name} is due for rotation"))?;
    }
    Ok(())
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
    if let Some(Freeze::Told(freeze)) = &status.frozen {
        output::line(format!("FROZEN {}", frozen::line(&freeze.frozen)))?;
        frozen::print_what_is_missing(freeze)?;
        output::line("`bulkhead resume` ends it.\n")?;
    }
    let rows: Vec<_> = status.programs.iter().map(program_row).collect();
    output::table(["PROGRAM", "STATE", "RESTARTS", "DETAIL"], &rows)?;
    if let Some(vault) = &status.vault {
        output::line("")?;
        print_vault(vault)?;
    }
    let Some(inside) = &status.inside else {
        let why = silence.map(|fault| fault.to_string()).unwrap_or_default();
        return output::line(format!("\nThe gateway does not answer: {why}"));
    };
    let channels: Vec<String> = inside.channels.iter().map(channel_word).collect();
    output::line(format!("channels   {}", channels.join(", ")))?;
    let record = match inside.record {
        RecordStatus::Ok => "takes rows",
        RecordStatus::Unavailable => {
            "does not take rows; nothing runs until it does. The log says why, if it has room: often the disk is full"
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
        ProgramState::Frozen => ("frozen", "starts when the freeze ends".to_owned()),
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
            frozen: None,
            programs: Vec::new(),
            inside: None,
            vault: None,
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
        let frozen = protocol::freeze::Frozen {
            since: Millis(1),
            by: protocol::freeze::By::Terminal,
            reason: "odd".to_owned(),
        };
        let freeze = FreezeStatus {
            frozen,
            mark: protocol::supervisor::Mark::Synced,
            recorded: protocol::supervisor::Recorded::Yes,
        };
        let status = Status {
            frozen: Some(Freeze::Told(freeze)),
            ..status
        };
        let json = serde_json::to_string(&status).unwrap();
        let part = r#""frozen":{"frozen":{"since":1,"by":{"by":"terminal"},"reason":"odd"},"mark":"synced","recorded":"yes"}"#;
        assert!(json.contains(part), "{json}");
        assert!(!status.is_sound());
    }
}
