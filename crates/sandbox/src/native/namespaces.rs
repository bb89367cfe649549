//! One user in namespaces of its own.

use super::spec::Failure;
use crate::ablation::{self, Layer};

/// The user and group id inside; there is no other, so that nobody in the box can be 0.
pub(crate) const INSIDE_ID: u32 = 1000;

/// All namespaces that a box has of its own, as `/proc/PID/ns` names them.
pub(crate) const NAMES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// The ids of whoever builds boxes, on the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    uid: rustix::process::Uid,
    gid: rustix::process::Gid,
}

impl Owner {
    /// This process' own.
    pub(crate) fn of_this_process() -> Self {
        Self {
            uid: rustix::process::geteuid(),
            gid: rustix::process::getegid(),
        }
    }
}

/// Maps the owner's ids to [`INSIDE_ID`], in the first process of new namespaces.
pub(crate) fn map(owner: Owner) -> Result<(), Failure> {
    write("/proc/self/setgroups", "deny")?;
    let line = |id: u32| format!("{INSIDE_ID} {id} 1");
    write("/proc/self/uid_map", &line(owner.uid.as_raw()))?;
    write("/proc/self/gid_map", &line(owner.gid.as_raw()))?;
    // Second to the system-call list: no further user namespace can be counted below this one.
    if ablation::on(Layer::NoMoreUsers) {
        write("/proc/sys/user/max_user_namespaces", "0")?;
    }
    Ok(())
}

/// As root, RLIMIT_NPROC does not count (the kernel exempts user 0 of the host, also without
/// capabilities), so the process-id namespace gets fewer ids. 300 are reserved by the kernel and
/// are given out only once.
pub(crate) fn limit_ids(pids: u32) -> Result<(), Failure> {
    write(PID_MAX, &(RESERVED + pids).to_string())
}

/// How many processes the namespace's ids suffice for.
pub(crate) fn ids_left() -> Result<u64, Failure> {
    let text =
        std::fs::read_to_string(PID_MAX).map_err(Failure::at(format!("reading {PID_MAX}")))?;
    let most: u64 = text.trim().parse().map_err(Failure::because)?;
    Ok(most.saturating_sub(RESERVED.into()))
}

const PID_MAX: &str = "/proc/sys/kernel/pid_max";
const RESERVED: u32 = 300;

/// In one write(2), which these files need.
fn write(path: &str, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(Failure::at(format!("writing {text:?} to {path}")))
}
