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
///
/// Before Linux 6.14 this number is the whole machine's, and root would take it from everybody.
pub(crate) fn limit_ids(pids: u32) -> Result<(), Failure> {
    if !ids_are_the_namespace_own() {
        return Err(Failure::because(NOT_COUNTED));
    }
    write(PID_MAX, &(RESERVED + pids).to_string())
}

/// How many processes the namespace's ids suffice for.
pub(crate) fn ids_left() -> Result<u64, Failure> {
    let text =
        std::fs::read_to_string(PID_MAX).map_err(Failure::at(format!("reading {PID_MAX}")))?;
    let most: u64 = text.trim().parse().map_err(Failure::because)?;
    Ok(most.saturating_sub(RESERVED.into()))
}

/// Whether each process-id namespace has a `kernel.pid_max` of its own: since Linux 6.14. The version is
/// asked, as trying it would change the machine's.
pub(crate) fn ids_are_the_namespace_own() -> bool {
    let name = rustix::system::uname();
    is_since_6_14(name.release().to_str().unwrap_or_default())
}

fn is_since_6_14(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    matches!((next(), next()), (Some(major), Some(minor)) if (major, minor) >= (6, 14))
}

/// Why root gets no box there.
pub(crate) const NOT_COUNTED: &str = "nothing holds the number of processes of a box that root starts: there \
     is no cgroup, and before Linux 6.14 a box has no kernel.pid_max of its own";

/// Whether this process' user is 0 on the host, and not merely in a user namespace: it owns the system's
/// settings. Where that cannot be seen, 0 is taken for it.
pub(crate) fn is_root_of_the_host() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let own = rustix::process::geteuid();
    own.is_root()
        && std::fs::metadata("/proc/sys/kernel/ostype")
            .map_or(true, |data| data.uid() == own.as_raw())
}

const PID_MAX: &str = "/proc/sys/kernel/pid_max";
const RESERVED: u32 = 300;

/// In one write(2), which these files need.
fn write(path: &str, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(Failure::at(format!("writing {text:?} to {path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernels_that_count_ids_for_each_namespace_are_taken_for_such() {
        for release in ["6.14.0", "6.18.44-fc", "6.100.1", "7.0.0-rc1"] {
            assert!(is_since_6_14(release), "{release}");
        }
        for release in [
            "6.12.117+deb12-cloud-amd64",
            "6.1.0-56",
            "5.15",
            "",
            "linux",
        ] {
            assert!(!is_since_6_14(release), "{release}");
        }
    }
}
