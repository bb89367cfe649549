//! `bulkhead resume`: end a freeze. Takes the operator key, and is in the record before it happens.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use config::{Home, OPERATOR, is_frozen, read_key};
use protocol::ids::ChannelId;
use protocol::supervisor::{ProgramState, SupervisorReply, SupervisorRequest};
use serde_json::json;

use crate::connect::Supervisor;
use crate::fault::Fault;
use crate::{frozen, output};

/// How long the programs may take to be ready again.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// How often the supervisor is asked meanwhile.
const GLANCE: Duration = Duration::from_millis(10);

/// What can be said with `resume`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    let supervisor = match Supervisor::connect(home) {
        Err(Fault::NotUp) if is_frozen(home) => {
            return Err(Fault::Refused(
                "Bulkhead is frozen and not running. `bulkhead up` starts it, still frozen, so that the \
                 end of the freeze comes into the record; then `bulkhead resume`"
                    .to_owned(),
            ));
        }
        other => other?,
    };
    let reply = supervisor.ask(&SupervisorRequest::AskResume)?;
    let SupervisorReply::Challenge { nonce, since } = reply else {
        return Err(frozen::refusal(reply));
    };
    let operator = ChannelId::parse(OPERATOR).map_err(|_| Fault::Unexpected("this program"))?;
    let signature = read_key(home, &operator)?.resume(nonce, since);
    let reply = supervisor.ask(&SupervisorRequest::Resume { signature })?;
    let SupervisorReply::Resumed = reply else {
        return Err(frozen::refusal(reply));
    };
    wait_until_ready(&supervisor)?;
    output::done(
        arguments.json,
        "The freeze is over, and that is in the record. What was stopped is not taken up again.",
        &json!({ "done": "resumed", "since": since }),
    )
}

fn wait_until_ready(supervisor: &Supervisor) -> Result<(), Fault> {
    let end = Instant::now() + READY_LIMIT;
    loop {
        let reply = supervisor.ask(&SupervisorRequest::Status)?;
        let SupervisorReply::Status { programs, .. } = reply else {
            return Err(Fault::Unexpected("the supervisor"));
        };
        let runs = |state: &ProgramState| matches!(state, ProgramState::Running { .. });
        let waits: Vec<&str> = programs
            .iter()
            .filter(|program| !runs(&program.state))
            .map(|program| program.name.as_str())
            .collect();
        if waits.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(Fault::Refused(format!(
                "the freeze is over, but not running yet: {}. `bulkhead status` says why",
                waits.join(", ")
            )));
        }
        thread::sleep(GLANCE);
    }
}
