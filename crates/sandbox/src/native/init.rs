//! Process 1 of a box.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, WaitOptions, getppid, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit, wait,
};
use rustix::thread::CapabilitySet;

use super::mounts::{TOOL, WORKSPACE};
use super::spec::{BoxEnd, BoxSpec, End, Failure, Kind, Report};
use super::{facts, mounts, namespaces};
use crate::landlock_domain::{self, Domain, Right};
use crate::{profiles, seccomp, sys};

/// The whole environment of a command.
pub(crate) const ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/tmp"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
];
/// Bytes of one file.
pub(crate) const FILE_SIZE: u64 = 1024 * 1024 * 1024;
/// How many times its memory a process may have of addresses.
pub(crate) const ADDRESS_SPACE: u64 = 32;
/// Open descriptors of a process.
pub(crate) const DESCRIPTORS: u64 = 256;
/// The dynamic loaders of the C libraries, which a program that is not static is started through.
const LOADERS: [&str; 3] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-musl-x86_64.so.1",
];

/// Builds the box, runs the command, and ends; never returns to the caller's path.
pub(crate) fn main(service: &BoxEnd, spec: &BoxSpec, input: OwnedFd, keeper: OwnedFd) -> ! {
    let code = match die_with_keeper(keeper).and_then(|()| run(service, spec, input)) {
        Ok(end) => {
            // If the service is gone, there is nobody to tell.
            let _ = service.send(&Report::Ended(end));
            0
        }
        Err(failure) => {
            let _ = service.send(&Report::Failed(failure));
            1
        }
    };
    std::process::exit(code)
}

fn run(service: &BoxEnd, spec: &BoxSpec, input: OwnedFd) -> Result<End, Failure> {
    if rustix::process::geteuid().as_raw() != namespaces::INSIDE_ID {
        return Err(Failure::because("the user id was not mapped"));
    }
    if spec.host_root {
        namespaces::limit_ids(spec.limits.pids)?;
    }
    rustix::system::sethostname(b"box").map_err(Failure::at("naming the box"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    mounts::build(spec)?;
    let abi = give_up(spec)?;
    let compile =
        |kind| seccomp::Program::compile(&profiles::of_box(kind)).map_err(Failure::because);
    let any = compile(Kind::Exec)?;
    // Init needs the list of any program; the tools' own is shorter and goes on the command alone.
    let filter = match spec.kind {
        Kind::Exec => {
            any.install().map_err(Failure::because)?;
            Filter::Inherited(&any)
        }
        Kind::Tool => Filter::Own(compile(Kind::Tool)?),
    };
    match sys::fork().map_err(Failure::at("starting the command"))? {
        sys::Fork::Child => become_command(service, spec, input, abi, &filter),
        sys::Fork::Parent(command) => {
            drop(input);
            close_stdio()?;
            match filter {
                Filter::Inherited(_) => {}
                Filter::Own(_) => any.install().map_err(Failure::because)?,
            }
            reap_until(command)
        }
    }
}

/// The command's system calls.
enum Filter<'a> {
    /// Init has installed it already.
    Inherited(&'a seccomp::Program),
    /// The command installs it.
    Own(seccomp::Program),
}

/// Everything that is the same for init and the command: no capability, no way to get one, the
/// Landlock domain and the limits.
fn give_up(spec: &BoxSpec) -> Result<u32, Failure> {
    limits(spec)?;
    crate::confine::keep_only(CapabilitySet::empty()).map_err(Failure::because)?;
    rustix::thread::set_no_new_privs(true).map_err(Failure::at("setting no_new_privs"))?;
    // The command gets its own back by execve(2); init stays closed to it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Failure::at("closing init"))?;
    let abi = landlock_domain::abi().map_err(Failure::because)?;
    Domain::of_paths(paths(spec.kind))
        .enter(abi)
        .map_err(Failure::because)?;
    Ok(abi)
}

fn paths(kind: Kind) -> Vec<(PathBuf, Right)> {
    let (everywhere, work) = match kind {
        Kind::Exec => (Right::ReadExecute, Right::Work),
        Kind::Tool => (Right::Read, Right::WorkNoExecute),
    };
    let mut paths = vec![
        ("/".into(), everywhere),
        (WORKSPACE.into(), work),
        ("/tmp".into(), work),
    ];
    paths.extend(
        ["/dev/null", "/dev/zero", "/dev/full"].map(|path| (path.into(), Right::ReadWrite)),
    );
    match kind {
        Kind::Exec => {}
        Kind::Tool => {
            let loaders = LOADERS
                .iter()
                .map(PathBuf::from)
                .filter(|path| path.exists());
            paths.extend(
                loaders
                    .chain([TOOL.into()])
                    .map(|path| (path, Right::ReadExecute)),
            );
        }
    }
    paths
}

fn limits(spec: &BoxSpec) -> Result<(), Failure> {
    let limits = &spec.limits;
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Cpu, u64::from(limits.cpu_seconds)),
        // What a process holds. Its address space may be larger, since runtimes reserve much more than they use.
        (Resource::Data, limits.memory_bytes),
        (
            Resource::As,
            limits.memory_bytes.saturating_mul(ADDRESS_SPACE),
        ),
        (Resource::Nproc, u64::from(limits.pids)),
        (Resource::Fsize, FILE_SIZE),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ] {
        setrlimit(
            resource,
            Rlimit {
                current: Some(most),
                maximum: Some(most),
            },
        )
        .map_err(Failure::at(format!("limiting {resource:?} to {most}")))?;
    }
    Ok(())
}

/// Never returns: as the command or not at all.
fn become_command(
    service: &BoxEnd,
    spec: &BoxSpec,
    input: OwnedFd,
    abi: u32,
    filter: &Filter<'_>,
) -> ! {
    if let Err(failure) = prepare(service, spec, &input, abi, filter) {
        let _ = service.send(&Report::Failed(failure));
        std::process::exit(1);
    }
    drop(input);
    exec(&spec.argv)
}

/// Becomes the command, with its own environment and nothing else of ours.
pub(crate) fn exec(argv: &[String]) -> ! {
    // A specification without a program is refused before a box is built.
    let (program, arguments) = argv
        .split_first()
        .map_or(("", &[][..]), |(program, rest)| (program.as_str(), rest));
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(ENVIRONMENT)
        .exec();
    // The codes of a shell: 127 for a program that is not there, 126 for one that cannot be run.
    eprintln!("{program}: {error}");
    std::process::exit(if error.kind() == std::io::ErrorKind::NotFound {
        127
    } else {
        126
    })
}

fn prepare(
    service: &BoxEnd,
    spec: &BoxSpec,
    input: &OwnedFd,
    abi: u32,
    filter: &Filter<'_>,
) -> Result<(), Failure> {
    rustix::process::setsid().map_err(Failure::at("starting a session"))?;
    rustix::stdio::dup2_stdin(input).map_err(Failure::at("setting the standard input"))?;
    rustix::process::chdir(WORKSPACE).map_err(Failure::at("entering the workspace"))?;
    let filter = match filter {
        Filter::Inherited(filter) => filter,
        Filter::Own(filter) => {
            filter.install().map_err(Failure::because)?;
            filter
        }
    };
    let facts = facts::read(abi, filter)?;
    facts::check(&facts, spec)?;
    service
        .send(&Report::Ready(facts))
        .map_err(Failure::because)
}

/// Waits for the command, and meanwhile for every orphan.
fn reap_until(command: Pid) -> Result<End, Failure> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ok(End::Exited(code)),
                    (None, Some(signal)) => Ok(End::Signalled(signal)),
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

/// Has the kernel kill this process when its parent ends, which should be this one.
pub(crate) fn die_with_parent(parent: u32) -> Result<(), Failure> {
    tie_to_parent()?;
    match getppid() {
        Some(pid) if pid.as_raw_nonzero().get().unsigned_abs() == parent => Ok(()),
        Some(_) | None => Err(too_late()),
    }
}

/// The same for init, in whose namespace its parent has no id.
fn die_with_keeper(keeper: OwnedFd) -> Result<(), Failure> {
    tie_to_parent()?;
    let mut events = [PollFd::new(&keeper, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut events, Some(&now)).map_err(Failure::at("watching the keeper"))? {
        0 => Ok(()),
        _ => Err(too_late()),
    }
}

fn tie_to_parent() -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Failure::at("tying the box to its parent"))
}

fn too_late() -> Failure {
    Failure::because("the parent ended before the box began")
}

/// Lets go of the command's pipes, so that they end with the command.
pub(crate) fn close_stdio() -> Result<(), Failure> {
    let replace = || {
        let null = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        Ok::<(), std::io::Error>(())
    };
    replace().map_err(Failure::at("closing the command's pipes"))
}
