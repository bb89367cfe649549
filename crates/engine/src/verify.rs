//! Whether a container is what was asked for: by what its own first process reads from the kernel, and by
//! what the engine says it did.

use protocol::engine::Around;
use protocol::runner::Backend;
use serde::Deserialize;

/// `GET /containers/ID/json`, as far as it is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Inspected {
    pub(crate) host_config: HostConfig,
    #[serde(default)]
    pub(crate) state: State,
}

/// Its state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct State {
    #[serde(default, rename = "OOMKilled")]
    pub(crate) oom_killed: bool,
}

/// What it was made with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct HostConfig {
    pub(crate) readonly_rootfs: bool,
    pub(crate) privileged: bool,
    pub(crate) network_mode: String,
    pub(crate) security_opt: Option<Vec<String>>,
    pub(crate) memory: i64,
    pub(crate) pids_limit: Option<i64>,
    pub(crate) runtime: String,
    pub(crate) pid_mode: String,
    pub(crate) devices: Option<Vec<serde_json::Value>>,
}

/// What was asked for, and what the host is like.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) backend: Backend,
    pub(crate) uid: u32,
    /// Inodes of this process' namespaces.
    pub(crate) outside: Vec<(String, u64)>,
    /// Release and version of the host's kernel.
    pub(crate) kernel: String,
    pub(crate) runtime: Option<&'static str>,
    /// `cgroup v1` or `cgroup v2`, as the engine says.
    pub(crate) cgroup: Option<String>,
}

/// `CAP_SETFCAP` as a set, linux/capability.h.
const SETFCAP: u64 = 1 << 31;
/// `CAP_KILL`, `CAP_SETGID` and `CAP_SETUID`.
const OF_GVISOR: u64 = 1 << 5 | 1 << 6 | 1 << 7;
/// Seccomp by a filter.
const FILTER: u32 = 2;

/// What is not as it was asked for, if anything.
pub(crate) fn lacking(
    expected: &Expected,
    around: &Around,
    inspected: &Inspected,
) -> Option<String> {
    let gvisor = expected.backend == Backend::Gvisor;
    of_kernel(expected, around)
        .or_else(|| match gvisor {
            true => of_gvisor(expected, around),
            false => of_linux(expected, around),
        })
        .or_else(|| of_engine(expected, inspected))
}

/// What any kernel tells.
fn of_kernel(expected: &Expected, around: &Around) -> Option<String> {
    let may = match expected.backend {
        Backend::Gvisor => SETFCAP | OF_GVISOR,
        Backend::Native | Backend::Docker | Backend::Podman => SETFCAP,
    };
    let surplus = |(_, set): &(String, String)| {
        u64::from_str_radix(set, 16).map_or(true, |set| set & !may != 0)
    };
    let found = [
        (around.pid != 1).then(|| "it has no process-id namespace of its own".to_owned()),
        (around.uid != expected.uid)
            .then(|| format!("its user is {} and not {}", around.uid, expected.uid)),
        (around.capabilities.is_empty() || around.capabilities.iter().any(surplus))
            .then(|| format!("it has capabilities: {:?}", around.capabilities)),
        (!around.interfaces.is_empty())
            .then(|| format!("it has network interfaces: {:?}", around.interfaces)),
        (!around.root_read_only).then(|| "its root can be written to".to_owned()),
    ];
    found.into_iter().flatten().next()
}

/// In gVisor, inodes of namespaces mean something else, and the engine's list of system calls is not used: the
/// kernel itself is another.
fn of_gvisor(expected: &Expected, around: &Around) -> Option<String> {
    (around.kernel == expected.kernel)
        .then(|| "it runs on the host's kernel and not on gVisor's".to_owned())
}

/// The namespaces that the kernel made for itself, by the inodes that they always have
/// (`include/linux/proc_ns.h`). This program has some of its own, so those are not the host's.
const INITIAL: [(&str, u64); 3] = [
    ("ipc", 0xEFFF_FFFF),
    ("uts", 0xEFFF_FFFE),
    ("pid", 0xEFFF_FFFC),
];

fn of_linux(expected: &Expected, around: &Around) -> Option<String> {
    const OWN: [&str; 5] = ["mnt", "pid", "net", "ipc", "uts"];
    let own = |name: &str| {
        let inside = around.namespaces.iter().find(|(own, _)| own == name);
        let is_initial = |(own, inode): &(String, u64)| INITIAL.contains(&(own.as_str(), *inode));
        inside.is_some_and(|pair| !expected.outside.contains(pair) && !is_initial(pair))
    };
    let shared: Vec<_> = OWN.into_iter().filter(|name| !own(name)).collect();
    let found = [
        (!shared.is_empty()).then(|| format!("these namespaces are the host's: {shared:?}")),
        (!around.no_new_privs).then(|| "no_new_privs is not set".to_owned()),
        (around.seccomp_mode != FILTER).then(|| "it has no seccomp filter".to_owned()),
    ];
    found.into_iter().flatten().next()
}

fn of_engine(expected: &Expected, inspected: &Inspected) -> Option<String> {
    let host = &inspected.host_config;
    let security = host.security_opt.as_deref().unwrap_or_default();
    let no_seccomp = security.iter().any(|option| option == "seccomp=unconfined");
    let found = [
        host.privileged.then(|| "it is privileged".to_owned()),
        (!host.readonly_rootfs).then(|| "its root can be written to".to_owned()),
        (host.network_mode != "none").then(|| format!("its network is {:?}", host.network_mode)),
        (host.pid_mode == "host").then(|| "it sees the host's processes".to_owned()),
        no_seccomp.then(|| "it has no list of system calls".to_owned()),
        (!host.devices.as_deref().unwrap_or_default().is_empty())
            .then(|| "it has devices of the host".to_owned()),
        expected
            .runtime
            .filter(|runtime| host.runtime != *runtime)
            .map(|runtime| format!("its runtime is {:?} and not {runtime}", host.runtime)),
    ];
    found
        .into_iter()
        .flatten()
        .map(|what| format!("the engine says that {what}"))
        .next()
}

/// What holds the memory of a box as a whole.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// The cgroup of its container.
    Held {
        /// Of which version.
        by: String,
    },
    /// Nothing: its processes one by one, and who looks at their sum.
    BestEffort,
}

/// How memory is limited: what the container's own cgroup says, and for gVisor, which shows none, what the
/// engine says.
pub(crate) fn memory(
    expected: &Expected,
    limit: u64,
    around: &Around,
    inspected: &Inspected,
) -> Memory {
    let limited = match expected.backend {
        Backend::Gvisor => u64::try_from(inspected.host_config.memory) == Ok(limit),
        Backend::Native | Backend::Docker | Backend::Podman => {
            around.memory_bytes.is_some_and(|bytes| bytes <= limit)
        }
    };
    let cgroup = around.cgroup.clone().or_else(|| expected.cgroup.clone());
    match cgroup {
        Some(by) if limited => Memory::Held { by },
        Some(_) | None => Memory::BestEffort,
    }
}
