//! What the first process of a container reads about itself from its kernel.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use protocol::engine::Around;
use rustix::fs::StatVfsMountFlags;

/// The namespaces that are looked for.
const NAMESPACES: [&str; 7] = crate::native::namespaces::NAMES;
/// The capability sets of `/proc/PID/status`; gVisor has no ambient one.
const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

/// Reads all of it.
pub(super) fn read() -> io::Result<Around> {
    let status = Status::read()?;
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let cgroup = [&V2, &V1].into_iter().find_map(Files::limits);
    let (cgroup, memory_bytes, pids) = match cgroup {
        Some((name, memory, pids)) => (Some(name.to_owned()), Some(memory), pids),
        None => (None, None, None),
    };
    Ok(Around {
        pid: std::process::id(),
        uid: rustix::process::geteuid().as_raw(),
        namespaces: namespaces(),
        capabilities: status.capabilities(),
        no_new_privs: rustix::thread::no_new_privs()?,
        seccomp_mode: status.seccomp_mode(),
        interfaces: interfaces()?,
        root_read_only: root_read_only()?,
        kernel: format!("{} {}", text(name.release()), text(name.version())),
        cgroup,
        memory_bytes,
        pids,
    })
}

/// The inodes of the own namespaces, as far as the kernel tells.
pub(super) fn namespaces() -> Vec<(String, u64)> {
    let inode = |name: &str| Some(fs::metadata(format!("/proc/self/ns/{name}")).ok()?.ino());
    NAMESPACES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), inode(name)?)))
        .collect()
}

/// Whether nothing can be written to the root's own file system.
pub(super) fn root_read_only() -> io::Result<bool> {
    let flags = rustix::fs::statvfs("/")?.f_flag;
    // gVisor does not tell it there.
    Ok(flags.contains(StatVfsMountFlags::RDONLY)
        || mounted_read_only(&fs::read_to_string("/proc/mounts")?))
}

/// The last mount on `/` is what is seen.
fn mounted_read_only(mounts: &str) -> bool {
    let mut root = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (at, options) = (fields.nth(1)?, fields.nth(1)?);
        (at == "/").then_some(options)
    });
    root.next_back()
        .is_some_and(|options| options.split(',').any(|option| option == "ro"))
}

/// All network interfaces but the loopback.
pub(super) fn interfaces() -> io::Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/net/dev")
        .or_else(|_| fs::read_to_string("/proc/net/dev"))?;
    let names = text
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    Ok(names.filter(|name| name != "lo").collect())
}

/// `/proc/self/status`
pub(super) struct Status(String);

impl Status {
    pub(super) fn read() -> io::Result<Self> {
        fs::read_to_string("/proc/self/status").map(Self)
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    }

    /// Those that are there, by name.
    pub(super) fn capabilities(&self) -> Vec<(String, String)> {
        SETS.iter()
            .filter_map(|name| Some(((*name).to_owned(), self.field(name)?.to_owned())))
            .collect()
    }

    /// 0 if the kernel does not say.
    pub(super) fn seccomp_mode(&self) -> u32 {
        self.field("Seccomp")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    /// Real, effective, saved, and that of the file system.
    pub(super) fn uids(&self) -> Vec<u32> {
        let ids = self.field("Uid").unwrap_or_default().split_whitespace();
        ids.filter_map(|id| id.parse().ok()).collect()
    }
}

/// Where a cgroup tells its limits, in a container that has a cgroup namespace of its own or sees its own
/// folder as the root.
struct Files {
    name: &'static str,
    memory: &'static str,
    pids: &'static str,
}

const V2: Files = Files {
    name: "cgroup v2",
    memory: "/sys/fs/cgroup/memory.max",
    pids: "/sys/fs/cgroup/pids.max",
};
const V1: Files = Files {
    name: "cgroup v1",
    memory: "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    pids: "/sys/fs/cgroup/pids/pids.max",
};

impl Files {
    /// If it has one on memory. `max` and anything else that is no number is none.
    fn limits(&self) -> Option<(&'static str, u64, Option<u64>)> {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        Some((self.name, number(self.memory)?, number(self.pids)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_on_the_root_counts() {
        assert!(mounted_read_only(
            "none / 9p ro,trans=fd 0 0\nnone /tmp tmpfs rw 0 0\n"
        ));
        assert!(!mounted_read_only(
            "a / 9p ro 0 0\nb / tmpfs rw,mode=0755 0 0\n"
        ));
        assert!(!mounted_read_only("a / ext4 rw,errors=remount-ro 0 0\n"));
        assert!(!mounted_read_only(""));
    }
}
