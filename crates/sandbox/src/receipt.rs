//! From what the kernel told to the receipt of a run.

use protocol::runner::{Limits, Receipt};

use crate::native::spec::Facts;

/// The receipt of a box that was built with these limits and read these facts.
pub(crate) fn of(facts: Facts, limits: &Limits) -> Receipt {
    let [inheritable, permitted, effective, bounding, ambient] = facts.capabilities;
    Receipt {
        backend: "native".to_owned(),
        namespaces: facts.namespaces.into_iter().map(|(name, _)| name).collect(),
        landlock_abi: facts.landlock_abi,
        seccomp: Some(facts.seccomp),
        capabilities: format!(
            "CapInh {inheritable} CapPrm {permitted} CapEff {effective} CapBnd {bounding} CapAmb {ambient}"
        ),
        no_new_privs: facts.no_new_privs,
        uid: facts.uids[0],
        network: "none".to_owned(),
        // RLIMIT_DATA holds each process; their sum is looked at and not held.
        memory: "best effort".to_owned(),
        root: "read-only".to_owned(),
        workspace: "direct".to_owned(),
        limits: limits.clone(),
    }
}
