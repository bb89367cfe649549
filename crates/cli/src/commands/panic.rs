//! `bulkhead panic`: freeze everything, now.

use clap::Args;
use config::{FreezeMark, Home};
use protocol::freeze::{By, Frozen, MAX_REASON};
use protocol::supervisor::{
    FreezeStatus, Mark, Recorded, SupervisorReply, SupervisorRequest, Thrown,
};
use protocol::time::Millis;
use serde::Serialize;

use crate::connect::Supervisor;
use crate::fault::Fault;
use crate::{frozen, output};

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
    /// Whether everything was frozen before; then that freeze counts.
    thrown: Thrown,
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
        thrown,
        killed,
        left,
        took_ms,
    } = reply
    else {
        return Err(frozen::refusal(reply));
    };
    if !arguments.json {
        // The row is waited for after this.
        match thrown {
            Thrown::Now => print(killed, left, took_ms)?,
            Thrown::Before => print_before(&frozen.frozen, killed)?,
        }
    }
    let done = Done {
        done: "frozen",
        thrown,
        up: true,
        killed,
        left,
        took_ms,
        status: frozen::wait_for_row(&supervisor, frozen),
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

/// Nothing runs: what is started next starts frozen.
fn mark_only(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    home.create()?;
    let mark = FreezeMark::of(home);
    let (frozen, thrown) = match mark.read() {
        Some(frozen) => (frozen, Thrown::Before),
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
            (frozen, Thrown::Now)
        }
    };
    let done = Done {
        done: "frozen",
        thrown,
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
    if arguments.json {
        return output::json(&done);
    }
    match thrown {
        Thrown::Before => {
            print_before(&done.status.frozen, 0)?;
            output::line(
                "Bulkhead is not running. `bulkhead up` starts it, still frozen; then `bulkhead resume` ends it.",
            )
        }
        Thrown::Now => output::line(
            "Bulkhead is not running; nothing had to be killed. When it is started it will be frozen, \
             until `bulkhead resume`.",
        ),
    }
}

/// Says whose freeze it is. What was killed now, if anything, had been started in that moment.
fn print_before(frozen: &Frozen, killed: u32) -> Result<(), Fault> {
    output::line(format!(
        "Everything was frozen already, {}. That freeze counts and keeps its reason.",
        frozen::line(frozen)
    ))?;
    match killed {
        0 => Ok(()),
        killed => output::line(format!("{killed} more programs were killed.")),
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
