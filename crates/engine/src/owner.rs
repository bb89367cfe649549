//! Which process a container belongs to, so that what a killed one left is told from what another one
//! has in use.

use std::fs;

/// A process, by its id and when it started (proc_pid_stat(5), in ticks since the start of the machine).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner(String);

impl Owner {
    /// This one.
    pub(crate) fn this() -> Result<Self, String> {
        let pid = std::process::id();
        let started =
            started(pid).ok_or("cannot read when this process started in /proc/self/stat")?;
        Ok(Self(format!("{pid}.{started}")))
    }

    /// As a label.
    pub(crate) fn label(&self) -> &str {
        &self.0
    }
}

/// Whether the process of a label is still there. A label that is none names nobody.
pub(crate) fn lives(label: &str) -> bool {
    let parts = label
        .split_once('.')
        .and_then(|(pid, when)| Some((pid.parse().ok()?, when.parse().ok()?)));
    parts.is_some_and(|(pid, when): (u32, u64)| started(pid) == Some(when))
}

fn started(pid: u32) -> Option<u64> {
    /// Counted from the state, which follows the name in parentheses.
    const STARTED: usize = 19;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(STARTED)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_and_one_that_started_at_another_time_does_not() {
        let this = Owner::this().unwrap();
        assert!(lives(this.label()));
        assert!(!lives(&format!("{}0", this.label())));
        for label in ["", "1", "x.y", "4294967295.1", "1.2.3"] {
            assert!(!lives(label), "{label:?}");
        }
    }
}
