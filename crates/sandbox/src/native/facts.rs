//! What the kernel says about a process, and whether it is what was promised.

use std::os::unix::fs::MetadataExt as _;

use super::namespaces::{INSIDE_ID, NAMES};
use super::spec::{BoxSpec, Facts, Failure};
use crate::seccomp;

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
pub(crate) fn read(landlock_abi: u32, seccomp: &seccomp::Program) -> Result<Facts, Failure> {
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
    let [inheritable, permitted, effective, bounding, ambient] =
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    Ok(Facts {
        namespaces: namespaces().map_err(Failure::at("reading /proc/self/ns"))?,
        capabilities: [
            field(inheritable)?.to_owned(),
            field(permitted)?.to_owned(),
            field(effective)?.to_owned(),
            field(bounding)?.to_owned(),
            field(ambient)?.to_owned(),
        ],
        no_new_privs: field("NoNewPrivs")? == "1",
        seccomp_mode: number(field("Seccomp")?)?,
        seccomp: seccomp.digest(),
        landlock_abi,
        uids: uids
            .try_into()
            .map_err(|_| Failure::because("/proc/self/status has not four user ids"))?,
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
    ];
    match lacking.into_iter().flatten().next() {
        Some(what) => Err(Failure::because(what)),
        None => Ok(()),
    }
}
