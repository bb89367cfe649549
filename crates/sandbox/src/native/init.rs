//! Process 1 of a box, and the command that it starts.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use protocol::frame::LinkError;
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, WaitOptions, getppid, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit, wait,
};
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::mounts::{TOOL, WORKSPACE};
use super::namespaces::Owner;
use super::spec::{BoxEnd, BoxSpec, Count, End, Facts, Failure, Kind, Report, ToBox};
use super::way::{self, Way};
use super::{facts, mounts, namespaces};
use crate::ablation::{self, Layer};
use crate::cgroup::MYSELF;
use crate::landlock_domain::{self, Domain, Right};
use crate::{profiles, seccomp, sys};

/// The whole environment of a command.
const ENVIRONMENT: [(&str, &str); 10] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/tmp"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    // Looking at a repository writes nothing to it.
    ("GIT_OPTIONAL_LOCKS", "0"),
    // A folder that only looks like a repository could be written by a tool, with a configuration
    // that names programs. One that is called .git is asked about.
    ("GIT_CONFIG_COUNT", "2"),
    ("GIT_CONFIG_KEY_0", "safe.bareRepository"),
    ("GIT_CONFIG_VALUE_0", "explicit"),
    ("GIT_CONFIG_KEY_1", "core.fsmonitor"),
    ("GIT_CONFIG_VALUE_1", "false"),
];
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

/// What the builder made: the first process of new namespaces. Builds the box, runs the command, and
/// ends; never returns to the caller's path.
pub(crate) fn main(link: OwnedFd, owner: Owner, filters: &Filters) -> ! {
    let link = BoxEnd::new(UnixStream::from(link));
    let code = match run(&link, owner, filters) {
        Ok(End::Exited(_) | End::Signalled(_)) => 0,
        Err(failure) => {
            // If the service is gone, there is nobody to tell.
            let _ = link.send(&Report::Failed(failure));
            1
        }
    };
    sys::exit_now(code)
}

fn run(link: &BoxEnd, owner: Owner, filters: &Filters) -> Result<End, Failure> {
    // The builder lives as long as the service. If it ended before this line, the link is closed.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Failure::at("tying the box to its builder"))?;
    sys::reset_all().map_err(Failure::at("resetting signals"))?;
    let (spec, stdio) = match link.receive_all() {
        Ok((ToBox::Build { spec }, fds)) => (spec, Stdio::of(enter_cgroups(fds)?)?),
        Ok((ToBox::Go { .. } | ToBox::Served { .. }, _)) => {
            return Err(Failure::because("told to go before it is built"));
        }
        Err(error) => return Err(Failure::because(error)),
    };
    namespaces::map(owner)?;
    if ablation::on(Layer::Cgroup) {
        // Once it is in its cgroup, so that this is the root of all that can be seen.
        sys::unshare(UnshareFlags::NEWCGROUP)
            .map_err(Failure::at("making a namespace of cgroups"))?;
    }
    if rustix::process::geteuid().as_raw() != namespaces::INSIDE_ID {
        return Err(Failure::because("the user id was not mapped"));
    }
    match spec.count {
        Count::Ids if ablation::on(Layer::ProcessIds) && ablation::on(Layer::Pid) => {
            namespaces::limit_ids(spec.limits.pids)?;
        }
        Count::Ids | Count::Cgroup | Count::ProcessLimit => {}
    }
    let early = facts::Early::read(&spec.workspace)?;
    rustix::system::sethostname(b"box").map_err(Failure::at("naming the box"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let way = way::open(link, spec.kind)?;
    mounts::build(&spec, &way)?;
    let abi = give_up(&spec)?;
    // Init needs the list of any program; the tools' own is shorter and goes on the command alone.
    let install = |filter: &seccomp::Program| filter.install().map_err(Failure::because);
    match spec.kind {
        Kind::Exec => install(&filters.exec)?,
        Kind::Online => install(&filters.online)?,
        Kind::Tool => {}
    }
    let confine = || {
        let filter = match spec.kind {
            Kind::Exec => &filters.exec,
            Kind::Online => &filters.online,
            Kind::Tool => {
                install(&filters.tool)?;
                &filters.tool
            }
        };
        let facts = facts::read(abi, filter, &early, &spec)?;
        if ablation::on(Layer::Check) {
            facts::check(&facts, &spec)?;
        }
        Ok(facts)
    };
    let command = sys::start_sharing(|| become_command(link, &stdio, &way, confine))
        .map_err(Failure::at("starting the command"))?;
    drop(stdio);
    close_stdio()?;
    match spec.kind {
        Kind::Exec | Kind::Online => {}
        Kind::Tool => install(&filters.exec)?,
    }
    let end = reap_until(command)?;
    // If the service is gone, there is nobody to tell.
    let _ = link.send(&Report::Ended(end));
    Ok(end)
}

/// Enters the cgroups whose files come after the standard descriptors, which are left.
fn enter_cgroups(mut fds: Vec<OwnedFd>) -> Result<Vec<OwnedFd>, Failure> {
    let doors = fds.split_off(fds.len().min(3));
    for door in doors {
        rustix::io::write(&door, MYSELF).map_err(Failure::at("entering the cgroup of the box"))?;
    }
    Ok(fds)
}

/// The command's standard input, output and error.
struct Stdio([OwnedFd; 3]);

impl Stdio {
    fn of(fds: Vec<OwnedFd>) -> Result<Self, Failure> {
        let fds = fds.try_into();
        fds.map(Self)
            .map_err(|_| Failure::because("a command has three standard descriptors"))
    }

    fn put_in_place(&self) -> std::io::Result<()> {
        let Self([input, output, error]) = self;
        rustix::stdio::dup2_stdin(input)?;
        rustix::stdio::dup2_stdout(output)?;
        rustix::stdio::dup2_stderr(error)?;
        Ok(())
    }
}

/// The lists of system calls, compiled once for all boxes of a builder.
#[derive(Debug)]
pub(crate) struct Filters {
    exec: seccomp::Program,
    online: seccomp::Program,
    tool: seccomp::Program,
}

impl Filters {
    /// Compiles them.
    pub(crate) fn compile() -> Result<Self, Failure> {
        let compile =
            |kind| seccomp::Program::compile(&profiles::of_box(kind)).map_err(Failure::because);
        Ok(Self {
            exec: compile(Kind::Exec)?,
            online: compile(Kind::Online)?,
            tool: compile(Kind::Tool)?,
        })
    }
}

/// Everything that is the same for init and the command: no capability, no way to get one, the
/// Landlock domain and the limits.
fn give_up(spec: &BoxSpec) -> Result<u32, Failure> {
    if ablation::on(Layer::Rlimits) {
        limits(spec)?;
    }
    if ablation::on(Layer::Capabilities) {
        crate::confine::keep_only(CapabilitySet::empty()).map_err(Failure::because)?;
    }
    if ablation::on(Layer::NoNewPrivs) {
        rustix::thread::set_no_new_privs(true).map_err(Failure::at("setting no_new_privs"))?;
    }
    // The command gets its own back by execve(2); init stays closed to it.
    if ablation::on(Layer::ClosedInit) {
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(Failure::at("closing init"))?;
    }
    let abi = landlock_domain::abi().map_err(Failure::because)?;
    let files = Domain::of_paths(paths(spec.kind));
    let domain = match spec.kind {
        Kind::Exec | Kind::Tool => files,
        Kind::Online => files.with_way_to_egress(),
    };
    domain.enter(abi).map_err(Failure::because)?;
    Ok(abi)
}

fn paths(kind: Kind) -> Vec<(PathBuf, Right)> {
    let (everywhere, work) = match kind {
        Kind::Exec | Kind::Online => (Right::ReadExecute, Right::Work),
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
        Kind::Exec | Kind::Online => {}
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
        (Resource::Fsize, limits.workspace_bytes),
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

/// Becomes the command, or says with which code to end instead. `confine` is the last of giving up.
fn become_command(
    link: &BoxEnd,
    stdio: &Stdio,
    way: &Way,
    confine: impl FnOnce() -> Result<Facts, Failure>,
) -> u8 {
    match prepare(link, stdio, confine) {
        Ok(Some(argv)) => exec(&argv, way),
        // Nobody wants it any more.
        Ok(None) => 0,
        Err(failure) => {
            let _ = link.send(&Report::Failed(failure));
            1
        }
    }
}

/// Becomes the command, with its own environment and nothing else of ours; the code to end with if that fails.
pub(crate) fn exec(argv: &[String], way: &Way) -> u8 {
    // A specification without a program is refused before it gets here.
    let (program, arguments) = argv
        .split_first()
        .map_or(("", &[][..]), |(program, rest)| (program.as_str(), rest));
    let mut command = Command::new(program);
    if ablation::on(Layer::Environment) {
        command.env_clear();
    }
    let environment = ENVIRONMENT.iter().copied();
    let error = command
        .args(arguments)
        .envs(environment)
        .envs(way.environment())
        .exec();
    // The codes of a shell: 127 for a program that is not there, 126 for one that cannot be run.
    protocol::log!("{program}: {error}");
    match error.kind() {
        std::io::ErrorKind::NotFound => 127,
        _ => 126,
    }
}

/// What to become, or nothing if nobody is there any more.
fn prepare(
    link: &BoxEnd,
    stdio: &Stdio,
    confine: impl FnOnce() -> Result<Facts, Failure>,
) -> Result<Option<Vec<String>>, Failure> {
    if ablation::on(Layer::Session) {
        rustix::process::setsid().map_err(Failure::at("starting a session"))?;
    }
    stdio
        .put_in_place()
        .map_err(Failure::at("setting the standard descriptors"))?;
    rustix::process::chdir(WORKSPACE).map_err(Failure::at("entering the workspace"))?;
    let facts = confine()?;
    link.send(&Report::Ready(Box::new(facts)))
        .map_err(Failure::because)?;
    match link.receive_all() {
        Ok((ToBox::Go { argv }, _)) => Ok(Some(argv)),
        Err(LinkError::Closed | LinkError::Io(_)) => Ok(None),
        Ok((ToBox::Build { .. } | ToBox::Served { .. }, _)) => {
            Err(Failure::because("told twice what to build"))
        }
        Err(error) => Err(Failure::because(error)),
    }
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
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Failure::at("tying the builder to its parent"))?;
    match getppid() {
        Some(pid) if pid.as_raw_nonzero().get().unsigned_abs() == parent => Ok(()),
        Some(_) | None => Err(Failure::because(
            "the parent ended before the builder began",
        )),
    }
}

/// Puts nothing in the place of the standard input.
pub(crate) fn close_stdin() -> Result<(), Failure> {
    let null = null().map_err(Failure::at("opening /dev/null"))?;
    rustix::stdio::dup2_stdin(&null).map_err(Failure::at("closing the standard input"))
}

/// Lets go of the standard descriptors.
fn close_stdio() -> Result<(), Failure> {
    let replace = || {
        let null = null()?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        Ok::<(), std::io::Error>(())
    };
    replace().map_err(Failure::at("closing the standard descriptors"))
}

fn null() -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).open("/dev/null")
}
