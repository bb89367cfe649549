//! What is said of a freeze.

use std::thread;
use std::time::{Duration, Instant};

use config::{FreezeMark, Home};
use protocol::freeze::Frozen;
use protocol::supervisor::{FreezeStatus, Mark, Recorded, SupervisorReply, SupervisorRequest};

use crate::cards::shown;
use crate::connect::Supervisor;
use crate::fault::Fault;
use crate::output;
use crate::terminal::harmless_line;

/// How long the row of a freeze is waited for. The freeze itself does not wait for it.
const RECORD_LIMIT: Duration = Duration::from_secs(2);

/// How often it is looked for meanwhile.
const GLANCE: Duration = Duration::from_millis(20);

/// Since when, by whom and why, in one line.
pub(crate) fn line(frozen: &Frozen) -> String {
    let why = match frozen.reason.is_empty() {
        true => String::new(),
        false => format!(": {}", harmless_line(&frozen.reason)),
    };
    format!("since {}, by {}{why}", shown(frozen.since), frozen.by)
}

/// Says what of a freeze is not as it should be.
pub(crate) fn print_what_is_missing(status: &FreezeStatus) -> Result<(), Fault> {
    match status.mark {
        Mark::Synced => {}
        Mark::Unconfirmed => output::line(
            "Its mark is written, but the disk has not confirmed it; a power cut now could lose it.",
        )?,
        Mark::Missing => output::line(
            "Its mark could not be written, so it ends when Bulkhead is stopped: do not stop it. The log says why.",
        )?,
    }
    match status.recorded {
        Recorded::Yes => Ok(()),
        Recorded::NotYet => output::line(
            "The record takes no rows at the moment; the freeze holds, and its row is written when that works again.",
        ),
    }
}

/// Waits a moment for the row. A supervisor that does not answer has frozen everything all the same.
pub(crate) fn wait_for_row(supervisor: &Supervisor, frozen: FreezeStatus) -> FreezeStatus {
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

/// Refuses what a freeze forbids while there is one.
pub(crate) fn refuse_while_frozen(home: &Home, what: &str) -> Result<(), Fault> {
    match FreezeMark::of(home).read() {
        None => Ok(()),
        Some(frozen) => Err(Fault::Refused(format!(
            "{what}: everything is frozen {}. `bulkhead resume` ends that",
            line(&frozen)
        ))),
    }
}

/// What a reply that is none to the question means.
pub(crate) fn refusal(reply: SupervisorReply) -> Fault {
    match reply {
        SupervisorReply::Refused { reason } => Fault::Refused(reason),
        SupervisorReply::Status { .. }
        | SupervisorReply::Stopped
        | SupervisorReply::Frozen { .. }
        | SupervisorReply::Challenge { .. }
        | SupervisorReply::Resumed => Fault::Unexpected("the supervisor"),
    }
}

#[cfg(test)]
mod tests {
    use protocol::freeze::By;
    use protocol::time::Millis;

    use super::*;

    #[test]
    fn a_freeze_is_told_with_when_who_and_why_and_forbids_until_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        home.create().unwrap();
        refuse_while_frozen(&home, "the vault stays closed").unwrap();
        let frozen = Frozen {
            since: Millis(0),
            by: By::Terminal,
            reason: "odd\u{1b}[2J".to_owned(),
        };
        FreezeMark::of(&home).write(&frozen).unwrap();
        let fault = refuse_while_frozen(&home, "the vault stays closed").unwrap_err();
        let said = fault.to_string();
        assert!(
            said.contains("vault stays closed") && said.contains("1970"),
            "{said}"
        );
        assert!(said.contains("by the owner in a terminal: odd"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said}");
    }
}
