//! A box whose file systems, processes and network are those of the container around it, for a kernel
//! that has no mounts within a user namespace (gVisor).
//!
//! What the container does not give, the command's process does to itself, as in any box: a user that
//! is not 0, no capability, `no_new_privs`, the limits of a process, and the list of system calls. There
//! is no Landlock, since that kernel has none.

use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::control::ControlEnd;
use protocol::ids::Digest;
use protocol::runner::{Changes, Limits, Receipt, RunEnd, RunOutcome};
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, WaitOptions, kill_process_group,
    set_dumpable_behavior, setrlimit, wait,
};
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, UnshareFlags, capabilities, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

use super::around::{self, Status};
use super::{Engine, Order as Wanted, SELF};
use crate::native::init::{ADDRESS_SPACE, DESCRIPTORS};
use crate::native::mounts::WORKSPACE;
use crate::native::namespaces::INSIDE_ID;
use crate::native::spec::{Failure, Kind};
use crate::native::way::Way;
use crate::run::{Refused, Start};
use crate::{profiles, seccomp, sys};

/// To the process that becomes the command. With it comes its standard input.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    argv: Vec<String>,
    kind: Kind,
    limits: Limits,
}

/// From it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    Failed(Failure),
    Ready(Facts),
}

/// What it read about itself before it became the command.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    namespaces: Vec<(String, u64)>,
    capabilities: Vec<(String, String)>,
    no_new_privs: bool,
    seccomp_mode: u32,
    seccomp: Digest,
    uids: Vec<u32>,
    root_read_only: bool,
    interfaces: Vec<String>,
}

/// To whom the workspace belongs, in the container.
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Runs it and waits for all of it to end.
pub(super) fn run(spec: &Wanted, owner: Owner, engine: Engine) -> Result<RunOutcome, Refused> {
    let Start { argv, kind, input } = Start::of(&spec.action)?;
    let begun = Instant::now();
    let order = Order {
        argv,
        kind,
        limits: spec.limits.clone(),
    };
    let (mut child, link) = start(&owner).map_err(refused)?;
    step_aside().map_err(refused)?;
    let (reader, feed) =
        io::pipe().map_err(|error| refused(Failure::at("making a pipe")(error)))?;
    // If it is gone already, its report says so.
    let _ = link.send_with(&order, reader.into());
    let keep = spec.limits.output_bytes as usize;
    let stdin = std::thread::spawn(move || {
        // A tool that does not read all of it has its reasons, and a result that tells.
        let _ = (&feed).write_all(&input);
    });
    let stdout = child
        .stdout
        .take()
        .map(|from| std::thread::spawn(move || drain(from, keep)));
    let stderr = child
        .stderr
        .take()
        .map(|from| std::thread::spawn(move || drain(from, keep)));
    let facts = match link.receive() {
        Ok((Report::Ready(facts), _)) => facts,
        Ok((Report::Failed(failure), _)) => return Err(refused(failure)),
        Err(error) => {
            return Err(refused(Failure::because(format!(
                "the command's process ended early: {error}"
            ))));
        }
    };
    let cause = Arc::new(AtomicU8::new(RUNNING));
    let killed = Arc::clone(&cause);
    engine.watch(move || end(&killed, KILLED))?;
    limit_time(
        &cause,
        begun + Duration::from_secs(u64::from(spec.limits.wall_seconds)),
    )?;
    let ended = reap_until(Pid::from_child(&child)).map_err(refused)?;
    // What it left behind holds its pipes open.
    kill_all();
    let (stdout, stderr) = (stdout.map(joined), stderr.map(joined));
    let (stdout, stderr) = (stdout.unwrap_or_default(), stderr.unwrap_or_default());
    // It ends at the latest when the last reader is gone, and has no result.
    let _ = stdin.join();
    Ok(RunOutcome {
        end: match cause.load(Ordering::SeqCst) {
            TIMED_OUT => RunEnd::TimedOut,
            KILLED => RunEnd::Killed,
            _ => ended,
        },
        truncated: stdout.truncated || stderr.truncated,
        stdout: stdout.text,
        stderr: stderr.text,
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        receipt: receipt(facts, &spec.limits),
        changes: Changes::default(),
    })
}

/// One output, as far as it was kept.
#[derive(Debug, Default)]
struct Kept {
    text: String,
    truncated: bool,
}

/// Reads to the end and keeps the beginning.
fn drain(mut from: impl Read, keep: usize) -> io::Result<Kept> {
    let mut kept = Vec::new();
    from.by_ref().take(keep as u64).read_to_end(&mut kept)?;
    let rest = io::copy(&mut from, &mut io::sink())?;
    Ok(Kept {
        text: String::from_utf8_lossy(&kept).into_owned(),
        truncated: rest > 0,
    })
}

/// An output that could not be read to its end counts as cut.
fn joined(thread: JoinHandle<io::Result<Kept>>) -> Kept {
    match thread.join() {
        Ok(Ok(kept)) => kept,
        Ok(Err(_)) | Err(_) => Kept {
            text: String::new(),
            truncated: true,
        },
    }
}

const RUNNING: u8 = 0;
const TIMED_OUT: u8 = 1;
const KILLED: u8 = 2;

/// Nobody's user id, which owns no file.
const NOBODY: u32 = 65534;

/// The first process becomes another user than the command's: what it tells the engine goes through its
/// descriptors, which whoever has its user can open in `/proc`, and gVisor asks neither whether it is
/// dumpable nor spares the first process of a namespace its signals. It keeps what ends the command.
fn step_aside() -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_keep_capabilities(true).map_err(Failure::at("keeping capabilities"))?;
    set_thread_groups(&[]).map_err(Failure::at("giving up groups"))?;
    set_thread_res_gid(gid, gid, gid).map_err(Failure::at("becoming another group"))?;
    set_thread_res_uid(uid, uid, uid).map_err(Failure::at("becoming another user"))?;
    keep_only(CapabilitySet::KILL)?;
    rustix::thread::set_no_new_privs(true).map_err(Failure::at("setting no_new_privs"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(Failure::at("closing the first process"))
}

type Link = ControlEnd<Order, Report>;

/// The process that becomes the command, once it is told.
fn start(owner: &Owner) -> Result<(Child, Link), Failure> {
    let (ours, theirs) = UnixStream::pair().map_err(Failure::at("making a socket"))?;
    let child = Command::new(SELF)
        .arg0("bulkhead-sandbox")
        .arg("command")
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .gid(owner.gid)
        .uid(owner.uid)
        .spawn()
        .map_err(Failure::at("starting the command's process"))?;
    Ok((child, Link::new(ours)))
}

/// The first cause is the one that is told.
fn end(cause: &AtomicU8, why: u8) {
    let _ = cause.compare_exchange(RUNNING, why, Ordering::SeqCst, Ordering::SeqCst);
    kill_all();
}

/// Everything in this process-id namespace but this process, its first: kill(2) with -1.
fn kill_all() {
    // There may be nothing left.
    let _ = kill_process_group(Pid::INIT, Signal::KILL);
}

fn limit_time(cause: &Arc<AtomicU8>, until: Instant) -> Result<(), Refused> {
    let cause = Arc::clone(cause);
    let thread = std::thread::Builder::new().name("clock".to_owned());
    let waiting = move || {
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        end(&cause, TIMED_OUT);
    };
    let started = thread.spawn(waiting).map(drop);
    started.map_err(|error| refused(Failure::at("watching the clock")(error)))
}

/// Waits for the command, and meanwhile for every orphan.
fn reap_until(command: Pid) -> Result<RunEnd, Failure> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ok(RunEnd::Exited { code }),
                    (None, Some(signal)) => Ok(RunEnd::Signalled { signal }),
                    (None, None) => Err(Failure::because(
                        "the command neither exited nor was killed",
                    )),
                };
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::at("waiting for the command")(error)),
        }
    }
}

fn refused(failure: Failure) -> Refused {
    Refused {
        reason: format!(
            "no box can be made in the container: {}: {}",
            failure.doing, failure.error
        ),
        fix:
            "look at `bulkhead doctor`; another backend under [box] in bulkhead.toml may work here"
                .to_owned(),
    }
}

fn receipt(facts: Facts, limits: &Limits) -> Receipt {
    let sets: Vec<_> = facts
        .capabilities
        .iter()
        .map(|(name, set)| format!("{name} {set}"))
        .collect();
    Receipt {
        backend: String::new(),
        namespaces: facts.namespaces.into_iter().map(|(name, _)| name).collect(),
        landlock_abi: 0,
        seccomp: Some(facts.seccomp),
        capabilities: sets.join(" "),
        no_new_privs: facts.no_new_privs,
        uid: facts.uids.first().copied().unwrap_or(u32::MAX),
        network: "none".to_owned(),
        rules: Vec::new(),
        root: "read-only".to_owned(),
        workspace: "copy".to_owned(),
        memory: "best effort".to_owned(),
        limits: limits.clone(),
    }
}

/// The main function of `bulkhead-sandbox command`: becomes the command or nothing.
pub fn main() -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let link = ControlEnd::<Report, Order>::new(UnixStream::from(socket));
    let Ok((order, Some(input))) = link.receive() else {
        return ExitCode::FAILURE;
    };
    let ready = prepare(&order, input).map(Report::Ready);
    let report = ready.unwrap_or_else(Report::Failed);
    let told = link.send(&report);
    match (report, told) {
        (Report::Ready(_), Ok(())) => crate::native::init::exec(&order.argv, &Way::None).into(),
        (Report::Failed(_), _) | (_, Err(_)) => ExitCode::FAILURE,
    }
}

fn prepare(order: &Order, input: OwnedFd) -> Result<Facts, Failure> {
    sys::reset_all().map_err(Failure::at("resetting signals"))?;
    rustix::process::setsid().map_err(Failure::at("starting a session"))?;
    rustix::stdio::dup2_stdin(&input).map_err(Failure::at("setting the standard input"))?;
    drop(input);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::chdir(WORKSPACE).map_err(Failure::at("entering the workspace"))?;
    become_nobody()?;
    limit(&order.limits)?;
    keep_only(CapabilitySet::empty())?;
    rustix::thread::set_no_new_privs(true).map_err(Failure::at("setting no_new_privs"))?;
    let filter =
        seccomp::Program::compile(&profiles::of_box(order.kind)).map_err(Failure::because)?;
    // It cannot be unset, and the tools' list does not let it be asked for.
    let no_new_privs =
        rustix::thread::no_new_privs().map_err(Failure::at("reading no_new_privs"))?;
    filter.install().map_err(Failure::because)?;
    let facts = read(&filter, no_new_privs).map_err(Failure::at("reading about the box"))?;
    check(&facts)?;
    Ok(facts)
}

/// As [`crate::confine`] does it, but for the ambient set, which gVisor does not have.
fn keep_only(keep: CapabilitySet) -> Result<(), Failure> {
    let had = capabilities(None).map_err(Failure::at("reading capabilities"))?;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        sys::drop_bounding_set(keep).map_err(Failure::at("dropping the bounding set"))?;
    }
    let left = had.permitted & keep;
    let sets = CapabilitySets {
        effective: left,
        permitted: left,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(Failure::at("dropping capabilities"))
}

/// One user, [`INSIDE_ID`], and no groups but its own.
fn become_nobody() -> Result<(), Failure> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let write = |path: &str, text: String| {
        std::fs::write(path, &text).map_err(Failure::at(format!("writing {text:?} to {path}")))
    };
    sys::unshare(UnshareFlags::NEWUSER).map_err(Failure::at("making a user namespace"))?;
    write("/proc/self/uid_map", format!("{INSIDE_ID} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{INSIDE_ID} {gid} 1"))?;
    set_thread_groups(&[]).map_err(Failure::at("giving up groups"))
}

/// Those that gVisor has. It does not count processes; the container's cgroup does.
fn limit(limits: &Limits) -> Result<(), Failure> {
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Cpu, u64::from(limits.cpu_seconds)),
        (Resource::Data, limits.memory_bytes),
        (
            Resource::As,
            limits.memory_bytes.saturating_mul(ADDRESS_SPACE),
        ),
        (Resource::Fsize, limits.workspace_bytes),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Memlock, 0),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit)
            .map_err(Failure::at(format!("limiting {resource:?} to {most}")))?;
    }
    Ok(())
}

fn read(filter: &seccomp::Program, no_new_privs: bool) -> io::Result<Facts> {
    let status = Status::read()?;
    Ok(Facts {
        namespaces: around::namespaces(),
        capabilities: status.capabilities(),
        no_new_privs,
        seccomp_mode: status.seccomp_mode(),
        seccomp: filter.digest(),
        uids: status.uids(),
        root_read_only: around::root_read_only()?,
        interfaces: around::interfaces()?,
    })
}

fn check(facts: &Facts) -> Result<(), Failure> {
    const FILTER: u32 = 2;
    let left = |(_, set): &(String, String)| set.bytes().any(|c| c != b'0');
    let lacking = [
        (facts.capabilities.len() < 4 || facts.capabilities.iter().any(left))
            .then(|| format!("capabilities are left: {:?}", facts.capabilities)),
        (!facts.no_new_privs).then(|| "no_new_privs is not set".to_owned()),
        (facts.seccomp_mode != FILTER).then(|| "there is no seccomp filter".to_owned()),
        (facts.uids != [INSIDE_ID; 4]).then(|| format!("the user ids are {:?}", facts.uids)),
        (!facts.root_read_only).then(|| "the root can be written to".to_owned()),
        (!facts.interfaces.is_empty())
            .then(|| format!("there are network interfaces: {:?}", facts.interfaces)),
    ];
    match lacking.into_iter().flatten().next() {
        Some(what) => Err(Failure::because(what)),
        None => Ok(()),
    }
}
