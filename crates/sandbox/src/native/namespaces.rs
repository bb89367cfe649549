//! Own namespaces, and one user in them.

use rustix::process::{getegid, geteuid};

use super::spec::Failure;
use crate::layers::{self, Layer};
use crate::sys;

/// The user and group id inside; there is no other, so that nobody in the box can be 0.
pub(crate) const INSIDE_ID: u32 = 1000;

/// All namespaces that a box has of its own, as `/proc/PID/ns` names them.
pub(crate) const NAMES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// Leaves all seven namespaces of the host, and maps the own ids to [`INSIDE_ID`]. The
/// process-id namespace begins with the next child.
pub(crate) fn enter() -> Result<(), Failure> {
    let (uid, gid) = (geteuid(), getegid());
    sys::unshare_all().map_err(Failure::at("making namespaces"))?;
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{INSIDE_ID} {uid} 1"))?;
    write("/proc/self/gid_map", &format!("{INSIDE_ID} {gid} 1"))?;
    // Second to the system-call list: no further user namespace can be counted below this one.
    if layers::on(Layer::NoMoreUsers) {
        write("/proc/sys/user/max_user_namespaces", "0")?;
    }
    Ok(())
}

/// As root, RLIMIT_NPROC does not count (the kernel exempts user 0 of the host, also without
/// capabilities), so the process-id namespace gets fewer ids. 300 are reserved by the kernel and
/// are given out only once.
pub(crate) fn limit_ids(pids: u32) -> Result<(), Failure> {
    const RESERVED: u32 = 300;
    write("/proc/sys/kernel/pid_max", &(RESERVED + pids).to_string())
}

/// In one write(2), which these files need.
fn write(path: &str, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(Failure::at(format!("writing {text:?} to {path}")))
}
