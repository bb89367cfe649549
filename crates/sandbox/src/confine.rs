//! What a program does to itself before it reads its first byte.

use std::path::PathBuf;

use protocol::ids::Digest;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::CapabilitySet;

use crate::landlock_domain::{self, Domain};
use crate::profiles::{self, Lifetime, Limit, Reach};
use crate::{namespaces, seccomp, sys, users};

/// A program of Bulkhead; each has its own profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// `bulkhead-supervisor`
    Supervisor,
    /// `bulkhead-gateway`
    Gateway,
    /// `bulkhead-agent`
    Agent,
    /// `bulkhead-egress`
    Egress,
    /// `bulkhead-vault`
    Vault,
    /// `bulkhead-ledger`
    Ledger,
    /// `bulkhead-sandbox`
    Sandbox,
    /// `bulkhead-sandbox inner`, the same in a container.
    Inner,
    /// `bulkhead-workspace`
    Workspace,
    /// `bulkhead-engine`
    Engine,
    /// `bulkhead-channel-web`
    ChannelWeb,
    /// `bulkhead-channel-telegram`
    ChannelTelegram,
}

/// The files that a program needs beyond its own image and libraries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Files and folders it reads.
    pub read: Vec<PathBuf>,
    /// Folders and files it reads and writes. In a folder it may also make, rename and remove files and folders.
    pub write: Vec<PathBuf>,
    /// Folders whose content it moves whatever it is: also symbolic links, fifos and sockets, and
    /// from one such folder to another. Nothing in them can be executed.
    pub keep: Vec<PathBuf>,
    /// For a program that sees all other files: those that it does not see. What does not exist is left out.
    pub hide: Vec<PathBuf>,
}

/// What was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The Landlock ABI in force; none for the supervisor, which has no domain, since its
    /// children would inherit it.
    pub landlock_abi: Option<u32>,
    /// SHA-256 over the seccomp programs, in the order they were installed.
    pub seccomp: Digest,
}

/// A layer that the profile needs is missing; the program must not go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine {program:?}: {what}")]
pub struct ConfineError {
    /// Which program.
    pub program: Program,
    /// What is missing, and what to do.
    pub what: String,
}

/// Confines this process for good. Call it before the first byte is read and before any
/// thread is started.
///
/// Started by root, most programs go on as a user and group that nobody else has ([`users`], `profiles/`). All but the
/// supervisor get a user namespace of their own, with nobody but their own user in it; all but the supervisor and
/// egress a network namespace with nothing in it.
///
/// Afterwards the process and all its descendants have no capabilities (as root the sandbox keeps `CAP_SETFCAP`, and
/// the supervisor what its programs change their users with and are ended with), gain none by execve(2),
/// write no core, cannot be read or traced by others of the same user, die with their parent
/// (not the supervisor), and are held by the program's Landlock domain and system-call list.
///
/// # Errors
///
/// Any layer that the kernel does not have or does not grant.
pub fn confine(program: Program, files: &Files) -> Result<Applied, ConfineError> {
    apply(program, files).map_err(|what| ConfineError { program, what })
}

fn apply(program: Program, files: &Files) -> Result<Applied, String> {
    let profile = profiles::of(program);
    single_threaded()?;
    drop_groups()?;
    match program {
        // Before the capability that may raise the limit is gone.
        Program::Vault => crate::memory::raise_limit()?,
        Program::Supervisor => users::may_give()?,
        Program::Gateway
        | Program::Agent
        | Program::Egress
        | Program::Ledger
        | Program::Sandbox
        | Program::Inner
        | Program::Workspace
        | Program::Engine
        | Program::ChannelWeb
        | Program::ChannelTelegram => {}
    }
    users::take(profile.identity)?;
    namespaces::enter(profile.apart, files)?;
    keep_only(profile.keep_as_root)?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|e| format!("prctl(PR_SET_NO_NEW_PRIVS): {e}"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| format!("prctl(PR_SET_DUMPABLE): {e}"))?;
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )
    .map_err(|e| format!("setrlimit(RLIMIT_CORE): {e}"))?;
    profile.limits.iter().try_for_each(limit)?;
    match profile.lifetime {
        Lifetime::Own => {}
        Lifetime::OfParent => set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|e| format!("prctl(PR_SET_PDEATHSIG): {e}"))?,
    }
    let abi = landlock_domain::abi()?;
    let domain = match profile.reach {
        Reach::Everything => None,
        Reach::AllFilesAndTheBoxPort => Some(Domain::without_files().with_box_port()),
        Reach::OwnFiles(also) => Some(Domain::of_files(files, also)?),
        Reach::OwnFilesAndNetwork(also) => Some(Domain::of_files(files, also)?.with_tcp_out()),
    };
    let landlock_abi = domain
        .map(|domain| domain.enter(abi).map(|()| abi))
        .transpose()?;
    let seccomp = seccomp::Program::compile(&profile.calls)?;
    seccomp.install()?;
    Ok(Applied {
        landlock_abi,
        seccomp: seccomp.digest(),
    })
}

/// Lowers a limit, soft and hard.
fn limit(limit: &Limit) -> Result<(), String> {
    let Limit(resource, most) = *limit;
    let hard = getrlimit(resource).maximum.unwrap_or(u64::MAX).min(most);
    let new = Rlimit {
        current: Some(hard),
        maximum: Some(hard),
    };
    setrlimit(resource, new).map_err(|e| format!("setrlimit({resource:?}, {hard}): {e}"))
}

/// Every layer below is a property of a thread; one that exists already would stay outside.
fn single_threaded() -> Result<(), String> {
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(|e| format!("cannot count the threads in /proc: {e}"))?
        .count();
    match threads {
        1 => Ok(()),
        n => Err(format!(
            "there are {n} threads already; confine() comes before the first"
        )),
    }
}

/// Gives up supplementary groups where that is possible. An ordinary user cannot; its groups
/// then stay, like its user id.
fn drop_groups() -> Result<(), String> {
    let may = rustix::thread::capabilities(None)
        .map_err(|e| format!("capget: {e}"))?
        .effective;
    if !may.contains(CapabilitySet::SETGID) {
        return Ok(());
    }
    rustix::thread::set_thread_groups(&[]).map_err(|e| format!("setgroups: {e}"))
}

/// Drops all five capability sets but for `keep`, which stays if the process has it.
pub(crate) fn keep_only(keep: CapabilitySet) -> Result<(), String> {
    // In a user namespace of its own an ordinary user holds all of them, and needs none.
    let keep = match rustix::process::geteuid().is_root() {
        true => keep,
        false => CapabilitySet::empty(),
    };
    let had = rustix::thread::capabilities(None).map_err(|e| format!("capget: {e}"))?;
    // The ambient set goes with the inheritable one, but is emptied on its own account too.
    rustix::thread::clear_ambient_capability_set()
        .map_err(|e| format!("prctl(PR_CAP_AMBIENT_CLEAR_ALL): {e}"))?;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        sys::drop_bounding_set(keep).map_err(|e| format!("prctl(PR_CAPBSET_DROP): {e}"))?;
    }
    // Without CAP_SETPCAP the bounding set stays, and no_new_privs keeps execve(2) from giving any of it.
    let left = had.permitted & keep;
    let sets = rustix::thread::CapabilitySets {
        effective: left,
        permitted: left,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(|e| format!("capset: {e}"))
}
