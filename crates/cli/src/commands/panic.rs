//! `bulkhead panic`: freeze everything, now.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use config::{FreezeMark, Home};
use protocol::freeze::{By, Frozen, MAX_REASON};
use protocol::supervisor::{FreezeStatus, Mark, Recorded, SupervisorReply, SupervisorRequest};
use protocol::time::Millis;
use serde::Serialize;

use crate::connect::Supervisor;
use crate::fault::Fault;
use crate::{frozen, output};

/// How long the row of the freeze is waited for. The freeze itself does not wait for it.
const RECORD_LIMIT: Duration = Duration::from_secs(2);

/// How often it is looked for meanwhile.
const GLANCE: Duration = Duration::from_millis(20);

/// What can be said with `panic`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Why; goes into the record. At most 500 bytes.
    #[arg(long, default_value = "", value_parser = reason)]
    reason: String,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

fn reason(text: &str) -> Result<String, String> {
    match text.len() <= MAX_REASON {
        true => Ok(text.to_owned()),
        false => Err(format!("a reason has at most {MAX_REASON} bytes")),
    }
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    done: &'static str,
    /// Whether Bulkhead ran.
    up: bool,
    /// Programs that were killed.
    killed: u32,
    /// Those of them that the kernel had not ended when this was printed.
    left: u32,
    /// How long it took.
    took_ms: u64,
    #[serde(flatten)]
    status: FreezeStatus,
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    let supervisor = match Supervisor::connect(home) {
        Ok(supervisor) => supervisor,
        Err(Fault::NotUp) => return mark_only(arguments, home),
        Err(fault) => return Err(fault),
    };
    let reason = arguments.reason.clone();
    let reply = supervisor.ask(&SupervisorRequest::Panic { reason })?;
    let SupervisorReply::Frozen {
        frozen,
        killed,
        left,
        took_ms,
    } = reply
    else {
        return Err(frozen::refusal(reply));
    };
    if !arguments.json {
        // The row is waited for after this.
        print(killed, left, took_ms)?;
    }
    let done = Done {
        done: "frozen",
        up: true,
        killed,
        left,
        took_ms,
        status: recorded(&supervisor, frozen),
    };
    match arguments.json {
        true => output::json(&done)?,
        false => {
            frozen::print_what_is_missing(&done.status)?;
            output::line("`bulkhead resume` ends it; that takes the operator key.")?;
        }
    }
    match done.left == 0 && done.status.mark != Mark::Missing {
        true => Ok(()),
        false => Err(Fault::Said),
    }
}

/// Waits a moment for the row. A supervisor that does not answer has frozen everything all the same.
fn recorded(supervisor: &Supervisor, frozen: FreezeStatus) -> FreezeStatus {
    let end = Instant::now() + RECORD_LIMIT;
    let mut newest = frozen;
    while newest.recorded == Recorded::NotYet && Instant::now() < end {
        thread::sleep(GLANCE);
        match supervisor.ask(&SupervisorRequest::Status) {
            Ok(SupervisorReply::Status {
                frozen: Some(frozen),
                ..
            }) => newest = frozen,
            Ok(_) | Err(_) => break,
        }
    }
    newest
}

/// Nothing runs: what is started next starts frozen.
fn mark_only(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    home.create()?;
    let mark = FreezeMark::of(home);
    let frozen = match mark.read() {
        Some(frozen) => frozen,
        None => {
            let frozen = Frozen {
                since: Millis::now(),
                by: By::Terminal,
                reason: arguments.reason.clone(),
            };
            let path = home.freeze_mark();
            mark.write(&frozen)
                .and_then(|()| mark.sync())
                .map_err(Fault::io(format!("write the mark {path:?}")))?;
            frozen
        }
    };
    let done = Done {
        done: "frozen",
        up: false,
        killed: 0,
        left: 0,
        took_ms: 0,
        status: FreezeStatus {
            frozen,
            mark: Mark::Synced,
            recorded: Recorded::NotYet,
        },
    };
    match arguments.json {
        true => output::json(&done),
        false => output::line(
            "Bulkhead is not running; nothing had to be killed. When it is started it will be frozen, \
             until `bulkhead resume`.",
        ),
    }
}

fn print(killed: u32, left: u32, took_ms: u64) -> Result<(), Fault> {
    output::line(format!(
        "Everything is frozen: {killed} programs killed in {took_ms} ms. Agents, boxes, egress and the vault are gone."
    ))?;
    match left {
        0 => Ok(()),
        left => output::line(format!(
            "{left} of them the kernel has not ended yet; `bulkhead status` and `ps` show them."
        )),
    }
}
