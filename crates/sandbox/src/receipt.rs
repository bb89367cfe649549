//! From what the kernel told to the receipt of a run.

use protocol::runner::{Backend, Limits, Receipt};

use crate::cgroup::Held;
use crate::native::spec::Facts;

/// The receipt of a box with these facts, held by this cgroup. Of the limits asked for it takes those
/// that the service itself holds: time by the clock, output, and what is written.
pub(crate) fn of(facts: Facts, held: Option<&Held>, asked: &Limits) -> Receipt {
    let [inheritable, permitted, effective, bounding, ambient] = facts.capabilities;
    let (memory, memory_bytes, pids) = match held {
        Some(held) => (held.by, held.memory, held.pids.min(facts.pids)),
        // RLIMIT_DATA holds each process; their sum is looked at and not held.
        None => ("best effort", facts.data_bytes, facts.pids),
    };
    Receipt {
        backend: Backend::Native.name().to_owned(),
        namespaces: facts.namespaces.into_iter().map(|(name, _)| name).collect(),
        landlock_abi: facts.landlock_abi,
        seccomp: Some(facts.seccomp),
        capabilities: format!(
            "CapInh {inheritable} CapPrm {permitted} CapEff {effective} CapBnd {bounding} CapAmb {ambient}"
        ),
        no_new_privs: facts.no_new_privs,
        uid: facts.uids[0],
        network: match facts.interfaces.as_slice() {
            [] => "none".to_owned(),
            some => some.join(" "),
        },
        rules: Vec::new(),
        root: if facts.root_read_only {
            "read-only"
        } else {
            "writable"
        }
        .to_owned(),
        workspace: if facts.overlay { "overlay" } else { "copy" }.to_owned(),
        memory: memory.to_owned(),
        limits: Limits {
            memory_bytes,
            pids: u32::try_from(pids).unwrap_or(u32::MAX),
            cpu_seconds: u32::try_from(facts.cpu_seconds).unwrap_or(u32::MAX),
            tmp_bytes: facts.tmp_bytes,
            ..asked.clone()
        },
    }
}
