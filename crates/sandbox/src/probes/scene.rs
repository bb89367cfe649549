//! What there is to reach, as the side outside has set it up.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What every planted secret holds.
pub(crate) const CANARY: &str = "bulkhead-canary-7d1f";
/// The variable in the environment of what starts the box.
pub(crate) const SECRET_VARIABLE: &str = "BULKHEAD_PROBE_SECRET";

/// Where the things are that the attacks go for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scene {
    /// Which side of the box this is.
    pub(crate) side: Side,
    /// Marks every process that is started here.
    pub(crate) mark: String,
    /// A process of the same user that sleeps, with a canary in its memory and environment.
    pub(crate) victim: i32,
    /// Where in the victim's memory the canary is.
    pub(crate) canary_at: usize,
    /// The first process: of the box, or, outside, the victim.
    pub(crate) init: i32,
    /// A server on the host's loopback that greets.
    pub(crate) tcp: SocketAddr,
    /// A socket on the host's loopback that echoes.
    pub(crate) udp: SocketAddr,
    /// A server that answers name queries, on the host's loopback.
    pub(crate) dns: SocketAddr,
    /// The name of an abstract socket of the host.
    pub(crate) abstract_socket: String,
    /// A socket of the host outside of the workspace.
    pub(crate) path_socket: PathBuf,
    /// A file of the host outside of the workspace, which holds a canary.
    pub(crate) secret_file: PathBuf,
    /// The program that builds boxes.
    pub(crate) helper: PathBuf,
    /// The configuration.
    pub(crate) config: PathBuf,
    /// This program, where it lies on this side.
    pub(crate) own_program: PathBuf,
    /// The folder for short-lived files on this side.
    pub(crate) tmp: PathBuf,
    /// The key of a shared memory segment of the host.
    pub(crate) shared_memory: i32,
    /// The host's namespaces, as links in `/proc/self/ns`.
    pub(crate) namespaces: Vec<(String, u64)>,
    /// The host's kernel.
    pub(crate) kernel: Kernel,
    /// The host's name.
    pub(crate) hostname: String,
    /// What the limits of a box for bombs allow.
    pub(crate) bounds: Bounds,
}

impl Scene {
    /// Whether the kernel that this process reaches is another than the host's.
    pub(crate) fn has_another_kernel(&self) -> bool {
        self.side == Side::Inside && Kernel::own().is_another_than(&self.kernel)
    }
}

/// What tells a kernel from others.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    /// Release and version, uname(2).
    name: String,
    /// Of this start of it, `/proc/sys/kernel/random/boot_id`, where it can be read.
    boot: Option<String>,
}

impl Kernel {
    /// The one that this process reaches.
    pub(crate) fn own() -> Self {
        let name = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        Self {
            name: format!("{} {}", text(name.release()), text(name.version())),
            boot: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok(),
        }
    }

    /// In doubt it is the same: a box may hide the start, but not the name.
    fn is_another_than(&self, other: &Self) -> bool {
        self.name != other.name && (self.boot.is_none() || self.boot != other.boot)
    }
}

/// On which side of the box a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// In the box.
    Inside,
    /// On the host.
    Outside,
}

/// How much the bombs try for. Each is a little more than a box for bombs allows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bounds {
    /// Processes at once.
    pub(crate) processes: usize,
    /// Bytes of memory.
    pub(crate) memory: usize,
    /// Bytes in `/tmp`.
    pub(crate) tmp: u64,
    /// Bytes in the workspace.
    pub(crate) workspace: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(name: &str, boot: Option<&str>) -> Kernel {
        Kernel {
            name: name.to_owned(),
            boot: boot.map(str::to_owned),
        }
    }

    #[test]
    fn a_kernel_of_the_same_name_or_the_same_start_is_the_same() {
        let host = kernel("6.1 #1", Some("a"));
        assert!(!kernel("6.1 #1", Some("a")).is_another_than(&host));
        assert!(!kernel("6.1 #1", Some("b")).is_another_than(&host));
        assert!(!kernel("6.1 #1", None).is_another_than(&host));
        assert!(!kernel("4.4 #1", Some("a")).is_another_than(&host));
        assert!(kernel("4.4 #1", Some("b")).is_another_than(&host));
        assert!(kernel("4.4 #1", None).is_another_than(&host));
    }
}
