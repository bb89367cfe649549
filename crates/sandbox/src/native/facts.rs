//! What the kernel says about a process, and whether it is what was promised.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use protocol::workspace::LayerFolders;
use rustix::fs::StatVfsMountFlags;
use rustix::process::{Resource, getrlimit};

use super::mounts::WORKSPACE;
use super::namespaces::{self, INSIDE_ID, NAMES};
use super::spec::{BoxSpec, Count, Facts, Failure};
use crate::seccomp;

/// What init has to read before it leaves the host's `/proc`.
#[derive(Clone, Debug)]
pub(crate) struct Early {
    /// Network interfaces but the loopback.
    pub(crate) interfaces: Vec<String>,
    /// How many processes the namespace's ids suffice for.
    pub(crate) ids: u64,
    /// The device of the host's workspace.
    workspace: u64,
}

impl Early {
    /// Reads it.
    pub(crate) fn read(workspace: &Path) -> Result<Self, Failure> {
        const DEVICES: &str = "/proc/self/net/dev";
        let text =
            std::fs::read_to_string(DEVICES).map_err(Failure::at(format!("reading {DEVICES}")))?;
        // Two lines of headings, then a line for each: the name, a colon, counters.
        let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
        let names = names.map(|(name, _)| name.trim().to_owned());
        Ok(Self {
            interfaces: names.filter(|name| name != "lo").collect(),
            ids: namespaces::ids_left()?,
            workspace: std::fs::metadata(workspace)
                .map_err(Failure::at("looking at the workspace"))?
                .dev(),
        })
    }
}

/// The inodes of this process' own namespaces.
pub(crate) fn namespaces() -> std::io::Result<Vec<(String, u64)>> {
    NAMES
        .iter()
        .map(|name| {
            Ok((
                (*name).to_owned(),
                std::fs::metadata(format!("/proc/self/ns/{name}"))?.ino(),
            ))
        })
        .collect()
}

/// Reads them for this process.
pub(crate) fn read(
    landlock_abi: u32,
    seccomp: &seccomp::Program,
    early: &Early,
    spec: &BoxSpec,
) -> Result<Facts, Failure> {
    /// statfs(2)
    const OVERLAYFS: u64 = 0x794c_7630;
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(Failure::at("reading /proc/self/status"))?;
    let field = |name: &str| {
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value
            .map(str::trim)
            .ok_or_else(|| Failure::because(format!("/proc/self/status has no {name}")))
    };
    let number = |text: &str| text.parse::<u32>().map_err(Failure::because);
    let uids = field("Uid")?
        .split_whitespace()
        .map(number)
        .collect::<Result<Vec<_>, _>>()?;
    let capabilities = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let capabilities = capabilities.map(|set| field(set).map(str::to_owned));
    let [inheritable, permitted, effective, bounding, ambient] = capabilities;
    let limit = |resource| getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let mounted = |path: &str| {
        rustix::fs::statvfs(path).map_err(Failure::at(format!("looking at the mount of {path}")))
    };
    let tmp = mounted("/tmp")?;
    let work = rustix::fs::statfs(WORKSPACE).map_err(Failure::at("looking at the workspace"))?;
    let device = std::fs::metadata(WORKSPACE).map_err(Failure::at("looking at the workspace"))?;
    Ok(Facts {
        namespaces: namespaces().map_err(Failure::at("reading /proc/self/ns"))?,
        capabilities: [inheritable?, permitted?, effective?, bounding?, ambient?],
        no_new_privs: field("NoNewPrivs")? == "1",
        seccomp_mode: number(field("Seccomp")?)?,
        seccomp: seccomp.digest(),
        landlock_abi,
        uids: uids
            .try_into()
            .map_err(|_| Failure::because("/proc/self/status has not four user ids"))?,
        interfaces: early.interfaces.clone(),
        root_read_only: mounted("/")?.f_flag.contains(StatVfsMountFlags::RDONLY),
        // One of its own: the host's workspace may be on an overlay too.
        overlay: work.f_type.cast_unsigned() == OVERLAYFS && device.dev() != early.workspace,
        tmp_bytes: tmp.f_blocks.saturating_mul(tmp.f_frsize),
        data_bytes: limit(Resource::Data),
        cpu_seconds: limit(Resource::Cpu),
        pids: match spec.count {
            Count::Ids => early.ids,
            Count::Cgroup | Count::ProcessLimit => limit(Resource::Nproc),
        },
        core_bytes: limit(Resource::Core),
    })
}

/// Whether a command may start on these.
pub(crate) fn check(facts: &Facts, spec: &BoxSpec) -> Result<(), Failure> {
    const FILTER: u32 = 2;
    let shared: Vec<_> = facts
        .namespaces
        .iter()
        .filter(|pair| spec.outside.contains(pair))
        .map(|(name, _)| name)
        .collect();
    let limits = &spec.limits;
    let loose = facts.data_bytes > limits.memory_bytes
        || facts.tmp_bytes > limits.tmp_bytes
        || facts.pids > u64::from(limits.pids)
        || facts.cpu_seconds > u64::from(limits.cpu_seconds)
        || facts.core_bytes > 0;
    let lacking = [
        (!shared.is_empty()).then(|| format!("these namespaces are the host's: {shared:?}")),
        facts
            .capabilities
            .iter()
            .any(|set| set.bytes().any(|c| c != b'0'))
            .then(|| format!("capabilities are left: {:?}", facts.capabilities)),
        (!facts.no_new_privs).then(|| "no_new_privs is not set".to_owned()),
        (facts.seccomp_mode != FILTER).then(|| "there is no seccomp filter".to_owned()),
        (facts.uids != [INSIDE_ID; 4]).then(|| format!("the user ids are {:?}", facts.uids)),
        (!facts.interfaces.is_empty())
            .then(|| format!("there are network interfaces: {:?}", facts.interfaces)),
        (!facts.root_read_only).then(|| "the root can be written to".to_owned()),
        (matches!(spec.layer, LayerFolders::Overlay { .. }) && !facts.overlay)
            .then(|| "there is no layer over the workspace".to_owned()),
        loose.then(|| format!("a limit is not in force: {facts:?}")),
    ];
    match lacking.into_iter().flatten().next() {
        Some(what) => Err(Failure::because(what)),
        None => Ok(()),
    }
}
